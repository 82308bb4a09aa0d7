"""``opengpu files``: a task's files from outside the cluster, by hash, and what its job keeps in /gpux_job.

For tasks that are open to the outside (spec.storage.external). Where the store is and a token for it are read from the
task's Secret with your own rights, or given.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import re
import sys
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

from gpux import hashes
from opengpu_operator.cli import options, outside, sending
from opengpu_operator.cli.outside import Outside, RefusedError, Unreachable
from opengpu_operator.cli.progress import Progress, size

_EPILOG: Final = """\
exit status: 0 done, 1 the store refuses it or doesn't have it, 2 the command itself is wrong, or a file or the store
can't be reached

examples:
  opengpu files put --task read -n team page.png
  opengpu files get --task read -n team 0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33 -o page.png
  opengpu files ls --task read -n team --job out
  opengpu files get --task read -n team --job out --folder -o results
  opengpu files share --task read -n team 0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33 --for 1h
"""
_BLOCK: Final = 1 << 20
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PAGE: Final = 1000
"""What the store lists at once, at most."""
_ALIKE: Final = 16


def register(commands: Any) -> None:
    """Add the subcommand."""
    command = commands.add_parser(
        "files",
        help="fetch and store a task's files from outside the cluster",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = command.add_subparsers(dest="verb", required=True, metavar="VERB")
    put = _verb(
        verbs,
        "put",
        "store files and folders; prints the hash of each; large files go on where they were interrupted",
        _put,
    )
    put.add_argument(
        "paths", nargs="+", type=_path, metavar="PATH", help="a file, or a folder with all in it"
    )
    get = _verb(verbs, "get", "fetch a file; goes on where it was interrupted", _get)
    get.add_argument("name", metavar="HASH", help="the file's hash; with --job or --usr, the path")
    get.add_argument(
        "-o", "--output", type=Path, metavar="PATH", help="where to, or a folder for it (default: its name)"
    )
    get.add_argument("--folder", action="store_true", help="it is a folder: unpack it into the output")
    _of_job(get)
    ls = _verb(verbs, "ls", "list the task's files", _ls)
    ls.add_argument("path", nargs="?", default="", help="with --job or --usr, a folder or file there")
    ls.add_argument(
        "--format", choices=["table", "json"], default="table", help="for people (default) or programs"
    )
    _of_job(ls)
    share = _verb(verbs, "share", "print a link with which anybody can fetch one thing, for a while", _share)
    share.add_argument("name", metavar="HASH", help="the file's hash; with --job or --usr, the path")
    share.add_argument(
        "--for",
        dest="seconds",
        type=_duration,
        default=3600,
        metavar="TIME",
        help="how long: 90s, 30m, 1h, 7d (default: 1h); never longer than the task's own token",
    )
    _of_job(share)


def _verb(verbs: Any, name: str, text: str, run: Any) -> Any:
    verb = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    outside.add(verb)
    verb.set_defaults(run=_guarded(run))
    return verb


def _of_job(verb: Any) -> None:
    where = verb.add_mutually_exclusive_group()
    where.add_argument(
        "--job", dest="root", action="store_const", const="job", help="in the job's /gpux_job, while it runs"
    )
    where.add_argument(
        "--usr",
        dest="root",
        action="store_const",
        const="usr",
        help="in its owner's /gpux_usr, while it runs",
    )


def _guarded(run: Any) -> Any:
    def guarded(arguments: argparse.Namespace) -> int:
        try:
            return int(run(outside.connect(arguments), arguments))
        except RefusedError as error:
            options.fail(str(error))
            return options.REFUSED
        except Unreachable as error:
            return options.fail(str(error))
        except OSError as error:
            return options.fail(f"{error.filename or 'a file'}: {error.strerror or error}")

    return guarded


# ----------------------------------------------------------------------------------------------------------- put


def _put(store: Outside, arguments: argparse.Namespace) -> int:
    for path in arguments.paths:
        document = _put_folder(store, path) if path.is_dir() else _put_file(store, path)
        print(f"{document['sha1']}  {path}", flush=True)
    return options.GOOD


def _put_file(store: Outside, path: Path) -> dict[str, Any]:
    """Store a file, unless the task has it: a large one goes on where it was interrupted."""
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        with Progress(f"hashing {path.name}", length) as progress:
            sha1 = _hash_rest(file, "sha1", progress)
        if _has(store, sha1):
            return {"sha1": sha1}
        with Progress(path.name, length) as progress:
            document = sending.send(store, file, sha1=sha1, length=length, progress=progress)
    if document.get("sha1") != sha1:
        raise RefusedError(
            409, f"{path} changed while it was sent: {document.get('sha1')} was stored, not {sha1}"
        )
    return document


def _has(store: Outside, sha1: str) -> bool:
    """Whether the task itself keeps a file: one that others of its namespace keep goes with them, and isn't public."""
    # Names that are listed after a beginning of this one; hardly any other shares so much of it.
    query = f"limit={_ALIKE}&after={sha1[:-1]}"
    with suppress(RefusedError, Unreachable):
        page = store.document("GET", f"/v1/files?task={_quoted(store.task)}&{query}")
        return any(entry["sha1"] == sha1 for entry in page["files"])
    return False


