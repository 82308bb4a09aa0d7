"""Judge paths of the host that a file wants to mount: refused, dropped, or replaced by an empty volume.

Nothing of the host is ever mounted, whatever is decided here; a refusal spares people a container that can't work.
"""

from __future__ import annotations

import posixpath
import re
from typing import Final

#: Refused with everything below them.
_REFUSED_TREES: Final = (
    *("/proc", "/sys", "/dev", "/boot", "/run", "/var/run"),
    *(
        "/var/lib/docker",
        "/var/lib/containerd",
        "/var/lib/containers",
        "/var/lib/kubelet",
        "/var/lib/rancher",
    ),
    *("/var/lib/etcd", "/var/lib/cni", "/etc/ssh", "/etc/kubernetes", "/etc/docker", "/etc/containerd"),
    *("/etc/sudoers.d", "/etc/pam.d", "/etc/ssl/private", "/etc/pki/tls/private", "/etc/rancher", "/etc/cni"),
    *("/etc/crio", "/etc/security", "/etc/letsencrypt", "/etc/wireguard", "/etc/cron.d", "/etc/systemd"),
    *("/root/.ssh", "/root/.kube", "/root/.aws", "/root/.docker", "/root/.gnupg"),
)
#: Refused themselves; what is below them is not.
_REFUSED: Final = frozenset(
    {
        *("/", "/root", "/etc", "/var", "/var/lib", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/opt/cni"),
        *(
            "/etc/passwd",
            "/etc/shadow",
            "/etc/group",
            "/etc/gshadow",
            "/etc/passwd-",
            "/etc/shadow-",
            "/etc/sudoers",
        ),
        *(
            "/etc/crontab",
            "/etc/krb5.keytab",
            "/etc/machine-id",
            "/etc/fstab",
            "/etc/ld.so.preload",
            "/etc/gshadow-",
        ),
        *("/root/.bash_history", "/root/.netrc", "/root/.git-credentials"),
    }
)
#: Harmless files and directories of the host that an empty volume would hide: not mounted at all.
_DROPPED: Final = (
    *(
        "/etc/localtime",
        "/etc/timezone",
        "/usr/share/zoneinfo",
        "/etc/ssl/certs",
        "/usr/share/ca-certificates",
    ),
    *("/etc/ca-certificates", "/etc/pki/ca-trust", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"),
    *("/etc/os-release", "/etc/nsswitch.conf", "/usr/lib/os-release", "/tmp/.X11-unix"),  # noqa: S108 - names only
    *(
        "/usr/bin",
        "/usr/sbin",
        "/usr/local/bin",
        "/usr/local/sbin",
        "/bin",
        "/sbin",
        "/lib/modules",
        "/usr/src",
        "/usr/lib/wsl",
    ),
)
_SOCKET: Final = re.compile(
    r"(?:docker(?:shim|-cli)?|dockershim|containerd(?:-shim)?|podman|crio|cri-dockerd|buildkitd|k3s|balena-engine)"
    r"(?:\.raw)?\.sock(?:et)?",
    re.IGNORECASE,
)
_PIPE: Final = re.compile(r"[/\\]{2}\.[/\\]+pipe[/\\]", re.IGNORECASE)
#: GPUs and shared memory, which have their own keys, in people's mounts.
GPU_DEVICES: Final = re.compile(r"/dev/(?:kfd|dxg|dri(?:/.*)?|nvidia[^/]*(?:/.*)?)")
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - the mount point itself
_CLIMBING: Final = 2

# fmt: off
_FILE_ENDINGS: Final = frozenset(
    {
        "conf", "cfg", "cnf", "config", "ini", "json", "json5", "jsonl", "ndjson", "yaml", "yml", "toml",
        "xml", "txt", "text", "md", "rst", "sh", "bash", "zsh", "fish", "py", "ipynb", "js", "ts", "mjs",
        "cjs", "jsx", "tsx", "rb", "pl", "lua", "php", "html", "htm", "css", "scss", "sql", "db", "sqlite",
        "sqlite3", "rdb", "env", "properties", "pem", "crt", "cer", "key", "csr", "p12", "pfx", "jks",
        "pub", "asc", "gpg", "template", "tmpl", "tpl", "j2", "jinja", "jinja2", "log", "lock", "csv",
        "tsv", "parquet", "zip", "tar", "gz", "tgz", "bz2", "xz", "zst", "bin", "so", "exe", "jar", "war",
        "whl", "deb", "gguf", "ggml", "safetensors", "onnx", "pt", "pth", "ckpt", "pkl", "pickle", "npz",
        "npy", "h5", "wav", "mp3", "mp4", "png", "jpg", "jpeg", "svg", "ico", "gif", "webp", "pdf",
        "cypher", "hcl", "vcl", "acl", "rules", "list", "repo", "service", "timer", "sock", "socket",
        "pid", "xauth", "grc", "ps1", "bat", "cmd", "c", "h", "cc", "cpp", "cu", "rs", "go", "java", "kt",
        "proto", "state", "modelfile", "htpasswd", "users", "keytab", "jsonnet", "rego", "cue",
    }
)
# fmt: on
_FILE_NAMES: Final = frozenset(
    {
        *(
            "Caddyfile",
            "Dockerfile",
            "Makefile",
            "Modelfile",
            "Procfile",
            "LICENSE",
            "README",
            "Corefile",
            "Gemfile",
        ),
        *("hosts", "passwd", "shadow", "group", "localtime", "timezone", "machine-id", "hostname", "crontab"),
        *(
            ".env",
            ".bash_history",
            ".bashrc",
            ".profile",
            ".Xauthority",
            ".netrc",
            ".gitconfig",
            ".npmrc",
            ".pypirc",
        ),
        *(
            ".zsh_history",
            ".python_history",
            ".vimrc",
            ".htpasswd",
            ".pgpass",
            ".my.cnf",
            "id_rsa",
            "id_ed25519",
        ),
    }
)
_LIBRARY: Final = re.compile(r".+\.so(?:\.\d+)+")
_ENDING: Final = re.compile(r".+\.([A-Za-z][A-Za-z0-9_]{0,15})")
_DIRECTORY_ENDINGS: Final = frozenset(
    {"d", "git", "app", "cache", "data", "bundle", "io", "com", "org", "net", "dir"}
)

_CACHES: Final = re.compile(
    r"(?:^|/)(?:\.cache(?:/(?:huggingface|torch|modelscope|vllm|whisper|lm-studio|nvidia|triton|clip|tensorrt|outlines)"
    r"(?:/.*)?)?|\.ollama(?:/models)?|\.insightface(?:/.*)?|\.lmstudio/models|\.nv/ComputeCache|\.xinference(?:/cache)?)$"
)


def absolute(source: str) -> str:
    """Return a source as the absolute path it may mean; a path that climbs out of its project is taken from ``/``."""
    if source.startswith("/"):
        cleaned = "/" + posixpath.normpath(source).lstrip("/")
        # /run and /var/run are one directory.
        return "/run" + cleaned[len("/var/run") :] if _below(cleaned, "/var/run") else cleaned
    if source.startswith("~"):
        user, _, rest = source.partition("/")
        inside = posixpath.normpath(f"/root/{rest}")
        if _below(inside, "/root"):
            return posixpath.join(user, inside.removeprefix("/root").lstrip("/")).rstrip("/")
        # It climbs out of a home directory: root's is nearest to what is refused.
        return absolute(inside) if _refused(inside) else posixpath.normpath(source)
    cleaned = posixpath.normpath(source)
    parts = cleaned.split("/")
    climbs = sum(1 for part in parts if part == "..")
    rest = "/" + "/".join(parts[climbs:])
    if climbs and (climbs >= _CLIMBING or _secret(rest)) and rest != "/" and _refused(rest):
        return absolute(rest)
    return cleaned if cleaned == "." or cleaned.startswith("..") else f"./{cleaned}"


def _below(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree + "/")


def _secret(path: str) -> bool:
    return _refused(path) and path.count("/") > 1


def _refused(path: str) -> bool:
    return path in _REFUSED or any(_below(path, tree) for tree in _REFUSED_TREES)


def is_runtime_socket(*paths: str) -> bool:
    """Whether a path is the socket of a container runtime, wherever it is said to be."""
    return any(
        _SOCKET.search(posixpath.basename(path.replace("\\", "/"))) or _PIPE.match(path) for path in paths
    )


def is_refused(source: str) -> bool:
    """Whether a source belongs to the node's system."""
    path = absolute(source)
    if not path.startswith("/"):
        return False
    return (
        _refused(path)
        and not GPU_DEVICES.fullmatch(path)
        and path != SHARED_MEMORY
        and not is_dropped(source)
    )


def is_dropped(source: str) -> bool:
    """Whether a source is a harmless part of the system that an empty volume would only hide."""
    path = absolute(source)
    return any(_below(path, tree) for tree in _DROPPED) and path not in ("/bin", "/sbin")


def is_file(source: str, target: str) -> bool:
    """Whether a bind looks like that of a single file."""
    names = [posixpath.basename(path.replace("\\", "/")) for path in (source, target)]
    endings = [match.group(1).lower() if (match := _ENDING.fullmatch(name)) else "" for name in names]
    if any(name in _FILE_NAMES or _LIBRARY.fullmatch(name) for name in names):
        return True
    if any(ending in _FILE_ENDINGS for ending in endings):
        return True
    return names[0] == names[1] and bool(endings[0]) and endings[0] not in _DIRECTORY_ENDINGS


def is_model_cache(target: str) -> bool:
    """Whether a path in a container is known to hold downloaded models."""
    return bool(_CACHES.search(target))
