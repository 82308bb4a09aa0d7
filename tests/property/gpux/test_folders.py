"""Whatever archive is taken, every reader of tar finds the same files in it."""

from __future__ import annotations

import asyncio
import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from gpux import folders
from gpux.folders import BLOCK, FolderError
from gpux.store.folders import _next, _Source

NAMES = st.text(st.sampled_from("ab/.é \\\n"), min_size=1, max_size=130)
MEMBERS = st.lists(
    st.tuples(NAMES, st.binary(max_size=1500), st.sampled_from([b"0", b"5", b"2", b"1"])), max_size=4
)


def archive(members, kind):
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=kind) as made:
        for name, content, type_ in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = type_, len(content) if type_ == b"0" else 0
            made.addfile(member, io.BytesIO(content) if type_ == b"0" else None)
    return output.getvalue()


def taken(raw, step):
    """Files by their path, as we read them; raises FolderError."""

    async def read():
        async def chunks():
            for start in range(0, len(raw), step):
                yield raw[start : start + step]

        source, paths, found = _Source(chunks()), folders.Paths(), {}
        while (member := await _next(source)) is not None:
            if member.path:
                paths.add(member.path, directory=member.directory)
                if not member.directory:
                    found[member.path] = b"".join([piece async for piece in source.content(member.size)])
        return found

    return asyncio.run(read())


def others(raw):
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as found:
        return {
            normal(member.name): data.read()
            for member in found
            if member.isreg() and (data := found.extractfile(member)) is not None
        }


@given(MEMBERS, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.integers(1, 2000))
def test_what_is_taken_is_what_others_read(members, kind, step):
    raw = archive(members, kind)
    try:
        found = taken(raw, step)
    except FolderError:
        return
    assert found == others(raw)


def normal(name):
    return normal(name[2:]) if name.startswith("./") else name


@given(
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.integers(0, BLOCK - 1),
    st.binary(min_size=1, max_size=12),
    st.integers(0, 5),
)
def test_a_damaged_header_is_refused_or_means_the_same_to_others(kind, at, damage, block):
    raw = bytearray(archive([("a" * 120, b"content", b"0"), ("b/c", b"x" * 600, b"0")], kind))
    start = block * BLOCK
    raw[start + at : start + at + len(damage)] = damage
    # With a sum that is right, so that it's the fields that count.
    raw[start + 148 : start + 156] = b" " * 8
    raw[start + 148 : start + 156] = b"%06o\0 " % sum(raw[start : start + BLOCK])
    try:
        found = taken(bytes(raw), 700)
    except FolderError:
        return
    assert found == others(bytes(raw))


@given(st.binary(max_size=2000))
def test_any_bytes_are_an_archive_or_are_refused(raw):
    try:
        found = taken(raw, 100)
    except FolderError:
        return
    assert found == {}
