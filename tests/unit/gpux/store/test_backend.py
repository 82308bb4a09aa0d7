"""Where the store keeps everything, from its options."""

from __future__ import annotations

import argparse
import json

from gpux.store import backend


def parse(*arguments):
    parser = argparse.ArgumentParser()
    backend.add_options(parser.add_argument)
    return parser.parse_args(arguments)


def test_a_cache_is_there_for_the_asking(tmp_path):
    assert backend._open_cache(parse()) is None
    assert parse(f"--s3-cache={tmp_path}").s3_cache_bytes == 2 << 30
    made = backend._open_cache(parse(f"--s3-cache={tmp_path}/new", "--s3-cache-bytes=100"))
    assert made is not None
    assert (tmp_path / "new").is_dir()


def test_a_directory_that_cannot_be_used_stops_no_store(tmp_path, capfd):
    (tmp_path / "file").write_text("no directory")
    assert backend._open_cache(parse(f"--s3-cache={tmp_path}/file")) is None
    (line,) = capfd.readouterr().err.splitlines()
    assert "--s3-cache" in json.loads(line)["message"]
