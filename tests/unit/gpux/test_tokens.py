from __future__ import annotations

import base64
import json

import pytest

from gpux import tokens

KEY = b"0123456789abcdef"
CLAIMS = {"scope": "job", "namespace": "a", "task": "t", "exp": 1000}


def verify(token, *, key=KEY, now=999.0):
    return tokens.verify(key, token, now=lambda: now)


def test_round_trip():
    token = tokens.sign(KEY, CLAIMS)
    assert token.startswith("v1.")
    assert verify(token) == tokens.Claims("job", "a", "t", 1000)
    assert tokens.sign(KEY, dict(reversed(CLAIMS.items()))) == token


def test_an_operator_token_is_bound_to_no_tenant():
    token = tokens.sign(KEY, {"scope": "operator", "namespace": "a", "task": "t", "exp": 1000})
    assert verify(token) == tokens.Claims("operator", "", "", 1000)


def test_expiry():
    with pytest.raises(tokens.TokenError, match="expired"):
        verify(tokens.sign(KEY, CLAIMS), now=1000.0)


def test_another_key():
    with pytest.raises(tokens.TokenError, match="signature"):
        verify(tokens.sign(b"another key of 16", CLAIMS))


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {**CLAIMS, "scope": "admin"},
        {**CLAIMS, "namespace": ""},
        {**CLAIMS, "task": ""},
        {**CLAIMS, "task": 7},
        {**CLAIMS, "exp": "1000"},
        {**CLAIMS, "exp": 1000.5},
        {"scope": "job", "exp": 1000},
        {"scope": "operator"},
    ],
)
def test_claims_that_say_too_little(claims):
    with pytest.raises(tokens.TokenError, match="incomplete"):
        verify(tokens.sign(KEY, claims))


def forged():
    good = tokens.sign(KEY, CLAIMS)
    version, body, signature = good.split(".")
    other = base64.urlsafe_b64encode(json.dumps({**CLAIMS, "task": "u"}).encode()).rstrip(b"=").decode()
    yield from (
        "",
        ".",
        "..",
        "...",
        "v1",
        "v1..",
        good + ".",
        f"v2.{body}.{signature}",
        f"{version}.{body}.",
    )
    yield f"{version}.{other}.{signature}"
    yield f"{version}.{body}.{'A' * len(signature)}"
    yield f"{version}.{body}.{signature[:-2]}"
    yield f"{version}.{body}.é"
    yield f"{version}.{body}.!!!!"
    yield "v1." + "A" * 100_000 + ".A"


@pytest.mark.parametrize("token", list(forged()))
def test_forgeries(token):
    with pytest.raises(tokens.TokenError) as caught:
        verify(token)
    assert "eyJ" not in str(caught.value)


def test_a_key_file_may_end_in_a_line_break(tmp_path):
    (tmp_path / "key").write_bytes(KEY + b"\r\n")
    assert tokens.load_key(tmp_path / "key") == KEY


def test_a_short_key_is_refused(tmp_path):
    (tmp_path / "key").write_bytes(b"short\n")
    with pytest.raises(ValueError, match="shorter"):
        tokens.load_key(tmp_path / "key")
