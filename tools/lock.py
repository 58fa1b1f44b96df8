"""Pin the dependencies and the hash of each of their files. Needs uv; `make lock` installs it.

Packages that are already pinned keep their versions; `make lock UPGRADE=1` updates all of them.

    requirements.lock        what `make study` installs
    requirements-gpu.lock    what a CUDA build of torch also needs
    requirements-EXTRA.lock  what `make EXTRA` adds, for each of EXTRAS
    requirements-test.lock   what `make test` adds to requirements.lock, -dvc and -hub
    requirements-uv.lock     uv, which installs the others

The locks are for every Python that pyproject.toml allows, and for every system. A line that applies
only to some of them has a marker.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GPU = re.compile(r"(nvidia-|cuda-|triton==)")
EXTRAS = ("dvc", "hub", "kubernetes", "slurm", "fuzz")
Lock = dict[str, str]  # a package's name: its lines in a lock


def resolve(requirements: str, extras: list[str], pins: Lock | None = None) -> Lock:
    """Resolve requirements and the project with `extras`, at the versions of `pins` if given."""
    with tempfile.TemporaryDirectory() as name:
        source, fixed = Path(name, "in.txt"), Path(name, "pins.txt")
        source.write_text(requirements)
        command = [
            *("uv", "pip", "compile", "--universal", "--python-version", "3.11"),
            *("--fork-strategy", "fewest", "--generate-hashes", "--no-annotate", "--no-header"),
        ]
        if pins is not None:
            fixed.write_text("\n".join(lines.split(" ")[0] for lines in pins.values()))
            command += ["--constraint", str(fixed)]
        if extras:
            command += [word for extra in extras for word in ("--extra", extra)]
            command.append("pyproject.toml")
        done = subprocess.run([*command, source], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    packages = re.split(r"\n(?=\S)", done.stdout.strip())
    return {lines.partition("==")[0]: lines for lines in packages}


def held() -> Lock:
    """The pinned packages of the existing locks, without hashes."""
    lines = "\n".join(path.read_text() for path in sorted(ROOT.glob("requirements*.lock")))
    found = re.findall(r"^([a-z0-9-]+)(==\S+)", lines, re.M)
    return {name: name + version for name, version in found}


def with_own_build(torch: str, before: str) -> str:
    """torch's lines, plus the hashes of builds that are not on PyPI.

    These are the hashes of this version in the lock `before`, and that of the build that pip's
    settings select here.
    """
    version = re.match(r"torch==(\S+)", torch)[1]
    known = re.search(rf"^torch=={re.escape(version)} [^=]*(?:\n    --hash.*)+", before, re.M)
    hashes = set(re.findall(r"sha256:[0-9a-f]{64}", torch))
    hashes.update(re.findall(r"sha256:[0-9a-f]{64}", known[0] if known else ""))
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name]
        subprocess.run([*command, f"torch=={version}"], check=True)
        (wheel,) = Path(name).iterdir()
        hashes.add("sha256:" + hashlib.sha256(wheel.read_bytes()).hexdigest())
    head = torch.partition(" \\\n")[0]
    return " \\\n    ".join([head, *(f"--hash={each}" for each in sorted(hashes))])


def write(name: str, what: str, lock: Lock) -> None:
    head = f"# {what}, exact, with the hash of each file. Made by `make lock`."
    (ROOT / name).write_text("\n".join([head, *(lock[key] for key in sorted(lock))]) + "\n")


def less(lock: Lock, *others: Lock) -> Lock:
    """The packages that the others lack or have with other lines, as for fewer Pythons."""
    return {
        key: lines for key, lines in lock.items() if all(lines != each.get(key) for each in others)
    }


if __name__ == "__main__":
    keep = None if "--upgrade" in sys.argv else held()
    everything = resolve("setuptools", ["pipeline", *EXTRAS, "test", "docs"], keep)
    study = resolve("setuptools", ["pipeline"], everything)
    added = {
        extra: less(resolve("setuptools", ["pipeline", extra], everything), study)
        for extra in EXTRAS
    }
    gpu = {key: lines for key, lines in study.items() if GPU.match(lines)}
    test = less(everything, study, added["dvc"], added["hub"])
    study = less(study, gpu)
    before = ROOT / "requirements.lock"
    torch = with_own_build(study["torch"], before.read_text() if before.exists() else "")
    write("requirements.lock", "What `make study` installs", study | {"torch": torch})
    write("requirements-gpu.lock", "What a CUDA build of torch needs besides", gpu)
    for extra in EXTRAS:
        write(f"requirements-{extra}.lock", f"What `make {extra}` adds", added[extra])
    write("requirements-test.lock", "What `make test` adds to requirements.lock, -dvc, -hub", test)
    write("requirements-uv.lock", "What installs the other locks", resolve("uv", []))
