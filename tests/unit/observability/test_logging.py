import asyncio
import io
import json
import logging

import pytest

from opengpu_operator.observability.logging import JsonFormatter, TextFormatter, about, redact, setup
from opengpu_operator.settings import LogSettings


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def lines(stream):
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def log(stream):
    """A logger of JSON lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("test")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger
    logger.removeHandler(handler)


def test_a_line_is_one_json_object(log, lines):
    log.warning("a %s\nb", "x")
    (line,) = lines()
    assert line["msg"] == "a x\nb"
    assert (line["level"], line["logger"]) == ("warning", "test")
    assert line["ts"].endswith("+00:00")
    assert "object" not in line


async def test_lines_say_what_they_are_about_even_when_runs_interleave(log, lines):
    async def run(what):
        with about(what):
            log.info("first")
            await asyncio.sleep(0)
            log.info("second")

    await asyncio.gather(run("a"), run("b"))
    log.info("outside")
    *inside, outside = lines()
    assert [(line["object"], line["msg"]) for line in inside] == [
        ("a", "first"),
        ("b", "first"),
        ("a", "second"),
        ("b", "second"),
    ]
    assert inside[0]["reconcile"] == inside[2]["reconcile"] != inside[1]["reconcile"]
    assert "object" not in outside


SECRETS = [
    "Authorization: Bearer abcdefgh12345678",
    "bearer eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJl",
    "token=eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJl",
    "v1.eyJzY29wZSI6Im9wZXJhdG9yIn0.c2lnbmF0dXJlc2lnbmF0dXJl",
    "https://user:hunter2@example.com/compose.yaml",
]


@pytest.mark.parametrize("text", SECRETS)
def test_credentials_are_masked(log, lines, text):
    for secret in ("abcdefgh12345678", "c2lnbmF0dXJl", "hunter2"):
        assert secret not in redact(text)
    log.error("with %s", text, exc_info=ValueError(text))
    (line,) = lines()
    assert redact(text) in line["msg"]
    assert redact(text) in line["error"]
    for secret in ("abcdefgh12345678", "c2lnbmF0dXJl", "hunter2"):
        assert secret not in json.dumps(line)


def test_ordinary_text_stays():
    text = "v1.36.0 of https://example.com/a@b: basic usage, bearer of bad news"
    assert redact(text) == text


def test_text_is_for_people():
    record = logging.LogRecord("x", logging.INFO, "f", 1, "hello", (), None)
    assert TextFormatter().format(record).endswith(" info    hello")
    with about("tasks/ns/a"):
        assert " tasks/ns/a#" in TextFormatter().format(record)


@pytest.fixture
def root():
    """The root logger, restored afterwards."""
    logger = logging.getLogger()
    names = ("kopf", "aiohttp.access", "asyncio")
    before = logger.handlers[:], logger.level, [logging.getLogger(name).level for name in names]
    yield logger
    logger.handlers[:], level, levels = before
    logger.setLevel(level)
    for name, old in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(old)


@pytest.mark.parametrize(("form", "formatter"), [("json", JsonFormatter), ("text", TextFormatter)])
def test_the_settings_choose(root, form, formatter):
    setup(LogSettings(format=form, level="debug"))
    (handler,) = root.handlers
    assert type(handler.formatter) is formatter
    assert root.level == logging.DEBUG
    assert logging.getLogger("kopf").level == logging.WARNING
