"""The first process of a node: PID 1 in namespaces of its own (processes, mounts, network, host name).

It prepares mounts and network, then keeps the node's services running as systemd would. When it is killed
the kernel ends every process of the node, containers included, and takes the mounts and links with it: that
is what makes removing a node, even a half-started one, a single step.

Run as ``python -m localcluster.nodeinit PLAN`` with the JSON that ``localcluster.node`` writes.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_RESTART_DELAY = 1.0


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def _prepare_mounts(plan: dict[str, Any]) -> None:
    # Kubelet and containerd share mounts with each other, but nothing with the machine.
    _run("mount", "--make-rshared", "/")
    _run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    for path in plan["tmpfs"]:
        Path(path).mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "tmpfs", path)
    for source, target in plan["binds"]:
        Path(source).mkdir(parents=True, exist_ok=True)
        Path(target).mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", source, target)
    for name, content in plan["files"].items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)


def _prepare_network(plan: dict[str, Any]) -> None:
    # The process that started the node puts the link into its namespace.
    _await("link eth0", lambda: "eth0" in (name for _, name in socket.if_nameindex()))
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{plan['address']}/24", "dev", "eth0")
    _run("ip", "link", "set", "eth0", "up")
    _run("ip", "route", "add", "default", "via", plan["gateway"])
    for cidr, address in plan["routes"]:
        _run("ip", "route", "add", cidr, "via", address)
    for setting, value in plan["sysctls"].items():
        path = Path("/proc/sys", setting)
        if path.exists():
            path.write_text(f"{value}\n")
    for rule in plan["firewall"]:
        _run("iptables", "-w", *rule)


def _await(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"no {what} after 120 s")
        time.sleep(0.01)


class _Service:
    def __init__(self, name: str, argv: list[str], log: str, needs: str | None) -> None:
        self.name, self._argv, self._log, self._needs = name, argv, log, needs
        self.pid, self.started = 0, 0.0

    def start(self) -> None:
        if needed := self._needs:
            _await(needed, Path(needed).exists)
        with Path(self._log).open("ab") as output:
            self.pid = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            ).pid
        self.started = time.monotonic()


def _supervise(services: list[_Service]) -> None:
    """Start the services, collect every dead process, and start again what should run."""
    for service in services:
        service.start()
    while True:
        pid, status = os.wait()
        for service in services:
            if service.pid == pid:
                print(f"{service.name} ended with status {status}; starting it again", flush=True)
                time.sleep(max(0.0, service.started + _RESTART_DELAY - time.monotonic()))
                service.start()


def main() -> None:
    """Become the node that the plan describes."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    socket.sethostname(plan["name"])
    _prepare_mounts(plan)
    _prepare_network(plan)
    _supervise([_Service(**service) for service in plan["services"]])


if __name__ == "__main__":
    main()