def _put_folder(store: Outside, path: Path) -> dict[str, Any]:
    reading, writing = os.pipe()
    trouble: list[BaseException] = []

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        """Leave out whose the files are here: it means nothing elsewhere, and would change the folder's hash."""
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        if member.islnk():
            # A second name of a file is a file: the store keeps what they share once by itself.
            member.type, member.linkname = tarfile.REGTYPE, ""
            member.size = (path / member.name).stat().st_size
        return member

    def pack() -> None:
        try:
            with os.fdopen(writing, "wb") as sink, tarfile.open(fileobj=sink, mode="w|") as archive:
                for entry in sorted(path.iterdir()):
                    archive.add(entry, arcname=entry.name, filter=plain)
        except BrokenPipeError:
            # The store wants no more of it, and says why.
            return
        except (OSError, tarfile.TarError) as error:
            trouble.append(error)

    packer = threading.Thread(target=pack, daemon=True)
    packer.start()
    with os.fdopen(reading, "rb") as source, Progress(path.name, None) as progress:

        def packed() -> Iterator[bytes]:
            yield from _reading(source, progress)
            packer.join()
            if trouble:
                # Before the end is sent, so that half a folder is never taken for one.
                raise OSError(f"{path} can't be read: {trouble[0]}") from trouble[0]

        with store.ask(
            "POST",
            "/v1/folders",
            headers={"Transfer-Encoding": "chunked", "Content-Type": "application/x-tar"},
            body=_chunked(packed()),
        ) as response:
            document: dict[str, Any] = outside.read_document(response)
    return document


def _chunked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def _reading(file: BinaryIO, progress: Progress) -> Iterator[bytes]:
    while piece := file.read(_BLOCK):
        yield piece
        progress.add(len(piece))


# ----------------------------------------------------------------------------------------------------------- get


def _get(store: Outside, arguments: argparse.Namespace) -> int:
    if arguments.root is not None:
        return _get_of_job(store, arguments)
    try:
        name = hashes.parse(arguments.name)
    except hashes.MalformedHashError as error:
        return options.fail(f"{arguments.name}: {error}")
    if arguments.folder:
        with store.ask("GET", f"/v1/folders/{arguments.name}") as response:
            return _unpack(response, arguments.output or Path(arguments.name))
    _get_file(store, arguments.name, name, target=_target(arguments.output, arguments.name))
    return options.GOOD


def _target(output: Path | None, name: str) -> Path:
    """Return where a file goes: an output that is a folder gets it under its own name."""
    if output is None:
        return Path(name)
    return output / name if output.is_dir() else output


