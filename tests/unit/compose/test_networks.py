"""Which services a file lets reach each other."""

from __future__ import annotations

import pytest

from opengpu_operator.compose.networks import MAX_NETWORKS
from tests.support.compose import errors, reasons, translate


def attached(text: str) -> dict[str, tuple[list[str] | None, bool]]:
    translation = translate(text)
    assert not translation.refused, translation.findings
    return {service.name: (service.networks, service.offline) for service in translation.services}


@pytest.mark.parametrize(
    "text",
    [
        "services: {a: {image: x}, b: {image: x}}",
        "services: {a: {image: x, networks: [n]}}\nnetworks: {n: }",
        "services: {a: {image: x, networks: [n]}, b: {image: x, networks: {n: , m: }}}\nnetworks: {n: , m: }",
        "services: {a: {image: x, networks: []}, b: {image: x}}\nnetworks: {n: {internal: false}}",
        # They share a pod, and with it its network.
        "services: {a: {image: x, networks: [n]}, b: {image: x, network_mode: 'service:a'}}\nnetworks: {n: }",
    ],
)
def test_where_all_reach_all_nothing_is_said(text: str) -> None:
    assert set(attached(text).values()) == {(None, False)}


def test_services_that_share_no_network_are_apart() -> None:
    text = """
        services:
          proxy: {image: x, networks: [front]}
          app: {image: x, networks: {front: {aliases: [web]}, Back_End: {}}}
          db: {image: x, networks: [Back_End]}
          side: {image: x, network_mode: "service:db"}
          lone: {image: x}
        networks: {front: , Back_End: {driver: bridge}}
        """
    assert attached(text) == {
        "proxy": (["front"], False),
        "app": (["front", "back-end"], False),
        "db": (["back-end"], False),
        "side": (["back-end"], False),
        "lone": ([], False),
    }


def test_networks_of_the_same_services_are_one() -> None:
    text = """
        services:
          a: {image: x, networks: [n, m]}
          b: {image: x, networks: [m, n]}
          c: {image: x, networks: [own]}
        networks: {n: , m: , own: }
        """
    assert attached(text) == {"a": (["n"], False), "b": (["n"], False), "c": ([], False)}


def test_internal_networks_lead_nowhere() -> None:
    text = """
        services:
          a: {image: x, networks: [inside, outside]}
          b: {image: x, networks: [inside]}
          c: {image: x, network_mode: none}
        networks: {inside: {internal: "true"}, outside: }
        """
    assert attached(text) == {"a": (["inside"], False), "b": (["inside"], True), "c": ([], True)}
    assert attached("services: {a: {image: x}, b: {image: x}}\nnetworks: {default: {internal: true}}") == {
        "a": (["default"], True),
        "b": (["default"], True),
    }


def test_one_service_alone_may_be_cut_off() -> None:
    text = "services: {a: {image: x, network_mode: none}}"
    assert attached(text) == {"a": ([], True)}
    assert reasons(translate(text)) == set()


def test_each_is_a_policy_so_there_are_not_too_many() -> None:
    def web(count: int) -> str:
        spokes = ", ".join(f"s{n}: {{image: x, networks: [n{n}]}}" for n in range(count))
        names = ", ".join(f"n{n}" for n in range(count))
        sections = ", ".join(f"n{n}: " for n in range(count))
        return f"services: {{hub: {{image: x, networks: [{names}]}}, {spokes}}}\nnetworks: {{{sections}}}"

    assert len(attached(web(MAX_NETWORKS))["hub"][0] or []) == MAX_NETWORKS
    assert errors(web(MAX_NETWORKS + 1)) == {"TooMany"}
