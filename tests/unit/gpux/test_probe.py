from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from gpux import probe

SOURCE = Path(__file__).resolve().parents[3] / "operator"


def test_something_listens(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        assert probe.main([path]) == 1
        listener.listen()
        assert probe.main([path]) == 0
    # The file outlives the listener, which is why its being there proves nothing.
    assert Path(path).exists()
    assert probe.main([path]) == 1


def test_usage():
    assert probe.main([]) == 2


def test_as_the_kubelet_runs_it(tmp_path):
    command = [sys.executable, "-S", "-m", "gpux.probe", str(tmp_path / "none")]
    done = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"none" in done.stderr
