"""Starting and stopping processes that outlive this one.

A pid alone does not identify a process: the number is reused. Each pid file therefore also holds the start
time and the boot it belongs to, and nothing is signalled unless all three still agree.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.commands import Argument
from localcluster.errors import Failure
from localcluster.waiting import until

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Identity:
    """A process, told apart from every later one with the same pid."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """Return the identity of a process that runs now; a zombie does not."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The command name is in parentheses and may itself hold spaces and parentheses.
        fields = stat.rpartition(")")[2].split()
        state, started = fields[0], int(fields[19])
        if state in "ZX":
            return None
        return cls(pid, started, _BOOT_ID.read_text().strip())

    @classmethod
    def read(cls, file: Path) -> "Identity | None":
        """Return what a pid file says, or nothing if it is missing or was cut short."""
        try:
            pid, started, boot = file.read_text().split()
            return cls(int(pid), int(started), boot)
        except (FileNotFoundError, ValueError):
            return None

    def write(self, file: Path) -> None:
        """Record the process, whole or not at all."""
        partial = file.with_suffix(".partial")
        partial.write_text(f"{self.pid} {self.started} {self.boot}\n")
        partial.rename(file)

    @property
    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    def kill(self) -> None:
        """Kill this very process; the descriptor makes it impossible to hit a successor of the pid."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)


def spawn(
    argv: Sequence[Argument], pid_file: Path, log: Path, env: Mapping[str, str] | None = None
) -> Identity:
    """Start a process in a session of its own.

    The child records itself between fork and exec, while it still holds the cluster's lock by inheritance: if
    this process is killed at any moment, whoever gets the lock next finds every child in its pid file.
    """

    def record() -> None:
        identity = Identity.of(os.getpid())
        assert identity is not None
        identity.write(pid_file)

    pid_file.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        started = subprocess.Popen(
            [str(arg) for arg in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env) if env is not None else None,
            start_new_session=True,
            preexec_fn=record,  # noqa: PLW1509 - no thread runs while processes are started
        )
    started.returncode = 0  # it is meant to outlive this one: without this, dropping it would be a warning
    identity = Identity.read(pid_file)
    assert identity is not None
    return identity


def stop(pid_files: Sequence[Path]) -> None:
    """Kill what the pid files name, and wait until that and its direct children are gone.

    Killing is enough: a local cluster keeps nothing that a graceful end would save. A node's recorded process
    takes its only child, PID 1 of the node, with it; that one ends after everything else in the node has.
    """
    found = [identity for file in pid_files if (identity := Identity.read(file)) and identity.alive]
    found += [child for identity in found for child in _children(identity)]
    for identity in found:
        identity.kill()
    until("the cluster's processes to end", lambda: not any(identity.alive for identity in found), 120)


def _children(parent: Identity) -> list[Identity]:
    try:
        pids = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [child for pid in pids if (child := Identity.of(int(pid)))]


def require(identity: Identity, name: str, log: Path) -> None:
    """Fail, with the end of its log, if a process that should run has ended."""
    if not identity.alive:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise Failure(f"{name} ended right after its start; the end of {log}:\n{tail}")
