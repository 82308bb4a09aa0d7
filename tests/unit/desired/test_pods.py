"""Pods and containers: what the file says, inside what the cluster's owner allows."""

import pytest

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.translation import FileMount, InlineFile, Mount, Port
from opengpu_operator.desired import env, podrules
from opengpu_operator.desired.job import build
from tests.support.jobs import (
    AMD,
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
    worker,
)

CALL = {"functionName": "chat"}


def made(*services, spec=None, files=None, configured=None, **fields):
    return build(
        translation(worker(), *services, files=files or {}),
        context(spec={**CALL, **(spec or {})}, **fields),
        settings(**(configured or {})),
    )


def variables(objects, component, name=None):
    return {
        item["name"]: item.get("value", item.get("valueFrom"))
        for item in container(objects, component, name)["env"]
    }


def reasons(objects):
    return [finding.reason for finding in objects.findings]


class TestNames:
    def test_siblings_find_each_other_before_anything_else(self):
        spec = pod(made(service("my-db")), "my-db")
        assert (spec["hostname"], spec["subdomain"]) == ("my-db", JOB)
        assert spec["dnsPolicy"] == "None"
        assert spec["dnsConfig"]["searches"][0] == f"{JOB}.tenant.svc.cluster.local"
        assert spec["dnsConfig"]["nameservers"] == ["10.96.0.10"]
        headless = one(made(), "Service", JOB)["spec"]
        assert headless["clusterIP"] == "None"
        assert headless["publishNotReadyAddresses"] is True
        assert "ports" not in headless

    def test_the_settings_resolvers_win_and_at_most_three_count(self):
        pods = {
            "nameservers": ["fd00::1", "10.0.0.1", "10.0.0.2", "10.0.0.3"],
            "clusterDomain": "k8s.example",
        }
        config = pod(made(configured={"pods": pods}), "worker")["dnsConfig"]
        assert config["nameservers"] == ["fd00::1", "10.0.0.1", "10.0.0.2"]
        assert config["searches"][-1] == "k8s.example"

    @pytest.mark.parametrize("resolvers", [[], ["dns.example"]])
    def test_resolvers_that_are_none(self, resolvers):
        with pytest.raises(ValueError, match=r"resolvers are unknown|does not appear to be an IP"):
            made(resolvers=resolvers)

    def test_an_extra_host_cannot_take_the_stores_name(self):
        store = "opengpu-store.opengpu-system.svc.cluster.local"
        alias = {"ip": "203.0.113.1", "hostnames": ["mirror", store.upper() + "."]}
        objects = made(service("db", pod={"hostAliases": [alias]}))
        assert pod(objects, "db")["hostAliases"] == [{"ip": "203.0.113.1", "hostnames": ["mirror"]}]
        assert reasons(objects) == ["HostAliasDropped"]


