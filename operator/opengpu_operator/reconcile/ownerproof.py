"""The proof that an owner wants a task to run: an ed25519 signature by the key that ``spec.owner`` names.

What is signed is a text of lines that anybody can write with ``printf`` and sign with ``openssl``; nothing of it can
hold a line break. It binds the proof to this cluster, the namespace, the task's name, the Compose files that may run
and a moment after which it is nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from gpux.hashes import MalformedHashError, b58decode, b58encode
from opengpu_operator.api.conditions import timestamp
from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.reasons import Reason
from opengpu_operator.api.task import Task

_FORM: Final = "opengpu.network/owner-proof/v1"
_KEY_BYTES: Final = 32


def message(*, cluster: str, namespace: str, task: str, not_after: str, digests: Iterable[str]) -> bytes:
    """Return what is signed.

    ``digests`` are those of the Compose files, as ``sha256:<hex>``; their order doesn't matter. ``not_after`` is taken
    as it is written in the proof, so that nobody has to agree on how times are written.
    """
    lines = [_FORM, cluster, namespace, task, not_after, *sorted(set(digests))]
    broken = [line for line in lines if "\n" in line]
    if broken:
        raise ValueError(f"{broken[0]!r} has a line break")
    return "".join(f"{line}\n" for line in lines).encode()


def check(task: Task, *, digest: str, cluster: str, required: bool, now: datetime) -> None:
    """Return if a task may use the storage of the owner that it names; raises Invalid, with what to do, if not.

    A proof that isn't asked for is checked all the same: nobody gives a wrong one on purpose.
    """
    owner, proof = task.spec.owner, task.spec.owner_proof
    if owner is None or (proof is None and not required):
        return
    key = public_key(owner)
    if key is None:
        raise _refused(
            "owner",
            f"{owner} isn't an ed25519 public key in Base58 (32 bytes), which `opengpu owner sign` prints",
        )
    if proof is None:
        raise _refused(
            "ownerProof", "whoever names an owner here has to prove it: add what `opengpu owner sign` prints"
        )
    if _moment(proof.not_after) <= now:
        raise _refused(
            "ownerProof",
            f"the proof was good until {proof.not_after}, it is {timestamp(now)}: sign a new one",
        )
    if digest not in proof.digests:
        raise _refused(
            "ownerProof",
            f"the owner signed for {', '.join(proof.digests) or 'no file'}, the source's file is {digest}: sign for "
            "that one, if it is what the owner wants to run",
        )
    signed = message(
        cluster=cluster,
        namespace=task.metadata.namespace,
        task=task.metadata.name,
        not_after=proof.not_after,
        digests=proof.digests,
    )
    if not _verified(key, proof.signature, signed):
        raise _refused(
            "ownerProof",
            f"the signature isn't one of {owner} over cluster {cluster}, namespace {task.metadata.namespace}, task "
            f"{task.metadata.name}, notAfter {proof.not_after} and {', '.join(sorted(set(proof.digests)))}",
        )


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise _refused("ownerProof", f"notAfter is {text}, which is no time") from None


def _verified(key: bytes, signature: str, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - ten megabytes, which few clusters need
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - the same

    try:
        raw = base64.b64decode(signature, validate=True)
        Ed25519PublicKey.from_public_bytes(key).verify(raw, signed)
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def public_key(owner: str) -> bytes | None:
    """Return the public key that an owner's name is, written in the one way there is for it; None if it is none."""
    try:
        raw = b58decode(owner)
    except MalformedHashError:
        return None
    return raw if len(raw) == _KEY_BYTES and b58encode(raw) == owner else None


def _refused(field: str, text: str) -> Invalid:
    return Invalid(Reason.OWNER_PROOF_REFUSED.about(field), text)
