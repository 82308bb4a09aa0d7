"""Valid Compose files of every sort, as a Hypothesis strategy: odd, but nothing that has to be refused.

A service depends on, links to and joins only services before it, so nothing goes in a circle.
"""

from __future__ import annotations

import string
from typing import Any

from hypothesis import strategies as st

Values = dict[str, Any]

_ODD_NAMES = (
    *("status", "gpux-agent", "true", "08", "-", "..", "_", "A_b", "a.b", "a-b", "A-B", "x-y"),
    *("n" * 63, "n" * 64, "n" * 128, "N" * 64, "job", "r-web", "agent", "default", "localhost"),
)
NAMES = st.sampled_from(_ODD_NAMES) | st.text(
    string.ascii_letters + string.digits + "._-", min_size=1, max_size=70
)
#: What stands for itself: nothing that Compose would take for a variable.
_PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$\0"), max_size=24)
TEXTS = _PLAIN | st.sampled_from(
    [
        *("status:", "x\nstatus:\ny", "run/secrets/x", "$$HOME", "$$(id)", "a$$", "${PORT}", "${UNSET:-d}"),
        *(
            "http://a_b:80/",
            "host.docker.internal:8080",
            "A_b:80",
            "no",
            "0x1F",
            "1e3",
            "\u2028\x85",
            "\ufeff",
        ),
    ]
)
SCALARS = TEXTS | st.integers(-(2**70), 2**70) | st.floats() | st.booleans()
VARIABLES = st.from_regex(r"[-._a-zA-Z][-._a-zA-Z0-9]{0,12}", fullmatch=True)
PORTS = st.integers(1, 65535).filter(lambda port: port != 20000)
PATHS = st.sampled_from(
    ["/a", "/a/", "/b/../c", "//d", "/e f", "/é", "/root/.ollama", "/dev/shm", "/gpux_job"]
) | st.text(string.ascii_letters + "/._-é ", min_size=1, max_size=12).map("/x{}".format)
DURATIONS = st.sampled_from(["0s", "1ns", "500ms", "1.5s", "10s", "1m30s", "2h", "3w"])
SIZES = st.sampled_from(["1", "64m", "1.5g", "2GiB", "1kb", 1048576])
NUMBERS = st.sampled_from([0.001, 0.5, 1, 2.5, "1.5", 1e-9])
CAPABILITIES = st.sampled_from(
    ["CHOWN", "cap_setuid", "NET_BIND_SERVICE", "SYS_PTRACE", "net_raw", "ipc_lock"]
)
HOSTS = st.sampled_from(["other.example", "UPPER", "a_b", "x" * 63, "a." * 130 + "b"])
ADDRESSES = st.sampled_from(["10.0.0.1", "::1", "[2001:db8::1]", "host-gateway", "fe80::1%eth0", "junk", ""])


def lists(of: st.SearchStrategy[Any], size: int = 3) -> st.SearchStrategy[list[Any]]:
    """Return short lists."""
    return st.lists(of, max_size=size)


def _ports() -> st.SearchStrategy[Any]:
    starts = st.integers(1, 19000)
    return st.one_of(
        PORTS,
        PORTS.map(str),
        st.builds("{}:{}".format, PORTS, PORTS),
        st.builds("{}:{}:{}/udp".format, st.sampled_from(["127.0.0.1", "0.0.0.0", "[::1]"]), PORTS, PORTS),
        st.builds(lambda a, b, n: f"{a}-{a + n}:{b}-{b + n}", starts, starts, st.integers(0, 20)),
        st.builds(lambda a, n, b: f"{a}-{a + n}:{b}", starts, st.integers(1, 20), PORTS),
        st.fixed_dictionaries(
            {"target": PORTS},
            optional={
                "published": PORTS.map(str),
                "protocol": st.sampled_from(["tcp", "udp"]),
                "host_ip": st.just("127.0.0.1"),
                "mode": st.just("host"),
            },
        ),
    )


def _mounts(volumes: list[str]) -> st.SearchStrategy[Any]:
    sources = [
        *volumes,
        "./dir",
        "./dir/below",
        "/srv/data",
        "/srv/data/a b",
        "~/models",
        "./nginx.conf",
        "/etc/localtime",
    ]
    short = st.builds(
        "{}:{}{}".format, st.sampled_from(sources), PATHS, st.sampled_from(["", ":ro", ":rw,z"])
    )
    named = [
        st.fixed_dictionaries(
            {"type": st.just("volume"), "source": st.sampled_from(volumes), "target": PATHS},
            optional={"read_only": st.booleans(), "volume": st.just({"subpath": "a/b", "nocopy": True})},
        )
    ]
    return st.one_of(
        short,
        PATHS,
        st.fixed_dictionaries(
            {"type": st.just("tmpfs"), "target": PATHS},
            optional={"tmpfs": st.fixed_dictionaries({"size": SIZES})},
        ),
        st.fixed_dictionaries(
            {"type": st.just("bind"), "source": st.just("./dir/other"), "target": PATHS},
            optional={"bind": st.just({"create_host_path": True})},
        ),
        *(named if volumes else []),
    )


