"""What every manifest of ours keeps, whatever file and task it was made of.

Kubernetes' own models say which fields there are, of which type; what the API server checks besides (names, numbers,
what refers to what, what may be there once) is checked here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from kubernetes import client

from opengpu_operator.desired import quantities

Object = dict[str, Any]

MODELS: dict[tuple[str, str], Any] = {
    ("v1", "ConfigMap"): client.V1ConfigMap,
    ("v1", "PersistentVolumeClaim"): client.V1PersistentVolumeClaim,
    ("v1", "Secret"): client.V1Secret,
    ("v1", "Service"): client.V1Service,
    ("apps/v1", "Deployment"): client.V1Deployment,
    ("batch/v1", "Job"): client.V1Job,
    ("networking.k8s.io/v1", "Ingress"): client.V1Ingress,
    ("networking.k8s.io/v1", "NetworkPolicy"): client.V1NetworkPolicy,
}
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_GATE = re.compile(r"opengpu\.network/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_KEY = re.compile(r"(app\.kubernetes\.io|(network\.)?opengpu\.network)/[a-z0-9-]{1,63}")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_FILE = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_INT32 = 2**31 - 1
_FILES_SIZE = 2**20


def check(objects: list[Object], *, restricted: bool = False) -> None:
    """Assert all of it."""
    for obj in objects:
        MODELS[obj["apiVersion"], obj["kind"]].model_validate(obj)
    check_names(objects)
    check_references(objects)
    check_values(objects)
    check_security(objects, restricted=restricted)


def workloads(objects: Iterable[Object]) -> list[Object]:
    """Return what makes pods."""
    return [obj for obj in objects if obj["kind"] in {"Deployment", "Job"}]


def templates(objects: Iterable[Object]) -> list[Object]:
    """Return the pod templates."""
    return [obj["spec"]["template"] for obj in workloads(objects)]


def containers(pod: Object) -> list[Object]:
    """Return all containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def check_names(objects: list[Object]) -> None:
    """Assert that names are what Kubernetes and DNS allow, and that no two are alike."""
    keys = [(obj["kind"], obj["metadata"]["name"]) for obj in objects]
    assert len(set(keys)) == len(keys)
    for obj in objects:
        assert _NAME.fullmatch(obj["metadata"]["name"])
    for metadata in [
        *(obj["metadata"] for obj in objects),
        *(item["metadata"] for item in templates(objects)),
    ]:
        for key, value in metadata["labels"].items():
            assert _LABEL_KEY.fullmatch(key)
            assert _LABEL_VALUE.fullmatch(value)
        assert all(key.startswith("opengpu.network/") for key in metadata.get("annotations", {}))
    for template in templates(objects):
        pod = template["spec"]
        assert _LABEL.fullmatch(pod["hostname"])
        for group in (pod.get("volumes", []), containers(pod)):
            names = [item["name"] for item in group]
            assert len(set(names)) == len(names)
            assert all(_LABEL.fullmatch(name) for name in names)
        gates = [gate["name"] for gate in pod.get("schedulingGates", [])]
        assert all(_GATE.fullmatch(gate) for gate in gates)
        assert len(set(gates)) == len(gates)


def check_references(objects: list[Object]) -> None:
    """Assert that what refers to something finds it, and that no volume is made for nothing."""
    have = {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects}
    pods = templates(objects)
    used = set()
    for template in pods:
        pod = template["spec"]
        assert ("Service", pod["subdomain"]) in have
        mounted = {mount["name"] for item in containers(pod) for mount in item.get("volumeMounts", [])}
        assert mounted <= {volume["name"] for volume in pod.get("volumes", [])}
        for volume in pod.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in have
                used.add(claim)
            for kind, source, field in (
                ("ConfigMap", "configMap", "name"),
                ("Secret", "secret", "secretName"),
            ):
                if source in volume:
                    held = have[kind, volume[source][field]]
                    keys = {**held.get("data", {}), **held.get("stringData", {})}
                    assert {item["key"] for item in volume[source].get("items", [])} <= set(keys)
    claims = {name for kind, name in have if kind == "PersistentVolumeClaim"}
    assert claims == used, "a volume that nobody mounts"
    for obj in objects:
        if obj["kind"] in {"Deployment", "Job"}:
            wanted = obj["spec"].get("selector", {}).get("matchLabels", {})
            assert wanted.items() <= obj["spec"]["template"]["metadata"]["labels"].items()
        elif obj["kind"] == "Service":
            selector = obj["spec"]["selector"].items()
            assert any(selector <= template["metadata"]["labels"].items() for template in pods)
        elif obj["kind"] == "Ingress":
            hosts = [rule["host"] for rule in obj["spec"]["rules"]]
            assert len(set(hosts)) == len(hosts)
            for rule in obj["spec"]["rules"]:
                (path,) = rule["http"]["paths"]
                backend = path["backend"]["service"]
                ports = have["Service", backend["name"]]["spec"]["ports"]
                assert backend["port"]["number"] in [port["port"] for port in ports]


