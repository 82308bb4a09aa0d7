import asyncio
import time

import aiohttp

from opengpu_operator.observability.metrics import Metrics
from opengpu_operator.observability.probes import Heartbeat, health_app, metrics_app, serving


async def get(port, path):
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_probes_say_what_is_wrong():
    wrong: list[str] = []
    app = health_app(
        live=[lambda: None],
        ready=[lambda: None, lambda: wrong[0] if wrong else None, lambda: wrong[1] if wrong else None],
    )
    async with serving(app, 0, host="127.0.0.1") as port:
        assert await get(port, "/readyz") == (200, "ok\n")
        wrong += ["this", "that"]
        assert await get(port, "/readyz") == (503, "this\nthat\n")
        assert await get(port, "/healthz") == (200, "ok\n")
        assert (await get(port, "/metrics"))[0] == 404


async def test_metrics_are_served():
    metrics = Metrics()
    async with serving(metrics_app(metrics.registry), 0, host="127.0.0.1") as port:
        status, text = await get(port, "/metrics")
    assert status == 200
    assert "opengpu_operator_synced 0.0" in text


async def test_a_blocked_event_loop_is_noticed(caplog, monkeypatch):
    monkeypatch.setattr("opengpu_operator.observability.probes._LOOP_PERIOD", 0.01)
    heartbeat, stop = Heartbeat(most=0.2), asyncio.Event()
    assert heartbeat.check() == "the event loop has not started"
    beating = asyncio.create_task(heartbeat.run(stop))
    await asyncio.sleep(0.05)
    assert heartbeat.check() is None
    time.sleep(0.5)  # noqa: ASYNC251 - this is what is to be noticed
    assert "no heartbeat" in (heartbeat.check() or "")
    await asyncio.sleep(0.05)
    assert heartbeat.check() is None
    assert heartbeat.worst > 0.2
    assert "blocked" in caplog.text
    stop.set()
    await beating
