"""The files that a corpus is made of and that its study does not make: your own stories, a teacher.

They are told apart by their bytes, as story_files.py says. Read without torch, since rules ask.
"""

from functools import partial
from pathlib import Path

from squentropy.base.errors import SquentropyError
from squentropy.corpus import story_files
from squentropy.corpus.story_files import Hashes, StoryFile
from squentropy.study.corpus import Corpus, Teacher
from squentropy.study.layout import tokens_beside

SOURCES = ("files", "model")
"""Those that are made of such files."""
TEACHER = "teacher"
"""What a manifest has a teacher's files under, where it has story files under their split."""
OF_A_FOLDER = (".json", ".safetensors", ".bin", ".model", ".txt")
"""How the files of a Hugging Face folder end that a model or its tokenizer is read from."""


def hashed(corpus: Corpus, known: Hashes | None = None) -> dict[str, list[StoryFile]]:
    """Those of each split, or of the teacher; empty for a source that has none.

    Raises SquentropyError for what is missing or cannot be read.
    """
    if corpus.source == "files":
        return story_files.hashed(corpus.files, known)
    if corpus.source == "model":
        files = teacher_files(corpus.model)
        return {TEACHER: [story_files.hashed_file(path, known or {}) for path in files]}
    return {}


def digest(corpus: Corpus, known: Path) -> str | None:
    """As story_files.digest; None for a source that has no such files."""
    if corpus.source not in SOURCES:
        return None
    return story_files.digest_of(partial(hashed, corpus), known)


def places(corpus: Corpus) -> list[str]:
    """Where they lie, for what follows a folder or a file."""
    if corpus.source == "files":
        return story_files.places(corpus.files)
    return [str(path) for path in teacher_files(corpus.model)] if corpus.source == "model" else []


def is_run(teacher: Teacher) -> bool:
    """Whether a teacher is a run of this project, not a Hugging Face folder.

    Raises SquentropyError where it is neither.
    """
    folder = Path(teacher.run)
    if (folder / "run.json").exists():
        return True
    if not (folder / "config.json").exists():
        raise SquentropyError(
            f"corpus.model.run: {folder} holds neither a run.json nor a config.json; train the "
            "teacher first, or name the folder of a finished run or of a Hugging Face model"
        )
    if teacher.tokens is not None:
        raise SquentropyError(
            f"corpus.model.tokens: {folder} is a Hugging Face model, which has a tokenizer of its "
            "own; write null"
        )
    return False


def teacher_files(teacher: Teacher) -> list[Path]:
    """What the stories of a teacher are a function of. Raises SquentropyError."""
    folder = Path(teacher.run)
    if is_run(teacher):
        names = ("manifest.json", "encoding.tiktoken")
        tokens = [tokens_of(teacher) / name for name in names]
        return [folder / "run.json", folder / "model.safetensors", *tokens]
    return sorted(path for path in folder.iterdir() if path.suffix in OF_A_FOLDER)


def tokens_of(teacher: Teacher) -> Path:
    """The token folder of a run that is a teacher. Raises SquentropyError where it is unknown."""
    if teacher.tokens is not None:
        return Path(teacher.tokens)
    return tokens_beside(Path(teacher.run), "corpus.model.tokens: data/tinystories-sample/tokens")
