"""``make demo`` and ``make demo-down``, as a newcomer types them, on a cluster of their own."""

from __future__ import annotations

import re
import subprocess
import sys

from demo.show import IMAGES
from localcluster import packages
from localcluster.paths import Layout
from tests.e2e.fixtures import ROOT, environment, program
from tests.support import machine

NAME = "demo-test"


def make(target: str) -> str:
    """Run a target of the Makefile, showing its output as it comes; return what it printed."""
    command = ["make", target, f"NAME={NAME}"]
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line)
    text = "".join(lines)
    assert process.returncode == 0, text[-4000:]
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def traces() -> set[str]:
    """Return what there is of the demo on this machine: its cluster and its images."""
    form = "{{.Name}}:{{.Tag}}"
    buildah = packages.find("buildah")
    built = program(buildah, "images", "--format", form).split() if buildah else []
    return machine.traces(NAME, Layout(NAME).root) | {f"image {image}" for image in built if image in IMAGES}


def test_the_demo_shows_right_answers_and_leaves_nothing_behind(measured):
    before = {trace for trace in traces() if not trace.startswith("image ")}
    try:
        shown = make("demo")
        # Two pictures in three environments, each answer held against the model outside the cluster.
        assert len(re.findall(r"Finalized", shown)) >= 6, shown
        assert "GPUs are fake" in shown
        measured(f"make demo: {shown.partition('All answers are right. ')[2].partition(chr(10))[0]}")
        assert re.search(r"http://[0-9a-v]{16}-\d+\.gpux\.localhost", shown)
        # What is looked for afterwards is what a running demo has; the nodes' mounts are in namespaces of their own.
        kinds = {trace.partition(" ")[0] for trace in traces() - before}
        assert kinds >= {"process", "link", "rule", "cgroup", "state", "image"}
    finally:
        make("demo-down")
    assert traces() - before == set()
