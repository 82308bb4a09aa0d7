"""etcd, the API server and the controllers, as processes of the machine itself."""

from pathlib import Path

from localcluster import binaries, kubeconfig
from localcluster.api import Api
from localcluster.commands import Argument
from localcluster.paths import Layout
from localcluster.pki import Authority
from localcluster.processes import Identity, require, spawn
from localcluster.topology import Topology
from localcluster.waiting import until

_AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""


def processes(topology: Topology) -> list[str]:
    """Return the names of the processes, which are those of their pid files too."""
    names = ["etcd", "kube-apiserver", "kube-controller-manager"]
    return names if topology.control_plane_only else [*names, "kube-scheduler"]


class ControlPlane:
    """The control plane of one cluster."""

    def __init__(self, layout: Layout, topology: Topology) -> None:
        self._layout = layout
        self._topology = topology
        self._pki = Authority(layout.pki)

    def create_credentials(self) -> None:
        """Make every certificate and kubeconfig of the cluster."""
        pki, topology = self._pki, self._topology
        pki.create()
        pki.create_service_accounts()
        pki.issue("etcd", "etcd", alternatives=["IP:127.0.0.1"])
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        addresses = {"127.0.0.1", topology.host_address, topology.api_service_address}
        pki.issue(
            "apiserver",
            "kube-apiserver",
            alternatives=[*(f"DNS:{n}" for n in names), *(f"IP:{a}" for a in sorted(addresses))],
        )
        pki.issue("kubelet-client", "kube-apiserver", "system:masters")
        clients = {
            "admin": ("localcluster-admin", "system:masters"),
            "controller-manager": ("system:kube-controller-manager", ""),
            "scheduler": ("system:kube-scheduler", ""),
            "kube-proxy": ("system:kube-proxy", ""),
        }
        clients |= {node.name: (f"system:node:{node.name}", "system:nodes") for node in topology.nodes}
        for client, (user, group) in clients.items():
            pki.issue(client, user, group)
            kubeconfig.write(
                self._layout.pki / f"{client}.kubeconfig",
                pki,
                client,
                topology.server,
                f"localcluster-{topology.name}",
            )

    def api(self) -> Api:
        return Api(self._pki, self._topology.server)

    def start(self) -> None:
        """Start everything and wait until pods could be created."""
        etcd = self._spawn("etcd", self._etcd())
        server = self._spawn("kube-apiserver", self._apiserver())
        api = self.api()

        def serving() -> bool:
            require(etcd, "etcd", self._log("etcd"))
            require(server, "kube-apiserver", self._log("kube-apiserver"))
            return api.ready()

        until("the API server to be ready", serving, 300)
        manager = self._spawn("kube-controller-manager", self._controller_manager())
        if not self._topology.control_plane_only:
            self._spawn("kube-scheduler", self._scheduler())
        until("the controllers to work", api.has_default_account, 300)
        require(manager, "kube-controller-manager", self._log("kube-controller-manager"))

    def _spawn(self, name: str, flags: dict[str, object]) -> Identity:
        argv: list[Argument] = [binaries.path(name), *(f"--{key}={value}" for key, value in flags.items())]
        return spawn(argv, self._layout.pids / name, self._log(name))

    def _log(self, name: str) -> Path:
        return self._layout.logs / f"{name}.log"

    def _etcd(self) -> dict[str, object]:
        pki, topology = self._pki, self._topology
        clients = f"https://127.0.0.1:{topology.etcd_port}"
        peers = f"http://127.0.0.1:{topology.etcd_peer_port}"
        return {
            "data-dir": self._layout.root / "etcd",
            "listen-client-urls": clients,
            "advertise-client-urls": clients,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
            "cert-file": pki.certificate("etcd"),
            "key-file": pki.key("etcd"),
            "trusted-ca-file": pki.bundle,
            "client-cert-auth": "true",
            # The cluster is disposable: speed on slow disks is worth more than surviving a power cut.
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }

    def _apiserver(self) -> dict[str, object]:
        pki, topology, layout = self._pki, self._topology, self._layout
        policy = layout.root / "audit-policy.yaml"
        policy.write_text(_AUDIT_POLICY)
        return {
            "bind-address": topology.host_address,
            "advertise-address": topology.host_address,
            "secure-port": topology.api_port,
            "etcd-servers": f"https://127.0.0.1:{topology.etcd_port}",
            "etcd-cafile": pki.bundle,
            "etcd-certfile": pki.certificate("etcd"),
            "etcd-keyfile": pki.key("etcd"),
            "client-ca-file": pki.bundle,
            "tls-cert-file": pki.certificate("apiserver"),
            "tls-private-key-file": pki.key("apiserver"),
            "kubelet-client-certificate": pki.certificate("kubelet-client"),
            "kubelet-client-key": pki.key("kubelet-client"),
            "kubelet-preferred-address-types": "InternalIP",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": pki.service_account_public_key,
            "service-account-signing-key-file": pki.key("service-accounts"),
            "service-cluster-ip-range": topology.service_cidr,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            # Endpoints may not be on loopback, and without pods nobody looks for them.
            "endpoint-reconciler-type": "none" if topology.control_plane_only else "lease",
            "audit-policy-file": policy,
            "audit-log-path": layout.audit_log,
            "audit-log-maxsize": "1000",
            "audit-log-maxbackup": "1",
        }

    def _controller_manager(self) -> dict[str, object]:
        pki = self._pki
        return {
            "kubeconfig": self._layout.pki / "controller-manager.kubeconfig",
            "leader-elect": "false",
            "secure-port": "0",
            "use-service-account-credentials": "true",
            # The default of 20 requests a second would spend seconds on fetching one token per controller.
            "kube-api-qps": "200",
            "kube-api-burst": "400",
            "root-ca-file": pki.bundle,
            "service-account-private-key-file": pki.key("service-accounts"),
            "cluster-signing-cert-file": pki.bundle,
            "cluster-signing-key-file": pki.key("ca"),
            # Fault tests wait for a dead node to be noticed.
            "node-monitor-grace-period": "16s",
            "node-monitor-period": "2s",
        }

    def _scheduler(self) -> dict[str, object]:
        return {
            "kubeconfig": self._layout.pki / "scheduler.kubeconfig",
            "leader-elect": "false",
            "secure-port": "0",
        }
