"""``opengpu files`` against a real store and agent, also when the store is killed in the middle."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pty
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from opengpu_operator.cli.main import main
from tests.faults.gpux.processes import ROOT, TASK, Lab, laboratory, token
from tests.faults.gpux.relay import Relay

pytestmark = pytest.mark.faults

MIB = 1 << 20
AGENT = token(external=True)


class Through(Relay):
    """A way to the store that counts what comes back, and may break off."""

    limit: int | None = None

    def _connect(self, client: socket.socket) -> None:
        with client:
            store = socket.create_connection(("127.0.0.1", self._port))

            def upwards() -> None:
                with contextlib.suppress(OSError):
                    while data := client.recv(MIB):
                        store.sendall(data)
                    store.shutdown(socket.SHUT_RDWR)

            threading.Thread(target=upwards, daemon=True).start()
            with store:
                while data := store.recv(MIB):
                    self.passed += len(data)
                    client.sendall(data)
                    if self.limit is not None and self.passed > self.limit:
                        self.limit = None
                        self.at_limit()
                        # Closing alone would leave it open, as long as the other thread reads from it.
                        client.shutdown(socket.SHUT_RDWR)
                        return


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    with laboratory(tmp_path_factory.mktemp("cli")) as made:
        made.start_store()
        made.token_file.write_text(AGENT)
        (made.root / "files-token").write_text(token(scope="files") + "\n")
        made.start_agent(calls=False, storage=True)
        yield made


class Ran(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(lab: Lab, verb: str, *arguments: str, url: str | None = None, at: Path | None = None) -> Ran:
    """Run the command, in this process: there are many, and starting one takes longer than what it does."""
    where = [
        "--server",
        url or lab.external_url,
        "--token-file",
        str(lab.root / "files-token"),
        "--job-id",
        TASK,
    ]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(at or lab.root),
    ):
        try:
            status = main(["files", verb, *where, *arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
    return Ran(status, out.getvalue(), err.getvalue())


def done(lab: Lab, *arguments: str, **options) -> str:
    result = run(lab, *arguments, **options)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 100_000, 9 * MIB + 1])
def test_there_and_back(lab, tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "a.bin").write_bytes(content)
    assert done(lab, "put", "a.bin", at=tmp_path) == f"{sha1(content)}  a.bin\n"
    assert done(lab, "get", sha1(content), at=tmp_path) == f"{sha1(content)}\n"
    assert (tmp_path / sha1(content)).read_bytes() == content
    assert done(lab, "get", sha1(content), "-o", "b.bin", at=tmp_path) == "b.bin\n"
    assert (tmp_path / "b.bin").read_bytes() == content
    assert not list(tmp_path.glob("*.part"))
    listed = json.loads(done(lab, "ls", "--format", "json"))
    assert (sha1(content), size) in [(entry["sha1"], entry["size"]) for entry in listed]
    assert sha1(content) in done(lab, "ls")


def test_what_is_there_is_not_sent_again(lab, tmp_path):
    content = os.urandom(4 * MIB)
    (tmp_path / "a.bin").write_bytes(content)
    with contextlib.closing(Through(lab.external_port)) as way:
        done(lab, "put", "a.bin", at=tmp_path, url=way.url)
        requests = lab.ask("GET", "/metrics", port=lab.metrics_port, bearer=None)[2].decode()
        done(lab, "put", "a.bin", at=tmp_path, url=way.url)
    after = lab.ask("GET", "/metrics", port=lab.metrics_port, bearer=None)[2].decode()

    def uploads(text: str) -> list[str]:
        return [line for line in text.splitlines() if 'route="upload"' in line and "requests_total" in line]

    assert uploads(requests) == uploads(after) != []


def test_what_others_keep_is_sent_all_the_same(lab, tmp_path):
    """It goes when they do, and isn't public because this task is."""
    content = os.urandom(1000)
    (tmp_path / "a.bin").write_bytes(content)
    assert lab.ask("POST", "/v1/files", body=content, bearer=token(task="task-2"))[0] == 201
    done(lab, "put", "a.bin", at=tmp_path)
    listed = {entry["sha1"]: entry["references"] for entry in json.loads(done(lab, "ls", "--format", "json"))}
    assert listed[sha1(content)] == [f"task:{TASK}", "task:task-2"]


def test_a_long_list_is_listed_to_its_end(tmp_path):
    with laboratory(tmp_path) as lab:
        lab.start_store()
        (lab.root / "files-token").write_text(token(scope="files"))
        given = tmp_path / "given"
        given.mkdir()
        for number in range(1200):
            (given / str(number)).write_text(str(number))
        done(lab, "put", "given", at=tmp_path)
        listed = json.loads(done(lab, "ls", "--format", "json"))
    assert len({entry["sha1"] for entry in listed}) == len(listed) == 1201


