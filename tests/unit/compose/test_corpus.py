"""Real public files, as found: each is translated as its expectation says, or refused for its reason."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from opengpu_operator.api.translation import TranslateOptions
from opengpu_operator.cli.main import main
from opengpu_operator.compose import pipeline
from opengpu_operator.compose.kompose import Kompose
from tests.support.compose import VARIABLES
from tests.support.corpus import CORPUS, NO_CORPUS

pytestmark = [
    pytest.mark.skipif(not CORPUS.is_dir(), reason=NO_CORPUS),
    pytest.mark.usefixtures("kompose"),
]
FILES = sorted(CORPUS.glob("*.expect.json"))
MODES = {"default": [], "allprofiles": ["*"]}


def expectation(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.partition(".")[0])
@pytest.mark.parametrize("mode", MODES)
async def test_values(kompose: Kompose, path: Path, mode: str) -> None:
    expected = expectation(path)
    options = TranslateOptions(variables=expected["interpolation_env"], profiles=MODES[mode])
    translation = await pipeline.translate((CORPUS / expected["file"]).read_bytes(), options, kompose=kompose)
    if expected["reject_class"] == "security":
        assert translation.refused
        return
    if expected["reject_class"] == "incomplete":
        found = {finding.reason for finding in translation.findings if finding.severity == "error"}
        assert found <= {"BuildOnly", "RemoteFile"}
        assert found
        return
    assert not translation.refused, translation.findings
    wanted = expected["services"] if mode == "allprofiles" else expected["default_services"]
    assert sorted(entry.name for entry in translation.services) == sorted(wanted)
    for entry in translation.services:
        gpu = expected["gpu"].get(entry.name)
        if gpu is None:
            assert entry.gpu is None
        else:
            assert entry.gpu is not None
            count = None if gpu["count"] == "all" else gpu["count"]
            assert (entry.gpu.vendor.value, entry.gpu.count) == (gpu["vendor"], count)
        waits = expected["depends_on"].get(entry.name, {})
        if entry.joins is None:
            assert {item.service: item.until.value for item in entry.depends_on} == waits
        published = {
            (int(item["published"]), item["target"], item["protocol"].upper())
            for item in expected["published"].get(entry.name, [])
            if item["published"]
        }
        assert published <= {
            (port.published, port.container, port.protocol)
            for port in entry.ports
            if port.published is not None
        }
        assert "host.docker.internal" not in json.dumps(entry.container)


@pytest.mark.parametrize("mode", MODES)
def test_the_score_is_full(tmp_path: Path, mode: str) -> None:
    for path in FILES:
        expected = expectation(path)
        arguments = ["translate", str(CORPUS / expected["file"])]
        for name, value in (VARIABLES | expected["interpolation_env"]).items():
            arguments += ["--var", f"{name}={value}"]
        for profile in MODES[mode]:
            arguments += ["--profile", profile]
        manifest, findings = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(manifest), contextlib.redirect_stderr(findings):
            status = main(arguments)
        assert status in (0, 1), findings.getvalue()
        assert bool(manifest.getvalue()) == (status == 0)
        assert findings.getvalue() or status == 0
        (tmp_path / f"{expected['file'][:2]}.{mode}.yaml").write_text(manifest.getvalue())
    done = subprocess.run(
        [sys.executable, CORPUS / "score.py", tmp_path, "--mode", mode],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = done.stdout.splitlines()
    assert len(rows) >= 18
    assert [row for row in rows if not row.endswith("100.0%")] == []
