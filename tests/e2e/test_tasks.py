"""What becomes of a task: answered, refused, waiting, expired, deleted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.e2e.kit import SOURCES, TASKS, Cluster, condition, describe, is_true, reasons, until
from tests.e2e.objects import compose, page, run, shell, source, task, worker

pytestmark = pytest.mark.e2e

VALUE = {"greeting": "grüß dich", "numbers": [1, 2.5, None], "nested": {"deep": True}}


@pytest.fixture(scope="module")
def probe(operator: Cluster, namespace: str) -> str:
    """A source with the probe worker in all environments; what is to expire begins now and ends beside the others."""
    operator.apply(
        namespace,
        *source(
            "probe",
            cpu=compose(worker=worker()),
            nvidia=compose(worker=worker()),
            amd=compose(worker=worker()),
        ),
        *source("endless", cpu=compose(main=page())),
        task("failing", "probe", "fail", expirySeconds=60),
        task("endless", "endless", expirySeconds=60),
    )
    return "probe"


class TestCalls:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tasks(cls, operator: Cluster, namespace: str, probe: str) -> None:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "login"},
            "stringData": {"token": "s3cret"},
        }
        reference = {"valueFrom": {"secretKeyRef": {"name": "login", "key": "token"}}}
        environment = [{"name": "TOKEN", **reference}, {"name": "MODE", "value": "fast"}]
        operator.apply(
            namespace,
            secret,
            *(
                task(f"call-{name}", probe, "work", {"value": {**VALUE, "for": name}}, environment=name)
                for name in ("cpu", "nvidia", "amd")
            ),
            run("environment", probe, 'echo "$TOKEN $MODE"', env=environment),
            task("refused", probe, "work", {"seconds": "not a number"}),
        )

    @pytest.mark.parametrize("environment", ["cpu", "nvidia", "amd"])
    def test_the_answer_comes_back_as_the_worker_gave_it(
        self, operator: Cluster, namespace: str, environment: str
    ) -> None:
        name = f"call-{environment}"
        operator.kubectl("-n", namespace, "wait", "--for=condition=Complete", f"ogt/{name}", "--timeout=300s")
        found = operator.task(namespace, name)
        status = found["status"]
        (response,) = status["responses"]
        assert response["inline"]["value"] == {**VALUE, "for": environment}
        assert response["inline"]["calls"] == 1
        assert len(response["sha1"]) == 40
        assert status["environment"] == environment
        assert status["taskStatus"] == "Finalized"
        assert status["endReason"] == "Answered"
        assert status["observedGeneration"] == found["metadata"]["generation"]
        assert all(
            entry["observedGeneration"] == status["observedGeneration"] for entry in status["conditions"]
        )
        assert not is_true(found, "Failed")

    def test_nothing_is_left_of_an_answered_task(self, operator: Cluster, namespace: str) -> None:
        found = operator.wait_task(namespace, "call-cpu")
        until(
            "the children to go",
            lambda: not operator.children(namespace, found) or None,
            timeout=60,
        )

    def test_a_variable_may_come_from_a_secret(self, operator: Cluster, namespace: str) -> None:
        assert operator.answer(namespace, "environment")["stdout"] == "s3cret fast\n"

    def test_data_that_the_worker_refuses_end_the_task(self, operator: Cluster, namespace: str) -> None:
        found = operator.wait_task(namespace, "refused", "Failed")
        failed = condition(found, "Failed")
        assert failed["reason"] == "WorkerRefused", describe(found)
        assert "422" in failed["message"], failed
        assert found["status"]["attempts"] == 1


class TestWaiting:
    def test_a_task_before_its_source_waits_and_then_runs(self, operator: Cluster, namespace: str) -> None:
        operator.apply(namespace, task("early", "later", "work", {"value": "patient"}))
        waiting = operator.wait_reason(TASKS, namespace, "early", "SourceNotFound")
        assert "later" in waiting["message"], waiting
        assert not is_true(operator.task(namespace, "early"), "Stalled"), "only its source is missing"
        operator.apply(namespace, *source("later", cpu=compose(worker=worker())))
        assert operator.answer(namespace, "early")["value"] == "patient"

    def test_a_suspended_task_makes_nothing_until_it_is_resumed(
        self, operator: Cluster, namespace: str, probe: str
    ) -> None:
        operator.apply(namespace, task("parked", probe, "work", {"value": "resumed"}, suspend=True))
        found = operator.wait_task(namespace, "parked", "Suspended")
        assert operator.children(namespace, found) == []
        patch = json.dumps({"spec": {"suspend": False}})
        operator.kubectl("-n", namespace, "patch", "ogt", "parked", "--type=merge", "-p", patch)
        assert operator.answer(namespace, "parked")["value"] == "resumed"


class TestTerms:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def terms(cls, operator: Cluster, namespace: str) -> None:
        spec = {"minPayment": "1000000000000000000000", "maxExpirySeconds": 900}
        operator.apply(namespace, *source("terms", spec=spec, cpu=compose(worker=worker())))

    @pytest.mark.parametrize(
        ("field", "spec"),
        [
            ("payment", {"payment": "999999999999999999999"}),
            ("expirySeconds", {"payment": "1000000000000000000000", "expirySeconds": 901}),
            ("environment", {"payment": "1000000000000000000000", "environment": "amd"}),
        ],
    )
    def test_a_term_that_is_broken_is_named(
        self, operator: Cluster, namespace: str, field: str, spec: dict[str, object]
    ) -> None:
        name = f"breaks-{field.lower()}"
        operator.apply(namespace, task(name, "terms", "work", **spec))
        refused = operator.wait_reason(TASKS, namespace, name, f"TermsRefused:{field}")
        assert field in refused["message"], refused
        assert operator.children(namespace, operator.task(namespace, name)) == []

    def test_a_task_that_keeps_them_runs(self, operator: Cluster, namespace: str) -> None:
        spec = {"payment": "1000000000000000000000", "expirySeconds": 900, "environment": "cpu"}
        operator.apply(namespace, task("keeps-the-terms", "terms", "work", {"value": 1}, **spec))
        assert operator.answer(namespace, "keeps-the-terms")["value"] == 1


class TestJobs:
    """Tasks without a call."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tasks(cls, operator: Cluster, namespace: str) -> None:
        operator.apply(
            namespace,
            *source("batch", cpu=compose(side=page(), main=shell("sleep 2", depends_on=["side"]))),
            *source("broken", cpu=compose(main=shell("exit 3"))),
            task("batch", "batch"),
            task("broken", "broken"),
        )

    def test_it_is_complete_when_its_main_service_ends(self, operator: Cluster, namespace: str) -> None:
        found = operator.wait_task(namespace, "batch")
        assert found["status"]["endReason"] == "Completed"
        assert found["status"]["taskStatus"] == "Finalized"
        until("its page to go", lambda: not operator.children(namespace, found) or None, timeout=60)

    def test_it_failed_when_its_main_service_fails(self, operator: Cluster, namespace: str) -> None:
        found = operator.wait_task(namespace, "broken", "Failed")
        failed = condition(found, "Failed")
        assert failed["reason"] == "MainServiceFailed", describe(found)
        assert "main" in failed["message"], failed


