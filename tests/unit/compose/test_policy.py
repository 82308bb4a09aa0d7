"""What is refused, in every spelling, and what only looks like it."""

from __future__ import annotations

import pytest

from tests.support.compose import errors, one, reasons, translate


@pytest.mark.parametrize(
    ("body", "reason", "path"),
    [
        *(
            (f"privileged: {value}", "Privileged", "privileged")
            for value in ("true", "'yes'", "on", "${X:-true}")
        ),
        *(
            (f"{key}: {value}", "HostNamespace", key)
            for key in ("network_mode", "pid", "uts", "userns_mode")
            for value in ("host", "HOST")
        ),
        ("cgroup: host", "HostNamespace", "cgroup"),
        *((f"{key}: container:x", "ForeignNamespace", key) for key in ("network_mode", "pid")),
        ("volumes_from: [container:x]", "ForeignNamespace", "volumes_from[0]"),
        ("use_api_socket: true", "RuntimeSocket", "use_api_socket"),
        ("device_cgroup_rules: ['c 1:3 mr']", "DeviceCgroupRules", "device_cgroup_rules"),
        ("credential_spec: {file: x}", "HostFile", "credential_spec"),
        ("provider: {type: x}", "UnsupportedKey", "provider"),
        ("models: [llm]", "UnsupportedKey", "models"),
        *(
            (f"cap_add: [{name}]", "CapabilityRefused", "cap_add[0]")
            for name in (
                "NET_ADMIN",
                "cap_net_admin",
                "CAP_SYS_ADMIN",
                "all",
                "bpf",
                "sys_module",
                "SYS_RAWIO",
                "NEW_ONE",
            )
        ),
        *(
            (f"devices: ['{name}']", "DeviceRefused", "devices[0]")
            for name in (
                *(
                    "/dev/sda",
                    "/dev/ttyUSB0:/dev/x:rwm",
                    "/dev/fuse",
                    "/dev/net/tun",
                    "/dev/kvm",
                    "/dev/snd",
                    "/dev",
                    "/dev/mem",
                ),
                *(
                    "/dev/dri/../sda",
                    "/dev/nvidia0/../sda",
                    "//dev//sda",
                    "vendor.com/nic=x",
                    "dev/kfd",
                    "/dev/kfdx",
                ),
            )
        ),
        ("devices: [{source: /dev/sda, target: /dev/kfd}]", "DeviceRefused", "devices[0]"),
        ("ports: ['80', '20000']", "AgentPort", "ports[1]"),
        ("ports: ['20000:80']", "AgentPort", "ports[0]"),
        ("ports: ['80:19990-20010']", "BadValue", "ports[0]"),
        ("ports: ['19990-20010']", "AgentPort", "ports[0]"),
        ("ports: ['10000-30000:10000-30000']", "AgentPort", "ports[0]"),
        ("ipc: 'container:x'", "ForeignNamespace", "ipc"),
        ("expose: [20000]", "AgentPort", "expose[0]"),
        ("extends: {file: other.yaml, service: x}", "RemoteFile", "extends.file"),
    ],
)
def test_refused(body: str, reason: str, path: str) -> None:
    translation = translate(one(body))
    assert translation.refused
    found = [(entry.reason, entry.path) for entry in translation.findings if entry.severity == "error"]
    assert (reason, f"services.app.{path}") in found
    finding = next(entry for entry in translation.findings if entry.reason == reason)
    assert finding.line
    assert finding.advice
    # What is refused isn't called ineffective as well.
    others = {entry.reason for entry in translation.findings if entry.path == f"services.app.{path}"}
    assert "KeyIgnored" not in others


SOCKETS = [
    *(
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/var/run/../run/docker.sock",
        "//var//run/docker.sock",
        "/var/run/./docker.sock",
    ),
    *(
        "/VAR/RUN/DOCKER.SOCK",
        "/run/user/1000/docker.sock",
        "~/.docker/run/docker.sock",
        "$HOME/.colima/docker.sock",
        "./docker.sock",
    ),
    *(
        "../../../../var/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/podman/podman.sock",
        "/var/run/crio/crio.sock",
    ),
    *(
        "/run/k3s/containerd/containerd.sock",
        "/proc/1/root/var/run/docker.sock",
        "/var/run/docker.raw.sock",
        "/x/cri-dockerd.sock",
    ),
    *("${SOCK:-/var/run/docker.sock}", "/var/run/docker.sock/", "/host/var/run/docker.sock"),
]