def test_a_download_goes_on_after_the_store_was_killed(lab, tmp_path):
    content = os.urandom(32 * MIB)
    (tmp_path / "a.bin").write_bytes(content)
    done(lab, "put", "a.bin", at=tmp_path)
    with contextlib.closing(Through(lab.external_port)) as way:
        way.limit, way.at_limit = 8 * MIB, lab.store.kill
        broken = run(lab, "get", sha1(content), "-o", "b.bin", at=tmp_path, url=way.url)
        assert broken.returncode == 2
        assert "goes on from there" in broken.stderr
        assert not (tmp_path / "b.bin").exists()
        there = (tmp_path / "b.bin.part").stat().st_size
        assert 4 * MIB < there < len(content)
        away = run(lab, "get", sha1(content), "-o", "b.bin", at=tmp_path, url=way.url)
        assert away.returncode == 2
        assert (tmp_path / "b.bin.part").stat().st_size == there
        lab.start_store()
        way.passed = 0
        done(lab, "get", sha1(content), "-o", "b.bin", at=tmp_path, url=way.url)
        assert way.passed < len(content) - there + MIB
    assert (tmp_path / "b.bin").read_bytes() == content


def test_an_upload_that_broke_off_leaves_nothing_and_begins_anew(lab, tmp_path):
    content = os.urandom(8 * MIB)
    (tmp_path / "a.bin").write_bytes(content)
    with socket.create_connection(("127.0.0.1", lab.external_port)) as half:
        bearer = (lab.root / "files-token").read_text().strip()
        head = f"POST /upload_file HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n"
        half.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[:MIB])
    assert run(lab, "get", sha1(content), at=tmp_path).returncode == 1
    assert done(lab, "put", "a.bin", at=tmp_path).startswith(sha1(content))


@pytest.mark.parametrize("output", [".", "there", "there/"])
def test_an_output_that_is_a_folder_gets_the_file(lab, tmp_path, output):
    (tmp_path / "there").mkdir()
    (tmp_path / "a.bin").write_bytes(b"for a folder")
    (lab.job_storage / "c").write_bytes(b"of the job")
    done(lab, "put", "a.bin", at=tmp_path)
    done(lab, "get", sha1(b"for a folder"), "-o", output, at=tmp_path)
    assert (tmp_path / output / sha1(b"for a folder")).read_bytes() == b"for a folder"
    done(lab, "get", "--job", "c", "-o", output, at=tmp_path)
    assert (tmp_path / output / "c").read_bytes() == b"of the job"
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("damage", ["end", "start", "longer", "whole"])
def test_what_is_left_of_something_else_does_not_spoil_a_file(lab, tmp_path, damage):
    content = os.urandom(MIB)
    (tmp_path / "a.bin").write_bytes(content)
    done(lab, "put", "a.bin", at=tmp_path)
    left = {
        "end": content[:1000] + b"x",
        "start": b"x" + content[1:1000],
        "longer": content + b"x",
        "whole": b"x" * len(content),
    }[damage]
    (tmp_path / "b.bin.part").write_bytes(left)
    first = run(lab, "get", sha1(content), "-o", "b.bin", at=tmp_path)
    if damage != "longer":
        assert first.returncode == 1
        assert "damaged" in first.stderr
        assert not (tmp_path / "b.bin.part").exists()
        assert not (tmp_path / "b.bin").exists()
        done(lab, "get", sha1(content), "-o", "b.bin", at=tmp_path)
    assert (tmp_path / "b.bin").read_bytes() == content


def test_the_jobs_storage(lab, tmp_path):
    out = lab.job_storage / "out"
    (out / "deep").mkdir(parents=True)
    (out / "a.txt").write_bytes(b"one")
    (out / "deep" / "link").symlink_to("../a.txt")
    (out / "evil").symlink_to("/etc/passwd")
    (out / "bell\a").write_bytes(b"")
    text = done(lab, "ls", "--job", "out")
    assert "a.txt" in text
    assert "evil -> /etc/passwd" in text
    assert "\a" not in text
    assert done(lab, "get", "--job", "out/a.txt", at=tmp_path) == "a.txt\n"
    assert (tmp_path / "a.txt").read_bytes() == b"one"
    assert done(lab, "get", "--job", "out", at=tmp_path) == "out.tar\n"
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert "deep/link" in archive.getnames()
    unpacked = run(lab, "get", "--job", "out", "--folder", "-o", "here", at=tmp_path)
    assert unpacked.returncode == 0
    assert "left out" in unpacked.stderr
    assert "evil" in unpacked.stderr
    assert (tmp_path / "here" / "deep" / "link").read_bytes() == b"one"
    assert not (tmp_path / "here" / "evil").is_symlink()


