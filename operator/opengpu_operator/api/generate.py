"""``python -m opengpu_operator.api.generate OUTDIR``: writes what is made from the models.

The CRDs go to OUTDIR, the reference for people to ``--docs FILE``; ``--check`` only compares.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from opengpu_operator.api.crd import DEFINITIONS, render
from opengpu_operator.api.reference import render_reference


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or check that they are what would be written."""
    parser = argparse.ArgumentParser(prog="python -m opengpu_operator.api.generate", description=__doc__)
    parser.add_argument("out", type=Path, help="directory of the definitions")
    parser.add_argument("--docs", type=Path, help="the reference for people, as Markdown")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    options = parser.parse_args(arguments)

    files: dict[Path, str] = {options.out / kind.file_name: render(kind) for kind in DEFINITIONS}
    if options.docs:
        files[options.docs] = render_reference(DEFINITIONS)
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        if options.check:
            sys.stderr.write(f"{path} differs from the models; run `make generate`\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
