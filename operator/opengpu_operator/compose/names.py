"""Give every service a name that DNS allows, and rewrite what calls services by another one.

A host name in a value is recognised by where it stands: after ``//``, ``@``, ``host=`` or ``--host``, before a port, or
in a variable that names hosts. A word that merely looks like a service's name is left alone, and reported.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

MAX_LABEL: Final = 63
_MAX_DOMAIN: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_FORBIDDEN: Final = re.compile(r"[^a-z0-9-]+")
#: A host's name, and the port after it.
_WORD: Final = re.compile(r"(?<![\w.-])([\w.-]+)(?::(\d{1,5})(?!\d))?", re.ASCII)
#: Variables whose value is the name of a host, or several.
_HOST_VARIABLE: Final = re.compile(
    r"(?:(?:^|_)(?:ENDPOINT|BROKER|BROKERS|NODE|NODES|PEERS)|HOST|HOSTS|HOSTNAME|SERVER|SERVERS|ADDR|ADDRESS|URL|URI)$",
    re.IGNORECASE,
)
#: What stands before a host: ``-h``, ``--db-host=``, ``host=``, ``"host": "``, nginx's ``server``, and a list's others.
_LEADING: Final = re.compile(
    r"(?:(?:^|\s)(?:-[hH]|--[\w-]*(?:host|hostname|server|addr|address)|server)[\s=]\s*"
    r"|(?:host|hosts|hostname|server|servers|addr|address|endpoint|brokers?|nodes?|peers)[\"']?\s*[=:]\s*)"
    r"[\"'\[]*(?:[\w.:-]+[\"']?,\s*[\"']?)*$",
    re.IGNORECASE | re.ASCII,
)
_LEAD: Final = 48
_LISTED: Final = re.compile(r"(?:^|[,;\s])$")
_LIST_GOES_ON: Final = re.compile(r"$|[,;\s]")
_PORT_FOLLOWS: Final = re.compile(r"\s+\d{2,5}(?![\w.])", re.ASCII)
#: The rest of a URL's user, password, host and port.
_AUTHORITY: Final = re.compile(r"[^/?#\s\"'<>]*")
_MAX_USER: Final = 256


def is_label(name: str) -> bool:
    """Whether DNS allows a name as one label."""
    return bool(_LABEL.fullmatch(name))


def is_domain(name: str) -> bool:
    """Whether DNS allows a name, which may have several labels."""
    return len(name) <= _MAX_DOMAIN and all(map(is_label, name.split(".")))


def label(name: str) -> str:
    """Return the DNS label nearest to a name: lower case, everything else a hyphen, hashed where nothing is left."""
    result = _FORBIDDEN.sub("-", name.lower()).strip("-")
    if not result:
        return f"x-{digest(name)}"
    if len(result) > MAX_LABEL:
        result = f"{result[: MAX_LABEL - 9].rstrip('-')}-{digest(name)}"
    return result


def digest(name: str) -> str:
    """Return eight characters that stand for a name."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def unique_labels(names: Iterable[str], *, reserved: Iterable[str] = ()) -> dict[str, str]:
    """Return a label for each name, no two alike; names that are labels keep theirs, whatever the order."""
    listed = list(dict.fromkeys(names))
    kept_back = set(reserved)
    result = {name: name for name in listed if is_label(name) and name not in kept_back}
    taken = set(result.values()) | kept_back
    for name in listed:
        if name in result:
            continue
        wanted, salt = label(name), ""
        while wanted in taken:
            # Eight characters of a hash can be made to meet, too.
            wanted = f"{wanted[: MAX_LABEL - 9].rstrip('-')}-{digest(name + salt)}"
            salt += "+"
        taken.add(wanted)
        result[name] = wanted
    return {name: result[name] for name in listed}


class HostNames:
    """Rewrites the names of hosts in values.

    ``renamed`` maps a name or an alias to the label that replaces it; ``published`` maps ports of the host to (label,
    port), for the names in ``host_names``, which mean the host itself.
    """

    def __init__(
        self,
        *,
        renamed: Mapping[str, str],
        host_names: Iterable[str],
        published: Mapping[int, tuple[str, int]],
    ) -> None:
        self._renamed = dict(renamed)
        self._hosts = frozenset(name.lower() for name in host_names)
        self._published = published
        self.found: set[str] = set()
        """Names of the host that values hold, in lower case."""

    def rewrite(self, value: str, *, variable: str = "", before: str = "") -> Rewritten:
        """Return a value with its host names replaced, and what was found on the way.

        ``before`` is the word in front of a word of a command line.
        """
        result = Rewritten(value)
        names_hosts = bool(_HOST_VARIABLE.search(variable))
        # One pass over all words, looked up in tables: a pattern of every name would let a file choose its cost.
        result.value = _WORD.sub(
            lambda match: self._replace(match, result, names_hosts=names_hosts, before=before), value
        )
        return result

    def _replace(self, match: re.Match[str], result: Rewritten, *, names_hosts: bool, before: str) -> str:
        found, name, port = match.group(), match.group(1), match.group(2)
        if name.lower() in self._hosts:
            self.found.add(name.lower())
            target = self._published.get(int(port)) if port else None
            if target is None:
                result.unresolved.append(found)
                return found
            result.resolved.append(found)
            return f"{target[0]}:{target[1]}"
        label = self._renamed.get(name)
        if label is None:
            return found
        is_host = _is_host(match, names_hosts=names_hosts, before=before)
        if is_host is None:
            result.doubtful.append(name)
        return label + found[len(name) :] if is_host else found


def _is_host(match: re.Match[str], *, names_hosts: bool, before: str) -> bool | None:
    """Return whether a word is a host's name, by where it stands; None where that doesn't tell."""
    text, start, end = match.string, match.start(), match.end()
    if text.endswith("/dev/tcp/", 0, start) or _PORT_FOLLOWS.match(text, end):
        return True
    if text.endswith("/", 0, start):
        # In a path it is a directory; behind exactly two slashes it is a host or, before an @, a user.
        starts_authority = text.endswith("//", 0, start) and not text.endswith("///", 0, start)
        return starts_authority and not _is_user(text, end)
    if text.endswith("@", 0, start):
        return True
    if match.group(2):
        return None if _is_user(text, end) else True
    lead = text[max(0, start - _LEAD) : start]
    listed = _LISTED.search(lead) and _LIST_GOES_ON.match(text, end)
    if (names_hosts and listed) or _LEADING.search(f"{before[-_LEAD:]} {lead}" if start < _LEAD else lead):
        return True
    return False if _is_user(text, end) else None


def _is_user(text: str, end: int) -> bool:
    """Whether what ends there stands before the ``@`` of a URL."""
    authority = _AUTHORITY.match(text, end, end + _MAX_USER)
    return authority is not None and "@" in authority.group()


class Rewritten:
    """A value, and the names in it that were replaced or couldn't be."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.resolved: list[str] = []
        self.unresolved: list[str] = []
        self.doubtful: list[str] = []
