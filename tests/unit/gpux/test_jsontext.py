from __future__ import annotations

import mmap

import pytest

from gpux.jsontext import is_json


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b" [ ] ",
        b'""',
        b"0",
        b"-0.5e+10",
        b"null",
        b'{"a":1,"b":[1,2,{"c":[]}],"d":"\\u00e9\\n","e":{"f":{}}}',
        b"[[1,2],[3,[4,[5]]],{}]",
        b'[1 , 2\n,\t[ 3 ] ,{ "a" : [ ] , "b" : 1 } ]',
        '{"é": "日本"}'.encode(),
        b"[" * 512 + b"1" + b"]" * 512,
    ],
)
def test_json(text):
    assert is_json(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b"{1:2}",
        b'{"a":1]',
        b"[1}",
        b"01",
        b"1.",
        b".5",
        b"-",
        b"+1",
        b"1e",
        b"NaN",
        b"Infinity",
        b"nul",
        b"True",
        b'"',
        b'"\\x"',
        b'"\\u12g4"',
        b'"a\nb"',
        b"{} {}",
        b"[1]x",
        b'"\xff"',
        b'"\xc3"',
        b"\xef\xbb\xbf{}",
        b"'a'",
        b"[[1,2],",
        b"[" * 513 + b"1" + b"]" * 513,
        b"a=b&c=d",
    ],
)
def test_not_json(text):
    assert not is_json(text)


@pytest.mark.parametrize(
    "text",
    [
        b"[" + b"1," * 2_000_000 + b"1]",
        b'"' + b"x" * (8 << 20) + b'"',
        b"[" + b"[]," * 1_000_000 + b"[]]",
        b"[" + b"[1]," * 500_000 + b"[1]]",
        b'{"a":{"b":' * 200 + b"1" + b"}}" * 200,
    ],
    ids=["numbers", "one string", "empty lists", "lists", "nested objects"],
)
def test_large_texts(tmp_path, text):
    file = tmp_path / "text"
    file.write_bytes(text)
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert is_json(mapped)
    assert not is_json(text + b"]")
