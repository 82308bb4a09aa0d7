"""What all commands of `opengpu` have in common."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.compose import NO_KOMPOSE, real_kompose
from tests.support.environment import unavailable


@pytest.fixture(autouse=True)
def needs_kompose() -> None:
    if real_kompose() is None:
        unavailable(NO_KOMPOSE)


@pytest.mark.parametrize("command", ["translate", "lint"])
def test_a_reader_that_has_seen_enough_is_no_error(command: str, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("services: {a: {image: x, labels: {a: b}}}")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "opengpu_operator.cli.main", command, str(path)],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_the_networks_variables_are_there_though_some_say_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from opengpu_operator.cli.main import main

    path = tmp_path / "compose.yaml"
    path.write_text(
        'services: {a: {image: x, environment: {A: "${SOURCE_ADDRESS-unset}${PROTOCOL_VERSION}"}}}'
    )
    assert main(["translate", str(path)]) == 0
    out, err = capfd.readouterr()
    assert "unset" not in out
    assert "VariableUnset" not in err