class TestRestraints:
    def test_every_pod(self):
        for component in ("worker", "db"):
            spec = pod(made(service("db")), component)
            assert spec["automountServiceAccountToken"] is False
            assert spec["enableServiceLinks"] is False
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for item in [*spec["containers"], *spec.get("initContainers", [])]:
                assert item["securityContext"]["allowPrivilegeEscalation"] is False

    def test_restricted(self):
        db = service(
            "db", container={"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE", "CHOWN"]}}}
        )
        objects = made(db, configured={"pods": {"profile": "restricted"}})
        assert container(objects, "db")["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            "runAsNonRoot": True,
        }
        assert reasons(objects) == ["CapabilityDropped"]
        assert pod(objects, "db")["securityContext"] == {
            "seccompProfile": {"type": "RuntimeDefault"},
            "runAsNonRoot": True,
        }
        assert pod(objects, "worker")["securityContext"]["fsGroup"] == 65532

    @pytest.mark.parametrize(
        ("user", "mounts", "group"),
        [(1000, ["data"], 65532), (1000, [], None), (0, ["data"], None), (None, ["data"], None)],
    )
    def test_a_user_who_isnt_root_may_write_to_volumes(self, user, mounts, group):
        security = {} if user is None else {"runAsUser": user}
        objects = made(
            service("db", container={"securityContext": security}, mounts=[mount(name) for name in mounts])
        )
        found = pod(objects, "db")["securityContext"]
        assert found.get("fsGroup") == group
        assert found.get("fsGroupChangePolicy") == (None if group is None else "OnRootMismatch")

    def test_pods_with_amds_gpus_may_open_the_devices_and_others_may_not(self):
        file = {"pod": {"securityContext": {"supplementalGroups": [7, 44]}}}
        objects = made(service("amd", gpu=AMD, **file), service("cpu"), service("nvidia", gpu=NVIDIA))
        groups = {
            name: pod(objects, name)["securityContext"].get("supplementalGroups")
            for name in ("amd", "cpu", "nvidia")
        }
        assert groups == {"amd": [7, 44, 109], "cpu": None, "nvidia": None}

    def test_the_clusters_own_wishes(self):
        pods = {"runtimeClassName": "gvisor", "priorityClassName": "jobs", "imagePullPolicy": "Never"}
        objects = made(configured={"pods": pods}, image_pull_secrets=["registry"])
        spec = pod(objects, "worker")
        assert spec["runtimeClassName"] == "gvisor"
        assert spec["priorityClassName"] == "jobs"
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert container(objects, "worker")["imagePullPolicy"] == "Never"

    @pytest.mark.parametrize(
        ("asked", "given", "found"), [(None, 10, []), (120, 120, []), (9999, 300, ["GracePeriodCapped"])]
    )
    def test_time_to_stop(self, asked, given, found):
        objects = made(service("db", pod={} if asked is None else {"terminationGracePeriodSeconds": asked}))
        assert pod(objects, "db")["terminationGracePeriodSeconds"] == given
        assert reasons(objects) == found

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"pod": {"hostNetwork": True}}, "a pod may not have hostNetwork"),
            ({"pod": {"serviceAccountName": "admin"}}, "a pod may not have serviceAccountName"),
            ({"pod": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}, "may not be hostPath"),
            (
                {"pod": {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}},
                "sysctl kernel.msgmax",
            ),
            ({"pod": {"securityContext": {"seLinuxOptions": {"type": "x"}}}}, "may not have seLinuxOptions"),
            ({"container": {"envFrom": [{"secretRef": {"name": "s"}}]}}, "a container may not have envFrom"),
            ({"container": {"livenessProbe": {}}}, "a container may not have livenessProbe"),
            ({"container": {"securityContext": {"privileged": True}}}, "may not have privileged"),
            (
                {"container": {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}},
                "SYS_ADMIN is not allowed",
            ),
            ({"container": {"env": [{"name": "A", "valueFrom": {}}]}}, "only values can be given"),
            (
                {"container": {"readinessProbe": {"httpGet": {"host": "10.0.0.1", "port": 1}}}},
                "may not name a host",
            ),
            (
                {"container": {"volumeMounts": [{"name": "gpux-token", "mountPath": "/t"}]}},
                "/t is mounted from nowhere",
            ),
        ],
    )
    def test_what_a_translation_may_not_bring_is_refused(self, fields, message):
        with pytest.raises(Invalid, match=message) as caught:
            made(service("db", **fields))
        assert caught.value.reason == "ComposeRefused"

    def test_a_port_that_two_containers_of_a_pod_declare_is_declared_once(self):
        vpn = service("vpn", ports=[Port(container=80), Port(container=53, protocol="UDP")])
        app = service("app", joins="vpn", ports=[Port(container=80), Port(container=53), Port(container=81)])
        objects = made(vpn, app, service("last", joins="vpn", ports=[Port(container=81)]))
        assert [item.get("ports") for item in pod(objects, "vpn")["containers"]] == [
            [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}],
            [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 81, "protocol": "TCP"}],
            None,
        ]

    def test_host_ports_are_left_out(self):
        db = service(
            "db", container={"ports": [{"containerPort": 5432, "hostPort": 5432, "hostIP": "0.0.0.0"}]}
        )
        assert container(made(db), "db")["ports"] == [{"containerPort": 5432, "protocol": "TCP"}]

    def test_root_in_restricted_is_refused(self):
        root = service("db", container={"securityContext": {"runAsUser": 0}})
        with pytest.raises(Invalid, match="must run as another user than root"):
            made(root, configured={"pods": {"profile": "restricted"}})


