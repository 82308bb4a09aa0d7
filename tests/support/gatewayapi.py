"""The Gateway API's own definitions, from its Go module, pinned and checked as the local cluster's programs are."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from localcluster import toolchain
from localcluster.errors import Failure
from tests.support.environment import unavailable

MODULE = "sigs.k8s.io/gateway-api"
#: What the tests make objects of.
PLURALS = ("gatewayclasses", "gateways", "httproutes", "grpcroutes")
_PINNED = Path(__file__).parents[1] / "controlplane" / "gatewayapi"


@functools.cache
def definitions() -> list[dict[str, Any]]:
    """Return the CustomResourceDefinitions; where they can't be fetched the test ends."""
    try:
        done = subprocess.run(
            [toolchain.go(), "mod", "download", "-json", MODULE],
            cwd=_PINNED,
            env={**os.environ, "GOFLAGS": "-mod=readonly"},
            capture_output=True,
            text=True,
            check=False,
        )
    except Failure as failure:
        unavailable(f"there is no Go to fetch the Gateway API's definitions with: {failure}")
    found = json.loads(done.stdout or "{}")
    if "Dir" not in found:
        unavailable(f"the Gateway API's definitions can't be fetched: {found.get('Error')} {done.stderr}")
    directory = Path(found["Dir"]) / "config" / "crd" / "standard"
    return [
        yaml.safe_load((directory / f"gateway.networking.k8s.io_{plural}.yaml").read_text())
        for plural in PLURALS
    ]
