"""Compose files for tests: the corpus of public ones, and those that this repository shows.

The corpus is where OPENGPU_CORPUS says; else it is looked for beside the checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

import yaml

_ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("OPENGPU_CORPUS") or _ROOT.parent / "shared" / "corpus")
NO_CORPUS = f"the corpus of public Compose files is not there (OPENGPU_CORPUS names its folder): {CORPUS}"


def examples() -> dict[str, str]:
    """Return the Compose files inside the examples, by the example's name."""
    return {
        path.name: document["data"]["compose.yaml"]
        for path in sorted((_ROOT / "examples").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] == "ConfigMap" and "compose.yaml" in document["data"]
    }


def own_files() -> dict[str, str]:
    """Return every Compose file of this repository, by a name."""
    plain = [
        path
        for folder in ("demo/compose", "tests/e2e/data")
        for path in sorted((_ROOT / folder).glob("*.yaml"))
    ]
    return examples() | {path.relative_to(_ROOT).as_posix(): path.read_text() for path in plain}