@pytest.mark.parametrize("source", SOCKETS)
@pytest.mark.parametrize(
    "form", ["'{}:/var/run/docker.sock'", "'{}:/x:ro'", "{{type: bind, source: '{}', target: /x}}"]
)
def test_runtime_sockets(source: str, form: str) -> None:
    assert errors(one(f"volumes: [{form.format(source)}]")) & {"RuntimeSocket", "HostPathRefused"}


def test_windows_pipes() -> None:
    assert errors(one(r"volumes: [{type: npipe, source: '\\.\pipe\docker_engine', target: /x}]")) == {
        "RuntimeSocket"
    }
    assert errors(one("volumes: ['//./pipe/docker_engine://./pipe/docker_engine']"))


@pytest.mark.parametrize(
    "source",
    [
        *(
            "/",
            "//",
            "/.",
            "/..",
            "/a/..",
            "~/../../etc",
            "~me/../../../etc/shadow",
            "~/..",
            "/proc",
            "/proc/1",
            "/sys",
            "/sys/fs/cgroup",
            "/dev",
            "/dev/sda",
            "/dev/mem",
            "/boot",
            "/root",
        ),
        *(
            "/run",
            "/var/run",
            "/var/run/secrets",
            "/run/user/1000",
            "/var/lib/docker",
            "/var/lib/docker/volumes/x/_data",
        ),
        *(
            "/var/lib/containerd",
            "/var/lib/kubelet/pods",
            "/etc",
            "/etc/",
            "/etc/passwd",
            "/etc/shadow",
            "/etc/ssh",
            "/etc/ssh/ssh_host_rsa_key",
        ),
        *(
            "/etc/kubernetes/admin.conf",
            "/etc/sudoers",
            "/root/.ssh",
            "/root/.ssh/id_rsa",
            "/etc/../etc/passwd",
            "/home/../etc/shadow",
        ),
        *(
            "/proc/self/root/etc",
            "../../../etc/passwd",
            "../../proc",
            "./../../../../root",
            "/dev/../proc",
            "//etc//passwd",
            "/etc/./shadow",
        ),
        *("../etc/shadow", "/var/lib/../run/x", "/root/../proc/self/environ"),
    ],
)
@pytest.mark.parametrize("form", ["'{}:/x'", "{{type: bind, source: '{}', target: /x}}", "'{}:/x:ro,z'"])
def test_paths_of_the_node(source: str, form: str) -> None:
    assert errors(one(f"volumes: [{form.format(source)}]")) == {"HostPathRefused"}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        *(
            (source, "BindReplaced")
            for source in (
                "/data",
                "./etc",
                "../etc",
                "/home/me/.cache",
                "/root/.cache/huggingface",
                "/opt/x",
                "~/.ssh",
                "~",
                "/etc/myapp",
                "/srv/proc",
                "/runs",
                "/mnt/root",
                ".",
                "..",
            )
        ),
        *(
            (source, "BindDropped")
            for source in (
                "/etc/localtime",
                "/etc/timezone",
                "/usr/share/zoneinfo",
                "/etc/ssl/certs",
                "/etc/hosts",
                "./nginx.conf",
                "./.env",
                "/usr/bin/nvidia-smi",
            )
        ),
        ("/dev/shm", "ShmSized"),
    ],
)
def test_other_paths_are_not_refused(source: str, reason: str) -> None:
    translation = translate(one(f"volumes: ['{source}:/x']"))
    assert reasons(translation) == {reason}
    assert bool(translation.services[0].mounts) == (reason == "BindReplaced")


@pytest.mark.parametrize(
    ("top", "reason"),
    [
        ("configs: {x: {}}", "MissingKey"),
        ("secrets: {x: {name: y, external: false, environment: }}", "MissingKey"),
        ("include: [other.yaml]", "RemoteFile"),
        ("include: [{path: 'https://example.org/x.yaml'}]", "RemoteFile"),
        ("models: {x: {model: y}}", "UnsupportedKey"),
    ],
)
def test_refused_at_the_top(top: str, reason: str) -> None:
    assert errors(one("", top=top)) == {reason}


USED = {"configs": "configs: [x]", "secrets": "secrets: [x]", "volumes": "volumes: ['x:/x']"}


