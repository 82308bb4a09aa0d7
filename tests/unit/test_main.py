"""The command line, and how the parts end together."""

import asyncio
import logging

import pytest

from gpux.tokens import verify
from opengpu_operator import __main__ as module
from opengpu_operator.reconcile import uninstall


def test_both_commands_take_their_settings_from_a_file(tmp_path, capsys):
    parser = module.parser()
    options = parser.parse_args(["run", "--config", "c.yaml", "--namespace", "a", "--namespace", "b-*"])
    assert (options.command, str(options.config), options.namespace) == ("run", "c.yaml", ["a", "b-*"])
    options = parser.parse_args(["translator", "--socket", "s"])
    assert (options.command, str(options.socket), options.config) == ("translator", "s", None)
    with pytest.raises(SystemExit):
        parser.parse_args([])
    capsys.readouterr()


@pytest.mark.parametrize("text", ["unknownKey: 1", "a: [", "reconcile: {workers: 0}"])
def test_bad_settings_are_named(tmp_path, capsys, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert module.main(["run", "--config", str(file)]) == 2
    assert str(file) in capsys.readouterr().err


def test_settings_that_are_not_there(tmp_path, capsys):
    assert module.main(["run", "--config", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err


def test_without_a_cluster_the_operator_says_so(monkeypatch, caplog):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(module, "setup", lambda _: None)
    assert module.main(["run"]) == 1
    assert "kubeconfig" in caplog.text


def test_finalizers_need_a_cluster(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert module.main(["clear-finalizers"]) == 1
    assert "no kubeconfig was given" in capsys.readouterr().err
    assert module.main(["clear-finalizers", "--kubeconfig", str(tmp_path / "none")]) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err


@pytest.mark.parametrize("text", ["operator", "/operator", "system/", "a/b/c", ""])
def test_what_is_stopped_has_a_namespace_and_a_name(capsys, text):
    options = module.parser().parse_args(["clear-finalizers", "--stop", "system/operator"])
    assert options.stop == ("system", "operator")
    with pytest.raises(SystemExit):
        module.parser().parse_args(["clear-finalizers", "--stop", text])
    assert "NAMESPACE/NAME" in capsys.readouterr().err


@pytest.mark.parametrize(("left", "status"), [(0, 0), (2, 1)])
def test_the_operator_is_stopped_before_finalizers_are_cleared(monkeypatch, left, status):
    done: list[object] = []

    class Gateway:
        @classmethod
        async def connect(cls, **options):
            done.append(options)
            return cls()

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            done.append("closed")

    async def stop(_gateway, namespace, name, *, timeout, say):
        done.append(("stop", namespace, name, timeout))
        return False

    async def clear(_gateway, *, say):
        done.append("clear")
        return left

    monkeypatch.setattr(module, "HttpGateway", Gateway)
    monkeypatch.setattr(uninstall, "stop", stop)
    monkeypatch.setattr(uninstall, "clear_finalizers", clear)
    assert module.main(["clear-finalizers", "--stop", "system/operator", "--stop-timeout", "7"]) == status
    assert done == [
        {"kubeconfig": None, "context": None},
        ("stop", "system", "operator", 7.0),
        "clear",
        "closed",
    ]


def test_the_name_servers_of_this_machine(tmp_path):
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# by hand\nsearch a b\nnameserver 10.96.0.10\nnameserver\nnameserver fd00::a\noptions ndots:5\n"
    )
    assert module.resolvers(file) == ["10.96.0.10", "fd00::a"]
    assert module.resolvers(tmp_path / "none") == []


def test_the_stores_token_is_kept_for_a_while_and_follows_the_key(tmp_path, monkeypatch):
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    file = tmp_path / "key"
    file.write_bytes(b"first key of sixteen bytes or more\n")
    token = module._operator_token(file)
    first = token()
    claims = verify(b"first key of sixteen bytes or more", first, now=lambda: now)
    assert (claims.scope, claims.exp) == ("operator", now + module._TOKEN_SECONDS)
    now += module._TOKEN_SECONDS / 2 - 1
    assert token() == first
    now += 2
    assert verify(b"first key of sixteen bytes or more", token(), now=lambda: now).exp > claims.exp
    file.write_bytes(b"second key of sixteen bytes or more")
    assert verify(b"second key of sixteen bytes or more", token(), now=lambda: now).scope == "operator"


@pytest.fixture
def asyncio_log():
    """asyncio's logger, restored afterwards."""
    logger = logging.getLogger("asyncio")
    level = logger.level
    yield logger
    logger.setLevel(level)


async def supervise(*parts, watches=None, stop=None):
    """Supervise parts and something in place of kopf; returns the exit status and the order in which they ended."""
    stop, kopf_stop = stop or asyncio.Event(), asyncio.Event()
    ended = []

    async def kopf():
        await kopf_stop.wait()
        ended.append("kopf")

    async def part(what):
        await what(stop)
        ended.append("part")

    status = await module._supervise(
        asyncio.create_task(watches() if watches else kopf()),
        [part(what) for what in parts],
        stop=stop,
        kopf_stop=kopf_stop,
    )
    return status, ended


async def until_stopped(stop):
    await stop.wait()


async def test_a_stop_ends_kopf_last():
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, stop.set)
    assert await supervise(until_stopped, until_stopped, stop=stop) == (0, ["part", "part", "kopf"])


async def test_a_watcher_that_dies_ends_the_operator(caplog):
    async def dies():
        raise RuntimeError("watcher")

    assert await supervise(until_stopped, watches=dies) == (1, ["part"])
    assert "watcher" in caplog.text


async def test_kopf_that_took_a_signal_ends_the_operator_without_an_error():
    async def stopped():
        pass

    assert await supervise(until_stopped, watches=stopped) == (0, ["part"])


async def test_kopf_that_does_not_stop_is_cancelled(monkeypatch, asyncio_log):
    monkeypatch.setattr(module, "_KOPF_EXIT_SECONDS", 0.05)
    stop = asyncio.Event()
    stop.set()
    assert await supervise(until_stopped, watches=asyncio.Event().wait, stop=stop) == (0, ["part"])


async def test_a_part_that_ends_is_an_error():
    async def ends(_):
        pass

    status, ended = await supervise(until_stopped, ends)
    assert (status, ended) == (1, ["part", "part", "kopf"])


async def test_a_part_that_does_not_stop_is_cancelled(monkeypatch):
    monkeypatch.setattr(module, "_PARTS_EXIT_SECONDS", 0.05)
    stop = asyncio.Event()
    stop.set()

    async def hangs(_):
        await asyncio.Event().wait()

    assert await supervise(hangs, stop=stop) == (0, ["kopf"])


async def test_what_is_done_unless_it_is_stopped():
    stop = asyncio.Event()

    async def quick():
        pass

    async def broken():
        raise KeyError("x")

    assert await module._unless(stop, quick())
    with pytest.raises(KeyError):
        await module._unless(stop, broken())
    asyncio.get_running_loop().call_later(0.01, stop.set)
    assert not await module._unless(stop, asyncio.Event().wait())


def test_the_stop_fits_into_ten_seconds():
    assert module._PARTS_EXIT_SECONDS + 2 * module._KOPF_EXIT_SECONDS < 10
