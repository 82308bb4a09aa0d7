"""Who may name an owner. Keys are made here, as openssl and ssh-keygen make them."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gpux.hashes import b58encode
from opengpu_operator.api.errors import Invalid
from opengpu_operator.reconcile.ownerproof import check, message, public_key
from tests.unit.reconcile.builders import NOW, at, task

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ALICE = b58encode(KEY.public_key().public_bytes_raw())
CPU, NVIDIA = (f"sha256:{digit * 64}" for digit in "12")
SIGNED: dict[str, Any] = {
    "cluster": "here",
    "namespace": "team",
    "task": "ask",
    "not_after": at(60),
    "digests": [CPU, NVIDIA],
}


def proof(*, key: Ed25519PrivateKey = KEY, **otherwise: Any) -> dict[str, Any]:
    """Return a proof, over something else than it should be."""
    signature = base64.b64encode(key.sign(message(**{**SIGNED, **otherwise}))).decode()
    return {"signature": signature, "notAfter": SIGNED["not_after"], "digests": SIGNED["digests"]}


def judge(
    owner: str | None = ALICE,
    given: dict[str, Any] | None = None,
    *,
    required: bool = True,
    digest: str = CPU,
    later: float = 0,
) -> str | None:
    """Return the reason and message of the refusal."""
    spec: dict[str, Any] = {"owner": owner} | ({"ownerProof": given} if given else {}) if owner else {}
    now = NOW + timedelta(seconds=later)
    try:
        check(task(**spec), digest=digest, cluster="here", required=required, now=now)
    except Invalid as refusal:
        return f"{refusal.reason}: {refusal.message}"
    return None


def test_what_is_signed_can_be_written_by_hand():
    assert (
        message(**SIGNED)
        == (
            f"opengpu.network/owner-proof/v1\nhere\nteam\nask\n2026-03-01T12:01:00Z\n{CPU}\n{NVIDIA}\n"
        ).encode()
    )
    assert message(**{**SIGNED, "digests": [NVIDIA, CPU, CPU]}) == message(**SIGNED)


def test_a_line_break_would_make_two_lines_of_one():
    with pytest.raises(ValueError, match="line break"):
        message(**{**SIGNED, "cluster": "here\nteam"})


@pytest.mark.parametrize("digest", [CPU, NVIDIA])
def test_a_good_proof_is_good_for_every_file_that_was_signed(digest):
    assert judge(given=proof(), digest=digest) is None


def test_without_an_owner_or_a_demand_there_is_nothing_to_prove():
    assert judge(None) is None
    assert judge("alice", required=False) is None


@pytest.mark.parametrize("owner", ["alice", ALICE[:-1], f"1{ALICE}", "1" * 33])
def test_an_owner_is_a_key_where_proof_is_asked_for(owner):
    refusal = judge(owner, proof())
    assert refusal is not None
    assert refusal.startswith("OwnerProofRefused:owner: ")
    assert "opengpu owner sign" in refusal


def test_a_missing_proof_is_asked_for():
    assert (judge() or "").startswith("OwnerProofRefused:ownerProof: ")


@pytest.mark.parametrize(
    "otherwise",
    [
        {"cluster": "there"},
        {"namespace": "other"},
        {"task": "other"},
        {"not_after": at(3600)},
        {"digests": [CPU]},
        {"key": Ed25519PrivateKey.generate()},
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_a_proof_of_anything_else_proves_nothing(otherwise, required):
    refusal = judge(given=proof(**otherwise), required=required) or ""
    assert refusal.startswith("OwnerProofRefused:ownerProof: the signature isn't one of")
    assert "namespace team, task ask" in refusal


def test_a_proof_ends():
    assert judge(given=proof(), later=59) is None
    assert "until 2026-03-01T12:01:00Z" in (judge(given=proof(), later=60) or "")


def test_a_file_that_wasnt_signed_doesnt_run():
    other = f"sha256:{'3' * 64}"
    assert other in (judge(given=proof(), digest=other) or "")
    nothing = {**proof(digests=[]), "digests": []}
    assert "no file" in (judge(given=nothing) or "")


@pytest.mark.parametrize(
    "nonsense", [{"signature": f"{'A' * 86}=="}, {"notAfter": "2026-02-31T00:00:00Z"}, {"notAfter": at(3600)}]
)
def test_what_is_no_signature_or_no_time_proves_nothing(nonsense):
    assert (judge(given=proof() | nonsense) or "").startswith("OwnerProofRefused:ownerProof: ")


def test_keys_have_one_name():
    assert public_key(ALICE) == KEY.public_key().public_bytes_raw()
    zeros = bytes(32)
    assert public_key(b58encode(zeros)) == zeros
    assert public_key(f"{ALICE}0") is None
