"""Running other programs to their end."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from localcluster.errors import Failure

Argument: TypeAlias = str | Path


def run(
    argv: Sequence[Argument],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Return a program's standard output, or fail with what it said on standard error."""
    done = subprocess.run(
        [str(arg) for arg in argv],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise Failure(f"`{' '.join(str(arg) for arg in argv)[:200]}` failed ({done.returncode}): {said}")
    return done.stdout


def succeeds(argv: Sequence[Argument]) -> bool:
    """Tell whether a program ends with success; what it says is of no interest."""
    done = subprocess.run(
        [str(arg) for arg in argv], capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    return done.returncode == 0
