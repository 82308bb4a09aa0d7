from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from gpux.s3.signing import Credentials, Scope, encode_path, encode_query, load_credentials, sign

# The example of AWS' documentation, "GET Object" with a range.
EXAMPLE = Scope(
    Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    "us-east-1",
    datetime(2013, 5, 24, tzinfo=UTC),
)
EMPTY = hashlib.sha256(b"").hexdigest()


def signature(path, query, headers):
    signed = sign("GET", path, query=query, headers=headers, payload=EMPTY, scope=EXAMPLE)
    return signed["Authorization"].rpartition("Signature=")[2]


def test_signatures_are_those_of_the_documentation():
    host = "examplebucket.s3.amazonaws.com"
    ranged = signature("/test.txt", "", {"Host": host, "Range": "bytes=0-9"})
    assert ranged == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    listing = encode_query({"prefix": "J", "max-keys": "2"})
    listed = signature("/", listing, {"Host": host})
    assert listed == "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"


def test_a_session_token_is_signed_too():
    scope = EXAMPLE._replace(credentials=EXAMPLE.credentials._replace(session_token="passing"))
    signed = sign("GET", "/", query="", headers={"Host": "h"}, payload=EMPTY, scope=scope)
    assert signed["x-amz-security-token"] == "passing"
    assert "x-amz-security-token" in signed["Authorization"]


def test_paths_and_queries_are_encoded_once():
    assert encode_path("/b/task:1@x/a b~") == "/b/task%3A1%40x/a%20b~"
    assert encode_query({"b": "/", "a": ""}) == "a=&b=%2F"


def test_credentials_come_from_a_mounted_secret(tmp_path):
    (tmp_path / "access-key-id").write_text("id\n")
    (tmp_path / "secret-access-key").write_text("secret\n")
    assert load_credentials(tmp_path) == Credentials("id", "secret")
    (tmp_path / "session-token").write_text("session")
    assert load_credentials(tmp_path).session_token == "session"
    (tmp_path / "secret-access-key").write_text("\n")
    with pytest.raises(ValueError, match="secret-access-key is empty"):
        load_credentials(tmp_path)
