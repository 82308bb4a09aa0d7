"""The part of the API by which the operator lets go of tasks that are gone."""

from __future__ import annotations

from aiohttp import web

from gpux.blobs import PUBLIC, is_reference
from gpux.calls import CallBook
from gpux.store.http import HttpError, reply
from gpux.store.routes import OPERATOR, TASK, Context, route
from gpux.store.transfer import Transfer


class TaskApi:
    """``/v1/tasks``, and ``/v1/references`` for what isn't a task's."""

    def __init__(self, calls: CallBook, transfer: Transfer) -> None:
        self._calls = calls
        self._transfer = transfer
        self.routes = [
            route("tasks", "/v1/tasks", GET=(OPERATOR, self._list)),
            route("task-gone", f"/v1/tasks/{TASK}", DELETE=(OPERATOR, self._delete)),
            route("reference", r"/v1/references/(?P<reference>[^/]{1,160})", DELETE=(OPERATOR, self._let_go)),
        ]

    async def _list(self, _: Context) -> web.StreamResponse:
        holders = await self._transfer.in_thread(lambda: self._transfer.blobs.holders("task"))
        # A task may have left something in public alone only after a crash; it is listed to be deleted all the same.
        found = {
            task: namespace for namespace, task in sorted(holders, key=lambda holder: holder[0] != PUBLIC)
        }
        found |= {call.task: call.namespace for call in self._calls.all()}
        return reply([{"task": task, "namespace": namespace} for task, namespace in sorted(found.items())])

    async def _delete(self, context: Context) -> web.StreamResponse:
        task = context.path["task"]
        # Files first: as long as there are calls, the task is listed.
        await self._transfer.in_thread(lambda: self._transfer.blobs.drop(f"task:{task}"))
        await self._calls.delete(task)
        return web.Response(status=204)

    async def _let_go(self, context: Context) -> web.StreamResponse:
        reference = context.path["reference"]
        if not is_reference(reference):
            raise HttpError(400, "not a reference")
        namespace = context.namespace if "namespace" in context.query else None
        await self._transfer.in_thread(lambda: self._transfer.blobs.drop(reference, namespace=namespace))
        return web.Response(status=204)
