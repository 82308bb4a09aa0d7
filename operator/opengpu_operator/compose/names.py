"""Give every service a name that DNS allows, and rewrite what calls services by another one.

A host name in a value is recognised by where it stands (after ``//`` or ``@``, before a port, or as the whole value
of a variable that names a host); a word that merely looks like a service's name is left alone, and so is a user's
(``//name:password@``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

MAX_LABEL: Final = 63
_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_FORBIDDEN: Final = re.compile(r"[^a-z0-9-]+")
#: A host's name, and the port after it.
_WORD: Final = re.compile(r"(?<![\w.-])([\w.-]+)(?::(\d{1,5})(?!\w))?", re.ASCII)
#: What follows the name of a user; bounded, since it is looked for after every name.
_USER: Final = re.compile(r"(?::[^\s/@,]{0,255})?@")
#: Variables whose whole value is a host's name.
_HOST_VARIABLE: Final = re.compile(
    r"(?:^(?:PG)?|_)(?:HOST|HOSTS|HOSTNAME|SERVER|SERVERS|ADDR|ADDRESS|ENDPOINT|URL|URI|BROKER|BROKERS|NODE|NODES|PEERS)$",
    re.IGNORECASE,
)


def is_label(name: str) -> bool:
    """Whether DNS allows a name as one label."""
    return bool(_LABEL.fullmatch(name))


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
        wanted = label(name)
        if wanted in taken:
            wanted = f"{wanted[: MAX_LABEL - 9].rstrip('-')}-{digest(name)}"
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

    def rewrite(self, value: str, *, variable: str = "") -> Rewritten:
        """Return a value with its host names replaced, and what was found on the way."""
        result = Rewritten(value)
        whole = self._renamed.get(value)
        if whole is not None:
            if _HOST_VARIABLE.search(variable):
                result.value = whole
            elif variable and not is_label(value):
                # An alias may be any word; one that siblings seem to use is reported with the job.
                result.doubtful.append(value)
            return result
        # One pass over all words, looked up in tables: a pattern of every name would let a file choose its cost.
        result.value = _WORD.sub(lambda match: self._replace(match, result), value)
        return result

    def _replace(self, match: re.Match[str], result: Rewritten) -> str:
        found, name, port = match.group(), match.group(1), match.group(2)
        if name.lower() in self._hosts:
            target = self._published.get(int(port)) if port else None
            if target is None:
                result.unresolved.append(found)
                return found
            result.resolved.append(found)
            return f"{target[0]}:{target[1]}"
        label = self._renamed.get(name)
        if label is None or _USER.match(match.string, match.end(1)):
            return found
        is_host = bool(port) or match.string.endswith(("//", "@"), 0, match.start())
        return f"{label}:{port}" if is_host and port else label if is_host else found


class Rewritten:
    """A value, and the names in it that were replaced or couldn't be."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.resolved: list[str] = []
        self.unresolved: list[str] = []
        self.doubtful: list[str] = []
