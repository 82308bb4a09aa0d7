"""kompose as a subprocess: the real one, and ones that are broken, slow or lie."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from opengpu_operator.api.translation import TranslateOptions, Translation
from opengpu_operator.compose import kompose as subject
from opengpu_operator.compose import overlay, pipeline
from opengpu_operator.compose.kompose import Kompose, KomposeError
from opengpu_operator.compose.sanitise import MAX_VARIABLES
from tests.support.compose import Echo, one, translate

GOOD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec: {template: {spec: {containers: [{name: app, image: "example.org/app:1"}]}}}
"""


def script(folder: Path, body: str) -> Path:
    path = folder / "kompose"
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


async def run(path: Path, text: str = one(""), **options: Any) -> Translation:
    return await pipeline.translate(text, TranslateOptions(), kompose=Kompose(path, **options))


def answer(document: str) -> str:
    return f"cat <<'END'\n{document}END"


async def test_a_good_answer_counts(tmp_path: Path) -> None:
    translation = await run(script(tmp_path, answer(GOOD)))
    assert translation.services[0].container == {"name": "app", "image": "example.org/app:1"}


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "- a\n",
        "x\n",
        GOOD.replace("Deployment", "DaemonSet"),
        GOOD.replace("apps/v1", "v1"),
        GOOD + "---\nkind: ClusterRoleBinding\napiVersion: rbac.authorization.k8s.io/v1\n",
        GOOD + "---\nkind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n",
        GOOD + "---\n" + GOOD,
        GOOD + "---\n" + GOOD.replace("name: app}", "name: other}"),
        GOOD.replace("name: app}", "name: other}"),
        GOOD.replace("metadata: {name: app}", "metadata: app"),
        GOOD.replace("example.org/app:1", "evil.example/app:1"),
        GOOD.replace("image:", "env: [{name: LD_PRELOAD, value: x}], image:"),
        GOOD.replace("image:", "ports: [{containerPort: 20000}], image:"),
        GOOD.replace("image:", "ports: [{containerPort: x}], image:"),
        GOOD.replace("image:", "volumeMounts: [{name: x, mountPath: /}], image:"),
        GOOD.replace("image:", "lifecycle: {}, image:"),
        GOOD.replace("containers: [", "containers: [{name: b, image: b}, "),
        GOOD.replace('containers: [{name: app, image: "example.org/app:1"}]', "containers: x"),
        GOOD.replace("spec: {template", "spec: {templat"),
        "# nothing\n",
        "---\n---\n",
        "null\n",
        "--- {}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: app}\n",
        "apiVersion: v1\nkind: List\nitems:\n- " + GOOD.replace("\n", "\n  ") + "\n",
        GOOD + "---\nkind: Pod\napiVersion: v1\nmetadata: {name: app}\n",
        GOOD + "---\nkind: Ingress\napiVersion: networking.k8s.io/v1\nmetadata: {name: app}\n",
        GOOD.replace("kind: Deployment", "kind: Deployment\nkind: Service"),
        GOOD.replace("name: app, image", "name: app, image: x, image"),
        GOOD.replace("metadata: {name: app}", "metadata: {name: [app]}"),
        GOOD.replace("metadata: {name: app}", "metadata: &m {name: app}\nother: *m"),
        GOOD.replace("metadata: {name: app}", "metadata: {? [name] : app}"),
        GOOD.replace("image:", "env: [{name: A, valueFrom: {secretKeyRef: {name: x, key: y}}}], image:"),
        GOOD.replace("image:", "env: x, image:"),
        GOOD.replace("image:", "ports: {containerPort: 1}, image:"),
        GOOD.replace("image:", "ports: [{containerPort: 1, protocol: SCTP}], image:"),
        GOOD.replace("image:", "command: [sh], image:"),
        GOOD.replace("image:", "envFrom: [], image:"),
        GOOD.replace(', image: "example.org/app:1"', ""),
        GOOD.replace('"example.org/app:1"', "[example.org/app:1]"),
        "x: " + "[" * 500_000 + "]" * 500_000,
        "x: " + "{a: " * 100_000 + "}" * 100_000,
        "x: !!python/object/apply:os.system [id]\n",
    ],
)
async def test_other_answers_do_not(tmp_path: Path, document: str) -> None:
    with pytest.raises(KomposeError):
        await run(script(tmp_path, answer(document)))


