"""``opengpu owner``: the proof by which a task may use its owner's storage where a cluster asks for one."""

from __future__ import annotations

import argparse
import base64
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from gpux.hashes import b58encode
from opengpu_operator.api.conditions import timestamp
from opengpu_operator.cli.options import GOOD, fail
from opengpu_operator.compose.pipeline import digest
from opengpu_operator.reconcile.ownerproof import message

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_SPAN: Final = re.compile(r"([0-9]{1,6})([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


class BadKey(Exception):
    """The file holds no key that can be used; the message has no part of what it holds."""


def register(commands: Any) -> None:
    """Add the subcommands to the parser."""
    owner = commands.add_parser("owner", help="prove whose storage a task may use")
    actions = owner.add_subparsers(dest="action", required=True, metavar="ACTION")
    sign = actions.add_parser(
        "sign",
        help="print the owner and the proof that a task needs",
        description=(
            "Prints owner and ownerProof for a task's spec: that the holder of the key wants the task of that name "
            "to run these Compose files in that namespace and cluster."
        ),
    )
    sign.add_argument(
        "--key-file", type=Path, required=True, help="an ed25519 private key (PEM or OpenSSH, no password)"
    )
    sign.add_argument(
        "--cluster", default="default", help="the cluster's id, settings.clusterId (%(default)s)"
    )
    sign.add_argument("-n", "--namespace", required=True)
    sign.add_argument("--task", required=True, metavar="NAME", help="the task's name")
    sign.add_argument(
        "--file",
        action="append",
        default=[],
        metavar="FILE|sha256:…",
        required=True,
        help="a Compose file that the task may run, or its digest; may be repeated, for several environments",
    )
    sign.add_argument(
        "--valid", type=_span, default=timedelta(days=1), metavar="SPAN", help="90m, 12h or 7d (1d)"
    )
    sign.set_defaults(run=_sign)
    show = actions.add_parser("show", help="print the owner that a key stands for")
    show.add_argument("--key-file", type=Path, required=True, help="the same file")
    show.set_defaults(run=_show)


def load(file: Path) -> Ed25519PrivateKey:
    """Read a private key, as openssl or ssh-keygen write it. Raises BadKey and OSError."""
    # Ten megabytes, which those who only look at files needn't load.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_private_key,
        load_ssh_private_key,
    )

    raw = file.read_bytes()
    read = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in raw else load_pem_private_key
    try:
        key = read(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Their messages may quote the file.
        raise BadKey(f"{file} holds no private key without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(
            f"the key in {file} isn't an ed25519 key; `openssl genpkey -algorithm ed25519` makes one"
        )
    return key


def name_of(key: Ed25519PrivateKey) -> str:
    """Return the owner that a key stands for."""
    return b58encode(key.public_key().public_bytes_raw())


def _show(arguments: argparse.Namespace) -> int:
    try:
        print(name_of(load(arguments.key_file)))
    except (BadKey, OSError) as error:
        return fail(str(error))
    return GOOD


def _sign(arguments: argparse.Namespace) -> int:
    try:
        key = load(arguments.key_file)
        digests = sorted({_digest(file) for file in arguments.file})
        not_after = timestamp(datetime.now(UTC) + arguments.valid)
        signed = message(
            cluster=arguments.cluster,
            namespace=arguments.namespace,
            task=arguments.task,
            not_after=not_after,
            digests=digests,
        )
    except (BadKey, OSError, ValueError) as error:
        return fail(str(error))
    proof = {
        "signature": base64.b64encode(key.sign(signed)).decode(),
        "notAfter": not_after,
        "digests": digests,
    }
    print(yaml.safe_dump({"owner": name_of(key), "ownerProof": proof}, sort_keys=False, width=200), end="")
    return GOOD


def _digest(file: str) -> str:
    return file if _DIGEST.fullmatch(file) else digest(Path(file).read_bytes())


def _span(text: str) -> timedelta:
    found = _SPAN.fullmatch(text)
    if found is None:
        msg = f"{text!r} is not a span like 90m, 12h or 7d"
        raise argparse.ArgumentTypeError(msg)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
