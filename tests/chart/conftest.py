"""Renders the chart as Helm does, without a cluster."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "opengpu-operator"


@dataclass
class Rendered:
    """What Helm would send to the API server."""

    objects: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [obj for obj in self.objects if obj["kind"] == kind]

    def get(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = [obj for obj in self.of(kind) if obj["metadata"]["name"] == name]
        return found

    def pod_specs(self) -> dict[str, dict[str, Any]]:
        """Every pod that the chart makes, by the name of what makes it."""
        makers = [*self.of("Deployment"), *self.of("Job")]
        specs = {obj["metadata"]["name"]: obj["spec"]["template"]["spec"] for obj in makers}
        return specs | {obj["metadata"]["name"]: obj["spec"] for obj in self.of("Pod")}


class Helm:
    """The helm program on this chart."""

    def __init__(self, scratch: Path) -> None:
        found = shutil.which("helm", path=f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}")
        assert found, "helm isn't there: run make"
        self._helm = found
        self._scratch = scratch
        self._rendered: dict[str, Rendered] = {}

    def run(self, *arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        file = self._scratch / "values.yaml"
        file.write_text(yaml.safe_dump(values or {}))
        command = [self._helm, *arguments, str(CHART), "--values", str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def template(self, values: dict[str, Any] | None = None) -> Rendered:
        """Render once per values; what is returned is shared between tests."""
        key = json.dumps(values or {}, sort_keys=True)
        if key not in self._rendered:
            self._rendered[key] = self._template(values)
        return self._rendered[key]

    def _template(self, values: dict[str, Any] | None) -> Rendered:
        done = self.run("template", "opengpu", "--namespace", "opengpu-system", values=values)
        assert done.returncode == 0, done.stderr
        return Rendered([obj for obj in yaml.safe_load_all(done.stdout) if obj])

    def refusal(self, values: dict[str, Any]) -> str:
        """Return what Helm says against values that it must refuse."""
        done = self.run("template", "opengpu", values=values)
        assert done.returncode != 0, f"accepted: {values}"
        return done.stderr


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))
