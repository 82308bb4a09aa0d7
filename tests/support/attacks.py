"""Attacks on the translator: Compose files by people who mean harm, one row each.

A row says why its file is refused, or what the objects are then: usually those of a file without the attack. Texts
may name ``@FILE@`` (a planted file), ``@DIR@`` (its folder) and ``@TRAP@`` (a listening address); what is planted,
and that none of it comes out, is for the test to arrange.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from opengpu_operator.api.translation import Translation
from opengpu_operator.desired.job import JobObjects
from tests.support import jobs
from tests.support.compose import one

#: What files that must not be read and variables that must not be seen hold.
PLANTED = "planted-7d1e"
#: What must be in no object: values that are meant to end up in a place of power.
SMUGGLED = "smuggled-7d1e"


class Outcome(NamedTuple):
    """What became of a file that wasn't refused."""

    translation: Translation
    job: JobObjects

    def container(self, service: str = "app") -> dict[str, Any]:
        """Return a service's container."""
        return jobs.container(self.job, service)

    def variables(self, service: str = "app") -> dict[str, str]:
        """Return a container's variables that the file gave it."""
        ours = ("NPROC", "NVIDIA_VISIBLE_DEVICES")
        return {
            item["name"]: item["value"] for item in self.container(service)["env"] if item["name"] not in ours
        }

    def mounts(self, service: str = "app") -> dict[str, str]:
        """Return the sort of volume behind each of a container's mounts, GPUX's left out."""
        sources = {item["name"]: set(item) - {"name"} for item in jobs.pod(self.job, service)["volumes"]}
        return {
            mount["mountPath"]: "+".join(sources[mount["name"]])
            for mount in self.container(service)["volumeMounts"]
            if not mount["mountPath"].startswith("/gpux_")
        }

    def files(self, kind: str = "ConfigMap") -> list[str]:
        """Return the contents of the job's files."""
        field = {"ConfigMap": "data", "Secret": "stringData"}[kind]
        return [
            content for obj in self.job.everything if obj["kind"] == kind for content in obj[field].values()
        ]


Check = Callable[[Outcome], object]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One file. It is refused for a reason, or becomes the objects of another file, or fulfils ``check``."""

    kind: str
    name: str
    text: str | bytes
    refused: str = ""
    like: str = ""
    check: Check | None = None

    def __str__(self) -> str:
        """Return the test's name."""
        return f"{self.kind}: {self.name}"


ATTACKS: list[Attack] = []
_HARMLESS = one("")


def _refused(kind: str, reason: str, files: Mapping[str, str | bytes]) -> None:
    ATTACKS.extend(Attack(kind=kind, name=name, text=text, refused=reason) for name, text in files.items())


def _harmless(kind: str, files: Mapping[str, str | bytes], *, like: str = _HARMLESS) -> None:
    ATTACKS.extend(Attack(kind=kind, name=name, text=text, like=like) for name, text in files.items())


def _checked(kind: str, files: Mapping[str, tuple[str | bytes, Check]]) -> None:
    ATTACKS.extend(
        Attack(kind=kind, name=name, text=text, check=check) for name, (text, check) in files.items()
    )


def _services(count: int, body: Callable[[int], str]) -> str:
    return "services:\n" + "".join(f"  s{n}: {{image: x{body(n)}}}\n" for n in range(count))


def _list(items: Iterator[str]) -> str:
    return ",".join(items)


# ---------------------------------------------------------------------------------------------------- local file reads
_KIND = "local files"
_checked(
    _KIND,
    {
        "secret nobody uses": (
            one("", top="secrets: {s: {file: ./decoy.txt}}"),
            lambda out: not out.translation.files,
        ),
    },
)
_refused(
    _KIND,
    "HostFile",
    {
        "secret": one("secrets: [s]", top="secrets: {s: {file: '@FILE@'}}"),
        "secret, climbing": one("secrets: [s]", top="secrets: {s: {file: ../decoy.txt}}"),
        "config": one("configs: [c]", top="configs: {c: {file: '@FILE@'}}"),
        "config of the home": one("configs: [c]", top="configs: {c: {file: ~/decoy.txt}}"),
        "config by a variable": one("configs: [c]", top="configs: {c: {file: '${X:-@FILE@}'}}"),
        "config, endless": one("configs: [c]", top="configs: {c: {file: /dev/zero}}"),
        "config and content": one("configs: [c]", top="configs: {c: {content: x, file: '@FILE@'}}"),
        "credential_spec": one("credential_spec: {file: '@FILE@'}"),
    },
)
_refused(
    _KIND,
    "RemoteFile",
    {
        "include": one("", top="include: ['@FILE@']"),
        "include with env_file": one("", top="include: [{path: ./compose.yaml, env_file: '@FILE@'}]"),
        "include of a directory": one("", top="include: [{path: x, project_directory: '@DIR@'}]"),
        "extends": one("extends: {file: '@FILE@', service: app}"),
        "extends, relative": one("extends: {file: ../decoy.txt, service: app}"),
    },
)
_refused(
    _KIND,
    "HostPathRefused",
    {
        "bind of a token": one("volumes: ['/var/run/secrets/kubernetes.io/serviceaccount:/t']"),
        "bind of passwd": one("volumes: ['/etc/passwd:/p']"),
        "bind of the process": one("volumes: ['/proc/self/environ:/e']"),
    },
)
_harmless(
    _KIND,
    {
        "env_file": one("env_file: '@FILE@'"),
        "env_file in the project": one("env_file: [.env, decoy.env, ../decoy.env]"),
        "env_file, optional": one("env_file: [{path: '@FILE@', required: false, format: raw}]"),
        "env_file of the process": one("env_file: /proc/self/environ"),
        "env_file, endless": one("env_file: /dev/zero"),
        "label_file": one("label_file: ['@FILE@', .env]"),
        "build": one(
            "build: {context: '@DIR@', dockerfile: '@FILE@', secrets: [{source: s}], ssh: [default]}"
        ),
        "develop": one("develop: {watch: [{path: '@DIR@', action: sync, target: /x}]}"),
        "bind of a file": one("volumes: ['@FILE@:/x.txt']"),
        "bind of a file by a label": one(
            "volumes: ['@FILE@:/x.txt']\nlabels: {kompose.volume.type: configMap}"
        ),
        "bind of a file of the home": one("volumes: ['~/decoy.txt:/x.txt:ro', './decoy.txt:/y.txt']"),
    },
)
_checked(
    _KIND,
    {
        "bind of a directory": (
            one("volumes: ['@DIR@/:/all', '.:/here', '../:/above', '~/:/home']"),
            lambda out: (
                out.mounts() == dict.fromkeys(["/all", "/here", "/above", "/home"], "persistentVolumeClaim")
            ),
        ),
        "bind of a directory as another sort": (
            one("volumes: ['@DIR@/:/all']\nlabels: {kompose.volume.type: hostPath}"),
            lambda out: out.mounts() == {"/all": "persistentVolumeClaim"},
        ),
    },
)

