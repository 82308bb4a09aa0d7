"""What all tests share: those that judge what the others did run after them."""

import asyncio

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


def pytest_configure() -> None:
    """Keep pytest-asyncio's question for the current event loop from making one.

    Before 3.14, Python makes one for the main thread that nobody closes; its warning, which is an error here, is
    blamed on whichever test runs when the garbage collector finds it.
    """
    asyncio.set_event_loop(None)
