"""Compose's small notations: booleans, numbers, sizes, durations, command lines, ports, mounts.

Each function reads one notation in every spelling that Compose accepts, and raises ValueError with a sentence for
people otherwise. Nothing here knows what the values are for.
"""

from __future__ import annotations

import math
import posixpath
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

_TRUE: Final = frozenset({"true", "yes", "y", "on"})
_FALSE: Final = frozenset({"false", "no", "n", "off"})
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(b|[kmgtp]i?b?)?", re.IGNORECASE)
_SIZE_UNITS: Final = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d|w)")
_DURATION_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_MAX_BYTES: Final = 2**60
_MAX_SECONDS: Final = 2**31 - 1
_MAX_DURATION: Final = 64
#: The ports of a longer range aren't told apart: no pod declares thousands.
MAX_PORT_RANGE: Final = 256
_MAX_PORT: Final = 65535
#: Of a command in one string; each costs as much as an entry of a list.
MAX_WORDS: Final = 512
#: Linux' own limit.
MAX_PATH: Final = 4096
_WINDOWS: Final = re.compile(r"[A-Za-z]:[\\/]")
_NAMED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: From and below these, Go writes numbers with an exponent.
_EXPONENT_FROM: Final = 6
_EXPONENT_BELOW: Final = -4


def text(value: Any) -> str:
    """Return a scalar as Compose writes it into a string (Go's ``%v``)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    return "" if value is None else str(value)


def _float(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    shortest = Decimal(repr(value)).normalize()
    exponent = shortest.adjusted()
    if value and not _EXPONENT_BELOW <= exponent < _EXPONENT_FROM:
        mantissa = shortest.scaleb(-exponent)
        return f"{mantissa:f}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    return f"{shortest:f}"


def boolean(value: Any) -> bool:
    """Return a boolean, also where it came from a variable and is a string."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE:
        return True
    if isinstance(value, str) and value.strip().lower() in _FALSE:
        return False
    msg = "true or false is expected"
    raise ValueError(msg)


def integer(value: Any) -> int:
    """Return a whole number, also where it came from a variable and is a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        msg = "a whole number is expected"
        raise ValueError(msg)  # noqa: TRY004 - one sort of error for every wrong value
    result = _float_or_nan(value)
    if not math.isfinite(result) or result != int(result) or abs(result) > _MAX_BYTES:
        msg = "a whole number is expected"
        raise ValueError(msg)
    return int(result)


def number(value: Any) -> float:
    """Return a number that is finite and not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        msg = "a number is expected"
        raise ValueError(msg)  # noqa: TRY004 - one sort of error for every wrong value
    result = _float_or_nan(value)
    if not 0 <= result <= _MAX_BYTES:
        msg = "a number is expected"
        raise ValueError(msg)
    return result


def _float_or_nan(value: float | str) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def size(value: Any) -> int:
    """Return bytes: ``64m``, ``2gb``, ``1.5GiB``, ``1024``; the units are powers of 1024 in every spelling."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        result = number(value)
    else:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            msg = "a size such as 512m or 2gb is expected"
            raise ValueError(msg)
        unit = (match.group(2) or "").lower()
        result = float(match.group(1)) * _SIZE_UNITS[unit[:1]]
    if result > _MAX_BYTES:
        msg = "the size is larger than any machine"
        raise ValueError(msg)
    return int(result)


def duration(value: Any) -> float:
    """Return seconds: ``1m30s``, ``500ms``, ``1.5h``; a bare 0 is allowed."""
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_DURATION:
        msg = "a duration such as 1m30s is expected"
        raise ValueError(msg)
    rest, seconds = value.strip(), 0.0
    while rest:
        match = _DURATION.match(rest)
        if match is None:
            msg = "a duration such as 1m30s is expected"
            raise ValueError(msg)
        seconds += float(match.group(1)) * _DURATION_UNITS[match.group(2)]
        rest = rest[match.end() :]
    if seconds > _MAX_SECONDS:
        msg = "the duration is too long"
        raise ValueError(msg)
    return seconds


def strings(value: Any) -> list[str]:
    """Return a list of strings, given one string or a list."""
    if value is None:
        return []
    if isinstance(value, list):
        return [text(item) for item in value]
    return [text(value)]


@dataclass(frozen=True)
class Command:
    """A command line in words; ``cut`` is what Compose drops of it, from a shell operator on."""

    words: list[str]
    cut: str = ""


def command(value: Any) -> Command:
    """Return a command in words. A string is split as Compose does it: by a shell's quoting, without a shell."""
    if isinstance(value, list):
        return Command([text(item) for item in value])
    if not isinstance(value, str):
        msg = "a string or a list of strings is expected"
        raise ValueError(msg)  # noqa: TRY004 - one sort of error for every wrong value
    return _Splitter(value).split()


