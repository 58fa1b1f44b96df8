"""The study's parameters, its folders, and code shared by its rules."""

import os
import sys
from base64 import urlsafe_b64encode
from pathlib import Path
from shlex import quote
from shutil import which

from snakemake.logging import logger

# A DVC stage runs the code of its own folder instead of the installed package: DVC runs queued
# experiments in temporary copies.
IN_DVC = os.environ.get("DVC_STAGE")
if IN_DVC:
    sys.path.insert(0, f"{workflow.basedir}/src")
    others = filter(None, [os.environ.get("PYTHONPATH")])
    os.environ.update(PYTHONPATH=os.pathsep.join([sys.path[0], *others]))

from squentropy.base import home, installed
from squentropy.corpus import given
from squentropy.study.grid import point_name
from squentropy.study.layout import REFINED, ROW, RUNS, Places
from squentropy.study import digests, disk, lock, params, resources, yaml_file
from squentropy.base.errors import SquentropyError
from squentropy.base.output import lenient, say, visible
from squentropy.report.figures import names as figure_names
from squentropy.study.catalogue import slug
from squentropy.base.storage import write_text
from squentropy.tools import waiting

SHOWN_BY = workflow.logger_manager.get_log_handlers()  # the handlers of --logger


def give_up(error):
    """Exit with a one-line error; Snakemake would show a plain exit as a traceback."""
    for handler in SHOWN_BY:
        handler.close()
    say(error)
    os._exit(error.exit_code)


lenient(sys.stdout)
home.ensure(Path(workflow.basedir))


try:
    installed.check_own(Path(workflow.basedir))
    for path in workflow.configfiles:
        yaml_file.read(path)  # stricter than Snakemake's own reading
    STUDY = params.parse(config)
    if STUDY.corpus.source == "hub" and not Path(f"data/{STUDY.study}/corpus").exists():
        installed.check("datasets")
except SquentropyError as error:
    give_up(error)


# The location of inputs and outputs, as s3://BUCKET/FOLDER; None: this folder.
STORAGE = workflow.storage_settings.default_storage_prefix


def here(path):
    """The path by which a job finds a study's folder or file: with a storage, the local copy."""
    return str(storage(f"{STORAGE}/{path}")) if STORAGE else path


def kept(path):
    """Mark an output as kept, so that its job can resume from it. Not possible with a storage, from
    which Snakemake fetches only inputs."""
    return path if STORAGE else update(path)


PLACES = Places(Path("results", STUDY.study))
RESULTS = PLACES.results.as_posix()
DATA, CHECKPOINTS, REPORT, LOGS = (
    PLACES.of(kind).as_posix() for kind in ("data", "checkpoints", "report", "logs")
)
PARAMS = here(f"{RESULTS}/params.yaml")
FAILED = Path(LOGS, "failed")


def quoted(path):
    """A path, quoted as one word of a shell command."""
    return quote(str(path)).replace("{", "{{").replace("}", "}}")


# Use the commands of this environment, even if it is not activated. Set here, not in the shell,
# where special characters in a folder's name have a meaning. Tracebacks of bugs go to the log.
os.environ.update(
    PATH=f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
    FAILED=str(FAILED),
    ENDS_SHOWN="1" if "squentropy" in workflow.output_settings.log_handler_settings else "",
    SQUENTROPY_TRACEBACKS="1",
    PYTHONIOENCODING="utf-8",
)

# Defines `failed`, for commands that fail. On SIGTERM, the trap makes the shell wait for the
# command, which saves its state; if the shell ended first, the scheduler would kill the command.
shell.prefix(f"trap : TERM; . {quoted(Path(workflow.basedir, 'workflow', 'failed.sh'))}; ")

TOKENS = [f"{DATA}/tokens/manifest.json", f"{DATA}/tokens/encoding.tiktoken"] + [
    f"{DATA}/tokens/{split}.{end}"
    for split in ("train", "validation", "test")
    for end in ("bin", "offsets.npy")
]


TABLES = expand(f"{RESULTS}/{{name}}", name=[*params.TABLES, "manifest.json"])
SELECTION_TABLES = expand(f"{RESULTS}/{{name}}", name=params.SELECTION_TABLES)
VOICES = f"{RESULTS}/{params.VOICES}"


STAGES = {  # of dvc.yaml: the last output of each, and its rules
    "data": (TOKENS[0], "corpus tokens"),
    "sweep": (f"{RESULTS}/selected.json", "grid sweep refine select"),
    "final": (
        f"{RESULTS}/metrics.csv",
        "final lengths reported evaluate_final sample_final evaluate_reported sample_reported"
        " voices metrics",
    ),
    "report": (f"{REPORT}/index.html", "draw page all"),
}


