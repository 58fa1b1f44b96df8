"""All checks and measurements that need a GPU, in one call of at most ten minutes.

    python benchmarks/gpu.py gpu.json --nanogpt PATH      # PATH: a checkout of karpathy/nanoGPT
    python benchmarks/gpu.py gpu.json --minutes 5 --parts checks steps
    python benchmarks/gpu.py --miniature rehearsal.json   # on a CPU, in half a minute

Runs from this source tree without installation, on a machine that has torch, numpy, safetensors,
PyYAML, psutil and tqdm; it needs no network. Work that also needs pydantic is skipped, with a
message, if it is missing. The parts:

- checks   whether the results of the CPU tests hold on a GPU: see gpu_checks.py
- losses   every loss alone, 65,536 positions, 50,257 classes: time and memory
- steps    GPT-2 124M, block 1,024, 50,257 tokens, random ids: tokens per second, MFU and memory of
           a step with each loss, at batch 4 and at the largest batch that fits
- finals   the grammar study's losses for the same number of seconds each, in a larger model
- nanogpt  nanoGPT's step in the same shapes, compiled
- sweep    small cells trained one by one and at once

Each part has its own process and its own share of the time, so a part that fails or hangs does not
affect the others; its unused time goes to the later parts. Writes one JSON file with device,
versions and each part's figures. It is written after every part, so a kill loses only one.
"""

import argparse
import importlib
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SHARES = {
    "checks": 0.15,
    "losses": 0.1,
    "steps": 0.27,
    "finals": 0.19,
    "nanogpt": 0.16,
    "sweep": 0.13,
}
PARTS = {
    "checks": ("gpu_checks", "run"),
    "losses": ("gpu_speed", "run_losses"),
    "steps": ("gpu_speed", "run_ours"),
    "finals": ("gpu_study", "run_finals"),
    "nanogpt": ("gpu_speed", "run_nanogpt"),
    "sweep": ("gpu_study", "run_sweep"),
}
PACKAGES = ("torch", "triton", "numpy", "pydantic", "safetensors", "tiktoken", "pyarrow")
COMPILED = "the compiled model is the plain one"
"""If this check fails, the later parts do not compile."""
GRACE = 5  # seconds beyond its share in which a part may end by itself


def words(*command: str) -> str | None:
    """A command's output; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def machine(miniature: bool) -> dict[str, Any]:
    """Device, versions, commit and whether files differ from it. Exits if there is no GPU."""
    import shared
    import torch

    device: dict[str, Any] = {"name": shared.processor(), "cores": os.cpu_count()}
    if not miniature:
        if not torch.cuda.is_available():
            sys.exit("gpu.py: torch sees no CUDA GPU here; --miniature rehearses on a CPU")
        about = torch.cuda.get_device_properties(0)
        query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        device |= {
            "name": about.name,
            "memory_gb": round(about.total_memory / 1e9, 1),
            "capability": f"{about.major}.{about.minor}",
            "processors": about.multi_processor_count,
            "cuda": torch.version.cuda,
            "driver": words(*query),
            "host": shared.processor(),
        }
    git = ("git", "-C", str(Path(__file__).parent))
    changes = words(*git, "status", "--porcelain", "--untracked-files=no")
    return {
        "device": device,
        "versions": {"python": platform.python_version()} | {p: installed(p) for p in PACKAGES},
        "commit": words(*git, "rev-parse", "HEAD"),
        "changed": None if changes is None else bool(changes),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def run_part(name: str, seconds: float, given: Sequence[str], figures: Path) -> dict[str, Any]:
    """Run a part in its own process, which is killed with all its children when time is up."""
    command = [sys.executable, __file__, "-", "--part", name, "--figures", str(figures)]
    command += ["--seconds", str(seconds), *given]
    start = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(seconds + GRACE)
        outcome = "done" if code == 0 else f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        outcome = f"cut off after {seconds:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = figures.read_text(encoding="utf-8").splitlines() if figures.exists() else []
    told = [json.loads(line) for line in lines if line.endswith("}")]
    return {"outcome": outcome, "took": round(time.monotonic() - start, 1), "figures": told}


def failed(part: dict[str, Any]) -> list[str]:
    return [figure["what"] for figure in part["figures"] if "failed" in figure]


def write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def run_all(options: argparse.Namespace) -> None:
    until = time.monotonic() + 60 * options.minutes - 2 * GRACE * (not options.miniature)
    report = machine(options.miniature)
    report |= {"miniature": options.miniature, "minutes": options.minutes, "parts": {}}
    # Inductor takes a minute per model on a CPU; there, graphs are captured and run unchanged.
    backend = "eager" if options.miniature else "inductor"
    if not options.miniature and importlib.util.find_spec("triton") is None:
        backend = "eager"
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in SHARES if name in options.parts]
        for number, name in enumerate(names):
            share = SHARES[name] / sum(SHARES[each] for each in names[number:])
            seconds = max(1.0, share * (until - time.monotonic()))
            given = ["--backend", backend]
            given += ["--miniature"] if options.miniature else []
            given += ["--nanogpt", str(options.nanogpt)] if options.nanogpt else []
            part = run_part(name, seconds, given, Path(folder, name))
            report["parts"][name] = part | {"backend": backend}
            if COMPILED in failed(part):
                backend = "eager"  # slower, but better than nothing
            write(options.out, report)
    for name, part in report["parts"].items():
        print(f"{name}: {part['outcome']}; failed: {', '.join(failed(part)) or 'nothing'}")
    print(f"written: {options.out}")


def run_one(options: argparse.Namespace) -> None:
    """Run in the process of a part."""
    until = time.monotonic() + options.seconds
    import gpu_part
    import torch

    if options.miniature:
        torch.set_num_threads(1)  # too little work for more threads
    part = gpu_part.Part(
        options.figures, until, options.miniature, options.backend, options.nanogpt
    )

    def work() -> None:
        module, function = PARTS[options.part]
        getattr(importlib.import_module(module), function)(part)

    if not part.attempt(options.part, work):
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all parts together")
    parser.add_argument("--nanogpt", type=Path, help="checkout of nanoGPT to measure beside")
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--miniature", action="store_true", help="rehearse on a CPU")
    for hidden in ("--part", "--seconds", "--figures", "--backend"):
        kind = {"--seconds": float, "--figures": Path}.get(hidden, str)
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    (run_one if options.part else run_all)(options)


if __name__ == "__main__":
    main()