@pytest.mark.parametrize(
    ("section", "entry", "reason"),
    [
        *(
            (section, f"file: {path}", "HostFile")
            for section in ("configs", "secrets")
            for path in ("./x", "/etc/passwd", "../x")
        ),
        *(
            (section, f"external: {value}", "ExternalResource")
            for section in ("configs", "secrets", "volumes")
            for value in ("true", "{name: y}", "'yes'")
        ),
        ("configs", "content: a, environment: B", "BadValue"),
        ("volumes", "driver_opts: {type: none, o: bind, device: /home/me}", "HostPathRefused"),
        ("volumes", "driver_opts: {type: none, o: 'rw,bind', device: /}", "HostPathRefused"),
        ("volumes", "driver_opts: {type: nfs, o: bind, device: /}", "HostPathRefused"),
        ("volumes", "driver_opts: {o: rbind, device: ./x}", "HostPathRefused"),
        ("volumes", "driver_opts: {device: /home/me}", "HostPathRefused"),
        ("volumes", "driver_opts: {type: ext4, device: /dev/sda1}", "HostPathRefused"),
    ],
)
def test_resources_that_are_refused_where_they_are_used(section: str, entry: str, reason: str) -> None:
    top = f"{section}: {{x: {{{entry}}}}}"
    assert errors(one(USED[section], top=top)) == {reason}
    unused = translate(one("", top=f"  idle: {{image: y, profiles: [p], {USED[section]}}}\n{top}"))
    assert not unused.refused
    assert errors(one("", top=f"  idle: {{image: y, {USED[section]}}}\n{top}")) == {reason}


@pytest.mark.parametrize(
    "options",
    [
        "type: cifs, o: 'username=x', device: //a/b",
        "type: nfs, o: addr=x, device: ':/b'",
        "type: tmpfs, device: tmpfs",
    ],
)
def test_volumes_of_other_machines_become_the_clusters(options: str) -> None:
    translation = translate(one("volumes: ['x:/x']", top=f"volumes: {{x: {{driver_opts: {{{options}}}}}}}"))
    assert not translation.refused
    assert reasons(translation) == {"VolumeOptionsIgnored", "VolumeStartsEmpty"}


@pytest.mark.parametrize("top", ["include: []", "models: {}"])
def test_empty_sections_ask_for_nothing(top: str) -> None:
    assert not translate(one("", top=top)).findings


@pytest.mark.parametrize(
    "body",
    ["volumes: ['docker.sock:/x']", "expose: ['${UNSET:-}']", "pids_limit: -1", "ports: ['20000/udp']"],
)
def test_what_is_no_reason_to_refuse(body: str) -> None:
    assert not translate(one(body, top="volumes: {docker.sock: }")).refused


@pytest.mark.parametrize("name", ["x", "y"])
def test_names_of_resources_are_no_reason(name: str) -> None:
    translation = translate(
        one("volumes: ['x:/x']", top=f"volumes: {{x: {{name: {name}, external: false}}}}")
    )
    assert not translation.refused
    assert list(translation.volumes) == ["x"]


def test_services_that_are_built() -> None:
    assert errors("services: {app: {build: .}}") == {"BuildOnly"}
    assert errors("services: {app: {}}") == {"MissingKey"}
    assert not translate("services: {app: {build: ., image: x}}").refused


@pytest.mark.parametrize(
    "image", ["x y", "-x", "x:", "x@sha256:1", "http://x/y", "x\ny", "$(id)", "../x", "X", "x" * 2000]
)
def test_no_images(image: str) -> None:
    assert "BadValue" in errors(f"services: {{app: {{image: {image.replace('$', '$$')!r}}}}}")


@pytest.mark.parametrize(
    "image",
    ["x", "a/b:c", "reg.example:5000/a_b/c__d:V1.0-x@sha256:" + "0f" * 32, "localhost/x", "a.b/c-d.e"],
)
def test_images(image: str) -> None:
    assert not translate(f"services: {{app: {{image: '{image}'}}}}").refused


def test_inactive_services_are_not_judged() -> None:
    text = "services: {app: {image: x}, tool: {image: y, privileged: true, profiles: [debug]}}"
    translation = translate(text)
    assert reasons(translation) == {"ProfileInactive"}
    assert errors(text, profiles=["debug"]) == {"Privileged"}
    assert errors(text, profiles=["*"]) == {"Privileged"}


def test_all_refusals_at_once() -> None:
    body = """
    privileged: true
    pid: host
    cap_add: [NET_ADMIN, SYS_ADMIN]
    volumes: ['/:/host', '/var/run/docker.sock:/s']
    secrets: [s]
    """
    translation = translate(one(body, top="include: [x]\nsecrets: {s: {file: x}}"))
    found = [entry.path for entry in translation.findings if entry.severity == "error"]
    assert sorted(found) == [
        *(
            "include",
            "secrets.s.file",
            "services.app.cap_add[0]",
            "services.app.cap_add[1]",
            "services.app.pid",
        ),
        *("services.app.privileged", "services.app.volumes[0]", "services.app.volumes[1]"),
    ]
    lines = [entry.line or 0 for entry in translation.findings]
    assert lines == sorted(lines)
