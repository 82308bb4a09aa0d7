from __future__ import annotations

import hashlib

import pytest

from gpux.hashes import FileHash, MalformedHashError, b58decode, b58encode, parse

SHA1 = hashlib.sha1(b"x").hexdigest()
SHA256 = hashlib.sha256(b"x").hexdigest()


def test_a_published_link_is_base58_of_a_sha1():
    found = parse("4FWrow8vhpCVnY8B1DGZNyx4SF6U")
    assert found.algorithm == "sha1"
    assert b58encode(bytes.fromhex(found.hex)) == "4FWrow8vhpCVnY8B1DGZNyx4SF6U"


@pytest.mark.parametrize("extension", ["", ".zip", ".tar.gz", ".blend1"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SHA1, ("sha1", SHA1)),
        (SHA1.upper(), ("sha1", SHA1)),
        (SHA256, ("sha256", SHA256)),
        (b58encode(bytes.fromhex(SHA1)), ("sha1", SHA1)),
        (b58encode(bytes.fromhex(SHA256)), ("sha256", SHA256)),
        ("1" * 20, ("sha1", "00" * 20)),
        ("1" * 32, ("sha256", "00" * 32)),
    ],
)
def test_every_way_to_write_a_hash(text, extension, expected):
    assert parse(text + extension) == FileHash(*expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".zip",
        "abc",
        SHA1[:-1],
        SHA1 + "0",
        SHA1 + ".",
        SHA1 + "..",
        SHA1 + ".a.b.c.d",
        SHA1 + "./x",
        SHA1 + ".a/b",
        SHA1 + ".é",
        SHA1 + "\n",
        SHA256 + "0",
        "0" * 28,
        "l" * 28,
        "../" + SHA1,
        "é" * 40,
        "٣" * 40,
        "1" * 21,
        "z" * 5000,
    ],
)
def test_what_is_no_hash(text):
    with pytest.raises(MalformedHashError):
        parse(text)


@pytest.mark.parametrize("raw", [b"", b"\0", b"\0\0a", b"hello world", bytes(range(32))])
def test_base58_round_trip(raw):
    assert b58decode(b58encode(raw)) == raw


def test_base58_known_value():
    assert b58encode(b"Hello World!") == "2NEpo7TZRRrLZSi2U"
