"""What the API server refuses by itself, and that it names the field: the operator never sees such objects."""

from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.controlplane

GROUP = "opengpu.network"
VERSION = "v1alpha1"

FILE = {"composeUrl": "https://example.com/compose.yaml"}
SOURCE = {"imageEnvs": {"cpu": FILE}}
CALL = {"sourceRef": {"name": "source"}, "functionName": "run", "data": {"prompt": "hello"}}
JOB = {"sourceRef": {"name": "source"}}
KEY = {"name": "object", "key": "key"}
ACCOUNT = {"accountRef": {"name": "account"}}
PROOF = {
    "signature": f"{'A' * 86}==",
    "notAfter": "2026-12-01T00:00:00Z",
    "digests": [f"sha256:{'0' * 64}"],
}
KINDS = {"OpenGPUSource": "opengpusources", "OpenGPUTask": "opengputasks"}


class Case(NamedTuple):
    name: str
    spec: dict[str, Any]
    field: str
    """As the API server names it, in ``details.causes``."""
    message: str
    """A part of what it says about it."""


def without(spec, *keys):
    return {key: value for key, value in spec.items() if key not in keys}


def source(name: str, field: str, message: str, /, *, drop: tuple[str, ...] = (), **fields: Any) -> Case:
    return Case(name, {**without(SOURCE, *drop), **fields}, field, message)


def file(name: str, field: str, message: str, entry: dict[str, Any]) -> Case:
    return source(name, field, message, imageEnvs={"nvidia": entry})


def call(name: str, field: str, message: str, /, *, drop: tuple[str, ...] = (), **fields: Any) -> Case:
    return Case(name, {**without(CALL, *drop), **fields}, field, message)


def job(name: str, field: str, message: str, /, **fields: Any) -> Case:
    return Case(name, {**JOB, **fields}, field, message)


ONE_OF = "exactly one of imageEnvs, template and address must be set"
ENUM = "Unsupported value"
PATTERN = "should match"
REQUIRED = "Required value"
MOST = "should be less than or equal to"
LEAST = "should be greater than or equal to"
ITEMS = "must have at most"
KEYS = "keys must have at most"
ZERO = "must be more than 0"

