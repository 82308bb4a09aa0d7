from __future__ import annotations

import pytest

from gpux.agent.config import Address, Config

GOOD = {
    "GPUX_STORE_URL": "http://opengpu-store:8080",
    "GPUX_TOKEN_FILE": "/run/gpux-token/token",
    "GPUX_TASK_UID": "t",
    "GPUX_POD_UID": "p",
}


def test_defaults():
    config = Config.of_environment(GOOD)
    assert config.store == Address("opengpu-store", 8080)
    assert config.worker == Address("127.0.0.1", 5555)
    assert config.callback == Address("127.0.0.1", 20000)
    assert config.socket == "/run/gpux/api.sock"
    assert config.calls


def test_all_set():
    more = {"GPUX_CALLS": "0", "GPUX_CALLBACK_LISTEN": "[::1]:1", "GPUX_WORKER_URL": "http://[::1]/"}
    config = Config.of_environment(GOOD | more)
    assert not config.calls
    assert config.callback == Address("::1", 1)
    assert config.worker == Address("::1", 80)


@pytest.mark.parametrize("name", GOOD)
def test_what_is_missing_is_named(name):
    with pytest.raises(ValueError, match=name):
        Config.of_environment({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    "url", ["", "https://x", "http://", "http://a/b", "http://a:b", "ftp://a", "http://u@h"]
)
def test_urls_that_are_no_address(url):
    with pytest.raises(ValueError, match="expected"):
        Address.of_url(url)
