"""The chart: renders everywhere, refuses wrong values, and asks for no right and no privilege too many."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpux.store import __main__ as store_program
from gpux.store.__main__ import main as store
from opengpu_operator.__main__ import parser
from opengpu_operator.api import labels, source, task
from opengpu_operator.settings import Settings
from tests.chart.conftest import CHART, ROOT, Helm, Rendered
from tests.chart.matrix import MATRIX

each_value = pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())


def settings_of(rendered: Rendered, scratch: Path) -> Settings:
    (config,) = rendered.of("ConfigMap")
    file = scratch / "config.yaml"
    file.write_text(config["data"]["config.yaml"])
    return Settings.load(file)


def cluster_role(rendered: Rendered) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = rendered.get("ClusterRole", "opengpu-operator")["rules"]
    return rules


@each_value
def test_lint(helm: Helm, values: dict[str, Any]) -> None:
    done = helm.run("lint", "--strict", values=values)
    assert done.returncode == 0, done.stdout + done.stderr


@each_value
def test_the_operator_accepts_its_settings(helm: Helm, values: dict[str, Any], tmp_path: Path) -> None:
    settings = settings_of(helm.template(values), tmp_path)
    given = values.get("settings", {})
    assert settings.namespace == settings.store.namespace == "opengpu-system"
    for section, wanted in given.items():
        for key, value in wanted.items() if isinstance(wanted, dict) else ():
            got = settings.model_dump(mode="json", by_alias=True)[section][key]
            # What is given is merged into the defaults, section by section.
            assert got == value or (isinstance(value, dict) and value.items() <= got.items()), (section, key)


def test_the_settings_name_what_the_chart_makes(helm: Helm, tmp_path: Path) -> None:
    rendered = helm.template(MATRIX["local images"])
    settings = settings_of(rendered, tmp_path)
    service = rendered.get("Service", "opengpu-store")
    assert settings.store.url == "http://opengpu-store.opengpu-system.svc.cluster.local:8080"
    assert settings.store.port in [port["port"] for port in service["spec"]["ports"]]
    store = rendered.get("Deployment", "opengpu-store")
    assert settings.store.pod_labels.items() <= store["spec"]["template"]["metadata"]["labels"].items()
    assert settings.agent.image == "localhost/opengpu-agent:dev"
    operator, translator = rendered.pod_specs()["opengpu-operator"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in operator["ports"]}
    assert ports == {"probes": settings.probe_port, "metrics": settings.metrics_port}
    assert str(settings.translator_socket) in translator["command"]
    mounts = {mount["mountPath"] for mount in operator["volumeMounts"]}
    assert str(settings.store.key_file.parent) in mounts


def test_the_documented_backup_is_of_the_stores_key(helm: Helm) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (name,) = re.findall(r"kubectl get secret (\S+) --namespace opengpu-system", text)
    rendered = helm.template()
    assert rendered.get("Secret", name)["data"]["key"]
    volumes = rendered.pod_specs()["opengpu-store"]["volumes"]
    assert name in [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]


def test_the_store_is_told_how_to_look_after_itself(helm: Helm, capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "retention": {"graceHours": 1, "unusedDays": 0, "sweepMinutes": 5},
        "scrub": {"days": 7, "mebibytesPerSecond": 100000},
        "quota": {"fileGibibytes": 1048576, "reserveMebibytes": 128},
    }
    (container,) = helm.template({"store": values}).pod_specs()["opengpu-store"]["containers"]
    given = container["command"][3:]
    assert {
        "--grace-seconds=3600",
        "--unused-days=0",
        "--sweep-seconds=300",
        "--scrub-days=7",
        "--scrub-bytes-per-second=104857600000",
        "--max-file-bytes=1125899906842624",
        "--reserve=134217728",
    } <= set(given)
    # The program reads all of them, up to the last one.
    with pytest.raises(SystemExit) as ended:
        store([*given, "--help"])
    known = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(option.partition("=")[0] in known for option in given)


def test_any_namespace_may_hold_the_ingress_controller(helm: Helm, tmp_path: Path) -> None:
    """Helm drops a null, so the chart has another spelling of the settings' null."""
    rendered = helm.template({"settings": {"network": {"ingressNamespace": ""}}})
    assert settings_of(rendered, tmp_path).network.ingress_namespace is None


