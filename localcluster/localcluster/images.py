"""Images: those of the cluster's own pods, building with buildah, and loading into the nodes."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from localcluster import binaries, layers, node, packages
from localcluster.archive import Archive, write
from localcluster.commands import Argument, run, succeeds
from localcluster.errors import Failure
from localcluster.nodeconfig import PAUSE_IMAGE
from localcluster.packages import find
from localcluster.paths import Layout, cache
from localcluster.report import say, step
from localcluster.topology import Node, Topology

BASE_IMAGE = "localhost/base:bookworm"
_BASE_PACKAGES = "python3,python3-venv,ca-certificates,curl,jq"
_ID_LABEL = "localcluster.image-id"
# The programs that run as pods, and under which names.
_PODS = {
    "fakegpu": "localhost/localcluster/fakegpu:1",
    "coredns": "localhost/localcluster/coredns:1",
    "skipper": "localhost/localcluster/skipper:1",
    "kube-network-policies": "localhost/localcluster/kube-network-policies:1",
    "local-path-provisioner": "localhost/localcluster/local-path-provisioner:1",
    "pause": PAUSE_IMAGE,
}
_BUSYBOX = "docker.io/library/busybox:stable"


def system_archives() -> list[Archive]:
    """Return the images that the cluster's own pods need."""
    busybox = packages.busybox()
    assert busybox is not None
    shell = {"bin/busybox": busybox, "bin/sh": busybox}
    return [*program_archives(_PODS), _cached("busybox", _BUSYBOX, shell, ["/bin/sh"])]


def program_archives(programs: Iterable[str]) -> list[Archive]:
    """Return images ``FROM scratch`` of programs that run as pods."""
    return [
        _cached(name, _PODS[name], {f"bin/{name}": binaries.path(name)}, [f"/bin/{name}"])
        for name in programs
    ]


def _cached(name: str, reference: str, content: dict[str, Path], entrypoint: list[str]) -> Archive:
    """Return an image archive, written into the cache once per build of the programs."""
    path = binaries.directory() / "images" / f"{name}.tar"
    path.parent.mkdir(exist_ok=True)
    return Archive.open(path) if path.exists() else write(path, reference, content, entrypoint)


def load_archives(layout: Layout, topology: Topology, archives: Sequence[Archive]) -> None:
    """Load image archives into every node, all nodes at once, skipping what a node already has."""

    def into(target: Node) -> None:
        present = _present(layout, target)
        for archive in archives:
            if present.get(_full(archive.reference)) != archive.image_id:
                _import(layout, target, archive.path, archive.reference, archive.image_id)

    _everywhere(topology.nodes, into)


def load(layout: Layout, topology: Topology, names: Iterable[str]) -> None:
    """Load images given as docker-archive files or as names in buildah's local storage."""
    with tempfile.TemporaryDirectory(dir=_scratch()) as scratch:
        for name in names:
            with step(f"load {name}"):
                if Path(name).is_file():
                    load_archives(layout, topology, [Archive.open(Path(name))])
                else:
                    _load_built(layout, topology, name, Path(scratch))


def _load_built(layout: Layout, topology: Topology, name: str, scratch: Path) -> None:
    """Load an image from buildah's storage into every node that lacks it."""
    reference, image_id = _built(name)
    full = _full(reference)
    lacking = [target for target in topology.nodes if _present(layout, target).get(full) != image_id]
    if not lacking:
        return
    blobs = scratch / "blobs"
    blobs.mkdir(exist_ok=True)
    exported = layers.export(reference, image_id, blobs)

    def into(target: Node) -> None:
        present = run([*node.ctr(layout, target), "content", "ls", "-q"]).split()
        path = scratch / f"{target.name}.tar"
        exported.pack(path, name=full, present=present)
        _import(layout, target, path, reference, image_id)

    _everywhere(lacking, into)


