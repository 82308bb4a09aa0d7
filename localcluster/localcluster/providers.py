"""Which cluster the commands mean: this tool's own, kind's, or the one the user already has."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from localcluster import addons, binaries, cluster, images, ingresstls
from localcluster.cluster import Wish
from localcluster.commands import run, succeeds
from localcluster.errors import Failure
from localcluster.packages import find
from localcluster.paths import Layout
from localcluster.topology import INGRESS_PORT, tls_port

KIND_CONFIG = Path(__file__).resolve().parents[2] / "kind-config.yaml"


class Provider(Protocol):
    """What every kind of cluster can do, or says why it cannot."""

    def up(self, wish: Wish) -> None: ...
    def down(self) -> None: ...
    def status(self) -> dict[str, Any]: ...
    def load(self, names: Sequence[str]) -> None: ...
    def kubeconfig(self) -> Path: ...
    def ca(self) -> Path: ...
    def node(self, action: str, name: str) -> None: ...
    def build(
        self, tag: str, context: Path, file: Path | None, target: str | None, build_args: Sequence[str]
    ) -> None: ...


class Local:
    """This tool's own cluster."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def up(self, wish: Wish) -> None:
        cluster.up(self._layout, wish)

    def down(self) -> None:
        cluster.down(self._layout)

    def status(self) -> dict[str, Any]:
        return cluster.status(self._layout)

    def load(self, names: Sequence[str]) -> None:
        images.load(self._layout, cluster.running(self._layout), names)

    def kubeconfig(self) -> Path:
        cluster.running(self._layout)
        return self._layout.kubeconfig

    def ca(self) -> Path:
        cluster.running(self._layout)
        return cluster.certificate_authority(self._layout)

    def node(self, action: str, name: str) -> None:
        match action:
            case "stop":
                cluster.stop_node(self._layout, name)
            case "start":
                cluster.start_node(self._layout, name)
            case "reboot":
                cluster.reboot_node(self._layout, name)

    def build(
        self, tag: str, context: Path, file: Path | None, target: str | None, build_args: Sequence[str]
    ) -> None:
        images.build(tag, context, file, target, build_args)


