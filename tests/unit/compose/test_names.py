"""Names that DNS allows, and what calls services by other names."""

from __future__ import annotations

import pytest

from opengpu_operator.compose.names import HostNames, is_label, label, unique_labels
from tests.support.compose import errors, reasons, translate


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


def test_labels_are_unique_where_even_their_hashes_meet() -> None:
    names = ["n" * 54 + "0000004e9b", "n" * 54 + "00000065e3"]
    assert label(names[0]) == label(names[1])
    found = unique_labels(names)
    assert len(set(found.values())) == 2
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


@pytest.mark.parametrize(
    "value",
    [
        *("my_db:5432", "tcp://my_db", "http://my_db/my.db", "//my_db/share", "a@my_db", "x=my_db:1,my_db:2"),
        *("postgres://user:p@my_db/x", "mongodb://u:p@my_db,my_db:2/x", "jdbc:postgresql://my_db/x"),
        *("psql -h my_db -U x", "psql -hx --db-host my_db", "--db-host=my_db", "--db-host='my_db'"),
        *("host=my_db port=5432", "?host=my_db&x=y", '{"host":"my_db"}', '"hosts": ["my_db", "my_db"]'),
        *("db.host: my_db", "hosts=x,my_db", "upstream x { server my_db; }", "DB_HOST=my_db"),
        *("until nc -z my_db 5432; do", "exec 3<>/dev/tcp/my_db/80"),
    ],
)
def test_where_a_host_stands(value: str) -> None:
    hosts = HostNames(renamed={"my_db": "my-db"}, host_names=(), published={})
    found = hosts.rewrite(value)
    assert found.value == value.replace("my_db", "my-db")
    assert not found.doubtful


@pytest.mark.parametrize(
    "value",
    [
        *("postgres://my_db:p@host/x", "postgres://my_db@host", "postgres://my_db:5432@host", "my_db:x@host"),
        *(
            "http://x/my_db:8080",
            "foo/my_db:1",
            "file:///my_db/x",
            "/data/my_db",
            "./my_db",
            "postgres://host/my_db",
        ),
    ],
)
def test_where_no_host_stands(value: str) -> None:
    found = HostNames(renamed={"my_db": "my-db"}, host_names=(), published={}).rewrite(value)
    assert found.value == value
    assert not found.doubtful


@pytest.mark.parametrize(
    "value", ["my_db", "dbname=my_db", "node my_db", "a my_db b", "--db my_db", "my_db;"]
)
def test_where_it_can_not_be_told(value: str) -> None:
    found = HostNames(renamed={"my_db": "my-db"}, host_names=(), published={}).rewrite(value)
    assert (found.value, found.doubtful) == (value, ["my_db"])


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PGHOST", "my_db", "my-db"),
        ("DB_HOST", "my_db", "my-db"),
        ("REDIS_HOSTS", "my_db,other; my_db", "my-db,other; my-db"),
        ("KAFKA_BROKERS", "my_db,my_db:1", "my-db,my-db:1"),
        ("POSTGRES_DB", "my_db", "my_db"),
        ("ANODE", "my_db", "my_db"),
    ],
)
def test_variables_that_name_hosts(variable: str, value: str, expected: str) -> None:
    found = HostNames(renamed={"my_db": "my-db"}, host_names=(), published={}).rewrite(
        value, variable=variable
    )
    assert found.value == expected
    assert bool(found.doubtful) == (value == expected)


@pytest.mark.parametrize(
    ("words", "last"),
    [("psql -h my_db", "my-db"), ("serve --db-host my_db", "my-db"), ("serve --host=my_db", "--host=my-db")],
)
def test_words_after_flags(words: str, last: str) -> None:
    translation = translate(
        f"services: {{my_db: {{image: x}}, app: {{image: x, command: [{words.replace(' ', ', ')}]}}}}"
    )
    assert translation.service("app").container["args"][-1] == last
    assert reasons(translation) == {"NameChanged"}


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


def test_names_of_the_host_that_nobody_calls_are_remarked_on() -> None:
    text = """
        services:
          app: {image: x, extra_hosts: ["called:host-gateway", "idle:host-gateway"], command: [x, "Called"]}
        """
    found = {entry.reason: entry for entry in translate(text).findings}
    assert found.keys() == {"HostReferenceUnresolved", "KeyIgnored"}
    assert found["KeyIgnored"].path == "services.app.extra_hosts"
    assert "idle" in found["KeyIgnored"].message


def test_aliases() -> None:
    translation = translate(
        """
        services:
          db: {image: x, container_name: milvus-db, networks: {n: {aliases: [database, DB, app, bad_one]}}}
          app: {image: x, container_name: app, links: ["db:pg"]}
        networks: {n: {}}
        """
    )
    assert translation.service("db").aliases == ["milvus-db", "database", "app", "pg"]
    assert translation.service("app").aliases == []
    assert "AliasNotPossible" in reasons(translation)


def test_services_may_share_an_alias() -> None:
    translation = translate(
        """
        services:
          one: {image: x, networks: {n: {aliases: [model, Model]}}}
          two: {image: x, container_name: model, networks: {n: {}}}
        networks: {n: {}}
        """
    )
    assert [entry.aliases for entry in translation.services] == [["model"], ["model"]]


def test_aliases_are_bounded() -> None:
    def file(count: int) -> str:
        listed = ", ".join(f"a{index}" for index in range(count))
        return (
            f"services: {{db: {{image: x, networks: {{n: {{aliases: [{listed}]}}}}}}}}\nnetworks: {{n: {{}}}}"
        )

    assert len(translate(file(512)).service("db").aliases) == 512
    assert "TooMany" in errors(file(513))


def test_aliases_that_dns_forbids_are_the_service_where_they_are_hosts() -> None:
    translation = translate(
        """
        services:
          db: {image: x, container_name: the_db, networks: {n: {aliases: [postgres, kafka.1]}}}
          app:
            image: x
            environment:
              URL: postgres://the_db:the_db@the_db:5432/the_db
              DIGITS: postgres://the_db:12345@the_db/x,http://kafka.1
              LIST: 1@kafka.1:9093,postgres:5432,the_db:5432
              PGHOST: the_db
              DB_HOST: postgres
              WORDS: a postgres b the_db@example.org
        networks: {n: {}}
        """
    )
    env = {entry["name"]: entry["value"] for entry in translation.service("app").container["env"]}
    assert env == {
        "URL": "postgres://the_db:the_db@db:5432/the_db",
        "DIGITS": "postgres://the_db:12345@db/x,http://db",
        "LIST": "1@db:9093,postgres:5432,db:5432",
        "PGHOST": "db",
        "DB_HOST": "postgres",
        "WORDS": "a postgres b the_db@example.org",
    }
    assert "NameNotRewritten" not in reasons(translation)