class TestDeletion:
    def test_a_deleted_task_takes_everything_with_it_but_the_owners_volume(
        self, operator: Cluster, namespace: str, probe: str, measured: Callable[[str], None]
    ) -> None:
        operator.apply(namespace, task("doomed", probe, "work", {"seconds": 600}, owner="alice"))
        found = operator.wait_task(namespace, "doomed", "Available")
        made = operator.children(namespace, found)
        kinds = {child.partition("/")[0] for child in made}
        assert {
            "deployments",
            "services",
            "persistentvolumeclaims",
            "secrets",
            "networkpolicies",
            "pods",
        } <= kinds
        job_volumes = {
            claim["spec"]["volumeName"]
            for claim in operator.objects("api/v1/persistentvolumeclaims", namespace)
            if f"persistentvolumeclaims/{claim['metadata']['name']}" in made
        }
        start = time.monotonic()
        operator.kubectl("-n", namespace, "delete", "ogt", "doomed", "--timeout=300s")
        until("the children to go", lambda: not operator.children(namespace, found) or None, timeout=60)
        left = operator.objects("api/v1/persistentvolumeclaims", namespace, "opengpu.network/owner")
        assert [claim["metadata"]["name"][:4] for claim in left] == ["usr-"]

        def bytes_are_gone() -> bool:
            _, found = operator.api.request("GET", "api/v1/persistentvolumes")
            return not job_volumes & {volume["metadata"]["name"] for volume in found["items"]}

        assert job_volumes
        # A pod of the provisioner removes them, which may have to wait on a busy machine.
        until("the bytes of /gpux_job to go", bytes_are_gone, timeout=120)
        measured(f"/gpux_job was gone {time.monotonic() - start:.1f} s after its task's deletion")

    def test_a_source_with_tasks_says_what_its_deletion_waits_for(
        self, operator: Cluster, namespace: str
    ) -> None:
        operator.apply(
            namespace,
            *source("busy", cpu=compose(worker=worker())),
            task("holds-it", "busy", "work", {"seconds": 600}),
        )
        operator.wait_task(namespace, "holds-it", "Available")
        operator.kubectl("-n", namespace, "delete", "ogs", "busy", "--wait=false")
        waiting = operator.wait_reason(SOURCES, namespace, "busy", "InUse")
        assert "holds-it" in waiting["message"] or "1 task" in waiting["message"], waiting
        assert is_true(operator.task(namespace, "holds-it"), "Available"), "its task must run on"
        operator.apply(namespace, task("too-late", "busy", "work"))
        operator.wait_reason(TASKS, namespace, "too-late", "SourceDeleting")
        operator.kubectl("-n", namespace, "delete", "ogt", "holds-it", "too-late", "--timeout=300s")
        until("the source to go", lambda: operator.get(SOURCES, namespace, "busy") is None or None)


