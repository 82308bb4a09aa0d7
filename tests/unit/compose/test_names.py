"""Names that DNS allows, and what calls services by other names."""

from __future__ import annotations

import pytest

from opengpu_operator.compose.names import is_label, label, unique_labels
from tests.support.compose import reasons, translate


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my_db", "my-db"),
        ("My.Web", "my-web"),
        ("-a-", "a"),
        ("a__b", "a-b"),
        ("ok-1", "ok-1"),
        ("a" * 63, "a" * 63),
    ],
)
def test_labels(name: str, expected: str) -> None:
    assert label(name) == expected


@pytest.mark.parametrize("name", ["_", "...", "", "é", "a" * 64, "-" * 70, "a" * 53 + "-" * 30 + "b"])
def test_every_name_has_a_label(name: str) -> None:
    assert is_label(label(name))


def test_labels_are_unique_and_do_not_depend_on_the_order() -> None:
    names = ["a_b", "a.b", "A-B", "a-b", "gpux-agent"]
    found = unique_labels(names, reserved=["gpux-agent"])
    assert found["a-b"] == "a-b"
    assert len(set(found.values())) == len(names)
    assert "gpux-agent" not in found.values()
    assert all(is_label(entry) for entry in found.values())


def test_references_to_renamed_services() -> None:
    translation = translate(
        """
        services:
          my_db: {image: x}
          my.cache: {image: x, container_name: the_cache}
          app:
            image: x
            command: [serve, --db=my_db:5432, my_db, "a my_db.example b"]
            healthcheck: {test: [CMD, wait, "my.cache:6379"]}
            environment:
              URL: postgres://user:pass@my_db:5432/my_db?x=my_db
              HTTP: http://my_db/x,https://the_cache
              DB_HOST: my_db
              POSTGRES_DB: my_db
              LIST: my_db:1,my.cache:2
              FILE: /data/my_db
              OTHER: xmy_db:1 my_db_x:1 my_db.x:1
        """
    )
    app = translation.service("app")
    env = {entry["name"]: entry["value"] for entry in app.container["env"]}
    assert env == {
        "URL": "postgres://user:pass@my-db:5432/my_db?x=my_db",
        "HTTP": "http://my-db/x,https://my-cache",
        "DB_HOST": "my-db",
        "POSTGRES_DB": "my_db",
        "LIST": "my-db:1,my-cache:2",
        "FILE": "/data/my_db",
        "OTHER": "xmy_db:1 my_db_x:1 my_db.x:1",
    }
    assert app.container["args"] == ["serve", "--db=my-db:5432", "my_db", "a my_db.example b"]
    assert app.container["readinessProbe"]["exec"]["command"] == ["wait", "my-cache:6379"]
    assert reasons(translation) == {"NameChanged", "AliasNotPossible", "NameNotRewritten"}
    assert [entry.dns_name for entry in translation.services] == ["my-db", "my-cache", "app"]
    assert [entry.container["name"] for entry in translation.services] == ["my-db", "my-cache", "app"]


def test_the_host_is_the_service_that_publishes_the_port() -> None:
    translation = translate(
        """
        services:
          model: {image: x, ports: ["12436:11434", "127.0.0.1:9000:80"]}
          app:
            image: x
            extra_hosts: ["host.docker.internal:host-gateway", "myhost=host-gateway"]
            command: --url http://host.docker.internal:12436/v1
            environment:
              A: http://host.docker.internal:12436
              B: HOST.docker.internal:9000
              C: http://myhost:12436,http://172.17.0.1:12436
              D: http://host.docker.internal:1
              E: host.docker.internal
              F: xhost.docker.internal:12436 host.docker.internal.x:12436
              G: host.docker.internal:124361
              H: 172.17.0.1
            configs: [c]
        configs: {c: {content: "upstream host.docker.internal:12436;"}}
        """
    )
    app = translation.service("app")
    env = {entry["name"]: entry["value"] for entry in app.container["env"]}
    assert env == {
        "A": "http://model:11434",
        "B": "model:80",
        "C": "http://model:11434,http://model:11434",
        "D": "http://host.docker.internal:1",
        "E": "host.docker.internal",
        "F": "xhost.docker.internal:12436 host.docker.internal.x:12436",
        "G": "host.docker.internal:124361",
        "H": "172.17.0.1",
    }
    assert app.container["args"] == ["--url", "http://model:11434/v1"]
    assert next(iter(translation.files.values())).content == "upstream model:11434;"
    unresolved = [
        entry.message for entry in translation.findings if entry.reason == "HostReferenceUnresolved"
    ]
    assert [message.partition(":")[0] for message in unresolved] == ["D", "E", "G"]


def test_aliases() -> None:
    translation = translate(
        """
        services:
          db: {image: x, container_name: milvus-db, networks: {n: {aliases: [database, DB, app, bad_one]}}}
          app: {image: x, container_name: app, links: ["db:pg"]}
        networks: {n: {}}
        """
    )
    assert translation.service("db").aliases == ["milvus-db", "database", "pg"]
    assert translation.service("app").aliases == []
    assert "AliasNotPossible" in reasons(translation)


def test_aliases_are_the_service_where_they_are_hosts() -> None:
    translation = translate(
        """
        services:
          db: {image: x, container_name: postgres, networks: {n: {aliases: [llama3, kafka-1, the_db]}}}
          app:
            image: x
            environment:
              URL: postgres://postgres:postgres@postgres:5432/postgres
              DIGITS: postgres://postgres:12345@postgres/x,http://llama3
              LIST: 1@kafka-1:9093,postgres:5432,the_db:5432
              PGHOST: postgres
              DB_HOST: postgres
              POSTGRES_USER: postgres
              MODEL: llama3:8b
              WORDS: a postgres b postgres@example.org
        networks: {n: {}}
        """
    )
    env = {entry["name"]: entry["value"] for entry in translation.service("app").container["env"]}
    assert env == {
        "URL": "postgres://postgres:postgres@db:5432/postgres",
        "DIGITS": "postgres://postgres:12345@db/x,http://db",
        "LIST": "1@db:9093,db:5432,db:5432",
        "PGHOST": "db",
        "DB_HOST": "db",
        "POSTGRES_USER": "postgres",
        "MODEL": "llama3:8b",
        "WORDS": "a postgres b postgres@example.org",
    }
    assert "NameNotRewritten" not in reasons(translation)
