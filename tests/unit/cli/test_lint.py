"""`opengpu lint`: what it finds, how it says it, its exit status, and that it agrees with `opengpu translate`."""

from __future__ import annotations

import functools
import http.server
import io
import json
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.findings import FileReport, Finding
from opengpu_operator.cli import look
from opengpu_operator.cli.main import main
from opengpu_operator.compose.fetch import Fetcher
from tests.support.compose import NO_KOMPOSE, real_kompose
from tests.support.environment import unavailable
from tests.unit.build.test_docs import RUN

ROOT = Path(__file__).resolve().parents[3]

CLEAN = """
services:
  worker:
    image: example.org/worker:1
    ports: ["${PORT}:5555"]
"""
#: Has a finding of a file with a line, and one of a job.
REMARKABLE = """
services:
  worker:
    image: example.org/worker:1
    ports: ["${PORT}:5555"]
    environment: {TOKEN: "${TOKEN}"}
    volumes: ["data:/gpux_job"]
  extra: {image: example.org/extra, profiles: [more]}
volumes: {data: }
"""
REFUSED = "services: {app: {image: x, privileged: true}}"
GPU = CLEAN + "    gpus: [{count: 1}]\n"

Lint = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def needs_kompose() -> None:
    if real_kompose() is None:
        unavailable(NO_KOMPOSE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"clean": CLEAN, "found": REMARKABLE, "refused": REFUSED, "gpu": GPU}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