def believe_dvc(stage):
    """Run all jobs of a DVC stage if Snakemake cannot determine which of them are out of date.

    DVC has found by content that the stage is out of date and that its dependencies exist. Files
    restored by DVC or git lack Snakemake's metadata, and their times are those of the copy. Jobs
    whose runs exist already are short.
    """
    last, rules = STAGES.get(stage, STAGES["report"])
    notes = Path(".snakemake/metadata", urlsafe_b64encode(last.encode()).decode())
    if not notes.exists() and "--forceall" not in sys.argv:
        only = ["--allowed-rules", *rules.split()] if stage in STAGES else []
        snakemake = [sys.executable, "-m", "snakemake", *sys.argv[1:]]
        os.execv(sys.executable, [*snakemake, "--forceall", *only])


if IN_DVC and not workflow.remote_exec:
    believe_dvc(IN_DVC)


def write_parameters():
    """Write the resolved parameters, which every command reads.

    They are not the output of a rule. Instead, each rule lists the parameters that it depends on,
    so that a change reruns only the rules that it affects.
    """
    path = Path(PARAMS)
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != STUDY.dump():
        write_text(path, STUDY.dump())


if workflow.remote_exec and not Path(PARAMS).exists():
    write_parameters()  # a pod has only its own files, and does not run onstart


def start():
    """Take the study's lock and write the parameters."""
    try:
        if workflow.local_exec:
            resources.check(STUDY, on_gpu())
        lock.hold(PLACES.lock)
        FAILED.unlink(missing_ok=True)
        write_parameters()
    except SquentropyError as error:
        give_up(error)


def tell(text):
    """Print text on stdout, in order with the messages of a --logger plugin."""
    if SHOWN_BY:
        logger.info(text, extra={"said": True})
    elif text:
        print(text)


def what_failed():
    """The name and last lines of the log of each failed job."""
    logs = dict.fromkeys(FAILED.read_text(encoding="utf-8").split()) if FAILED.is_file() else []
    return visible("".join(f"\n{waiting.ends(log)}\n" for log in logs))


def what_came():
    """The study's table and the paths of its pages. Empty if the tables are missing or older than
    the parameters, as after running a single target."""
    if STORAGE:
        return f"\nThe study {STUDY.study} is in {STORAGE}"

    from squentropy.report.summary import metrics_table

    try:
        table = metrics_table(Path(RESULTS))
    except SquentropyError:
        return ""
    return f"{table}\n\nThe report: {REPORT}/index.html\nThe stories: {RESULTS}/samples.md"


# --logger squentropy counts the remaining work, and shows the ending even if there is none.
logger.info("", extra={"study": STUDY, "ending": what_came})


def run_folder(cell):
    return f"{CHECKPOINTS}/{cell.name}"


def on_gpu():
    """Whether runs train on GPUs: the study allows it and there are any.

    On a cluster, the submitting host does not see the GPUs, so `resources: [gpu=N]` decides. Inside
    a job the answer is False, because its resources have been allocated already.
    """
    if STUDY.train.device not in ("auto", "cuda") or workflow.remote_exec:
        return False
    if workflow.local_exec:
        return which("nvidia-smi") is not None
    return workflow.global_resources.get("gpu").value != 0


def gpus_a_run(processes=1):
    """One GPU per process if there are any; otherwise 0, so the same rules work without GPUs."""
    return lambda wildcards: processes * on_gpu()


def one_gpu():
    """Whether this machine's runs share a single GPU."""
    return workflow.local_exec and on_gpu() and workflow.global_resources.get("gpu").value == 1


def memory(mb):
    """A value for `mem_mb` that doubles with each retry of a job."""
    return lambda wildcards, attempt: mb * 2 ** (attempt - 1)


def minutes(flops=0):
    """A value for `runtime`: the time for this many operations, doubled with each retry."""
    return lambda wildcards, attempt: resources.minutes(STUDY, flops, on_gpu()) * 2 ** (attempt - 1)


def given_files():
    """A digest of your own story files or of a teacher's run; the corpus is rebuilt if their names
    or contents change.

    The files themselves are not inputs, because Snakemake compares times, which may be older than
    those of the files that they replace, and reads braces in file names as wildcards.
    """
    return given.digest(
        STUDY.corpus, Path(".snakemake", "squentropy", f"{STUDY.study}.stories.json")
    )


# The folders of the runs of each phase that are scored, with {loss} as a wildcard.
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
    """Files of these names in the folders of a loss's runs of a phase."""
    return [f"{CHECKPOINTS}/{folder}/{name}" for folder in SCORED[phase] for name in names]


SELECTED = f"{CHECKPOINTS}/{REFINED}"
ALL_SELECTED = [SELECTED.format(loss=slug(loss)) for loss in STUDY.sweep.losses]


def scored(phase, *names):
    """As `files`, for all runs that one job scores: a loss's final runs together with its shorter
    ones, because processes start slowly."""
    phases = ("final", "lengths") if phase == "final" else (phase,)
    return [path for each in phases for path in files(each, *names)]


def folders(paths):
    """The run folders of such paths, for a rule's `params`."""
    return lambda wildcards: [
        here(str(Path(path.format(loss=wildcards.loss)).parent)) for path in paths
    ]
