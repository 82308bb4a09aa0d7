"""The headless Service by which a job's pods find each other.

It has no ports, since siblings dial any port of each other's pods; ready or not, as in Docker.
"""

from __future__ import annotations

from typing import Any

from opengpu_operator.desired import labels
from opengpu_operator.desired.context import JobContext


def build(context: JobContext) -> dict[str, Any]:
    """Return the Service whose name is the pods' subdomain."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels.metadata(
            context.name, context, labels=labels.of_job(context), owner=context.owner_reference
        ),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels.selector(context),
        },
    }
