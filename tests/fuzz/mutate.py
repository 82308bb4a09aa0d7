"""Changes to files that leave them files: libFuzzer's own rarely get past the YAML."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from opengpu_operator.compose import load
from opengpu_operator.compose.findings import Report
from opengpu_operator.compose.keys import TABLES

KEYS = sorted({key for table in TABLES.values() for key in table})
SERVICE_KEYS = sorted(TABLES["service"])
SCALARS: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        80,
        5555,
        20000,
        65536,
        2**63,
        1.5,
        1e300,
        "",
        "x",
        "app",
        "all",
        "no",
        "host",
    ),
    *(
        "80:80",
        "1-9:1-9/udp",
        "127.0.0.1:80:80",
        "/a:/b",
        "./a:/b:ro",
        "v:/v",
        "~/x.conf:/x",
        "/dev/shm:/dev/shm",
    ),
    *("service:app", "container:x", "service_healthy", "on-failure:3", "none", "64m", "1.5g", "1m30s", "0s"),
    *("nvidia", "amd", "gpu", "/dev/kfd", "/dev/dri", "/dev/nvidia0", "nvidia.com/gpu=0", "NVIDIA-GPU"),
    *("${A:-b}", "${PORT}", "$$X", "$(X)", "status:", "run/secrets/x", "a_b:80", "host.docker.internal:80"),
    *(
        "CMD",
        "CMD-SHELL",
        "NONE",
        "A=b",
        "LD_LIBRARY_PATH=/a;b",
        "a\nb",
        "\u2028",
        "é",
        "x" * 300,
        "0755",
        "a;b",
    ),
]
Mutate = Callable[[bytes, int], bytes]


def mutated(data: bytes, size: int, *, seed: int, bytewise: Mutate) -> bytes:
    """Return another input of at most ``size`` bytes: the file with some of its values changed, or with other bytes."""
    chance = random.Random(seed)
    tree = _tree(data) if chance.random() < 0.7 else None
    if tree is None:
        return bytewise(data, size)
    for _ in range(chance.randint(1, 4)):
        _change(tree, chance, bytewise)
    changed = json.dumps(tree, ensure_ascii=False).encode("utf-8", "replace")
    return changed if len(changed) <= size else bytewise(data, size)


def _tree(data: bytes) -> dict[str, Any] | None:
    report = Report()
    text = load.decode(data, report)
    document = None if text is None else load.load(text, report)
    return (
        document.data if document is not None and isinstance(document.data, dict) and document.data else None
    )


def _change(tree: dict[str, Any], chance: random.Random, bytewise: Mutate) -> None:
    places = list(_places(tree))
    held, key = chance.choice(places)
    match chance.randrange(7):
        case 0 if len(held) > 1 or held is not tree:
            del held[key]
        case 1:
            other, name = chance.choice(places)
            # Through JSON, so that nothing holds itself.
            held[key] = json.loads(json.dumps(other[name]))
        case 2:
            held[key] = [held[key]]
        case 3 if isinstance(held[key], str):
            held[key] = bytewise(held[key].encode("utf-8", "replace"), 64).decode("utf-8", "replace")
        case 4 if isinstance(held, dict):
            held[chance.choice(KEYS)] = held[key]
        case 5:
            services = tree.setdefault("services", {})
            if isinstance(services, dict):
                name = chance.choice([*services, "a_b", "app", "x" * 80])
                service = services.get(name)
                services[name] = service if isinstance(service, dict) else {"image": "x"}
                services[name][chance.choice(SERVICE_KEYS)] = _value(chance)
        case _:
            held[key] = _value(chance)


def _value(chance: random.Random, depth: int = 0) -> Any:
    match chance.randrange(6) if depth < 3 else 0:
        case 4:
            return [_value(chance, depth + 1) for _ in range(chance.randint(0, 3))]
        case 5:
            return {chance.choice(KEYS): _value(chance, depth + 1) for _ in range(chance.randint(0, 3))}
        case _:
            return chance.choice(SCALARS)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) inside of a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in ((value, key), *_places(item))]
