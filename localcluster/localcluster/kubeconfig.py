"""Kubeconfig files."""

import base64
import json
from pathlib import Path

from localcluster.pki import Authority


def _embed(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def render(authority: Authority, client: str, server: str, context: str) -> str:
    """Return a kubeconfig with everything inside it (JSON, which is YAML too)."""
    cluster = {"server": server, "certificate-authority-data": _embed(authority.bundle)}
    user = {
        "client-certificate-data": _embed(authority.certificate(client)),
        "client-key-data": _embed(authority.key(client)),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": context, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }
    return json.dumps(config, indent=1) + "\n"


def write(path: Path, authority: Authority, client: str, server: str, context: str) -> None:
    """Write a kubeconfig that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(render(authority, client, server, context))
    partial.rename(path)
