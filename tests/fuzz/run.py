#!/usr/bin/env python3
"""Look for bytes that a target of targets.py does not take, guided by the lines that they reach.

make fuzz                                     each target for ten minutes
python tests/fuzz/run.py readers 600          one of them, for so many seconds

What reaches lines of its own is kept in kept/TARGET, and test_fuzz.py tries it ever after. What a
target does not take is left in the working folder, as crash-… or timeout-…: once that is mended,
move it into kept/TARGET.
"""

import os
import subprocess
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["squentropy", "yaml", "json", "csv"]):
    import targets

LONGEST = 2000  # bytes of an input that is kept
SECONDS = 20  # that one may take
MEGABYTES = 1500
TARGET = "SQUENTROPY_FUZZ"  # names it to the processes that the fuzzer starts with this program


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
        # Of what was found, what reaches lines that nothing kept does.
        subprocess.run([*fuzz, "-merge=1", str(kept), found], env=environment, check=True)
    sys.exit(searched.returncode)


if __name__ == "__main__":
    if TARGET in os.environ:
        atheris.Setup(sys.argv, lambda data: targets.tried(os.environ[TARGET], data))
        atheris.Fuzz()
    else:
        main(*sys.argv[1:])
