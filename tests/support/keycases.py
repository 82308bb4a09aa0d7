"""For every key of Compose's that isn't ignored as a whole: what it does, and everything that is found about it.

Values are written as in a file; a text that starts with ``services:`` is a whole file.
"""

from __future__ import annotations

#: A file whose volume is used, which is then told about.
MOUNTED = "services: {app: {image: x, volumes: ['x:/x']}}\nvolumes: {x: {"
#: By table and key: a value, and what of it is in the translation as JSON.
VISIBLE: dict[str, dict[str, tuple[str, str]]] = {
    "top": {
        "services": ("services: {app: {image: x}}", '"name":"app"'),
        "networks": (
            "services: {app: {image: x, networks: [n]}, b: {image: y, networks: [n]}, c: {image: z}}\nnetworks: {n: }",
            '"networks":["n"]',
        ),
        "volumes": ("services: {app: {image: x, volumes: ['marker:/x']}}\nvolumes: {marker: }", '"marker":{'),
        "configs": (
            "services: {app: {image: x, configs: [x]}}\nconfigs: {x: {content: marker}}",
            '"content":"marker"',
        ),
        "secrets": (
            "services: {app: {image: x, secrets: [s]}}\nsecrets: {s: {content: marker}}",
            '"content":"marker"',
        ),
    },
    "service": {
        "cap_add": ("[CHOWN]", '"add":["CHOWN"]'),
        "cap_drop": ("[ALL]", '"drop":["ALL"]'),
        "command": ("[run, marker]", '"args":["run","marker"]'),
        "configs": ("[f]", '"path":"/f"'),
        "container_name": ("marker", '"aliases":["marker"]'),
        "cpus": ("0.7", '"cpu":"700m"'),
        "depends_on": ("[db]", '"until":"service_started"'),
        "deploy": ("{replicas: 3}", '"replicas":3'),
        "devices": ("[/dev/kfd]", '"vendor":"amd"'),
        "entrypoint": ("[marker]", '"command":["marker"]'),
        "environment": ("{A: marker}", '"value":"marker"'),
        "expose": ("[7000]", '"containerPort":7000'),
        "extends": ("services: {app: {extends: db}, db: {image: marker}}", '"name":"app","image":"marker"'),
        "extra_hosts": ("['marker:192.0.2.1']", '"hostnames":["marker"]'),
        "gpus": ("all", '"vendor":"nvidia"'),
        "group_add": ("['44']", '"supplementalGroups":[44]'),
        "healthcheck": ("{test: [CMD, marker]}", '"command":["marker"]'),
        "hostname": ("marker", '"aliases":["marker"]'),
        "image": ("services: {app: {image: 'marker@sha256:" + "0" * 64 + "'}}", '"image":"marker@sha256:0'),
        "ipc": ("host", '"mountPath":"/dev/shm"'),
        "links": ("['db:marker']", '"aliases":["marker"]'),
        "mem_limit": ("64m", '"limits":{"memory":"67108864"}'),
        "mem_reservation": ("64m", '"requests":{"memory":"67108864"}'),
        "network_mode": ("'service:db'", '"joins":"db"'),
        "networks": ("{x: {aliases: [marker]}}", '"aliases":["marker"]'),
        "platform": ("linux/arm64", '"kubernetes.io/arch":"arm64"'),
        "ports": ("['7000:80']", '"published":7000'),
        "profiles": ("services: {app: {image: x}, other: {image: y, profiles: [p]}}", '"name":"app"'),
        "read_only": ("true", '"readOnlyRootFilesystem":true'),
        "restart": ("on-failure:7", '"maxRetries":7'),
        "runtime": ("nvidia", '"vendor":"nvidia"'),
        "scale": ("3", '"replicas":3'),
        "secrets": ("[f]", '"path":"/run/secrets/f"'),
        "shm_size": ("64m", '"sizeLimit":"67108864"'),
        "stdin_open": ("true", '"stdin":true'),
        "stop_grace_period": ("77s", '"terminationGracePeriodSeconds":77'),
        "sysctls": ("{net.ipv4.tcp_syncookies: 0}", '"name":"net.ipv4.tcp_syncookies"'),
        "tmpfs": ("/marker", '"mountPath":"/marker"'),
        "tty": ("true", '"tty":true'),
        "user": ("'77'", '"runAsUser":77'),
        "volumes": ("['x:/marker']", '"path":"/marker"'),
        "volumes_from": (
            "services: {app: {image: x, volumes_from: [db]}, db: {image: y, volumes: [/marker]}}",
            '"dependsOn":[{"service":"db"',
        ),
        "working_dir": ("/marker", '"workingDir":"/marker"'),
    },
    "deploy": {
        "mode": ("replicated-job", '"restart":"no"'),
        "replicas": ("3", '"replicas":3'),
        "update_config": ("{parallelism: 7}", '"updateParallelism":7'),
        "resources": ("{limits: {cpus: 0.7}}", '"cpu":"700m"'),
        "restart_policy": ("{condition: none}", '"restart":"no"'),
        "placement": ("{constraints: [node.platform.arch == arm64]}", '"kubernetes.io/arch":"arm64"'),
    },
    "update_config": {"parallelism": ("7", '"updateParallelism":7')},
    "resources": {
        "limits": ("{cpus: 0.7}", '"limits":{"cpu":"700m"}'),
        "reservations": ("{cpus: 0.7}", '"requests":{"cpu":"700m"}'),
    },
    "limits": {
        "cpus": ("0.7", '"limits":{"cpu":"700m"}'),
        "memory": ("64m", '"limits":{"memory":"67108864"}'),
    },
    "reservations": {
        "cpus": ("0.7", '"requests":{"cpu":"700m"}'),
        "memory": ("64m", '"requests":{"memory":"67108864"}'),
        "devices": ("[{capabilities: [gpu]}]", '"vendor":"nvidia"'),
        "generic_resources": ("[{discrete_resource_spec: {kind: GPU, value: 3}}]", '"count":3'),
    },
    "gpu": {
        "capabilities": ("[gpu]", '"vendor":"nvidia"'),
        "count": ("3", '"count":3'),
        "device_ids": ("['0', '1']", '"count":2'),
        "driver": ("amd", '"vendor":"amd"'),
    },
    "generic_resource": {"discrete_resource_spec": ("{kind: GPU, value: 3}", '"count":3')},
    "discrete_resource": {"kind": ("AMD-GPU", '"vendor":"amd"'), "value": ("3", '"count":3')},
    "restart_policy": {
        "condition": ("none", '"restart":"no"'),
        "max_attempts": (
            "services: {app: {image: x, deploy: {restart_policy: {condition: on-failure, max_attempts: 7}}}}",
            '"maxRetries":7',
        ),
    },
    "placement": {"constraints": ("[node.platform.arch==arm64]", '"kubernetes.io/arch":"arm64"')},
    "healthcheck": {
        "interval": ("77s", '"periodSeconds":77'),
        "retries": ("7", '"failureThreshold":7'),
        "test": ("[CMD, marker]", '"command":["marker"]'),
        "timeout": ("77s", '"timeoutSeconds":77'),
        "start_period": (
            "services: {app: {image: x, healthcheck: {test: x, start_period: 1h, start_interval: 7s}}}",
            '"periodSeconds":7',
        ),
        "start_interval": (
            "services: {app: {image: x, healthcheck: {test: x, start_period: 1h, start_interval: 7s}}}",
            '"periodSeconds":7',
        ),
    },
    "port": {
        "target": ("7000", '"containerPort":7000'),
        "published": ("'7000'", '"published":7000'),
        "protocol": ("udp", '"protocol":"UDP"'),
        "host_ip": ("127.0.0.1", '"exposedOnly":true'),
    },
    "mount": {
        "type": ("tmpfs", '"mountPath":"/x"'),
        "source": ("x", '"label":"x"'),
        "target": ("/marker", '"path":"/marker"'),
        "read_only": ("true", '"readOnly":true'),
        "volume": ("{subpath: marker}", '"subPath":"marker"'),
        "tmpfs": (
            "services: {app: {image: x, volumes: [{type: tmpfs, target: /x, tmpfs: {size: 64m}}]}}",
            '"sizeLimit":"67108864"',
        ),
    },
    "mount_volume": {"subpath": ("marker", '"subPath":"marker"')},
    "mount_tmpfs": {
        "size": (
            "services: {app: {image: x, volumes: [{type: tmpfs, target: /x, tmpfs: {size: 64m}}]}}",
            '"sizeLimit":"67108864"',
        )
    },
    "device_mapping": {"source": ("/dev/kfd", '"vendor":"amd"')},
    "dependency": {
        "condition": ("service_healthy", '"until":"service_healthy"'),
        "required": ("false", '"required":false'),
    },
    "extends": {
        "service": ("services: {app: {extends: {service: db}}, db: {image: y}}", '"name":"app","image":"y"')
    },
    "file": {
        "source": ("f", '"file":'),
        "target": ("/marker", '"path":"/marker"'),
        "mode": ("0777", '"mode":511'),
    },
    "service_network": {"aliases": ("[marker]", '"aliases":["marker"]')},
    "network": {
        "internal": (
            "services: {app: {image: x, networks: [n]}}\nnetworks: {n: {internal: true}}",
            '"offline":true',
        ),
    },
    "config": {
        "content": (
            "services: {app: {image: x, configs: [x]}}\nconfigs: {x: {content: marker}}",
            '"content":"marker"',
        ),
        "environment": (
            "services: {app: {image: x, configs: [x]}}\nconfigs: {x: {environment: CALLBACK_URL}}",
            '"content":"http://127.0.0.1:20000"',
        ),
    },
    "secret": {
        "content": (
            "services: {app: {image: x, secrets: [x]}}\nsecrets: {x: {content: marker}}",
            '"content":"marker"',
        ),
        "environment": (
            "services: {app: {image: x, secrets: [x]}}\nsecrets: {x: {environment: CALLBACK_URL}}",
            '"content":"http://127.0.0.1:20000"',
        ),
    },
}
#: By table and key: keys whose whole effect is that something isn't there, with what then is missing.
UNSEEN: dict[str, dict[str, tuple[str, str]]] = {
    "service": {"profiles": ("services: {app: {image: x}, db: {image: y, profiles: [p]}}", '"name":"db"')},
    "healthcheck": {"disable": ("true", "readinessProbe")},
}
#: Keys that are neither seen nor found, and why that is no loss.
DONE_ANYWAY = {
    ("service", "security_opt"): "no-new-privileges is set for all containers",
    ("mount", "bind"): "what it holds is found by itself",
    ("mount_bind", "create_host_path"): "what is missing on the host is replaced by an empty volume",
}
#: By table and key: values, and the reasons of what is found about them.
FOUND: dict[str, dict[str, dict[str, str]]] = {
    "top": {
        "services": {
            "NoServices": "services: {}",
            "NameChanged": "services: {A_b: {image: x}}",
            "ProfileInactive": "services: {app: {image: x}, b: {image: x, profiles: [p]}}",
        },
        "configs": {"MissingKey": "{c: {}}"},
        "secrets": {"MissingKey": "{c: {}}"},
        "include": {"RemoteFile": "[other.yaml]"},
        "models": {"UnsupportedKey": "{m: {model: x}}"},
    },
    "service": {
        "build": {"BuildOnly": "services: {app: {build: .}}", "KeyIgnored": "."},
        "cap_add": {"CapabilityRefused": "[SYS_ADMIN]", "CapabilityDropped": "[SYS_NICE]"},
        "cgroup": {"HostNamespace": "host", "KeyIgnored": "private"},
        "command": {
            "CommandCut": "x && y",
            "CannotClear": "[]",
            "NameNotRewritten": "services: {app: {image: x, command: [a_b]}, a_b: {image: x}}",
            "HostReferenceRewritten": (
                "services: {app: {image: x, ports: ['80:80'], command: ['http://host.docker.internal:80']}}"
            ),
            "HostReferenceUnresolved": "[host.docker.internal]",
        },
        "configs": {"UndefinedReference": "[other]"},
        "container_name": {"AliasNotPossible": "my_name"},
        "credential_spec": {"HostFile": "{file: x}"},
        "depends_on": {
            "HealthyWithoutCheck": "{db: {condition: service_healthy}}",
            "DependencyInactive": (
                "services: {app: {image: x, depends_on: [b]}, b: {image: x, profiles: [p]}}"
            ),
            "UndefinedReference": "[other]",
        },
        "device_cgroup_rules": {"DeviceCgroupRules": "['c 1:3 mr']"},
        "devices": {
            "DeviceRefused": "[/dev/sda]",
            "RuntimeSocket": "['/run/docker.sock']",
            "GpuIdsCounted": "['nvidia.com/gpu=0']",
            "GpuCountByPolicy": "[/dev/kfd]",
            "GpuIgnored": "[/dev/dri]",
        },
        "entrypoint": {"CommandCut": "x; y", "CannotClear": "[]"},
        "environment": {
            "EnvStripped": "{LD_PRELOAD: x}",
            "EnvNameInvalid": "{'a b': x}",
            "VariableUnset": "[A]",
            "NameNotRewritten": "services: {app: {image: x, environment: {A: a_b}}, a_b: {image: x}}",
            "HostReferenceRewritten": (
                "services: {app: {image: x, ports: ['80:80'], environment: {A: 'http://host.docker.internal:80'}}}"
            ),
            "HostReferenceUnresolved": "{A: host.docker.internal}",
            "GpuCountByPolicy": (
                "services: {app: {image: x, runtime: nvidia, environment: {NVIDIA_VISIBLE_DEVICES: all}}}"
            ),
            "GpuIdsCounted": (
                "services: {app: {image: x, runtime: nvidia, environment: {NVIDIA_VISIBLE_DEVICES: '0'}}}"
            ),
        },
        "expose": {"AgentPort": "[20000]", "PortUndeclared": "['80/sctp']"},
        "extends": {
            "UndefinedReference": "other",
            "ExtendsCycle": "services: {app: {image: x, extends: app}}",
        },
        "extra_hosts": {"KeyIgnored": "['a:host-gateway']", "BadValue": "['a:b']"},
        "gpus": {"GpuCountByPolicy": "all", "GpuIgnored": "[{driver: nvidia}, {driver: amd}]"},
        "group_add": {"GroupNameIgnored": "[video]"},
        "healthcheck": {"HealthcheckWithoutTest": "{interval: 1s}"},
        "hostname": {"KeyIgnored": "marker", "AliasNotPossible": "a.b"},
        "image": {"BadValue": "services: {app: {image: 'x y'}}"},
        "ipc": {"ShmSized": "host", "KeyIgnored": "shareable"},
        "links": {"AliasNotPossible": "['db:my_name']", "UndefinedReference": "[other]"},
        "mem_reservation": {
            "ResourcesClamped": "services: {app: {image: x, mem_limit: 1m, mem_reservation: 2m}}"
        },
        "models": {"UnsupportedKey": "[m]"},
        "network_mode": {
            "HostNamespace": "host",
            "ForeignNamespace": "container:x",
            "UndefinedReference": "service:other",
            "KeyIgnored": "bridge",
        },
        "networks": {
            "UndefinedReference": "[other]",
        },
        "pid": {"HostNamespace": "host", "ForeignNamespace": "container:x", "KeyIgnored": "service:db"},
        "platform": {"PlacementIgnored": "windows/amd64"},
        "ports": {
            "LoopbackPort": "['127.0.0.1:80:80']",
            "PortUnrouted": "services: {app: {image: x, ports: ['80']}, b: {image: x, ports: ['80']}}",
            "SeveralWorkers": "services: {a: {image: x, ports: ['5555']}, app: {image: x, ports: ['5555']}}",
            "AgentPort": "['20000']",
            "PortUndeclared": "['80/sctp']",
        },
        "privileged": {"Privileged": "true"},
        "profiles": {"ProfileInactive": "services: {a: {image: x}, app: {image: x, profiles: [p]}}"},
        "provider": {"UnsupportedKey": "{type: x}"},
        "restart": {"BadValue": "sometimes"},
        "runtime": {
            "RuntimeIgnored": "runsc",
            "GpuCountByPolicy": "nvidia",
            "GpuIgnored": "services: {app: {image: x, runtime: amd, gpus: [{driver: nvidia}]}}",
        },
        "scale": {"BadValue": "101"},
        "secrets": {"UndefinedReference": "[other]"},
        "security_opt": {"SecurityOptionDropped": "['seccomp:unconfined']"},
        "sysctls": {"SysctlDropped": "{net.ipv4.ip_forward: 1}"},
        "tmpfs": {
            "KeyIgnored": "'/x:mode=755'",
            "MountShadowed": "services: {app: {image: x, volumes: [/x], tmpfs: /x}}",
        },
        "use_api_socket": {"RuntimeSocket": "true"},
        "user": {"UserNameIgnored": "nginx"},
        "userns_mode": {"HostNamespace": "host", "KeyIgnored": "x"},
        "uts": {"HostNamespace": "host", "KeyIgnored": "x"},
        "volumes": {
            "BindReplaced": "['./x:/x']",
            "BindDropped": "['./x.conf:/x.conf']",
            "MountShadowed": "['./x:/x', '/x']",
            "ShmSized": "['/dev/shm:/dev/shm']",
            "ModelCache": "['x:/root/.ollama']",
            "VolumeStartsEmpty": "['x:/x']",
            "GpuCountByPolicy": "['/dev/kfd:/dev/kfd']",
            "GpuIgnored": "['/dev/dri:/dev/dri']",
            "HostPathRefused": "['/proc:/x']",
            "RuntimeSocket": "['/run/docker.sock:/x']",
            "UndefinedReference": "['other:/x']",
            "KeyIgnored": "['x:/x:z']",
        },
        "volumes_from": {
            "ForeignNamespace": "[container:x]",
            "UndefinedReference": "[other]",
        },
    },
    "update_config": {"parallelism": {"BadValue": "-1"}},
    "deploy": {
        "mode": {"PlacementIgnored": "global"},
        "replicas": {"BadValue": "101"},
        "resources": {"ResourcesClamped": "{limits: {cpus: 1}, reservations: {cpus: 2}}"},
    },
    "reservations": {
        "cpus": {
            "ResourcesClamped": (
                "services: {app: {image: x, deploy: {resources: {limits: {cpus: 1}, reservations: {cpus: 2}}}}}"
            )
        },
        "memory": {
            "ResourcesClamped": (
                "services: {app: {image: x, deploy: {resources: {limits: {memory: 1m}, "
                "reservations: {memory: 2m}}}}}"
            )
        },
        "devices": {
            "GpuCountByPolicy": "[{capabilities: [gpu]}]",
            "GpuIgnored": "[{driver: nvidia, capabilities: [gpu]}, {driver: amd, capabilities: [gpu]}]",
        },
        "generic_resources": {
            "GpuIgnored": (
                "[{discrete_resource_spec: {kind: NVIDIA-GPU, value: 1}}, "
                "{discrete_resource_spec: {kind: AMD-GPU, value: 1}}]"
            )
        },
    },
    "gpu": {
        "capabilities": {"DeviceRefused": "[tpu]", "KeyIgnored": "[gpu, ngx]"},
        "count": {"GpuCountByPolicy": "all", "BadValue": "65"},
        "device_ids": {"GpuIdsCounted": "['0']"},
        "driver": {"KeyIgnored": "other"},
    },
    "discrete_resource": {"kind": {"KeyIgnored": "SSD"}, "value": {"BadValue": "65"}},
    "restart_policy": {"condition": {"BadValue": "x"}, "max_attempts": {"KeyIgnored": "3"}},
    "placement": {"constraints": {"PlacementIgnored": "[node.role==manager]"}},
    "healthcheck": {"test": {"BadValue": "[curl]"}},
    "port": {"protocol": {"PortUndeclared": "sctp"}, "host_ip": {"LoopbackPort": "127.0.0.1"}},
    "mount": {
        "type": {"BindReplaced": "cluster"},
        "source": {
            "BindReplaced": "services: {app: {image: x, volumes: [{type: bind, source: ./x, target: /x}]}}"
        },
    },
    "device_mapping": {"source": {"DeviceRefused": "/dev/sda"}},
    "dependency": {"condition": {"HealthyWithoutCheck": "service_healthy"}},
    "extends": {"service": {"UndefinedReference": "other"}, "file": {"RemoteFile": "x.yaml"}},
    "file": {
        "source": {"UndefinedReference": "other"},
        "target": {"BadValue": "/a:b"},
        "mode": {"BadValue": "01777"},
    },
    "service_network": {"aliases": {"AliasNotPossible": "[my_name]"}},
    "volume": {
        "driver_opts": {
            "HostPathRefused": MOUNTED + "driver_opts: {type: none, o: bind, device: /x}}}",
            "VolumeOptionsIgnored": MOUNTED + "driver_opts: {type: nfs, device: ':/x'}}}",
        },
        "external": {"ExternalResource": MOUNTED + "external: true}}"},
    },
    "config": {
        "content": {
            "HostReferenceRewritten": (
                "services: {app: {image: x, ports: ['80:80'], configs: [x]}}\n"
                "configs: {x: {content: 'http://host.docker.internal:80'}}"
            )
        },
        "environment": {
            "VariableUnset": "services: {app: {image: x, configs: [x]}}\nconfigs: {x: {environment: NONE}}"
        },
        "file": {"HostFile": "services: {app: {image: x, configs: [x]}}\nconfigs: {x: {file: x}}"},
        "external": {
            "ExternalResource": "services: {app: {image: x, configs: [x]}}\nconfigs: {x: {external: true}}"
        },
    },
    "secret": {
        "environment": {
            "VariableUnset": "services: {app: {image: x, secrets: [x]}}\nsecrets: {x: {environment: NONE}}"
        },
        "file": {"HostFile": "services: {app: {image: x, secrets: [x]}}\nsecrets: {x: {file: x}}"},
        "external": {
            "ExternalResource": "services: {app: {image: x, secrets: [x]}}\nsecrets: {x: {external: true}}"
        },
    },
}
