"""The model card of an exported run: a description, its scores, and warnings."""

import math
from pathlib import Path
from typing import Any

import yaml

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import RunRecord, ScoresRecord
from squentropy.lm.model import GPT
from squentropy.study.catalogue import label, loss_info, slug
from squentropy.study.overlays import differences
from squentropy.study.params import Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import END_OF_TEXT

LICENCES = {"mit", "cdla-sharing-1.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "apache-2.0"}
"""Some of the licence names that the hub knows."""


def cautions(run: RunRecord) -> list[str]:
    """Warnings for users of the exported model."""
    if not loss_info(run["cell"]["loss"]).link:
        return []
    return [
        f"this model was trained with {label(run['cell']['loss'])}: its outputs are not softmax "
        "logits, but transformers samples as if they were, so its stories will be poor there; "
        "`squentropy sample` uses the loss's own link"
    ]


def foreign(run: RunRecord, study: Study) -> list[str]:
    """A warning if the sampling settings are another study's, as the run's own was not found."""
    cell = run["cell"]
    if not differences(run["params"], study.training_keys(cell["phase"], cell["iterations"])):
        return []
    return [
        f"temperature and top_k are those of the study {study.study}, to which this run does not "
        "belong; name its own study with --params, as results/STUDY or a file"
    ]


def scores(folder: Path) -> ScoresRecord | None:
    """The contents of test.json, or None if it is missing or belongs to another run."""
    path = folder / "test.json"
    if not path.exists():
        return None
    held = storage.read_sealed(path)
    return held if held["run_sha256"] == storage.sha256(folder / "run.json") else None


def card(
    run: RunRecord,
    scores: ScoresRecord | None,
    model: GPT,
    tokens: TokenFolder,
    warnings: list[str],
) -> str:
    """The model card in Markdown, preceded by the hub's metadata."""
    cell, shape, licence = run["cell"], model.config, corpus_licence(tokens)
    known = licence.lower() in LICENCES
    kind = "GPT-2" if model.wpe is not None else "MPT"
    metadata: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": licence.lower() if known else "other",
        **({} if known else {"license_name": licence}),
        "tags": [kind.lower().replace("-", ""), "squentropy", cell["loss"]],
    }
    if scores is not None:
        metadata["model-index"] = [model_index(run, scores, corpus_name(tokens))]
    head = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    lines = [
        f"---\n{head}---",
        f"# A small {kind} trained with {label(cell['loss'])}",
        "\n".join(f"> **Note:** {text}." for text in warnings),
        f"One run of squentropy, a study of squared losses in language models: {shape.n_layer} "
        f"layers, {shape.n_embd} wide, {shape.n_head} heads, {shape.block_size} tokens of context, "
        f"{shape.vocab_size:,} tokens in the vocabulary, {run['parameters']:,} parameters without "
        f"the positions. Trained for {run['iterations']:,} iterations at learning rate "
        f"{cell['lr']:g}, dropout {cell['dropout']:g} and seed {cell['seed']}. It is meant only "
        "for comparing losses.",
        "## Scores",
        _table(run, scores),
        "## Use",
        "In this folder; from elsewhere, replace the dot with its path or its name on the hub:",
        "```python\nfrom transformers import pipeline\n\n"
        'tell = pipeline("text-generation", ".")\n'
        'print(tell("Once upon a time")[0]["generated_text"])\n```',
        f"In training, `{END_OF_TEXT}` preceded every story, so the tokenizer adds that token "
        "before a text; stories also end with it. With `add_special_tokens=False`, the ids are "
        f"those of the study. `{END_OF_TEXT}` written out in a text is encoded as text.",
        f"A story ends after at most {shape.block_size} tokens, the length of the context. With "
        "the folder's own `custom_generate/generate.py`, which requires `trust_remote_code=True`, "
        "the window moves on by half the context, as in the study:",
        '```python\ntell = pipeline("text-generation", ".", trust_remote_code=True)\n'
        'print(tell("Once upon a time", max_new_tokens=400)[0]["generated_text"])\n```',
        "## Licence",
        f"Licence of the training stories: {licence}. Licence of the training code: MIT.",
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def model_index(run: RunRecord, scores: ScoresRecord, corpus: str) -> dict[str, Any]:
    """The test scores in each reading, in the hub's format for cards."""
    count, size = sum(scores["stories"]["tokens"]), sum(scores["stories"]["bytes"])
    metrics: list[dict[str, Any]] = []
    for name, measured in scores["readings"].items():
        nll = sum(measured["nll"]) / count
        values = {
            "perplexity": math.exp(nll),
            "nll, nats per token": nll,
            "bits per byte": nll * count / size / math.log(2),
        }
        metrics += [
            {"type": what.partition(",")[0].replace(" ", "_"), "value": round(value, 6)}
            | {"name": f"{what}, outputs read by {name}"}
            for what, value in values.items()
        ]
    cell = run["cell"]
    return {
        "name": f"squentropy {slug(cell['loss'])} seed {cell['seed']}",
        "results": [
            {
                "task": {"type": "text-generation", "name": "Text generation"},
                "dataset": {"type": corpus, "name": corpus, "split": scores["split"]},
                "metrics": metrics,
            }
        ],
    }


def corpus_licence(tokens: TokenFolder) -> str:
    """The licence of the corpus beside the tokens; "unknown" if it is missing or another one."""
    return (_corpus(tokens) or {}).get("licence", "unknown")


def corpus_name(tokens: TokenFolder) -> str:
    """The hub's name of the corpus beside the tokens, or the name of its source."""
    held = _corpus(tokens) or {}
    return held.get("provenance", {}).get("dataset") or held.get("source", "unknown")


def _corpus(tokens: TokenFolder) -> dict[str, Any] | None:
    """The manifest of the corpus beside the tokens; None if it is missing or another one."""
    corpus = tokens.folder.parent / "corpus"
    try:
        tokens.check_corpus(corpus)
        return storage.read_sealed(corpus / "manifest.json")
    except (SquentropyError, OSError):
        return None


def _table(run: RunRecord, scores: ScoresRecord | None) -> str:
    """The test nll in each reading; the validation nll if the run was not scored."""
    if scores is None:
        nll = run["validation_nll"]
        return f"Validation nll {nll:.4f} nats per token, over all validation stories."
    count, size = sum(scores["stories"]["tokens"]), sum(scores["stories"]["bytes"])
    lines = [
        "| reading | test nll, nats per token | perplexity | bits per byte |",
        "|---|---|---|---|",
    ]
    for name, measured in scores["readings"].items():
        total = sum(measured["nll"])
        lines.append(
            f"| {name.replace('_', ' ')} | {total / count:.4f} | {math.exp(total / count):.2f} "
            f"| {total / size / math.log(2):.4f} |"
        )
    stories = len(scores["stories"]["tokens"])
    return "\n".join(lines) + (
        f"\n\nOver {stories:,} whole test stories, {count:,} tokens with their ends. "
        f"*Tempered*: softmax at the temperature {scores['temperature']:.3g}, fitted on "
        "validation."
    )