def _get_file(store: Outside, text: str, name: hashes.FileHash, *, target: Path) -> None:
    """Fetch a file into ``target.part``, from where that ends, and rename it when its hash is right."""
    partial = target.with_name(f"{target.name}.part")
    path = f"/download_file/{text}"
    with store.ask("HEAD", path) as response:
        etag, total = response.getheader("ETag", ""), int(response.getheader("Content-Length", "0"))
    with partial.open("a+b") as file:
        if file.tell() > total:
            file.truncate(0)
        file.seek(0)
        digest = hashlib.new(name.algorithm, usedforsecurity=False)
        while piece := file.read(_BLOCK):
            digest.update(piece)
        there = file.tell()
        if there < total or not total:
            headers = {"Range": f"bytes={there}-", "If-Range": etag} if there else {}
            with (
                store.ask("GET", path, headers=headers) as response,
                Progress(target.name, total, done=there if response.status == 206 else 0) as progress,
            ):
                if response.status != 206 and there:
                    # Another one than it was: from the beginning.
                    file.truncate(0)
                    digest = hashlib.new(name.algorithm, usedforsecurity=False)
                _receive(response, file, digest=digest, progress=progress)
        if digest.hexdigest() != name.hex:
            partial.unlink()
            raise RefusedError(409, f"what came isn't {text}: it is damaged, and was thrown away")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
    print(target)


def _receive(response: http.client.HTTPResponse, file: BinaryIO, *, digest: Any, progress: Progress) -> None:
    try:
        for piece in outside.pieces(response):
            file.write(piece)
            if digest is not None:
                digest.update(piece)
            progress.add(len(piece))
    except (OSError, http.client.HTTPException) as error:
        again = ": the same command goes on from there" if digest is not None else ""
        file.flush()
        why = str(error) or type(error).__name__
        raise Unreachable(f"the transfer broke off after {size(file.tell())} ({why}){again}") from error


def _get_of_job(store: Outside, arguments: argparse.Namespace) -> int:
    query = f"?root={arguments.root}&path={_quoted(arguments.name)}"
    name = Path(arguments.name).name or arguments.root
    with store.ask("GET", f"/api/job/storage/download/{store.task}{query}") as response:
        folder = response.getheader("Content-Type") == "application/x-tar"
        if arguments.folder:
            if not folder:
                return options.fail(f"{arguments.name} is a file: leave out --folder")
            return _unpack(response, arguments.output or Path(name))
        target = _target(arguments.output, f"{name}.tar" if folder else name)
        partial = target.with_name(f"{target.name}.part")
        # From the beginning every time: the job may have changed it since.
        with partial.open("wb") as file, Progress(target.name, response.length) as progress:
            _receive(response, file, digest=None, progress=progress)
        partial.replace(target)
    print(target)
    return options.GOOD


class _Counted:
    """A response as a file that tarfile reads."""

    def __init__(self, response: http.client.HTTPResponse, progress: Progress) -> None:
        self._response = response
        self._progress = progress

    def read(self, count: int) -> bytes:
        piece = self._response.read(count)
        if not piece and self._response.length:
            # To tarfile an archive that breaks off at a header is one that ends there.
            raise http.client.IncompleteRead(piece, self._response.length)
        self._progress.add(len(piece))
        return piece


