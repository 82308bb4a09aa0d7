"""OpenGPU's own Compose files, unmodified, from their URLs to the answer, in every environment that they offer."""

from __future__ import annotations

import base64
import json

import pytest

from tests.e2e.fixtures import corpus_files
from tests.e2e.kit import Cluster
from tests.e2e.objects import API_VERSION, task
from tests.support.corpus import CORPUS, NO_CORPUS

pytestmark = pytest.mark.e2e

QUESTION = "why is the sky blue"
CHAT = {"messages": [{"role": "user", "content": QUESTION}]}
PROMPT = {"prompt": "an astronaut on a horse"}
PIPELINE = {"task": "visual-question-answering", "model": "dandelin/vilt-b32-finetuned-vqa"}
INFERENCE = {"input": {"image": "https://example.org/x.png", "question": "what?"}, "args": {"top_k": 1}}

# Each source as its project publishes it: environments and the number of the file that each has.
SOURCES = {
    "chat": {"cpu": "61", "nvidia": "01", "amd": "48"},
    "painter": {"nvidia": "02"},
    "pipeline": {"nvidia": "03"},
}
CALLS = {"chat": ("text2text", CHAT), "painter": ("text2image", PROMPT), "pipeline": ("inference", INFERENCE)}
TASKS = [(source, environment) for source, offered in SOURCES.items() for environment in offered]


@pytest.fixture(scope="module")
def tasks(operator: Cluster, namespace: str, files: str) -> None:
    """All tasks at once."""
    names = {number: path.name for number, path in corpus_files().items()}
    for name, offered in SOURCES.items():
        urls = {
            environment: {"composeUrl": f"{files}/{names[number]}"} for environment, number in offered.items()
        }
        source = {
            "apiVersion": API_VERSION,
            "kind": "OpenGPUSource",
            "metadata": {"name": name},
            "spec": {"imageEnvs": urls},
        }
        operator.apply(namespace, source)
    operator.apply(
        namespace,
        *(
            task(f"{name}-{environment}", name, *CALLS[name], environment=environment)
            for name, environment in TASKS
        ),
    )


@pytest.mark.skipif(
    not CORPUS.is_dir(),
    reason=f"{NO_CORPUS}; files of the same shape ran instead",
)
def test_the_files_are_opengpus_own() -> None:
    assert all(path.parent == CORPUS for path in corpus_files().values())
    assert set(corpus_files()) == {number for offered in SOURCES.values() for number in offered.values()}


@pytest.mark.parametrize("environment", ["cpu", "nvidia", "amd"])
def test_chat(operator: Cluster, namespace: str, tasks: None, environment: str) -> None:
    answer = operator.answer(namespace, f"chat-{environment}", timeout=180)
    assert answer["role"] == "assistant"
    content = json.loads(answer["content"])
    assert content["text"] == "blue sky the is why"
    # The GPU is on ollama, the sidecar; the worker, whose answer this is, has none in any environment.
    assert answer["devices"].get("NVIDIA_VISIBLE_DEVICES", "void") == "void"
    assert "AMD_VISIBLE_DEVICES" not in answer["devices"]
    if environment == "nvidia":
        assert "-nvidia-" in content["devices"]["NVIDIA_VISIBLE_DEVICES"]
    elif environment == "amd":
        assert "-amd-" in content["devices"]["AMD_VISIBLE_DEVICES"]
    else:
        assert content["devices"].get("NVIDIA_VISIBLE_DEVICES", "void") == "void"
    assert operator.task(namespace, f"chat-{environment}")["status"]["environment"] == environment


def test_painter(operator: Cluster, namespace: str, tasks: None) -> None:
    answer = operator.answer(namespace, "painter-nvidia", timeout=180)
    png = base64.b64decode(answer["image_base64"])
    assert png.startswith(b"\x89PNG")
    comment = json.loads(png.partition(b"Comment\0")[2].partition(b"}}")[0] + b"}}")
    assert comment["prompt"] == PROMPT["prompt"]
    assert "-nvidia-" in comment["devices"]["NVIDIA_VISIBLE_DEVICES"]


def test_pipeline(operator: Cluster, namespace: str, tasks: None) -> None:
    result = operator.answer(namespace, "pipeline-nvidia", timeout=180)["result"]
    assert result["input"] == INFERENCE["input"]
    assert result["args"] == INFERENCE["args"]
    assert result["pipeline"] == PIPELINE
    assert "-nvidia-" in result["devices"]["NVIDIA_VISIBLE_DEVICES"]


def test_the_source_shows_what_it_offers(operator: Cluster, namespace: str, tasks: None) -> None:
    operator.answer(namespace, "chat-cpu", timeout=180)
    shown = operator.kubectl("-n", namespace, "get", "ogs", "chat")
    assert "cpu,nvidia,amd" in shown, shown
