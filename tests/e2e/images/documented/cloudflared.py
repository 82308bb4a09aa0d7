#!/usr/bin/python3 -u
"""Stands in for cloudflared where the Internet can't be reached: its words and its metrics, without a tunnel.

Takes the arguments of `cloudflared tunnel --url URL`. When its container is ``STAND_IN_AFTER`` seconds old (1 by
default) it says what the version of 2022 said, on standard error, with another name each time; `/quicktunnel` on the
first free of cloudflared's metrics ports says the same.
"""

import http.server
import json
import os
import pathlib
import random
import sys
import time

PORTS = range(20241, 20246)
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron")


def say(text: str) -> None:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(f"{moment} INF {text}", file=sys.stderr)


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
    say("Requesting new quick Tunnel on trycloudflare.com...")
    time.sleep(max(0.0, float(os.environ.get("STAND_IN_AFTER", "1")) - container_age()))
    Metrics.hostname = f"{'-'.join(random.sample(WORDS, 4))}.trycloudflare.com"
    lines = (
        "Your quick Tunnel has been created! Visit it at (it may take some time to be reachable):",
        f"https://{Metrics.hostname}",
    )
    width = max(map(len, lines))
    say(f"+{'-' * (width + 4)}+")
    for line in lines:
        say(f"|  {line:{width}}  |")
    say(f"+{'-' * (width + 4)}+")
    server = metrics()
    say(f"Starting metrics server on 127.0.0.1:{server.server_port}/metrics")
    server.serve_forever()


if __name__ == "__main__":
    main()
