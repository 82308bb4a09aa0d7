"""``opengpu-operator``: runs the operator, the translator or the clearing up. All wiring is here, and only wiring."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import logging
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import kopf
import yaml

from gpux.client import StoreClient
from gpux.tokens import load_key, sign
from opengpu_operator.compose.client import TranslatorClient
from opengpu_operator.handlers import Informer, NoMemories, Scope, configure, login
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import KubeError
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import HttpGateway
from opengpu_operator.kube.kinds import SOURCE, TASK
from opengpu_operator.observability.logging import setup
from opengpu_operator.observability.metrics import Metrics, version
from opengpu_operator.observability.probes import Heartbeat, health_app, metrics_app, serving
from opengpu_operator.reconcile import uninstall
from opengpu_operator.reconcile.app import App
from opengpu_operator.settings import Settings

logger = logging.getLogger("opengpu_operator")

#: Longer than any run may take: then no worker is coming back.
_STUCK_SECONDS: Final = 180.0
#: So many checks on end that found a watch behind.
_BEHIND: Final = 3
_TOKEN_SECONDS: Final = 600
#: The queue lets its runs finish for five seconds, then kopf gets the rest of ten, twice: to end, and to be ended.
_PARTS_EXIT_SECONDS: Final = 5.5
_KOPF_EXIT_SECONDS: Final = 1.5

_GAUGES: Final = {
    "queue_depth": "Keys that wait for a worker",
    "queue_delayed": "Keys that wait for their time",
    "queue_retrying": "Keys whose last run failed",
    "queue_running": "Keys that are being reconciled",
    "queue_oldest_age_seconds": "How long the key that waits longest has waited for a worker",
    "event_loop_blocked_seconds": "The longest that the event loop was blocked",
    "watches_behind": "Watched kinds that missed something at the last check",
    "sources": "Sources in the cache",
    "tasks": "Tasks in the cache",
}


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    root = argparse.ArgumentParser(prog="opengpu-operator", description="Runs OpenGPU tasks on Kubernetes.")
    root.add_argument("--version", action="version", version=version())
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="watch OpenGPU objects and run their tasks")
    run.add_argument("--config", type=Path, help="the settings, as YAML")
    run.add_argument("--kubeconfig", type=Path, help="for use outside of a cluster")
    run.add_argument("--context", help="a context of the kubeconfig other than its current one")
    run.add_argument(
        "--namespace",
        action="append",
        metavar="NAME",
        help="watch this namespace (or glob) instead of what the settings say; may be repeated",
    )
    translator = commands.add_parser("translator", help="fetch and translate Compose files for the operator")
    translator.add_argument("--config", type=Path, help="the settings, as YAML")
    translator.add_argument("--socket", type=Path, help="where to listen, instead of what the settings say")
    clear = commands.add_parser(
        "clear-finalizers", help="let all sources of the cluster be deleted without an operator"
    )
    clear.add_argument("--kubeconfig", type=Path, help="for use outside of a cluster")
    clear.add_argument("--context", help="a context of the kubeconfig other than its current one")
    clear.add_argument(
        "--stop",
        type=_namespaced,
        metavar="NAMESPACE/NAME",
        help="the operator's Deployment: scale it to zero first, or it puts the finalizers back",
    )
    clear.add_argument(
        "--stop-timeout",
        type=float,
        default=90.0,
        metavar="SECONDS",
        help="how long its pods may take to go (default: %(default)s)",
    )
    return root


def _namespaced(text: str) -> tuple[str, str]:
    namespace, separator, name = text.partition("/")
    if not (namespace and separator and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} isn't NAMESPACE/NAME")
    return namespace, name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = parser().parse_args(arguments)
    if options.command == "clear-finalizers":
        try:
            return asyncio.run(
                clear_finalizers(
                    kubeconfig=options.kubeconfig,
                    context=options.context,
                    operator=options.stop,
                    timeout=options.stop_timeout,
                )
            )
        except KubeError as error:
            print(f"opengpu-operator: {error}", file=sys.stderr)  # noqa: T201 - a person or a hook's log reads it
            return 1
    try:
        settings = Settings.load(options.config)
    except (OSError, ValueError, yaml.YAMLError) as error:
        print(f"opengpu-operator: {options.config}: {error}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    setup(settings.logs)
    if options.command == "translator":
        # Only the translator pays for what reads files.
        from opengpu_operator.compose.server import run as run_translator  # noqa: PLC0415

        asyncio.run(run_translator(options.socket or settings.translator_socket, settings))
        return 0
    if options.namespace:
        namespaces = settings.namespaces.model_copy(update={"watch": options.namespace})
        settings = settings.model_copy(update={"namespaces": namespaces})
    try:
        return asyncio.run(operate(settings, kubeconfig=options.kubeconfig, context=options.context))
    except KubeError:
        logger.exception("the operator can't start")
        return 1


async def clear_finalizers(
    *, kubeconfig: Path | None, context: str | None, operator: tuple[str, str] | None, timeout: float
) -> int:
    """Stop the operator, if it is named, and remove the finalizers that it holds; returns the exit status."""
    say = functools.partial(print, flush=True)
    async with await HttpGateway.connect(kubeconfig=kubeconfig, context=context) as gateway:
        if operator is not None:
            # One that can't be seen to end, on a node that is lost, can't do anything either: the last look at the
            # sources finds out.
            await uninstall.stop(gateway, *operator, timeout=timeout, say=say)
        return 1 if await uninstall.clear_finalizers(gateway, say=say) else 0


async def operate(settings: Settings, *, kubeconfig: Path | None = None, context: str | None = None) -> int:
    """Run the operator until it is told to stop, or a part of it ends; returns the exit status."""
    metrics, stop = Metrics(), asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            await HttpGateway.connect(
                kubeconfig=kubeconfig,
                context=context,
                max_in_flight=settings.reconcile.max_in_flight,
                observe=metrics.request,
            )
        )
        cache = Cache()
        app = App(
            settings=settings,
            gateway=gateway,
            cache=cache,
            recorder=Recorder(gateway=gateway),
            translator=await stack.enter_async_context(TranslatorClient(settings.translator_socket)),
            store=await stack.enter_async_context(
                StoreClient(settings.store.url, _operator_token(settings.store.key_file))
            ),
            store_key=lambda: load_key(settings.store.key_file),
            resolvers=settings.pods.nameservers or resolvers(),
            clock=lambda: datetime.now(UTC),
        )
        app.queue.observe = lambda key, result, waited, took: metrics.reconcile(key[0], result, waited, took)
        informer = Informer(scope=Scope(settings), gateway=gateway, cache=cache, observe=app.observe)
        heartbeat = Heartbeat()
        metrics.watch(lambda: _read(app, cache, informer, heartbeat), _GAUGES)
        health = health_app(
            live=[heartbeat.check, lambda: _stuck(app), lambda: _behind(informer)],
            ready=[lambda: None if informer.synced.is_set() else "not every watched kind is listed yet"],
        )
        await stack.enter_async_context(serving(health, settings.probe_port))
        await stack.enter_async_context(serving(metrics_app(metrics.registry), settings.metrics_port))

        async def work() -> None:
            if await _unless(stop, informer.wait()):
                metrics.synced()
                await app.run(stop)

        async def audit() -> None:
            while await _unless(stop, asyncio.sleep(settings.reconcile.resync_seconds)):
                if informer.synced.is_set():
                    await _unless(stop, informer.audit())

        logger.info("version %s works with %s", version(), gateway.configuration.host)
        kopf_stop = asyncio.Event()
        watches = asyncio.create_task(_watch(settings, gateway, informer, stop=stop, kopf_stop=kopf_stop))
        return await _supervise(
            watches, [heartbeat.run(stop), work(), audit()], stop=stop, kopf_stop=kopf_stop
        )


async def _watch(
    settings: Settings,
    gateway: HttpGateway,
    informer: Informer,
    *,
    stop: asyncio.Event,
    kopf_stop: asyncio.Event,
) -> None:
    """Run kopf; a watcher that dies ends it with an exception."""
    kopf_settings, registry = kopf.OperatorSettings(), kopf.OperatorRegistry()
    configure(kopf_settings, settings)
    login(registry, gateway.configuration)
    informer.register(registry)
    ready = asyncio.Event()

    async def take_signals() -> None:
        # kopf stops at a signal at once, and cancels whatever was started after it: reconciles that are under way
        # too. So it hands over the signals as soon as it is up, and is itself stopped last.
        await ready.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

    signals = asyncio.create_task(take_signals())
    try:
        await kopf.operator(
            registry=registry,
            settings=kopf_settings,
            memories=NoMemories(),
            ready_flag=ready,
            stop_flag=kopf_stop,
            standalone=True,
            clusterwide=informer.clusterwide,
            namespaces=settings.namespaces.watch,
        )
    finally:
        signals.cancel()


async def _unless(stop: asyncio.Event, what: Coroutine[Any, Any, object]) -> bool:
    """Do something unless ``stop`` comes first; return whether it was done."""
    doing, stopping = asyncio.create_task(what), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not doing.done():
            doing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await doing
    return not doing.cancelled()


async def _supervise(
    watches: asyncio.Task[None],
    parts: Sequence[Coroutine[Any, Any, None]],
    *,
    stop: asyncio.Event,
    kopf_stop: asyncio.Event,
) -> int:
    """Run all parts until ``stop`` or until one ends; then stop them in order. Returns the exit status."""
    running = [asyncio.create_task(part) for part in parts]
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([watches, *running, stopped], return_when=asyncio.FIRST_COMPLETED)
    # kopf ends without an error only at a signal.
    failed = not stop.is_set() and not watches.done()
    logger.info("stopping")
    stop.set()
    await asyncio.wait(running, timeout=_PARTS_EXIT_SECONDS)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    kopf_stop.set()
    await asyncio.wait([watches], timeout=_KOPF_EXIT_SECONDS)
    if not watches.done():
        # Told to stop while it lists, kopf 1.45 leaves its generators open, waits five seconds for what hangs on
        # them, and has asyncio complain at the end. Nothing is lost with them.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        watches.cancel()
        await asyncio.wait([watches], timeout=_KOPF_EXIT_SECONDS)
    ended = [part for part in (watches, *running, stopped) if part.done()]
    for result in await asyncio.gather(*ended, return_exceptions=True):
        if isinstance(result, Exception):
            failed = True
            logger.error("the operator ends: %s", result, exc_info=result)
    return 1 if failed else 0


def _stuck(app: App) -> str | None:
    stuck = app.queue.stuck_for
    return f"the queue hasn't moved for {stuck:.0f} s" if stuck > _STUCK_SECONDS else None


def _behind(informer: Informer) -> str | None:
    kinds = sorted(kind.plural for kind, times in informer.behind.items() if times >= _BEHIND)
    return f"watches miss what happens to {', '.join(kinds)}" if kinds else None


def _read(app: App, cache: Cache, informer: Informer, heartbeat: Heartbeat) -> dict[str, float]:
    queue = app.queue
    return {
        "queue_depth": queue.depth,
        "queue_delayed": queue.delayed,
        "queue_retrying": queue.retrying,
        "queue_running": queue.running,
        "queue_oldest_age_seconds": queue.oldest_age,
        "event_loop_blocked_seconds": heartbeat.worst,
        "watches_behind": len(informer.behind),
        "sources": cache.count(SOURCE),
        "tasks": cache.count(TASK),
    }


def _operator_token(key_file: Path) -> Callable[[], str]:
    """Return a source of short-lived tokens for the store; the key is looked at each time, so it may be replaced."""
    held = (b"", 0.0, "")

    def token() -> str:
        nonlocal held
        key, now = load_key(key_file), time.time()
        if held[0] != key or held[1] < now:
            claims = {"scope": "operator", "namespace": "", "task": "", "exp": int(now) + _TOKEN_SECONDS}
            held = (key, now + _TOKEN_SECONDS / 2, sign(key, claims))
        return held[2]

    return token


def resolvers(file: Path = Path("/etc/resolv.conf")) -> list[str]:
    """Return the name servers that this process uses."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return []
    return [words[1] for line in lines if len(words := line.split()) > 1 and words[0] == "nameserver"]


if __name__ == "__main__":
    sys.exit(main())
