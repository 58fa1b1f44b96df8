"""Figures are drawn for every study and are byte-identical each time."""

import subprocess
import sys
from dataclasses import replace

import fake_results
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from squentropy.base.errors import SquentropyError
from squentropy.report import catalogue, figures, read
from squentropy.report.format import number
from squentropy.report.plots import style
from squentropy.study import params

SMALL = {"lr": [0.0006, 0.06], "dropout": [0.0], "n_layer": [8, 12]}


def small(folder, losses=("cross_entropy", "squentropy", "mse"), seeds=(1, 2), **how):
    changes = {"sweep": SMALL | {"losses": list(losses)}, "final": {"seeds": list(seeds)}}
    return fake_results.write(folder, stories=20, **changes, **how)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    small(folder / "results")
    return folder, figures.draw(folder / "results", folder / "figures")


def test_every_named_figure_is_written_as_svg_and_png_and_nothing_else(drawn):
    folder, paths = drawn
    study = params.load([folder / "results" / "params.yaml"])
    expected = {f"{name}.{end}" for name in figures.names(study) for end in ("svg", "png")}
    assert {path.name for path in paths} == expected
    assert {path.name for path in (folder / "figures").iterdir()} == {*expected, "manifest.json"}


def test_drawing_again_gives_the_same_bytes(drawn):
    folder, _ = drawn
    for again in figures.draw(folder / "results", folder / "again"):
        assert again.read_bytes() == (folder / "figures" / again.name).read_bytes(), again.name


def test_figures_hold_neither_dates_nor_references_to_elsewhere(drawn):
    for path in drawn[1]:
        data = path.read_bytes()
        assert b"<dc:date>" not in data
        assert b"tIME" not in data
        assert b"<script" not in data
        assert b'xlink:href="http' not in data


def test_a_missing_table_is_one_line_and_leaves_no_figure(tmp_path):
    small(tmp_path / "results")
    (tmp_path / "results" / "history.csv").unlink()
    with pytest.raises(SquentropyError, match=r"history\.csv: does not exist"):
        figures.draw(tmp_path / "results", tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_names_are_the_functions_that_draw():
    assert all(callable(figures.drawn_by(each.name)) for each in catalogue.FIGURES)


def test_names_and_captions_are_known_without_waiting_for_matplotlib_or_pandas():
    code = "import sys, squentropy.report.figures; print({'matplotlib', 'pandas'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_captions_are_true_of_the_study():
    study = fake_results.study(sweep={"losses": ["cross_entropy", "mse", "mse_weighted"]})
    said = {each.name: each.caption_of(study) for each in catalogue.FIGURES}
    assert "by plain softmax; MSE and weighted MSE by their own link." in said["learning_curves"]
    assert "exact entropy" in said["lengths"]
    files = {"train": ["a"], "validation": ["b"], "test": ["c"]}
    study = fake_results.study(
        corpus={"source": "files", "files": files},
        sweep={"losses": ["cross_entropy"]},
        final={"seeds": [1], "length_seeds": 1},
    )
    said = {each.name: each.caption_of(study) for each in catalogue.FIGURES}
    assert "own link" not in said["learning_curves"]
    assert "One seed." in said["learning_curves"]
    assert "exact entropy" not in said["lengths"]
    assert "1 seeds" not in " ".join(said.values())


def test_captions_for_snakemake_are_written_only_if_they_change(tmp_path):
    study = fake_results.study()
    paths = figures.write_captions(study, tmp_path)
    assert [*paths] == figures.names(study)
    (tmp_path / "grid.rst").write_text("of another study")
    before = {path: path.stat().st_mtime_ns for path in paths.values()}
    figures.write_captions(study, tmp_path)
    changed = {path.name for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {"grid.rst"}


@pytest.mark.parametrize(
    ("losses", "has_differences"),
    [(["cross_entropy", "mse"], True), (["cross_entropy"], False), (["mse", "brier"], False)],
)
def test_differences_are_drawn_only_where_there_is_something_to_compare(losses, has_differences):
    names = figures.names(fake_results.study(sweep={"losses": losses}))
    assert ("differences" in names) == has_differences


def texts_of(tmp_path, name, **how):
    """The texts in a figure of a small study."""
    r = read.read(small(tmp_path / "results", **how))
    with style.style():
        figure = figures.drawn_by(name)(r)
    return [text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))]


ODD = {
    "one loss, one seed, no source": {"losses": ["squentropy"], "seeds": [7], "source_nll": None},
    "without cross entropy": {"losses": ["mse", "brier"]},
    "cross entropy diverged": {"diverged": ("cross_entropy",)},
    "everything diverged": {"diverged": ("cross_entropy", "squentropy", "mse")},
}


@pytest.mark.parametrize("name", ["profile", "lengths"])
def test_a_legend_says_which_loss_diverged(tmp_path, name):
    assert "MSE (diverged)" in texts_of(tmp_path, name, diverged=("mse",))


