"""The few reads of the Kubernetes API that waiting and health checks need."""

import http.client
import json
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from localcluster.pki import Authority


class Api:
    """A reader with the administrator's certificate; several times quicker than starting kubectl."""

    def __init__(self, authority: Authority, server: str) -> None:
        address = urlsplit(server)
        self._host, self._port = str(address.hostname), int(address.port or 443)
        self._tls = ssl.create_default_context(cafile=str(authority.bundle))
        self._tls.load_cert_chain(authority.certificate("admin"), authority.key("admin"))

    def get(self, path: str) -> Any | None:
        """Return what the server answers with success: JSON decoded, other text as it is."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=10, context=self._tls)
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        if response.status != 200:
            return None
        if (response.headers.get("Content-Type") or "").startswith("application/json"):
            return json.loads(body)
        return body.decode()

    def ready(self) -> bool:
        return self.get("/readyz") is not None

    def has_default_account(self) -> bool:
        """Tell whether the controllers run: pods are refused until they have made this object."""
        return self.get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def ready_nodes(self) -> set[str]:
        """Return the names of the nodes whose Ready condition is true."""
        nodes = (self.get("/api/v1/nodes") or {}).get("items", [])
        return {
            node["metadata"]["name"]
            for node in nodes
            for condition in node["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        }

    def last_heartbeat(self, node: str) -> str:
        """Return when a node's kubelet last renewed its lease: UTC, in a form that sorts by time."""
        lease = self.get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}")
        return str(lease["spec"]["renewTime"]) if lease else ""

    def allocatable(self, resource: str) -> int:
        """Return how much of a countable resource all nodes together offer."""
        nodes = (self.get("/api/v1/nodes") or {}).get("items", [])
        return sum(int(node["status"].get("allocatable", {}).get(resource, 0)) for node in nodes)

    def unready(self, workloads: Sequence[str]) -> list[str]:
        """Return those of the workloads (``namespace/deployments/name``) that lack ready pods."""
        return [workload for workload in workloads if not self._has_ready_pods(*workload.split("/"))]

    def _has_ready_pods(self, namespace: str, kind: str, name: str) -> bool:
        workload = self.get(f"/apis/apps/v1/namespaces/{namespace}/{kind}/{name}")
        if workload is None:
            return False
        status = workload.get("status", {})
        if status.get("observedGeneration", 0) < workload["metadata"]["generation"]:
            return False
        if kind == "daemonsets":
            desired, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        else:
            desired, ready = workload["spec"]["replicas"], status.get("readyReplicas", 0)
        return bool(desired and ready == desired)
