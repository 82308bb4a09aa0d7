"""Where the corpus of public Compose files is: set OPENGPU_CORPUS; else it is looked for beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "corpus"
CORPUS = Path(os.environ.get("OPENGPU_CORPUS") or _BESIDE)
NO_CORPUS = f"the corpus of public Compose files is not there (OPENGPU_CORPUS names its folder): {CORPUS}"
