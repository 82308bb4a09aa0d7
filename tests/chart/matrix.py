"""Values that the chart must render: each turns on what another leaves off."""

from typing import Any

MATRIX: dict[str, dict[str, Any]] = {
    "defaults": {},
    "local images": {
        "image": {"repository": "localhost/opengpu-operator", "tag": "dev", "pullPolicy": "Never"},
        "agent": {"image": {"repository": "localhost/opengpu-agent", "tag": "dev"}},
        "settings": {"agent": {"imagePullPolicy": "Never"}, "pods": {"imagePullPolicy": "Never"}},
    },
    "images by digest": {
        "image": {"repository": "mirror.example/opengpu", "tag": "1", "digest": f"sha256:{'a' * 64}"},
        "imagePullSecrets": [{"name": "mirror"}],
    },
    "roles of one's own": {"rbac": {"create": False}},
    "everything off": {
        "serviceAccount": {"create": False, "name": "mine"},
        "rbac": {"create": False, "aggregate": False},
        "crds": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "uninstall": {"clearFinalizers": {"enabled": False}},
        "settings": {"network": {"enabled": False}},
        "store": {"existingKeySecret": "my-key", "persistence": {"existingClaim": "my-claim"}},
        "routes": {"hostGuard": {"enabled": False}},
    },
    "routes of the Gateway API": {
        "routes": {"hostGuard": {"allow": ["system:serviceaccount:cert-manager:cert-manager"]}},
        "settings": {
            "routes": {
                "domain": "gpux.example.org",
                "scheme": "https",
                "kind": "HTTPRoute",
                "gateway": {"name": "public", "namespace": "gateways", "sectionName": "https"},
            }
        },
    },
    "everything on": {
        "fullnameOverride": "og",
        "commonLabels": {"team": "gpus"},
        "serviceAccount": {"annotations": {"a": "b"}},
        "serviceMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
        "operator": {
            "podAnnotations": {"a": "b"},
            "podLabels": {"c": "d"},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "system-cluster-critical",
            "extraEnv": [{"name": "X", "value": "y"}],
        },
        "translator": {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]},
        "store": {
            "persistence": {"size": "1Ti", "storageClass": "fast", "keep": False},
            "nodeSelector": {"disk": "ssd"},
            "podAnnotations": {"a": "b"},
            "external": {"enabled": True, "host": "files.example.org", "ingress": {"className": "nginx"}},
        },
    },
    "a bucket": {
        "store": {
            "backend": "s3",
            "replicas": 3,
            "s3": {
                "endpoint": "https://s3.example.org:9000",
                "bucket": "opengpu",
                "region": "eu-1",
                "prefix": "clusters/berlin",
                "existingSecret": "s3-credentials",
                "caConfigMap": "s3-ca",
            },
        }
    },
    "a bucket at AWS": {
        "store": {
            "backend": "s3",
            "s3": {"bucket": "opengpu", "existingSecret": "s3-credentials", "pathStyle": False},
        }
    },
    "settings of a GPU cluster": {
        "settings": {
            "clusterId": "berlin",
            "gpu": {
                "countAll": 2,
                "nvidia": {
                    "resourceName": "nvidia.com/mig-1g.10gb",
                    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                    "runtimeClassName": "nvidia",
                },
            },
            "routes": {
                "domain": "gpux.example.org",
                "scheme": "https",
                "externalPort": 8443,
                "ingressClassName": "nginx",
                "annotations": {"a": "b"},
                "profile": "nginx",
            },
            "pods": {"profile": "restricted", "cpuLimit": "2", "nameservers": ["10.96.0.10"]},
            "network": {"extraBlockedCidrs": ["203.0.113.0/24"], "ingressNamespace": "traefik"},
            "storage": {"job": {"size": "1Gi", "storageClass": "fast"}, "userMode": "Shared"},
            "tasks": {"defaultExpirySeconds": 60, "maxExpirySeconds": 31536000},
            "sources": {"allowedHosts": ["*.svc.cluster.local"], "allowHttp": True},
            "namespaces": {"watch": ["team-*"], "selector": {"gpus": "yes"}},
            "logs": {"format": "text", "level": "debug"},
            "reconcile": {"workers": 8},
        }
    },
}