# --------------------------------------------------------------------------------------------------- environment leaks
_KIND = "environment"
_checked(
    _KIND,
    {
        "in a value": (one("environment: {A: '${PLANTED}'}"), lambda out: out.variables() == {"A": ""}),
        "without braces": (one("environment: ['A=$PLANTED']"), lambda out: out.variables() == {"A": ""}),
        "as a default's default": (
            one("environment: {A: '${UNSET:-${PLANTED:-none}}'}"),
            lambda out: out.variables() == {"A": "none"},
        ),
        "whether it is set": (
            one("environment: {A: '${PLANTED+yes}'}"),
            lambda out: out.variables() == {"A": ""},
        ),
        "by its name, in a list": (
            one("environment: [PLANTED, HOME, PATH]"),
            lambda out: out.variables() == {},
        ),
        "by its name, in a mapping": (
            one("environment: {PLANTED: , HOME: null}"),
            lambda out: out.variables() == {},
        ),
        "escaped once more": (
            one("environment: {A: '$$PLANTED $${PLANTED} $$$$PLANTED'}"),
            lambda out: out.variables() == {"A": "$PLANTED ${PLANTED} $$$PLANTED"},
        ),
        "by Kubernetes' syntax": (
            one("environment: {A: $(PLANTED)}\ncommand: [$(PLANTED)]"),
            lambda out: (out.variables(), out.container()["args"]) == ({"A": "$$(PLANTED)"}, ["$$(PLANTED)"]),
        ),
        "in a command": (
            one("command: [echo, $PLANTED]"),
            lambda out: out.container()["args"] == ["echo", ""],
        ),
        "in a check": (
            one("healthcheck: {test: 'echo ${PLANTED}'}"),
            lambda out: out.container()["readinessProbe"]["exec"]["command"][-1] == "echo ",
        ),
        "in a config": (
            one("configs: [c]", top="configs: {c: {content: 'a ${PLANTED}'}}"),
            lambda out: out.files() == ["a "],
        ),
        "as a config": (
            one("configs: [c]", top="configs: {c: {environment: PLANTED}}"),
            lambda out: out.files() == [""],
        ),
        "as a secret": (
            one("secrets: [s]", top="secrets: {s: {environment: PLANTED}}"),
            lambda out: "" in out.files("Secret"),
        ),
        "of Compose itself": (
            one("environment: {A: '${COMPOSE_PROJECT_NAME}${COMPOSE_FILE}${DOCKER_HOST}${HOME}'}"),
            lambda out: out.variables() == {"A": "opengpu"},
        ),
    },
)
_refused(
    _KIND,
    "BadValue",
    {
        "in an image": "services: {app: {image: 'evil.example/x:${PLANTED}'}}",
        "in an image's digest": "services: {app: {image: 'evil.example/x@sha256:$PLANTED'}}",
    },
)
_refused(_KIND, "VariableRequired", {"required": one("environment: {A: '${PLANTED:?}'}")})
_harmless(
    _KIND,
    {
        "COMPOSE_PROFILES": "services: {app: {image: 'example.org/app:1'}, other: {image: x, profiles: [debug]}}",
        "in labels": one("labels: {a: '${PLANTED}'}"),
        "in a hostname": one("hostname: '${PLANTED}'"),
    },
)

# ------------------------------------------------------------------------------------------------- alias and map bombs
_KIND = "bombs"


def _bomb(levels: int, width: int, opening: str, closing: str, item: str) -> str:
    lines = [f"x-0: &a0 {opening}{_list(item.format(n=n, of='x') for n in range(width))}{closing}"]
    lines += [
        f"x-{level}: &a{level} {opening}{_list(item.format(n=n, of=f'*a{level - 1} ') for n in range(width))}{closing}"
        for level in range(1, levels)
    ]
    return "\n".join([*lines, _HARMLESS])


_refused(
    _KIND,
    "TooManyNodes",
    {
        "lists": _bomb(9, 9, "[", "]", "{of}"),
        "mappings": _bomb(9, 9, "{{", "}}", "k{n}: {of}").replace("{{", "{").replace("}}", "}"),
        "mappings, thin and tall": _bomb(30, 2, "{{", "}}", "k{n}: {of}")
        .replace("{{", "{")
        .replace("}}", "}"),
        "merges": "x-0: &a0 {k: v}\n"
        + "".join(f"x-{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: *a{n - 1} }}\n" for n in range(1, 30))
        + _HARMLESS,
        "one large list many times": f"x-a: &a [{','.join(['x'] * 4000)}]\nx-b: [*a,*a,*a]\n{_HARMLESS}",
        "one large text many times": f"x-a: &a '{'x' * 200_000}'\nx-b: [{','.join(['*a'] * 400)}]\n{_HARMLESS}",
        "in a command": f"x-a: &a '{'x' * 100_000}'\n" + one(f"command: [{','.join(['*a'] * 9)}]"),
        "nodes without aliases": one(f"command: [{','.join(['x'] * 10_001)}]"),
        "lists in lists": "x-a: [" + "[".join(["x," * 9000] * 14) + "]" * 14 + "\n" + _HARMLESS,
        "services that extend a large one": "services:\n  s0: {image: x, environment: {"
        + _list(f"V{n}: x" for n in range(3000))
        + "}}\n"
        + "".join(f"  s{n}: {{extends: s{n - 1}}}\n" for n in range(1, 90)),
        "services that extend one with a large text": "services:\n  s0: {image: x, environment: {A: '"
        + "x" * 200_000
        + "'}}\n"
        + "".join(f"  s{n}: {{extends: s0}}\n" for n in range(1, 90)),
    },
)
_refused(
    _KIND,
    "TooManyAliases",
    {
        "many aliases": f"x-a: &a x\nx-b: [{','.join(['*a'] * 501)}]\n{_HARMLESS}",
        "many merges": f"x-a: &a {{k: v}}\nx-b: {{<<: [{','.join(['*a'] * 501)}]}}\n{_HARMLESS}",
        "many aliased keys": f"x-a: &a x\nx-b: [{','.join(['{*a : 1}'] * 501)}]\n{_HARMLESS}",
    },
)
_refused(
    _KIND,
    "BadYaml",
    {
        "that holds itself": "services: &a {app: *a}",
        "that merges itself": "services: &a {<<: *a, app: {image: x}}",
        "of nothing": "services: *a",
        "of text": "services: {app: {<<: x, image: x}}",
    },
)

