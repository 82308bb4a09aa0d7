"""A disk that remembers what was done to it, and every state a power cut could have left behind.

The model is what POSIX promises and no more: a file's content is durable after `sync`, names in a directory are
durable after `sync_directory`, and of everything since then any part may be there or not, in any combination; content
that was not synced may be cut off or full of zeros.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
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

    def _change(self, entry: tuple[Any, ...], inode: _Inode | None, *paths: str) -> None:
        # A rename is one step of the file system's journal: it lasts when either of its directories is synced.
        parents = {_parent(path) for path in paths[-1:]}
        self.changes.append(_Change(entry, inode, parents))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def crash_states(log: list[tuple[Any, ...]], *, most: int = 256) -> Iterator[tuple[list[Any], _State]]:
    """Everything acknowledged so far and a state of the disk, for every moment and every combination."""
    for end in range(len(log) + 1):
        model = _Model()
        acknowledged = []
        for entry in log[:end]:
            if entry[0] == "acknowledge":
                acknowledged.append(entry[1])
            else:
                model.apply(entry)
        open_ones = [index for index, change in enumerate(model.changes) if change.pending]
        combinations = itertools.product((True, False), repeat=len(open_ones))
        for kept in itertools.islice(combinations, most):
            lost = {index for index, keep in zip(open_ones, kept, strict=True) if not keep}
            for damage in ("none", "cut", "zeros", "unsynced"):
                yield acknowledged, _State(model, lost, damage)


@dataclass
class _State:
    model: _Model
    lost: set[int]
    damage: str

    def build(self, root: Path) -> None:
        """Make the state real below an empty directory."""
        inodes: dict[int, bytes] = {}
        names: dict[str, Any] = {}
        directories = {""}
        for index, change in enumerate(self.model.changes):
            if index in self.lost:
                continue
            path = change.entry[-1]
            if _parent(path) not in directories:
                continue
            match change.entry:
                case ("mkdir", _):
                    directories.add(path)
                case ("rmdir", _):
                    directories.discard(path)
                case ("symlink", content, _):
                    names[path] = content
                case ("unlink", _):
                    names.pop(path, None)
                case ("rename", source, _):
                    names.pop(source, None)
                    names[path] = change.inode
                case ("create" | "link", *_):
                    names[path] = change.inode
        for directory in sorted(directories - {""}):
            (root / directory).mkdir()
        for path, what in names.items():
            if _parent(path) not in directories:
                continue
            if isinstance(what, str):
                (root / path).symlink_to(what)
            else:
                (root / path).write_bytes(inodes.setdefault(id(what), self._content(what)))

    def _content(self, inode: _Inode) -> bytes:
        fresh = inode.content[len(inode.durable) :]
        match self.damage:
            case "cut":
                fresh = fresh[: len(fresh) // 2]
            case "zeros":
                fresh = bytes(len(fresh))
            case "unsynced":
                fresh = b""
        return inode.durable + fresh
