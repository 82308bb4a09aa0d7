"""Names that are functions of what they name, so that no crash can make a second object.

Every name is a DNS label of at most 63 characters. One that had to be cut or altered ends in a hash of the
whole text, so that two long or odd names never become the same one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from opengpu_operator.api.labels import GATE_PREFIX, SPEC_HASH

LIMIT = 63
_HASH_LENGTH = 8
_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def digest(*parts: str) -> str:
    """Return a hex hash of the parts, in which ``("a", "bc")`` differs from ``("ab", "c")``."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _cut(text: str, *, seed: str, limit: int = LIMIT) -> str:
    head = text[: limit - _HASH_LENGTH - 1].rstrip("-._")
    return f"{head}-{seed[:_HASH_LENGTH]}"


def child(*parts: str, ambiguous: bool = False) -> str:
    """Return the parts joined by ``-`` as a DNS label; the first part starts with a letter.

    ``ambiguous`` says that other parts could give the same text, so that a hash must tell them apart.
    """
    wanted = "-".join(parts)
    text = re.sub(r"[^a-z0-9-]", "-", wanted.lower()).rstrip("-")
    if text == wanted and len(text) <= LIMIT and not ambiguous:
        return text
    return _cut(text, seed=digest(*parts))


def label_value(text: str) -> str:
    """Return ``text`` as a label's value, shortened with a hash where it isn't one already."""
    if not text or (len(text) <= LIMIT and _VALUE.fullmatch(text)):
        return text
    return _cut(re.sub(r"[^-A-Za-z0-9_.]", "-", text).lstrip("-._") or "x", seed=digest(text))


def gate(until: str, service: str) -> str:
    """Return the gate that waits ``until`` (healthy, completed or placed) for a service's DNS name."""
    name = f"{until}.{service}"
    if len(name) > LIMIT:
        name = _cut(name, seed=digest(until, service))
    return GATE_PREFIX + name


_ENVIRONMENTS = ("cpu", "nvidia", "amd")


def source_volume(source: str, environment: str, volume: str) -> str:
    """Return the name of a volume that a source's tasks share."""
    marks = [f"-{name}-v-" for name in _ENVIRONMENTS]
    ambiguous = any(mark in f"-{text}-" for mark in marks for text in (source, volume))
    return child("s", source, environment, "v", volume, ambiguous=ambiguous)


def user_volume(namespace: str, owner: str, environment: str | None) -> str:
    """Return the name of an owner's ``/gpux_usr``; ``environment`` is None where all share it."""
    return f"usr-{digest(namespace, owner, environment or '')[:32]}"


def owner_value(owner: str) -> str:
    """Return the label value that stands for an owner, who may be an address or a key of any length."""
    return digest(owner)[:32]


def spec_hash(obj: Mapping[str, Any]) -> str:
    """Return the hash of an object as we want it, whether or not it already carries that hash."""
    metadata = dict(obj.get("metadata") or {})
    annotations = {
        key: value for key, value in (metadata.pop("annotations", None) or {}).items() if key != SPEC_HASH
    }
    spec = obj.get("spec")
    if obj.get("kind") == "Job" and isinstance(spec, Mapping):
        # The one field of a Job that may be changed, so that it doesn't make another Job.
        obj = {**obj, "spec": {key: value for key, value in spec.items() if key != "suspend"}}
    bare = {**obj, "metadata": {**metadata, **({"annotations": annotations} if annotations else {})}}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
