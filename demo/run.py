"""Starts the demo: ``demo/run.py up`` shows it, ``demo/run.py down`` removes what it made.

Only a script's own folder is on Python's path; the demo's modules are found from the folder above it.
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    runpy.run_module("demo.show", run_name="__main__", alter_sys=True)