class _Splitter:
    """Splits a command line by the rules of the library that Compose uses, which are nearly a shell's."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._words: list[str] = []
        self._word: list[str] | None = None
        self._quote = ""
        """What ends the quoting: a quotation mark, a backquote, or the parenthesis of ``$(``."""

    def split(self) -> Command:
        """Return the words."""
        line, index = self._line, 0
        while index < len(line):
            character = line[index]
            if character == "\\" and self._quote != "'":
                index += 1
                if index == len(line):
                    msg = "the command ends in a backslash"
                    raise ValueError(msg)
                self._add(line[index])
            elif self._quote:
                self._quoted(character)
            elif character in ";&|<>":
                index -= self._redirected(character)
                break
            else:
                self._plain(character)
            index += 1
        if self._quote:
            msg = "the command has an unclosed quote"
            raise ValueError(msg)
        self._end()
        if len(self._words) > MAX_WORDS:
            msg = f"a command in one string has at most {MAX_WORDS} words"
            raise ValueError(msg)
        return Command(self._words, cut=line[index:])

    def _add(self, text: str) -> None:
        self._word = self._word or []
        self._word.append(text)

    def _end(self) -> None:
        if self._word is not None:
            self._words.append("".join(self._word))
            self._word = None

    def _quoted(self, character: str) -> None:
        if character != self._quote or character in "`)":
            self._add(character)
        if character == self._quote:
            self._quote = ""

    def _plain(self, character: str) -> None:
        if character in "\"'":
            self._quote = character
            self._word = self._word or []
        elif character in " \t\r\n":
            self._end()
        elif character in "()":
            if character == ")" or not self._word or self._word[-1] != "$":
                msg = "the command has a parenthesis that is not quoted"
                raise ValueError(msg)
            self._quote = ")"
            self._add(character)
        else:
            if character == "`":
                self._quote = character
            self._add(character)

    def _redirected(self, operator: str) -> int:
        """Drop the number of a file (``2>``), which belongs to the operator; return its length."""
        if operator != ">" or not self._word or not self._word[0][:1].isdigit():
            return 0
        dropped = len("".join(self._word))
        self._word = None
        return dropped


def variables(value: Any) -> dict[str, str | None]:
    """Return variables given as a mapping or as a list of ``NAME=value``; None is a bare ``NAME``."""
    result: dict[str, str | None] = {}
    if isinstance(value, dict):
        for name, content in value.items():
            result[name] = None if content is None else text(content)
    elif isinstance(value, list):
        for item in value:
            name, equals, content = text(item).partition("=")
            result[name.strip()] = content if equals else None
    elif value is not None:
        msg = "a mapping or a list of NAME=value is expected"
        raise ValueError(msg)
    return result


@dataclass(frozen=True)
class PublishedPort:
    """One port of ``ports``, or a long range of them."""

    target: int
    published: int | None = None
    protocol: str = "tcp"
    host: str = ""
    length: int = 1
    """Of a long range, whose first port ``target`` is."""

    def __contains__(self, number: object) -> bool:
        """Whether a number is that of a port in the container."""
        return number in range(self.target, self.target + self.length)


def _port_range(value: str) -> range:
    first, dash, last = value.partition("-")
    if not first.isascii() or not first.isdigit() or (dash and not (last.isascii() and last.isdigit())):
        msg = "a port such as 8080:80 is expected"
        raise ValueError(msg)
    low, high = int(first[:9]), int((last if dash else first)[:9])
    if not 1 <= low <= high <= _MAX_PORT:
        msg = "a port is a number from 1 to 65535, and a range goes upwards"
        raise ValueError(msg)
    return range(low, high + 1)


def _pair(targets: range, published: str, protocol: str, host: str) -> list[PublishedPort]:
    if protocol not in ("tcp", "udp", "sctp"):
        msg = "the protocol is tcp, udp or sctp"
        raise ValueError(msg)
    hosts = _port_range(published) if published not in ("", "0") else None
    if hosts is not None and len(hosts) != len(targets):
        if len(targets) > 1:
            msg = "both ranges have to be of the same length"
            raise ValueError(msg)
        # Docker takes any free one of the range.
        hosts = None
    if len(targets) > MAX_PORT_RANGE:
        return [PublishedPort(targets[0], hosts[0] if hosts else None, protocol, host, len(targets))]
    return [
        PublishedPort(target, hosts[index] if hosts else None, protocol, host)
        for index, target in enumerate(targets)
    ]


def ports(value: Any) -> list[PublishedPort]:
    """Return the ports of one entry: ``80``, ``8080:80/udp``, ``127.0.0.1:3000-3002:80-82``, or a mapping."""
    if isinstance(value, dict):
        if "target" not in value:
            msg = "target is missing"
            raise ValueError(msg)
        published = text(value.get("published"))
        protocol = text(value.get("protocol") or "tcp").lower()
        return _pair(_port_range(text(value["target"])), published, protocol, text(value.get("host_ip")))
    written = text(value).strip()
    written, _, protocol = written.partition("/")
    host = ""
    if written.startswith("["):
        host, bracket, written = written[1:].partition("]:")
        if not bracket:
            msg = "an IPv6 address is written [::1]:8080:80"
            raise ValueError(msg)
        if ":" not in written:
            msg = "a port such as [::1]:8080:80 is expected"
            raise ValueError(msg)
    elif written.count(":") > 1:
        host, published, target = written.rsplit(":", 2)
        written = f"{published}:{target}"
    published, colon, target = written.rpartition(":")
    if not colon:
        published = ""
    return _pair(_port_range(target), published, (protocol or "tcp").lower(), host)


def exposed(value: Any) -> list[PublishedPort]:
    """Return the ports of one entry of ``expose``: ``3000``, ``8000-8002/udp``, or nothing."""
    written, _, protocol = text(value).strip().partition("/")
    if not written:
        return []
    return _pair(_port_range(written), "", (protocol or "tcp").lower(), "")


@dataclass(frozen=True)
class Mounted:
    """One entry of ``volumes``, in one form."""

    kind: str
    """volume, bind, tmpfs, image, npipe or cluster."""
    source: str
    """Empty for an anonymous volume."""
    target: str
    read_only: bool = False
    sub_path: str = ""
    size: int | None = None
    is_directory: bool = False
    """The file says so itself, by a trailing slash."""
    options: tuple[str, ...] = ()
    """Options of the short form that have no meaning here."""


def mount(value: Any) -> Mounted:
    """Return a mount, given in the short or in the long form."""
    result = _long_mount(value) if isinstance(value, dict) else _short_mount(text(value))
    if len(result.source) > MAX_PATH or len(result.sub_path) > MAX_PATH:
        msg = "the path is longer than a path can be"
        raise ValueError(msg)
    return result


def container_path(path: str) -> str:
    """Return a path to mount something at, without ``//``, ``.`` and ``..``."""
    cleaned = "/" + posixpath.normpath(path).lstrip("/")
    if not path.startswith("/"):
        msg = "the path in the container has to be absolute"
        raise ValueError(msg)
    if cleaned == "/" or ":" in cleaned:
        msg = "the path in the container can't be / or hold a colon"
        raise ValueError(msg)
    if len(path) > MAX_PATH or not cleaned.isprintable():
        msg = "the path in the container is too long, or holds control characters"
        raise ValueError(msg)
    return cleaned


def _long_mount(value: dict[str, Any]) -> Mounted:
    kind, source, target = (text(value.get(key)) for key in ("type", "source", "target"))
    if not target or not kind:
        msg = "type and target are needed"
        raise ValueError(msg)
    if kind == "bind" and not source:
        msg = "a bind needs a source"
        raise ValueError(msg)
    volume, tmpfs = (_mapping(value.get(key)) for key in ("volume", "tmpfs"))
    sub_path = text(volume.get("subpath"))
    if sub_path.startswith("/") or ".." in sub_path.split("/"):
        msg = "a subpath stays inside of the volume"
        raise ValueError(msg)
    return Mounted(
        kind=kind,
        source=source,
        target=container_path(target),
        read_only=boolean(value.get("read_only") or False),
        sub_path=sub_path,
        size=size(tmpfs["size"]) if tmpfs.get("size") is not None else None,
        is_directory=source.endswith("/") or target.endswith("/"),
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _short_mount(value: str) -> Mounted:
    source = ""
    windows = _WINDOWS.match(value)
    path, _, rest = value[2:].partition(":")
    if windows and rest.startswith("/"):
        # Otherwise the letter is a volume's name: d:/data, d:/data:ro.
        source = value[:2] + path
    else:
        head, colon, rest = value.partition(":")
        if not colon:
            source, rest = "", head
        else:
            source = head
    target, _, mode = rest.partition(":")
    if not target or (value.startswith(":")):
        msg = "a mount such as data:/data is expected"
        raise ValueError(msg)
    flags = [flag for flag in mode.split(",") if flag]
    return Mounted(
        kind="volume" if not source or _NAMED.fullmatch(source) else "bind",
        source=source,
        target=container_path(target),
        read_only="ro" in flags,
        is_directory=source.endswith("/") or target.endswith("/"),
        options=tuple(flag for flag in flags if flag not in ("", "ro", "rw")),
    )
