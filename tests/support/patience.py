"""How long tests wait for what must come: longer than it takes, since a machine that others use is slow, not wrong."""

from __future__ import annotations

#: By how much a limit is stretched that a test states for a machine of its own. What is met early is seen early.
PATIENCE = 3.0