def test_a_folder(lab, tmp_path):
    given = tmp_path / "given"
    (given / "deep" / ("n" * 150)).mkdir(parents=True)
    (given / "deep" / "a.txt").write_bytes(b"one")
    (given / "large").write_bytes(os.urandom(3 * MIB))
    (given / "run").write_text("#!/bin/sh\n")
    (given / "run").chmod(0o755)
    (given / "second").hardlink_to(given / "large")
    name = done(lab, "put", "given", at=tmp_path).split()[0]
    assert done(lab, "put", "given", at=tmp_path).split()[0] == name, "the same folder has the same hash"
    assert done(lab, "get", name, "--folder", "-o", "back", at=tmp_path) == "back\n"
    compared = subprocess.run(["diff", "-r", "given", "back"], cwd=tmp_path, check=False)
    assert compared.returncode == 0
    assert os.access(tmp_path / "back" / "run", os.X_OK)
    assert lab.outside("GET", f"/v1/folders/{name}")[0] == 401
    (given / "link").symlink_to("large")
    refused = run(lab, "put", "given", at=tmp_path)
    assert refused.returncode == 1
    assert "link" in refused.stderr


@pytest.mark.parametrize("after", [200 * 512, 200 * 512 + 100], ids=["between", "inside"])
def test_half_a_folder_is_not_taken_for_a_whole_one(lab, tmp_path, after):
    """Cut between two members or inside a header, where programs that read tar see the archive's end."""
    given = tmp_path / "given"
    given.mkdir()
    for number in range(400):
        (given / f"{number:03}").touch()
    name = done(lab, "put", "given", at=tmp_path).split()[0]
    answer = lab.outside("GET", f"/v1/folders/{name}", bearer=token(scope="files"))[2]
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def cut() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(head + answer[:after])

        cutting = threading.Thread(target=cut)
        cutting.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        broken = run(lab, "get", name, "--folder", "-o", "back", at=tmp_path, url=url)
        cutting.join()
    assert (broken.returncode, "isn't all of it" in broken.stderr) == (2, True), broken


def test_a_link(lab, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"shared")
    done(lab, "put", "a.bin", at=tmp_path)
    url = done(lab, "share", sha1(b"shared"), "--for", "30m").strip()
    assert lab.outside("GET", url[len(lab.external_url) :])[2] == b"shared"
    (lab.job_storage / "b").write_bytes(b"of the job")
    url = done(lab, "share", "--job", "b", "--for", "90s").strip()
    assert lab.outside("GET", url[len(lab.external_url) :])[2] == b"of the job"
    longer = run(lab, "share", sha1(b"shared"), "--for", "7d")
    assert longer.returncode == 0
    assert "valid until" in longer.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["get", "0" * 40], 1, "no such file"),
        (["get", "abc"], 2, "not a hash"),
        (["get", "--job", "nothing"], 1, "nothing at this path"),
        (["get", "--job", "../token"], 1, "no . or .."),
        (["get", "--usr", "x"], 1, "no such storage"),
        (["put", "absent"], 2, "absent: No such file"),
        (["put", ""], 2, "a path is empty"),
        (["ls", "out"], 2, "--job"),
        (["share", "0" * 40], 1, "no such file"),
        (["share", "0" * 40, "--for", "ever"], 2, "is not a time"),
        (["share", "0" * 40, "--for", "9d"], 1, "seconds must be"),
    ],
)
def test_errors_say_what_is_wrong(lab, tmp_path, arguments, status, said):
    result = run(lab, *arguments, at=tmp_path)
    assert (result.returncode, said in result.stderr) == (status, True), result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_is_none(lab, tmp_path):
    (lab.root / "wrong").write_text("nonsense")
    result = run(lab, "ls", "--token-file", str(lab.root / "wrong"))
    assert (result.returncode, "malformed token" in result.stderr) == (1, True)
    assert "nonsense" not in result.stderr


def test_a_terminal_shows_how_far_it_is(lab, tmp_path):
    (tmp_path / "a.bin").write_bytes(os.urandom(2 * MIB))
    ours, theirs = pty.openpty()
    where = ["--server", lab.external_url, "--token-file", str(lab.root / "files-token")]
    process = subprocess.Popen(
        [sys.executable, "-m", "opengpu_operator.cli.main", "files", "put", *where, str(tmp_path / "a.bin")],
        env={"PYTHONPATH": str(ROOT / "operator"), "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = io.BytesIO()
    with contextlib.suppress(OSError):
        while data := os.read(ours, 4096):
            shown.write(data)
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0
    text = shown.getvalue().decode()
    assert "100%" in text
    assert "2.0 MiB of 2.0 MiB" in text
    assert b"%" not in out