SOURCES = [
    source("no kind of source", "spec", ONE_OF, drop=("imageEnvs",)),
    source("files and template", "spec", ONE_OF, template={"name": "ollama"}),
    source("files and address", "spec", ONE_OF, address="0x" + "a" * 40),
    source(
        "template and address",
        "spec",
        ONE_OF,
        drop=("imageEnvs",),
        template={"name": "a"},
        address="0x" + "a" * 40,
    ),
    source("no environment", "spec.imageEnvs", "at least one of cpu, nvidia and amd", imageEnvs={}),
    file("no file", "spec.imageEnvs.nvidia", "exactly one of composeUrl and configMapKeyRef", {}),
    file("only a digest", "spec.imageEnvs.nvidia", "exactly one of composeUrl", {"sha256": "a" * 64}),
    file("two files", "spec.imageEnvs.nvidia", "exactly one of composeUrl", {**FILE, "configMapKeyRef": KEY}),
    file(
        "ftp", "spec.imageEnvs.nvidia.composeUrl", PATTERN, {"composeUrl": "ftp://example.com/compose.yaml"}
    ),
    file("a local file", "spec.imageEnvs.nvidia.composeUrl", PATTERN, {"composeUrl": "file:///etc/passwd"}),
    file("a path", "spec.imageEnvs.nvidia.composeUrl", PATTERN, {"composeUrl": "./compose.yaml"}),
    file("blanks in a URL", "spec.imageEnvs.nvidia.composeUrl", PATTERN, {"composeUrl": "https://a.com/b c"}),
    file(
        "a URL without a host",
        "spec.imageEnvs.nvidia.composeUrl",
        "with a host",
        {"composeUrl": "https:///c"},
    ),
    file(
        "a broken URL",
        "spec.imageEnvs.nvidia.composeUrl",
        "must be a URL",
        {"composeUrl": "https://a.com:x/"},
    ),
    file(
        "a password in a URL",
        "spec.imageEnvs.nvidia.composeUrl",
        "user name or password",
        {"composeUrl": "https://me:secret@example.com/compose.yaml"},
    ),
    file(
        "a long URL",
        "spec.imageEnvs.nvidia.composeUrl",
        "Too long",
        {"composeUrl": "https://a.com/" + "b" * 2048},
    ),
    file("a short digest", "spec.imageEnvs.nvidia.sha256", PATTERN, {**FILE, "sha256": "abc"}),
    file(
        "a digest with its name",
        "spec.imageEnvs.nvidia.sha256",
        PATTERN,
        {**FILE, "sha256": "sha256:" + "a" * 57},
    ),
    file("a digest in capitals", "spec.imageEnvs.nvidia.sha256", PATTERN, {**FILE, "sha256": "A" * 64}),
    file(
        "a ConfigMap without a key",
        "spec.imageEnvs.nvidia.configMapKeyRef.key",
        REQUIRED,
        {"configMapKeyRef": {"name": "files"}},
    ),
    file(
        "a ConfigMap's name in capitals",
        "spec.imageEnvs.nvidia.configMapKeyRef.name",
        PATTERN,
        {"configMapKeyRef": {"name": "Files", "key": "a"}},
    ),
    file(
        "a key with a slash",
        "spec.imageEnvs.nvidia.configMapKeyRef.key",
        PATTERN,
        {"configMapKeyRef": {"name": "files", "key": "../a"}},
    ),
    file(
        "a profile with a space", "spec.imageEnvs.nvidia.profiles[0]", PATTERN, {**FILE, "profiles": ["a b"]}
    ),
    file(
        "too many profiles",
        "spec.imageEnvs.nvidia.profiles",
        ITEMS,
        {**FILE, "profiles": list(map(str, range(17)))},
    ),
    source("a template's name", "spec.template.name", PATTERN, drop=("imageEnvs",), template={"name": "A b"}),
    source(
        "a parameter's name",
        "spec.template.parameters",
        KEYS,
        drop=("imageEnvs",),
        template={"name": "a", "parameters": {"a b": "c"}},
    ),
    source(
        "a parameter that is no string",
        "spec.template.parameters.a",
        "must be of type string",
        drop=("imageEnvs",),
        template={"name": "a", "parameters": {"a": 1}},
    ),
    source("a short address", "spec.address", PATTERN, drop=("imageEnvs",), address="0x12"),
    source("a payment as a number", "spec.minPayment", "must be of type string", minPayment=100),
    source("a fraction of a wei", "spec.minPayment", PATTERN, minPayment="0.5"),
    source("a negative payment", "spec.minPayment", PATTERN, minPayment="-1"),
    source("a lockup with zeros in front", "spec.minAvailableLockup", PATTERN, minAvailableLockup="007"),
    source("no time at all", "spec.maxExpirySeconds", LEAST, maxExpirySeconds=0),
    source("more than a year", "spec.maxExpirySeconds", MOST, maxExpirySeconds=31_536_001),
    source(
        "a duration with a unit", "spec.maxExpirySeconds", "must be of type integer", maxExpirySeconds="1h"
    ),
    source("another delivery", "spec.deliveryMethod", ENUM, deliveryMethod="firstResponse"),
    source("another mode", "spec.serving.mode", ENUM, serving={"mode": "shared"}),
    source(
        "least above most",
        "spec.serving.minReplicas",
        "must not exceed maxReplicas",
        serving={"mode": "Shared", "minReplicas": 3, "maxReplicas": 2},
    ),
    source("no replicas", "spec.serving.maxReplicas", LEAST, serving={"mode": "Shared", "maxReplicas": 0}),
    source("replicas of Dedicated", "spec.serving.mode", "for mode Shared", serving={"minReplicas": 1}),
    source("a volume's scope", "spec.volumes.models.scope", ENUM, volumes={"models": {"scope": "source"}}),
    source("a volume's size", "spec.volumes.models.size", PATTERN, volumes={"models": {"size": "10 GB"}}),
    source("an empty volume", "spec.volumes[models].size", ZERO, volumes={"models": {"size": "0Gi"}}),
    source("a volume's name", "spec.volumes", KEYS, volumes={"a/b": {}}),
    source("a volume's long name", "spec.volumes", KEYS, volumes={"a" * 129: {}}),
    source("too many volumes", "spec.volumes", ITEMS, volumes={f"v{n}": {} for n in range(65)}),
    source(
        "a schema that is no object", "spec.responseSchema", "must be of type object", responseSchema="object"
    ),
    source(
        "a pull secret twice", "spec.imagePullSecrets[1]", "Duplicate", imagePullSecrets=[{"name": "a"}] * 2
    ),
    source("publish without an account", "spec.publish.accountRef", REQUIRED, publish={}),
    source(
        "publish what is published",
        "spec.publish",
        "can't be combined with address",
        drop=("imageEnvs",),
        address="0x" + "a" * 40,
        publish=ACCOUNT,
    ),
    source("a long title", "spec.info.name", "Too long", info={"name": "a" * 129}),
    source("a script as a picture", "spec.info.logoUrl", PATTERN, info={"logoUrl": "javascript:alert(1)"}),
    source("a text as a switch", "spec.suspend", "must be of type boolean", suspend="yes"),
]

