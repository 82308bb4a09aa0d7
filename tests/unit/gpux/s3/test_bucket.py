"""Against a real server."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpux.errors import UnavailableError
from gpux.s3.bucket import ChangedError, crc32, parse_location
from tests.support.s3 import s3_server

MIB = 1 << 20


def test_locations():
    assert parse_location("s3://bucket") == ("bucket", "")
    assert parse_location("s3://bucket/a/b/") == ("bucket", "a/b/")
    for wrong in ("bucket", "s3://", "s3://B", "http://bucket", "s3://bucket/a b"):
        with pytest.raises(ValueError, match=r"expected s3://BUCKET|may have letters"):
            parse_location(wrong)


def test_small_objects(bucket):
    assert bucket.get("a/b") is None
    etag = bucket.put("a/b", b"1")
    assert bucket.get("a/b") == (b"1", etag)
    bucket.delete("a/b")
    bucket.delete("a/b")
    assert bucket.get("a/b") is None


def test_conditions_hold(bucket):
    etag = bucket.put("key", b"1", absent=True)
    with pytest.raises(ChangedError):
        bucket.put("key", b"2", absent=True)
    newer = bucket.put("key", b"2", match=etag)
    with pytest.raises(ChangedError):
        bucket.put("key", b"3", match=etag)
    with pytest.raises(ChangedError):
        bucket.put("nothing", b"3", match=etag)
    assert bucket.get("key") == (b"2", newer)
    # Sent again because the answer was lost: it was us.
    assert bucket.put("key", b"2", match=etag) == newer


@pytest.mark.parametrize("first", [True, False], ids=["If-None-Match", "If-Match"])
def test_of_many_at_once_one_changes_an_object(bucket, first):
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            key = f"{first}/{number}"
            etag = None if first else bucket.put(key, b"start")
            together = threading.Barrier(8)

            def change(name, key=key, etag=etag, together=together):
                together.wait()
                try:
                    bucket.put(key, name.encode(), match=etag, absent=etag is None)
                except ChangedError:
                    return None
                return name

            won = [name for name in pool.map(change, "abcdefgh") if name]
            assert len(won) == 1
            assert bucket.get(key).body == won[0].encode()


def test_the_service_is_checked(bucket, server, monkeypatch):
    bucket.check()
    assert bucket.removes
    assert list(bucket.listing("checks/")) == []
    careless = bucket
    send = careless._send
    monkeypatch.setattr(
        careless,
        "_send",
        lambda *args, headers, **options: send(
            *args, headers={name: value for name, value in headers.items() if name != "If-Match"}, **options
        ),
    )
    with pytest.raises(ValueError, match="ignores If-Match in PUT"):
        careless.check()
    monkeypatch.setattr(
        careless,
        "_send",
        lambda method, path, *args, headers, **options: send(
            method, path, *args, headers={} if "absent" in path else headers, **options
        ),
    )
    with pytest.raises(ValueError, match="ignores If-Match, where there is no object, in PUT"):
        careless.check()
    assert [found.key.count("absent") for found in bucket.listing("checks/")] == [0]


def test_removing_on_a_condition(bucket):
    etag = bucket.put("key", b"1")
    assert not bucket.remove("key", match=etag)
    bucket.check()
    assert not bucket.remove("key", match='"0"')
    assert bucket.get("key")
    assert bucket.remove("key", match=etag)
    assert bucket.get("key") is None


def test_listings_are_complete_and_in_order(server):
    options = server.options(prefix="some/where/")
    with server.bucket(options._replace(prefix="")) as whole:
        whole.put("elsewhere", b"")
    with server.bucket(options) as bucket:
        _list(bucket)


def _list(bucket):
    keys = [f"l/{number % 3}/{number:04}" for number in range(1050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: bucket.put(key, b"xy"), keys))
    listed = list(bucket.listing("l/"))
    assert [found.key for found in listed] == sorted(keys)
    assert {found.size for found in listed} == {2}
    after = sorted(keys)[700]
    assert [found.key for found in bucket.listing("l/", after=after)] == sorted(keys)[701:]
    assert list(bucket.folders("l/")) == ["0", "1", "2"]
    assert list(bucket.listing("nothing/")) == []


def test_parts_become_an_object(bucket):
    content = bytes(range(256)) * 4096 * 6
    upload = bucket.begin("data/x")
    assert [found.upload for found in bucket.uploads("data/")] == [upload]
    pieces = [content[: 5 * MIB], content[5 * MIB :]]
    parts = [
        bucket.put_part("data/x", upload, number=n, file=io.BytesIO(p), size=len(p), crc32=crc32(p))
        for n, p in enumerate(pieces, 1)
    ]
    bucket.complete("data/x", upload, parts)
    # Sent again because the answer was lost.
    bucket.complete("data/x", upload, parts)
    assert bucket.size("data/x") == len(content)
    with bucket.open("data/x", start=100, end=5_500_000) as response:
        assert response.read() == content[100:5_500_000]
    assert list(bucket.uploads("data/")) == []
    abandoned = bucket.begin("data/y")
    bucket.abort("data/y", abandoned)
    bucket.abort("data/y", abandoned)
    assert list(bucket.uploads("data/")) == []
    with pytest.raises(UnavailableError):
        bucket.complete("data/y", abandoned, parts)


def test_bytes_that_change_on_the_way_are_refused(bucket):
    with pytest.raises(UnavailableError, match="BadDigest"):
        bucket.put_file("key", io.BytesIO(b"abc"), size=3, crc32=crc32(b"abd"))
    assert bucket.size("key") is None


def test_wrong_credentials_are_said_without_repeating_them(server, tmp_path):
    (tmp_path / "access-key-id").write_text("tests")
    (tmp_path / "secret-access-key").write_text("another-secret")
    with (
        server.bucket(server.options()._replace(credentials=tmp_path)) as bucket,
        pytest.raises(UnavailableError, match="403 SignatureDoesNotMatch") as raised,
    ):
        bucket.get("key")
    assert "another-secret" not in str(raised.value)


def test_a_server_that_goes_is_unavailable_and_comes_back(tmp_path):
    with s3_server(tmp_path / "server") as server, server.bucket() as bucket:
        etag = bucket.put("key", b"1")
        server.kill()
        with pytest.raises(UnavailableError, match="can't be reached"):
            bucket.get("key")
        server.start()
        assert bucket.get("key") == (b"1", etag)


def test_a_certificate_of_ones_own_must_be_named(tmp_path):
    with s3_server(tmp_path / "server", tls=True) as server:
        options = server.options()
        with (
            server.bucket(options) as bucket,
            pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            bucket.get("key")
        with server.bucket(options._replace(ca=server.certificate)) as bucket:
            etag = bucket.put("key", b"1")
            assert bucket.get("key") == (b"1", etag)
            bucket.put_file("large", io.BytesIO(b"x" * MIB), size=MIB, crc32=crc32(b"x" * MIB))
            with bucket.open("large", start=0, end=MIB) as response:
                assert response
                assert len(response.read()) == MIB


@pytest.mark.parametrize(
    ("path_style", "url"),
    [(True, "https://s3.example.org/bucket/some/key"), (False, "https://bucket.s3.example.org/some/key")],
)
def test_where_the_bucket_is_in_the_url(server, monkeypatch, path_style, url):
    options = server.options()._replace(
        endpoint="https://s3.example.org", bucket="bucket", prefix="some/", path_style=path_style
    )
    asked = []

    def request(method, url, **options):
        asked.append((url, options["headers"]["Host"]))
        raise OSError("nowhere")

    with server.bucket(options) as bucket:
        monkeypatch.setattr(bucket._pool, "request", request)
        with pytest.raises(UnavailableError, match="nowhere"):
            bucket.get("key")
    assert set(asked) == {(url, url.split("/")[2])}
    with (
        pytest.raises(ValueError, match="is not http"),
        server.bucket(options._replace(endpoint="s3.example.org")),
    ):
        pass
