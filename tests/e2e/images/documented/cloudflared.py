#!/usr/bin/python3 -u
"""Stands in for cloudflared where the Internet can't be reached: its words and its metrics, without a tunnel.

Takes the arguments of `cloudflared tunnel --url URL`. When its container is ``STAND_IN_AFTER`` seconds old (1 by
default) it prints what a version of cloudflared has printed, byte for byte but with a new name of the same length each
time; `/quicktunnel` on the first free of cloudflared's metrics ports says the same. ``STAND_IN_FORM`` names the
version's file in tests/data/tunnels (2022 by default), ``STAND_IN_STREAM`` is stderr (by default) or stdout.
"""

import http.server
import json
import os
import pathlib
import random
import re
import sys
import time

PORTS = range(20241, 20246)
#: As long as those of the files, so that a box stays a box, and other ones.
WORDS = ("acorn", "bison", "cedar", "delta", "ember", "fjord", "grove", "heron")
HOST = re.compile(r"(?:[a-z]{5}-){3}[a-z]{5}\.trycloudflare\.com")


def container_age() -> float:
    """Return the seconds since the container's first process was started."""
    started = int(pathlib.Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
    now = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    return now - started / os.sysconf("SC_CLK_TCK")


class Metrics(http.server.BaseHTTPRequestHandler):
    hostname = ""

    def do_GET(self) -> None:
        known = self.path == "/quicktunnel"
        self.send_response(200 if known else 404)
        self.end_headers()
        if known:
            self.wfile.write(json.dumps({"hostname": self.hostname}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing: the log is cloudflared's."""


def metrics() -> http.server.HTTPServer:
    for port in PORTS:
        try:
            return http.server.HTTPServer(("localhost", port), Metrics)
        except OSError:
            continue
    raise SystemExit("none of cloudflared's metrics ports is free")


def main() -> None:
    if sys.argv[1:2] != ["tunnel"] or "--url" not in sys.argv:
        raise SystemExit("only `cloudflared tunnel --url URL` is stood in for")
    forms = pathlib.Path(os.environ.get("STAND_IN_FORMS", "/usr/local/share/tunnels"))
    form = (forms / f"{os.environ.get('STAND_IN_FORM', '2022')}.log").read_bytes().decode()
    stream = {"stderr": sys.stderr, "stdout": sys.stdout}[os.environ.get("STAND_IN_STREAM", "stderr")]
    Metrics.hostname = f"{'-'.join(random.sample(WORDS, 4))}.trycloudflare.com"
    lines = HOST.sub(Metrics.hostname, form).splitlines(keepends=True)
    box = next(number for number, line in enumerate(lines) if "+-" in line)
    stream.writelines(lines[:box])
    time.sleep(max(0.0, float(os.environ.get("STAND_IN_AFTER", "1")) - container_age()))
    stream.writelines(lines[box:])
    metrics().serve_forever()


if __name__ == "__main__":
    main()