TASKS = [
    call("no source", "spec.sourceRef", REQUIRED, drop=("sourceRef",)),
    call("a source without a name", "spec.sourceRef.name", REQUIRED, sourceRef={}),
    call("a source elsewhere", "spec.sourceRef.name", PATTERN, sourceRef={"name": "other/source"}),
    call("another environment", "spec.environment", ENUM, environment="NVIDIA"),
    call("a function with a slash", "spec.functionName", PATTERN, functionName="../run"),
    call("a function with a dash", "spec.functionName", PATTERN, functionName="my-function"),
    call("an empty function", "spec.functionName", PATTERN, functionName=""),
    call("a long function", "spec.functionName", "Too long", functionName="f" * 129),
    call("data without a function", "spec.data", "set functionName too", drop=("functionName",)),
    call(
        "dataFrom without a function",
        "spec.dataFrom",
        "set functionName too",
        drop=("functionName", "data"),
        dataFrom={"sha1": "a" * 40},
    ),
    call("a function without data", "spec.data", "a call needs data or dataFrom", drop=("data",)),
    call("data twice", "spec.dataFrom", "can't both be set", dataFrom={"sha1": "a" * 40}),
    call("data as a text", "spec.data", "must be of type object", data="hello"),
    call("data as a list", "spec.data", "must be of type object", data=["hello"]),
    call("data with too many keys", "spec.data", ITEMS, data={f"k{n}": n for n in range(1025)}),
    call("dataFrom nowhere", "spec.dataFrom", "exactly one of", drop=("data",), dataFrom={}),
    call(
        "dataFrom twice",
        "spec.dataFrom",
        "exactly one of",
        drop=("data",),
        dataFrom={"sha1": "a" * 40, "configMapKeyRef": KEY},
    ),
    call("a SHA-256 as sha1", "spec.dataFrom.sha1", "Too long", drop=("data",), dataFrom={"sha1": "a" * 64}),
    call("no time at all", "spec.expirySeconds", LEAST, expirySeconds=0),
    call("a float as time", "spec.expirySeconds", "must be of type integer", expirySeconds=1.5),
    call("a payment as a number", "spec.payment", "must be of type string", payment=10),
    call("a payment in hex", "spec.payment", PATTERN, payment="0x10"),
    call("a payment beyond 256 bits", "spec.payment", "Too long", payment="1" * 79),
    job("an empty owner", "spec.owner", "should be at least 1 chars long", owner=""),
    job("an owner with a slash", "spec.owner", PATTERN, owner="../alice"),
    job("a proof of nobody", "spec.ownerProof", "set owner too", ownerProof=PROOF),
    job(
        "a proof without an end",
        "spec.ownerProof.notAfter",
        REQUIRED,
        owner="a",
        ownerProof=without(PROOF, "notAfter"),
    ),
    job(
        "no signature",
        "spec.ownerProof.signature",
        PATTERN,
        owner="a",
        ownerProof={**PROOF, "signature": "x"},
    ),
    job(
        "a moment that never is",
        "spec.ownerProof.notAfter",
        "date-time",
        owner="a",
        ownerProof={**PROOF, "notAfter": "2026-13-01T00:00:00Z"},
    ),
    job(
        "a file by its name",
        "spec.ownerProof.digests[0]",
        PATTERN,
        owner="a",
        ownerProof={**PROOF, "digests": ["compose.yaml"]},
    ),
    job("a port too high", "spec.ports[0]", MOST, ports=[65536]),
    job("port 0", "spec.ports[0]", LEAST, ports=[0]),
    job("a port twice", "spec.ports[1]", "Duplicate", ports=[80, 80]),
    job("the worker's port", "spec.ports", "ports can't hold 5555", ports=[80, 5555]),
    job("a port as a text", "spec.ports[0]", "must be of type integer", ports=["80"]),
    job("too many ports", "spec.ports", ITEMS, ports=list(range(1, 34))),
    job(
        "options of the worker's port", "spec.portOptions", "can't be for 5555", portOptions=[{"port": 5555}]
    ),
    job(
        "options of a port that isn't listed",
        "spec.portOptions",
        "must be for ports that are listed",
        ports=[80],
        portOptions=[{"port": 81}],
    ),
    job("options twice", "spec.portOptions[1]", "Duplicate", portOptions=[{"port": 80}, {"port": 80}]),
    job(
        "an unknown protocol",
        "spec.portOptions[0].protocol",
        ENUM,
        portOptions=[{"port": 80, "protocol": "TCP"}],
    ),
    job(
        "no time for a request",
        "spec.portOptions[0].requestTimeoutSeconds",
        LEAST,
        portOptions=[{"port": 80, "requestTimeoutSeconds": 0}],
    ),
    job(
        "a size with more",
        "spec.portOptions[0].maxBodySize",
        PATTERN,
        portOptions=[{"port": 80, "maxBodySize": "1Mi; x"}],
    ),
    job("an access that says nothing", "spec.access", "must be set", access={}),
    job("an access for nobody", "spec.access.allowedCidrs", "needs an entry", access={"allowedCidrs": []}),
    job(
        "a range that ends a text",
        "spec.access.allowedCidrs[0]",
        PATTERN,
        access={"allowedCidrs": ['10.0.0.0/8") || True("']},
    ),
    job("an address", "spec.access.allowedCidrs[0]", PATTERN, access={"allowedCidrs": ["10.0.0.1"]}),
    job("a token itself", "spec.access.tokenSha256", PATTERN, access={"tokenSha256": "let-me-in"}),
    job(
        "an access of a port that says nothing",
        "spec.portOptions[0].access",
        "must be set",
        portOptions=[{"port": 80, "access": {}}],
    ),
    job("a variable without a name", "spec.env[0].name", REQUIRED, env=[{"value": "a"}]),
    job(
        "a variable without a value", "spec.env[0]", "exactly one of value and valueFrom", env=[{"name": "A"}]
    ),
    job(
        "a variable with two values",
        "spec.env[0]",
        "exactly one of value and valueFrom",
        env=[{"name": "A", "value": "a", "valueFrom": {"secretKeyRef": KEY}}],
    ),
    job("a variable twice", "spec.env[1]", "Duplicate", env=[{"name": "A", "value": "a"}] * 2),
    job("a variable's name", "spec.env[0].name", PATTERN, env=[{"name": "A=B", "value": "a"}]),
    job(
        "a number as a value", "spec.env[0].value", "must be of type string", env=[{"name": "A", "value": 1}]
    ),
    job(
        "a value from nowhere",
        "spec.env[0].valueFrom.secretKeyRef",
        REQUIRED,
        env=[{"name": "A", "valueFrom": {}}],
    ),
    job("a quantity with a blank", "spec.resources.memory", PATTERN, resources={"memory": "8 Gi"}),
    job("a negative quantity", "spec.resources.cpu", PATTERN, resources={"cpu": "-1"}),
    job("no CPU", "spec.resources.cpu", ZERO, resources={"cpu": "0"}),
    job("a number as a quantity", "spec.resources.cpu", "must be of type string", resources={"cpu": 2}),
    job("no GPU", "spec.resources.gpu.count", LEAST, resources={"gpu": {"count": 0}}),
    job("too many GPUs", "spec.resources.gpu.count", MOST, resources={"gpu": {"count": 65}}),
    job(
        "a GPU that no label can name",
        "spec.resources.gpu.product",
        PATTERN,
        resources={"gpu": {"product": "A 100"}},
    ),
    job("a service's name", "spec.services", KEYS, services={"a b": {}}),
    job("a service's long name", "spec.services", KEYS, services={"a" * 129: {}}),
    job("too many services", "spec.services", ITEMS, services={f"s{n}": {} for n in range(65)}),
    job(
        "a variable of a service",
        "spec.services[web].env[0]",
        "exactly one of value and valueFrom",
        services={"web": {"env": [{"name": "A"}]}},
    ),
    job("a main service's name", "spec.mainService", PATTERN, mainService="a b"),
    job("a job's disk", "spec.storage.jobSize", PATTERN, storage={"jobSize": "lots"}),
    job("a user's empty disk", "spec.storage.userSize", ZERO, storage={"userSize": "0"}),
    job("a service twice", "spec.storage.gpuxServices[1]", "Duplicate", storage={"gpuxServices": ["a", "a"]}),
    job("no attempt", "spec.maxAttempts", LEAST, maxAttempts=0),
    job("too many attempts", "spec.maxAttempts", MOST, maxAttempts=101),
    job("a negative time to live", "spec.ttlSecondsAfterFinished", LEAST, ttlSecondsAfterFinished=-1),
    call(
        "deleted and published",
        "spec.ttlSecondsAfterFinished",
        "can't be combined with publish",
        ttlSecondsAfterFinished=1,
        publish=ACCOUNT,
    ),
    job("a published job", "spec.publish", "set functionName too", publish=ACCOUNT),
    call("publish without an account", "spec.publish.accountRef", REQUIRED, publish={}),
    call("an empty confirmation", "spec.confirm.responseId", "at least 1 chars", confirm={"responseId": ""}),
    call("a confirmation of nothing", "spec.confirm.responseId", REQUIRED, confirm={}),
    job("a confirmed job", "spec.confirm", "has no responses", confirm={"responseId": "1"}),
]