STRIPPED = (
    *("NVIDIA_VISIBLE_DEVICES", "AMD_VISIBLE_DEVICES", "NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_IMEX_CHANNELS"),
    *("LD_PRELOAD", "LD_AUDIT", "LD_DEBUG_OUTPUT", "GLIBC_TUNABLES", "GCONV_PATH"),
)
KEPT = {
    "CUDA_VISIBLE_DEVICES": "0",
    "LD_LIBRARY_PATH": "/opt/lib:/usr/lib",
    "NVIDIA_TF32_OVERRIDE": "0",
}


class TestEnvironment:
    @pytest.mark.parametrize(
        ("variable", "kept"),
        [
            ({"value": "/opt/lib"}, True),
            ({"value": "/opt/lib:lib"}, False),
            ({"value": ""}, True),
            ({"value": "."}, False),
            ({"value": "/opt/lib:"}, False),
            ({"value": "/opt/lib;lib"}, False),
            ({"value": "/opt/lib:$ORIGIN"}, False),
            ({"value": "/opt/../proc/self/cwd/lib"}, False),
            ({"value": "//proc/self/cwd"}, False),
            ({"value": "/dev/fd/3"}, False),
            ({"value": "/process:/devel"}, True),
            ({"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}, False),
        ],
    )
    def test_libraries_come_from_the_image(self, variable, kept):
        objects = made(spec={"env": [{"name": "LD_LIBRARY_PATH", **variable}]})
        assert ("LD_LIBRARY_PATH" in variables(objects, "worker")) is kept
        assert (reasons(objects) == ["EnvStripped"]) is not kept

    def test_a_tasks_values_are_taken_as_they_are(self):
        objects = made(spec={"env": [{"name": "PASSWORD", "value": "pa$$w$(HOME)rd$"}]})
        assert variables(objects, "worker")["PASSWORD"] == "pa$$$$w$$(HOME)rd$$", "as Kubernetes escapes it"

    def test_a_container_without_nvidia_gpus_sees_none(self):
        objects = made(service("db"), service("amd", gpu=AMD))
        assert variables(objects, "db")["NVIDIA_VISIBLE_DEVICES"] == "void"
        assert variables(objects, "amd")["NVIDIA_VISIBLE_DEVICES"] == "void"
        agent = pod(objects, "worker")["initContainers"][0]
        assert env.NO_GPU in agent["env"]

    def test_a_container_with_them_has_the_drivers_and_no_say_in_which(self):
        own = [{"name": name, "value": "all"} for name in STRIPPED]
        own += [{"name": name, "value": value} for name, value in KEPT.items()]
        found = variables(made(service("llm", gpu=NVIDIA, container={"env": own})), "llm")
        assert found == {
            **KEPT,
            "NVIDIA_DRIVER_CAPABILITIES": "utility,compute,graphics,video",
        }

    def test_a_file_may_choose_the_drivers_capabilities(self):
        own = [{"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "all"}]
        assert variables(made(service("llm", gpu=NVIDIA, container={"env": own})), "llm") == {
            "NVIDIA_DRIVER_CAPABILITIES": "all"
        }

    def test_gpux_counts_processors(self):
        objects = made(service("db"))
        assert variables(objects, "worker")["NPROC"] == {
            "resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}
        }
        assert "NPROC" not in variables(objects, "db")

    def test_the_tasks_variables_go_to_the_worker_and_replace_the_files(self):
        own = [{"name": "A", "value": "file"}, {"name": "B", "value": "file"}]
        secret = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}
        objects = build(
            translation(worker(container={"env": own}), service("db")),
            context(
                spec={
                    **CALL,
                    "env": [{"name": "A", "value": "task"}, secret, {"name": "LD_PRELOAD", "value": "/x.so"}],
                    "services": {
                        "db": {"env": [{"name": "A", "value": "db"}]},
                        "worker": {"env": [{"name": "C", "value": ""}]},
                    },
                }
            ),
            settings(),
        )
        names = [item["name"] for item in container(objects, "worker")["env"]]
        assert names[:4] == ["A", "B", "TOKEN", "C"]
        found = variables(objects, "worker")
        assert found["A"] == "task"
        assert found["B"] == "file"
        assert found["TOKEN"] == {"secretKeyRef": {"name": "hf", "key": "token"}}
        assert "LD_PRELOAD" not in found
        assert variables(objects, "db")["A"] == "db"
        assert [(item.reason, item.path) for item in objects.findings] == [
            ("EnvStripped", "services.worker.environment.LD_PRELOAD")
        ]


class TestJoined:
    def test_containers_keep_their_own_scratch(self):
        def scratch(name, size):
            shm = {"name": "shm", "mountPath": "/dev/shm"}
            volume = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}
            return {"container": {"volumeMounts": [shm]}, "pod": {"volumes": [volume]}}

        objects = made(
            service("web", **scratch("web", "1Gi")), service("tts", joins="web", **scratch("tts", "2Gi"))
        )
        sizes = {item["name"]: item["emptyDir"]["sizeLimit"] for item in pod(objects, "web")["volumes"]}
        for name, size in (("web", "1Gi"), ("tts", "2Gi")):
            (shm,) = container(objects, "web", name)["volumeMounts"]
            assert sizes[shm["name"]] == size

    def test_pod_settings_are_joined(self):
        objects = made(
            service(
                "web",
                pod={
                    "securityContext": {"fsGroup": 1, "supplementalGroups": [44]},
                    "hostAliases": [{"ip": "203.0.113.1", "hostnames": ["a"]}],
                },
            ),
            service(
                "side",
                joins="web",
                pod={
                    "securityContext": {"fsGroup": 2, "supplementalGroups": [44, 109]},
                    "hostAliases": [{"ip": "203.0.113.2", "hostnames": ["b"]}],
                    "terminationGracePeriodSeconds": 60,
                },
            ),
        )
        spec = pod(objects, "web")
        assert spec["securityContext"]["fsGroup"] == 1
        assert spec["securityContext"]["supplementalGroups"] == [44, 109]
        assert [alias["ip"] for alias in spec["hostAliases"]] == ["203.0.113.1", "203.0.113.2"]
        assert spec["terminationGracePeriodSeconds"] == 60


FILES = {
    "nginx": InlineFile(content="server {}"),
    "password": InlineFile(content="hunter2", secret=True),
    "unused": InlineFile(content=""),
}


class TestFiles:
    def test_are_mounted_one_by_one_with_their_modes(self):
        web = service(
            "web",
            files=[
                FileMount(file="nginx", path="/etc/nginx.conf"),
                FileMount(file="nginx", path="/etc/other.conf", mode=0o400),
                FileMount(file="password", path="/run/secrets/password"),
            ],
        )
        objects = made(web, files=FILES)
        assert one(objects, "ConfigMap", f"{JOB}-files")["data"] == {"nginx": "server {}"}
        assert one(objects, "Secret", f"{JOB}-secrets")["stringData"] == {"password": "hunter2"}
        assert pod(objects, "web")["volumes"] == [
            {
                "name": "files",
                "configMap": {
                    "name": f"{JOB}-files",
                    "items": [
                        {"key": "nginx", "path": "nginx", "mode": 0o444},
                        {"key": "nginx", "path": "nginx.400", "mode": 0o400},
                    ],
                },
            },
            {
                "name": "secrets",
                "secret": {
                    "secretName": f"{JOB}-secrets",
                    "items": [{"key": "password", "path": "password", "mode": 0o444}],
                },
            },
        ]
        assert [
            (item["mountPath"], item["subPath"]) for item in container(objects, "web")["volumeMounts"]
        ] == [
            ("/etc/nginx.conf", "nginx"),
            ("/etc/other.conf", "nginx.400"),
            ("/run/secrets/password", "password"),
        ]
        assert "volumes" not in pod(made(service("db"), files=FILES), "db")

    def test_one_that_is_not_there_is_refused(self):
        with pytest.raises(Invalid, match="names the file 'gone'"):
            made(service("web", files=[FileMount(file="gone", path="/x")]))


class TestAgent:
    def test_is_beside_the_worker_alone(self):
        objects = made(service("db"))
        (agent,) = pod(objects, "worker")["initContainers"]
        assert (agent["name"], agent["restartPolicy"]) == ("gpux-agent", "Always")
        assert "initContainers" not in pod(objects, "db")

    def test_alone_has_the_token(self):
        objects = made()
        spec = pod(objects, "worker")
        holders = [
            item["name"]
            for item in [*spec["containers"], *spec["initContainers"]]
            if any(mounted["name"] == "gpux-token" for mounted in item["volumeMounts"])
        ]
        assert holders == ["gpux-agent"]
        assert one(objects, "Secret", f"{JOB}-agent")["stringData"] == {"token": "v1.claims.signature"}

    def test_without_a_token_pods_wait_for_none(self):
        objects = made(token=None)
        assert not [obj for obj in objects.objects if obj["kind"] == "Secret"]
        (token,) = [item for item in pod(objects, "worker")["volumes"] if item["name"] == "gpux-token"]
        assert token["secret"]["optional"] is True

    def test_calls_only_the_worker(self):
        objects = made(service("db"), spec={"storage": {"gpuxServices": ["db"]}})

        def calls(component):
            (agent,) = pod(objects, component)["initContainers"]
            return next(item["value"] for item in agent["env"] if item["name"] == "GPUX_CALLS")

        assert (calls("worker"), calls("db")) == ("1", "0")

    @pytest.mark.parametrize(
        ("url", "seen"),
        [
            ("http://opengpu-store:8080", "http://opengpu-store.opengpu-system.svc.cluster.local:8080"),
            ("https://store.example/gpux", "https://store.example/gpux"),
            ("http://[fd00::1]:8080", "http://[fd00::1]:8080"),
        ],
    )
    def test_reaches_the_store_from_any_namespace(self, url, seen):
        (agent,) = pod(made(configured={"store": {"url": url}}), "worker")["initContainers"]
        assert agent["env"][0] == {"name": "GPUX_STORE_URL", "value": seen}

    def test_a_mount_of_the_files_own_gives_way(self):
        tool = service(
            "tool", mounts=[Mount(volume="mine", path="/gpux_job/"), mount("rest", "/gpux_job/cache")]
        )
        objects = made(tool)
        mounts = {item["mountPath"]: item["name"] for item in container(objects, "tool")["volumeMounts"]}
        assert mounts == {
            "/gpux_job/cache": "vol-rest",
            "/gpux_api": "gpux-run",
            "/gpux_job": "gpux-job",
        }
        assert reasons(objects) == ["VolumeReplaced"]
        names = [obj["metadata"]["name"] for obj in objects.objects if obj["kind"] == "PersistentVolumeClaim"]
        assert names == [f"{JOB}-job", f"{JOB}-v-rest"]


def test_the_rules_catch_what_a_pod_must_not_have():
    good = pod(made(), "worker")
    assert podrules.violations(good, profile="baseline") == []
    bad = {
        **good,
        "hostPID": True,
        "automountServiceAccountToken": True,
        "securityContext": {},
        "containers": [
            {
                "name": "x",
                "securityContext": {"privileged": True, "procMount": "Unmasked"},
                "ports": [{"containerPort": 1, "hostPort": 1}],
                "lifecycle": {"preStop": {"tcpSocket": {"host": "x"}}},
            }
        ],
    }
    assert podrules.violations(bad, profile="baseline") == [
        "pods may not have hostPID",
        "pods must have the runtime's seccomp profile",
        "pods may not have a service account's token",
        "x: containers may not be privileged",
        "x: containers may not gain privileges",
        "x: containers may not have a seccomp profile or a view of /proc of their own",
        "x: containers may not have a port of the host",
        "x: probes and hooks may not name a host",
    ]
    assert "pods must run as another user than root" in podrules.violations(good, profile="restricted")
