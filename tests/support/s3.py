"""A real S3 server for tests: versitygw over a directory, built like the cluster's programs, once."""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from gpux.s3.bucket import Bucket, Options
from localcluster import binaries

ACCESS_KEY = "tests"
SECRET_KEY = "no-secret-of-anybody"
REGION = "us-east-1"


class S3Server:
    """One versitygw on loopback; killed and started again it serves the same buckets on the same port."""

    def __init__(self, root: Path, *, tls: bool = False) -> None:
        self.root = root
        self.certificate = root / "certificate.pem" if tls else None
        self.credentials = root / "credentials"
        self._buckets = root / "buckets"
        for directory in (self.credentials, self._buckets):
            directory.mkdir(parents=True)
        (self.credentials / "access-key-id").write_text(ACCESS_KEY)
        (self.credentials / "secret-access-key").write_text(SECRET_KEY)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{'http' if self.certificate is None else 'https'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = binaries.ensure(["versitygw"]) / "versitygw"
        command = [str(program), "--port", f"127.0.0.1:{self.port}", "--keep-alive", "--quiet"]
        if self.certificate is not None:
            key = self._certify(self.certificate)
            command += ["--cert", str(self.certificate), "--key", str(key)]
        # The least that it checks and forgets: as few keys in its environment as it needs, and no account of ours.
        environment = {
            "PATH": os.environ["PATH"],
            "ROOT_ACCESS_KEY": ACCESS_KEY,
            "ROOT_SECRET_KEY": SECRET_KEY,
            "VGW_REGION": REGION,
        }
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "posix", str(self._buckets)],
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, (self.root / "log").read_text()
            assert time.monotonic() < deadline, "versitygw doesn't start"
            time.sleep(0.02)

    def _certify(self, certificate: Path) -> Path:
        """Make a certificate that nobody knows, unless there is one; its key."""
        key = self.root / "key.pem"
        if not key.exists():
            command = [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ]
            names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
            where = ["-keyout", str(key), "-out", str(certificate)]
            subprocess.run([*command, *names, *where], check=True, capture_output=True)
        return key

    def kill(self) -> None:
        """As a power cut of the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def options(self, *, bucket: str | None = None, prefix: str = "") -> Options:
        """A bucket to be used; a new one if none is named."""
        name = bucket or f"tests-{secrets.token_hex(6)}"
        (self._buckets / name).mkdir(exist_ok=True)
        return Options(self.endpoint, name, prefix, REGION, self.credentials)

    @contextmanager
    def bucket(self, options: Options | None = None) -> Iterator[Bucket]:
        """A new bucket, or the one that is named."""
        bucket = Bucket(options or self.options(), sleep=lambda _: None)
        try:
            yield bucket
        finally:
            bucket.close()

    def arguments(self, options: Options) -> list[str]:
        """Options of the store for a bucket."""
        return [
            f"--s3=s3://{options.bucket}/{options.prefix}",
            f"--s3-endpoint={options.endpoint}",
            f"--s3-region={options.region}",
            f"--s3-credentials={options.credentials}",
        ]

    def _answers(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            if self.certificate is not None:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return True
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            with closing(connection):
                connection.request("GET", "/")
                return connection.getresponse().status < 500
        return False


@contextmanager
def s3_server(root: Path, *, tls: bool = False) -> Iterator[S3Server]:
    """Run a server in a directory."""
    server = S3Server(root, tls=tls)
    server.start()
    try:
        yield server
    finally:
        server.kill()
