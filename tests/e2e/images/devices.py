"""What a container can see of the GPUs it was given."""

from __future__ import annotations

import os


def devices() -> dict[str, str]:
    """Return the variables of the device plugins and of NVIDIA's runtime, as this container has them."""
    names = ("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "AMD_VISIBLE_DEVICES")
    return {name: os.environ[name] for name in names if name in os.environ}
