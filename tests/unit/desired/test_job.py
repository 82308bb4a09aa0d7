"""The job as a whole: what it is made of, in which order, whose it is."""

import pytest

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.api.translation import Port, Restart, Translation, Until, Volume
from opengpu_operator.desired.job import build
from tests.support.jobs import (
    DIGEST,
    JOB,
    NVIDIA,
    container,
    context,
    mount,
    one,
    pod,
    service,
    settings,
    translation,
    waits,
    worker,
)

CALL = {"functionName": "chat"}


def names(objects):
    return [(obj["kind"], obj["metadata"]["name"]) for obj in objects]


def test_order_and_ownership():
    cache = {"models": Volume(origin="named", label="models", model_cache=True)}
    objects = build(
        translation(
            worker(
                mounts=[mount("models", "/root/.ollama"), mount("scratch")],
                ports=[Port(container=80, published=80)],
            ),
            volumes=cache,
        ),
        context(spec={**CALL, "owner": "me"}),
        settings(),
    )
    (user,) = objects.retained
    assert "ownerReferences" not in user["metadata"]
    assert names(objects.source_objects) == [("PersistentVolumeClaim", "s-chat-nvidia-v-models")]
    assert objects.source_objects[0]["metadata"]["ownerReferences"][0]["kind"] == "OpenGPUSource"
    assert names(objects.objects) == [
        ("PersistentVolumeClaim", f"{JOB}-job"),
        ("PersistentVolumeClaim", f"{JOB}-v-scratch"),
        ("Secret", f"{JOB}-agent"),
        ("Service", JOB),
        ("NetworkPolicy", JOB),
        ("Deployment", f"{JOB}-worker"),
        ("Service", f"{JOB}-r-worker"),
        ("Ingress", JOB),
    ]
    for obj in objects.objects:
        (owner,) = obj["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["controller"]) == ("OpenGPUTask", True)
    assert objects.everything == [*objects.retained, *objects.source_objects, *objects.objects]


def test_labels_and_selectors():
    objects = build(translation(worker()), context(spec=CALL, task="t" * 80), settings())
    deployment = one(objects, "Deployment")
    labels = deployment["metadata"]["labels"]
    assert labels == deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["opengpu.network/task-uid"] == "6a1b0a2e-2f4c-4a49-8f6b-3c8d7b0d9e11"
    assert len(labels["opengpu.network/task"]) == 63
    assert deployment["spec"]["selector"]["matchLabels"] == {
        "opengpu.network/job": "061i6uku7ie62tg1",
        "app.kubernetes.io/component": "worker",
    }


def test_nothing_is_owned_where_there_is_nothing_to_own_it():
    objects = build(translation(worker()), context(owner_reference=None), settings())
    assert not any("ownerReferences" in obj["metadata"] for obj in objects.objects)


class TestVolumes:
    @pytest.mark.parametrize(
        ("policy", "cache", "name"),
        [
            ({}, False, f"{JOB}-v-data"),
            ({}, True, "s-chat-nvidia-v-data"),
            ({"scope": "Task"}, True, f"{JOB}-v-data"),
            ({"scope": "Source"}, False, "s-chat-nvidia-v-data"),
        ],
    )
    def test_scope(self, policy, cache, name):
        volumes = {"data": Volume(origin="named", label="My Data", model_cache=cache)}
        objects = build(
            translation(worker(mounts=[mount("data")]), volumes=volumes),
            context(spec=CALL, volumes={"My Data": policy} if policy else {}),
            settings(),
        )
        (volume,) = [item for item in pod(objects, "worker")["volumes"] if item["name"] == "vol-data"]
        assert volume["persistentVolumeClaim"]["claimName"] == name
        assert one(objects, "PersistentVolumeClaim", name)["spec"]["accessModes"] == ["ReadWriteOnce"]

    def test_size_and_class(self):
        storage = {"volumes": {"size": "1Gi", "storageClass": "slow"}, "job": {"size": "2Gi"}}
        objects = build(
            translation(worker(mounts=[mount("a"), mount("b", "/b")])),
            context(
                spec={**CALL, "storage": {"jobSize": "3Gi"}},
                volumes={"b": {"size": "9Gi", "storageClass": "fast"}},
            ),
            settings(storage=storage),
        )

        def spec(name):
            found = one(objects, "PersistentVolumeClaim", f"{JOB}-{name}")["spec"]
            return found["resources"]["requests"]["storage"], found.get("storageClassName")

        assert spec("v-a") == ("1Gi", "slow")
        assert spec("v-b") == ("9Gi", "fast")
        assert spec("job") == ("3Gi", None)

    def test_a_users_volume_per_environment_or_shared(self):
        def user(mode):
            made = build(
                translation(worker()),
                context(spec={**CALL, "owner": "me@example.org", "storage": {"userSize": "5Gi"}}),
                settings(storage={"userMode": mode}),
            )
            (claim,) = made.retained
            return claim

        local, shared = user("NodeLocal"), user("Shared")
        assert local["metadata"]["name"] != shared["metadata"]["name"]
        assert local["spec"]["accessModes"] == ["ReadWriteOnce"]
        assert shared["spec"]["accessModes"] == ["ReadWriteMany"]
        assert local["metadata"]["labels"]["opengpu.network/environment"] == "nvidia"
        assert "opengpu.network/environment" not in shared["metadata"]["labels"]
        assert local["metadata"]["annotations"]["opengpu.network/owner-name"] == "me@example.org"
        assert local["spec"]["resources"]["requests"]["storage"] == "5Gi"
        assert not any(key.endswith(("/task", "/task-uid", "/job")) for key in local["metadata"]["labels"])

    def test_mounts_of_the_file(self):
        objects = build(
            translation(
                worker(),
                service(
                    "db", mounts=[mount("data", "/d", read_only=True, sub_path="pg"), mount("data", "/d/")]
                ),
            ),
            context(spec=CALL),
            settings(),
        )
        assert container(objects, "db")["volumeMounts"] == [{"name": "vol-data", "mountPath": "/d/"}]
        assert len(pod(objects, "db")["volumes"]) == 1


class TestSuspend:
    def test_keeps_the_objects_and_runs_nothing(self):
        services = worker(), service("once", restart=Restart.NO, ports=[Port(container=80, published=80)])
        running = build(translation(*services), context(spec=CALL), settings())
        suspended = build(translation(*services), context(spec={**CALL, "suspend": True}), settings())
        assert names(running.everything) == names(suspended.everything)
        assert one(suspended, "Deployment")["spec"]["replicas"] == 0
        assert one(suspended, "Job")["spec"]["suspend"] is True
        assert one(running, "Job")["spec"]["suspend"] is False
        changed = [
            one["kind"]
            for one, other in zip(running.everything, suspended.everything, strict=True)
            if one != other
        ]
        assert changed == ["Deployment", "Job"]


class TestJobs:
    def test_form(self):
        objects = build(
            translation(service("train", gpu=NVIDIA, restart=Restart.ON_FAILURE, max_retries=2)),
            context(),
            settings(),
        )
        spec = one(objects, "Job")["spec"]
        assert {key: value for key, value in spec.items() if key != "template"} == {
            "backoffLimit": 2,
            "completions": 1,
            "parallelism": 1,
            # An evicted or preempted pod, or one of a lost node, doesn't count as a failure.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    }
                ]
            },
            "suspend": False,
        }
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
        assert spec["template"]["spec"]["initContainers"][0]["restartPolicy"] == "Always"

    def test_replicas(self):
        services = service("main", replicas=3), service("off", replicas=0)
        objects = build(translation(*services), context(), settings())
        three, none = (one(objects, "Job", f"{JOB}-{name}")["spec"] for name in ("main", "off"))
        assert (three["completions"], three["parallelism"]) == (3, 3)
        assert (none["completions"], none["parallelism"]) == (1, 0)


