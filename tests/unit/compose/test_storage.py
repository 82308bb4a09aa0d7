"""Volumes, memory and inline files."""

from __future__ import annotations

import pytest

from tests.support.compose import errors, one, reasons, service, translate


def test_volumes() -> None:
    translation = translate(
        """
        services:
          a: {image: x, volumes: ["My_Vol:/v", "./d:/d", "/anon", "cache:/root/.cache/huggingface"]}
          b: {image: x, volumes: ["My_Vol:/w:ro", "./d/:/e", "/anon"]}
        volumes: {My_Vol: {driver: local, driver_opts: {type: nfs, o: "addr=x"}}, cache: , unused: {}}
        """
    )
    volumes = {
        key: (volume.origin, volume.label, volume.model_cache) for key, volume in translation.volumes.items()
    }
    assert volumes == {
        "my-vol": ("named", "My_Vol", False),
        "host-d": ("bind", "./d", False),
        "anon-a-anon": ("anonymous", "/anon", False),
        "anon-b-anon": ("anonymous", "/anon", False),
        "cache": ("named", "cache", True),
    }
    mounts = [(mount.volume, mount.path, mount.read_only) for mount in translation.service("b").mounts]
    assert mounts == [("my-vol", "/w", True), ("host-d", "/e", False), ("anon-b-anon", "/anon", False)]
    assert reasons(translation) == {"BindReplaced", "ModelCache", "KeyIgnored", "VolumeOptionsIgnored"}


def test_names_that_would_meet() -> None:
    translation = translate(
        one("volumes: ['host-d:/a', './d:/b', 'host_d:/c']", top="volumes: {host-d: , host_d: }")
    )
    assert len({mount.volume for mount in translation.services[0].mounts}) == 3
    assert translation.volumes["host-d"].origin == "named"


def test_paths_below_shared_ones_are_the_same_files() -> None:
    translation = translate(
        """
        services:
          a: {image: x, volumes: ["/data/control:/control:ro"]}
          b: {image: x, volumes: ["/data:/workspace"]}
          c: {image: x, volumes: [".:/code", "./models:/models"]}
          d: {image: x, volumes: [{type: volume, source: v, target: /v, volume: {subpath: x/y}}]}
        volumes: {v: }
        """
    )
    (control,) = translation.service("a").mounts
    (workspace,) = translation.service("b").mounts
    assert control.volume == workspace.volume
    assert (control.sub_path, workspace.sub_path) == ("control", None)
    code, models = translation.service("c").mounts
    assert code.volume != models.volume
    assert translation.service("d").mounts[0].sub_path == "x/y"


@pytest.mark.parametrize(
    ("source", "target", "mounted"),
    [
        ("./models", "/models", True),
        ("~/.openclaw", "/home/node/.openclaw", True),
        ("./conf.d", "/etc/nginx/conf.d", True),
        ("./v1.2", "/opt/app-1.2", True),
        ("./my.data", "/srv/my.data", True),
        ("./x.weird/", "/x.weird", True),
        ("./nginx.conf", "/etc/nginx/nginx.conf", False),
        ("./dir", "/etc/app/settings.yaml", False),
        ("./Caddyfile", "/etc/caddy/Caddyfile", False),
        ("./.env", "/app/.env", False),
        ("./a.weird", "/b/a.weird", False),
        ("./app.sock", "/app.sock", False),
    ],
)
def test_files_of_the_host_are_not_mounted(source: str, target: str, mounted: bool) -> None:
    translation = translate(one(f"volumes: ['{source}:{target}']"))
    assert bool(translation.services[0].mounts) == mounted
    assert reasons(translation) == {"BindReplaced" if mounted else "BindDropped"}


def test_a_directory_that_says_so() -> None:
    body = "volumes: [{type: bind, source: ./x.conf, target: /x.conf, bind: {create_host_path: true}}]"
    assert service(body).mounts


def test_memory() -> None:
    app = service(
        """
        tmpfs: ["/tmp:size=64m,mode=1777", /run]
        volumes: [{type: tmpfs, target: /cache, tmpfs: {size: 1m}}]
        shm_size: 16g
        ipc: host
        """
    )
    sizes = {volume["name"]: volume["emptyDir"] for volume in app.pod["volumes"]}
    paths = {mount["mountPath"]: sizes[mount["name"]] for mount in app.container["volumeMounts"]}
    assert paths == {
        "/cache": {"medium": "Memory", "sizeLimit": "1048576"},
        "/tmp": {"medium": "Memory", "sizeLimit": "67108864"},
        "/run": {"medium": "Memory"},
        "/dev/shm": {"medium": "Memory", "sizeLimit": str(16 * 2**30)},
    }


