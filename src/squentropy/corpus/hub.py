"""Stories from a data set on the Hugging Face hub.

    squentropy corpus FOLDER --params params.yaml --params studies/tinystories.yaml

with `corpus.source: hub`. `datasets` downloads into its cache (below HF_HOME) and converts the data
there once; after that, no network is needed. If a connection breaks, the download resumes after the
last 10 MB block received; if the process is stopped, complete files are kept.

This module adds two checks to `datasets`. If the hub cannot be reached, `datasets` warns and falls
back to any revision in its cache; here, a different revision is an error. And `datasets` compares
only the size of a download; here, its sha256 must be the one that the hub announces.
"""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.corpus.source import Source, Story
from squentropy.study.corpus import Corpus, Hub
from squentropy.study.params import SPLITS

ROWS = 1000  # read at once
TIMEOUT = 10  # seconds until the hub counts as unreachable
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
FILE = re.compile(r"hf://datasets/(?P<dataset>.+?)@(?P<commit>[^/]+)/(?P<path>.+)")


def source(corpus: Corpus) -> Source:
    """The stories of the data set that the parameters name. Raises SquentropyError."""
    hub = corpus.hub
    with _one_line(hub):
        builder = _prepared(hub)
    wanted = {split: getattr(hub, split) for split in SPLITS if getattr(hub, split) is not None}
    loaded = {split: _split(builder, hub, split, name) for split, name in wanted.items()}
    return Source(
        splits={split: partial(_stories, dataset, hub) for split, dataset in loaded.items()},
        licence=hub.licence,
        provenance={
            "dataset": hub.dataset,
            "revision": builder.hash,
            "config": builder.config.name,
            "splits": wanted,
        },
        cut={} if "validation" in wanted else {"validation": hub.validation_stories},
        seed=hub.seed,
    )


def _prepared(hub: Hub):
    """A builder of `datasets` whose data is in the cache, verified and converted."""
    import datasets
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # lazy

    datasets.logging.set_verbosity_error()  # its fallback to a cached revision is checked below
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        disable_progress_bars()
    commit = _commit(hub)
    builder = datasets.load_dataset_builder(hub.dataset, hub.config, revision=commit)
    if builder.hash != commit:
        raise SquentropyError(
            f"{hub.dataset}: the hub cannot be reached, and the latest in the cache is revision "
            f"{builder.hash}, not {commit}; connect once, or name the cached revision in "
            "corpus.hub.revision"
        )
    for urls in (builder.config.data_files or {}).values():  # none if everything is in the cache
        for url in urls:
            _verify(FILE.fullmatch(url))
    builder.download_and_prepare()
    return builder


def _commit(hub: Hub) -> str:
    """The commit of the revision in the parameters.

    Switches `datasets` to offline mode if the hub cannot be reached.
    """
    import datasets
    from huggingface_hub import HfApi, errors

    is_commit = COMMIT.fullmatch(hub.revision) is not None  # otherwise a branch or a tag
    try:
        return HfApi().dataset_info(hub.dataset, revision=hub.revision, timeout=TIMEOUT).sha  # type: ignore[return-value]  # of every revision that was found
    except errors.HfHubHTTPError as error:
        if not (is_commit and error.response.status_code >= 500):
            raise
        return hub.revision  # a server error; `datasets` retries for longer
    except Exception as error:
        if not _is_unreachable(error):
            raise
        if not is_commit:
            raise SquentropyError(
                f"{hub.dataset}: the hub cannot be reached, so what its revision {hub.revision!r} "
                "is cannot be known; connect, or name a cached commit in corpus.hub.revision"
            ) from error
        datasets.config.HF_HUB_OFFLINE = True  # or it would retry for 25 s before using its cache
        return hub.revision


def _verify(file: re.Match | None) -> None:
    """Download a file from the hub, unless it is cached, and check its sha256.

    The cache names large files by the sha256 that the hub announced. Small files, which are stored
    in git, are named by their git hash and are not checked.
    """
    from huggingface_hub import hf_hub_download

    if file is None:  # not on the hub: a data set may refer to files elsewhere
        return
    repo = {"repo_type": "dataset", "revision": file["commit"]}
    pointer = Path(hf_hub_download(file["dataset"], file["path"], **repo))
    content = pointer.resolve()
    if SHA256.fullmatch(content.name) and storage.sha256(content) != content.name:
        content.unlink()
        pointer.unlink(missing_ok=True)
        raise SquentropyError(
            f"{file['dataset']}: {file['path']} is not what the hub announced (sha256 differs): "
            "damaged on its way or in the cache; it was deleted there, so run the same command "
            "again to fetch it anew"
        )


