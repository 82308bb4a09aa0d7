"""Folders: what a tar may hold to be taken in, the manifest it becomes, and the tar that comes out of one.

Archives come from strangers, and readers of tar disagree about what is odd; so only what all of them read alike is
taken: files and folders with plain relative paths, each once. What a manifest says is checked as strictly, since any
file can claim to be one.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

BLOCK = 512
LONGEST_HEADER = 64 << 10
"""Bytes of an extended header, which holds a long path and times."""
MOST_MEMBERS = 10_000
LONGEST_NAMES = 1 << 20
"""Bytes of all paths of a folder and of the folders in it: what a server has to remember of it."""
LONGEST_MANIFEST = 4 << 20
_LONGEST_PATH = 1024
_LONGEST_PART = 255
_DEEPEST = 64
_LARGEST = 1 << 50

_OTHER_NUMBERS = ((108, 116), (116, 124), (136, 148), (329, 337), (337, 345))
"""Where a header has user, group, time and device."""
_TITLE = "gpux-folder 1"
_LINE = re.compile(r"(?P<kind>file|program) (?P<sha1>[0-9a-f]{40}) (?P<size>[0-9]{1,15}) (?P<path>.+)")
_ODD = re.compile(r"[\x00-\x1f\x7f\\]")
_RECORD = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n\x00]{1,256})=")


class FolderError(ValueError):
    """The archive or manifest is refused. The message says where and why."""


class Member(NamedTuple):
    """One thing in an archive."""

    path: str
    size: int
    executable: bool
    directory: bool


class File(NamedTuple):
    """One file of a folder."""

    path: str
    sha1: str
    size: int
    executable: bool


class Folder(NamedTuple):
    """What a manifest says."""

    files: Sequence[File]
    directories: Sequence[str]

    def manifest(self) -> bytes:
        """Write it, a line for each member; the same folder gives the same bytes."""
        lines = [
            _TITLE,
            *(f"directory {path}" for path in sorted(self.directories)),
            *(
                f"{'program' if file.executable else 'file'} {file.sha1} {file.size} {file.path}"
                for file in sorted(self.files)
            ),
        ]
        return "".join(f"{line}\n" for line in lines).encode()


class Paths:
    """The paths of one folder, each once, and no file where a folder must be. Bounded in number and length."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._directories: set[str] = set()
        self._parents: set[str] = set()
        self._length = 0

    def add(self, path: str, *, directory: bool) -> None:
        """Take one more. Raises FolderError."""
        parents = path.split("/")[:-1]
        above = ["/".join(parents[: end + 1]) for end in range(len(parents))]
        self._length += len(path.encode()) + sum(
            len(parent.encode()) for parent in above if parent not in self._parents
        )
        if len(self._files) + len(self._directories) == MOST_MEMBERS or self._length > LONGEST_NAMES:
            raise FolderError(f"more than {MOST_MEMBERS} members, or {LONGEST_NAMES} bytes of paths")
        if path in self._files or path in self._directories or (not directory and path in self._parents):
            raise FolderError(f"{path!r} is there twice")
        if clash := next((parent for parent in above if parent in self._files), None):
            raise FolderError(f"{clash!r} is a file and a folder")
        self._parents.update(above)
        (self._directories if directory else self._files).add(path)


def safe_path(text: str) -> str:
    """Check a path as archives have it; without what means nothing (``./`` before, ``/`` after). Raises FolderError.

    The folder itself is the empty path.
    """
    path = text.removesuffix("/")
    while path.startswith("./"):
        path = path[2:]
    if path in {"", "."}:
        if text in {".", "./"}:
            return ""
        raise FolderError(f"the path {text[:100]!r} names nothing")
    if _ODD.search(path):
        raise FolderError(f"the path {text[:100]!r} has a backslash or control character")
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise FolderError(f"the path {text[:100]!r} is absolute or has empty parts or dots for parts")
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise FolderError("a path is not UTF-8") from None
    if len(parts) > _DEEPEST or max(lengths) > _LONGEST_PART or sum(lengths) + len(parts) > _LONGEST_PATH:
        raise FolderError(f"the path {text[:100]!r}… is too long or too deep")
    return path


# ----------------------------------------------------------------------------------------------------------------- in


class Header(NamedTuple):
    """One header block, as it is written."""

    kind: str
    """One character; ``0`` is a file, ``5`` a folder, ``x`` an extended header for what follows it."""
    name: bytes
    """As it is there; of a long one only the beginning, which may end inside a character."""
    size: int
    mode: int


def read_header(block: bytes) -> Header | None:
    """Read a header block; None for a block of zeros, which ends the archive. Raises FolderError."""
    if not any(block):
        return None
    # The sum is over the block with spaces in its own place.
    wanted = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if len(block) != BLOCK or _octal(block[148:156]) != wanted:
        raise FolderError("not a tar archive: a header's sum is wrong")
    for start, end in _OTHER_NUMBERS:
        # Nothing comes of them, but other readers stop at what is no number.
        if block[start] not in {0x80, 0xFF}:
            _octal(block[start:end])
    name = _field(block[:100])
    # GNU's own format has times where POSIX's has the front of the name.
    if block[257:265] == b"ustar\x0000" and (front := _field(block[345:500])):
        name = front + b"/" + name
    kind = "0" if block[156:157] in b"0\0" else chr(block[156])
    return Header(kind, name, _size(block[124:136]), _octal(block[100:108]))


