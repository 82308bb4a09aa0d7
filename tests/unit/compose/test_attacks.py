"""Every attack of the table, through the whole translator with the real kompose, and through the job builder.

Files and variables that must not be read are planted all around, and a trap listens: whatever a file is, nothing of
them comes out, nothing is opened and nobody connects.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import resource
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.findings import Finding
from opengpu_operator.compose.kompose import Kompose
from opengpu_operator.desired.job import JobObjects, build
from tests.support import jobs, manifest
from tests.support.attacks import ATTACKS, PLANTED, SMUGGLED, Attack, Outcome
from tests.support.compose import Echo, reasons, translate

#: Far beyond what a row takes (see the benchmark): a machine that runs tests is slow, and only its order is judged.
CPU_SECONDS = 1.0
MEMORY = 256 * 1024
#: A kompose that waits for a planted file would wait for this long.
TIME_LIMIT = 10.0
_IN_ACCESS, _IN_OPEN = 0x1, 0x20
VARIABLES = {
    **dict.fromkeys(("PLANTED", "COMPOSE_PROJECT_NAME", "AWS_SECRET_ACCESS_KEY"), PLANTED),
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"), "http://@TRAP@"),
    "COMPOSE_ENV_FILES": "@FILE@",
    "COMPOSE_FILE": "@FILE@",
    "COMPOSE_PATH_SEPARATOR": ":",
    "COMPOSE_PROFILES": "debug",
    "DOCKER_HOST": "tcp://@TRAP@",
    "DOCKER_CONFIG": "@DIR@",
    "KUBECONFIG": "@FILE@",
    "LD_DEBUG_OUTPUT": "@FILE@",
}


class Surroundings:
    """Planted files, watched by the kernel, and a listening trap."""

    def __init__(self, root: Path) -> None:
        self.file = root / "absolute" / "decoy.txt"
        self.folders = [root / name for name in ("absolute", "home", "work", "scratch")]
        self.files: list[Path] = []
        for folder in self.folders:
            folder.mkdir()
            for name in ("decoy.txt", "decoy.env", ".env", "compose.yaml", "compose.override.yaml"):
                self.files.append(folder / name)
                self.files[-1].write_text(f"PLANTED={PLANTED}\n")
        self._trap = socket.create_server(("127.0.0.1", 0))
        self._trap.setblocking(False)
        self.address = f"127.0.0.1:{self._trap.getsockname()[1]}"
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._events >= 0, os.strerror(ctypes.get_errno())
        for file in self.files:
            watch = libc.inotify_add_watch(self._events, bytes(file), _IN_OPEN | _IN_ACCESS)
            assert watch >= 0, os.strerror(ctypes.get_errno())

    def fill(self, text: str) -> str:
        """Put the addresses of what is planted into a text."""
        for mark, value in (("@FILE@", self.file), ("@DIR@", self.file.parent), ("@TRAP@", self.address)):
            text = text.replace(mark, str(value))
        return text

    def opened(self) -> bool:
        """Whether a planted file was opened since the last time."""
        try:
            return bool(os.read(self._events, 65536))
        except BlockingIOError:
            return False

    def connected(self) -> bool:
        """Whether somebody connected to the trap since the last time."""
        try:
            self._trap.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._events)
        self._trap.close()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    root = tmp_path_factory.mktemp("planted")
    found = Surroundings(root)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, found.fill(value))
        patch.setenv("HOME", str(root / "home"))
        patch.chdir(root / "work")
        # kompose's directories are made here, beside planted files.
        patch.setattr(tempfile, "tempdir", str(root / "scratch"))
        yield found
    found.close()


@pytest.fixture
def converter(kompose: Kompose) -> Kompose:
    return Kompose(kompose._path, time_limit=TIME_LIMIT)


def spilt(text: str) -> bool:
    """Whether a text holds what was planted, as it is or as Secrets hold it."""
    return PLANTED in text or base64.b64encode(f"PLANTED={PLANTED}\n".encode()).decode() in text


def job(translation: Any) -> JobObjects:
    return build(translation, jobs.context(), jobs.settings())


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_attack(attack: Attack, planted: Surroundings, converter: Kompose) -> None:
    text = planted.fill(attack.text) if isinstance(attack.text, str) else attack.text
    planted.opened()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = time.process_time()
    translation = translate(text, converter=converter)
    found, objects, why = list(translation.findings), [], reasons(translation, "error")
    if not translation.refused:
        try:
            made = job(translation)
        except Invalid as refused:
            why = {refused.reason}
            found.append(
                Finding(severity="error", reason=refused.reason, message=refused.message, advice="-")
            )
        else:
            found += made.findings
            objects = made.everything
    took = time.process_time() - before
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory

    assert not planted.opened(), "a planted file was opened"
    assert not planted.connected(), "somebody connected"
    everything = json.dumps(
        [objects, [finding.model_dump(mode="json") for finding in found]], ensure_ascii=False
    )
    assert not spilt(everything)
    assert SMUGGLED not in json.dumps(objects)
    assert all(
        (finding.message + finding.path).isprintable() and len(finding.message) < 2000 for finding in found
    )
    assert bool(why) == bool(attack.refused)
    if attack.refused:
        assert attack.refused in why
        assert not objects
    else:
        manifest.check(objects)
        if attack.like:
            assert objects == job(translate(attack.like, converter=Echo())).everything
        if attack.check:
            assert attack.check(Outcome(translation, made))
    assert took < CPU_SECONDS, f"{took:.3f} s"
    assert grown < MEMORY, f"{grown} KiB"


def test_every_class_has_enough() -> None:
    counts = Counter(attack.kind for attack in ATTACKS)
    assert len(counts) >= 15
    assert min(counts.values()) >= 8, counts
    assert len({str(attack) for attack in ATTACKS}) == len(ATTACKS)
    assert len({attack.text for attack in ATTACKS}) == len(ATTACKS)
    assert all(attack.refused or attack.like or attack.check for attack in ATTACKS)


@pytest.mark.parametrize(
    "name",
    [
        "secret",
        "config",
        "env_file",
        "label_file",
        "include",
        "bind of a file",
        "in a value",
        "by its name, in a list",
    ],
)
def test_kompose_alone_falls_for_it(planted: Surroundings, kompose: Kompose, name: str) -> None:
    """The traps work, and so do the attacks: on kompose itself, given the file as it is."""
    (attack,) = (entry for entry in ATTACKS if entry.name == name)
    assert isinstance(attack.text, str)
    Path("attack.yaml").write_text(planted.fill(attack.text))
    planted.opened()
    done = subprocess.run(
        [kompose._path, "-f", "attack.yaml", "convert", "--stdout"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert planted.opened() or name in ("in a value", "by its name, in a list")
    assert spilt(done.stdout + done.stderr) or name == "include"


def test_the_trap_notices(planted: Surroundings) -> None:
    host, port = planted.address.split(":")
    with contextlib.closing(socket.create_connection((host, int(port)))):
        assert planted.connected()
    assert not planted.connected()
