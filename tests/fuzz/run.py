#!/usr/bin/env python3
"""Fuzz the targets of targets.py, guided by code coverage.

make fuzz                                     each target for ten minutes
python tests/fuzz/run.py readers 600          one target, for 600 seconds

Inputs that reach new lines are kept in kept/TARGET, and test_fuzz.py runs them. An input that fails
is left in the working folder as crash-… or timeout-…; once the bug is fixed, move it into
kept/TARGET.
"""

import os
import subprocess
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["squentropy", "yaml", "json", "csv"]):
    import targets

LONGEST = 2000  # bytes of an input
SECONDS = 20  # time limit of an input
MEGABYTES = 1500
TARGET = "SQUENTROPY_FUZZ"  # environment variable with the target, for the fuzzer's processes


def main(target: str, seconds: str) -> None:
    kept = targets.KEPT / target
    kept.mkdir(parents=True, exist_ok=True)
    limits = [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={LONGEST}"]
    fuzz = [__file__, *limits]
    environment = os.environ | {TARGET: target}
    with tempfile.TemporaryDirectory() as found:
        searched = subprocess.run(
            [*fuzz, f"-max_total_time={seconds}", found, str(kept)], env=environment
        )
        # Keep the new inputs that reach lines that no kept input reaches.
        subprocess.run([*fuzz, "-merge=1", str(kept), found], env=environment, check=True)
    sys.exit(searched.returncode)


if __name__ == "__main__":
    if TARGET in os.environ:
        atheris.Setup(sys.argv, lambda data: targets.tried(os.environ[TARGET], data))
        atheris.Fuzz()
    else:
        main(*sys.argv[1:])
