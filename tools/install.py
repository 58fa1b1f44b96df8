"""Install locks into the environment that runs this script, and check each file's hash.

    .venv/bin/python tools/install.py requirements.lock [more.lock ...]
        --torch=cpu   torch's CPU-only build, from PyTorch's own index
        --torch=cuda  its build for NVIDIA GPUs, from PyPI
        --torch=any   the build that pip's settings select, even if the lock lacks its hash

A build of torch with a version suffix, such as 2.13.0+cpu, may have an unknown hash in any case. If
the environment includes the system's packages, the system's torch is kept.

Packages are installed by uv, which is several times faster than pip: an existing uv, or the one in
requirements-uv.lock. If uv is unavailable or fails, pip is used; torch itself is always installed
by pip. Both take packages from the sources in pip's settings. The project itself is installed last,
in editable mode.
"""

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 5  # between progress messages
PIP = [sys.executable, "-m", "pip", "install", "--no-compile", "--quiet", "--quiet"]

# Variables of pip and uv to keep: package sources, network and caches. The others are removed,
# because some of them, such as PIP_USER, PIP_TARGET and PIP_NO_BINARY, break the installation.
WHERE = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|TRUSTED_HOST|CERT|CLIENT_CERT|PROXY|"
    r"DEFAULT_TIMEOUT|TIMEOUT|RETRIES|CACHE_DIR|NO_CACHE_DIR|CONFIG_FILE|KEYRING_PROVIDER)|"
    r"UV_(\w*INDEX\w*|FIND_LINKS|OFFLINE|INSECURE_HOST|HTTP_\w+|NATIVE_TLS|SYSTEM_CERTS|CACHE_DIR|"
    r"NO_CACHE|CONFIG_FILE|KEYRING_PROVIDER|LINK_MODE|CONCURRENT_\w+)"
)
# pip's options for each build of torch; `any` uses pip's settings.
TORCH = {
    "cpu": ["--index-url", "https://download.pytorch.org/whl/cpu"],
    "cuda": ["--index-url", "https://pypi.org/simple"],
    "any": [],
}
# pip's settings and uv's equivalent variables.
SAME = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}


