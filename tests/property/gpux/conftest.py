from __future__ import annotations

import asyncio

# Told that there is no loop, pytest-asyncio doesn't make one at the first test that it then never closes.
asyncio.set_event_loop(None)
