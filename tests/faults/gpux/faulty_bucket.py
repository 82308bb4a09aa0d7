"""A store, or a move, that kills itself before or after the request that is the n-th to write something.

Started as ``faulty_bucket.py ARMED N before|after ARGUMENT…``; requests count while the file ARMED exists.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from gpux.s3.bucket import Bucket
from gpux.store.__main__ import main

armed, nth, when, *arguments = sys.argv[1:]
send = Bucket._send
lock = threading.Lock()
count = 0


def counting(self, method, *args, **options):
    global count  # noqa: PLW0603 a script
    hit = False
    if method in {"PUT", "POST", "DELETE"} and os.path.exists(armed):  # noqa: PTH110 as short as can be
        with lock:
            count += 1
            hit = count == int(nth)
    if hit and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    response = send(self, method, *args, **options)
    if hit:
        os.kill(os.getpid(), signal.SIGKILL)
    return response


Bucket._send = counting  # type: ignore[method-assign]
sys.exit(main(arguments))