def _split(builder, hub: Hub, split: str, name: str):
    """One split as a `datasets` Dataset, with only the column of stories."""
    try:
        dataset = builder.as_dataset(split=name)
    except (ValueError, AssertionError, KeyError) as error:
        names = ", ".join(builder.info.splits or {})
        raise SquentropyError(
            f"corpus.hub.{split}: {hub.dataset} has no split {name!r} ({_first_line(error)}); it "
            f"has: {names}"
        ) from None
    if hub.text not in dataset.column_names:
        names = ", ".join(dataset.column_names)
        raise SquentropyError(
            f"corpus.hub.text: {hub.dataset} has no column {hub.text!r} in {name}; it has: {names}"
        )
    kind = dataset.features[hub.text]
    if getattr(kind, "dtype", None) not in ("string", "large_string"):
        raise SquentropyError(f"corpus.hub.text: column {hub.text!r} holds {kind}, not text")
    return dataset.select_columns([hub.text])


def _stories(dataset, hub: Hub) -> Iterator[Story]:
    number = 0
    for batch in dataset.iter(ROWS):
        for text in batch[hub.text]:
            number += 1
            where = f"{hub.dataset}, {dataset.split}, row {number}"
            if text is None:
                raise SquentropyError(
                    f"{where}: {hub.text!r} is null, not a story; see the data set"
                )
            yield Story(text, where)


@contextmanager
def _one_line(hub: Hub) -> Iterator[None]:
    """Turn errors of the hub's libraries into one line that states the fix."""
    try:
        yield
    except SquentropyError:
        raise
    except Exception as error:
        raise SquentropyError(f"{hub.dataset}: {_explain(error, hub)}") from error


def _explain(error: Exception, hub: Hub) -> str:
    """What happened and what to do: the first case that matches an error or one of its causes."""
    from datasets import exceptions
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/datasets/{hub.dataset}"

    def is_a(kind):
        return lambda cause: isinstance(cause, kind)

    def is_disk_full(cause):
        return getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)

    def has_status(cause):
        return isinstance(cause, errors.HfHubHTTPError) and cause.response is not None

    def is_refusal(cause):
        return has_status(cause) and cause.response.status_code in (401, 403)

    def is_short(cause):
        return "Consistency check failed" in str(cause)

    cases = [
        (is_disk_full, lambda _: "the disk of the cache is full; free some space, or set HF_HOME "
            "to a folder on another disk"),
        (is_a(errors.RevisionNotFoundError), lambda _: f"has no revision {hub.revision!r}; "
            f"correct corpus.hub.revision, see {page}/commits/main"),
        (is_a(errors.GatedRepoError), lambda _: f"is gated; ask for access at {page}, then log in "
            "with `hf auth login`"),
        (is_a(errors.RepositoryNotFoundError), lambda _: "the hub has no such data set, or not for "
            "you; correct corpus.hub.dataset"),
        (is_refusal, lambda cause: f"the hub answered {cause.response.status_code}; log in with "
            "`hf auth login`, or ask for access to it"),
        (has_status, lambda cause: f"the hub answered {cause.response.status_code}; try again "
            "later, files that arrived whole are kept"),
        (_is_unreachable, lambda _: f"the hub ({constants.ENDPOINT}) cannot be reached and the "
            "cache does not have it; set HF_HOME to a cache that does (with HF_HUB_OFFLINE=1) or "
            "HF_ENDPOINT to a mirror, or run `make study`, which needs no hub"),
        (is_short, lambda cause: f"a file was cut short: {_first_line(cause)} Run the same command "
            "again"),
        (is_a(exceptions.SplitsVerificationError), lambda cause: "does not hold what its card "
            f"says: {_first_line(cause)}"),
        (is_a(exceptions.DatasetGenerationError), lambda cause: "cannot be read: "
            + _first_line(cause.__cause__ or cause)),
        (is_a(Exception), lambda cause: f"cannot be loaded: {_first_line(cause)}"),
    ]  # fmt: skip
    causes = list(_causes(error))
    return next(say(cause) for fits, say in cases for cause in causes if fits(cause))


def _is_unreachable(error: BaseException) -> bool:
    from huggingface_hub import errors

    kinds = (ConnectionError, TimeoutError, errors.OfflineModeIsEnabled)
    # By name, because the hub's client has changed its HTTP library before.
    return isinstance(error, kinds) or type(error).__module__.startswith(("httpx", "httpcore"))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
