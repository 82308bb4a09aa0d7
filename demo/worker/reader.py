"""The model: reads the text in a picture.

The weights (PP-OCR, Apache-2.0) are inside the ``rapidocr`` wheel, so nothing is downloaded at run time. This module
is used twice: by the worker in the cluster, and by the demo outside it, to check the cluster's answers.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import threading
from pathlib import Path

THREADS = 2


class Reader:
    """The loaded model. Reading is serialised: one picture uses the cores better than two at a time."""

    def __init__(self) -> None:
        """Load the weights."""
        # Takes half a second, and only the service with the model needs it.
        from rapidocr import RapidOCR  # type: ignore[import-not-found]  # noqa: PLC0415

        logging.getLogger("RapidOCR").setLevel(logging.WARNING)
        threads = min(THREADS, os.cpu_count() or 1)
        self._engine = RapidOCR(
            params={"Global.log_level": "warning", "EngineConfig.onnxruntime.intra_op_num_threads": threads}
        )
        self._lock = threading.Lock()

    def read(self, picture: bytes) -> list[str]:
        """Return the lines of text in a picture (PNG, JPEG, …), from top to bottom."""
        with self._lock:
            result = self._engine(picture)
        if result.txts is None:
            return []
        tops = [min(float(point[1]) for point in box) for box in result.boxes]
        return [text for _, text in sorted(zip(tops, result.txts, strict=True))]


def main() -> None:
    """Print what the model reads in each of the given files, as one JSON object."""
    parser = argparse.ArgumentParser(description="Read the text in pictures.")
    parser.add_argument("picture", nargs="+", type=Path)
    pictures: list[Path] = parser.parse_args().picture
    reader = Reader()
    print(json.dumps({str(path): reader.read(path.read_bytes()) for path in pictures}))


if __name__ == "__main__":
    main()
