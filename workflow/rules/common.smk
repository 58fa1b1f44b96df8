"""The study's parameters, its folders, and what its rules share."""

import os
import sys
from glob import glob
from pathlib import Path
from shutil import which

from squentropy import installed
from squentropy.study.grid import point_name
from squentropy.study.layout import REFINED, ROW, RUNS, Places
from squentropy.study import digests, disk, lock, params, resources, yaml_file
from squentropy.errors import SquentropyError
from squentropy.report.figures import names as figure_names
from squentropy.study.catalogue import slug
from squentropy.storage import write_text


def give_up(error):
    """Ends here with one line; a plain exit would be shown as Snakemake's own traceback."""
    print(f"squentropy: {error}", file=sys.stderr, flush=True)
    os._exit(error.exit_code)


try:
    installed.check_own(Path(workflow.basedir))
    for path in workflow.configfiles:
        yaml_file.read(path)  # Snakemake reads it too, but not as strictly
    STUDY = params.parse(config)
    if STUDY.corpus.source == "hub" and not Path(f"data/{STUDY.study}/corpus").exists():
        installed.check("datasets")
except SquentropyError as error:
    give_up(error)


# Where inputs and outputs lie, as s3://BUCKET/FOLDER; none: in this folder.
STORAGE = workflow.storage_settings.default_storage_prefix


def here(path):
    """Where a job finds a folder or file of the study: of one in a storage, the local copy."""
    return str(storage(f"{STORAGE}/{path}")) if STORAGE else path


def kept(path):
    """An output that its job finds as it was left, and goes on from; not one in a storage, from
    which Snakemake fetches inputs alone."""
    return path if STORAGE else update(path)


PLACES = Places(Path("results", STUDY.study))
RESULTS = PLACES.results.as_posix()
DATA, CHECKPOINTS, REPORT, LOGS = (
    PLACES.of(kind).as_posix() for kind in ("data", "checkpoints", "report", "logs")
)
PARAMS = here(f"{RESULTS}/params.yaml")
FAILED = Path(LOGS, "failed")

# The commands of this environment, whether it was activated or not; and, for a command that fails,
# the end of its log, whose name is kept for the end of the study. A bug's traceback is in the log.
# The trap has the shell wait for a command that is asked to end and saves its state: a scheduler
# kills what a dead shell leaves.
shell.prefix(
    f'export PATH="{Path(sys.executable).parent}:$PATH" SQUENTROPY_TRACEBACKS=1; trap : TERM; '
    f'failed() {{{{ code=$?; mkdir -p {LOGS}; echo "$1" >> {FAILED}; tail -n 5 "$1" >&2; exit $code; }}}}; '
)

TOKENS = [f"{DATA}/tokens/manifest.json", f"{DATA}/tokens/encoding.tiktoken"] + [
    f"{DATA}/tokens/{split}.{end}"
    for split in ("train", "validation", "test")
    for end in ("bin", "offsets.npy")
]


TABLES = expand(f"{RESULTS}/{{name}}", name=[*params.TABLES, "manifest.json"])
SELECTION_TABLES = expand(f"{RESULTS}/{{name}}", name=params.SELECTION_TABLES)
VOICES = f"{RESULTS}/{params.VOICES}"


def write_parameters():
    """The resolved parameters, which every command reads.

    Not a rule's output: each rule names the parameters that it depends on instead, so that a
    change reruns what it concerns and nothing else.
    """
    path = Path(PARAMS)
    if not path.is_file() or path.read_text(encoding="utf-8") != STUDY.dump():
        write_text(path, STUDY.dump())


if workflow.remote_exec and not Path(PARAMS).exists():
    write_parameters()  # a pod has no files but its own, and does not start the study


def start():
    """Hold the study's lock, and write the parameters down."""
    try:
        lock.hold(PLACES.lock)
        FAILED.unlink(missing_ok=True)
        write_parameters()
    except SquentropyError as error:
        give_up(error)


def what_failed():
    """The log of each job that failed, with its last lines."""
    logs = dict.fromkeys(FAILED.read_text(encoding="utf-8").split()) if FAILED.exists() else []
    return "\n".join(
        f"\n{log} ends:\n" + "\n".join(Path(log).read_text(errors="replace").splitlines()[-5:])
        for log in logs
    )


def run_folder(cell):
    return f"{CHECKPOINTS}/{cell.name}"


def on_gpu():
    """Whether runs train on one: where the study may use it, and there is any.

    Those of a cluster are not seen from where its jobs are submitted; there the number that
    `resources: [gpu=N]` allows at once tells. Within a job, what it was given is not asked for again.
    """
    if STUDY.train.device not in ("auto", "cuda") or workflow.remote_exec:
        return False
    if workflow.local_exec:
        return which("nvidia-smi") is not None
    return workflow.global_resources.get("gpu").value != 0


def gpus_a_run(processes=1):
    """One a process where there is any; the same rules serve without."""
    return lambda wildcards: processes * on_gpu()


def memory(mb):
    """For `mem_mb`: twice as much each time that a job is tried again."""
    return lambda wildcards, attempt: mb * 2 ** (attempt - 1)


def minutes(flops=0):
    """For `runtime`: so many operations' minutes, twice as many each time."""
    return lambda wildcards, attempt: resources.minutes(STUDY, flops, on_gpu()) * 2 ** (attempt - 1)


def story_files():
    """Your own story files: a change of one makes the corpus anew.

    Not the grammar's, whose content is among the rule's parameters: in a fresh clone they are as
    new as the results, which they would then seem to have changed after.
    """
    if STUDY.corpus.source != "files":
        return []
    files = STUDY.corpus.files
    patterns = [*files.train, *files.validation, *files.test]
    return sorted({path for pattern in patterns for path in glob(pattern, recursive=True)})


# The folders of each phase's runs that are scored, the loss left open.
SCORED = {
    "final": [RUNS["final"].format(loss="{loss}", seed=seed) for seed in STUDY.final.seeds],
    "lengths": [
        RUNS["lengths"].format(loss="{loss}", iterations=length, seed=seed)
        for length in STUDY.final.lengths
        for seed in STUDY.final.seeds[: STUDY.final.length_seeds]
    ],
    "reported": [
        RUNS["reported"].format(loss="{loss}", seed=cell.seed) for cell in STUDY.reported_cells()
    ],
}


def files(phase, *names):
    """These files of a loss's runs of a phase."""
    return [f"{CHECKPOINTS}/{folder}/{name}" for folder in SCORED[phase] for name in names]


SELECTED = f"{CHECKPOINTS}/{REFINED}"
ALL_SELECTED = [SELECTED.format(loss=slug(loss)) for loss in STUDY.sweep.losses]


def scored(phase, *names):
    """The same of all runs that one job scores, since processes start slowly: the final runs of a
    loss together with its shorter ones."""
    phases = ("final", "lengths") if phase == "final" else (phase,)
    return [path for each in phases for path in files(each, *names)]


def folders(paths):
    """The runs' folders of such paths, for a rule's `params`."""
    return lambda wildcards: [
        here(str(Path(path.format(loss=wildcards.loss)).parent)) for path in paths
    ]
