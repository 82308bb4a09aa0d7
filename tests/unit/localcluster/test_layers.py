import hashlib
import json
import tarfile

from localcluster.layers import Exported


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_an_archive_holds_only_what_the_node_lacks(tmp_path):
    config, base, top = b"{}", b"base layer", b"top layer"
    for content in (config, base, top):
        (tmp_path / digest(content).removeprefix("sha256:")).write_bytes(content)
    manifest = json.dumps(
        {
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"digest": digest(config)},
            # A layer may stand in an image twice, in an archive it must not.
            "layers": [{"digest": digest(base)}, {"digest": digest(top)}, {"digest": digest(top)}],
        }
    ).encode()
    archive = tmp_path / "node.tar"
    image = Exported(tmp_path, "localhost/a:dev", "id", manifest)
    image.pack(archive, name="localhost/a:dev", present=[digest(base), digest(b"something else")])
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        member = tar.extractfile("index.json")
        assert member is not None
        index = json.load(member)
    blobs = sorted(f"blobs/{digest(content).replace(':', '/')}" for content in (manifest, config, top))
    assert sorted(name for name in names if name.startswith("blobs/")) == blobs
    (entry,) = index["manifests"]
    assert entry["digest"] == digest(manifest)
    assert entry["annotations"] == {"io.containerd.image.name": "localhost/a:dev"}
