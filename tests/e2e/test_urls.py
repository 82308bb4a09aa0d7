"""Files by URL: from where they are fetched, from where they aren't, and what isn't a Compose file."""

from __future__ import annotations

import pytest

from tests.e2e.fixtures import FILES_NAMESPACE, corpus_files
from tests.e2e.kit import SOURCES, Cluster, Object, condition, is_true
from tests.e2e.objects import API_VERSION

pytestmark = pytest.mark.e2e

FILE = corpus_files()["61"].name


def by_url(name: str, url: str) -> Object:
    """Return a source whose file is at a URL."""
    spec = {"imageEnvs": {"cpu": {"composeUrl": url}}}
    return {"apiVersion": API_VERSION, "kind": "OpenGPUSource", "metadata": {"name": name}, "spec": spec}


def applied(operator: Cluster, namespace: str, name: str, url: str) -> Object:
    """Apply a source; return it once it has been looked at."""
    operator.apply(namespace, by_url(name, url))
    return operator.wait(
        SOURCES,
        namespace,
        name,
        what="verdict",
        met=lambda obj: bool(obj.get("status", {}).get("environments")),
        timeout=30,
    )


def served(operator: Cluster) -> str:
    """Return what the web server in the cluster was asked for."""
    return operator.kubectl("-n", FILES_NAMESPACE, "logs", "deployment/files", "--tail=-1")


def test_an_allowed_host_may_be_in_the_cluster(operator: Cluster, namespace: str, files: str) -> None:
    found = applied(operator, namespace, "allowed", f"{files}/{FILE}?by=allowed")
    assert is_true(found, "Ready"), found["status"]
    assert "by=allowed" in served(operator)


def test_what_isnt_allowed_is_never_asked(operator: Cluster, namespace: str, files: str) -> None:
    """The same server by its other names, and what else a stranger would like to reach."""
    service = operator.get("api/v1/services", FILES_NAMESPACE, "files")
    assert service is not None
    address = service["spec"]["clusterIP"]
    urls = {
        "address": f"https://{address}:80/{FILE}?by=stranger",
        "plain": f"http://{address}/{FILE}?by=stranger",
        "short-name": f"https://files.{FILES_NAMESPACE}.svc:80/{FILE}?by=stranger",
        "api-server": "https://kubernetes.default.svc.cluster.local/version",
        "metadata": "https://169.254.169.254/latest/meta-data/",
        "loopback": "https://127.0.0.1/",
    }
    operator.apply(namespace, *(by_url(name, url) for name, url in urls.items()))
    for name in urls:
        found = operator.wait(
            SOURCES,
            namespace,
            name,
            what="refusal",
            met=lambda obj: condition(obj, "Ready").get("reason") == "FetchFailed",
            timeout=30,
        )
        why = "only https" if name == "plain" else "not public"
        assert why in condition(found, "Ready")["message"], (name, found["status"])
    asked = served(operator)
    assert "by=stranger" not in asked
    assert "Bad request" not in asked, "what a handshake looks like to a server without TLS"


def test_a_page_instead_of_a_file_is_said_with_advice(operator: Cluster, namespace: str, files: str) -> None:
    found = applied(operator, namespace, "page", f"{files}/")
    (environment,) = found["status"]["environments"]
    assert environment["reason"] == "NotAComposeFile", found["status"]
    assert any(finding.get("advice") for finding in environment["findings"]), environment
    assert condition(found, "Ready")["reason"] == "NotAComposeFile"
