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


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"owner": "o"}, {"owner": "o"}),
        ({"owner": ""}, {}),
        ({"owner": None, "jobBytes": None, "public": None}, {}),
        ({"jobBytes": 0, "ownerBytes": 1 << 50}, {"job_bytes": 0, "owner_bytes": 1 << 50}),
        ({"public": True, "external": True}, {"public": True, "external": True}),
        ({"scope": "files"}, {"scope": "files", "external": True}),
        ({"unknown": 7}, {}),
    ],
)
def test_optional_claims(claims, expected):
    assert verify(tokens.sign(KEY, CLAIMS | claims)) == tokens.Claims("job", "a", "t", 1000)._replace(
        **expected
    )


@pytest.mark.parametrize(
    "claims",
    [
        *({"owner": 7}, {"owner": ["o"]}, {"jobBytes": "1"}, {"jobBytes": 1.0}, {"jobBytes": -1}),
        *(
            {"jobBytes": True},
            {"ownerBytes": "many"},
            {"public": 1},
            {"public": "yes"},
            {"external": "false"},
        ),
    ],
)
@pytest.mark.parametrize("scope", ["job", "files"])
def test_a_wrong_claim_is_not_taken_for_a_missing_one(scope, claims):
    """A quota that can't be read must not become no quota."""
    (name,) = claims
    with pytest.raises(tokens.TokenError, match=f"claim {name} is malformed"):
        verify(tokens.sign(KEY, CLAIMS | {"scope": scope} | claims))


LINK = {"scope": "link", "namespace": "a", "exp": 1000}


def test_links():
    name = "0" * 40
    assert verify(tokens.sign(KEY, LINK | {"hash": name})) == tokens.Claims("link", "a", "", 1000, hash=name)
    assert verify(tokens.sign(KEY, LINK | {"task": "t", "path": "x/y"})) == tokens.Claims(
        "link", "a", "t", 1000, path="x/y"
    )


@pytest.mark.parametrize(
    "claims",
    [
        *(
            {},
            {"hash": ""},
            {"hash": "0" * 39},
            {"hash": "A" * 40},
            {"hash": 7},
            {"task": "t"},
            {"path": "x"},
        ),
        *({"task": "", "path": "x"}, {"task": "t", "path": None}, {"hash": "0" * 40, "namespace": ""}),
        {"hash": "x", "task": "t", "path": "p"},
    ],
)
def test_links_to_nothing(claims):
    with pytest.raises(tokens.TokenError, match="incomplete"):
        verify(tokens.sign(KEY, LINK | claims))


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
