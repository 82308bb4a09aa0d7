"""What the API server accepts: the examples, and the edges of what is allowed, stored exactly as they were sent."""

from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.controlplane

API = "/apis/opengpu.network/v1alpha1"
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
PLURALS = {"OpenGPUSource": "opengpusources", "OpenGPUTask": "opengputasks"}

FILE = {"composeUrl": "https://example.com/compose.yaml"}
KEY = {"name": "object", "key": "key"}
CALL = {"sourceRef": {"name": "source"}, "functionName": "run", "data": {}}
JOB = {"sourceRef": {"name": "source"}}

SOURCES = {
    "one file": {"imageEnvs": {"amd": FILE}},
    "all files": {
        "imageEnvs": {
            "cpu": {"composeUrl": "http://files.internal:8080/a?b=c#d", "sha256": "0" * 64},
            "nvidia": {"configMapKeyRef": {"name": "a.b", "key": "_Compose.yaml"}},
            "amd": {"composeUrl": "https://[2001:db8::1]/" + "a" * 2026},
        }
    },
    "profiles": {
        "imageEnvs": {"cpu": {**FILE, "profiles": ["*", "a.B-c_1"]}, "amd": {**FILE, "profiles": []}}
    },
    "an @ in a path": {"imageEnvs": {"cpu": {"composeUrl": "https://example.com/@me/compose.yaml"}}},
    "template": {"template": {"name": "hugging-face", "parameters": {"model": "", "a.b-c_d": "x" * 4096}}},
    "address": {"address": "0x" + "aB" * 20},
    "no payment": {"imageEnvs": {"cpu": FILE}, "minPayment": "0"},
    "all wei there can be": {"imageEnvs": {"cpu": FILE}, "minPayment": str(2**256 - 1)},
    "a year": {"imageEnvs": {"cpu": FILE}, "maxExpirySeconds": 31_536_000},
    "shared, asleep": {
        "imageEnvs": {"cpu": FILE},
        "serving": {"mode": "Shared", "minReplicas": 0, "maxReplicas": 1, "idleSeconds": 0},
    },
    "shared, fixed": {
        "imageEnvs": {"cpu": FILE},
        "serving": {"mode": "Shared", "minReplicas": 2, "maxReplicas": 2},
    },
    "Dedicated, said": {"imageEnvs": {"cpu": FILE}, "serving": {"mode": "Dedicated"}},
    "volumes": {
        "imageEnvs": {"cpu": FILE},
        "volumes": {f"Vol_{n}.x": {"scope": "Task", "size": "0.5Gi"} for n in range(64)},
    },
    "a volume without a word": {"imageEnvs": {"cpu": FILE}, "volumes": {"v" * 128: {}}},
    "a schema of any shape": {
        "imageEnvs": {"cpu": FILE},
        "responseSchema": {"type": "object", "properties": {"a": {"enum": [1, None, "x", [True]]}}},
    },
    "pull secrets": {"imageEnvs": {"cpu": FILE}, "imagePullSecrets": [{"name": "a"}, {"name": "b"}]},
    "published": {"imageEnvs": {"cpu": FILE}, "publish": {"accountRef": {"name": "account"}}},
    "suspended": {"imageEnvs": {"cpu": FILE}, "suspend": True},
    "no logo": {"imageEnvs": {"cpu": FILE}, "info": {"name": "Ünï", "description": "", "logoUrl": ""}},
}