def read_extended(content: bytes) -> dict[str, str]:
    """Read the records of an extended header that matter here: path and size. Raises FolderError."""
    found: dict[str, str] = {}
    at = 0
    while at < len(content):
        record = _RECORD.match(content, at)
        end = at + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(content) or content[end - 1] != ord("\n"):
            raise FolderError("an extended header is malformed")
        key, value = record[2].decode(errors="replace"), content[record.end() : end - 1]
        if key.startswith("GNU.sparse.") or key == "linkpath":
            raise FolderError("sparse files and links are not taken")
        if key in {"path", "size"}:
            if key in found:
                raise FolderError(f"an extended header has two values for {key}")
            found[key] = _utf8(value)
        at = end
    return found


class Pending:
    """What extended headers have said of the member that follows them."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._size: int | None = None

    def extend(self, header: Header, content: bytes) -> None:
        """Take in an extended header. Raises FolderError."""
        if header.kind == "L":
            self._set(_utf8(content.rstrip(b"\0")), None)
            return
        records = read_extended(content)
        if header.kind == "g":
            if records:
                raise FolderError("an extended header for all members sets a path or size")
            return
        size = records.get("size")
        if size is not None and not re.fullmatch("[0-9]{1,15}", size):
            raise FolderError("an extended header's size is no number")
        self._set(records.get("path"), None if size is None else int(size))

    def _set(self, path: str | None, size: int | None) -> None:
        if (path is not None and self._path is not None) or (size is not None and self._size is not None):
            raise FolderError("two extended headers are for the same member")
        self._path = self._path if path is None else path
        self._size = self._size if size is None else size

    def member(self, header: Header) -> Member:
        """Make the member of what was said and its header. Raises FolderError."""
        path, size = self._path, self._size
        self._path = self._size = None
        if path is None:
            path = _utf8(header.name)
        if size is not None and header.size not in {0, size}:
            # What one reader takes for content, another would take for the next member.
            raise FolderError("two headers give a member different sizes")
        member = Member(
            safe_path(path),
            header.size if size is None else size,
            executable=bool(header.mode & 0o111),
            directory=header.kind == "5",
        )
        if header.kind not in {"0", "5"}:
            raise FolderError(
                f"{member.path!r} is a link, device or sparse file; only files and folders are taken"
            )
        if member.directory and member.size:
            raise FolderError(f"the folder {member.path!r} has a size")
        if not member.directory and not member.path:
            raise FolderError("a file has no name")
        if not member.directory and path.endswith("/"):
            raise FolderError(f"the file {member.path!r} is named like a folder")
        return member


def _octal(field: bytes) -> int:
    text = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", text):
        raise FolderError("a header's number is malformed")
    return int(text or b"0", 8)


def _size(field: bytes) -> int:
    """Read a size, also in GNU's form for those that octal has no room for."""
    size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    if size > _LARGEST:
        raise FolderError("a member's size is absurd")
    return size


def _field(field: bytes) -> bytes:
    text, _, rest = field.partition(b"\0")
    if any(rest):
        raise FolderError("a header hides something behind a name's end")
    return text


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise FolderError("a path is not UTF-8") from None


# ---------------------------------------------------------------------------------------------------------------- out


def read_manifest(content: bytes) -> Folder:
    """Read a manifest, as strictly as an archive. Raises FolderError."""
    if content.count(b"\n") > MOST_MEMBERS + 1:
        raise FolderError("not a folder's manifest")
    files: list[File] = []
    directories: list[str] = []
    paths = Paths()
    for line in _utf8(content).split("\n")[1:-1]:
        if found := _LINE.fullmatch(line):
            file = File(found["path"], found["sha1"], int(found["size"]), found["kind"] == "program")
            files.append(file)
            path = file.path
        else:
            path = line.removeprefix("directory ")
            directories.append(path)
        if safe_path(path) != path:
            raise FolderError("not a folder's manifest")
        paths.add(path, directory=found is None)
    folder = Folder(files, directories)
    if folder.manifest() != content:
        raise FolderError("not a folder's manifest")
    return folder


def archive(folder: Folder) -> Iterator[tuple[bytes, File | None]]:
    """Yield the headers of a tar in their order, each with the file whose bytes follow it; then the archive's end.

    The same folder gives the same archive: sorted, of no time and no user.
    """
    members: Iterable[tuple[str, File | None]] = [
        *((path, None) for path in folder.directories),
        *((file.path, file) for file in folder.files),
    ]
    for path, file in sorted(members, key=lambda member: member[0]):
        header = tarfile.TarInfo(path)
        header.type = tarfile.DIRTYPE if file is None else tarfile.REGTYPE
        header.mode = 0o755 if file is None or file.executable else 0o644
        header.size = 0 if file is None else file.size
        yield header.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"), file
    yield bytes(2 * BLOCK), None


def padding(size: int) -> int:
    """How many zeros follow so many bytes of content."""
    return -size % BLOCK
