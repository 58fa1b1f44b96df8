"""Look for bytes that a target of targets.py does not take, guided by the lines that they reach.

make fuzz                                     each target for ten minutes
python tests/fuzz/run.py readers 600          one of them, for so many seconds

What reaches lines of its own is kept in kept/TARGET, and test_fuzz.py tries it ever after. What a
target does not take is left in the working folder, as crash-… or timeout-…: once that is mended,
move it into kept/TARGET.
"""

import subprocess
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["squentropy", "yaml", "json", "csv"]):
    import targets

LONGEST = 2000  # bytes of an input that is kept
SECONDS = 20  # that one may take
MEGABYTES = 1500


def fuzz(target: str, *words: str) -> None:
    limits = [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={LONGEST}"]
    atheris.Setup([sys.argv[0], *limits, *words], lambda data: targets.tried(target, data))
    atheris.Fuzz()


def main(target: str, seconds: str) -> None:
    kept = targets.KEPT / target
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as found:
        again = [sys.executable, __file__, "--", target]
        searched = subprocess.run([*again, f"-max_total_time={seconds}", found, str(kept)])
        # Of what was found, what reaches lines that nothing kept does.
        subprocess.run([*again, "-merge=1", str(kept), found], check=True)
    sys.exit(searched.returncode)


if __name__ == "__main__":
    if sys.argv[1] == "--":
        fuzz(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
