"""Translations outlive the process that made them, and are made once whatever gets lost."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from opengpu_operator.api.errors import Transient
from opengpu_operator.api.source import Environment
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import Unavailable
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import CONTROLLER_REVISION
from opengpu_operator.reconcile.translations import Translations
from tests.support.jobs import translation, worker
from tests.unit.reconcile.builders import source
from tests.unit.reconcile.fakes import ApiServer

TRANSLATION = translation(worker())


def process(api: ApiServer, cache: Cache | None = None) -> Translations:
    return Translations(gateway=cast("Gateway", api), cache=cache or Cache())


async def test_it_is_kept_once_and_remembered(api, cache):
    translations = process(api, cache)
    revision = await translations.keep(source(), Environment.NVIDIA, TRANSLATION)
    assert await translations.keep(source(), Environment.NVIDIA, TRANSLATION) == revision
    assert await translations.get("team", revision) == TRANSLATION
    assert translations.exists("team", revision)
    assert api.asked == {("create", "ControllerRevision"): 1}


async def test_another_content_or_environment_is_another_translation(api):
    translations = process(api)
    revisions = [
        await translations.keep(source(), environment, content)
        for environment in (Environment.CPU, Environment.NVIDIA)
        for content in (TRANSLATION, translation(worker("other")))
    ]
    assert len(set(revisions)) == 4


async def test_what_was_kept_though_the_answer_was_lost_is_adopted(api, cache):
    translations = process(api, cache)
    api.lost = {("create", "ControllerRevision")}
    with pytest.raises(Unavailable):
        await translations.keep(source(), Environment.NVIDIA, TRANSLATION)
    (kept,) = api.all(CONTROLLER_REVISION)
    revision = await translations.keep(source(), Environment.NVIDIA, TRANSLATION)
    assert api.all(CONTROLLER_REVISION) == [kept]
    assert revision == kept["metadata"]["name"]
    assert translations.exists("team", revision)


async def test_one_that_comes_and_goes_is_tried_again(api, monkeypatch):
    await process(api).keep(source(), Environment.NVIDIA, TRANSLATION)

    async def gone(*_: object) -> None:
        return None

    monkeypatch.setattr(api, "get", gone)
    with pytest.raises(Transient, match="comes and goes"):
        await process(api).keep(source(), Environment.NVIDIA, TRANSLATION)


async def test_the_next_process_reads_it_once_however_many_want_it(api):
    revision = await process(api).keep(source(), Environment.NVIDIA, TRANSLATION)
    translations = process(api)
    found = await asyncio.gather(*(translations.get("team", revision) for _ in range(20)))
    assert found == [TRANSLATION] * 20
    assert api.asked["get", "ControllerRevision"] == 1


async def test_a_read_that_failed_is_repeated(api):
    revision = await process(api).keep(source(), Environment.NVIDIA, TRANSLATION)
    translations = process(api)
    api.refusals["get", "ControllerRevision"] = Unavailable("etcd")
    with pytest.raises(Unavailable):
        await translations.get("team", revision)
    api.refusals.clear()
    assert await translations.get("team", revision) == TRANSLATION


async def test_one_that_isnt_there_is_none_and_looked_for_again(api):
    translations = process(api)
    assert await translations.get("team", "ocr-nvidia-0") is None
    assert await translations.get("team", "ocr-nvidia-0") is None
    assert api.asked["get", "ControllerRevision"] == 2


async def test_only_what_nobody_refers_to_is_deleted(api, cache):
    translations = process(api, cache)
    used = await translations.keep(source(), Environment.NVIDIA, TRANSLATION)
    unused = await translations.keep(source(), Environment.CPU, TRANSLATION)
    other = source()
    other.metadata.uid, other.metadata.name = "another", "another"
    theirs = await translations.keep(other, Environment.CPU, TRANSLATION)
    await translations.prune(source(), used={used, None})
    assert {obj["metadata"]["name"] for obj in api.all(CONTROLLER_REVISION)} == {used, theirs}
    assert await translations.get("team", unused) is None, "not from memory either"
