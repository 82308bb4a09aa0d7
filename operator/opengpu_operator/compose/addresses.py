"""Which addresses may be fetched from: everything that is public, by our own list.

``ipaddress.is_global`` changes between releases of Python and doesn't look into IPv6 addresses that stand for IPv4
ones, so neither is left to it.
"""

from __future__ import annotations

import ipaddress
from typing import Final

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: https://www.iana.org/assignments/iana-ipv4-special-registry and its IPv6 sibling, plus what clouds use inside.
_BLOCKED_V4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *(
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
        ),
        *(
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
        "168.63.129.16/32",
    )
)
#: Only 2000::/3 is in use on the public Internet; these parts of it are not.
_PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
_BLOCKED_V6: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")
)


def is_public(address: IPAddress) -> bool:
    """Whether an address is on the public Internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _BLOCKED_V4)
    # Mapped, NAT64, 6to4 and Teredo addresses, which may lead to private IPv4 ones, are all outside or blocked.
    if address.scope_id is not None or address not in _PUBLIC_V6:
        return False
    return not any(address in network for network in _BLOCKED_V6)