def main(words: list[str]) -> None:
    torch_build = next((w.partition("=")[2] for w in words if w.startswith("--torch=")), None)
    if torch_build is not None and torch_build not in TORCH:
        sys.exit(f"TORCH={torch_build}: no such build; write {', '.join(TORCH)}, or leave it out")
    system = "include-system-site-packages = true" in Path(sys.prefix, "pyvenv.cfg").read_text()
    if system and find_spec("torch") is None:
        sys.exit("SYSTEM=1: the system has no torch; run `make clean`, then make without SYSTEM=1")
    locks = [Path(word) for word in words if not word.startswith("--")]
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) and not WHERE.fullmatch(name):
            del os.environ[name]
    os.environ.update(PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1")

    began = time.monotonic()
    if find_spec("pip") is None:  # creating the environment was interrupted
        run([sys.executable, "-m", "ensurepip"], "pip", quiet=True)
    uv = find_uv()
    for lock in locks:
        packages = read(lock)
        torch = packages.pop("torch", None)
        install(uv, packages.values(), lock.name)
        if torch and not system:
            install_torch(uv, torch, torch_build)
    editable = ["--no-deps", "--no-build-isolation", "--editable", ROOT]
    by_uv_or_pip(uv, editable, "the project itself")
    if find_spec("dvc") is None:
        write_first_dvc(Path(sys.executable).with_name("dvc"))
    say(f"installed in {time.monotonic() - began:.0f} s")


def write_first_dvc(path: Path) -> None:
    """Write a `dvc` that installs DVC, which replaces it; a study alone does not need DVC."""
    brings, runs = f"make --silent -C '{ROOT}' dvc >&2", f"'{sys.executable}' -m dvc \"$@\""
    path.write_text(f"#!/bin/sh\n{brings} && exec {runs}\n")
    path.chmod(0o755)


def read(lock: Path) -> dict[str, str]:
    """Return the lines of each package in a lock, by package name."""
    text = "\n".join(line for line in lock.read_text().splitlines() if not line.startswith("#"))
    return {lines.partition("==")[0]: lines for lines in re.split(r"\n(?=\S)", text.strip())}


def find_uv() -> list[str]:
    """Return the command `uv pip install`, installing uv if necessary; [] if that fails."""
    beside = Path(sys.executable).with_name("uv")
    if not beside.exists() and not shutil.which("uv"):
        lock = ["--no-deps", "--require-hashes", "--requirement", ROOT / "requirements-uv.lock"]
        run([*PIP, *lock], "uv", quiet=True)
    found = str(beside) if beside.exists() else shutil.which("uv")
    return [found, "pip", "install", "--python", sys.executable] if found else []


def install(uv: list[str], packages: Iterable[str], what: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        lock = Path(name, "lock.txt")
        lock.write_text("\n".join(packages) + "\n")
        by_uv_or_pip(uv, ["--no-deps", "--require-hashes", "--requirement", lock], what)


def install_torch(uv: list[str] | None, lines: str, build: str | None) -> None:
    """Install a build of torch and its dependencies.

    `build` is a key of TORCH; None selects a build by pip's settings. The hash is compared here,
    because with hashes pip and uv would choose PyPI's build instead.
    """
    pinned = re.match(r"torch==[\w.]+", lines)[0]
    version, _, of = (installed("torch") or "").partition("+")
    if version == pinned.removeprefix("torch==") and build in (None, "any", of or "cuda"):
        return
    with tempfile.TemporaryDirectory() as name:
        where = TORCH[build] if build else []
        fetch = ["download", "--quiet", "--quiet", "--no-deps", "--dest", name, *where, pinned]
        if run([*PIP[:3], *fetch], pinned):
            sys.exit(f"{pinned}: could not be downloaded")
        (wheel,) = Path(name).iterdir()
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        own_build = "+" in wheel.name  # such as 2.13.0+cpu, from an index other than PyPI
        if digest not in lines and own_build:
            say(f"{wheel.name}: a build of the package index; its hash is not in the lock")
        elif digest not in lines and build != "any":
            sys.exit(
                f"{wheel.name}: its hash is not in requirements.lock; if you trust the package "
                "index's build, use TORCH=any"
            )
        by_uv_or_pip(None, ["--no-deps", wheel], pinned)  # uv would cache a copy permanently
    for_gpu = read(ROOT / "requirements-gpu.lock")
    needed = {re.match(r"[\w-]+", each)[0] for each in metadata.requires("torch") or []}
    if needed & set(for_gpu):
        install(uv, for_gpu.values(), "requirements-gpu.lock")
    elif any(name.startswith(("nvidia-", "cuda-", "triton", "pytorch-triton")) for name in needed):
        by_uv_or_pip(None, [pinned], "what this build of torch needs")


def installed(name: str) -> str | None:
    """The version of a package with its suffix, if any, as in 2.13.0+cpu; None if missing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def by_uv_or_pip(uv: list[str] | None, words: list, what: str) -> None:
    """Install with uv if given, otherwise pip. If uv fails, clear `uv` and use pip from then on."""
    if uv and not run([*uv, *shown(), *words], what, settings_of_pip(), os.isatty(2)):
        return
    if uv:
        say("uv failed; using pip")
        uv.clear()
    if run([*PIP, *words], what):
        sys.exit(f"{what}: could not be installed")


def shown() -> list[str]:
    """uv's options: show progress in a terminal, only errors in a log."""
    return [] if os.isatty(2) else ["--quiet"]


def settings_of_pip() -> dict[str, str]:
    """pip's package sources as variables for uv, without those already set in the environment.

    As with pip, the best version of all sources is installed.
    """
    settings = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
    ).stdout
    found = {}
    for scope in ("global", "install", ":env:"):  # later scopes override earlier ones
        for line in listed.splitlines():
            match = re.fullmatch(rf"{scope}\.([\w-]+)=(.+)", line)
            if match:
                found[match[1]] = ast.literal_eval(match[2])
    for name, variable in SAME.items():
        if name in found:
            separator = "," if name == "find-links" else " "
            settings[variable] = separator.join(str(found[name]).split())
    if found.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        settings["UV_NO_INDEX"] = "1"
    return {key: value for key, value in settings.items() if key not in os.environ}


def run(command: list, what: str, settings=None, own_progress=False, quiet=False) -> int:
    """Run an installer and return its exit code.

    Prints a line every few seconds, unless the installer shows its own progress.
    """
    began = told = time.monotonic()
    nowhere = subprocess.DEVNULL if quiet else None
    running = subprocess.Popen(
        command, env=os.environ | (settings or {}), stdout=nowhere, stderr=nowhere
    )
    while True:
        try:
            return running.wait(0.5)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
            if not own_progress and now - told >= SECONDS:
                say(f"installing {what}, {now - began:.0f} s; {count()} packages are installed")
                told = now


def count() -> int:
    """The number of packages in this environment."""
    here = [path for path in sys.path if path.startswith(sys.prefix)]
    return sum(1 for _ in metadata.distributions(path=here))


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
