"""``opengpu owner``, with keys as openssl and ssh-keygen write them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from opengpu_operator.api.task import Task
from opengpu_operator.cli.main import main
from opengpu_operator.reconcile.ownerproof import check
from tests.unit.reconcile.builders import task

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FORMS = {
    "openssl": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "ssh-keygen": KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
}
COMPOSE = b"services: {}\n"
ARGUMENTS = ("owner", "sign", "--cluster", "here", "-n", "team", "--task", "ask")


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(FORMS["openssl"])
    return file


@pytest.mark.parametrize("form", FORMS)
def test_what_is_printed_goes_into_a_task_and_is_accepted(tmp_path, capsys, form):
    key, compose = tmp_path / "key", tmp_path / "compose.yaml"
    key.write_bytes(FORMS[form])
    compose.write_bytes(COMPOSE)
    other = f"sha256:{'2' * 64}"
    assert main([*ARGUMENTS, "--key-file", str(key), "--file", str(compose), "--file", other]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed.keys() == {"owner", "ownerProof"}
    proven: Task = task(**printed)
    now = datetime.now(UTC)
    for digest in (f"sha256:{hashlib.sha256(COMPOSE).hexdigest()}", other):
        check(proven, digest=digest, cluster="here", required=True, now=now)
    ends = datetime.fromisoformat(printed["ownerProof"]["notAfter"])
    assert timedelta(hours=23) < ends - now <= timedelta(days=1)
    assert main(["owner", "show", "--key-file", str(key)]) == 0
    assert capsys.readouterr().out.strip() == printed["owner"]


@pytest.mark.parametrize(("text", "span"), [("90m", 90), ("12h", 720), ("7d", 7 * 1440)])
def test_a_proof_lasts_as_long_as_it_is_told(capsys, key_file, text, span):
    digest = f"sha256:{'1' * 64}"
    before = datetime.now(UTC).replace(microsecond=0)
    assert main([*ARGUMENTS, "--key-file", str(key_file), "--file", digest, "--valid", text]) == 0
    ends = datetime.fromisoformat(yaml.safe_load(capsys.readouterr().out)["ownerProof"]["notAfter"])
    assert before <= ends - timedelta(minutes=span) <= datetime.now(UTC)


SECRET = b"some secret that is no key"
BAD = {
    "no key": SECRET,
    "another key": generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ),
    "a password": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")),
    "a broken one": FORMS["ssh-keygen"][:120],
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_file_without_such_a_key_is_named_and_not_quoted(capsys, tmp_path, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    assert main([*ARGUMENTS, "--key-file", str(file), "--file", f"sha256:{'1' * 64}"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert str(file) in printed.err
    assert SECRET.decode() not in printed.err
    assert main(["owner", "show", "--key-file", str(file)]) == 2


def test_a_file_that_isnt_there_is_named(capsys, key_file, tmp_path):
    missing = tmp_path / "missing"
    assert main(["owner", "show", "--key-file", str(missing)]) == 2
    assert main([*ARGUMENTS, "--key-file", str(key_file), "--file", str(missing)]) == 2
    assert capsys.readouterr().err.count(str(missing)) == 2


def test_a_line_break_in_a_name_is_refused(capsys, key_file):
    arguments = [*ARGUMENTS, "--key-file", str(key_file), "--file", f"sha256:{'1' * 64}"]
    assert main([*arguments, "--cluster", "a\nb"]) == 2
    assert "line break" in capsys.readouterr().err


@pytest.mark.parametrize("span", ["", "1", "1w", "-1d", "1.5h"])
def test_a_span_that_is_none_is_refused(capsys, key_file, span):
    with pytest.raises(SystemExit):
        main([*ARGUMENTS, "--key-file", str(key_file), "--file", f"sha256:{'1' * 64}", f"--valid={span}"])
    assert "is not a span" in capsys.readouterr().err