@pytest.mark.parametrize("how", ODD.values(), ids=ODD.keys())
def test_odd_studies_are_drawn_whole(tmp_path, how):
    r = read.read(small(tmp_path / "results", **how))
    with style.style():
        for name in figures.names(r.study):
            figures.drawn_by(name)(r).draw_without_rendering()
    r.calibration["tokens"], r.profile["tokens"] = 1, 1
    with style.style():
        for name in ("reliability", "profile"):
            figures.drawn_by(name)(r).draw_without_rendering()


@pytest.mark.parametrize(
    "name", ["perplexity", "differences", "grid", "learning_curves", "reliability"]
)
def test_a_diverged_loss_is_marked_not_left_out(tmp_path, name):
    texts = texts_of(tmp_path, name, diverged=("mse",))
    assert "MSE" in texts
    assert any("diverged" in text for text in texts)


def test_a_cell_without_divergence_shows_its_perplexity(tmp_path):
    texts = texts_of(tmp_path, "grid", losses=["cross_entropy"])
    sweep = pd.read_csv(tmp_path / "results" / "sweep.csv")
    for value in sweep["validation_ppl"].dropna():
        assert number(value) in texts
    assert "read by its own link" not in texts


def test_a_loss_with_its_own_link_shows_the_perplexity_that_gives(tmp_path):
    texts = texts_of(tmp_path, "grid", losses=["mse"])
    sweep = pd.read_csv(tmp_path / "results" / "sweep.csv")
    for value in np.exp(sweep["selection_nll"].dropna()):
        assert number(value) in texts
    assert "read by its own link" in texts


def test_a_reliability_diagram_shows_the_calibration_errors_of_the_readings(tmp_path):
    texts = texts_of(tmp_path, "reliability", losses=["mse", "squentropy"])
    readings = pd.read_csv(tmp_path / "results" / "readings.csv")
    for loss, reading, name in (
        ("mse", "softmax", "softmax"),
        ("mse", "tempered", "tempered"),
        ("mse", "own", "own link"),
        ("squentropy", "tempered", "tempered"),
    ):
        row = readings[(readings["loss"] == loss) & (readings["reading"] == reading)].iloc[0]
        assert any(f"{name} {100 * row['ece']:.1f}" in text for text in texts)


def test_every_loss_has_learning_curves_in_the_reading_that_training_records(tmp_path):
    r = read.read(small(tmp_path / "results"))
    with style.style():
        panels = {ax.get_title("left"): ax for ax in figures.drawn_by("learning_curves")(r).axes}
    for name, noted in (("MSE", "own link"), ("squentropy", "")):
        curves = [line for line in panels[name].lines if len(line.get_xdata()) > 2]
        assert len(curves) == 3  # cross entropy's, train and validation
        assert panels[name].get_title("right") == noted


def drawn_lines(tmp_path, name, **how):
    r = read.read(small(tmp_path / "results", **how))
    with style.style():
        axes = figures.drawn_by(name)(r).axes
    return r, axes


def test_the_lengths_have_a_line_per_loss_and_the_yardsticks(tmp_path):
    r, (nll, excess) = drawn_lines(tmp_path, "lengths")
    for loss in r.losses:
        curve = r.curve(loss)
        for ax, off in ((nll, 0), (excess, r.corpus["source_nll"])):
            assert any(
                np.allclose(line.get_xdata(), list(curve)) and
                np.allclose(line.get_ydata(), np.array(list(curve.values())) - off)
                for line in ax.lines if len(line.get_xdata()) == len(curve)
            )  # fmt: skip
    levels = {line.get_ydata()[0] for line in nll.lines if list(line.get_xdata()) == [0, 1]}
    assert levels == {r.ngrams[n] for n in (2, 3, 4)} | {r.corpus["source_nll"]}
    assert excess.get_xscale() == excess.get_yscale() == "log"


def test_an_unknown_entropy_leaves_its_panel_out(tmp_path):
    _, axes = drawn_lines(tmp_path, "lengths", source_nll=None)
    assert len(axes) == 1


def test_the_learning_rates_that_were_tried_are_drawn_and_the_selected_one_ringed(tmp_path):
    r, (ax,) = drawn_lines(tmp_path, "learning_rates")
    for loss in r.losses:
        rows = r.refine[r.refine["loss"] == loss].sort_values("lr")
        assert any(
            np.array_equal(line.get_xdata(), rows["lr"])
            and np.array_equal(line.get_ydata(), rows["selection_nll"])
            for line in ax.lines
        )
    rings = [line for line in ax.lines if line.get_markersize() == 10]
    assert [ring.get_xdata()[0] for ring in rings] == [r.selected[x]["lr"] for x in r.losses]


def test_a_dose_is_drawn_beside_its_floor(tmp_path):
    losses = ["cross_entropy", "squentropy(0.1)", "squentropy"]
    r, (ax,) = drawn_lines(tmp_path, "dose", losses=losses)
    own = r.theory[
        (r.theory["classes"] == r.corpus["vocab_size"]) & (r.theory["contexts"] == "whole")
    ]
    floors = own[own["loss"].str.startswith("squentropy")].sort_values("weight")["kl"]
    drawn = [line.get_ydata() for line in ax.lines]
    assert any(len(y) == len(floors) and np.allclose(y, floors) for y in drawn)
    gaps = [r.metrics.at[loss, "difference"] for loss in losses[1:]]
    assert any(len(y) == 2 and np.allclose(y, gaps) for y in drawn)


