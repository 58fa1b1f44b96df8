"""Time that Snakemake and DVC need to find nothing to do, up to a grid of 10,000 cells.

    python benchmarks/grid.py      # some minutes

Uses a clone of the last commit, with stand-ins for a study's files: nothing is trained. Times are
medians of three, for wall time and for processor time, which other work disturbs less. Memory is
the largest resident set. Prints a Markdown table.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import shared
import yaml

ROOT = Path(__file__).parents[1]
TIMES = 3
GRID = {
    "study": "grid",
    "sweep": {
        "lr": [i / 1000 for i in range(1, 21)],
        "dropout": [i / 20 for i in range(10)],
        "n_layer": list(range(1, 11)),
    },
}
OVERLAY = "studies/grid.yaml"


def run(project: Path, *words: str) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(project / "src"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=project, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ).stdout  # fmt: skip


def stand_in(project: Path, *config: str) -> int:
    """Write a short file for every missing output and mark it as made; returns their number."""
    made = 0
    for line in run(project, "snakemake", "--summary", *config).splitlines():
        path = project / line.split("\t")[0]
        if "\t" in line and line.split("\t")[0] != "output_file" and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{path.relative_to(project)}\n" * 10)
            made += 1
    run(project, "snakemake", "--touch", "--forceall", "--cores", "1", *config)
    return made


def measure(project: Path, expected: str, *words: str) -> tuple[str, str, str]:
    """Seconds, processor seconds and megabytes of a command, whose output contains `expected`."""
    seconds, processor, megabytes = [], [], []
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    for _ in range(TIMES):
        with tempfile.TemporaryFile("w+") as said:
            start = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=project, env=environment, stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
            seconds.append(time.monotonic() - start)
            said.seek(0)
            output = said.read()
        assert status == 0, output
        assert expected in output, output
        processor.append(usage.ru_utime + usage.ru_stime)
        megabytes.append(usage.ru_maxrss / 1000)
    clock, own = statistics.median(seconds), statistics.median(processor)
    return f"{clock:.1f}", f"{own:.1f}", f"{max(megabytes):.0f}"


def main() -> None:
    print(shared.machine(1))
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        subprocess.run(["git", "clone", "--quiet", ROOT, project], check=True)
        rows = []
        stand_in(project)
        run(project, "dvc", "commit", "--force", "dvc.yaml")
        for command, expected in (
            (("snakemake", "--dry-run"), "Nothing to be done"),
            (("dvc", "status", "dvc.yaml"), "up to date"),
            (("dvc", "repro"), "up to date"),
        ):
            measured = measure(project, expected, *command)
            rows.append(["the default study", " ".join(command), *measured])
        (project / OVERLAY).write_text(yaml.safe_dump(GRID))
        shutil.copytree(project / "results/grammar", project / "results/grid")
        files = stand_in(project, "--configfile", OVERLAY)
        run(project, "squentropy.cli.app", "record", OVERLAY)
        for command, expected in (
            (("snakemake", "--dry-run", "--configfile", OVERLAY), "Nothing to be done"),
            (("dvc", "status", "studies/dvc.yaml"), "up to date"),
        ):
            measured = measure(project, expected, *command)
            rows.append([f"10,000 cells, {files:,} files", " ".join(command), *measured])
        shared.table(["study", "command", "seconds", "processor", "memory, MB"], rows)


if __name__ == "__main__":
    main()
