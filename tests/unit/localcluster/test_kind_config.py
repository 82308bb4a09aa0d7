"""kind-config.yaml cannot be tried where there is no container engine, so its form is checked here.

The schema is written after kind's documentation of ``kind.x-k8s.io/v1alpha4``; kind itself decodes strictly, hence
no additional properties anywhere.
"""

import jsonschema
import yaml

from localcluster.nodeconfig import labels
from localcluster.paths import DEFAULT_NAME
from localcluster.providers import KIND_CONFIG
from localcluster.topology import INGRESS_PORT, NODE_PORT, TLS_NODE_PORT, Topology, tls_port

_PORT = {"type": "integer", "minimum": 0, "maximum": 65535}
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_PATCHES = {"type": "array", "items": {"type": "string"}}
_JSON_PATCHES = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "properties": {key: {"type": "string"} for key in ("group", "version", "kind", "patch")},
    },
}
_MOUNT = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "containerPath": {"type": "string"},
        "hostPath": {"type": "string"},
        "readOnly": {"type": "boolean"},
        "selinuxRelabel": {"type": "boolean"},
        "propagation": {"enum": ["None", "HostToContainer", "Bidirectional"]},
    },
}
_PORT_MAPPING = {
    "type": "object",
    "additionalProperties": False,
    "required": ["containerPort"],
    "properties": {
        "containerPort": _PORT,
        "hostPort": _PORT,
        "listenAddress": {"type": "string", "format": "ipv4"},
        "protocol": {"enum": ["TCP", "UDP", "SCTP"]},
    },
}
_NODE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "role": {"enum": ["control-plane", "worker"]},
        "image": {"type": "string"},
        "labels": _STRINGS,
        "extraMounts": {"type": "array", "items": _MOUNT},
        "extraPortMappings": {"type": "array", "items": _PORT_MAPPING},
        "kubeadmConfigPatches": _PATCHES,
        "kubeadmConfigPatchesJSON6902": _JSON_PATCHES,
    },
}
_NETWORKING = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "ipFamily": {"enum": ["ipv4", "ipv6", "dual"]},
        "apiServerPort": {"type": "integer", "minimum": -1, "maximum": 65535},
        "apiServerAddress": {"type": "string"},
        "podSubnet": {"type": "string"},
        "serviceSubnet": {"type": "string"},
        "disableDefaultCNI": {"type": "boolean"},
        "kubeProxyMode": {"enum": ["iptables", "ipvs", "nftables", "none"]},
        "dnsSearch": {"type": "array", "items": {"type": "string"}},
    },
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["kind", "apiVersion"],
    "properties": {
        "kind": {"const": "Cluster"},
        "apiVersion": {"const": "kind.x-k8s.io/v1alpha4"},
        "name": {"type": "string", "pattern": "^[a-z0-9.-]+$"},
        "nodes": {"type": "array", "items": _NODE},
        "networking": _NETWORKING,
        "featureGates": {"type": "object", "additionalProperties": {"type": "boolean"}},
        "runtimeConfig": _STRINGS,
        "kubeadmConfigPatches": _PATCHES,
        "kubeadmConfigPatchesJSON6902": _JSON_PATCHES,
        "containerdConfigPatches": _PATCHES,
        "containerdConfigPatchesJSON6902": _PATCHES,
    },
}

CONFIG = yaml.safe_load(KIND_CONFIG.read_text())


def test_kind_would_accept_it() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(CONFIG)


def test_it_has_the_local_clusters_name_and_nodes() -> None:
    local = Topology(DEFAULT_NAME, 2, 0, etcd_port=1, etcd_peer_port=2, api_port=3)
    workers = [node for node in CONFIG["nodes"] if node["role"] == "worker"]
    assert CONFIG["name"] == DEFAULT_NAME
    assert [worker["labels"] for worker in workers] == [labels(node) for node in local.nodes]


def test_the_ingress_is_reached_at_the_same_place_and_from_this_machine_only() -> None:
    mappings = [mapping for node in CONFIG["nodes"] for mapping in node.get("extraPortMappings", [])]
    assert mappings == [
        {"containerPort": node_port, "hostPort": port, "listenAddress": "127.0.0.1", "protocol": "TCP"}
        for node_port, port in ((NODE_PORT, INGRESS_PORT), (TLS_NODE_PORT, tls_port(INGRESS_PORT)))
    ]
