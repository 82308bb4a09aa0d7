"""Inline configs and secrets of the file: one ConfigMap and one Secret per job, mounted file by file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opengpu_operator.api.translation import FileMount, Service, Translation
from opengpu_operator.desired import labels, names
from opengpu_operator.desired.context import JobContext

Object = dict[str, Any]

_VOLUMES = {False: "files", True: "secrets"}
#: Compose's default.
_MODE = 0o444


def objects(translation: Translation, context: JobContext) -> list[Object]:
    """Return the ConfigMap and the Secret with the files that are mounted anywhere."""
    used = {mount.file for service in translation.services for mount in service.files}
    found: list[Object] = []
    for secret, kind, field in ((False, "ConfigMap", "data"), (True, "Secret", "stringData")):
        content = {
            key: file.content
            for key, file in translation.files.items()
            if key in used and file.secret is secret
        }
        if content:
            obj: Object = {
                "apiVersion": "v1",
                "kind": kind,
                "metadata": labels.metadata(
                    names.child(context.name, _VOLUMES[secret]),
                    context,
                    labels=labels.of_job(context),
                    owner=context.owner_reference,
                ),
            }
            if secret:
                obj["type"] = "Opaque"
            found.append({**obj, field: content})
    return found


def mounts(service: Service, translation: Translation) -> list[Object]:
    """Return the mounts of a service's files."""
    return [
        {
            "name": _VOLUMES[translation.files[mount.file].secret],
            "mountPath": mount.path,
            "subPath": _item(mount),
            "readOnly": True,
        }
        for mount in service.files
    ]


def volumes(members: Iterable[Service], translation: Translation, context: JobContext) -> list[Object]:
    """Return the volumes of a pod with these services: only the files that they mount."""
    found: list[Object] = []
    mounted = [mount for member in members for mount in member.files]
    for secret in (False, True):
        items = {
            _item(mount): {"key": mount.file, "path": _item(mount), "mode": _mode(mount)}
            for mount in mounted
            if translation.files[mount.file].secret is secret
        }
        if items:
            name = names.child(context.name, _VOLUMES[secret])
            found.append(
                {"name": _VOLUMES[secret], "secret": {"secretName": name, "items": list(items.values())}}
                if secret
                else {"name": _VOLUMES[secret], "configMap": {"name": name, "items": list(items.values())}}
            )
    return found


def _mode(mount: FileMount) -> int:
    return _MODE if mount.mode is None else mount.mode & 0o777


def _item(mount: FileMount) -> str:
    """Return a file's name in its volume; two services may want the same file with different modes."""
    return mount.file if _mode(mount) == _MODE else f"{mount.file}.{_mode(mount):o}"