# -------------------------------------------------------------------------------------------------------- deep nesting
_KIND = "nesting"
_refused(
    _KIND,
    "WrongType",
    {"capabilities of a GPU": one("gpus: [{capabilities: " + "[" * 55 + "gpu" + "]" * 55 + "}]")},
)
_refused(
    _KIND,
    "TooDeep",
    {
        "lists": "services: " + "[" * 100_000,
        "lists, closed": f"x-a: {'[' * 30_000}{']' * 30_000}\n{_HARMLESS}",
        "mappings": "services: " + "{a: " * 60_000,
        "JSON": '{"services": ' + '{"a":' * 40_000,
        "blocks": "\n".join(" " * n + "a:" for n in range(500)),
        "lists in blocks": "services:\n  " + "- " * 60_000,
        "keys": "services: " + "{? " * 60_000,
        "lists as keys": "services: {? " + "[" * 60_000,
        "blocks as keys": "services:\n  " + "? " * 60_000,
        "aliases": "x-0: &a0 [x]\n"
        + "".join(f"x-{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 100))
        + _HARMLESS,
        "merges": "x-0: &a0 {k: v}\n"
        + "".join(f"x-{n}: &a{n} {{<<: *a{n - 1} }}\n" for n in range(1, 100))
        + _HARMLESS,
        "anchors": "services: " + "".join(f"&a{n} [" for n in range(20_000)),
        "tags": "services: " + "!!seq [" * 20_000,
    },
)
_refused(
    _KIND,
    "BadInterpolation",
    {
        "references": one("command: ['" + "${A:-" * 20_000 + "}" * 20_000 + "']"),
        "references, open": one("command: ['" + "${" * 100_000 + "']"),
    },
)
_checked(
    _KIND,
    {
        "as deep as allowed": (
            f"x-a: {'[' * 62}{']' * 62}\n{_HARMLESS}",
            lambda out: len(out.job.components) == 1,
        ),
        "braces that are none": (
            one("command: ['${A:-" + "{}" * 100_000 + "}']"),
            lambda out: out.container()["args"] == ["{}" * 100_000],
        ),
        "references with long defaults": (
            one("command: ['" + "${A:-" * 15 + "x" * 200_000 + "}" * 15 + "']"),
            lambda out: out.container()["args"] == ["x" * 200_000],
        ),
    },
)

# -------------------------------------------------------------------------------------------------------- dense graphs
_KIND = "graphs"


def _gates(out: Outcome) -> int:
    return sum(map(len, out.job.gated.values()))


_checked(
    _KIND,
    {
        "depends_on of all": (
            _services(90, lambda n: f", depends_on: [{_list(f's{m}' for m in range(n))}]"),
            lambda out: (len(out.job.components), _gates(out)) == (90, 0),
        ),
        "waiting for all": (
            _services(
                55,
                lambda n: (
                    ", healthcheck: {test: x}, depends_on: {"
                    + _list(f"s{m}: {{condition: service_healthy}}" for m in range(n))
                    + "}"
                ),
            ),
            lambda out: _gates(out) == 55 * 54 // 2,
        ),
        "waiting for the end of all": (
            _services(
                55,
                lambda n: (
                    ", depends_on: {"
                    + _list(f"s{m}: {{condition: service_completed_successfully}}" for m in range(n))
                    + "}"
                ),
            ),
            lambda out: _gates(out) == 55 * 54 // 2,
        ),
        "a chain of pods": (
            _services(99, lambda n: f", network_mode: 'service:s{n - 1}'" if n else ""),
            lambda out: set(out.job.components.values()) == {"s0"},
        ),
        "a star of pods": (
            _services(99, lambda n: ", network_mode: 'service:s0'" if n else ""),
            lambda out: set(out.job.components.values()) == {"s0"},
        ),
        "a volume of all": (
            _services(99, lambda n: ", volumes: ['v:/v']") + "volumes: {v: }",
            lambda out: sum(obj["kind"] == "PersistentVolumeClaim" for obj in out.job.objects) == 2,
        ),
    },
)
_refused(
    _KIND,
    "TooMany",
    {
        "links of all": _services(90, lambda n: ", links: [" + _list(f"'s{m}:a{n}'" for m in range(n)) + "]"),
        "aliases that everybody looks for": (
            "services:\n  s0: {image: x, networks: {default: {aliases: ["
            + _list(f"a{n}" for n in range(8000))
            + "]}}}\n  s1: {image: x, command: ['"
            + "a1 " * 50_000
            + "']}\n"
        ),
    },
)
_refused(
    _KIND,
    "DependencyCycle",
    {
        "itself": _services(1, lambda n: ", depends_on: [s0]"),
        "two": _services(2, lambda n: f", depends_on: [s{1 - n}]"),
        "a long circle": _services(99, lambda n: f", depends_on: [s{(n + 1) % 99}]"),
        "through a link": _services(2, lambda n: ", links: [s1]" if n == 0 else ", depends_on: [s0]"),
        "through a pod": _services(
            2, lambda n: ", network_mode: 'service:s1'" if n == 0 else ", depends_on: [s0]"
        ),
        "pods of each other": _services(2, lambda n: f", network_mode: 'service:s{1 - n}'"),
        "every one of every other": _services(
            60, lambda n: f", depends_on: [{_list(f's{m}' for m in range(60) if m != n)}]"
        ),
        "a pod that waits for itself": """
            services:
              a: {image: x}
              b: {image: x, network_mode: "service:a", depends_on: {c: {condition: service_healthy}}}
              c: {image: x, healthcheck: {test: x}, depends_on: {a: {condition: service_healthy}}}
            """,
    },
)
_refused(
    _KIND,
    "ExtendsCycle",
    {
        "extends itself": "services: {s0: {image: x, extends: s0}}",
        "extends in a circle": _services(50, lambda n: f", extends: s{(n + 1) % 50}"),
    },
)
_refused(
    _KIND,
    "TooMany",
    {
        "services": _services(2000, lambda n: ""),
        "mounts of others": "services:\n  s0: {image: x, volumes: ["
        + _list(f"./b{n}:/v{n}" for n in range(250))
        + "]}\n"
        + "".join(f"  s{n}: {{image: x, volumes_from: [s0]}}\n" for n in range(1, 99)),
        "mounts of one, again and again": "services:\n  s0: {image: x, volumes: ["
        + _list(f"/v{n}" for n in range(1000))
        + "]}\n  s1: {image: x, volumes_from: ["
        + _list(f'"s0:m{n}"' for n in range(4000))
        + "]}\n",
    },
)

# --------------------------------------------------------------------------------------------------------- port ranges
_KIND = "ports"
_refused(
    _KIND,
    "BadValue",
    {
        "zero": one("ports: ['0-9:0-9']"),
        "backwards": one("ports: ['90-80:90-80']"),
        "beyond the last": one("ports: ['65000-66000:65000-66000']"),
        "thousands of digits": one(f"ports: ['{'9' * 5000}:80']"),
        "thousands of zeros": one(f"ports: [{{target: '{'0' * 5000}80'}}]"),
        "negative": one("ports: [-1]"),
        "of different lengths": one("ports: ['1-10:1-9']"),
        "another protocol": one("ports: ['80/status:']"),
        "other digits": one("ports: ['\u0668\u0660:\u0668\u0660']"),
        "an endless address": one(f"ports: ['[{':' * 50_000}']"),
    },
)
_refused(
    _KIND,
    "TooMany",
    {
        "many ranges": one("ports: [" + _list(f"'{n}-{n + 255}'" for n in range(1, 9000)) + "]"),
        "many ranges in several services": _services(
            20, lambda n: f", ports: ['{1000 + n * 256}-{1255 + n * 256}']"
        ),
        "many exposed": one(
            "expose: [" + _list(f"'{n * 256 + 20256}-{n * 256 + 20511}'" for n in range(9)) + "]"
        ),
    },
)
_refused(
    _KIND,
    "AgentPort",
    {
        "the agent's, in a range": one("ports: ['19990-20010']"),
        "the agent's, exposed": one("expose: ['20000/tcp']"),
        "all": one("ports: ['1-65535:1-65535']"),
        "all, long form": one("ports: [{target: 80, published: '1-65535'}, {target: '1-65535'}]"),
        "all, exposed": one("expose: ['1-65535']"),
    },
)

# -------------------------------------------------------------------------------------------------------- huge scalars
_KIND = "scalars"
_refused(
    _KIND,
    "WrongType",
    {"no number": one("cpus: .nan"), "infinite replicas": one("deploy: {replicas: .inf}")},
)
_refused(
    _KIND,
    "BadValue",
    {
        "a number of processors": one(f"cpus: {'9' * 5000}"),
        "an endless number": one("cpus: 1e999999"),
        "a negative one": one("cpus: -1e999999"),
        "replicas": one(f"deploy: {{replicas: {'9' * 60}}}"),
        "a size": one(f"mem_limit: {'9' * 5000}"),
        "a size with a unit": one("mem_limit: '1e999999g'"),
        "a size of memory": one("shm_size: 99999999p"),
        "retries": one(f"healthcheck: {{test: x, retries: '{'9' * 5000}'}}"),
        "a duration": one("stop_grace_period: '" + "1s" * 100_000 + "'"),
        "a mode": one(f"configs: [{{source: c, mode: '{'7' * 50_000}'}}]", top="configs: {c: {content: x}}"),
        "a hexadecimal number": one("expose: [0x" + "f" * 60 + "]"),
        "a path": one("volumes: ['/" + "a/" * 100_000 + "']"),
        "a source": one("volumes: ['./" + "../" * 60_000 + ":/x']"),
        "a subpath": one(
            f"volumes: [{{type: volume, source: , target: /x, volume: {{subpath: {'a/' * 50_000} }}}}]"
        ),
        "a path of a file": one(
            f"configs: [{{source: c, target: '{'/a' * 50_000}'}}]", top="configs: {c: {content: x}}"
        ),
        "a memory volume's path": one(f"tmpfs: '{'/a' * 50_000}'"),
        "a path that looks like a cache": one('volumes: ["' + "/.cache/torch" * 15_000 + '\\nx"]'),
        "words": one("command: '" + "v " * 100_000 + "'"),
        "words that are repeated": "x-a: &a '"
        + "v " * 1000
        + "'\n"
        + _services(99, lambda n: ", command: *a "),
        "an image": f"services: {{app: {{image: '{'a/' * 100_000}b'}}}}",
    },
)
_refused(
    _KIND,
    "BadYaml",
    {
        "a key": one("A" * 200_000 + ": x"),
        "base64 that YAML unpacks": one("command: [!!binary " + "QUFB" * 50_000 + "]"),
        "an anchor's name": f"x-a: &{'a' * 100_000} x\nx-b: *b\n{_HARMLESS}",
        "a tag": f"x-a: !{'a' * 100_000} x\n{_HARMLESS}",
    },
)
_refused(_KIND, "UnknownKey", {"a quoted key": one("? '" + "A" * 200_000 + "'\n: x")})
_refused(
    _KIND,
    "TooLarge",
    {
        "text that grows when it is written": 'x-a: &a "'
        + r"\e" * 100_000
        + '"\n'
        + one("command: [*a, *a]\nconfigs: [c]", top="configs: {c: {content: *a }}"),
        "comments": "#\n" * 200_000 + _HARMLESS,
    },
)
_checked(
    _KIND,
    {
        "a value": (
            one(f"environment: {{A: {'x' * 200_000}}}"),
            lambda out: len(out.variables()["A"]) == 200_000,
        ),
        "base64": (
            one("configs: [c]", top=f"configs: {{c: {{content: '{'QUFB' * 50_000}'}}}}"),
            lambda out: out.files() == ["QUFB" * 50_000],
        ),
        "an exponent": (one("environment: {A: 1e999999, B: -1e9999}"), lambda out: len(out.variables()) == 2),
        "digits": (
            one(f"environment: {{A: {'9' * 5000}}}"),
            lambda out: out.variables() == {"A": "9" * 5000},
        ),
        "decimals": (
            one(f"cpus: 0.{'1' * 60}"),
            lambda out: out.container()["resources"]["limits"]["cpu"] == "112m",
        ),
        "a user": (
            one(f"user: '{'0' * 200_000}'"),
            lambda out: "runAsUser" not in out.container()["securityContext"],
        ),
        "a host": (
            one(f"extra_hosts: ['{'a.' * 50_000}b:10.0.0.1']"),
            lambda out: "hostAliases" not in jobs.pod(out.job, "app"),
        ),
        "attempts": (
            one("deploy: {restart_policy: {condition: on-failure, max_attempts: 999999999999}}"),
            lambda out: all(
                obj["spec"]["backoffLimit"] <= 10_000 for obj in out.job.objects if obj["kind"] == "Job"
            ),
        ),
        "dollars": (
            one("command: ['" + "$$" * 100_000 + "']"),
            lambda out: out.container()["args"] == ["$$" * 99_999 + "$"],
        ),
    },
)

# ------------------------------------------------------------------------------------------------------ duplicate keys
_KIND = "duplicates"
_refused(
    _KIND,
    "DuplicateKey",
    {
        "a key": "services: {app: {image: x, image: y}}",
        "a service": "services:\n  app: {image: x}\n  app: {image: y}",
        "a section": "services: {app: {image: x}}\nservices: {app: {image: y}}",
        "quoted": "services:\n  app: {image: x}\n  'app': {image: y}",
        "quoted twice": "services: {app: {'image': x, \"image\": y}}",
        "escaped": 'services:\n  app: {image: x}\n  "\\x61pp": {image: y}',
        "as a section, escaped": 'services: {app: {image: x}}\n"\\u0073ervices": {app: {image: y, privileged: true}}',
        "tagged": "services:\n  app: {image: x}\n  !!str app: {image: y}",
        "an explicit key": "services:\n  app: {image: x}\n  ? app\n  : {image: y}",
        "an anchored key": "services:\n  &a app: {image: x}\n  *a : {image: y}",
        "a folded key": "services:\n  a: {image: x}\n  ? >-\n    a\n  : {image: y}",
        "a variable": one("environment: {A: x, A: y}"),
        "in what is merged": "x-a: &a {image: x, image: y}\nservices: {app: {<<: *a}}",
        "privileged, the second time": one("privileged: false\nprivileged: true"),
        "beside a merge": "x-a: &a {image: x}\nservices: {app: {<<: *a, image: y, image: z}}",
    },
)
_checked(
    _KIND,
    {
        "what is merged loses": (
            "x-a: &a {image: evil, privileged: true}\nservices: {app: {<<: *a, image: x, privileged: false}}",
            lambda out: out.container()["image"] == "x",
        ),
        "the first of two merges wins": (
            "x-a: &a {image: x}\nx-b: &b {image: evil}\nservices: {app: {<<: [*a, *b]}}",
            lambda out: out.container()["image"] == "x",
        ),
        "in case only": (
            "services: {app: {image: x}, APP: {image: y}, App: {image: z}}",
            lambda out: len(set(out.job.components.values())) == 3,
        ),
    },
)
_refused(
    _KIND,
    "UnknownKey",
    {"a merge key that is quoted": "x-a: &a {privileged: true}\nservices: {app: {image: x, '<<': *a}}"},
)
_refused(
    _KIND,
    "WrongType",
    {
        "a number and its text": one("environment: {1: x, '1': y}"),
        "a mapping": "services: {? {a: b} : {image: x}}",
        "nothing and its text": one("environment: {~: x, '~': y}"),
    },
)

_refused(
    _KIND,
    "MultipleDocuments",
    {
        "a second document": "services: {app: {image: x}}\n---\nservices: {app: {image: y}}",
        "a second document behind an end": "services: {app: {image: x}}\n...\n---\nservices: {app: {image: y}}",
    },
)

# ------------------------------------------------------------------------------------------------------- odd encodings
_KIND = "encodings"
_PRIVILEGED = one("privileged: true")
_refused(
    _KIND,
    "BadEncoding",
    {
        **{
            f"{name} with its mark": mark + _PRIVILEGED.encode(codec)
            for name, codec, mark in (
                ("UTF-16LE", "utf-16-le", b"\xff\xfe"),
                ("UTF-16BE", "utf-16-be", b"\xfe\xff"),
                ("UTF-32LE", "utf-32-le", b"\xff\xfe\0\0"),
                ("UTF-32BE", "utf-32-be", b"\0\0\xfe\xff"),
            )
        },
        **{
            f"{codec} without a mark": _PRIVILEGED.encode(codec)
            for codec in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
        },
        "Latin-1": one("environment: {A: é}").encode("latin-1"),
        "EBCDIC": _HARMLESS.encode("cp037"),
        "Shift JIS": one("environment: {A: 表}").encode("shift-jis"),
        "overlong slash": b"services: {app: {image: x, volumes: ['..\xc0\xaf..:/x']}}",
        "overlong, three bytes": b"services: {app: {image: x, volumes: ['..\xe0\x80\xaf..:/x']}}",
        "overlong NUL": b"services: {app: {image: x\xc0\x80}}",
        "a surrogate": b"services: {app: {image: x, hostname: \xed\xa0\x80}}",
        "a pair of surrogates": b"services: {app: {image: x, hostname: \xed\xa0\xbd\xed\xb8\x80}}",
        "beyond Unicode": b"services: {app: {image: x, hostname: \xf4\x90\x80\x80}}",
        "cut off": b"services: {app: {image: x, hostname: \xe2\x82",
        "no character": "services: {app: {image: x, hostname: \uffff}}",
    },
)
_refused(_KIND, "BadYaml", {"an escaped surrogate": one(r'hostname: "\ud83d\ude00"')})
_refused(
    _KIND,
    "Privileged",
    {
        "escaped key and value": r'services: {app: {image: x, "\x70\u0072ivileged": !!bool "true"}}',
        "with a mark": b"\xef\xbb\xbf" + _PRIVILEGED.encode(),
        "with a version of YAML": "%YAML 1.1\n---\n" + _PRIVILEGED,
        "YAML 1.1's booleans": one("privileged: yes"),
        "a tag of its own for what is known": "%TAG !y! tag:yaml.org,2002:\n---\n"
        + one("privileged: !y!bool true"),
    },
)
_checked(
    _KIND,
    {
        "line breaks of Unicode": (
            one('environment: {A: "a\u2028b\u2029c"}'),
            lambda out: "b" in out.variables()["A"],
        ),
        "escaped line breaks of Unicode": (
            one(r'environment: {A: "a\L\P\Nb"}'),
            lambda out: out.variables()["A"] == "a\u2028\u2029\x85b",
        ),
        "carriage returns": (
            b"services:\r  app:\r    image: x\r    environment: {A: b}\r",
            lambda out: out.variables() == {"A": "b"},
        ),
        "right to left": (
            one('environment: {A: "\u202eevil\u2066"}'),
            lambda out: out.variables()["A"] == "\u202eevil\u2066",
        ),
    },
)

_refused(
    _KIND,
    "BadYaml",
    {
        "an object of Python": "services: {app: {image: !!python/object/apply:os.system id}}",
        "an object of Python by a short tag": "%TAG ! tag:yaml.org,2002:python/\n---\n"
        + one("command: [!name:os.system x]"),
        "a tag of its own": "services: {app: {image: !include '@FILE@'}}",
    },
)

# -------------------------------------------------------------------------------------------------- as much as may be
_KIND = "large"


def _counted(count: int, what: Callable[[Outcome], Any]) -> Check:
    return lambda out: len(what(out)) == count


def _arguments(out: Outcome) -> list[str]:
    return list(out.container()["args"])


_checked(
    _KIND,
    {
        "services": (_services(100, lambda n: ""), lambda out: len(out.job.components) == 100),
        "services with variables": (
            _services(95, lambda n: f", environment: {{{_list(f'A{m}: v' for m in range(47))}}}"),
            lambda out: len(out.job.components) == 95,
        ),
        "variables": (
            one(f"environment: {{{_list(f'A{n}: v' for n in range(4900))}}}"),
            _counted(4900, Outcome.variables),
        ),
        "variables with hosts": (
            one("environment: [" + _list(f"A{n}=http://h:{n}" for n in range(8000)) + "]"),
            _counted(8000, Outcome.variables),
        ),
        "variables that aren't set": (
            one("environment: [" + _list(f"A{n}" for n in range(9000)) + "]"),
            _counted(0, Outcome.variables),
        ),
        "words": (one(f"command: [{','.join(['v'] * 9900)}]"), _counted(9900, _arguments)),
        "a word": (one("command: '" + "x" * 250_000 + "'"), _counted(1, _arguments)),
        "names of services in a word": (
            "services: {a_b: {image: x}, app: {image: x, command: ['" + "http://a_b:1/ " * 15_000 + "']}}",
            lambda out: _arguments(out) == ["http://a-b:1/ " * 15_000],
        ),
        "names of the host": (
            one("command: ['" + "host.docker.internal:1 " * 11_000 + "']"),
            _counted(1, _arguments),
        ),
        "references": (one("command: ['" + "$A" * 120_000 + "']"), lambda out: _arguments(out) == [""]),
        "references to one variable": (
            one("command: ['" + "$PORT" * 40_000 + "']"),
            lambda out: _arguments(out) == ["5555" * 40_000],
        ),
        "volumes": (
            one("volumes: [" + _list(f"'./d{n}/:/v{n}'" for n in range(1000)) + "]"),
            _counted(1000, Outcome.mounts),
        ),
        "volumes in volumes": (
            one("volumes: [" + _list(f"'./{'a/' * n}:/v{n}'" for n in range(1, 480)) + "]"),
            _counted(479, Outcome.mounts),
        ),
        "memory volumes": (
            one("tmpfs: [" + _list(f"/t{n}" for n in range(1000)) + "]"),
            _counted(1000, Outcome.mounts),
        ),
        "configs": (
            one(
                "configs: [" + _list(f"c{n}" for n in range(1000)) + "]",
                top="configs: {" + _list(f"c{n}: {{content: x}}" for n in range(1000)) + "}",
            ),
            _counted(1000, Outcome.files),
        ),
        "a config of all": (
            _services(99, lambda n: ", configs: [c]")
            + "configs: {c: {content: '"
            + "http://s1:1 " * 20_000
            + "'}}",
            _counted(1, Outcome.files),
        ),
        "ports": (
            one("ports: [" + _list(f"'{n}-{n + 255}'" for n in range(30_000, 32_000, 256)) + "]"),
            _counted(2048, lambda out: out.container()["ports"]),
        ),
        "hosts": (
            one("extra_hosts: [" + _list(f"'a{n}:10.0.{n // 250}.{n % 250}'" for n in range(9000)) + "]"),
            _counted(9000, lambda out: jobs.pod(out.job, "app")["hostAliases"]),
        ),
        "names for the host": (
            one("extra_hosts: [" + _list(f"'a{n}:host-gateway'" for n in range(9000)) + "]"),
            lambda out: "hostAliases" not in jobs.pod(out.job, "app"),
        ),
        "groups": (
            one(f"group_add: [{_list(map(str, range(9000)))}]"),
            _counted(9000, lambda out: jobs.pod(out.job, "app")["securityContext"]["supplementalGroups"]),
        ),
        "groups of one that is extended": (
            "services:\n  base: {image: x, group_add: ["
            + _list(f"a{n}" for n in range(4900))
            + "]}\n  app: {extends: base, group_add: ["
            + _list(f"b{n}" for n in range(4900))
            + "]}\n",
            lambda out: "supplementalGroups" not in jobs.pod(out.job, "app")["securityContext"],
        ),
        "words of a check": (
            one(f"healthcheck: {{test: [CMD, {','.join(['a'] * 9000)}]}}"),
            _counted(9000, lambda out: out.container()["readinessProbe"]["exec"]["command"]),
        ),
        "constraints": (
            one("deploy: {placement: {constraints: [" + _list(f"a{n}" for n in range(9000)) + "]}}"),
            lambda out: "nodeSelector" not in jobs.pod(out.job, "app"),
        ),
        "GPUs by their names": (
            one(
                "gpus: [{capabilities: [gpu], device_ids: [" + _list(f"'{n}'" for n in range(9000)) + "]}]",
            ),
            lambda out: out.container()["resources"]["limits"]["nvidia.com/gpu"] == "9000",
        ),
        "links": (
            "services: {a: {image: x, links: ["
            + _list(f"'b:l{n}'" for n in range(500))
            + "]}, b: {image: x}}",
            lambda out: len(out.translation.service("b").aliases) == 500,
        ),
        "services with hosts": (
            _services(100, lambda n: f", environment: [{_list(f'A{m}=http://h:{m}' for m in range(90))}]"),
            lambda out: len(out.job.components) == 100,
        ),
        "numbers": (
            one(f"command: [{_list(f'{n}.{n}e{n % 300}' for n in range(9000))}]"),
            _counted(9000, _arguments),
        ),
        "deep references": (
            "x-a: " + "[" * 60 + ",".join(['"${A:-${B:-c}}"'] * 9000) + "]" * 60 + "\n" + _HARMLESS,
            lambda out: len(out.job.components) == 1,
        ),
        "devices": (
            one("devices: [" + _list(f"'/dev/dri/renderD{n}'" for n in range(9000)) + "]"),
            lambda out: "amd.com/gpu" not in out.container()["resources"]["limits"],
        ),
        "padding": (
            _HARMLESS + "#" * (256 * 1024 - len(_HARMLESS)),
            lambda out: len(out.job.components) == 1,
        ),
    },
)
_refused(
    _KIND,
    "TooManyFindings",
    {
        "unknown keys": one("\n".join(f"k{n}: 1" for n in range(4900))),
        "capabilities": one("cap_add: [" + _list(f"C{n}" for n in range(9000)) + "]"),
        "dependencies of nothing": one("depends_on: [" + _list(f"a{n}" for n in range(9000)) + "]"),
    },
)
_refused(_KIND, "TooMany", {"mounts": one("volumes: [" + _list(f"/v{n}" for n in range(5000)) + "]")})
_refused(
    _KIND,
    "NotAComposeFile",
    {
        "comments": "#\n" * 100_000 + "FRO",
        "blank lines": "#" + "\n" * 200_000 + "x",
        "addresses": "https://" + ".git#" * 50_000 + " x",
        "names": "a-" * 100_000,
        "a page": "<html>" + "<a>" * 80_000,
        "JSON": "{" + _list(f'"k{n}": [1]' for n in range(15_000)) + "}",
    },
)

# -------------------------------------------------------------------------------------------------- control characters
_KIND = "control"
_refused(
    _KIND,
    "BadEncoding",
    {
        "NUL": b"services: {app: {image: x\0}}",
        "NUL in a comment": b"# \0\nservices: {app: {image: x}}",
        "NUL at the end": _HARMLESS.encode() + b"\0",
        "NUL, escaped, in a variable": one(r'environment: {A: "x\0y"}'),
        "NUL, escaped, in an image": r'services: {app: {image: "x\x00"}}',
        "NUL, escaped, in a config": one("configs: [c]", top=r'configs: {c: {content: "\u0000"}}'),
        "NUL, escaped, in a key": one(r'"privileged\0": true'),
        "NUL, escaped, in a path": one(r'volumes: ["/x\0/../etc:/y"]'),
        "escape": b"services: {app: {image: x\x1b[31m}}",
        "delete": b"services: {app: {image: x\x7f}}",
        "C1": "services: {app: {image: x\x9b31m}}",
        "backspace": b"services: {app: {image: evil\x08\x08\x08\x08good}}",
        "vertical tab": b"services: {app:\x0b {image: x}}",
        "end of file": b"services: {app: {image: x}}\x1a\nservices: {app: {image: y}}",
    },
)
_refused(
    _KIND,
    "BadValue",
    {
        "a line break in an image": r'services: {app: {image: "x\nprivileged: true"}}',
        "a line break in a service's name": r'services: {"app\n  evil": {image: x}}',
        "an escape in a service's name": r'services: {"a\e[31mpp": {image: x}}',
        "a line break in a path": one(r'volumes: ["v:/x\nhostPath: /"]', top="volumes: {v: }"),
        "a line break in a device": one(r'devices: ["/dev/kfd\n/dev/sda", "/dev/kfd"]').replace(
            "devices", "tmpfs"
        ),
        "a line break in a policy": one(r'restart: "always\nhostNetwork: true"'),
    },
)
_refused(_KIND, "DeviceRefused", {"a line break in a device's path": one(r'devices: ["/dev/kfd\n/dev/sda"]')})
_harmless(
    _KIND,
    {
        "a line break in a variable's name": one(r'environment: {"A\nLD_PRELOAD": x}'),
        "a line break in an address": one(r'extra_hosts: {a: "fe80::1%\n10.0.0.1 b"}'),
        "an escape in a host": one(r'extra_hosts: ["a\n10.0.0.1 b:10.0.0.2"]'),
        "an escape in a label": one(r'labels: {"a\e": "\e[2J"}'),
    },
)
_checked(
    _KIND,
    {
        "an escape in a value": (
            one(r'environment: {A: "\e[31m"}'),
            lambda out: out.variables() == {"A": "\x1b[31m"},
        ),
        "a line break in a value": (
            one(r'environment: {A: "x\n      hostNetwork: true\n---\nkind: Pod"}'),
            lambda out: out.variables() == {"A": "x\n      hostNetwork: true\n---\nkind: Pod"},
        ),
    },
)

# --------------------------------------------------------------------------------------------------------------- names
_KIND = "names"
#: Names of which not only the beginnings but the hashes are alike.
_TWINS = ("n" * 54 + "0000004e9b", "n" * 54 + "00000065e3")
_TWIN_FILES = ("n" * 54 + "0000011a46", "n" * 54 + "000001c40c")
_TWIN_VOLUMES = ("v" * 50 + "000000000ae41", "v" * 50 + "000000001b445")
_refused(
    _KIND,
    "BadValue",
    {
        "a service's path": "services: {'../../etc': {image: x}}",
        "a service's slash": "services: {'a/b': {image: x}}",
        "a look-alike": "services: {app: {image: x}, \u0430pp: {image: y}}",
        "wide letters": "services: {\uff41\uff50\uff50: {image: x}}",
        "an invisible letter": "services: {app: {image: x}, app\u200b: {image: y}}",
        "ten thousand letters": f"services:\n  ? {'a' * 10_000}\n  : {{image: x}}",
        "nothing": "services: {'': {image: x}}",
        "a volume's path": one("", top="volumes: {'../x': }"),
        "a config's path": one("", top="configs: {'../../x': {content: x}}"),
        "a file's path": one("configs: [{source: c, target: '/a:b'}]", top="configs: {c: {content: x}}"),
        "a subpath that climbs": one("volumes: [{type: volume, target: /x, volume: {subpath: a/../../b}}]"),
    },
)
_checked(
    _KIND,
    {
        "a network's line": (
            (
                'services: {a: {image: x, networks: &n ["a\\nb"]}, b: {image: y, networks: *n}, c: {image: z}}\n'
                'networks: {"a\\nb": }'
            ),
            lambda out: out.translation.service("a").networks == ["a-b"],
        ),
        "that become one": (
            "services: {a_b: {image: x}, a.b: {image: y}, A-B: {image: z}, a-b: {image: w}}",
            lambda out: (out.container("a-b")["image"], len(set(out.job.components.values()))) == ("w", 4),
        ),
        "whose hashes are alike": (
            "services:\n" + "".join(f"  {name}: {{image: x}}\n" for name in _TWINS),
            lambda out: len(set(out.job.components.values())) == 2,
        ),
        "files whose hashes are alike": (
            one(
                f"configs: [{', '.join(_TWIN_FILES)}]",
                top="configs:\n" + "".join(f"  {name}: {{content: '{name[-1]}'}}\n" for name in _TWIN_FILES),
            ),
            lambda out: sorted(out.files()) == sorted(name[-1] for name in _TWIN_FILES),
        ),
        "of dots and hyphens": (
            "services: {'.': {image: x}, '..': {image: y}, '-': {image: z}, '_': {image: w}}",
            lambda out: len(set(out.job.components.values())) == 4,
        ),
        "of the agent": (
            "services: {gpux-agent: {image: x}}",
            lambda out: list(out.job.components.values()) != ["gpux-agent"],
        ),
        "of what jobs have": (
            "services: {job: {image: x}, agent: {image: x}, files: {image: x}, secrets: {image: x}, v: {image: x}}",
            lambda out: len(out.job.components) == 5,
        ),
        "of volumes that jobs have": (
            one(
                "volumes: ['job:/a', 'gpux-run:/b', 'gpux-token:/c', 'files:/d', 'secrets:/e']",
                top="volumes: {job: , gpux-run: , gpux-token: , files: , secrets: }",
            ),
            lambda out: set(out.mounts().values()) == {"persistentVolumeClaim"},
        ),
        "as long as allowed": (
            f"services: {{{'a' * 128}: {{image: x}}, {'a' * 127}b: {{image: y}}}}",
            lambda out: len(set(out.job.components.values())) == 2,
        ),
        "of a sibling, as an alias": (
            "services: {db: {image: x}, b: {image: y, container_name: db, networks: {default: {aliases: [db, DB]}}}}",
            lambda out: out.translation.service("b").aliases == ["db"],
        ),
        "of the API server, as an alias": (
            one("networks: {default: {aliases: [kubernetes.default.svc, kubernetes]}}"),
            lambda out: list(out.job.components.values()) == ["app"],
        ),
    },
)
_harmless(
    _KIND,
    {
        "a container's path": one("container_name: ../../../etc"),
        "a container's ten thousand letters": one(f"container_name: {'a' * 10_000}"),
        "a host's": one("hostname: kubernetes.default.svc\ndomainname: evil.example"),
        "a project's": one("", top="name: ../../x"),
        "a network's own": one("networks: [n]", top="networks: {n: {name: ../../kube-system}}"),
    },
)
_refused(
    _KIND,
    "ComposeRefused",
    {
        "volumes whose hashes are alike": one(
            f"volumes: ['{_TWIN_VOLUMES[0]}:/a', '{_TWIN_VOLUMES[1]}:/b']",
            top=f"volumes: {{{_TWIN_VOLUMES[0]}: , {_TWIN_VOLUMES[1]}: }}",
        )
    },
)

# -------------------------------------------------------------------------------------------------------------- labels
_KIND = "labels"
_KOMPOSE = {
    "controller.port.expose": "true",
    "controller.type": "junk",
    "cronjob.backoff_limit": "9",
    "cronjob.concurrency_policy": "Forbid",
    "cronjob.schedule": "* * * * *",
    "hpa.cpu": "1",
    "hpa.memory": "1",
    "hpa.replicas.max": "999",
    "hpa.replicas.min": "99",
    "image-pull-policy": "Always",
    "image-pull-secret": SMUGGLED,
    "init.containers.command": '["cat", "/proc/1/environ"]',
    "init.containers.image": SMUGGLED,
    "init.containers.name": SMUGGLED,
    "security-context.fsgroup": "0",
    "service.expose": f"{SMUGGLED}.example/admin",
    "service.expose.ingress-class-name": SMUGGLED,
    "service.expose.path": f"/{SMUGGLED}",
    "service.expose.tls-secret": SMUGGLED,
    "service.external-traffic-policy": "local",
    "service.group": SMUGGLED,
    "service.healthcheck.liveness.http_get_path": f"/{SMUGGLED}",
    "service.healthcheck.liveness.http_get_port": "20000",
    "service.healthcheck.liveness.tcp_port": "20000",
    "service.healthcheck.readiness.disable": "true",
    "service.healthcheck.readiness.http_get_path": f"/{SMUGGLED}",
    "service.healthcheck.readiness.http_get_port": "20000",
    "service.healthcheck.readiness.tcp_port": "20000",
    "service.healthcheck.readiness.test": f"cat {SMUGGLED}",
    "service.name_override": SMUGGLED,
    "service.nodeport.port": "30000",
    "service.type": "LoadBalancer",
    "serviceaccount-name": SMUGGLED,
    "volume.size": "9Pi",
    "volume.storage-class-name": SMUGGLED,
    "volume.sub-path": "../..",
    "volume.subpath": "../..",
    "volume.type": "hostPath",
}
_WITH_ALL = """
ports: ['8080:80']
volumes: ['v:/v']
healthcheck: {test: ok}
"""
_VOLUME = "volumes: {v: }"
_harmless(
    _KIND,
    {
        f"kompose.{name}": one(f"{_WITH_ALL}labels: {{kompose.{name}: {json.dumps(value)}}}", top=_VOLUME)
        for name, value in _KOMPOSE.items()
    },
    like=one(_WITH_ALL, top=_VOLUME),
)
_ALL_OF_KOMPOSE = json.dumps({f"kompose.{name}": value for name, value in _KOMPOSE.items()})
_POWERFUL = json.dumps(
    {
        "app.kubernetes.io/managed-by": SMUGGLED,
        "argocd.argoproj.io/tracking-id": f"{SMUGGLED}:apps/Deployment:x/y",
        "argocd.argoproj.io/hook": "PreSync",
        "kubectl.kubernetes.io/last-applied-configuration": f'{{"spec": "{SMUGGLED}"}}',
        "meta.helm.sh/release-name": SMUGGLED,
        "helm.sh/hook": "pre-install",
        "opengpu.network/spec-hash": SMUGGLED,
        "opengpu.network/job": SMUGGLED,
        "opengpu.network/task-uid": SMUGGLED,
        "sidecar.istio.io/inject": "true",
        "container.apparmor.security.beta.kubernetes.io/app": "unconfined",
        "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel": "true",
        "pod-security.kubernetes.io/enforce": "privileged",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "kubernetes.io/config.source": "file",
    }
)
_harmless(
    _KIND,
    {
        "all of kompose's, in a list": one(
            f"labels: {json.dumps([f'kompose.{name}={value}' for name, value in _KOMPOSE.items()])}"
        ),
        "all of kompose's, of the deployment": one(f"deploy: {{labels: {_ALL_OF_KOMPOSE}}}"),
        "all of kompose's, of the image": one(f"build: {{context: ., labels: {_ALL_OF_KOMPOSE}}}"),
        "all of kompose's, merged": f"x-l: &l {_ALL_OF_KOMPOSE}\n" + one("labels: {<<: *l}"),
        "of other programs": one(f"labels: {_POWERFUL}"),
        "of other programs, as annotations": one(f"annotations: {_POWERFUL}"),
        "of other programs, of the deployment": one(f"deploy: {{labels: {_POWERFUL}}}"),
        "of a network": one("networks: [n]", top=f"networks: {{n: {{labels: {_POWERFUL}}}}}"),
        "that are no labels": one("labels: ['" + "x" * 100_000 + "', '=', '/', ' = ']"),
        "thousands": one(f"labels: [{_list(f'l{n}=x' for n in range(9000))}]"),
    },
)
_harmless(
    _KIND,
    {"of a volume": one("volumes: ['v:/v']", top=f"volumes: {{v: {{labels: {_POWERFUL}}}}}")},
    like=one("volumes: ['v:/v']", top=_VOLUME),
)
_harmless(
    _KIND,
    {"of a config": one("configs: [c]", top=f"configs: {{c: {{content: x, labels: {_POWERFUL}}}}}")},
    like=one("configs: [c]", top="configs: {c: {content: x}}"),
)

# ---------------------------------------------------------------------------------------------- snippets of an ingress
_KIND = "snippets"
_PUBLISHED = "ports: ['8080:80']\n"
_NGINX = "nginx.ingress.kubernetes.io"
_SNIPPETS = {
    f"{_NGINX}/configuration-snippet": f"lua_package_path {SMUGGLED};",
    f"{_NGINX}/server-snippet": "location /x { proxy_pass http://@TRAP@; }",
    f"{_NGINX}/stream-snippet": f"server {{ listen 1; proxy_pass {SMUGGLED}:1; }}",
    f"{_NGINX}/auth-snippet": f"proxy_set_header {SMUGGLED} x;",
    f"{_NGINX}/modsecurity-snippet": f"Include {SMUGGLED}",
    f"{_NGINX}/auth-url": "http://@TRAP@/#;\\n}",
    f"{_NGINX}/auth-method": f"GET;{SMUGGLED}",
    f"{_NGINX}/rewrite-target": f"/x;{SMUGGLED}",
    f"{_NGINX}/mirror-target": "http://@TRAP@$request_uri",
    f"{_NGINX}/auth-tls-match-cn": f"CN=x #(\\n){SMUGGLED}",
    f"{_NGINX}/server-alias": SMUGGLED,
    "nginx.org/server-snippets": SMUGGLED,
    "haproxy.org/backend-config-snippet": SMUGGLED,
    "haproxy-ingress.github.io/config-backend": SMUGGLED,
    "traefik.ingress.kubernetes.io/router.middlewares": SMUGGLED,
    "traefik.http.routers.x.rule": f"Host(`{SMUGGLED}`)",
    "konghq.com/plugins": SMUGGLED,
    "ingress.class": SMUGGLED,
    "cert-manager.io/cluster-issuer": SMUGGLED,
    "external-dns.alpha.kubernetes.io/hostname": SMUGGLED,
    "service.beta.kubernetes.io/aws-load-balancer-internal": "false",
}
_harmless(
    _KIND,
    {
        **{name: one(f"{_PUBLISHED}labels: {json.dumps({name: text})}") for name, text in _SNIPPETS.items()},
        "with a host of their own": one(
            _PUBLISHED
            + f"labels: {json.dumps({**_SNIPPETS, 'kompose.service.expose': f'{SMUGGLED}.example'})}"
        ),
        "as annotations": one(f"{_PUBLISHED}annotations: {json.dumps(_SNIPPETS)}"),
        "of the deployment": one(f"{_PUBLISHED}deploy: {{labels: {json.dumps(_SNIPPETS)}}}"),
        "of a port": one(
            f"ports: [{{target: 80, published: '8080', name: {SMUGGLED}, app_protocol: {SMUGGLED}, mode: host}}]"
        ),
    },
    like=one(_PUBLISHED),
)

# ------------------------------------------------------------------------------------------------ what follows status:
_KIND = "status"


def _whole(out: Outcome) -> bool:
    """Whether a container has what kompose would have cut off behind an early ``status:``."""
    container = out.container()
    return bool(container["image"] and container["securityContext"] and container["volumeMounts"])


def _kept(value: str) -> Check:
    return lambda out: _whole(out) and out.variables()["A"] == value


_checked(
    _KIND,
    {
        "a value": (one("environment: {A: 'status:'}"), _kept("status:")),
        "a value's line": (one(r'environment: {A: "x\nstatus:\n  x"}'), _kept("x\nstatus:\n  x")),
        "a value's end": (one("environment: {A: 'the status:', B: x}"), _kept("the status:")),
        "a value and more": (one("environment: {A: 'status: x'}"), _kept("status: x")),
        "a value, many lines": (
            one("environment:\n  A: |\n    status:\n      x\n    status:\n"),
            _kept("status:\n  x\nstatus:\n"),
        ),
        "a value by a variable": (one("environment: {A: 'sta${UNSET}tus:'}"), _kept("status:")),
        "a value with a carriage return": (one(r'environment: {A: "status:\r\nx"}'), _kept("status:\r\nx")),
        "a variable": (
            one("environment: {status: x, my.status: y}"),
            lambda out: _whole(out) and out.variables() == {"status": "x", "my.status": "y"},
        ),
        "a command": (
            one(r'command: ["x", "status:", "a\nstatus:\nb"]'),
            lambda out: _whole(out) and out.container()["args"] == ["x", "status:", "a\nstatus:\nb"],
        ),
        "an entrypoint": (
            one("entrypoint: ['status:']\ncommand: ['status:']"),
            lambda out: (
                _whole(out) and (out.container()["command"], out.container()["args"]) == (["status:"],) * 2
            ),
        ),
        "a check": (
            one("healthcheck: {test: [CMD, 'status:']}"),
            lambda out: _whole(out) and out.container()["readinessProbe"]["exec"]["command"] == ["status:"],
        ),
        "a directory": (
            one("working_dir: '/status:'"),
            lambda out: _whole(out) and out.container()["workingDir"] == "/status:",
        ),
        "a config": (
            one("configs: [c]", top=r'configs: {c: {content: "a\nstatus:\nb"}}'),
            lambda out: _whole(out) and out.files() == ["a\nstatus:\nb"],
        ),
        "a secret": (
            one("secrets: [s]", top=r'secrets: {s: {content: "a\nstatus:\nb"}}'),
            lambda out: _whole(out) and "a\nstatus:\nb" in out.files("Secret"),
        ),
        "a service": ("services: {status: {image: x}}", lambda out: out.container("status")["image"] == "x"),
        "an image": ("services: {app: {image: 'status:latest'}}", _whole),
        "an image's end": ("services: {app: {image: 'example.org/status'}}", _whole),
        "a volume": (
            one("volumes: ['status:/status']", top="volumes: {status: }"),
            lambda out: _whole(out) and "/status" in out.mounts(),
        ),
        "a host": (
            one("extra_hosts: {status: 10.0.0.1}"),
            lambda out: (
                jobs.pod(out.job, "app")["hostAliases"] == [{"ip": "10.0.0.1", "hostnames": ["status"]}]
            ),
        ),
        "a sysctl": (
            one("sysctls: {net.ipv4.tcp_rmem: 'status:'}"),
            lambda out: jobs.pod(out.job, "app")["securityContext"]["sysctls"][0]["value"] == "status:",
        ),
    },
)
_refused(_KIND, "BadValue", {"an image's tag": "services: {app: {image: 'x:status:'}}"})
_refused(
    _KIND,
    "UnknownKey",
    {"a key": one("status: {phase: Running}"), "a section": one("", top="status: {x: y}")},
)
_harmless(
    _KIND,
    {
        "a label": one(r'labels: {a: "status:\n", "b\nstatus:": x, "status:": x}'),
        "a user": one("user: 'status:'"),
        "a host's name": one("hostname: 'status:'\ncontainer_name: 'status:'"),
        "an extension": one(r'x-status: "a\nstatus:\nb"', top='x-a: "status:"'),
    },
)

# ----------------------------------------------------------------------------------- objects of others, by their names
_KIND = "external"
_EXTERNALS = {"secrets": "secrets: [x]", "configs": "configs: [x]", "volumes": "volumes: ['x:/x']"}
_refused(
    _KIND,
    "ExternalResource",
    {
        f"{section}, {name}": one(use, top=f"{section}: {{x: {value}}}")
        for section, use in _EXTERNALS.items()
        for name, value in {
            "external": "{external: true}",
            "by name": "{external: {name: other}}",
            "with a name": f"{{external: true, name: {SMUGGLED}}}",
            "by a text": "{external: 'yes'}",
            "by a variable": "{external: '${X:-true}'}",
            "odd": "{external: 1}",
        }.items()
    },
)
_refused(
    _KIND,
    "HostPathRefused",
    {
        f"a volume of the host, {name}": one(
            "volumes: ['x:/x']", top=f"volumes: {{x: {{driver_opts: {options}}}}}"
        )
        for name, options in {
            "bound": "{type: none, o: bind, device: /home/me}",
            "bound, read-only": "{type: none, o: 'ro,bind', device: /}",
            "bound, with what is below": "{o: rbind, device: ./x}",
            "by its device alone": "{device: /var/lib/kubelet}",
            "by its home": "{device: ~/x}",
            "climbing": "{device: ../../etc}",
            "spaced": "{type: ' none ', o: ' bind ', device: /x}",
            "by a variable": "{type: none, o: '${X:-bind}', device: /x}",
        }.items()
    },
)
_VOLUMES_NAMED = {
    "another's claim": f"{{name: {SMUGGLED}}}",
    "a path": f"{{name: ../../{SMUGGLED}}}",
    "a variable": f"{{name: '${{X:-{SMUGGLED}}}'}}",
    "a driver": f"{{driver: {SMUGGLED}}}",
    "not external": f"{{external: false, name: {SMUGGLED}}}",
    "a share": f"{{driver: local, driver_opts: {{type: nfs, o: 'addr=@TRAP@', device: ':/{SMUGGLED}'}}}}",
}
_harmless(
    _KIND,
    {
        f"a volume, {name}": one("volumes: ['v:/v']", top=f"volumes: {{v: {value}}}")
        for name, value in _VOLUMES_NAMED.items()
    },
    like=one("volumes: ['v:/v']", top=_VOLUME),
)
_harmless(
    _KIND,
    {
        f"a {section.removesuffix('s')}, {name}": one(
            f"{section}: [x]", top=f"{section}: {{x: {{content: ok, {key}: {SMUGGLED}}}}}"
        )
        for section in ("configs",)
        for name, key in {"another's": "name", "a template": "template_driver"}.items()
    },
    like=one("configs: [x]", top="configs: {x: {content: ok}}"),
)
_harmless(
    _KIND,
    {
        f"a secret, {name}": one("secrets: [x]", top=f"secrets: {{x: {{content: ok, {key}}}}}")
        for name, key in {
            "another's": f"name: {SMUGGLED}",
            "a driver's": f"driver: {SMUGGLED}, driver_opts: {{a: {SMUGGLED}}}",
            "a template": f"template_driver: {SMUGGLED}",
        }.items()
    },
    like=one("secrets: [x]", top="secrets: {x: {content: ok}}"),
)
_harmless(
    _KIND,
    {
        "a network": one("networks: [n]", top=f"networks: {{n: {{external: true, name: {SMUGGLED}}}}}"),
        "containers": one(f"external_links: ['{SMUGGLED}:db']"),
    },
)
_refused(
    _KIND,
    "ForeignNamespace",
    {
        "another's mounts": one("volumes_from: ['container:x']"),
        "another's network": one("network_mode: 'container:x'"),
    },
)