@pytest.mark.parametrize("body", ["ipc: host", "volumes: ['/dev/shm:/dev/shm']", "shm_size: ${X:-3Gi}"])
def test_shared_memory(body: str) -> None:
    app = service(body, shm_size="3Gi")
    (volume,) = app.pod["volumes"]
    assert volume["emptyDir"]["sizeLimit"] in ("3Gi", str(3 * 2**30))
    assert app.container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/dev/shm"}]


def test_the_last_mount_of_a_path_counts() -> None:
    translation = translate(one("volumes: ['./a:/x', './b:/x/', './c:/y']\ntmpfs: /y"))
    (app,) = translation.services
    assert [translation.volumes[mount.volume].label for mount in app.mounts] == ["./b"]
    assert [mount["mountPath"] for mount in app.container["volumeMounts"]] == ["/y"]
    assert "MountShadowed" in reasons(translation)


def test_mounts_of_another_service() -> None:
    translation = translate(
        """
        services:
          a: {image: x, volumes: ["v:/v", "/anon", "./own:/own"]}
          b: {image: x, volumes_from: ["a:ro"], volumes: ["./mine:/own"]}
        volumes: {v: }
        """
    )
    shared = {mount.path: mount.volume for mount in translation.service("a").mounts}
    mounts = {mount.path: mount for mount in translation.service("b").mounts}
    assert mounts["/v"].volume == shared["/v"]
    assert mounts["/anon"].volume == shared["/anon"]
    assert mounts["/own"].volume != shared["/own"]
    assert mounts["/v"].read_only
    assert [entry.service for entry in translation.service("b").depends_on] == ["a"]


def test_inline_files() -> None:
    translation = translate(
        """
        services:
          app:
            image: x
            configs:
              - plain
              - {source: moved, target: /etc/app//x.conf, mode: 0440}
              - {source: moved, target: rel.conf, mode: "0600"}
            secrets: [token, {source: token, target: other}]
        configs:
          plain: {content: "a $$ ${PORT}"}
          moved: {environment: CALLBACK_URL}
          unused: {content: x}
        secrets: {token: {content: s3cret}}
        """
    )
    app = translation.service("app")
    files = {file.path: (file.file, file.mode) for file in app.files}
    assert files == {
        "/plain": ("config-plain", None),
        "/etc/app/x.conf": ("config-moved", 0o440),
        "/rel.conf": ("config-moved", 0o600),
        "/run/secrets/token": ("secret-token", None),
        "/run/secrets/other": ("secret-token", None),
    }
    contents = {key: (file.content, file.secret) for key, file in translation.files.items()}
    assert contents == {
        "config-plain": ("a $ 5555", False),
        "config-moved": ("http://127.0.0.1:20000", False),
        "secret-token": ("s3cret", True),
    }


@pytest.mark.parametrize(
    ("owner", "mode"),
    [("uid: '1000'", 0o606), ("gid: 1000", 0o600), ("uid: 0", 0o600), ("uid: '0'", 0o600), ("x-y: 1", 0o600)],
)
def test_files_of_others_than_root_can_be_read_by_all(owner: str, mode: int) -> None:
    app = service(
        f"configs: [{{source: c, target: /c, mode: 0600, {owner}}}, {{source: c, target: /d, {owner}}}]",
        top="configs: {c: {content: x}}",
    )
    assert [file.mode for file in app.files] == [mode, None]


def test_files_of_a_group_can_be_read_by_all() -> None:
    app = service(
        "secrets: [{source: s, uid: '1000', gid: '1000', mode: 0440}]", top="secrets: {s: {content: x}}"
    )
    assert [file.mode for file in app.files] == [0o444]


@pytest.mark.parametrize("mode", ["x", "01777", "-1", "'8'"])
def test_bad_modes(mode: str) -> None:
    body = f"configs: [{{source: c, target: /c, mode: {mode}}}]"
    assert errors(one(body, top="configs: {c: {content: x}}")) == {"BadValue"}