def _unpack(response: http.client.HTTPResponse, target: Path) -> int:
    """Unpack a folder. Links that lead out of it, and whatever isn't a file, folder or link, are left out and named."""
    target.mkdir(parents=True, exist_ok=True)

    def harmless(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        try:
            return tarfile.data_filter(member, path)
        except tarfile.FilterError:
            left_out.append(member.name)
            return None

    left_out: list[str] = []
    try:
        with Progress(target.name, None) as progress:
            source: Any = _Counted(response, progress)
            with tarfile.open(fileobj=source, mode="r|") as archive:
                archive.extractall(target, filter=harmless)  # noqa: S202 what the filter lets through
    except (http.client.HTTPException, tarfile.ReadError, EOFError) as error:
        raise Unreachable(f"the folder broke off; what is in {target} isn't all of it") from error
    for name in left_out:
        options.fail(f"left out, since it would reach out of the folder: {_printable(name)}")
    print(target)
    return options.GOOD


# ------------------------------------------------------------------------------------------------------ ls, share


def _ls(store: Outside, arguments: argparse.Namespace) -> int:
    if arguments.root is not None:
        query = f"?root={arguments.root}&path={_quoted(arguments.path)}"
        document = store.document("GET", f"/api/job/storage/list/{store.task}{query}")
        entries = document.get("entries") or [document["entry"]]
    elif arguments.path:
        return options.fail("a path needs --job or --usr")
    else:
        entries, document = _all_files(store), None
    if arguments.format == "json":
        print(json.dumps(entries if document is None else document, indent=2))
    else:
        _table([_row(entry) for entry in entries])
        if document is not None and document.get("more"):
            options.fail("there is more than is listed; name a folder inside")
    return options.GOOD


def _all_files(store: Outside) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = store.document("GET", f"/v1/files?limit={_PAGE}&after={after}")
        found += page["files"]
        if len(page["files"]) < _PAGE:
            return found
        after = found[-1]["sha1"]


def _row(entry: dict[str, Any]) -> tuple[str, str, str]:
    if "sha1" in entry:
        when = datetime.fromtimestamp(entry["created"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return size(entry["size"]), when, entry["sha1"]
    name = _printable(entry["name"]) or "."
    if entry["type"] == "folder":
        name += "/"
    elif entry["type"] == "link":
        name += f" -> {_printable(entry.get('target', ''))}"
    if entry.get("readable") is False:
        name += "  (its mode lets only its owner read it)"
    return size(entry["size"]) if entry["type"] == "file" else "-", entry["modified"], name


def _table(rows: Sequence[tuple[str, str, str]]) -> None:
    width = max((len(row[0]) for row in rows), default=0)
    for length, when, name in rows:
        print(f"{length.rjust(width)}  {when}  {name}")


def _share(store: Outside, arguments: argparse.Namespace) -> int:
    body: dict[str, Any] = {"seconds": arguments.seconds}
    if arguments.root is not None:
        body |= {"task": store.task, "path": f"{arguments.root}/{arguments.name}"}
    else:
        try:
            hashes.parse(arguments.name)
        except hashes.MalformedHashError as error:
            return options.fail(f"{arguments.name}: {error}")
        body["hash"] = arguments.name
    link = store.document("POST", "/v1/links", body)
    print(link["url"])
    if link["expires"] < int(time.time()) + arguments.seconds - 60:
        until = datetime.fromtimestamp(link["expires"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        print(f"opengpu: valid until {until}, when the task's own token ends", file=sys.stderr)
    return options.GOOD


# -------------------------------------------------------------------------------------------------------- helpers


def _hash_rest(file: BinaryIO, algorithm: str, progress: Progress) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    for piece in _reading(file, progress):
        digest.update(piece)
    return digest.hexdigest()


def _duration(text: str) -> int:
    found = _DURATION.fullmatch(text)
    if not found:
        msg = f"{text!r} is not a time: 90s, 30m, 1h, 7d"
        raise argparse.ArgumentTypeError(msg)
    return int(found[1]) * _UNITS[found[2]]


def _path(text: str) -> Path:
    if not text:
        # To pathlib that is the current folder: an empty variable would send all of it.
        msg = "a path is empty"
        raise argparse.ArgumentTypeError(msg)
    return Path(text)


def _quoted(path: str) -> str:
    return quote(os.fsencode(path), safe="/")


def _printable(text: str) -> str:
    """Return a name without what would steer a terminal: the job chose it."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
