"""The command line."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from localcluster import binaries
from localcluster.cluster import Wish
from localcluster.errors import Failure
from localcluster.paths import DEFAULT_NAME, Layout
from localcluster.providers import PROVIDERS, Provider, provider


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(
        prog="localcluster",
        description="A real Kubernetes cluster on this machine, without a container engine: up, down, and between.",
        epilog="Exit codes: 0 done, 1 failed (the message names the fix), 2 wrong usage.",
    )
    top.add_argument(
        "--provider",
        choices=sorted(PROVIDERS),
        default=os.environ.get("LOCALCLUSTER_PROVIDER", "local"),
        help="local: this tool's own cluster (default); kind: kind in Docker; current: your kubeconfig's context",
    )
    top.add_argument(
        "--confirm",
        metavar="CONTEXT",
        default=os.environ.get("LOCALCLUSTER_CONFIRM"),
        help="with --provider current: the context's name, instead of being asked to type it",
    )
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default=DEFAULT_NAME, help=f"which cluster (default: {DEFAULT_NAME})")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, text: str, *, parents: Sequence[argparse.ArgumentParser] = ()
    ) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=parents
        )

    start = add("up", "start the cluster, or see that it is healthy", parents=[named])
    start.add_argument("--nodes", type=int, default=2, metavar="N", help="number of nodes (default: 2)")
    start.add_argument(
        "--control-plane-only",
        action="store_true",
        help="only etcd, API server and controllers; needs no root",
    )
    add("down", "stop the cluster and remove everything of it", parents=[named])
    show = add("status", "say how the cluster is; exits with 1 unless it is healthy", parents=[named])
    show.add_argument("--json", action="store_true", help="as JSON, with every path and port")
    load = add("load", "load images into every node", parents=[named])
    load.add_argument("image", nargs="+", help="a name in buildah's storage, or a docker-archive file")
    add("kubeconfig", "print the path of the kubeconfig", parents=[named])
    add(
        "ca",
        "print the path of the certificate that https clients of the ingress must trust",
        parents=[named],
    )
    add("env", 'print shell lines that set KUBECONFIG and PATH: eval "$(localcluster env)"', parents=[named])
    machine = add("node", "stop a node as a power cut would, start it again, or both", parents=[named])
    machine.add_argument("action", choices=["stop", "start", "reboot"])
    machine.add_argument("node", help="the node's name, as node-b")
    make = add("binaries", "build what is missing of the programs and print their directory")
    make.add_argument("program", nargs="*", help=f"only these of: {', '.join(binaries.ALL)}")
    build = add("build", "build an image from a Dockerfile")
    build.add_argument("-t", "--tag", required=True, help="name of the image")
    build.add_argument("-f", "--file", type=Path, help="the Dockerfile (default: CONTEXT/Dockerfile)")
    build.add_argument("--target", help="stage to stop at")
    build.add_argument(
        "--build-arg", action="append", default=[], metavar="K=V", help="build argument; may be repeated"
    )
    build.add_argument("context", type=Path, help="directory with what the Dockerfile copies")
    return top


def execute(arguments: argparse.Namespace, chosen: Provider) -> int:
    """Do what the command line says; return the exit code."""
    match arguments.command:
        case "up":
            chosen.up(Wish(arguments.nodes, arguments.control_plane_only))
        case "down":
            chosen.down()
        case "status":
            return _show(chosen, as_json=arguments.json)
        case "load":
            chosen.load(arguments.image)
        case "kubeconfig":
            print(chosen.kubeconfig())
        case "ca":
            print(chosen.ca())
        case "env":
            print(f"export KUBECONFIG={shlex.quote(str(chosen.kubeconfig()))}")
            print(f'export PATH={shlex.quote(str(binaries.directory()))}:"$PATH"')
        case "node":
            chosen.node(arguments.action, arguments.node)
        case "binaries":
            print(binaries.ensure(arguments.program or binaries.ALL))
        case "build":
            chosen.build(
                arguments.tag, arguments.context, arguments.file, arguments.target, arguments.build_arg
            )
    return 0


def _show(chosen: Provider, *, as_json: bool) -> int:
    found = chosen.status()
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for key, value in found.items():
            text = ", ".join(map(str, value)) if isinstance(value, (list, dict)) else value
            if text not in (None, ""):
                print(f"{key:17} {text}")
    return 0 if found["running"] else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    arguments = parser().parse_args(argv)
    try:
        layout = Layout(getattr(arguments, "name", DEFAULT_NAME))
        return execute(arguments, provider(arguments.provider, layout, arguments.confirm))
    except Failure as failure:
        print(f"localcluster: {failure}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # nobody reads on: no further complaint
        return 1
    except KeyboardInterrupt:
        print("localcluster: interrupted; `localcluster down` removes what is there.", file=sys.stderr)
        return 1