def test_summary():
    objects = build(
        translation(
            worker("Worker.1", dns_name="worker-1", depends_on=[waits("init", Until.COMPLETED)]),
            service("llm", gpu=NVIDIA, replicas=2),
            service("idle", gpu=NVIDIA, replicas=0),
            service("side", joins="llm"),
            service("init"),
        ),
        context(spec=CALL),
        settings(),
    )
    assert objects.main == "Worker.1"
    assert objects.components == {
        "Worker.1": "worker-1",
        "llm": "llm",
        "side": "llm",
        "idle": "idle",
        "init": "init",
    }
    assert objects.gated == {"worker-1": ["opengpu.network/completed.init"]}
    assert objects.gpus == {"nvidia.com/gpu": 3}


class TestRefused:
    def test_everything_wrong_with_a_task_at_once(self):
        with pytest.raises(Invalid) as caught:
            build(
                translation(worker()),
                context(
                    spec={
                        **CALL,
                        "ports": [5555],
                        "services": {"gone": {}},
                        "storage": {"gpuxServices": ["lost"]},
                    }
                ),
                settings(),
            )
        assert caught.value.reason == "SpecRefused:services,storage,ports"
        for part in ("no service 'gone'", "gpuxServices names 'lost'", "5555 is the worker's port"):
            assert part in caught.value.message

    def test_a_translation_with_errors(self):
        error = Finding(severity=Severity.ERROR, reason="Privileged", message="privileged is refused")
        refused = Translation(digest=DIGEST, services=[service("a")], findings=[error])
        with pytest.raises(Invalid, match="privileged is refused") as caught:
            build(refused, context(), settings())
        assert caught.value.reason == "ComposeRefused"

    @pytest.mark.parametrize(
        ("services", "message"),
        [
            ((), "the file has no services"),
            ((service("a"), service("b", dns_name="a")), "two services go by 'a'"),
            ((service("a", dns_name="-a"),), "'-a' can't be a service's name"),
            ((service("a", dns_name="a" * 64),), "can't be a service's name"),
            ((service("a", dns_name="gpux-agent"),), "can't be a service's name"),
        ],
    )
    def test_services_without_names_of_their_own(self, services, message):
        with pytest.raises(Invalid, match=message):
            build(translation(*services), context(), settings())

    def test_a_mount_of_nothing(self):
        file = translation(service("a", mounts=[mount("gone")])).model_copy(update={"volumes": {}})
        with pytest.raises(Invalid, match="names 'gone', which isn't there"):
            build(file, context(), settings())

    def test_names_made_to_meet(self):
        long = "a" * 60
        cut = build(translation(service(long)), context(), settings())
        taken = one(cut, "Job")["metadata"]["name"].removeprefix(f"{JOB}-")
        with pytest.raises(Invalid, match="two services would both make the Job"):
            build(translation(service(long), service(taken)), context(), settings())


def test_a_tasks_wishes_for_one_service_complete_those_for_the_worker():
    objects = build(
        translation(worker()),
        context(
            spec={
                **CALL,
                "resources": {"cpu": "2", "memory": "1Gi", "gpu": {"count": 2}},
                "services": {"worker": {"resources": {"memory": "8Gi"}}},
            }
        ),
        settings(),
    )
    limits = container(objects, "worker")["resources"]["limits"]
    assert (limits["cpu"], limits["memory"], limits["nvidia.com/gpu"]) == ("2", "8Gi", "2")
