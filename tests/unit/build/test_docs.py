"""The documentation: its commands are run by a test or say why not, its links lead somewhere, its names exist."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gpux.blobs import Keeper
from gpux.filestore.backend import FileBlobs
from opengpu_operator.api.reasons import Reason
from opengpu_operator.compose.findings import RULES
from opengpu_operator.desired.findings import RULES as JOB_RULES
from opengpu_operator.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
]

#: Commands that a test runs, each with the file that does; with other arguments they are the same commands.
RUN = {
    "make demo": "tests/demo/test_demo.py",
    "make test": ".ci/run",
    **dict.fromkeys(
        (
            "opengpu translate demo/compose/nvidia.yaml",
            "opengpu lint demo/compose/nvidia.yaml",
            "opengpu lint cpu=demo/compose/cpu.yaml nvidia=demo/compose/nvidia.yaml amd=demo/compose/amd.yaml",
            "opengpu lint --format json demo/compose/cpu.yaml",
            "opengpu lint --format sarif demo/compose/cpu.yaml",
        ),
        "tests/unit/cli/test_lint.py",
    ),
}
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\s*\Z")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield what stands before each block of commands, and its commands."""
    for match in re.finditer(r"^```(sh|bash|shell|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = [
            line for line in match[2].replace("\\\n", " ").splitlines() if line and not line.startswith("#")
        ]
        if match[1] == "console":
            # What is typed stands after a prompt, what is printed doesn't.
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        yield text[: match.start()], lines


def commands_of(page: Path) -> list[str]:
    """Return the commands of a page that aren't said to be not run, in their order."""
    return [
        command
        for before, commands in blocks(page.read_text())
        if not NOT_RUN.search(before)
        for command in commands
    ]


#: Whose commands one test runs all, in their order.
RUN |= dict.fromkeys(commands_of(ROOT / "docs" / "files.md"), "tests/e2e/test_external.py")

each_page = pytest.mark.parametrize("page", PAGES, ids=name)


@each_page
def test_commands_are_run_by_a_test_or_say_why_not(page: Path) -> None:
    for command in commands_of(page):
        assert command in RUN, f"{command!r} is run by no test: add the test, or say <!-- not run: why -->"


def test_commands_are_really_run() -> None:
    for command, file in RUN.items():
        assert (ROOT / file).is_file(), f"{file}, which is to run {command!r}, isn't there"


@each_page
def test_commands_can_be_read_by_a_shell(page: Path) -> None:
    for _, commands in blocks(page.read_text()):
        for command in commands:
            assert shlex.split(command)


@each_page
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z0-9-]*)", page.read_text(), re.MULTILINE))
    assert named <= targets


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"`[^`\n]*`", "code", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), target


@each_page
def test_settings_that_are_named_exist(page: Path) -> None:
    """`settings.routes.domain` and the like."""
    defaults = Settings().model_dump(mode="json", by_alias=True)
    for dotted in re.findall(r"`settings\.([a-zA-Z.]+)", page.read_text()):
        node = defaults
        for part in dotted.split("."):
            assert isinstance(node, dict), dotted
            assert part in node, dotted
            node = node[part]


def test_values_that_are_named_exist() -> None:
    values = yaml.safe_load((ROOT / "charts" / "opengpu-operator" / "values.yaml").read_text())
    text = (ROOT / "docs" / "operations.md").read_text()
    named = re.findall(
        r"(?:--set |`)((?:image|agent|store|rbac|crds|routes|uninstall|serviceMonitor|networkPolicy)\.[a-zA-Z0-9.]+)",
        text,
    )
    assert len(named) > 5
    for dotted in named:
        node = values
        for part in dotted.split("."):
            assert part in node, dotted
            node = node[part]


@pytest.mark.parametrize("page", ["docs/failure-modes.md", "docs/troubleshooting.md", "docs/concepts.md"])
def test_reasons_that_are_named_exist(page: str) -> None:
    known = {reason.value for reason in (*Reason, *RULES, *JOB_RULES)}
    # Fields and modes are spelled like reasons; these are the ones that the pages name.
    others = {
        "Auto",
        "NodeLocal",
        "Pending",
        "Ready",
        "Reconciling",
        "Routed",
        "Stalled",
        "Complete",
        "Failed",
        "Shared",
        "StorageSized",
    }
    others |= {"OpenGPUSource", "OpenGPUTask"}
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][A-Za-z]*)*)(?::[^`]*)?`", (ROOT / page).read_text()))
    assert named - others <= known


def test_every_finding_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "findings.md").read_text()
    in_file, _, in_job = text.partition("\n## In a job\n")
    for page, rules in ((in_file, RULES), (in_job, JOB_RULES)):
        listed = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", page, re.MULTILINE)
        assert sorted(listed) == sorted((reason.value, *rule[1:]) for reason, rule in rules.items())


def test_decisions_are_listed() -> None:
    files = {f"adr/{path.name}" for path in (ROOT / "docs" / "adr").glob("*.md")}
    listed = set(re.findall(r"\((adr/[^)]+)\)", (ROOT / "docs" / "index.md").read_text()))
    assert listed == files
    for file in files:
        text = (ROOT / "docs" / file).read_text()
        assert text.startswith(f"# {int(Path(file).name[:4])}. ")
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Consequences", "Rejected"))


def test_a_report_is_read_from_the_stores_volume_as_troubleshooting_says(tmp_path: Path) -> None:
    upload = FileBlobs(str(tmp_path)).begin(size=None)
    for take in (upload.write, upload.update_sha1, upload.update_sha256):
        take(b"{}")
    blob, _ = upload.commit(Keeper("team", {}))
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    (command,) = (
        command for _, commands in blocks(text) for command in commands if "opengpu-store" in command
    )
    *_, shell, option, script = shlex.split(command)
    script = script.replace("/data", str(tmp_path)).replace("NAMESPACE", "team")
    done = subprocess.run([shell, option, script.replace("SHA1", blob.sha1)], capture_output=True, check=True)
    assert done.stdout == b"{}"
    missing = subprocess.run([shell, option, script], capture_output=True, check=False)
    assert (missing.returncode, missing.stdout) == (1, b"")


def test_every_reference_page_is_linked() -> None:
    text = (ROOT / "docs" / "index.md").read_text()
    for path in (ROOT / "docs" / "reference").glob("*.md"):
        assert f"(reference/{path.name})" in text