NOT_COMPOSE_FILES = {
    "image-name": "docker.io/opengpunetwork/openchat-text2text:latest\n",
    "web-page": "<!DOCTYPE html>\n<html><head><title>compose.yaml</title></head><body>…</body></html>\n",
    "git-url": "https://github.com/OpenGPU-Network/openchat-text2text.git\n",
    "registry-manifest": json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "size": 2,
                "digest": "sha256:00",
            },
            "layers": [],
        }
    ),
    "empty": "",
    "list": "- a\n- b\n",
}


class TestFiles:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def sources(cls, operator: Cluster, namespace: str) -> None:
        refused = compose(
            worker=worker(
                privileged=True, network_mode="host", volumes=["/var/run/docker.sock:/var/run/docker.sock"]
            )
        )
        objects = [entry for name, text in NOT_COMPOSE_FILES.items() for entry in source(name, cpu=text)]
        operator.apply(namespace, *objects, *source("refused", cpu=refused))

    @pytest.mark.parametrize("name", list(NOT_COMPOSE_FILES))
    def test_what_is_no_compose_file_is_said_with_advice(
        self, operator: Cluster, namespace: str, name: str
    ) -> None:
        found = operator.wait(
            SOURCES,
            namespace,
            name,
            what="NotAComposeFile",
            met=lambda obj: "NotAComposeFile" in reasons(obj),
            timeout=30,
        )
        (environment,) = found["status"]["environments"]
        assert environment["reason"] == "NotAComposeFile"
        assert any(finding.get("advice") for finding in environment["findings"]), environment
        assert not is_true(found, "Ready")

    def test_a_refused_file_names_every_key_at_once(self, operator: Cluster, namespace: str) -> None:
        operator.wait_reason(SOURCES, namespace, "refused", "ComposeRefused")
        found = operator.get(SOURCES, namespace, "refused")
        assert found is not None
        paths = {finding["path"] for finding in found["status"]["environments"][0]["findings"]}
        for key in ("privileged", "network_mode", "volumes[0]"):
            assert f"services.worker.{key}" in paths, paths


class TestExpiry:
    """Of tasks that had started."""

    def test_a_worker_that_never_answers(self, operator: Cluster, namespace: str, probe: str) -> None:
        found = operator.wait_task(namespace, "failing", "Failed", timeout=120)
        assert found["status"]["times"]["called"], describe(found)
        assert condition(found, "Failed")["reason"] == "Expired", describe(found)
        assert found["status"]["taskStatus"] == "Expired"

    def test_a_job_that_never_ends(self, operator: Cluster, namespace: str, probe: str) -> None:
        found = operator.wait_task(namespace, "endless", "Failed", timeout=120)
        assert found["status"]["times"]["started"], describe(found)
        assert condition(found, "Failed")["reason"] == "Expired", describe(found)
        assert found["status"]["taskStatus"] == "Expired"
        until("its pods to go", lambda: not operator.children(namespace, found) or None, timeout=60)
