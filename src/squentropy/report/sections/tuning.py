"""Tuning: the refining runs, and the hyperparameters selected."""

from squentropy.report import markup
from squentropy.report.format import DASH, count, integer, listed, nats, plain
from squentropy.report.markup import Html, paragraphs
from squentropy.report.read import Results
from squentropy.report.sections.pieces import loss_name, names
from squentropy.study.grid import GRID_KEYS, NAMES


def sentence(r: Results) -> Html:
    """The rule, and whether the search finished for every loss."""
    s = r.study.refine
    factor = r.study.refine.factor
    rule = (
        "The grid is coarse and its cells are short. So tuning went on with runs of "
        f"{integer(s.max_iters)} iterations, from each loss’s simplest cell within {s.tie:g} nats "
        "per token of its best one. First the other depths and dropouts with a cell that near were "
        f"tried, then learning rates a factor {factor:g} apart, until the best one lay between two "
        f"others. The rule and its limit of {count(s.max_runs, 'run')} per loss are the same for "
        "all losses, and each loss is tuned by its primary reading."
    )
    alive = [loss for loss in r.losses if r.selected[loss]["selection_nll"] is not None]
    inside = [loss for loss in alive if r.selected[loss]["inside"]]
    outside = [loss for loss in alive if loss not in inside]
    stopped = [loss for loss in alive if r.selected[loss]["max_runs_reached"]]
    lost = [loss for loss in r.losses if loss not in alive]
    said = []
    if inside and not outside:
        said.append(
            "The best learning rate of every loss lies between two that were tried, in runs of "
            f"{integer(s.max_iters)} iterations."
        )
    if outside:
        said.append(
            f"The best learning rate of {names(outside)} lies at an edge of those tried, "
            "so a better one may exist."
        )
    if stopped:
        said.append(f"The limit of runs ended the search for {names(stopped)}.")
    if lost:
        said.append(f"Every run of {names(lost)} diverged.")
    return paragraphs(rule, " ".join(said))


def table(r: Results) -> Html:
    """The selected hyperparameters of each loss, and the number of runs."""
    rows = []
    for loss in r.losses:
        chosen = r.selected[loss]
        at = {key: plain(chosen[key]) for key in GRID_KEYS}  # type: ignore[literal-required]
        at = {key: f"{text} ←" if key in chosen["edge"] else text for key, text in at.items()}
        runs = f"{chosen['runs']}" + (" (limit)" if chosen["max_runs_reached"] else "")
        if chosen["selection_nll"] is None:
            at = dict.fromkeys(at, DASH)
        rows.append([
            loss_name(loss), *at.values(), "inside" if chosen["inside"] else "edge",
            nats(chosen["selection_nll"]), runs,
        ])  # fmt: skip
    words = {key: NAMES.get(key, key) for key in GRID_KEYS}
    head = ["loss", *words.values(), "rate lies", "validation nll", "runs"]
    edges = {key for loss in r.losses for key in r.selected[loss]["edge"]}
    caption = "What was selected for each loss, by validation nll after the refining runs."
    if edges:
        told = listed(words[key] for key in words if key in edges)
        caption += f" An arrow (←) marks a value at an end of those tried ({told})."
    return markup.table(head, rows, caption=caption)