@pytest.mark.parametrize(
    ("losses", "has_dose"),
    [
        (["cross_entropy", "squentropy", "squentropy(0.1)"], True),
        (["cross_entropy", "squentropy", "mse"], False),
        (["squentropy", "squentropy(0.1)"], False),
    ],
)
def test_a_dose_needs_two_multipliers_and_cross_entropy(losses, has_dose):
    assert ("dose" in figures.names(fake_results.study(sweep={"losses": losses}))) == has_dose


def test_a_study_that_has_not_learnt_shows_no_p_value(tmp_path):
    assert "p" in texts_of(tmp_path / "a", "differences")
    texts = texts_of(tmp_path / "b", "differences", learnt=False)
    assert not {"p", "< 0.01"} & set(texts)
    assert "difference" in texts


def test_a_bin_of_few_tokens_is_left_out(tmp_path):
    r = read.read(small(tmp_path / "results", losses=["squentropy"]))
    last = r.calibration["low"] > 0.9
    r.calibration.loc[last, ["tokens", "correct"]] = [10, 1]
    with style.style():
        lines = figures.drawn_by("reliability")(r).axes[0].lines
    assert max(max(line.get_xdata()) for line in lines[1:]) < 91


def test_without_any_predictions_of_the_source_the_figure_says_so(tmp_path):
    r = read.read(small(tmp_path / "results"))
    r = replace(r, certainty=r.certainty.head(0))
    with style.style():
        axes = figures.drawn_by("certainty")(r).axes
    assert [ax.texts[0].get_text() for ax in axes] == ["no test story could be compared"] * 2


def test_divergence_has_a_line_per_loss_whose_parts_add_up_to_the_whole(tmp_path):
    r = read.read(fake_results.write(tmp_path / "results"))
    left, right = figures.drawn_by("certainty")(r).axes
    assert len(left.lines) == len(right.lines) == len(r.scored)
    for loss, means, parts in zip(r.scored, left.lines, right.lines, strict=True):
        own = r.certainty[r.certainty["loss"] == loss]
        assert parts.get_ydata().sum() == pytest.approx(own["kl"].sum() / own["tokens"].sum())
        assert means.get_ydata() == pytest.approx(5 * parts.get_ydata())  # five bins of equal size
    assert [t.get_text() for t in left.get_xticklabels()][-1] == "2 or more"


def test_a_profile_has_a_line_per_loss_of_its_primary_reading(tmp_path):
    r = read.read(small(tmp_path / "results"))
    with style.style():
        above, _, below, _ = figures.drawn_by("profile")(r).axes
    assert len(above.lines) == len(r.losses)
    for loss, reading in (("squentropy", "tempered"), ("mse", "own")):
        curve = r.by_bin(loss, reading, "position").mean(axis=1)
        gap = curve - r.by_bin("cross_entropy", "tempered", "position").mean(axis=1)
        drawn = [line.get_ydata() for line in below.lines]
        assert any(len(y) == len(gap) and np.allclose(y, gap) for y in drawn)


def test_cross_entropy_looks_the_same_in_every_study():
    looks = [style.look("cross_entropy", x) for x in ([], ["cross_entropy"], ["mse", "brier"])]
    assert looks == [looks[0]] * 3


def test_unknown_losses_get_a_look_of_their_own():
    losses = ["cross_entropy", "hers", "his", "mse"]
    assert len({style.look(loss, losses) for loss in losses}) == 4


def test_losses_are_told_apart_in_grey():
    names = ["cross_entropy", *(f"squentropy({i})" for i in range(20))]
    looks = [style.look(loss, names) for loss in names]
    assert len(set(looks)) == len(looks)
    assert len({marker for _, marker, _ in looks[:11]}) == 11
    grey = [np.dot(to_rgb(colour), [0.3, 0.59, 0.11]) for colour, _, _ in looks]
    assert min(grey[1:]) - grey[0] > 0.05


@pytest.mark.parametrize(
    ("value", "text"),
    [(7.966, "7.97"), (16, "16.0"), (1024.4, "1\u202f024"), (float("inf"), "∞"), (3e9, "3.0e+09")],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_the_losss_own_optimum_is_marked_where_it_is_known(tmp_path):
    texts = texts_of(tmp_path, "perplexity")
    assert any("optimum" in text for text in texts)
    texts = texts_of(tmp_path, "perplexity", source_nll=None)
    assert not any("optimum" in text for text in texts)


def test_a_natural_corpus_has_fewer_panels_of_quality(tmp_path):
    titles = [text for text in texts_of(tmp_path, "quality") if text.endswith(", %")]
    assert titles[:4] == [
        "sentences in form, %", "stories in form, %", "references that agree, %",
        "accepted by the checker, %",
    ]  # fmt: skip
    assert len(titles) == 6
    texts = texts_of(tmp_path, "quality", source_nll=None)
    assert not {*titles[:4]} & {*texts}
    assert "self-BLEU, %" in texts