@pytest.mark.parametrize(
    "body",
    [
        *("exit 1", "exit 2", "kill -9 $$", "kill -TERM $$", "echo leak >&2; exit 1"),
        "printf '\\377\\376'",
        "head -c 100000 /dev/urandom",
        f"{answer(GOOD)}; echo leak >&2; exit 3",
        # Beyond its limits: the size of a file, open files, memory.
        f"head -c 2000000 /dev/zero > big || exit 1; {answer(GOOD)}",
        f"tail /dev/zero; [ $? = 0 ] || exit 1; {answer(GOOD)}",
    ],
)
async def test_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    monkeypatch.setattr(subject, "ADDRESS_SPACE", 256 * 1024**2)
    with pytest.raises(KomposeError) as caught:
        await run(script(tmp_path, body))
    assert "leak" not in str(caught.value)
    assert not caught.value.transient


async def test_one_that_is_busy_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "CPU_SECONDS", 1)
    with pytest.raises(KomposeError, match="status -"):
        await run(script(tmp_path, "while :; do :; done"))


@pytest.mark.parametrize(
    "body",
    [
        "while :; do echo leak >&2; done",
        "exec sleep 600",
        # Its child keeps the output open, so the answer never ends.
        f"sleep 600 & {answer(GOOD)}",
        "kill -STOP $$",
    ],
)
async def test_one_that_does_not_end(tmp_path: Path, body: str) -> None:
    mark = tmp_path / "pid"
    with pytest.raises(KomposeError, match="longer than") as caught:
        await run(script(tmp_path, f"echo $$ > {mark}\n{body}"), time_limit=0.5)
    assert caught.value.transient
    await gone(int(mark.read_text()))


async def test_one_whose_child_gets_away(tmp_path: Path) -> None:
    """It is out of reach, but nobody waits for it, and it keeps nothing of ours open."""
    mark = tmp_path / "pid"
    path = script(tmp_path, f"setsid sh -c 'echo $$ > {mark}; exec sleep 600' & {answer(GOOD)}")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(KomposeError, match="longer than"):
            await run(path, time_limit=0.5)
        os.kill(int(mark.read_text()), signal.SIGKILL)
    await asyncio.sleep(0)  # a pipe is closed when the loop comes round to it
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_what_it_says_besides_is_nobodys_business(tmp_path: Path) -> None:
    noise = "head -c 1000000 /dev/zero >&2"
    pod = "hostNetwork: true, serviceAccountName: admin, volumes: [{hostPath: {path: /}}], initContainers: [{}], "
    lying = GOOD.replace("spec: {containers", f"spec: {{{pod}containers") + (
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: other, annotations: {x: smuggled}}\n"
        "spec: {type: LoadBalancer}\n"
    )
    translation = await run(script(tmp_path, f"{noise}; {answer(lying)}"))
    assert translation == await pipeline.translate(one(""), TranslateOptions(), kompose=Echo())


async def test_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "foreign").write_text("#!/nonexistent/sh\n")
    (tmp_path / "foreign").chmod(0o755)
    (tmp_path / "garbage").write_bytes(b"\x7fELF" + b"\0" * 100)
    (tmp_path / "garbage").chmod(0o755)
    for name in ("none", "text", "foreign", "garbage", "."):
        with pytest.raises(KomposeError, match="can't be started"):
            await run(tmp_path / name)
    with pytest.raises(KomposeError, match="not found"):
        subject.find({"OPENGPU_KOMPOSE": str(tmp_path / "none"), "PATH": os.environ["PATH"]})
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(KomposeError, match="not found"):
        subject.find({"PATH": "/nonexistent"})
    path = script(tmp_path, "")
    assert subject.find({}) == path
    assert subject.find({"OPENGPU_KOMPOSE": "/bin/sh"}) == Path("/bin/sh")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert subject.find({"PATH": str(tmp_path)}) == path


