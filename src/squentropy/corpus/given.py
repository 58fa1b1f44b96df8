"""Input files of a corpus that its study does not make: the user's own stories or a teacher.

Changes are detected by content; see story_files.py. This module does not import torch, because the
workflow's rules use it.
"""

from functools import partial
from pathlib import Path

from squentropy.base.errors import SquentropyError
from squentropy.corpus import story_files
from squentropy.corpus.story_files import Hashes, StoryFile
from squentropy.study.corpus import Corpus, Teacher
from squentropy.study.layout import tokens_beside

SOURCES = ("files", "model")
"""The sources with such files."""
TEACHER = "teacher"
"""The manifest key for a teacher's files; story files are under their split."""
OF_A_FOLDER = (".json", ".safetensors", ".bin", ".model", ".txt")
"""Suffixes of the files from which a Hugging Face model and its tokenizer are loaded."""


def hashed(corpus: Corpus, known: Hashes | None = None) -> dict[str, list[StoryFile]]:
    """The hashed files of each split, or of the teacher; empty for a source without input files.

    Raises SquentropyError if a file is missing or cannot be read.
    """
    if corpus.source == "files":
        return story_files.hashed(corpus.files, known)
    if corpus.source == "model":
        files = teacher_files(corpus.model)
        return {TEACHER: [story_files.hashed_file(path, known or {}) for path in files]}
    return {}


def digest(corpus: Corpus, known: Path) -> str | None:
    """As story_files.digest; None for a source without input files."""
    if corpus.source not in SOURCES:
        return None
    return story_files.digest_of(partial(hashed, corpus), known)


def places(corpus: Corpus) -> list[str]:
    """The folders and files to watch for changes."""
    if corpus.source == "files":
        return story_files.places(corpus.files)
    return [str(path) for path in teacher_files(corpus.model)] if corpus.source == "model" else []


def is_run(teacher: Teacher) -> bool:
    """Whether a teacher is a run of this project, not a Hugging Face folder.

    Raises SquentropyError if it is neither.
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
    """The files that determine a teacher's stories. Raises SquentropyError."""
    folder = Path(teacher.run)
    if is_run(teacher):
        names = ("manifest.json", "encoding.tiktoken")
        tokens = [tokens_of(teacher) / name for name in names]
        return [folder / "run.json", folder / "model.safetensors", *tokens]
    return sorted(path for path in folder.iterdir() if path.suffix in OF_A_FOLDER)


def tokens_of(teacher: Teacher) -> Path:
    """The token folder of a run used as teacher. Raises SquentropyError if it is unknown."""
    if teacher.tokens is not None:
        return Path(teacher.tokens)
    return tokens_beside(Path(teacher.run), "corpus.model.tokens: data/tinystories-sample/tokens")
