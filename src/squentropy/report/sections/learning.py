"""How much the models have learnt, by number of training tokens."""

from squentropy.report import markup
from squentropy.report.format import count, integer, listed, nats, share, signed
from squentropy.report.markup import Html, escape, interval, paragraphs
from squentropy.report.read import NGRAMS, Results
from squentropy.report.sections.pieces import loss_name, names
from squentropy.report.sections.verdict import NOT_ENOUGH
from squentropy.results import adequacy, scaling
from squentropy.study.params import BASELINE


def enough(r: Results) -> Html:
    """Which n-gram models cross entropy beats, and whether that suffices to rank losses."""
    if BASELINE not in r.scored:
        return paragraphs("Cross entropy has no scored run, so nothing can be ranked against it.")
    nll = r.metrics.at[BASELINE, "nll"]
    beaten = {
        name: r.ngrams[order]
        for name, order in NGRAMS.items()
        if order in r.ngrams and nll < r.ngrams[order]
    }
    texts = [
        f"Cross entropy reaches {nats(nll)} nats per token. "
        + (
            "It beats the models of "
            f"{listed(f'{name}s ({nats(x)})' for name, x in beaten.items())}, "
            "counted on as many training tokens."
            if beaten
            else "It beats no n-gram model that is counted on as many training tokens."
        )
    ]
    plan = r.study.plan
    must = next(name for name, order in NGRAMS.items() if order == plan.ngram)
    rule = (
        f"The losses are ranked only if cross entropy beats the {must} model and its "
        f"last doubling of tokens gains at most {100 * plan.steepest:g} % of the range from the "
        "unigram’s nll to the limit. "
    )
    if r.adequacy.enough:
        return paragraphs(*texts, f"{rule}Both hold.{_behind(r, must)}")
    reasons = escape("; ".join(r.adequacy.reasons))
    return paragraphs(*texts, f"{rule}<strong>{NOT_ENOUGH}</strong>: {reasons}.")


def _behind(r: Results, model: str) -> str:
    """Losses to which the rule, stated for cross entropy, does not extend."""
    nll = r.ngrams[r.study.plan.ngram]
    behind = [loss for loss in r.scored if r.metrics.at[loss, "nll"] >= nll]
    if not behind:
        return ""
    do = "does" if len(behind) == 1 else "do"
    said = f" They are about cross entropy: {names(behind)} {do} not beat the {model} model"
    if len(behind) == 1:
        return f"{said}."
    return f"{said}, so how they rank among each other is not established."


def table(r: Results) -> Html:
    """The fraction of the learnable nll that each loss has learnt."""
    known = r.metrics["excess"].notna().any()
    head = ["loss", "share learnt", "bits per byte"]
    head += ["nll − exact entropy", "slope"] if known else []
    rows = []
    for loss in r.scored:
        row = r.metrics.loc[loss]
        excess = [interval(row, "excess", signed), _slope(r, loss)] if known else []
        rows.append([loss_name(loss), share(row["learnt"]), nats(row["bits_per_byte"]), *excess])
    limit = "the exact entropy of the stories" if known else "the best n-gram model’s nll"
    caption = (
        "Share of the range from the unigram model’s nll, 0 %, to "
        f"{limit}, 100 %, in each loss’s primary reading."
    )
    if known:
        caption += (
            " Slope: of log(nll − entropy) on log(training tokens), by least squares over all "
            "lengths, of the seeds that have all of them; at −0.5, four times the tokens would "
            "halve the excess. Lengths need not lie on a line, so nothing can be extrapolated "
            "from it. Exploratory."
        )
    return markup.table(head, rows, caption=caption)


def _slope(r: Results, loss: str) -> str:
    rows = r.lengths[r.lengths["loss"] == loss].dropna(subset="nll")
    lengths = rows.groupby("seed")["tokens"].transform("nunique")
    shared = rows[lengths == rows["tokens"].nunique()].groupby("tokens")["nll"].mean()
    excess = shared.to_numpy() - r.corpus["source_nll"]
    return signed(scaling.slope(shared.index.to_numpy(), excess), 2)


def ranking(r: Results) -> Html:
    """Whether the comparison with cross entropy depends on the length of training."""
    curves = {loss: r.curve(loss) for loss in r.scored}
    shared = set(curves.get(BASELINE, ()))
    if len(shared) < 2 or len(curves) < 2:
        return Html()
    lengths = listed(integer(tokens) for tokens in sorted(shared))
    changing = adequacy.sign_changes(curves)
    if not changing:
        return paragraphs(
            f"At {lengths} tokens, every loss stays on the same side of cross entropy."
        )
    gaps = []
    for loss in changing:
        at = [
            f"{signed(nll - curves[BASELINE][tokens])} at {integer(tokens)}"
            for tokens, nll in sorted(curves[loss].items())
            if tokens in shared
        ]
        gaps.append(f"{loss_name(loss)} {listed(at)}")
    return paragraphs(
        f"Which is better depends on the length of training for {names(changing)}. Nll minus cross "
        f"entropy’s by training tokens: {'; '.join(gaps)}. Shorter lengths have "
        f"{count(r.study.final.length_seeds, 'seed')} each, so this is an indication, not a result."
    )
