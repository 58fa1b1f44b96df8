"""The study's parameters, its folders, and what its rules share."""

import os
import sys
from pathlib import Path

from squentropy import code, params
from squentropy.errors import SquentropyError
from squentropy.figures import names as figure_names
from squentropy.storage import write_text

# The commands of this environment, whether it was activated or not.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

try:
    STUDY = params.parse(config)
except SquentropyError as error:
    print(f"squentropy: {error}", file=sys.stderr)
    os._exit(error.exit_code)  # a plain exit would be shown as Snakemake's own traceback

DATA = f"data/{STUDY.study}"
CHECKPOINTS = f"checkpoints/{STUDY.study}"
RESULTS = f"results/{STUDY.study}"
REPORT = f"report/{STUDY.study}"
LOGS = f"logs/{STUDY.study}"
PARAMS = f"{RESULTS}/params.yaml"

TOKENS = [f"{DATA}/tokens/manifest.json", f"{DATA}/tokens/encoding.tiktoken"] + [
    f"{DATA}/tokens/{split}.{end}"
    for split in ("train", "validation", "test")
    for end in ("bin", "offsets.npy")
]


def write_parameters():
    """The resolved parameters, which every command reads.

    Not a rule's output: each rule names the parameters that it depends on instead, so that a
    change reruns what it concerns and nothing else.
    """
    path = Path(PARAMS)
    if not path.is_file() or path.read_text(encoding="utf-8") != STUDY.dump():
        write_text(path, STUDY.dump())


def run_folder(cell):
    return f"{CHECKPOINTS}/{cell.name}"


def gpus_a_run():
    """One where there is any and the study may use it; the same rules serve without."""
    return int(STUDY.train.device in ("auto", "cuda") and Path("/dev/nvidia0").exists())
