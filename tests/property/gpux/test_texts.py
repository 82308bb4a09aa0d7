from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gpux.hashes import MalformedHashError, b58decode, b58encode, parse
from gpux.jsontext import is_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def strictly_json(text: bytes) -> bool:
    def refuse(name):
        raise ValueError(name)

    try:
        json.loads(text.decode(), parse_constant=refuse)
    except ValueError:
        return False
    return not text.startswith(b"\xef\xbb\xbf")


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_what_json_writes_is_json(value, ascii_only, indent):
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:
        return
    assert is_json(text)


@given(VALUES, st.data())
def test_damaged_json_is_judged_as_the_parser_does(value, data):
    text = bytearray(json.dumps(value).encode())
    at = data.draw(st.integers(0, len(text)))
    text[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from(
            [b"", b",", b"[", b"]", b"{", b"}", b":", b'"', b"\\", b"1", b"0", b"-", b".", b" ", b"\xff"]
        )
    )
    assert is_json(bytes(text)) == strictly_json(bytes(text))


@given(st.binary(max_size=40))
def test_base58_round_trip(raw):
    assert b58decode(b58encode(raw)) == raw


@given(st.binary(min_size=20, max_size=20) | st.binary(min_size=32, max_size=32))
def test_every_digest_is_read_from_all_its_names(raw):
    assert parse(raw.hex()).hex == raw.hex()
    assert parse(b58encode(raw) + ".zip").hex == raw.hex()


@given(st.text(max_size=80))
def test_any_text_is_a_hash_or_is_refused(text):
    try:
        found = parse(text)
    except MalformedHashError:
        return
    assert len(found.hex) == {"sha1": 40, "sha256": 64}[found.algorithm]
    assert set(found.hex) <= set("0123456789abcdef")
