from __future__ import annotations

from typing import Any

import pytest

from opengpu_operator.compose import values
from opengpu_operator.compose.values import Command, Mounted, PublishedPort


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(
            (1.0, "1"),
            (1.5, "1.5"),
            (1e6, "1e+06"),
            (1e21, "1e+21"),
            (1e-5, "1e-05"),
            (0.1, "0.1"),
            (2.5e-7, "2.5e-07"),
        ),
        *((True, "true"), (False, "false"), (None, ""), (3, "3"), ("x", "x"), (float("inf"), "+Inf")),
        *((123456789.0, "1.23456789e+08"), (100000.0, "100000"), (-0.0, "-0")),
    ],
)
def test_text_is_what_go_writes(value: object, expected: str) -> None:
    assert values.text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("64m", 64 * 2**20),
        ("2gb", 2 * 2**30),
        ("1.5GiB", 3 * 2**29),
        (1024, 1024),
        ("128", 128),
        ("5b", 5),
        (" 1 KB ", 1024),
    ],
)
def test_sizes(value: Any, expected: int) -> None:
    assert values.size(value) == expected


@pytest.mark.parametrize("value", ["", "x", "1x", "-1", "1e3", True, None, [], "9" * 40, -1])
def test_no_sizes(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        values.size(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("0", 0), (0, 0), ("1d", 86400), ("10us", 1e-5)],
)
def test_durations(value: Any, expected: float) -> None:
    assert values.duration(value) == pytest.approx(expected)


@pytest.mark.parametrize("value", ["", "10", 10, "1x", "s", "-1s", True, "1e9h", "999999999h"])
def test_no_durations(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        values.duration(value)


@pytest.mark.parametrize(
    ("value", "words", "cut"),
    [
        ("a b  c", ["a", "b", "c"], ""),
        ("""sh -c "echo 'a b' \\"c\\"" """, ["sh", "-c", """echo 'a b' "c\""""], ""),
        ("'a\\b' \\ c ''", ["a\\b", " c", ""], ""),
        ("a && b", ["a"], "&& b"),
        ("a>b", ["a"], ">b"),
        ("echo 'a;b'", ["echo", "a;b"], ""),
        ("--ip='*'\n x", ["--ip=*", "x"], ""),
        ("python app.py 2>&1", ["python", "app.py"], "2>&1"),
        ("a2>b", ["a2"], ">b"),
        ("a 2 >b", ["a", "2"], ">b"),
        ("echo $(date +%s) `a b` c", ["echo", "$(date +%s)", "`a b`", "c"], ""),
        ("", [], ""),
        (["a b", 1, True], ["a b", "1", "true"], ""),
    ],
)
def test_commands(value: Any, words: list[str], cut: str) -> None:
    assert values.command(value) == Command(words, cut)


@pytest.mark.parametrize("value", ["'a", 'a"', "a\\", "(a)", "a )", "$(a", "`a", 5, {}])
def test_no_commands(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        values.command(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("80", [(80, None, "tcp", "")]),
        (80, [(80, None, "tcp", "")]),
        ("8080:80", [(80, 8080, "tcp", "")]),
        ("8080:80/UDP", [(80, 8080, "udp", "")]),
        (":80", [(80, None, "tcp", "")]),
        ("0:80", [(80, None, "tcp", "")]),
        ("127.0.0.1:8080:80", [(80, 8080, "tcp", "127.0.0.1")]),
        ("127.0.0.1::80", [(80, None, "tcp", "127.0.0.1")]),
        ("[::1]:8080:80", [(80, 8080, "tcp", "::1")]),
        ("::1:8080:80", [(80, 8080, "tcp", "::1")]),
        ("3000-3001", [(3000, None, "tcp", ""), (3001, None, "tcp", "")]),
        ("9000-9001:80-81", [(80, 9000, "tcp", ""), (81, 9001, "tcp", "")]),
        ("8000-8010:80", [(80, None, "tcp", "")]),
        ({"target": 80, "published": "8080", "protocol": "udp"}, [(80, 8080, "udp", "")]),
        ({"target": "80", "published": 8080, "host_ip": "127.0.0.1"}, [(80, 8080, "tcp", "127.0.0.1")]),
        ({"target": 80}, [(80, None, "tcp", "")]),
    ],
)
def test_ports(value: Any, expected: list[tuple[int, int | None, str, str]]) -> None:
    assert values.ports(value) == [PublishedPort(*entry) for entry in expected]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "80:",
        "0",
        "65536",
        "70000:80",
        "81-80",
        "80/icmp",
        "1-2:3-5",
        "1-1000:1-999",
        "0-300",
        "²",
        "[::1]:80",
        "[::1",
        {},
        {"target": "x"},
        "-1",
    ],
)
def test_no_ports(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        values.ports(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("data:/data", Mounted("volume", "data", "/data")),
        ("d:/data", Mounted("volume", "d", "/data")),
        ("/data", Mounted("volume", "", "/data")),
        ("./a:/b:ro", Mounted("bind", "./a", "/b", read_only=True)),
        ("../a/:/b", Mounted("bind", "../a/", "/b", is_directory=True)),
        ("~/x:/b//c/../d:z,ro", Mounted("bind", "~/x", "/b/d", read_only=True, options=("z",))),
        (r"C:\Users\me:/b", Mounted("bind", r"C:\Users\me", "/b")),
        ("c:/Users/me:/b:ro", Mounted("bind", "c:/Users/me", "/b", read_only=True)),
        (
            {"type": "volume", "source": "v", "target": "/b", "volume": {"subpath": "x/y"}},
            Mounted("volume", "v", "/b", sub_path="x/y"),
        ),
        ({"type": "tmpfs", "target": "/b", "tmpfs": {"size": "1m"}}, Mounted("tmpfs", "", "/b", size=2**20)),
        (
            {
                "type": "bind",
                "source": "x.conf",
                "target": "/b",
                "read_only": "true",
                "bind": {"create_host_path": True},
            },
            Mounted("bind", "x.conf", "/b", read_only=True),
        ),
    ],
)
def test_mounts(value: Any, expected: Mounted) -> None:
    assert values.mount(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("", ":", ":/b", "a:b", "a:", "/", "a:/"),
        *({}, {"type": "bind", "target": "/b"}, {"type": "volume", "source": "v"}),
        {"type": "volume", "source": "v", "target": "/b", "volume": {"subpath": "../x"}},
    ],
)
def test_no_mounts(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        values.mount(value)


@pytest.mark.parametrize("value", ["maybe", 1, None, [], ""])
def test_no_booleans(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        values.boolean(value)


@pytest.mark.parametrize("value", ["1.5", "x", True, None, float("nan"), "1e400", 2**70])
def test_no_integers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        values.integer(value)
