"""A pid is not an identity: nothing but the very process that was started may be killed."""

import os
import subprocess
from pathlib import Path

import pytest

from localcluster.errors import Failure
from localcluster.processes import Identity, require, spawn, stop


def test_a_started_process_is_recorded_and_alive(tmp_path: Path) -> None:
    identity = spawn(["sleep", "60"], tmp_path / "pids/sleep", tmp_path / "log")
    try:
        assert Identity.read(tmp_path / "pids/sleep") == identity
        assert identity.alive
    finally:
        stop([tmp_path / "pids/sleep"])
    assert not identity.alive


def test_a_recycled_pid_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as innocent:
        found = Identity.of(innocent.pid)
        assert found
        Identity(found.pid, found.started - 1, found.boot).write(tmp_path / "pid")
        stop([tmp_path / "pid"])
        assert innocent.poll() is None
        innocent.kill()


def test_a_pid_of_an_earlier_boot_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as innocent:
        found = Identity.of(innocent.pid)
        assert found
        Identity(found.pid, found.started, "another boot").write(tmp_path / "pid")
        stop([tmp_path / "pid"])
        assert innocent.poll() is None
        innocent.kill()


def test_stopping_takes_direct_children_along(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    parent = spawn(["sh", "-c", "sleep 60 & wait"], pid_file, tmp_path / "log")
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    while not (pids := children.read_text().split()):
        assert parent.alive
    child = Identity.of(int(pids[0]))
    assert child
    stop([pid_file])
    assert not parent.alive
    assert not child.alive


@pytest.mark.parametrize("content", ["", "12", "12 x y", "1 2 3 4"])
def test_a_damaged_pid_file_names_no_process(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    assert Identity.read(tmp_path / "pid") is None
    stop([tmp_path / "pid", tmp_path / "missing"])


def test_a_command_name_with_parentheses_is_understood(tmp_path: Path) -> None:
    program = tmp_path / "a) S (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        identity = Identity.of(process.pid)
        process.kill()
    assert identity
    assert identity.pid == process.pid


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Identity.of(process.pid) is None


def test_an_early_end_is_reported_with_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    identity = spawn(["sh", "-c", "echo the reason; exit 3"], tmp_path / "pid", log)
    os.waitpid(identity.pid, 0)
    with pytest.raises(Failure, match="the reason"):
        require(identity, "sh", log)
