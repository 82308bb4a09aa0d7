"""Ports for the servers of tests, which are told their port before they start and are restarted on the same one."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 15000
_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port of loopback that nobody uses, and that no outgoing connection gets in the meantime.

    The kernel gives clients ports of a range of its own; one of those, once free, may be the next client's. Somebody
    who asks again and again for a server that is down may even meet himself there, and believe that it is up.
    """
    highest = int(_RANGE.read_text().split()[0]) - 1
    # Seeds of tests are for what they do, not for where: two runs beside each other must not meet.
    draw = random.SystemRandom()
    while True:
        port = draw.randint(min(_LOWEST, highest - 1000), highest)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            # Nobody listens there until its server starts, so it must not be given to another one before.
            if port not in _given:
                _given.add(port)
                return port