async def test_a_hanging_one_is_killed_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    path = script(tmp_path, f"sleep 600 & echo $! > {mark}.new; mv {mark}.new {mark}; wait")
    before = time.monotonic()
    with pytest.raises(KomposeError, match="longer than") as caught:
        await run(path, time_limit=3)  # enough for the script to leave its mark, on any machine
    assert time.monotonic() - before < 300
    assert caught.value.transient
    await gone(int(mark.read_text()))


async def test_children_do_not_outlive_an_answer(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    path = script(tmp_path, f"sleep 600 >/dev/null 2>&1 & echo $! > {mark}; {answer(GOOD)}")
    await run(path)
    await gone(int(mark.read_text()))


async def gone(pid: int) -> None:
    """Wait until a process is dead; its parent may have to reap it yet."""
    async with asyncio.timeout(5):
        while True:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                return
            if state == "Z":
                return
            await asyncio.sleep(0.01)


async def test_endless_output(tmp_path: Path) -> None:
    with pytest.raises(KomposeError, match="too much"):
        await run(
            script(tmp_path, "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"),
            output_limit=10_000,
        )


async def test_its_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "secret")
    monkeypatch.setenv("COMPOSE_FILE", "/etc/passwd")
    seen = tmp_path / "seen"
    body = f"""
    exec 3> {seen}
    env >&3; echo "mode $(stat -c %a .)" >&3; ls -A >&3; cat compose.yaml >&3; echo >&3
    echo "args $*" >&3; ulimit -t >&3; ulimit -v >&3; readlink /proc/self/fd/0 >&3
    {answer(GOOD)}"""
    await run(script(tmp_path, body))
    text = seen.read_text()
    assert "secret" not in text
    assert "COMPOSE_FILE" not in text
    lines = text.splitlines()
    assert "COMPOSE_DISABLE_ENV_FILE=1" in lines
    assert "COMPOSE_PROJECT_NAME=opengpu" in lines
    assert "mode 700" in lines
    assert lines[lines.index("mode 700") + 1] == "compose.yaml"
    assert "args -f compose.yaml convert --stdout --with-kompose-annotation=false --volumes emptyDir" in lines
    assert lines[-3:] == [str(subject.CPU_SECONDS), str(subject.ADDRESS_SPACE // 1024), "/dev/null"]
    directory = next(line.removeprefix("HOME=") for line in lines if line.startswith("HOME="))
    assert not Path(directory).exists()


async def test_a_cancelled_one_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    task = asyncio.create_task(
        run(script(tmp_path, f"echo $$ > {mark}.new; mv {mark}.new {mark}; exec sleep 600"))
    )
    async with asyncio.timeout(10):
        while not mark.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(int(mark.read_text()))


TRICKY = """
services:
  status:
    image: example.org/status:1
    environment:
      STATUS: "line\\nstatus:\\nlost"
      END: "status:"
      SECRET: /Run/secrets/My_File
      OCTAL: "0o17"
      SEXAGESIMAL: "22:22"
      EQUALS: "="
      MERGE: "<<"
      BOOLEAN: "yes"
      DATE: "2001-01-01"
      NUMBER: "1_000"
      DOLLARS: "$$HOME $${HOME} $$$$ $$(HOME)"
      UNICODE: "é\\u2028"
      status: "x"
    command: [sh, -c, "echo $$HOME_X $$(date) status:"]
    labels: {kompose.service.type: LoadBalancer, kompose.controller.type: junk, kompose.volume.type: hostPath}
    restart: on-failure:3
    group_add: [video]
    healthcheck: {test: [NONE]}
    deploy: {replicas: 0}
    user: root
    working_dir: /a b
  "0o7": {image: x}
  "true": {image: x, expose: [1], stdin_open: true}
  My_Service.Name: {image: x, ports: ["53:53", "53:53/udp"], cpus: 0.1, mem_limit: 10m}
"""


async def test_what_kompose_would_get_wrong(kompose: Kompose) -> None:
    translation = await pipeline.translate(TRICKY, TranslateOptions(), kompose=kompose)
    assert not translation.refused, translation.findings
    status = translation.service("status")
    env = {entry["name"]: entry["value"] for entry in status.container["env"]}
    assert env["STATUS"] == "line\nstatus:\nlost"
    assert env["SECRET"] == "/Run/secrets/My_File"
    assert env["DOLLARS"] == "$HOME ${HOME} $$$ $$(HOME)"
    assert env["UNICODE"] == "é\u2028"
    assert {
        env[key] for key in ("OCTAL", "SEXAGESIMAL", "EQUALS", "MERGE", "BOOLEAN", "DATE", "NUMBER", "END")
    } == {
        *("0o17", "22:22", "=", "<<", "yes", "2001-01-01", "1_000", "status:"),
    }
    assert status.container["args"] == ["sh", "-c", "echo $HOME_X $$(date) status:"]
    assert status.container["securityContext"] == {"runAsUser": 0}
    assert status.replicas == 0
    assert translation.service("true").container["stdin"] is True
    assert translation.service("My_Service.Name").dns_name == "my-service-name"
    assert translation.service("My_Service.Name").container["resources"] == {
        "limits": {"cpu": "100m", "memory": "10485760"}
    }


def test_kompose_is_given_little_and_the_rest_is_laid_over() -> None:
    values = {f"A{n}": f"v{n}" for n in range(MAX_VARIABLES)} | {"B": "x"}
    body = f"environment: {json.dumps({'0': 'left out', 'LONG': 'x' * 2000} | values)}"
    echo = Echo()
    translation = translate(f"{one(body)}  b: {{image: x, environment: {{C: d}}}}\n", converter=echo)
    app, other = translation.services
    given = echo.files[0]["services"]
    assert len(given["app"]["environment"]) == MAX_VARIABLES
    assert given["app"]["environment"]["LONG"] == ""
    assert "environment" not in given["b"]
    env = {entry["name"]: entry["value"] for entry in app.container["env"]}
    assert env == values | {"LONG": "x" * 2000}
    assert other.container["env"] == [{"name": "C", "value": "d"}]


async def test_the_answer_is_laid_over_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def services(*_: object) -> list[object]:
        threads.append(threading.current_thread())
        return []

    monkeypatch.setattr(overlay, "services", services)
    await pipeline.translate(one(""), TranslateOptions(), kompose=Echo())
    assert threads
    assert threading.main_thread() not in threads


async def test_the_stand_in_is_like_kompose(kompose: Kompose) -> None:
    real = await pipeline.translate(TRICKY, TranslateOptions(), kompose=kompose)
    assert real == await pipeline.translate(TRICKY, TranslateOptions(), kompose=Echo())


async def test_planted_files_and_variables_stay_where_they_are(
    kompose: Kompose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoy = tmp_path / "decoy"
    decoy.write_text("PLANTED=planted-secret\n")
    (tmp_path / ".env").write_text("PLANTED=planted-secret\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLANTED", "planted-secret")
    monkeypatch.setenv("COMPOSE_FILE", str(decoy))
    text = f"""
    services:
      app:
        image: example.org/app:${{PLANTED:-1}}
        env_file: [{decoy}, .env, {{path: {decoy}, required: false}}]
        label_file: {decoy}
        environment: [PLANTED, "A=${{PLANTED}}"]
        volumes: ["{decoy}:/decoy", "{tmp_path}/:/all"]
        configs: [c]
        labels: {{kompose.volume.type: configMap}}
    configs: {{c: {{environment: PLANTED}}}}
    """
    translation = await pipeline.translate(text, TranslateOptions(), kompose=kompose)
    assert not translation.refused, translation.findings
    assert "planted-secret" not in translation.model_dump_json()


async def test_its_version(kompose: Kompose, tmp_path: Path) -> None:
    assert (await kompose.version())[0].isdigit()
    count = tmp_path / "count"
    fake = Kompose(script(tmp_path, f"echo x >> {count}; echo 9.9.9"))
    assert [await fake.version(), await fake.version()] == ["9.9.9", "9.9.9"]
    assert count.read_text() == "x\n"
    assert await Kompose(script(tmp_path, ":")).version() == "unknown"
    for body in ("exit 1", "exec sleep 600", "while :; do echo 9.9.9; done"):
        with pytest.raises(KomposeError):
            await Kompose(script(tmp_path, body), time_limit=0.5, output_limit=10_000).version()
