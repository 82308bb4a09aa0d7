"""``make bench [ROWS=pattern]``: one line per figure, with a reference that was measured in the same run.

``row=NAME value=V unit=U reference=R ratio=X target=T ok|short``, where ratio is value / reference. The exit status is
0 whatever the figures are: they are for reading, and gates belong to tests.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys

from tests.bench import hostile, operator, s3, store, throughput, translate

ROWS = [*translate.ROWS, *hostile.ROWS, *store.ROWS, *throughput.ROWS, *s3.ROWS, *operator.ROWS]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure.")
    parser.add_argument("rows", nargs="?", default="*", help="which rows, as a pattern (default: all)")
    parser.add_argument(
        "--list", action="store_true", help="say what there is, and what each is held against"
    )
    options = parser.parse_args()
    chosen = [row for row in ROWS if fnmatch.fnmatch(row.name, options.rows)]
    if not chosen:
        print(
            f"no row is called {options.rows}; there are {', '.join(row.name for row in ROWS)}",
            file=sys.stderr,
        )
        return 2
    for row in chosen:
        print(f"{row.name}: {row.why}" if options.list else row.run()[0], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