TASKS = {
    "the least job": JOB,
    "the least call": CALL,
    "data of any shape": {**CALL, "data": {"a": [1, 2.5, None, {"b": {"c": "ü"}}], "": "", "d e": True}},
    "data with many keys": {**CALL, "data": {f"k{n}": n for n in range(1024)}},
    "data of 64 KiB": {**CALL, "data": {"text": "x" * 65_525}},
    "data by hash": {**JOB, "functionName": "_f", "dataFrom": {"sha1": "0" * 40}},
    "data by reference": {**JOB, "functionName": "F9", "dataFrom": {"configMapKeyRef": KEY}},
    "a long function": {**CALL, "functionName": "f" * 128},
    "every environment, chosen": {**JOB, "environment": "Auto"},
    "an address as owner": {**JOB, "owner": "0x" + "a" * 40},
    "a mail address as owner": {**JOB, "owner": "a.b_c-d@example.com"},
    "ports": {**JOB, "ports": [1, 65535, 5554, 5556]},
    "no ports": {**JOB, "ports": []},
    "options of ports": {
        **JOB,
        "ports": [80, 81],
        "access": {"allowedCidrs": ["0.0.0.0/0", "::/0", "2001:db8:1234:5678:9abc:def0:255.255.255.255/128"]},
        "portOptions": [
            {"port": 80, "protocol": "GRPC", "requestTimeoutSeconds": 86400, "maxBodySize": "1Ti"},
            {"port": 81, "access": {"allowedCidrs": ["192.0.2.0/24"], "tokenSha256": "0a" * 32}},
        ],
    },
    "as many options as may be": {**JOB, "portOptions": [{"port": port} for port in range(1, 33)]},
    "an empty value": {**JOB, "env": [{"name": "A", "value": ""}]},
    "a value from a Secret": {**JOB, "env": [{"name": "a.b-C", "valueFrom": {"secretKeyRef": KEY}}]},
    "resources": {
        **JOB,
        "resources": {
            "cpu": "0.5",
            "memory": "1.5Gi",
            "ephemeralStorage": "100M",
            "gpu": {"count": 64, "product": "NVIDIA-A100-SXM4-80GB", "memory": "80Gi"},
        },
    },
    "services": {
        **JOB,
        "services": {"my_db.1": {"env": [{"name": "A", "value": "a"}], "resources": {"cpu": "1m"}}},
    },
    "many services": {**JOB, "services": {f"s{n}": {} for n in range(64)}},
    "storage": {**JOB, "storage": {"jobSize": "1Gi", "userSize": "1Ti", "gpuxServices": ["a", "B_c"]}},
    "proven": {
        **JOB,
        "owner": "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF",
        "ownerProof": {
            "signature": f"{'A' * 86}==",
            "notAfter": "2026-12-01T00:00:00Z",
            "digests": [f"sha256:{digit * 64}" for digit in "01"],
        },
    },
    "deleted at once": {**JOB, "ttlSecondsAfterFinished": 0},
    "published": {**CALL, "publish": {"accountRef": {"name": "account"}}, "payment": "1"},
    "confirmed from the start": {**CALL, "confirm": {"responseId": "1"}},
    "suspended": {**JOB, "suspend": False},
}

CASES = [("OpenGPUSource", name, spec) for name, spec in SOURCES.items()] + [
    ("OpenGPUTask", name, spec) for name, spec in TASKS.items()
]


def post(api, kind, spec, *, namespace="default", name="case", **query):
    document = {
        "apiVersion": "opengpu.network/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    path = f"{API}/namespaces/{namespace}/{PLURALS[kind]}"
    return api.request("POST", path, document, fieldValidation="Strict", **query)


@pytest.mark.parametrize(("kind", "name", "spec"), CASES, ids=[f"{kind}: {name}" for kind, name, _ in CASES])
def test_accepted_as_it_is(api, kind, name, spec):
    """Nothing is added, so GitOps tools see no drift; nothing is lost."""
    status, body = post(api, kind, spec, dryRun="All")
    assert status == 201, body
    assert body["spec"] == spec
    assert "status" not in body


@pytest.mark.parametrize("name", ["a", "with.dots-and-dashes", "a" * 253])
def test_names(api, name):
    """Any object name will do: what must be a DNS label or a label's value is hashed by the operator."""
    assert post(api, "OpenGPUTask", JOB, name=name, dryRun="All")[0] == 201
    assert post(api, "OpenGPUSource", SOURCES["one file"], name=name, dryRun="All")[0] == 201


def test_null_is_absent(api):
    """What templates leave empty is dropped, and never stored as null."""
    status, body = post(
        api, "OpenGPUTask", {**JOB, "suspend": None, "ports": None, "resources": None}, dryRun="All"
    )
    assert status == 201, body
    assert body["spec"] == JOB


def test_the_largest_object_fits_the_budget(api):
    """The API server gives up on rules that cost too much; the largest object that bounds allow must not cost that."""
    env = [{"name": f"NAME_{n}", "value": "x"} for n in range(128)]
    services = {
        f"{n:02}" + "s" * 126: {"env": env, "resources": {"cpu": "1", "memory": "1Gi"}} for n in range(64)
    }
    status, body = post(api, "OpenGPUTask", {**JOB, "env": env, "services": services}, dryRun="All")
    assert status == 201, body


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples(api, file):
    result = api.kubectl("create", "--dry-run=server", "--validate=strict", "-f", str(file))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("created (server dry run)") == len(list(yaml.safe_load_all(file.read_text())))


def test_there_are_examples():
    assert len(EXAMPLES) >= 5
