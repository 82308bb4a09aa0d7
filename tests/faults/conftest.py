"""The fixtures of the end-to-end tests, for faults that need the whole cluster."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.e2e.fixtures import cluster, diagnosis, files, images, namespace, operator

__all__ = ["cluster", "files", "images", "namespace", "operator"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the state of the test's namespace to a failure."""
    report = yield
    arguments: dict[str, Any] = getattr(item, "funcargs", {})
    if report.failed and "operator" in arguments and "namespace" in arguments:
        text = diagnosis(arguments["operator"], arguments["namespace"])
        report.sections.append(("the namespace, its pods and the operator", text))
    return report