def _built(name: str) -> tuple[str, str]:
    """Return the full name and the id of an image in buildah's storage."""
    packages.ensure(packages.missing(packages.IMAGE_PROGRAMS))
    if name == BASE_IMAGE:
        ensure_base()
    listed = subprocess.run(
        [
            find("buildah") or "buildah",
            *["images", "--no-trunc", "--format", "{{.ID}} {{.Name}}:{{.Tag}}", name],
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0 or not listed.stdout.strip():
        raise Failure(
            f"There is no image {name!r} in buildah's storage and no such file: "
            "build it first with `localcluster build -t …`."
        )
    image_id, reference = listed.stdout.split()[:2]
    return reference, image_id.removeprefix("sha256:")


def _import(layout: Layout, target: Node, archive: Path, reference: str, image_id: str) -> None:
    run([*node.ctr(layout, target), "images", "import", archive])
    label = f"{_ID_LABEL}={image_id}"
    run([*node.ctr(layout, target), "images", "label", _full(reference), label])


def _everywhere(nodes: Iterable[Node], action: Callable[[Node], None]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(action, nodes))


def _present(layout: Layout, target: Node) -> dict[str, str]:
    """Return the images that were loaded into a node: name to image id."""
    found = {}
    for line in run([*node.ctr(layout, target), "images", "ls"]).splitlines()[1:]:
        name, *_, labels = line.split()
        for label in labels.split(","):
            key, _, value = label.partition("=")
            if key == _ID_LABEL:
                found[name] = value
    return found


def _full(reference: str) -> str:
    """Return a reference as containerd stores it: with the registry that a short name stands for."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    return f"docker.io/{reference}" if slash else f"docker.io/library/{reference}"


def build(tag: str, context: Path, file: Path | None, target: str | None, build_args: Sequence[str]) -> None:
    """Build an image from a Dockerfile, without a container engine."""
    packages.ensure(packages.missing(packages.IMAGE_PROGRAMS))
    arguments = list(build_args)
    if not any(argument.startswith("BASE_IMAGE=") for argument in arguments):
        ensure_base()
        arguments.append(f"BASE_IMAGE={BASE_IMAGE}")
    options: list[Argument] = [
        "--isolation",
        "chroot",
        "--network",
        "host",
        "--layers",
        "--format",
        "docker",
    ]
    if bundle := certificate_bundle():
        # Mounted for the build alone: a private registry's authority must not end up in the image.
        options += ["-v", f"{bundle}:/run/ca.crt:ro"]
        arguments.append("PIP_CERT=/run/ca.crt")
    if file:
        options += ["-f", file]
    if target:
        options += ["--target", target]
    for argument in arguments:
        options += ["--build-arg", argument]
    argv = [find("buildah") or "buildah", "bud", *options, "-t", tag, context]
    done = subprocess.run([str(arg) for arg in argv], stdin=subprocess.DEVNULL, stdout=2, check=False)
    if done.returncode != 0:
        raise Failure(f"Building {tag} failed; buildah's own words are above.")


def certificate_bundle() -> Path | None:
    """Return the machine's certificate bundle where one is named by the environment."""
    for variable in ("PIP_CERT", "SSL_CERT_FILE"):
        if (value := os.environ.get(variable)) and Path(value).is_file():
            return Path(value)
    return None


def ensure_base() -> None:
    """Make the base image, a minimal Debian with Python, unless buildah has it."""
    buildah = find("buildah") or "buildah"
    if succeeds([buildah, "inspect", "--type", "image", BASE_IMAGE]):
        return
    say(f"Making {BASE_IMAGE}, once")
    with step("base image"), tempfile.TemporaryDirectory(dir=_scratch()) as scratch:
        root = Path(scratch) / "base.tar"
        mmdebstrap = find("mmdebstrap") or "mmdebstrap"
        options = ["--variant=minbase", f"--include={_BASE_PACKAGES}", f"--keyring={packages.DEBIAN_KEYRING}"]
        run([mmdebstrap, *options, "bookworm", root])
        dockerfile = Path(scratch) / "Dockerfile"
        dockerfile.write_text('FROM scratch\nADD base.tar /\nCMD ["/bin/bash"]\n')
        run([buildah, "bud", "--isolation", "chroot", "--format", "docker", "-t", BASE_IMAGE, scratch])


def _scratch() -> Path:
    """Return a directory with room for a root file system; /tmp may be small."""
    path = cache() / "tmp"
    path.mkdir(parents=True, exist_ok=True)
    return path
