"""A store over a bucket whose readers never see the bucket, but what the cache has of it."""

from __future__ import annotations

import time

from gpux.s3.blobs import S3Blobs
from gpux.s3.cache import Cache
from tests.support.patience import PATIENCE


def until(condition):
    deadline = time.monotonic() + 60 * PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def idle(cache):
    """Wait until nothing is being fetched."""
    until(lambda: not cache._fetching)


class WarmBlobs(S3Blobs):
    """Reads each content twice before anybody else does, so that it is in the cache."""

    def __init__(self, bucket, *, folder, **options):
        self.warmed = Cache(str(folder), 256 << 20)
        super().__init__(bucket, cache=self.warmed, **options)

    def open(self, namespace, name):
        for _ in range(2):
            found = super().open(namespace, name)
            if found is None or found[1].file() is not None:
                return found
            for _ in found[1].read(0, found[0].size):
                pass
        idle(self.warmed)
        return super().open(namespace, name)
