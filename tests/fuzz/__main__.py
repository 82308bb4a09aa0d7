"""``make fuzz [SECONDS=600]``: feed the translator with whatever libFuzzer thinks of, for a while.

What it finds stays in build/fuzz: ``corpus`` is taken up by the next run, ``crash-*`` are inputs to put into
tests/fuzz/regressions once they are mended.
"""

from __future__ import annotations

import argparse
import hashlib
import sys

import atheris

with atheris.instrument_imports(include=["opengpu_operator.compose", "opengpu_operator.desired"]):
    from tests.fuzz import mutate, target

BUILD = target.ROOT / "build" / "fuzz"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz the translator.")
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    corpus = BUILD / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    dictionary = BUILD / "words"
    dictionary.write_text("".join(f'"{quoted(word)}"\n' for word in target.words()))
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={options.seconds}",
            f"-dict={dictionary}",
            f"-artifact_prefix={BUILD}/",
            "-max_len=4096",
            "-timeout=30",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            str(corpus),
        ],
        target.check,
        custom_mutator=lambda data, size, seed: mutate.mutated(
            data, size, seed=seed, bytewise=atheris.Mutate
        ),
    )
    atheris.Fuzz()


def quoted(word: str) -> str:
    """Return a word as libFuzzer's dictionaries write it."""
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


if __name__ == "__main__":
    main()