@pytest.fixture
def lint(folder: Path, capsys: pytest.CaptureFixture[str]) -> Lint:
    """Run the command; return its status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["lint", *arguments])
        return status, *capsys.readouterr()

    return run


def as_json(output: str) -> Any:
    return json.loads(output)


# --- one file -----------------------------------------------------------------------------------------------------


def test_a_clean_file(lint: Lint) -> None:
    assert lint("clean.yaml") == (0, "nothing found\n", "")


def test_warnings_and_remarks_refuse_nothing(lint: Lint) -> None:
    status, out, err = lint("found.yaml")
    assert (status, err) == (0, "")
    *rows, last = out.splitlines()
    assert last == "2 warnings, 2 remarks"
    found = {row.split()[1]: row.split()[2] for row in rows}
    # The last one is of the job, which knows the key alone.
    assert found == {
        "VariableUnset": "found.yaml:6:19",
        "ProfileInactive": "found.yaml:8:37",
        "VolumeStartsEmpty": "found.yaml:7:15",
        "VolumeReplaced": "found.yaml:7:5",
    }


def test_a_refused_file(lint: Lint) -> None:
    status, out, _ = lint("refused.yaml")
    assert status == 1
    assert out.startswith("error  Privileged  refused.yaml:1:28  services.app.privileged: ")
    assert out.endswith("\n1 error\n")


def test_what_no_job_can_be_made_of_is_refused(lint: Lint, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object) -> None:
        raise Invalid("SpecRefused:ports", "spec.ports: two services want 9000")

    monkeypatch.setattr(look, "build", build)
    status, out, _ = lint("clean.yaml")
    assert status == 1
    assert "ComposeRefused" in out
    assert "two services want 9000" in out
    assert main(["translate", "clean.yaml"]) == 1


@pytest.mark.parametrize("name", ["clean", "found", "refused", "gpu"])
def test_lint_and_translate_agree(lint: Lint, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--environment", "nvidia", "--profile", "*")
    status, out, _ = lint(f"{name}.yaml", *options)
    *rows, _ = out.splitlines()
    translated = main(["translate", f"{name}.yaml", *options])
    err = capsys.readouterr().err
    assert status == translated
    assert [re.sub(r" +", " ", row.replace(f"{name}.yaml:", "")) for row in rows] == [
        re.sub(r" +", " ", row) for row in err.splitlines()
    ]


def test_options(lint: Lint) -> None:
    assert lint("found.yaml", "--var", "TOKEN=x", "--profile", "*")[1].endswith("\n1 warning, 1 remark\n")
    _, out, _ = lint("gpu.yaml", "--environment", "amd", "--format", "json")
    assert as_json(out)["files"][0]["environment"] == "amd"


def test_standard_input(lint: Lint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(REFUSED.encode())))
    status, out, _ = lint("-")
    assert (status, out.split()[2]) == (1, "-:1:28")


# --- several files ------------------------------------------------------------------------------------------------


def test_the_files_of_a_source_are_compared(lint: Lint, folder: Path) -> None:
    (folder / "gpu.yaml").write_text(GPU.replace('5555"', '5555", "8080:8080"'))
    status, out, err = lint("cpu=clean.yaml", "nvidia=gpu.yaml")
    assert (status, err) == (0, "")
    place, said = "gpu.yaml:5:5", "services.worker.ports: Published ports differ: 8080 in nvidia only."
    assert re.fullmatch(rf"warning  EnvironmentsDiffer  {place}  {said} .*\n1 warning\n", out)
    # By their GPUs, where it isn't said what they are for; the order doesn't matter.
    assert lint("gpu.yaml", "clean.yaml")[1] == out
    assert lint("--environment", "cpu", "clean.yaml", "nvidia=gpu.yaml")[1] == out


def test_files_for_the_same_hardware_arent_compared(lint: Lint) -> None:
    status, out, err = lint("clean.yaml", "found.yaml")
    assert status == 0
    assert "EnvironmentsDiffer" not in out
    assert "the same hardware" in err
    assert lint("clean.yaml", "gpu.yaml", "--environment", "cpu")[2] == err
    assert lint("clean.yaml", "refused.yaml")[2] == ""


def test_one_refused_file_of_several(lint: Lint) -> None:
    status, out, err = lint("clean.yaml", "amd=refused.yaml", "nvidia=gpu.yaml")
    assert (status, err) == (1, "")
    assert out.endswith("\n1 error\n")


def test_a_file_whose_name_looks_like_an_environment(lint: Lint, folder: Path) -> None:
    (folder / "cpu=x.yaml").write_text(CLEAN)
    (folder / "tpu=x.yaml").write_text(CLEAN)
    assert lint("./cpu=x.yaml")[0] == 0
    assert lint("tpu=x.yaml")[0] == 0
    assert lint("cpu=cpu=x.yaml")[0] == 0
    assert lint("cpu=x.yaml")[0] == 2


# --- formats ------------------------------------------------------------------------------------------------------


def test_json(lint: Lint, folder: Path) -> None:
    (folder / "gpu.yaml").write_text(GPU.replace("worker", "other"))
    status, out, _ = lint("--format", "json", "clean.yaml", "nvidia=gpu.yaml", "amd=refused.yaml")
    assert status == 1
    document = as_json(out)
    assert set(document) == {"files", "differences"}
    keys = {"file", "environment", "digest", "refused", "findings"}
    assert [set(entry) for entry in document["files"]] == [keys] * 3
    shown = [(entry["file"], entry["environment"], entry["refused"]) for entry in document["files"]]
    assert shown == [
        ("clean.yaml", "cpu", False),
        ("gpu.yaml", "nvidia", False),
        ("refused.yaml", "amd", True),
    ]
    for entry in document["files"]:
        findings = [Finding.model_validate(finding) for finding in entry["findings"]]
        report = FileReport(environment=entry["environment"], digest=entry["digest"], findings=findings)
        assert {"file": entry["file"], **report.dump()} == entry
    assert [entry["path"] for entry in document["differences"]] == ["services.worker", "services.other"]
    for entry in document["differences"]:
        assert (entry.pop("file"), entry.pop("environment")) == ("gpu.yaml", "nvidia")
        assert Finding.model_validate(entry).model_dump(mode="json", by_alias=True) == entry


def test_json_of_a_refused_file_doesnt_guess_its_hardware(lint: Lint) -> None:
    _, out, _ = lint("--format", "json", "refused.yaml")
    assert as_json(out)["files"][0]["environment"] is None


def test_sarif(lint: Lint, folder: Path) -> None:
    (folder / "gpu.yaml").write_text(GPU.replace("worker", "other"))
    status, out, _ = lint("--format", "sarif", "cpu=found.yaml", "gpu.yaml", "amd=refused.yaml")
    assert status == 1
    document = as_json(out)
    results = document["runs"][0]["results"]
    found = [
        (
            entry["ruleId"],
            entry["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
            entry["locations"][0]["physicalLocation"].get("region", {}).get("startLine"),
        )
        for entry in results
    ]
    assert found[0] == ("VariableUnset", "found.yaml", 6)
    assert ("Privileged", "refused.yaml", 1) in found
    assert ("EnvironmentsDiffer", "gpu.yaml", 3) in found
    assert {entry["level"] for entry in results} == {"error", "warning", "note"}


# --- URLs ---------------------------------------------------------------------------------------------------------


class Pages(http.server.BaseHTTPRequestHandler):
    """Serves a few files on loopback."""

    files: ClassVar = {"/clean": CLEAN.encode(), "/page": b"<html>", "/bytes": b"\xff\xfe"}

    def do_GET(self) -> None:
        body = self.files.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that may be fetched from, though it isn't public."""
    monkeypatch.setattr(look, "Fetcher", functools.partial(Fetcher, allowed_hosts=["127.0.0.1"]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_url(lint: Lint, web: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint(f"{web}/clean") == (0, "nothing found\n", "")
    assert lint(f"nvidia={web}/clean")[0] == 0
    assert main(["translate", f"{web}/clean"]) == 0
    assert "kind: Deployment" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["page", "bytes"])
def test_a_url_that_serves_no_compose_file(lint: Lint, web: str, page: str) -> None:
    status, out, _ = lint(f"{web}/{page}")
    assert status == 1
    assert "NotAComposeFile" in out
    (file,) = as_json(lint(f"{web}/{page}", "--format", "json")[1])["files"]
    assert (file["file"], file["refused"]) == (f"{web}/{page}", True)


def test_a_url_that_cant_be_fetched(lint: Lint, web: str) -> None:
    status, out, err = lint(f"{web}/none", "clean.yaml")
    assert (status, out) == (2, "")
    assert err == f"opengpu: {web}/none: FetchFailed: the server answers 404\n"


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:1/x", "https://localhost/x", "https://169.254.169.254/latest", "https://[::1]/"),
        *("http://example.com/x", "ftp://example.com/x", "file:///etc/passwd", "https://user@example.com/"),
    ],
)
def test_what_the_operator_wouldnt_fetch_isnt_fetched(lint: Lint, url: str) -> None:
    status, out, err = lint(url)
    assert (status, out) == (2, "")
    assert "FetchFailed" in err


# --- usage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x", "--format", "xml"],
        ["x", "--environment", "tpu"],
        ["x", "--var", "A"],
        ["x", "--name", "n"],
        ["x", "--form", "json"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["lint", *arguments])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage" in err


def test_the_same_environment_twice(lint: Lint) -> None:
    status, out, err = lint("cpu=clean.yaml", "cpu=found.yaml")
    assert (status, out) == (2, "")
    assert "cpu" in err


def test_all_files_that_cant_be_read_are_named(lint: Lint, folder: Path) -> None:
    status, out, err = lint("none.yaml", "clean.yaml", str(folder), "--format", "sarif")
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        "opengpu: none.yaml can't be read: No such file or directory",
        f"opengpu: {folder} can't be read: Is a directory",
    ]


def test_kompose_is_not_there(lint: Lint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENGPU_KOMPOSE", "/nonexistent")
    status, out, err = lint("clean.yaml")
    assert (status, out) == (2, "")
    assert "kompose" in err


# --- documentation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [command for command, file in RUN.items() if ROOT / file == Path(__file__)]
)
def test_documented_commands(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(command)
    assert program == "opengpu"
    assert main(arguments) == 0
    assert capsys.readouterr().out
