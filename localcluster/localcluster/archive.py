"""Images without a registry: docker-archive files, written here for programs that need no base."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import Failure


@dataclass(frozen=True)
class Archive:
    """A docker-archive file that holds one image."""

    path: Path
    reference: str
    image_id: str

    @classmethod
    def open(cls, path: Path) -> "Archive":
        """Read what a docker-archive file holds."""
        try:
            with tarfile.open(path) as tar:
                member = tar.extractfile("manifest.json")
                assert member is not None
                (manifest,) = json.load(member)
            reference = manifest["RepoTags"][0]
        except (OSError, tarfile.TarError, KeyError, ValueError, IndexError, TypeError) as error:
            raise Failure(
                f"{path} is not a docker-archive file with one named image ({error}); "
                "make one with `buildah push IMAGE docker-archive:FILE:IMAGE`."
            ) from error
        return cls(path, reference, Path(manifest["Config"]).stem)


def write(path: Path, reference: str, files: Mapping[str, Path], entrypoint: Sequence[str]) -> Archive:
    """Write an image ``FROM scratch``: the same content always yields the same bytes, hence the same id."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for directory in sorted({str(p) for f in files for p in Path(f).parents if p.name} | {"tmp"}):
            tar.addfile(_entry(directory, tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755))
        for name, source in sorted(files.items()):
            content = source.read_bytes()
            entry = _entry(name, tarfile.REGTYPE, 0o755)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    layer_bytes = layer.getvalue()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer_bytes).hexdigest()}"]},
        }
    ).encode()
    image_id = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{image_id}.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        for name, content in (
            ("layer.tar", layer_bytes),
            (f"{image_id}.json", config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = _entry(name, tarfile.REGTYPE, 0o644)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    partial.rename(path)
    return Archive(path, reference, image_id)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry
