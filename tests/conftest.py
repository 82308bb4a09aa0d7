"""What all tests share: how Hypothesis is set, what is printed at the end, and who runs last."""

import asyncio
import random
import signal
from collections.abc import Callable

import hypothesis
import pytest

# How long an example takes says how busy the machine is. The examples are the same in each run, so that a change is
# blamed for what it changed; `pytest --hypothesis-profile=explore` looks for others.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("tests")

_FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the process what the tests expect, whoever started it."""
    # Pytest-asyncio asks for the current event loop. Before 3.14, Python makes one for the main thread then, which
    # nobody closes; its warning, an error here, is blamed on whichever test runs when the garbage collector finds it.
    asyncio.set_event_loop(None)
    # What a shell starts in the background ignores Ctrl-C, and so would all that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[_FIGURES] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let those that judge what the others did run after them."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(autouse=True)
def _same_jitter(request: pytest.FixtureRequest) -> None:
    """Let back-off wait as long as in the last run of the same test."""
    random.seed(request.node.nodeid)


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keep a figure for the end of the run: a shared machine's may not fail a test, so a person must see it."""
    return request.config.stash[_FIGURES].append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured, also where everything passed."""
    if config.stash[_FIGURES]:
        terminalreporter.section("measured")
    for figure in config.stash[_FIGURES]:
        terminalreporter.line(figure)
