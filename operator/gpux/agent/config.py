"""The agent's settings, from its environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_URL = re.compile(r"http://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?/?")
_STORAGE = (("job", "GPUX_JOB_STORAGE"), ("usr", "GPUX_USER_STORAGE"))


class Address(NamedTuple):
    """Where to connect to."""

    host: str
    port: int

    @classmethod
    def of_url(cls, url: str) -> Address:
        """Read ``http://HOST[:PORT]``; TLS has no place inside the pod or beside the store's own tokens."""
        found = _URL.fullmatch(url)
        if not found:
            raise ValueError(f"expected http://HOST[:PORT], got {url!r}")
        return cls(found[1].strip("[]"), int(found[2] or 80))

    @classmethod
    def of_listener(cls, text: str) -> Address:
        """Read ``HOST:PORT``."""
        host, _, port = text.rpartition(":")
        return cls(host.strip("[]"), int(port))


class Config(NamedTuple):
    """All settings."""

    store: Address
    token_file: str
    socket: str
    spool: str
    task: str
    pod: str
    worker: Address
    callback: Address
    calls: bool
    """Whether the task has calls; without, the agent only serves files."""
    storage: dict[str, str]
    """The job's folders that may be read from outside, by their names in pulls; empty for a task that isn't open."""
    stores: Address
    """A name that stands for every process of the store, where those questions come to one of them."""

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read the ``GPUX_…`` variables. Raises ValueError that names the one that is wrong."""
        try:
            return cls(
                store=Address.of_url(environment["GPUX_STORE_URL"]),
                token_file=environment["GPUX_TOKEN_FILE"],
                socket=environment.get("GPUX_SOCKET", "/run/gpux/api.sock"),
                spool=environment.get("GPUX_SPOOL", "/var/spool/gpux"),
                task=environment["GPUX_TASK_UID"],
                pod=environment["GPUX_POD_UID"],
                worker=Address.of_url(environment.get("GPUX_WORKER_URL", "http://127.0.0.1:5555")),
                callback=Address.of_listener(environment.get("GPUX_CALLBACK_LISTEN", "127.0.0.1:20000")),
                calls=environment.get("GPUX_CALLS", "1") != "0",
                stores=Address.of_url(environment.get("GPUX_STORES_URL") or environment["GPUX_STORE_URL"]),
                storage={name: environment[key] for name, key in _STORAGE if environment.get(key)},
            )
        except KeyError as error:
            raise ValueError(f"{error.args[0]} is not set") from None
