"""What was built for the local cluster, to tell whether anything was built again."""

from __future__ import annotations

from localcluster.paths import cache


def builds() -> dict[str, int]:
    """Return when each file in the cache of programs and images was written, in nanoseconds."""
    files = (path for path in (cache() / "bin").rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): path.stat().st_mtime_ns for path in files}
