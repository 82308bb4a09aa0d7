"""How many bytes each task and owner keeps: what quotas are held against.

Only in memory; at start it is counted anew. An upload takes what it needs in one step before anything of it is
written, so that two at once can't both have the last bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from gpux.blobs import over_quota


class Accounts:
    """Bytes by namespace and reference."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[tuple[str, str], int] = {}

    def take(
        self, namespace: str, sizes: Mapping[str, int], *, limits: Mapping[str, int | None] | None = None
    ) -> None:
        """Add bytes to references, to all or none of them. Raises QuotaError."""
        with self._lock:
            for reference, size in sizes.items():
                limit = (limits or {}).get(reference)
                if limit is not None and size and self._used.get((namespace, reference), 0) + size > limit:
                    raise over_quota(reference, limit)
            for reference, size in sizes.items():
                key = namespace, reference
                self._used[key] = self._used.get(key, 0) + size

    def give(self, namespace: str, reference: str, size: int) -> None:
        """Take bytes off a reference."""
        key = namespace, reference
        with self._lock:
            left = self._used.get(key, 0) - size
            if left > 0:
                self._used[key] = left
            else:
                self._used.pop(key, None)

    def used(self, namespace: str, reference: str) -> int:
        """How many bytes it keeps."""
        with self._lock:
            return self._used.get((namespace, reference), 0)
