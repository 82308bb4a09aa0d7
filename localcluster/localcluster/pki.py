"""The cluster's certificates, made with openssl: elliptic curve keys, since those cost no time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.commands import Argument, run
from localcluster.packages import find

_CONFIG = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
"""
_DAYS = "3650"


@dataclass(frozen=True)
class Authority:
    """The certificate authority of one cluster and everything it has signed."""

    directory: Path

    def certificate(self, name: str) -> Path:
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.directory / f"{name}.key"

    @property
    def bundle(self) -> Path:
        return self.certificate("ca")

    def create(self, name: str = "localcluster") -> None:
        """Make the authority itself."""
        self.directory.mkdir(parents=True, mode=0o700)
        self._config.write_text(_CONFIG)
        self._request("ca", f"/CN={name}", "authority")

    def create_service_accounts(self) -> None:
        """Make the key pair that signs service account tokens."""
        self._request("service-accounts", "/CN=service-accounts", "leaf")
        public = run([_openssl(), "pkey", "-in", self.key("service-accounts"), "-pubout"])
        self.service_account_public_key.write_text(public)

    @property
    def service_account_public_key(self) -> Path:
        return self.directory / "service-accounts.pub"

    def issue(self, name: str, user: str, group: str = "", alternatives: Sequence[str] = ()) -> None:
        """Sign a certificate: ``alternatives`` are ``DNS:…`` and ``IP:…`` names of a server."""
        subject = f"/O={group}/CN={user}" if group else f"/CN={user}"
        extra: list[Argument] = ["-CA", self.bundle, "-CAkey", self.key("ca")]
        if alternatives:
            extra += ["-addext", f"subjectAltName={','.join(alternatives)}"]
        self._request(name, subject, "leaf", *extra)

    @property
    def _config(self) -> Path:
        return self.directory / "openssl.cnf"

    def _request(self, name: str, subject: str, extensions: str, *extra: Argument) -> None:
        new_key: list[Argument] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        files: list[Argument] = ["-keyout", self.key(name), "-out", self.certificate(name)]
        policy: list[Argument] = [
            "-config",
            self._config,
            "-extensions",
            extensions,
            "-days",
            _DAYS,
            "-subj",
            subject,
        ]
        run([_openssl(), "req", "-x509", "-sha256", *new_key, *files, *policy, *extra])
        self.key(name).chmod(0o600)


def _openssl() -> str:
    return find("openssl") or "openssl"
