"""How a finished study's core-seconds divide into training and everything else.

    python benchmarks/phases.py        # in the folder where `make study` ran; --folder, --cores

Reads Snakemake's records of when each job began and ended (.snakemake/metadata), and the time that
each run records (provenance.json). A job of the study has one thread, so its core-seconds are its
seconds; on a busy machine they exceed the processor time used. `in runs` is training, including
evaluation on validation stories and the first check of the tokens; the rest of a job is its start,
imports and end. The total is the time from Snakemake's start to the end of the last job, times the
cores. What jobs did not use of it is Snakemake's own time and idle time. Prints a Markdown table.
"""

import argparse
import json
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import shared


def jobs(folder: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """When the job of each (rule, log) began and ended, in seconds since the epoch."""
    times: dict[tuple[str, str], tuple[float, float]] = {}
    for path in (folder / ".snakemake/metadata").rglob("*"):
        if path.is_file():
            record = json.loads(path.read_text())
            start, end = record["starttime"], record["endtime"]
            key = record["rule"], " ".join(record["log"]) or record["shellcmd"]
            if start and end:
                before = times.get(key, (start, end))
                times[key] = min(start, before[0]), max(end, before[1])
    return times


def in_runs(folder: Path) -> dict[str, float]:
    """Seconds of the runs of each phase; runs trained together share their time."""
    seconds: dict[str, float] = defaultdict(float)
    for path in folder.glob("checkpoints/*/**/provenance.json"):
        said = json.loads(path.read_text())
        phase = path.relative_to(folder / "checkpoints").parts[1]
        seconds[phase] += said["seconds"] / said.get("stacked", 1)
    return seconds


def started(folder: Path, first: float) -> float:
    """When the Snakemake that began the first job was started, by the name of its log."""
    form = "%Y-%m-%dT%H%M%S.%f.snakemake.log"
    logs = (folder / ".snakemake/log").glob("*.snakemake.log")
    times = (datetime.strptime(log.name, form).timestamp() for log in logs)
    return max((time for time in times if time <= first), default=first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(), help="where `make study` ran")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    times, runs = jobs(options.folder), in_runs(options.folder)
    if not times:
        raise SystemExit(f"{options.folder}: holds no .snakemake/metadata of a finished study")
    by_rule: dict[str, list[float]] = defaultdict(list)
    for (rule, _), (start, end) in sorted(times.items(), key=lambda item: item[1]):
        by_rule[rule].append(end - start)
    all_jobs = sum(map(sum, by_rule.values()))
    first, last = min(s for s, _ in times.values()), max(e for _, e in times.values())
    elapsed = last - started(options.folder, first)
    possible, trained = elapsed * options.cores, sum(runs.values())

    rows = []
    for rule, seconds in by_rule.items():
        spent = sum(seconds)
        inside = f"{runs[rule]:.0f}" if rule in runs else ""
        rows.append([rule, str(len(seconds)), f"{spent:.0f}", inside, f"{spent / all_jobs:.1%}"])
    rows.append(["all jobs", str(len(times)), f"{all_jobs:.0f}", f"{trained:.0f}", "100%"])
    shared.table(["phase", "jobs", "core-seconds", "in runs", "share"], rows)
    print(
        f"{elapsed:.0f} s on {options.cores} cores are {possible:.0f} core-seconds, of which jobs "
        f"took {all_jobs / possible:.1%}\n"
        f"outside training: {1 - trained / all_jobs:.1%} of the jobs' core-seconds, "
        f"{1 - trained / possible:.1%} of all"
    )


if __name__ == "__main__":
    main()
