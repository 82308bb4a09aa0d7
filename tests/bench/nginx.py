"""nginx as the yardstick of the store and the agent: it sends, takes and passes on files as fast as anything does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench.transfer import reachable
from tests.support.ports import free_port
from tests.support.stack import eventually

_CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {root}/pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  sendfile on;
  client_max_body_size 0;
  keepalive_requests 100000000;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {root}/files;
    dav_methods PUT;
  }}
  server {{
    listen unix:{root}/proxy.sock;
    location / {{
      proxy_pass http://{behind};
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_request_buffering off;
    }}
  }}
}}
"""


class Nginx(NamedTuple):
    """A running nginx."""

    address: tuple[str, int]
    """Gives out what is in the folder, and takes what is PUT, without hashing or syncing it."""
    files: Path
    proxy: str
    """A unix socket; what comes there is passed on to the server behind."""


def program(name: str, package: str) -> str:
    """Return the path of a program; ends the run with what to install if it isn't there."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        sys.exit(f"{name} is needed to measure against: apt-get install {package}")
    return found


@contextmanager
def nginx(root: Path, *, behind: str = "127.0.0.1:9") -> Iterator[Nginx]:
    """Run one worker process of nginx, with a proxy for the server ``behind``."""
    files, port = root / "files", free_port()
    files.mkdir(parents=True)
    configuration = root / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(_CONFIGURATION.format(user=user, root=root, port=port, behind=behind))
    command = [program("nginx", "nginx-light"), "-p", str(root), "-c", str(configuration), "-e", "stderr"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            found = Nginx(("127.0.0.1", port), files, f"{root}/proxy.sock")
            eventually(lambda: reachable(found.address), within=20, otherwise="nginx doesn't listen")
            yield found
        finally:
            process.terminate()