def _files(names: list[str]) -> st.SearchStrategy[Any]:
    return st.sampled_from(names) | st.fixed_dictionaries(
        {"source": st.sampled_from(names)},
        optional={
            "target": PATHS | st.just("relative.txt"),
            "mode": st.sampled_from([0o400, "0755", 0]),
            "uid": st.just("0"),
        },
    )


HEALTH = st.one_of(
    st.just({"test": ["NONE"]}),
    st.just({"disable": True}),
    st.just({"interval": "5s"}),
    st.fixed_dictionaries(
        {"test": TEXTS | st.lists(TEXTS, min_size=1, max_size=3).map(lambda words: ["CMD", *words])},
        optional={
            **dict.fromkeys(("interval", "timeout", "start_period", "start_interval"), DURATIONS),
            "retries": st.integers(-1, 10**12) | st.just("3"),
        },
    ),
)
_RESERVED = st.fixed_dictionaries(
    {"capabilities": st.sampled_from([["gpu"], ["gpu", "compute"], ["gpu", "utility"]])},
    optional={"driver": st.sampled_from(["nvidia", "amd", "rocm", "cdi"])},
)
_DEVICES = st.one_of(
    st.builds(
        lambda entry, count: {**entry, "count": count}, _RESERVED, st.sampled_from([0, 1, 2, "all", "3", -1])
    ),
    st.builds(
        lambda entry, ids: {**entry, "device_ids": ids},
        _RESERVED,
        st.sampled_from([["0"], ["0", "1", "1"], ["nvidia.com/gpu=all"], ["amd.com/gpu=0"]]),
    ),
    _RESERVED,
)
#: GPUs in every form; one at most in a service, which is how people write it.
GPUS: st.SearchStrategy[Values] = st.one_of(
    st.just({}),
    st.sampled_from(["all", 1, 2]).map(lambda value: {"gpus": value}),
    lists(_DEVICES).map(lambda value: {"gpus": value}),
    lists(_DEVICES).map(lambda value: {"deploy": {"resources": {"reservations": {"devices": value}}}}),
    st.just({"runtime": "nvidia", "environment": {"NVIDIA_VISIBLE_DEVICES": "0,1"}}),
    st.just({"runtime": "amd"}),
    st.just({"devices": ["/dev/kfd", "/dev/dri"]}),
    st.just({"devices": ["/dev/kfd:/dev/kfd:rwm", "/dev/dri/renderD128", {"source": "/dev/dri/renderD129"}]}),
    st.just({"devices": ["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"]}),
    st.just({"devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]}),
    st.just(
        {
            "deploy": {
                "resources": {
                    "reservations": {
                        "generic_resources": [{"discrete_resource_spec": {"kind": "NVIDIA-GPU", "value": 2}}]
                    }
                }
            }
        }
    ),
)
_AMOUNTS = st.fixed_dictionaries({}, optional={"cpus": NUMBERS, "memory": SIZES})
DEPLOY = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 4),
        "mode": st.sampled_from(["replicated", "global", "replicated-job"]),
        "resources": st.fixed_dictionaries({}, optional={"limits": _AMOUNTS, "reservations": _AMOUNTS}),
        "restart_policy": st.fixed_dictionaries(
            {},
            optional={
                "condition": st.sampled_from(["none", "on-failure", "any"]),
                "max_attempts": st.integers(-1, 2**59),
            },
        ),
        "placement": st.just({"constraints": ["node.role == worker", "node.platform.arch==x86_64"]}),
        "labels": st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=2),
    },
)
_COMMANDS = lists(TEXTS) | st.sampled_from(
    ["", "sh -c 'a && b'", 'redis-server --save ""', "a\\ b $$x", "x > y"]
)
_LABELS = st.dictionaries(st.sampled_from(["kompose.service.type", "a", "x" * 300]), TEXTS, max_size=2)
#: Keys that need nothing of the rest of the file.
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "command": _COMMANDS,
    "entrypoint": _COMMANDS,
    "ports": lists(_ports()),
    "expose": lists(PORTS.map(str) | st.sampled_from(["3000-3002", "53/udp"])),
    "healthcheck": HEALTH,
    "restart": st.sampled_from(
        ["no", "always", "on-failure", "on-failure:3", "on-failure:99999999999", "unless-stopped", False]
    ),
    "user": st.sampled_from(["0", "1000:1000", 1000, "root", "me:them", "2147483648"]),
    "group_add": lists(st.sampled_from(["video", 44, "44", "99999999999"])),
    "working_dir": st.sampled_from(["/a b", "/status:", "rel", "/é"]),
    **dict.fromkeys(("tty", "stdin_open", "read_only", "init"), st.booleans() | st.just("yes")),
    "cap_add": lists(CAPABILITIES),
    "cap_drop": lists(st.sampled_from(["ALL", "chown"])),
    "sysctls": st.just({"net.ipv4.tcp_fin_timeout": 5, "kernel.msgmax": 1})
    | st.just(["net.ipv4.tcp_syncookies=1"]),
    "security_opt": lists(st.sampled_from(["no-new-privileges:true", "seccomp:unconfined"])),
    "extra_hosts": lists(st.builds("{}:{}".format, HOSTS, ADDRESSES))
    | st.dictionaries(HOSTS, ADDRESSES, max_size=2),
    "stop_grace_period": DURATIONS,
    "shm_size": SIZES,
    "ipc": st.sampled_from(["host", "private", ""]),
    "tmpfs": lists(st.builds("{}{}".format, PATHS, st.sampled_from(["", ":size=64m,mode=1777"]))),
    "platform": st.sampled_from(["linux/amd64", "linux/arm64/v8", "linux", "windows/amd64"]),
    "container_name": NAMES.filter(lambda name: len(name) > 1 and name[0].isalnum()) | st.just("x" * 300),
    "hostname": TEXTS,
    "labels": _LABELS,
    "annotations": _LABELS,
    "mem_limit": SIZES,
    "mem_reservation": SIZES,
    "cpus": NUMBERS,
    "profiles": lists(st.sampled_from(["", "debug"]), 1),
    "scale": st.integers(0, 3),
    "env_file": st.sampled_from([".env", ["a.env", {"path": "b.env", "required": False}]]),
    "logging": st.just({"driver": "json-file"}),
    "x-anything": TEXTS,
}


