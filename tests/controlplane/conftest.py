"""A real API server for tests: etcd and kube-apiserver, no nodes, with our CRDs in it.

It is the local cluster named by OPENGPU_CONTROL_PLANE (default ``cp-test``). One that runs already is used and left
running, so ``localcluster up --name cp-test --control-plane-only`` once makes every later run start at once.
"""

import base64
import contextlib
import http.client
import itertools
import json
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from localcluster.paths import Layout
from tests.controlplane import dryrun
from tests.support.environment import unavailable
from tests.support.stack import eventually

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"
NAME = os.environ.get("OPENGPU_CONTROL_PLANE", "cp-test")

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


class Api:
    """Plain requests to the API server, whose answers are looked at as they are."""

    #: What the last answer warned of.
    warnings: tuple[str, ...] = ()

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        self.kubeconfig = kubeconfig
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]

        def file(section: dict[str, str], key: str) -> str:
            if f"{key}-data" not in section:
                return str(kubeconfig.parent / section[key])
            (directory / key).write_bytes(base64.b64decode(section[f"{key}-data"]))
            return str(directory / key)

        context = ssl.create_default_context(cafile=file(cluster, "certificate-authority"))
        context.load_cert_chain(file(user, "client-certificate"), file(user, "client-key"))
        self._connection = http.client.HTTPSConnection(
            urlsplit(cluster["server"]).netloc, context=context, timeout=180
        )

    def close(self) -> None:
        self._connection.close()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: str = "application/json",
        user: str | None = None,
        **query: str,
    ) -> tuple[int, Any]:
        """Return the status and the body of the answer; ``user`` is who asks, if not the administrator."""
        asked = "&".join(f"{key}={value}" for key, value in query.items())
        self._connection.request(
            method,
            f"{path}?{asked}" if asked else path,
            body=None if body is None else json.dumps(body),
            headers={
                "Content-Type": content,
                "Accept": "application/json",
                **({} if user is None else {"Impersonate-User": user}),
            },
        )
        answer = self._connection.getresponse()
        text = answer.read()
        given = answer.headers.get_all("Warning") or ()
        self.warnings = tuple(json.loads(warning.partition(" - ")[2]) for warning in given)
        return answer.status, json.loads(text) if text.startswith(b"{") else text.decode()

    def kubectl(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl; the caller looks at the exit status."""
        return subprocess.run(
            [_program("kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


def _program(name: str) -> str:
    """Return the path of a program, preferring the one of the environment that runs the tests."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        unavailable(f"{name} is not installed: pip install -e localcluster, then localcluster binaries")
    return found


def _localcluster(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_program("localcluster"), *arguments], stdout=subprocess.PIPE, text=True, check=False
    )


@pytest.fixture(scope="session")
def kubeconfig():
    """The kubeconfig of the control plane; one that was there stays, however it was."""
    existed = Layout(NAME).state.exists()
    # What there is already is mended.
    started = _localcluster("up", "--name", NAME, "--control-plane-only")
    assert started.returncode == 0, f"localcluster up failed: {started.stdout}"
    yield Path(_localcluster("kubeconfig", "--name", NAME).stdout.strip())
    if not existed:
        _localcluster("down", "--name", NAME)


@pytest.fixture(scope="session")
def api(kubeconfig, tmp_path_factory):
    """A client of the API server, in which our CRDs are enforced."""
    with contextlib.closing(Api(kubeconfig, tmp_path_factory.mktemp("credentials"))) as client:
        for file in sorted(CRDS.glob("*.yaml")):
            install(client, yaml.safe_load(file.read_text()))
        yield client


def install(client: Api, definition: dict[str, Any]) -> None:
    """Define a kind; return once it is served as it is defined."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition['metadata']['name']}"
    status, answer = client.request(
        "PATCH", path, definition, content=APPLY, fieldManager="tests", force="true", fieldValidation="Strict"
    )
    assert status in {200, 201}, answer

    def conditions() -> dict[str, str]:
        found = client.request("GET", path)[1].get("status", {}).get("conditions") or []
        return {condition["type"]: condition["status"] for condition in found}

    established = f"{path} is not established"
    eventually(lambda: conditions().get("Established") == "True", within=30, otherwise=established)
    # A schema that isn't structural is accepted, but prunes nothing.
    assert "NonStructuralSchema" not in conditions()
    # Where an older definition was there, the new one is enforced a moment later.
    wanted = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    eventually(
        lambda: _served(client, definition["spec"]) == wanted,
        within=30,
        otherwise=f"the schema of {path} is not served as written",
    )


def _served(client: Api, spec: dict[str, Any]) -> Any:
    """Return the schema of ``spec`` that the API server publishes."""
    status, document = client.request(
        "GET", f"/openapi/v3/apis/{spec['group']}/{spec['versions'][0]['name']}"
    )
    schemas = document["components"]["schemas"].values() if status == 200 else ()
    for schema in schemas:
        kinds = [entry["kind"] for entry in schema.get("x-kubernetes-group-version-kind", [])]
        if spec["names"]["kind"] in kinds:
            return schema["properties"].get("spec")
    return None


_numbers = itertools.count(1)


@pytest.fixture
def namespace(api):
    """A namespace of its own for a test that stores objects."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    status, answer = api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert status == 201, answer
    yield name
    api.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="module", params=["baseline", "restricted"])
def profile(request):
    """A Pod Security Standard."""
    return request.param


@pytest.fixture(scope="module")
def enforced(api, profile):
    """A namespace in which the standard is enforced."""
    with dryrun.namespace(api, profile) as name:
        yield name