class Kind:
    """A cluster of kind, in Docker."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def up(self, wish: Wish) -> None:
        self._require()
        if wish.control_plane_only:
            raise Failure("kind has no control plane without nodes: use the local provider for that.")
        if self._layout.name not in run(["kind", "get", "clusters"]).split():
            self._say("create", "cluster", "--config", str(KIND_CONFIG), "--wait", "180s")
        programs = ("fakegpu", "skipper")  # kind brings storage and network policies, but neither of these
        binaries.ensure((*programs, "kubectl"))
        for archive in images.program_archives(programs):
            self._say("load", "image-archive", str(archive.path))
        certificates = ingresstls.manifest(ingresstls.ensure(self._layout))
        addons.apply_manifests(self.kubeconfig(), f"{addons.render(addons.PORTABLE)}\n---\n{certificates}")

    def down(self) -> None:
        self._require()
        self._say("delete", "cluster")

    def status(self) -> dict[str, Any]:
        self._require()
        there = self._layout.name in run(["kind", "get", "clusters"]).split()
        return {
            "name": self._layout.name,
            "running": there,
            "problems": [] if there else [f"kind has no cluster {self._layout.name}"],
            "kubeconfig": str(self.kubeconfig()) if there else None,
            "ingressPort": INGRESS_PORT if there else None,
            "ingressTLSPort": tls_port(INGRESS_PORT) if there else None,
        }

    def load(self, names: Sequence[str]) -> None:
        self._require()
        for name in names:
            self._say("load", "image-archive" if Path(name).is_file() else "docker-image", name)

    def kubeconfig(self) -> Path:
        self._require()
        path = self._layout.root / "kind-kubeconfig"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(run(["kind", "get", "kubeconfig", "--name", self._layout.name]))
        return path

    def ca(self) -> Path:
        return cluster.certificate_authority(self._layout)

    def node(self, action: str, name: str) -> None:
        self._require()
        run(["docker", "restart" if action == "reboot" else action, f"{self._layout.name}-{name}"])

    def build(
        self, tag: str, context: Path, file: Path | None, target: str | None, build_args: Sequence[str]
    ) -> None:
        self._require()
        options: list[str] = ["-f", str(file)] if file else []
        options += ["--target", target] if target else []
        for argument in build_args:
            options += ["--build-arg", argument]
        _stream(["docker", "build", *options, "-t", tag, str(context)])

    def _say(self, *arguments: str) -> None:
        _stream(["kind", *arguments, "--name", self._layout.name])

    def _require(self) -> None:
        absent = [program for program in ("docker", "kind") if find(program) is None]
        if absent:
            raise Failure(
                f"kind needs {' and '.join(absent)}, not found on PATH: install what is missing, or use "
                "`--provider local`, which needs no container engine."
            )
        if not succeeds(["docker", "info"]):
            raise Failure(
                "Docker does not answer (`docker info` fails): start it, or use `--provider local`."
            )


class Current:
    """The cluster of the current kubeconfig context, after a guard against the wrong one."""

    def __init__(self, confirmed: str | None, ask: Callable[[str], str] = input) -> None:
        self._confirmed, self._ask = confirmed, ask

    def up(self, wish: Wish) -> None:  # noqa: ARG002 - the cluster is as it is
        context = self._context()
        if self._confirmed is None and sys.stdin.isatty():
            self._confirmed = self._ask(
                f"This will change the cluster of context {context!r}. Type its name: "
            )
        if self._confirmed != context:
            raise Failure(
                f"The current context is {context!r} and was not confirmed: add `--confirm {context}` if it is "
                "the right one, or choose another with `kubectl config use-context`."
            )

    def down(self) -> None:
        raise Failure("localcluster did not make the current context's cluster and will not remove it.")

    def status(self) -> dict[str, Any]:
        ready = succeeds([_kubectl(), "get", "--raw", "/readyz"])
        problem = [] if ready else ["the API server does not answer"]
        return {"name": self._context(), "running": ready, "problems": problem}

    def load(self, names: Sequence[str]) -> None:  # noqa: ARG002 - none can be
        raise Failure(
            "Images cannot be loaded into a cluster that localcluster did not make: push them to a registry "
            "that it pulls from."
        )

    def kubeconfig(self) -> Path:
        return Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube/config")

    def ca(self) -> Path:
        raise Failure(
            "localcluster did not make the current context's cluster and knows no CA of its ingress."
        )

    def node(self, action: str, name: str) -> None:  # noqa: ARG002 - none of them
        raise Failure(
            f"localcluster did not make the current context's cluster and will not {action} its nodes."
        )

    def build(
        self, tag: str, context: Path, file: Path | None, target: str | None, build_args: Sequence[str]
    ) -> None:
        images.build(tag, context, file, target, build_args)

    def _context(self) -> str:
        return run([_kubectl(), "config", "current-context"]).strip()


def _kubectl() -> str:
    return find("kubectl") or str(binaries.ensure(["kubectl"]) / "kubectl")


def _stream(argv: Sequence[str]) -> None:
    """Run a program that speaks to the user itself; standard output stays free."""
    if subprocess.run(argv, stdout=sys.stderr, check=False).returncode != 0:
        raise Failure(f"`{' '.join(argv)}` failed; its own words are above.")


PROVIDERS: dict[str, Callable[[Layout, str | None], Provider]] = {
    "local": lambda layout, _: Local(layout),
    "kind": lambda layout, _: Kind(layout),
    "current": lambda _, confirmed: Current(confirmed),
}


def provider(name: str, layout: Layout, confirmed: str | None) -> Provider:
    """Return the provider that the user chose."""
    return PROVIDERS[name](layout, confirmed)