def test_values_show_the_defaults() -> None:
    shown = yaml.safe_load((CHART / "values.yaml").read_text())["settings"]
    defaults = Settings().model_dump(mode="json", by_alias=True, exclude_none=True)
    for name in ("namespace", "store", "translatorSocket", "probePort", "metricsPort"):
        del defaults[name]
    del defaults["agent"]["image"]
    assert shown == defaults


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicas": 2}, "replicas"),
        ({"image": {"tag": "not a tag"}}, "tag"),
        ({"image": {"digest": "sha256:12"}}, "digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"operator": {"resource": {}}}, "resource"),
        ({"store": {"persistence": {"size": "much"}}}, "size"),
        ({"store": {"replicas": 2}}, "replicas"),
        ({"store": {"replicas": 2, "backend": "file"}}, "replicas"),
        ({"store": {"backend": "s3", "s3": {"existingSecret": "s"}}}, "bucket"),
        ({"store": {"backend": "s3", "s3": {"bucket": "opengpu"}}}, "existingSecret"),
        ({"store": {"backend": "s3", "s3": {"endpoint": "s3.example.org"}}}, "endpoint"),
        ({"store": {"s3": {"cache": {"size": "1.5Gi"}}}}, "size"),
        ({"store": {"s3": {"cache": {"size": "010Gi"}}}}, "size"),
        ({"store": {"s3": {"cache": {"size": "9999999Ti"}}}}, "size"),
        ({"store": {"s3": {"cache": {"bytes": 1}}}}, "bytes"),
        ({"store": {"retention": {"graceHours": -1}}}, "graceHours"),
        ({"store": {"scrub": {"mebibytesPerSecond": 0}}}, "mebibytesPerSecond"),
        ({"crds": {"enabled": "yes"}}, "enabled"),
        ({"serviceMonitor": {"interval": "often"}}, "interval"),
        ({"uninstall": {"clearFinalizer": {}}}, "clearFinalizer"),
        ({"settings": {"gpu": {"countAll": 0}}}, "countAll"),
        ({"settings": {"routes": {"scheme": "gopher"}}}, "scheme"),
        ({"settings": {"routes": {"domains": "x"}}}, "domains"),
        ({"settings": {"routes": {"kind": "VirtualService"}}}, "kind"),
        ({"settings": {"routes": {"profile": "apache"}}}, "profile"),
        ({"routes": {"hostGuard": {"enable": True}}}, "enable"),
        ({"settings": {"pods": {"profile": "privileged"}}}, "profile"),
        ({"settings": {"logs": {"level": "loud"}}}, "level"),
        ({"settings": {"tunnels": {"windowSeconds": 0}}}, "windowSeconds"),
        ({"settings": {"reconcile": {"workers": 1000}}}, "workers"),
        # What follows from the chart can't be set to something that contradicts it.
        ({"settings": {"namespace": "elsewhere"}}, "namespace"),
        ({"settings": {"store": {"url": "http://elsewhere"}}}, "store"),
        ({"settings": {"agent": {"image": "x"}}}, "image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_values_are_refused_by_name(helm: Helm, values: dict[str, Any], named: str) -> None:
    assert named in helm.refusal(values)


def test_generated_files_are_complete(helm: Helm) -> None:
    """`make lint` compares them byte by byte; here what Helm makes of them is compared."""
    wanted = {
        document["metadata"]["name"]: document
        for document in (yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml"))
    }
    assert set(wanted) == {f"{plural}.{labels.GROUP}" for plural in (source.PLURAL, task.PLURAL)}
    rendered = {crd["metadata"]["name"]: crd for crd in helm.template().of("CustomResourceDefinition")}
    assert {name: crd["spec"] for name, crd in rendered.items()} == {
        name: crd["spec"] for name, crd in wanted.items()
    }


def test_definitions_stay_unless_told_otherwise(helm: Helm) -> None:
    policy = "helm.sh/resource-policy"
    for crd in helm.template().of("CustomResourceDefinition"):
        assert crd["metadata"]["annotations"][policy] == "keep"
    for crd in helm.template({"crds": {"keep": False}}).of("CustomResourceDefinition"):
        assert policy not in crd["metadata"].get("annotations", {})
    assert not helm.template({"crds": {"enabled": False}}).of("CustomResourceDefinition")


@each_value
def test_labels(helm: Helm, values: dict[str, Any]) -> None:
    rendered = helm.template(values)
    for obj in rendered.objects:
        given = obj["metadata"]["labels"]
        assert given["app.kubernetes.io/name"] == "opengpu-operator"
        assert given["app.kubernetes.io/instance"] == "opengpu"
        assert given["app.kubernetes.io/managed-by"] == "Helm"
        assert values.get("commonLabels", {}).items() <= given.items()
    for deployment in rendered.of("Deployment"):
        selector = deployment["spec"]["selector"]["matchLabels"]
        # A selector can't change, so nothing that does change may be in it.
        assert set(selector) == {f"app.kubernetes.io/{key}" for key in ("name", "instance", "component")}
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


@each_value
def test_names_are_in_the_namespace_and_short(helm: Helm, values: dict[str, Any]) -> None:
    clustered = {
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
    for obj in helm.template(values).objects:
        assert (obj["kind"] in clustered) == ("namespace" not in obj["metadata"]), obj["metadata"]["name"]
        assert len(obj["metadata"]["name"]) <= 63


@each_value
def test_pods_keep_the_restricted_standard(helm: Helm, values: dict[str, Any]) -> None:
    allowed = {"name", "configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}
    for name, spec in helm.template(values).pod_specs().items():
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers"} & set(spec), name
        for volume in spec.get("volumes", []):
            assert set(volume) <= allowed, (name, volume)
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (name, container["name"])
            assert "memory" in container["resources"]["limits"], (name, container["name"])
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), (name, container["name"])


@each_value
def test_only_what_asks_the_api_server_has_a_token(helm: Helm, values: dict[str, Any]) -> None:
    rendered = helm.template(values)
    holders = set()
    for name, spec in rendered.pod_specs().items():
        assert spec["automountServiceAccountToken"] is False, name
        tokens = {
            volume["name"]
            for volume in spec.get("volumes", [])
            for projected in volume.get("projected", {}).get("sources", [])
            if "serviceAccountToken" in projected
        }
        for container in spec["containers"]:
            if tokens & {mount["name"] for mount in container.get("volumeMounts", [])}:
                holders.add(container["name"])
    assert holders == {"operator", *(["uninstall"] if rendered.of("Job") else [])}
    for account in rendered.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@each_value
def test_the_translator_has_no_key(helm: Helm, values: dict[str, Any]) -> None:
    name = f"{values.get('fullnameOverride', 'opengpu')}-operator"
    operator, translator = helm.template(values).pod_specs()[name]["containers"]
    mounted = {mount["name"] for mount in translator["volumeMounts"]}
    assert mounted == {"config", "run", "translator-tmp"}
    # Neither reads what the other writes, but for the socket.
    assert mounted & {mount["name"] for mount in operator["volumeMounts"]} == {"config", "run"}


def test_rights_on_httproutes_come_with_their_choice_only(helm: Helm) -> None:
    def groups(values: dict[str, Any]) -> set[str]:
        return {group for rule in cluster_role(helm.template(values)) for group in rule["apiGroups"]}

    chosen = MATRIX["routes of the Gateway API"]
    assert groups(chosen) - groups({}) == {"gateway.networking.k8s.io"}


def test_the_hosts_of_the_domain_are_guarded(helm: Helm) -> None:
    rendered = helm.template(MATRIX["routes of the Gateway API"])
    policies = rendered.of("ValidatingAdmissionPolicy")
    bindings = rendered.of("ValidatingAdmissionPolicyBinding")
    assert [policy["metadata"]["name"] for policy in policies] == [
        "opengpu-hosts-ingresses",
        "opengpu-hosts-gateway-routes",
    ]
    assert [binding["spec"]["policyName"] for binding in bindings] == [
        policy["metadata"]["name"] for policy in policies
    ]
    for policy in policies:
        assert policy["spec"]["failurePolicy"] == "Fail"
        (users,) = [c for c in policy["spec"]["matchConditions"] if c["name"] == "not-allowed"]
        assert "system:serviceaccount:opengpu-system:opengpu-operator" in users["expression"]
        assert "system:serviceaccount:cert-manager:cert-manager" in users["expression"]


def test_the_stores_host_is_guarded_without_a_domain_too(helm: Helm) -> None:
    rendered = helm.template({"store": {"external": {"enabled": True, "host": "files.example.net"}}})
    policies = rendered.of("ValidatingAdmissionPolicy")
    assert len(policies) == 2
    for policy in policies:
        (only,) = policy["spec"]["validations"]
        assert 'host == "files.example.net"' in only["expression"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {
            "routes": {"hostGuard": {"enabled": False}},
            "settings": {"routes": {"domain": "gpux.example.org"}},
        },
    ],
    ids=["no domain", "off"],
)
def test_without_a_domain_or_the_wish_nothing_is_guarded(helm: Helm, values: dict[str, Any]) -> None:
    assert helm.template(values).of("ValidatingAdmissionPolicy") == []


@pytest.mark.parametrize(("version", "guarded"), [("1.29.9", False), ("1.30.0", True)])
def test_clusters_that_know_no_admission_policies_are_not_asked_to(
    helm: Helm, version: str, guarded: bool
) -> None:
    done = helm.run(
        "template", "opengpu", "--kube-version", version, values=MATRIX["routes of the Gateway API"]
    )
    assert done.returncode == 0, done.stderr
    assert ("kind: ValidatingAdmissionPolicy" in done.stdout) is guarded


def test_no_wildcards(helm: Helm) -> None:
    rendered = helm.template()
    for role in [*rendered.of("ClusterRole"), *rendered.of("Role")]:
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], role["metadata"][
                "name"
            ]
            assert "nonResourceURLs" not in rule


def test_secrets_are_written_and_never_read(helm: Helm) -> None:
    verbs = {
        verb
        for rule in cluster_role(helm.template())
        if any(resource.partition("/")[0] == "secrets" for resource in rule["resources"])
        for verb in rule["verbs"]
    }
    assert verbs == {"create", "delete"}


def test_logs_are_read_only_for_tunnels(helm: Helm) -> None:
    log = {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}
    assert log in cluster_role(helm.template())
    without = cluster_role(helm.template({"settings": {"tunnels": {"enabled": False}}}))
    assert [rule for rule in without if "pods/log" in rule["resources"]] == []


def test_no_right_leads_to_others(helm: Helm) -> None:
    """None of these is needed, and each would let whoever holds the operator's token become somebody else."""
    dangerous = {
        "pods/exec",
        "pods/attach",
        "pods/portforward",
        "pods/ephemeralcontainers",
        "serviceaccounts",
        "serviceaccounts/token",
        "roles",
        "rolebindings",
        "clusterroles",
        "clusterrolebindings",
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "nodes/proxy",
        "services/proxy",
        "certificatesigningrequests",
    }
    rules = cluster_role(helm.template())
    granted = {resource for rule in rules for resource in rule["resources"]}
    assert not granted & dangerous
    verbs = {verb for rule in rules for verb in rule["verbs"]}
    assert not verbs & {"impersonate", "bind", "escalate", "deletecollection"}
    assert not any("create" in rule["verbs"] and "pods" in rule["resources"] for rule in rules)


def test_the_store_has_no_rights(helm: Helm) -> None:
    rendered = helm.template()
    account = rendered.pod_specs()["opengpu-store"]["serviceAccountName"]
    bound = {
        subject["name"]
        for kind in ("ClusterRoleBinding", "RoleBinding")
        for binding in rendered.of(kind)
        for subject in binding["subjects"]
    }
    assert account == "opengpu-store"
    assert bound == {"opengpu-operator", "opengpu-uninstall"}


def hooks(rendered: Rendered, event: str) -> list[dict[str, Any]]:
    return [
        obj for obj in rendered.objects if obj["metadata"].get("annotations", {}).get("helm.sh/hook") == event
    ]


def test_the_uninstall_hook_comes_with_its_rights_and_goes_with_them(helm: Helm) -> None:
    rendered = helm.template()
    found = hooks(rendered, "pre-delete")
    weights = {}
    for obj in found:
        annotations = obj["metadata"]["annotations"]
        assert obj["metadata"]["name"] == "opengpu-uninstall"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        weights[obj["kind"]] = int(annotations["helm.sh/hook-weight"])
    rights = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    assert set(weights) == {"Job", *rights}
    # The Job is made once everything that it needs is there.
    assert all(weights[kind] < weights["Job"] for kind in rights)
    # A policy is no hook: it has an effect before the Job's pod starts.
    policy = rendered.get("NetworkPolicy", "opengpu-uninstall")["spec"]
    pod = rendered.get("Job", "opengpu-uninstall")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= pod.items()
    assert policy["ingress"] == []
    assert policy["egress"] == rendered.get("NetworkPolicy", "opengpu-operator")["spec"]["egress"]


def test_the_uninstall_hook_stops_the_operator_and_nothing_else(helm: Helm) -> None:
    rendered = helm.template(MATRIX["everything on"])
    (container,) = rendered.pod_specs()["og-uninstall"]["containers"]
    program, *arguments = container["command"]
    assert program == "opengpu-operator"
    options = parser().parse_args(arguments)
    assert (options.command, options.stop) == ("clear-finalizers", ("opengpu-system", "og-operator"))
    deployment = rendered.get("Deployment", "og-operator")
    assert deployment["metadata"]["namespace"] == "opengpu-system"
    # Helm waits for five minutes; the Job must have ended by then.
    job = rendered.get("Job", "og-uninstall")["spec"]
    assert options.stop_timeout < job["activeDeadlineSeconds"] < 300
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace < options.stop_timeout


def test_the_uninstall_hook_may_do_no_more_than_it_does(helm: Helm) -> None:
    rendered = helm.template()
    assert rendered.get("ClusterRole", "opengpu-uninstall")["rules"] == [
        {"apiGroups": [labels.GROUP], "resources": [source.PLURAL], "verbs": ["list", "patch"]}
    ]
    operator = {"apiGroups": ["apps"], "resourceNames": ["opengpu-operator"]}
    assert rendered.get("Role", "opengpu-uninstall")["rules"] == [
        operator | {"resources": ["deployments"], "verbs": ["get"]},
        operator | {"resources": ["deployments/scale"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]


@pytest.mark.parametrize(
    "values",
    [{"uninstall": {"clearFinalizers": {"enabled": False}}}, {"rbac": {"create": False}}],
    ids=["off", "no rights"],
)
def test_without_the_uninstall_hook_nothing_of_it_is_left(helm: Helm, values: dict[str, Any]) -> None:
    rendered = helm.template(values)
    assert hooks(rendered, "pre-delete") == []
    assert [obj for obj in rendered.objects if "uninstall" in obj["metadata"]["name"]] == []


def test_one_of_each_at_a_time(helm: Helm) -> None:
    for deployment in helm.template().of("Deployment"):
        assert deployment["spec"]["replicas"] == 1
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_a_bucket_has_as_many_stores_as_one_likes(helm: Helm) -> None:
    rendered = helm.template(MATRIX["a bucket"])
    spec = rendered.get("Deployment", "opengpu-store")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (3, "RollingUpdate")
    assert rendered.of("PersistentVolumeClaim") == []
    budget = rendered.get("PodDisruptionBudget", "opengpu-store")["spec"]
    assert (budget["maxUnavailable"], budget["selector"]) == (1, spec["selector"])
    assert rendered.get("Service", "opengpu-store")["spec"]["sessionAffinity"] == "ClientIP"
    assert rendered.get("NetworkPolicy", "opengpu-store")["spec"]["egress"]
    alone = helm.template(MATRIX["a bucket at AWS"])
    assert alone.of("PodDisruptionBudget") == helm.template().of("PodDisruptionBudget") == []
    assert alone.get("Deployment", "opengpu-store")["spec"]["strategy"]["type"] == "RollingUpdate"


@pytest.mark.parametrize("name", ["a bucket", "a bucket at AWS"])
def test_the_store_understands_its_options_for_a_bucket(
    helm: Helm, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = helm.template(MATRIX[name])
    values = MATRIX[name]["store"]["s3"]
    pod = rendered.pod_specs()["opengpu-store"]
    (container,) = pod["containers"]
    prepared: list[argparse.Namespace] = []
    monkeypatch.setattr(store_program, "prepare", prepared.append)
    assert store(container["command"][3:]) == 1
    (options,) = prepared
    location = "/".join(filter(None, (values["bucket"], values.get("prefix"))))
    assert (options.root, options.s3) == (None, f"s3://{location}")
    assert (options.s3_endpoint, options.s3_region) == (
        values.get("endpoint"),
        values.get("region", "us-east-1"),
    )
    assert options.s3_virtual_host == (not values.get("pathStyle", True))
    # The credentials are files, and nowhere else.
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounted[str(options.s3_credentials)]["secret"]["secretName"] == values["existingSecret"]
    assert ("configMap" in mounted.get("/etc/opengpu/s3-ca", {})) == (options.s3_ca is not None)
    assert "env" not in container
    assert "envFrom" not in container


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (None, 2 << 30),
        ("512Mi", 512 << 20),
        ("3T", 3 * 10**12),
        ("1500000000", 1_500_000_000),
        (1_500_000_000, 1_500_000_000),
        ("0", 0),
        ("0Gi", 0),
        (0, 0),
    ],
)
def test_a_cache_has_room_on_the_node(
    helm: Helm, size: str | int | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {} if size is None else {"cache": {"size": size}}
    values = {"backend": "s3", "s3": {"bucket": "opengpu", "existingSecret": "s", **given}}
    pod = helm.template({"store": values}).pod_specs()["opengpu-store"]
    (container,) = pod["containers"]
    prepared: list[argparse.Namespace] = []
    monkeypatch.setattr(store_program, "prepare", prepared.append)
    assert store(container["command"][3:]) == 1
    (options,) = prepared
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert ("cache" in volumes) == bool(count)
    if not count:
        assert options.s3_cache is None
        return
    assert options.s3_cache_bytes == count
    limit = mounted[options.s3_cache]["emptyDir"]["sizeLimit"]
    assert int(limit) > 1.5 * count


def test_a_store_on_a_volume_has_no_cache(helm: Helm) -> None:
    pod = helm.template({"store": {"s3": {"cache": {"size": "1Gi"}}}}).pod_specs()["opengpu-store"]
    assert "cache" not in {volume["name"] for volume in pod["volumes"]}
    assert not [option for option in pod["containers"][0]["command"] if "cache" in option]


def test_people_get_rights_by_aggregation(helm: Helm) -> None:
    roles = {role["metadata"]["name"]: role for role in helm.template().of("ClusterRole")}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    viewer, editor = roles["opengpu-viewer"], roles["opengpu-editor"]
    assert {rule for role in (viewer,) for r in role["rules"] for rule in r["verbs"]} == {
        "get",
        "list",
        "watch",
    }
    assert f"{prefix}view" in viewer["metadata"]["labels"]
    assert f"{prefix}view" not in editor["metadata"]["labels"]
    assert f"{prefix}edit" in editor["metadata"]["labels"]


def test_the_store_is_reached_by_the_operator_and_agents_only(helm: Helm) -> None:
    policy = helm.template().get("NetworkPolicy", "opengpu-store")["spec"]
    (http,) = [rule for rule in policy["ingress"] if rule["ports"] == [{"port": "http"}]]
    agents = [peer for peer in http["from"] if "namespaceSelector" in peer]
    assert [peer["podSelector"]["matchLabels"] for peer in agents] == [{labels.MANAGED_BY: labels.MANAGER}]
    assert all("podSelector" in peer for peer in http["from"])
    assert policy["egress"] == []
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_image_by_digest(helm: Helm) -> None:
    for spec in helm.template(MATRIX["images by digest"]).pod_specs().values():
        for container in spec["containers"]:
            assert container["image"] == f"mirror.example/opengpu@sha256:{'a' * 64}"


def test_settings_restart_the_operator(helm: Helm) -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = helm.template(values).get("Deployment", "opengpu-operator")["spec"]["template"]
        text: str = template["metadata"]["annotations"]["checksum/config"]
        return text

    assert checksum({}) == checksum({"store": {"podLabels": {"a": "b"}}})
    assert checksum({}) != checksum({"settings": {"logs": {"level": "debug"}}})


def test_schema_is_closed() -> None:
    """A typing error anywhere in the values can't pass for a value."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def objects(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        own = [path] if "properties" in node and node.get("additionalProperties") is not False else []
        # Conditions are about an object that is closed where it is described.
        parts = {key: part for key, part in node.items() if key not in {"if", "then", "else"}}
        return own + [found for key, part in parts.items() for found in objects(part, f"{path}.{key}")]

    assert objects(schema, "") == []


def test_notes(helm: Helm) -> None:
    done = helm.run("install", "opengpu", "--dry-run=client", "--namespace", "opengpu-system")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "settings.routes.domain isn't set" in notes
    assert "kubectl get ogs,ogt" in notes


FILES: dict[str, Any] = {
    "store": {"external": {"enabled": True}},
    "settings": {"routes": {"domain": "gpux.example.org"}},
}


def test_files_are_not_reachable_from_outside_by_default(helm: Helm, tmp_path: Path) -> None:
    rendered = helm.template()
    assert settings_of(rendered, tmp_path).store.external_url is None
    assert rendered.of("Ingress") == []
    ports = [port["port"] for port in rendered.get("Service", "opengpu-store")["spec"]["ports"]]
    assert ports == [8080, 9090]
    (container,) = rendered.pod_specs()["opengpu-store"]["containers"]
    assert not [option for option in container["command"] if option.startswith("--external")]


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "http://files.gpux.example.org"),
        ({"settings": {"routes": {"scheme": "https"}}}, "https://files.gpux.example.org"),
        ({"settings": {"routes": {"externalPort": 8443}}}, "http://files.gpux.example.org:8443"),
        ({"store": {"external": {"host": "f.example.net"}}}, "http://f.example.net"),
    ],
)
def test_the_way_to_files_from_outside(helm: Helm, tmp_path: Path, values: dict[str, Any], url: str) -> None:
    given = {
        "store": {"external": FILES["store"]["external"] | values.get("store", {}).get("external", {})},
        "settings": {"routes": FILES["settings"]["routes"] | values.get("settings", {}).get("routes", {})},
    }
    rendered = helm.template(given)
    settings = settings_of(rendered, tmp_path)
    assert settings.store.external_url == url
    assert settings.store.pods_url == "http://opengpu-store-pods.opengpu-system.svc.cluster.local:8080"
    each = rendered.get("Service", "opengpu-store-pods")["spec"]
    assert (each["clusterIP"], each["ports"][0]["port"]) == ("None", 8080)
    assert each["selector"] == rendered.get("Service", "opengpu-store")["spec"]["selector"]
    (container,) = rendered.pod_specs()["opengpu-store"]["containers"]
    assert {"--external-listen=0.0.0.0:8081", f"--external-url={url}"} <= set(container["command"])
    (ingress,) = rendered.of("Ingress")
    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] == url.partition("://")[2].partition(":")[0]
    (path,) = rule["http"]["paths"]
    backend = path["backend"]["service"]
    service = rendered.get("Service", backend["name"])["spec"]
    port = {port["name"]: port["port"] for port in service["ports"]}[backend["port"]["name"]]
    assert port == 8081
    assert ("tls" in ingress["spec"]) == url.startswith("https")
    assert "secretName" not in str(ingress["spec"])


def test_only_the_ingress_controller_reaches_the_external_port(helm: Helm) -> None:
    policy = helm.template(FILES).get("NetworkPolicy", "opengpu-store")["spec"]
    rules = {rule["ports"][0]["port"]: rule for rule in policy["ingress"]}
    (peer,) = rules["external"]["from"]
    assert peer == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-system"}}}


def test_files_need_a_host(helm: Helm) -> None:
    assert "store.external.host" in helm.refusal({"store": {"external": {"enabled": True}}})


def test_the_ingress_may_be_ones_own(helm: Helm) -> None:
    values = {
        "store": {"external": {"enabled": True, "host": "f.example.net", "ingress": {"enabled": False}}}
    }
    assert helm.template(values).of("Ingress") == []
