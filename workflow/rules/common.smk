"""The study's parameters, its folders, and what its rules share."""

import os
import sys
from base64 import urlsafe_b64encode
from pathlib import Path
from shlex import quote
from shutil import which

from snakemake.logging import logger

# A stage of DVC's runs the code of its folder, which for a queued experiment is one of DVC's own, and
# not the one that is installed.
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

SHOWN_BY = workflow.logger_manager.get_log_handlers()  # of --logger


def give_up(error):
    """Ends here with one line; a plain exit would be shown as Snakemake's own traceback."""
    for handler in SHOWN_BY:
        handler.close()
    say(error)
    os._exit(error.exit_code)


lenient(sys.stdout)
home.ensure(Path(workflow.basedir))


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


def quoted(path):
    """A path as a word of a shell command, whatever is in it."""
    return quote(str(path)).replace("{", "{{").replace("}", "}}")


# The commands of this environment, whether it was activated or not; not by the shell, to which a
# folder's name may say something. A bug's traceback is in the log.
os.environ.update(
    PATH=f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
    FAILED=str(FAILED),
    ENDS_SHOWN="1" if "squentropy" in workflow.output_settings.log_handler_settings else "",
    SQUENTROPY_TRACEBACKS="1",
    PYTHONIOENCODING="utf-8",
)

# For a command that fails, `failed`. The trap has the shell wait for a command that is asked to end
# and saves its state: a scheduler kills what a dead shell leaves.
shell.prefix(f"trap : TERM; . {quoted(Path(workflow.basedir, 'workflow', 'failed.sh'))}; ")

TOKENS = [f"{DATA}/tokens/manifest.json", f"{DATA}/tokens/encoding.tiktoken"] + [
    f"{DATA}/tokens/{split}.{end}"
    for split in ("train", "validation", "test")
    for end in ("bin", "offsets.npy")
]


TABLES = expand(f"{RESULTS}/{{name}}", name=[*params.TABLES, "manifest.json"])
SELECTION_TABLES = expand(f"{RESULTS}/{{name}}", name=params.SELECTION_TABLES)
VOICES = f"{RESULTS}/{params.VOICES}"


STAGES = {  # of dvc.yaml: what each makes last, and its rules
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
    """Run all jobs of a stage of DVC's, where Snakemake cannot tell which of them are out of date.

    DVC has found by content that the stage is, and that what it depends on is there. Files that DVC
    or git has brought lack the notes by which Snakemake judges what it has made itself, and their
    times are those of the copying. A job is short whose runs are there already.
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
    """The resolved parameters, which every command reads.

    Not a rule's output: each rule names the parameters that it depends on instead, so that a
    change reruns what it concerns and nothing else.
    """
    path = Path(PARAMS)
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != STUDY.dump():
        write_text(path, STUDY.dump())


if workflow.remote_exec and not Path(PARAMS).exists():
    write_parameters()  # a pod has no files but its own, and does not start the study


def start():
    """Hold the study's lock, and write the parameters down."""
    try:
        if workflow.local_exec:
            resources.check(STUDY, on_gpu())
        lock.hold(PLACES.lock)
        FAILED.unlink(missing_ok=True)
        write_parameters()
    except SquentropyError as error:
        give_up(error)


def tell(text):
    """On stdout, in its turn among what a logger of --logger shows."""
    if SHOWN_BY:
        logger.info(text, extra={"said": True})
    elif text:
        print(text)


def what_failed():
    """The log of each job that failed, with its last lines."""
    logs = dict.fromkeys(FAILED.read_text(encoding="utf-8").split()) if FAILED.is_file() else []
    return visible("".join(f"\n{waiting.ends(log)}\n" for log in logs))


def what_came():
    """The study's table, and where its pages lie; nothing after a target alone, when the tables
    are missing or older than the parameters."""
    if STORAGE:
        return f"\nThe study {STUDY.study} lies in {STORAGE}"

    from squentropy.report.summary import metrics_table

    try:
        table = metrics_table(Path(RESULTS))
    except SquentropyError:
        return ""
    return f"{table}\n\nThe report: {REPORT}/index.html\nThe stories: {RESULTS}/samples.md"


# --logger squentropy counts what is to be done of it, and shows its end even where nothing is.
logger.info("", extra={"study": STUDY, "ending": what_came})


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


def one_gpu():
    """Whether this machine's runs share a single GPU."""
    return workflow.local_exec and on_gpu() and workflow.global_resources.get("gpu").value == 1


def memory(mb):
    """For `mem_mb`: twice as much each time that a job is tried again."""
    return lambda wildcards, attempt: mb * 2 ** (attempt - 1)


def minutes(flops=0):
    """For `runtime`: so many operations' minutes, twice as many each time."""
    return lambda wildcards, attempt: resources.minutes(STUDY, flops, on_gpu()) * 2 ** (attempt - 1)


def given_files():
    """A digest of your own story files, or of a teacher's run: a change of their names or bytes
    makes the corpus anew.

    Not the files as inputs: Snakemake judges these by time, which may be older than that of what
    they take the place of, and takes braces in their names for wildcards.
    """
    return given.digest(
        STUDY.corpus, Path(".snakemake", "squentropy", f"{STUDY.study}.stories.json")
    )


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
