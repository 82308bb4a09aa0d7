"""Building the cluster's programs from source, once per content of what they are built from."""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster import toolchain
from localcluster.errors import Failure
from localcluster.paths import cache
from localcluster.report import say

KUBERNETES_VERSION = "v1.35.4"

_REPOSITORY = Path(__file__).resolve().parents[2]
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
# Without a version clients see v0.0.0 and refuse features that they look up by version.
_VERSION_FLAGS = " ".join(
    f"-X k8s.io/component-base/version.{key}={value}"
    for key, value in (
        ("gitVersion", KUBERNETES_VERSION),
        ("gitMajor", _MAJOR),
        ("gitMinor", _MINOR),
        ("gitTreeState", "clean"),
    )
)


@dataclass(frozen=True)
class Module:
    """A Go module of the project and the programs that are built from it."""

    name: str
    directory: Path
    programs: Mapping[str, str]
    link_flags: str = "-s -w"

    @property
    def build_flags(self) -> tuple[str, ...]:
        return ("-trimpath", "-tags", "providerless", "-ldflags", self.link_flags)

    def inputs(self, program: str) -> list[Path]:
        """Return the files that decide what a program is: those of the module, and its own if it is ours."""
        pinned = [self.directory / "go.mod", self.directory / "go.sum"]
        return pinned + sorted((self.directory / self.programs[program]).glob("*.go"))

    def digest(self, program: str) -> str:
        """Return the hash of a program's inputs and flags: the name of the build."""
        digest = hashlib.sha256()
        for flag in (*self.build_flags, self.programs[program]):
            digest.update(f"{flag}\0".encode())
        for path in self.inputs(program):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(self.directory)}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()[:16]


# In the order in which others wait for them.
MODULES: Sequence[Module] = (
    Module("kompose", _REPOSITORY / "kompose", {"kompose": "github.com/kubernetes/kompose"}),
    Module("helm", _REPOSITORY / "localcluster/go/helm", {"helm": "helm.sh/helm/v4/cmd/helm"}),
    Module(
        "provisioner",
        _REPOSITORY / "localcluster/go/provisioner",
        {"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
    ),
    Module(
        "versitygw",
        _REPOSITORY / "localcluster/go/versitygw",
        {"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
    ),
    Module(
        "cluster",
        _REPOSITORY / "localcluster/go/cluster",
        {
            "kubectl": "k8s.io/kubernetes/cmd/kubectl",
            "etcd": "go.etcd.io/etcd/server/v3",
            "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
            "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
            "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
            "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
            "kubelet": "k8s.io/kubernetes/cmd/kubelet",
            "coredns": "./coredns",
            "fakegpu": "./fakegpu",
            "pause": "./pause",
            "skipper": "github.com/zalando/skipper/cmd/skipper",
            "kube-network-policies": "sigs.k8s.io/kube-network-policies/cmd",
        },
        f"-s -w {_VERSION_FLAGS}",
    ),
)
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
ALL = tuple(program for module in MODULES for program in module.programs)
CLUSTER = tuple(program for program in ALL if program not in ("kompose", "helm", "versitygw"))


def module_of(program: str) -> Module:
    """Return the module that a program is built from."""
    for module in MODULES:
        if program in module.programs:
            return module
    raise Failure(f"There is no program {program!r} to build; choose among {', '.join(ALL)}.")


def directory() -> Path:
    """Return the one directory that shows all programs: fit for PATH."""
    builds = "".join(module.digest(program) for module in MODULES for program in module.programs)
    digest = hashlib.sha256(builds.encode()).hexdigest()[:16]
    return cache() / "bin" / f"all-{digest}"


def path(program: str) -> Path:
    """Return where a program is once it is built."""
    return cache() / "bin" / f"{program}-{module_of(program).digest(program)}" / program


def ensure(programs: Iterable[str] = ALL) -> Path:
    """Build what is missing and return the directory that holds everything built so far."""
    wanted = [program for program in programs if not path(program).exists()]
    if wanted:
        _build(wanted)
    return _refresh_links()


def _build(programs: Sequence[str]) -> None:
    missing_sources = [m for m in map(module_of, programs) if not (m.directory / "go.sum").exists()]
    if missing_sources:
        raise Failure(
            f"The Go module {missing_sources[0].directory} is not there: localcluster builds from the project's "
            "checkout, so install it from there with `pip install -e ./localcluster`."
        )
    go = toolchain.go()
    say(
        f"Building {len(programs)} programs; the first time takes some minutes, later runs find them in the cache."
    )
    for number, program in enumerate(programs, 1):
        _build_one(go, program, f"[{number}/{len(programs)}] {program}")


def _build_one(go: Path, program: str, title: str) -> None:
    module = module_of(program)
    target = path(program).parent
    target.mkdir(parents=True, exist_ok=True)
    partial = target / f".{program}.{os.getpid()}"
    argv = [go, "build", *module.build_flags, "-o", partial, module.programs[program]]
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    log = target / f".{program}.{os.getpid()}.log"
    start = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(arg) for arg in argv], cwd=module.directory, env=env, stdout=output, stderr=output
        )
        try:
            while (status := _wait(process, 20)) is None:
                say(f"{title} … {time.monotonic() - start:.0f} s so far")
        finally:
            process.kill()
            process.wait()
    if status != 0:
        partial.unlink(missing_ok=True)
        raise Failure(f"Building {program} failed: {log.read_text()[-1500:].strip()}")
    partial.rename(target / program)
    log.unlink()
    say(f"{title} … {time.monotonic() - start:.0f} s")


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _refresh_links() -> Path:
    """Bring the common directory up to date; every link is put in place whole."""
    common = directory()
    common.mkdir(parents=True, exist_ok=True)
    for program in ALL:
        built, link = path(program), common / program
        if built.exists() and not link.is_symlink():
            partial = common / f".{program}.{os.getpid()}"
            partial.symlink_to(built)
            partial.rename(link)
    return common