def create(api, kind, spec, *, name="case"):
    """Ask the API server what it would say; nothing is stored."""
    return api.request(
        "POST",
        f"/apis/{GROUP}/{VERSION}/namespaces/default/{KINDS[kind]}",
        {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec},
        dryRun="All",
        fieldValidation="Strict",
    )


def assert_refused(answer: tuple[int, Any], field: str, message: str) -> None:
    status, body = answer
    assert status == 422, body
    causes = body["details"]["causes"]
    assert any(cause["field"] == field and message in cause["message"] for cause in causes), causes
    # What kubectl prints holds the field's name too.
    assert field.rpartition(".")[2] in body["message"]


@pytest.mark.parametrize("case", SOURCES, ids=lambda case: case.name)
def test_source_refused(api, case):
    assert_refused(create(api, "OpenGPUSource", case.spec), case.field, case.message)


@pytest.mark.parametrize("case", TASKS, ids=lambda case: case.name)
def test_task_refused(api, case):
    assert_refused(create(api, "OpenGPUTask", case.spec), case.field, case.message)


@pytest.mark.parametrize("kind", KINDS)
def test_spec_is_required(api, kind):
    status, body = api.request(
        "POST",
        f"/apis/{GROUP}/{VERSION}/namespaces/default/{KINDS[kind]}",
        {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": "case"}},
        dryRun="All",
    )
    assert_refused((status, body), "spec", REQUIRED)


@pytest.mark.parametrize(
    ("kind", "spec", "unknown"),
    [
        ("OpenGPUSource", {**SOURCE, "composeUrl": "https://example.com"}, "spec.composeUrl"),
        ("OpenGPUSource", {"imageEnvs": {"intel": FILE, "cpu": FILE}}, "spec.imageEnvs.intel"),
        ("OpenGPUTask", {**CALL, "function_name": "run"}, "spec.function_name"),
        ("OpenGPUTask", {**JOB, "env": [{"name": "A", "value": "a", "vlaue": "b"}]}, "spec.env[0].vlaue"),
        ("OpenGPUTask", {**JOB, "resources": {"gpus": 1}}, "spec.resources.gpus"),
    ],
)
def test_unknown_fields_are_named(api, kind, spec, unknown):
    """kubectl asks for strict validation by itself."""
    status, body = create(api, kind, spec)
    assert status == 400
    assert f'unknown field "{unknown}"' in body["message"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["Upper", "under_score", "a" * 254, "-dash"])
def test_name_refused(api, kind, name):
    status, body = create(api, kind, SOURCE if kind == "OpenGPUSource" else JOB, name=name)
    assert_refused((status, body), "metadata.name", "")


def test_the_table_is_a_table():
    """A name that occurs twice would hide a case in reports."""
    for cases in (SOURCES, TASKS):
        names = [case.name for case in cases]
        assert len(names) == len(set(names))
    assert len(SOURCES) + len(TASKS) >= 60
