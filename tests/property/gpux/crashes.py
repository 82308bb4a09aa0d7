"""A disk that remembers what was done to it, and every state a power cut could have left behind.

The model is what POSIX promises and no more: a file's content is durable after `sync`, names in a directory are
durable after `sync_directory`, and of everything since then any part may be there or not, in any combination; content
that was not synced may be cut off or full of zeros.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpux.files import Disk


class RecordingDisk(Disk):
    """Does what it is asked to, below one root, and keeps a list of it; paths are kept relative."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = f"{root}/"
        self._names: dict[int, str] = {}
        self.log: list[tuple[str, ...]] = []

    def acknowledge(self, what: Any) -> None:
        """The moment at which a client is told."""
        self._note("acknowledge", what)

    def _note(self, *entry: Any) -> None:
        self.log.append(entry)

    def _relative(self, path: str) -> str:
        return f"{path}/".removeprefix(self._root).rstrip("/")

    def create(self, path: str) -> int:
        fd = super().create(path)
        self._names[fd] = self._relative(path)
        self._note("create", self._relative(path))
        return fd

    def write(self, fd: int, data: Any) -> None:
        super().write(fd, data)
        self._note("write", self._names[fd], bytes(data))

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self._note("sync", self._names[fd])

    def link(self, source: str, target: str) -> None:
        super().link(source, target)
        self._note("link", self._relative(source), self._relative(target))

    def symlink(self, content: str, path: str) -> None:
        super().symlink(content, path)
        self._note("symlink", content, self._relative(path))

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self._note("rename", self._relative(source), self._relative(target))

    def unlink(self, path: str) -> None:
        there = os.path.lexists(path)
        super().unlink(path)
        if there:
            self._note("unlink", self._relative(path))

    def touch(self, path: str, when: float) -> None:
        """Not noted: a time of ours may be lost, and is nothing that a crash could do harm by."""
        super().touch(path, when)

    def mkdir(self, path: str) -> None:
        there = os.path.lexists(path)
        super().mkdir(path)
        if not there:
            self._note("mkdir", self._relative(path))

    def rmdir(self, path: str) -> None:
        super().rmdir(path)
        self._note("rmdir", self._relative(path))

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        self._note("sync_directory", self._relative(path))


@dataclass
class _Inode:
    content: bytes = b""
    durable: bytes = b""

    def left(self, damage: str) -> bytes:
        """What a crash leaves of the content."""
        fresh = self.content[len(self.durable) :]
        match damage:
            case "cut":
                fresh = fresh[: len(fresh) // 2]
            case "zeros":
                fresh = bytes(len(fresh))
            case "unsynced":
                fresh = b""
        return self.durable + fresh


@dataclass
class _Change:
    """One change of names, and the directories that have to be synced for it to last."""

    entry: tuple[Any, ...]
    inode: _Inode | None
    pending: set[str]


@dataclass
class _Model:
    names: dict[str, _Inode] = field(default_factory=dict)
    changes: list[_Change] = field(default_factory=list)

    def apply(self, entry: tuple[Any, ...]) -> None:
        match entry:
            case ("create", path):
                self.names[path] = _Inode()
                self._change(entry, self.names[path], path)
            case ("write", path, data):
                self.names[path].content += data
            case ("sync", path):
                self.names[path].durable = self.names[path].content
            case ("link", source, target):
                self.names[target] = self.names[source]
                self._change(entry, self.names[source], target)
            case ("rename", source, target):
                inode = self.names[target] = self.names.pop(source)
                self._change(entry, inode, source, target)
            case ("unlink", path):
                self.names.pop(path, None)
                self._change(entry, None, path)
            case ("symlink" | "mkdir" | "rmdir", *_, path):
                self._change(entry, None, path)
            case ("sync_directory", path):
                for change in self.changes:
                    change.pending.discard(path)

    def after(self, lost: set[int], damage: str) -> State:
        """The state without the changes that are lost, and with what is not durable damaged."""
        found: dict[str, Any] = {}
        directories = {""}
        for index, change in enumerate(self.changes):
            path = change.entry[-1]
            if index in lost or _parent(path) not in directories:
                continue
            match change.entry:
                case ("mkdir", _):
                    directories.add(path)
                    found[path] = None
                case ("rmdir", _):
                    directories.discard(path)
                    found.pop(path, None)
                case ("symlink", content, _):
                    found[path] = content
                case ("unlink", _):
                    found.pop(path, None)
                case ("rename", source, _):
                    found.pop(source, None)
                    found[path] = change.inode
                case ("create" | "link", *_):
                    found[path] = change.inode
        return State(
            (path, what.left(damage) if isinstance(what, _Inode) else what)
            for path, what in found.items()
            if _parent(path) in directories
        )

    def _change(self, entry: tuple[Any, ...], inode: _Inode | None, *paths: str) -> None:
        # A rename is one step of the file system's journal: it lasts when either of its directories is synced.
        parents = {_parent(path) for path in paths[-1:]}
        self.changes.append(_Change(entry, inode, parents))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def crash_states(log: list[tuple[Any, ...]], *, most: int = 256) -> Iterator[tuple[list[Any], State]]:
    """Everything acknowledged so far and a state of the disk, for every moment and every combination, each once."""
    seen = set()
    model = _Model()
    acknowledged: list[Any] = []
    for entry in [None, *log]:
        if entry is None:
            pass
        elif entry[0] == "acknowledge":
            acknowledged.append(entry[1])
        else:
            model.apply(entry)
        open_ones = [index for index, change in enumerate(model.changes) if change.pending]
        for lost in _choices(open_ones, most):
            for damage in ("none", "cut", "zeros", "unsynced"):
                state = model.after(lost, damage)
                key = len(acknowledged), hash(frozenset(state.items()))
                if key not in seen:
                    seen.add(key)
                    yield list(acknowledged), state


def _choices(indices: list[int], most: int) -> Iterator[set[int]]:
    """Every set of them; where that is too many, those that lack few or hold few."""
    if 1 << len(indices) <= most:
        sizes: Iterable[int] = range(len(indices) + 1)
    else:
        sizes = sorted(range(len(indices) + 1), key=lambda size: min(size, len(indices) - size))
    every = itertools.chain.from_iterable(itertools.combinations(indices, size) for size in sizes)
    yield from map(set, itertools.islice(every, most))


class State(dict[str, "bytes | str | None"]):
    """What is on the disk: path → content of a file, target of a symbolic link, or None for a directory."""

    def build(self, root: Path) -> None:
        """Make it real below an empty directory."""
        for path, what in sorted(self.items()):
            match what:
                case None:
                    (root / path).mkdir()
                case str():
                    (root / path).symlink_to(what)
                case bytes():
                    (root / path).write_bytes(what)