def check_values(objects: list[Object]) -> None:
    """Assert what the API server says of values, beyond their types."""
    for obj in objects:
        spec = obj.get("spec", {})
        if obj["kind"] in {"ConfigMap", "Secret"}:
            files = obj.get("data") or obj["stringData"]
            assert all(_FILE.fullmatch(key) for key in files)
            assert sum(len(content.encode()) for content in files.values()) <= _FILES_SIZE
        elif obj["kind"] == "Deployment":
            assert 0 <= spec["replicas"] <= _INT32
        elif obj["kind"] == "Job":
            assert 0 <= spec["backoffLimit"] <= _INT32
    for template in templates(objects):
        pod = template["spec"]
        assert 0 <= pod["terminationGracePeriodSeconds"] <= _INT32
        for alias in pod.get("hostAliases", []):
            address = ipaddress.ip_address(alias["ip"])
            assert str(address) == alias["ip"].lower()
            assert "%" not in alias["ip"]
            for name in alias["hostnames"]:
                assert len(name) <= 253
                assert all(_LABEL.fullmatch(part) for part in name.split("."))
        groups = pod["securityContext"].get("supplementalGroups", [])
        assert all(0 <= group <= _INT32 for group in groups)
        for volume in pod.get("volumes", []):
            if size := volume.get("emptyDir", {}).get("sizeLimit"):
                assert quantities.parse(size) > 0
        for item in containers(pod):
            _check_container(item)


def _check_container(item: Object) -> None:
    assert item["image"]
    assert item["image"].strip() == item["image"]
    variables = [entry["name"] for entry in item.get("env", [])]
    assert len(set(variables)) == len(variables)
    assert all(re.fullmatch(r"[\x20-\x3c\x3e-\x7e]+", name) for name in variables)
    ports = [(port["containerPort"], port["protocol"]) for port in item.get("ports", [])]
    assert len(set(ports)) == len(ports)
    assert all(1 <= number <= 65535 for number, _ in ports)
    mounts = item.get("volumeMounts", [])
    paths = [mount["mountPath"].rstrip("/") for mount in mounts]
    assert len(set(paths)) == len(paths)
    for mount in mounts:
        assert mount["mountPath"].startswith("/")
        assert ":" not in mount["mountPath"]
        sub_path = mount.get("subPath", "")
        assert not sub_path.startswith("/")
        assert ".." not in sub_path.split("/")
    resources = item["resources"]
    for name, amount in resources.get("requests", {}).items():
        limit = resources.get("limits", {}).get(name)
        assert quantities.parse(amount) >= 0
        assert limit is None or quantities.parse(amount) <= quantities.parse(limit)
    for probe in ("readinessProbe", "startupProbe", "livenessProbe"):
        for key in ("periodSeconds", "timeoutSeconds", "failureThreshold"):
            assert 1 <= item.get(probe, {}).get(key, 1) <= _INT32
    for key in ("runAsUser", "runAsGroup"):
        assert 0 <= item["securityContext"].get(key, 0) <= _INT32
    texts = [
        *item.get("command", []),
        *item.get("args", []),
        *(entry.get("value", "") for entry in item["env"]),
    ]
    assert not any("\0" in text for text in [*texts, *paths, item.get("workingDir", "")])


def check_security(objects: list[Object], *, restricted: bool) -> None:
    """Assert the fields of Kubernetes' Pod Security Standards, as its documentation lists them, and more."""
    for template in templates(objects):
        pod = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName", "nodeName"} & set(pod)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in pod.get("volumes", []):
            (kind,) = set(volume) - {"name"}
            assert kind in {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
        for item in containers(pod):
            context = item["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert not context.get("privileged")
            assert not any({"hostPort", "hostIP"} & set(port) for port in item.get("ports", []))
            assert not {"envFrom", "lifecycle", "livenessProbe", "volumeDevices"} & set(item)
            added = set(context.get("capabilities", {}).get("add", []))
            if restricted:
                assert context["runAsNonRoot"] is True
                assert context["capabilities"]["drop"] == ["ALL"]
                assert added <= {"NET_BIND_SERVICE"}
            values = {entry["name"]: entry.get("value") for entry in item["env"]}
            has_gpu = "nvidia.com/gpu" in item["resources"]["limits"]
            assert values.get("NVIDIA_VISIBLE_DEVICES") == (None if has_gpu else "void")
            assert "LD_PRELOAD" not in values
            holds_token = any(mount["name"] == "gpux-token" for mount in item.get("volumeMounts", []))
            assert holds_token == (item["name"] == "gpux-agent")
    for obj in objects:
        if obj["kind"] == "Service":
            assert obj["spec"]["clusterIP"] == "None"
            assert not {"type", "externalIPs", "externalName", "loadBalancerIP"} & set(obj["spec"])
