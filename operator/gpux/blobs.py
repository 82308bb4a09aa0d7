"""What a store of files has to be able to do, whatever keeps the bytes: the interface of its backends.

Bytes are named by their hash and never changed. They are kept once, but each namespace has entries of its own: what
it has uploaded. A hash is no secret, so only its entries decide what a namespace can read, and nobody learns what
others have. An entry lives as long as something refers to it: a task, an owner, or the operator; then the sweep takes
it, and with the last entry the bytes. References are also what quotas count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, Protocol

from gpux.hashes import FileHash, b58encode
from gpux.splice import Pipe

#: Where public files have a second entry; no namespace of a tenant can have this name.
PUBLIC = "_public"

_REFERENCE = re.compile(r"(?:task|owner|keep):[A-Za-z0-9._:@-]{1,128}")
_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


class StorageFullError(Exception):
    """There is no room for these bytes; nothing of them has stayed."""


class QuotaError(StorageFullError):
    """There is room, but not for this task or owner. The message says whose quota and how much it is."""


class HashConflictError(Exception):
    """Another content with this SHA-1 is stored already. It stays; the new one is refused."""


class Blob(NamedTuple):
    """One stored content."""

    sha1: str
    sha256: str
    size: int

    def document(self) -> dict[str, str | int]:
        """As clients see it."""
        base58 = b58encode(bytes.fromhex(self.sha1))
        return {
            "sha1": self.sha1,
            "sha1_b58": base58,
            "sha256": self.sha256,
            "size": self.size,
            "url": f"gpux://{base58}",
        }


class Keeper(NamedTuple):
    """On whose behalf something is stored."""

    namespace: str
    references: Mapping[str, int | None]
    """Reference → the most bytes that may be kept for it, None for any number. Without references the entry is left
    to the sweep, unless somebody else refers to it."""
    public: bool = False
    """Also enter it in `PUBLIC`, with the same references; only the entry in the namespace counts for quotas."""


class Entry(NamedTuple):
    """What a namespace has stored."""

    blob: Blob
    created: float
    used: float
    """When it was last stored, read or let go, in Unix seconds; up to a day and an hour too early."""
    references: Sequence[str]

    def document(self) -> dict[str, object]:
        """As lists show it."""
        times = {"created": round(self.created), "used": round(self.used)}
        return {**self.blob.document(), **times, "references": list(self.references)}


class Retention(NamedTuple):
    """How long is kept what nobody needs."""

    grace: float
    """Seconds after its last use for which an entry without references stays."""
    unused: float | None
    """Seconds after the last use for which an owner's reference stays; None: for ever."""


class Swept(NamedTuple):
    """What a sweep has removed."""

    references: int = 0
    entries: int = 0
    objects: int = 0
    size: int = 0
    """Bytes of the objects."""


class Scrubbed(NamedTuple):
    """What was read again."""

    objects: int = 0
    size: int = 0
    quarantined: int = 0
    """How many had other bytes than their name says, and were moved aside."""
    unreadable: int = 0
    """How many couldn't be read; they stay."""


class Usage(NamedTuple):
    """What there is, each content once."""

    objects: int
    size: int


class Content(Protocol):
    """An open content. It stays readable, whatever is removed meanwhile. Reading blocks."""

    def file(self) -> BinaryIO | None:
        """A file of exactly these bytes, for the kernel to send from; None if there is none. `close` closes it."""

    def read(self, start: int, end: int) -> Generator[bytes]:
        """Yield the bytes from start to end (which is not among them), in pieces of at most a megabyte."""

    def stream(self, start: int, end: int, pipe: Pipe) -> Generator[bytes | None]:
        """As `read`, but a piece may be in the pipe instead: None then. It is there when the next one is asked for."""

    def close(self) -> None:
        """Let it go."""


class Upload(Protocol):
    """Bytes on their way in. One thread at a time, except that the two hashes may be fed by two."""

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Keep the next bytes. Raises StorageFullError."""

    def update_sha1(self, chunk: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes."""

    def update_sha256(self, chunk: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes."""

    def commit(self, keeper: Keeper) -> tuple[Blob, bool]:
        """Make them durable; the blob, and whether it is new to the namespace.

        Raises StorageFullError, QuotaError, HashConflictError; then nothing of it can be read, or counts.
        """

    def abort(self) -> None:
        """Forget them. Safe to call at any time, also after commit."""


class Blobs(Protocol):
    """A backend. The methods block, and may be called from several threads."""

    def begin(self, *, size: int | None) -> Upload:
        """Start an upload of that many bytes, if known. Raises StorageFullError."""

    def open(self, namespace: str, name: FileHash) -> tuple[Blob, Content] | None:
        """A content that the namespace has stored, or None. Opening it is a use."""

    def refer(self, keeper: Keeper, blobs: Sequence[Blob]) -> None:
        """Refer to entries of the namespace, all or none of them.

        Raises QuotaError, StorageFullError, and KeyError if one isn't there.
        """

    def forget(self, namespace: str, blobs: Sequence[Blob]) -> None:
        """Remove at once those of the entries that nothing refers to, for who stored them and can't finish.

        The bytes may stay until a sweep, where nobody can read them any more.
        """

    def drop(self, reference: str, *, namespace: str | None = None) -> int:
        """End a reference to whatever it is to, in one namespace or all; how many there were. May be repeated."""

    def entries(
        self, namespace: str, *, references: Sequence[str] | None = None, after: str = "", limit: int
    ) -> list[Entry]:
        """The first entries by SHA-1 above `after`; only those that any of the references refers to, if given."""

    def holders(self, kind: str) -> list[tuple[str, str]]:
        """Namespace and name of all that refers to something and is of the kind: ``task``, ``owner`` or ``keep``."""

    def sweep(self, retention: Retention) -> Swept:
        """Remove what nobody needs any more. What is being stored or read meanwhile stays whole."""

    def scrub(self, *, every: float, pause: Callable[[int], bool]) -> Scrubbed:
        """Read what was last read more than that many seconds ago, and move aside what has rotted.

        ``pause`` is called with the number of bytes just read; it may block, and ends the scrub by returning False.
        """

    def usage(self) -> Usage:
        """What there is. Cheap."""

    def free_bytes(self) -> int:
        """Room left."""


def is_reference(text: str) -> bool:
    """Whether a text is a reference: ``task:…``, ``owner:…`` or ``keep:…``. It is safe as the name of a file."""
    return _REFERENCE.fullmatch(text) is not None


def is_namespace(text: str) -> bool:
    """Whether a text can name a tenant."""
    return _NAMESPACE.fullmatch(text) is not None


def over_quota(reference: str, limit: int) -> QuotaError:
    """Say whose quota is too small."""
    kind, _, name = reference.partition(":")
    return QuotaError(f"quota: the {kind} {name} may keep {limit} bytes in the store and would have more")


def check_quotas(keeper: Keeper, size: int) -> None:
    """Refuse what is too large for a quota even if nothing else is kept. Raises QuotaError.

    Whether there is room beside the rest is known only by the hash: what is there already takes none.
    """
    for reference, limit in keeper.references.items():
        if limit is not None and size > limit:
            raise over_quota(reference, limit)
