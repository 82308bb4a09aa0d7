"""Images out of buildah's storage, layer by layer: what a node has already isn't packed, read or unpacked again.

A docker-archive always holds every layer, and most images here share a base of a few hundred megabytes. So images are
written into one directory in which equal layers are one file, and each node is given an archive of what it lacks.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.commands import run
from localcluster.packages import find


@dataclass(frozen=True)
class Exported:
    """An image in a directory: its manifest as bytes, its config and layers as files named by their digest."""

    directory: Path
    reference: str
    image_id: str
    manifest: bytes

    def pack(self, path: Path, *, name: str, present: Collection[str]) -> None:
        """Write an OCI archive that names the image ``name``, without the blobs ``present`` in the node."""
        manifest: dict[str, Any] = json.loads(self.manifest)
        digest = f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"
        entry = {
            "mediaType": manifest["mediaType"],
            "size": len(self.manifest),
            "digest": digest,
            "annotations": {"io.containerd.image.name": name},
        }
        index = {"schemaVersion": 2, "manifests": [entry]}
        with tarfile.open(path, "w") as tar:
            _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
            _add(tar, "index.json", json.dumps(index).encode())
            _add(tar, _blob(digest), self.manifest)
            for blob in {part["digest"] for part in (manifest["config"], *manifest["layers"])} - set(present):
                tar.add(self.directory / blob.removeprefix("sha256:"), _blob(blob))


def export(reference: str, image_id: str, directory: Path) -> Exported:
    """Write an image from buildah's storage into a directory, which may hold others."""
    buildah = find("buildah") or "buildah"
    # Uncompressed, since nothing here crosses a network; in Docker's form, which keeps the image's id.
    run([buildah, "push", "--quiet", "-D", "--format", "v2s2", reference, f"dir:{directory}"])
    return Exported(directory, reference, image_id, (directory / "manifest.json").read_bytes())


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
