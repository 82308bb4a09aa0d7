"""Exit 0 if something accepts connections on the unix socket given, else 1: the agent's startup probe.

It connects, because a socket file outlives whoever listened on it. Run often, so it imports next to nothing.
"""

import _socket
import sys

_TIMEOUT_SECONDS = 2.0


def main(arguments: list[str]) -> int:
    """Try the socket named by the one argument."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python3 -m gpux.probe SOCKET\n")
        return 2
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        probe.settimeout(_TIMEOUT_SECONDS)
        probe.connect(arguments[0])
    except OSError as error:
        sys.stderr.write(f"{arguments[0]}: {error}\n")
        return 1
    finally:
        probe.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
