"""A task's files from outside the cluster, through the ingress: by hash, by link, and out of the job's own folder."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import json
import os
import shlex
import signal
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest

from opengpu_operator.cli.main import main
from tests.e2e.kit import DOMAIN, Cluster, condition, is_true, until
from tests.e2e.objects import compose, shell, source, task
from tests.unit.build.test_docs import commands_of

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).resolve().parents[2] / "docs" / "files.md"
GIB = 1 << 30
SCRIPT = f"""
set -euo pipefail
cd /gpux_job
mkdir -p out
echo "of $HOSTNAME $RANDOM$RANDOM" > out/a.txt
ln -sf /run/gpux-token/token out/token
up() {{ curl -s --unix-socket /gpux_api -T "$1" "http://dontcare/api/file/upload" | jq -r .sha1; }}
small=$(curl -s --unix-socket /gpux_api --data-binary @out/a.txt "http://dontcare/api/file/upload/" | jq -r .sha1)
test "$small" = "$(sha1sum < out/a.txt | cut -d' ' -f1)"
large=
if [ "${{LARGE:-}}" ]; then
  head -c {GIB} /dev/urandom > large
  large=$(up large)
  test "$large" = "$(sha1sum < large | cut -d' ' -f1)"
fi
echo "{{\\"small\\": \\"$small\\", \\"large\\": \\"$large\\"}}"
exec sleep 900
"""
TASKS: dict[str, dict[str, Any]] = {
    "public": {"storage": {"jobSize": "2Gi", "external": "Public"}, "env": [{"name": "LARGE", "value": "1"}]},
    "links": {"storage": {"jobSize": "1Gi", "external": "Links"}},
    "off": {"storage": {"jobSize": "1Gi", "external": "Off"}},
}


@pytest.fixture(scope="module")
def uploaded(operator: Cluster, namespace: str) -> dict[str, dict[str, str]]:
    """Jobs that have uploaded a file each, in the documented way, and run on; the hashes."""
    operator.apply(
        namespace,
        *source("uploader", cpu=compose(main=shell(SCRIPT, restart="no"))),
        *(task(name, "uploader", **spec) for name, spec in TASKS.items()),
    )

    def said(name: str) -> dict[str, str] | None:
        found = operator.task(namespace, name)
        for pod in operator.pods(namespace, found) if found.get("status", {}).get("jobId") else []:
            status, text = operator.api.request(
                "GET", f"api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/log?container=main"
            )
            if status == 200 and text.get("small"):
                return dict(text)
        return None

    return {
        name: until(f"{name} to have uploaded", functools.partial(said, name), timeout=180) for name in TASKS
    }


@pytest.fixture(scope="module")
def base(operator: Cluster) -> str:
    url = f"https://files.{DOMAIN}:{operator.info['ingressTLSPort']}"
    until("the way to the store", lambda: operator.curl(f"{url}/healthz")[0] == 200, timeout=60)
    return url


def secret(operator: Cluster, namespace: str, name: str) -> dict[str, str] | None:
    job = operator.task(namespace, name)["status"]["jobId"]
    found = operator.get("api/v1/secrets", namespace, f"j-{job}-files")
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()} if found else None


def bearer(operator: Cluster, namespace: str, name: str) -> tuple[str, str]:
    found = secret(operator, namespace, name)
    assert found is not None
    return "-H", f"Authorization: Bearer {found['token']}"


@pytest.fixture
def opengpu(operator: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """``opengpu files`` with the cluster's kubeconfig, where names below .localhost are this machine's."""
    real = socket.getaddrinfo

    def ours(host: Any, *rest: Any, **options: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(".localhost") else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", ours)
    monkeypatch.chdir(tmp_path)
    kubeconfig = operator.info["kubeconfig"]

    def run(verb: str, name: str, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        where = ["--kubeconfig", kubeconfig, "-n", namespace, "--task", name]
        where += ["--ca-file", operator.info["ingressCA"]]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(["files", verb, *where, *arguments])
        return status, out.getvalue().strip(), err.getvalue()

    return run


def test_only_a_public_file_is_had_by_its_hash(
    operator: Cluster, namespace: str, uploaded: Any, base: str
) -> None:
    status, body = operator.curl(f"{base}/download_file/{uploaded['public']['small']}")
    assert (status, body.startswith("of main")) == (200, True)
    assert operator.curl(f"{base}/download_file/{uploaded['public']['small']}", "-r", "0-1") == (206, "of")
    codes = {
        name: operator.curl(f"{base}/download_file/{uploaded[name]['small']}") for name in ("links", "off")
    }
    absent = operator.curl(f"{base}/download_file/{'0' * 40}")
    assert absent[0] == 404
    assert codes == {"links": absent, "off": absent}


def test_a_task_says_how_open_it_is_and_never_shows_its_token(
    operator: Cluster, namespace: str, uploaded: Any
) -> None:
    found = {name: operator.task(namespace, name) for name in TASKS}
    assert condition(found["public"], "External")["reason"] == "Public"
    assert condition(found["links"], "External")["reason"] == "Links"
    assert not is_true(found["off"], "External")
    assert secret(operator, namespace, "off") is None
    for name in ("public", "links"):
        made = secret(operator, namespace, name)
        assert made is not None
        shown = json.dumps([found[name], operator.events(namespace), operator.pods(namespace, found[name])])
        assert made["token"] not in shown


def test_there_and_back_with_the_command(
    opengpu: Any, operator: Cluster, namespace: str, uploaded: Any, tmp_path: Path
) -> None:
    (tmp_path / "given").write_bytes(os.urandom(3 << 20))
    status, out, err = opengpu("put", "links", "given")
    assert (status, err) == (0, ""), err
    name = out.split()[0]
    assert opengpu("get", "links", name, "-o", "back")[:2] == (0, "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "given").read_bytes()
    assert name in opengpu("ls", "links")[1]
    status, _, err = opengpu("ls", "off")
    assert status == 2
    assert "isn't open" in err or "aren't open" in err


def test_a_link_works_ends_and_is_nothing_else(
    opengpu: Any, operator: Cluster, namespace: str, uploaded: Any, base: str
) -> None:
    status, url, err = opengpu("share", "links", uploaded["links"]["small"], "--for", "10s")
    assert status == 0, err
    assert url.startswith(base)
    assert operator.curl(url)[0] == 200
    assert operator.curl(url[:-1] + ("A" if url[-1] != "A" else "E"))[0] == 401
    other = url.replace(uploaded["links"]["small"], uploaded["off"]["small"])
    assert operator.curl(other)[0] == 404
    until("the link to end", lambda: operator.curl(url)[0] == 401)


def test_the_jobs_folder(
    opengpu: Any, operator: Cluster, namespace: str, uploaded: Any, base: str, tmp_path: Path
) -> None:
    job = operator.task(namespace, "links")["status"]["jobId"]
    token = bearer(operator, namespace, "links")
    status, body = operator.curl(f"{base}/api/job/storage/list/{job}?path=out", *token)
    assert status == 200, body
    entries = {entry["name"]: entry["type"] for entry in json.loads(body)["entries"]}
    assert entries == {"a.txt": "file", "token": "link"}
    archive = tmp_path / "all.tar"
    assert operator.curl(f"{base}/api/job/storage/download/{job}", *token, "-o", str(archive))[0] == 200
    with tarfile.open(archive) as packed:
        assert {"out", "out/a.txt", "out/token"} <= set(packed.getnames())
        text = packed.extractfile("out/a.txt")
        assert text is not None
        assert text.read().startswith(b"of main")
        assert packed.getmember("out/token").issym()
    # Through the link in the job's folder the agent would read its own token.
    assert operator.curl(f"{base}/api/job/storage/download/{job}?path=out/token", *token)[0] == 409
    other = operator.task(namespace, "public")["status"]["jobId"]
    for strange in (other, operator.task(namespace, "off")["status"]["jobId"], "061i6uku7ie62tg1"):
        assert operator.curl(f"{base}/api/job/storage/list/{strange}", *token)[0] == 404
    assert operator.curl(f"{base}/api/job/storage/list/{job}")[0] == 401
    status, _, err = opengpu("get", "links", "--job", "out", "--folder", "-o", "here")
    assert (status, (tmp_path / "here" / "a.txt").exists()) == (0, True), err


def test_a_large_file_comes_through_the_ingress(
    operator: Cluster, namespace: str, uploaded: Any, base: str, tmp_path: Path, measured: Any
) -> None:
    name = uploaded["public"]["large"]
    target = tmp_path / "large"
    arguments = ("-o", str(target), "-w", "%{speed_download}\n%{http_code}")
    status, speed = operator.curl(f"{base}/download_file/{name}", *arguments, timeout=120)
    assert status == 200
    assert target.stat().st_size == GIB
    measured(f"1 GiB through the ingress: {float(speed.split()[-1]) / 1e6:.0f} MB/s")
    with target.open("rb") as file:
        assert hashlib.file_digest(file, "sha1").hexdigest() == name


def test_the_commands_of_the_page(
    opengpu: Any, operator: Cluster, namespace: str, uploaded: Any, tmp_path: Path
) -> None:
    """All of them in their order: those with the socket in the job, those of ``opengpu`` here."""
    (pod,) = operator.pods(namespace, operator.task(namespace, "links"))
    inside = (
        "-n",
        namespace,
        "exec",
        pod["metadata"]["name"],
        "-c",
        "main",
        "--",
        "bash",
        "-euo",
        "pipefail",
        "-c",
    )
    operator.kubectl(
        *inside, "mkdir -p /gpux_job/page/results; cd /gpux_job/page; date > out.zip; date > results/a"
    )
    (tmp_path / "scene.zip").write_bytes(os.urandom(1000))
    (tmp_path / "textures").mkdir()
    (tmp_path / "textures" / "wood").write_bytes(os.urandom(1000))
    hashes: dict[str, str] = {}
    commands = commands_of(PAGE)
    assert len(commands) > 10
    for command in commands:
        if "--unix-socket" in command:
            script = f"cd /gpux_job/page; HASH={hashes.get('HASH', '')}; {command}"
            said = operator.kubectl(*inside, script)
        else:
            program, group, verb, *arguments = shlex.split(command)
            assert (program, group, arguments[:4]) == ("opengpu", "files", ["--task", "render", "-n", "team"])
            given = [hashes.get(word.removeprefix("$"), word) for word in arguments[4:]]
            status, said, err = opengpu(verb, "links", *given)
            assert status == 0, (command, err)
        if " put " in command or "/upload/" in command:
            hashes["FOLDER" if "textures" in command else "HASH"] = said.split()[0]
    assert (tmp_path / "results" / "a.txt").exists()


def agents_of(uid: str) -> list[int]:
    """Return the processes of the agent of a pod; the nodes are this machine."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (place / "environ").read_bytes().split(b"\0")
            command = (place / "cmdline").read_bytes()
            if f"GPUX_POD_UID={uid}".encode() in environment and b"gpux.agent" in command:
                found.append(int(place.name))
    return sorted(found)


def test_an_agent_whose_whole_container_was_killed_costs_the_pod(
    operator: Cluster, namespace: str, uploaded: Any
) -> None:
    """As the kernel does it with a cgroup that is out of memory; its serving process alone would just start again."""
    before = operator.task(namespace, "off")
    (pod,) = operator.pods(namespace, before)
    first, *others = agents_of(pod["metadata"]["uid"])
    for process in others:
        os.kill(process, signal.SIGKILL)
    until(
        "another serving process",
        lambda: [pid for pid in agents_of(pod["metadata"]["uid"]) if pid not in {first, *others}],
    )
    (same,) = operator.pods(namespace, before)
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    for process in agents_of(pod["metadata"]["uid"]):
        # With the first the kernel takes the others.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    until(
        "the event",
        lambda: [event for event in operator.events(namespace, "off") if event["reason"] == "AgentRestarted"],
        timeout=60,
    )

    def replaced() -> bool:
        pods = operator.pods(namespace, before)
        return any(
            other["metadata"]["uid"] != pod["metadata"]["uid"] and other["status"].get("phase") == "Running"
            for other in pods
        )

    until("another pod", replaced, timeout=90)
    until("the condition to go", lambda: not is_true(operator.task(namespace, "off"), "AgentRestarted"))