def _environment() -> st.SearchStrategy[Any]:
    values = st.none() | SCALARS
    return st.dictionaries(VARIABLES, values, max_size=4) | st.lists(
        VARIABLES | st.builds("{}={}".format, VARIABLES, TEXTS),
        max_size=4,
        unique_by=lambda item: item.partition("=")[0],
    )


@st.composite
def services(draw: st.DrawFn, before: list[str], top: dict[str, list[str]]) -> Values:
    """A service of a file that has these services and top-level entries already."""
    optional = dict(PLAIN)
    optional["environment"] = _environment()
    optional["volumes"] = lists(_mounts(top["volumes"]), 4)
    for kind in ("configs", "secrets"):
        if top[kind]:
            optional[kind] = lists(_files(top[kind]))
    if before:
        others = st.lists(st.sampled_from(before), unique=True, max_size=3)
        entries = st.fixed_dictionaries(
            {
                "condition": st.sampled_from(
                    ["service_started", "service_healthy", "service_completed_successfully"]
                )
            },
            optional={"required": st.booleans()},
        )
        optional["depends_on"] = others | st.dictionaries(st.sampled_from(before), entries, max_size=3)
        optional["links"] = lists(
            st.builds("{}{}".format, st.sampled_from(before), st.sampled_from(["", ":db", ":A_b"]))
        )
        optional["volumes_from"] = lists(
            st.builds("{}{}".format, st.sampled_from(before), st.sampled_from(["", ":ro"]))
        )
    wanted = draw(st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=10))
    service = {
        "image": draw(
            st.sampled_from(["app", "example.org:5000/a/b:1.0", "x@sha256:" + "0" * 64, "status:latest"])
        ),
        **{key: draw(optional[key]) for key in wanted},
    }
    deploy: Values = draw(DEPLOY)
    for key, value in draw(GPUS).items():
        if key == "deploy":
            resources: Values = {**deploy.get("resources", {})}
            resources["reservations"] = {
                **resources.get("reservations", {}),
                **value["resources"]["reservations"],
            }
            deploy = {**deploy, "resources": resources}
        else:
            service[key] = value
    if deploy:
        service["deploy"] = deploy
        for key in ("mem_limit", "mem_reservation", "cpus", "scale"):
            # Said twice, they would have to agree.
            service.pop(key, None)
    if before and draw(st.integers(0, 4)) == 0:
        service["network_mode"] = f"service:{draw(st.sampled_from(before))}"
    elif draw(st.booleans()):
        service["networks"] = draw(
            st.just(["net"]) | st.just({"net": {"aliases": ["db", "A.B", "x" * 80]}, "default": None})
        )
    return service


@st.composite
def files(draw: st.DrawFn) -> Values:
    """A file. Services that others need have no profile, so that they are active."""
    top = {
        kind: draw(st.lists(NAMES.filter(lambda name: name[0].isalnum()), unique=True, max_size=3))
        for kind in ("volumes", "configs", "secrets")
    }
    made: dict[str, Values] = {}
    for name in draw(st.lists(NAMES, unique=True, min_size=1, max_size=5)):
        made[name] = draw(
            services([known for known in made if "debug" not in made[known].get("profiles", [])], top)
        )
    if all("debug" in service.get("profiles", []) for service in made.values()):
        made[next(iter(made))].pop("profiles")
    volumes: st.SearchStrategy[Any] = (
        st.none()
        | st.just({})
        | st.just({"name": "other", "driver": "local", "driver_opts": {"type": "nfs"}})
    )
    contents = {"content": draw(TEXTS)}
    document: Values = {
        "services": made,
        "networks": {"net": draw(st.none() | st.just({"external": True}))},
        "volumes": {name: draw(volumes) for name in top["volumes"]},
        **{
            kind: {name: draw(st.just(contents) | st.just({"environment": "PORT"})) for name in top[kind]}
            for kind in ("configs", "secrets")
        },
    }
    return {key: value for key, value in document.items() if value}
