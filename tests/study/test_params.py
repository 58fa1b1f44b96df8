"""A mistake in the parameters is one line that names the key, the value and the fix.

pytest tests/study/test_params.py
"""

import copy
import random
from pathlib import Path

import pytest
import ruamel.yaml
import yaml

from squentropy.base.errors import ParameterError
from squentropy.study import params
from squentropy.study.grid import Cell
from squentropy.study.overlays import overlay

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "params.yaml"
STUDIES = sorted(set(ROOT.glob("studies/*.yaml")) - {ROOT / "studies/dvc.yaml"})

each_study = pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)


@pytest.fixture
def default() -> dict:
    return yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [DEFAULT, *STUDIES], ids=lambda path: path.stem)
def test_both_yaml_readers_see_the_same_parameters(path):
    """Snakemake reads them with PyYAML and DVC with ruamel, which differ on 1e-3, on, 010, ..."""

    def typed(value):
        if isinstance(value, dict):
            return {key: typed(v) for key, v in value.items()}
        return [typed(v) for v in value] if isinstance(value, list) else (type(value), value)

    text = path.read_text(encoding="utf-8")
    assert typed(yaml.safe_load(text)) == typed(ruamel.yaml.YAML(typ="safe").load(text))


def test_the_default_study_is_valid_and_complete(default):
    assert params.load([DEFAULT]).model_dump(mode="json") == default


@each_study
def test_every_study_is_valid_upon_the_default_and_named_apart(path):
    assert params.load([DEFAULT, path]).study != params.load([DEFAULT]).study


@pytest.mark.parametrize("paths", [[DEFAULT], *([DEFAULT, p] for p in STUDIES)], ids=str)
def test_a_study_comes_back_from_its_dump_by_both_readers(paths):
    study = params.load(paths)
    assert params.parse(yaml.safe_load(study.dump())) == study
    assert params.parse(ruamel.yaml.YAML(typ="safe").load(study.dump())) == study


@pytest.mark.parametrize("paths", [[DEFAULT], *([DEFAULT, p] for p in STUDIES)], ids=str)
def test_every_run_has_a_folder_of_its_own(paths):
    study = params.load(paths)
    chosen = {loss: {"lr": 0.1, "dropout": 0.1, "n_layer": 8} for loss in study.sweep.losses}
    cells = [*study.sweep_cells(), *study.final_cells(chosen), *study.reported_cells()]
    grid = study.sweep
    size = len(grid.losses) * len(grid.lr) * len(grid.dropout) * len(grid.n_layer)
    assert len(study.sweep_cells()) == size
    assert len({cell.name for cell in cells}) == len({cell.name.lower() for cell in cells})
    assert len({cell.name for cell in cells}) == len(cells)


def test_a_cells_name_gives_its_numbers_back_exactly():
    name = Cell("sweep", "mse", 6e-6, 0.1 + 0.2, 8, 0).name
    assert name == "sweep/mse/lr6e-06/dropout0.30000000000000004_layers8"


def test_a_loss_with_arguments_has_one_name_and_a_folder_of_it():
    given = ["squentropy(0.10)", "squentropy(1)", "squentropy_weighted( 2.65 )", "z_loss(1e-5)"]
    changes = {"sweep": {"losses": given}, "final": {"reported": {"loss": "mse_weighted(100)"}}}
    values = overlay(params.load([DEFAULT]).model_dump(), changes)
    study = params.parse(values)
    names = ["squentropy(0.1)", "squentropy", "squentropy_weighted(2.65)", "z_loss(0.00001)"]
    assert study.sweep.losses == names
    assert study.final.reported.loss == "mse_weighted"
    assert params.parse(yaml.safe_load(study.dump())) == study
    lr = {"lr": 0.1, "dropout": 0.1, "n_layer": 8}
    folders = {c.name for c in study.final_cells(dict.fromkeys(names, lr)) if c.seed == 1}
    slugs = ["squentropy-0.1", "squentropy", "squentropy_weighted-2.65", "z_loss-0.00001"]
    assert folders == {f"final/{slug}/seed1" for slug in slugs}
    assert {c.row for c in study.sweep_cells()} >= {f"sweep/{slugs[0]}/lr{study.sweep.lr[-1]!r}"}


def test_an_overlay_merges_sections_and_replaces_the_rest(tmp_path, default):
    overlays = ["sweep: {lr: [0.5]}\nfinal: {reported: null}\n", "sweep: {max_iters: 70}\n"]
    for name, text in zip("ab", overlays):
        (tmp_path / name).write_text(text)
    study = params.load([DEFAULT, tmp_path / "a", tmp_path / "b"])
    assert (study.sweep.lr, study.sweep.max_iters) == ([0.5], 70)
    assert study.sweep.losses == default["sweep"]["losses"]
    assert study.reported_cells() == []


MISTAKES = {  # overlay: beginning of the message after "FILE: "
    "sweep: {loss: [mse]}": "sweep.loss: unknown key; did you mean 'losses'?",
    "modle: {}": "modle: unknown key; did you mean 'model'?",
    "final: {reported: {los: mse}}": "final.reported.los: unknown key; did you mean 'loss'?",
    "sample: {zzz: 1}": "sample.zzz: unknown key; known here: prompts, temperatures, stories, ",
    "function-x: 1": "function-x: unknown key; known here: study, ",
    "sweep: {losses: [squentrpy]}": "sweep.losses[0] = \"squentrpy\": no such loss; did you mean "
    "'squentropy'? there are: cross_entropy, ",
    "sweep: {losses: [squentropi(0.1)]}": "sweep.losses[0] = \"squentropi(0.1)\": no such "
    "loss; did you mean 'squentropy'? there are: cross_entropy, ",
    "sweep: {losses: [squentropy(x)]}": "sweep.losses[0] = \"squentropy(x)\": 'x' is not a finite "
    "number; write it as squentropy(0.1)",
    "sweep: {losses: ['squentropy(1, 2)']}": 'sweep.losses[0] = "squentropy(1, 2)": 2 '
    "arguments do not fit; write numbers as in squentropy(scale)",
    "sweep: {losses: [brier(2)]}": 'sweep.losses[0] = "brier(2)": takes no argument; write brier',
    "sweep: {losses: [squentropy(0.1), squentropy(0.10)]}": "sweep.losses = "
    '["squentropy(0.1)", "squentropy(0.10)"]: contains a value twice; ',
    "sweep: {losses: [squentropy, squentropy(1)]}": "sweep.losses = "
    '["squentropy", "squentropy(1)"]: contains a value twice; ',
    "theory: {contexts: 20}": "theory.contexts: unknown key; known here: weights",
    "evaluate: {link_floor: 0}": "evaluate.link_floor = 0: should be greater than 0",
    "sweep: {losses: [zzz]}": 'sweep.losses[0] = "zzz": no such loss; there are: cross_entropy, ',
    "sweep: {lr: [0.1, 1e-3]}": 'sweep.lr[1] = "1e-3": YAML reads this as text; write 0.001',
    "sweep: {lr: [6e-9]}": 'sweep.lr[0] = "6e-9": YAML reads this as text; write 0.000000006',
    "sweep: {max_iters: 1e2}": 'sweep.max_iters = "1e2": YAML reads this as text; write 100',
    "sweep: {max_iters: ten}": 'sweep.max_iters = "ten": is text; write a number',
    "sweep: {lr: [nan]}": 'sweep.lr[0] = "nan": is text; write a number',
    "sweep: {lr: [.nan]}": "sweep.lr[0] = NaN: should be a finite number",
    "train: {divergence: .inf}": "train.divergence = Infinity: should be a finite number",
    "train: {beta1: .nan}": "train.beta1 = NaN: should be less than 1",
    "sweep: {max_iters: true}": "sweep.max_iters = true: should be a valid integer",
    "sweep: {lr: [true]}": "sweep.lr[0] = true: should be a valid number",
    "sweep: {max_iters: 8.0}": "sweep.max_iters = 8.0: should be a valid integer",
    "model: {bias: 1}": "model.bias = 1: is neither true nor false",
    "study: 2024": "study = 2024: is not text; write it in quotes",
    "study: a/b": "study = \"a/b\": may contain only letters, digits, '_' and '-'",
    "train: {device: gpu}": "train.device = \"gpu\": should be 'auto', 'cpu', 'cuda' or 'mps'",
    "train: {threads: 0}": "train.threads = 0: should be greater than or equal to 1",
    "train: {threads: 99999999999}": "train.threads = 99999999999: should be less than or "
    "equal to 1024",
    "sweep: {dropout: [1.0]}": "sweep.dropout[0] = 1.0: should be less than 1",
    "sweep: {lr: [0]}": "sweep.lr[0] = 0: should be greater than 0",
    "tokens: {vocab_size: 256}": "tokens.vocab_size = 256: should be greater than or equal to 257",
    "sweep: {lr: []}": "sweep.lr = []: is empty; give at least one value",
    "sweep: {lr: 0.1}": "sweep.lr = 0.1: is not a list; write its values in brackets, as [a, b]",
    "sweep: {lr: [0.1, 0.2, 0.1]}": "sweep.lr = [0.1, 0.2, 0.1]: contains a value twice; ",
    "sweep: {dropout: [0, 0.0]}": "sweep.dropout = [0, 0.0]: contains a value twice; ",
    "model: {n_head: 5}": "model: n_embd 64 is not divisible by n_head 5; n_head 4 would do",
    "model: {n_head: 2000000000}": "model.n_head = 2000000000: should be less than or equal to "
    "65536",
    "sweep: {n_layer: [2000000000]}": "sweep.n_layer[0] = 2000000000: should be less than or ",
    "evaluate: {bootstrap: 2000000000}": "evaluate.bootstrap = 2000000000: should be less than ",
    "sample: {stories: 2000000000}": "sample.stories = 2000000000: should be less than or equal ",
    "sample: {max_tokens: 2000000000}": "sample.max_tokens = 2000000000: should be less than or ",
    "train: {processes: 2, accumulation: 3}": "train: accumulation 3 is not divisible by ",
    "train: {processes: 2, accumulation: 2, runs_per_gpu: 2}": "train: processes and runs_per_gpu ",
    "sweep: {warmup_iters: 50}": "sweep: warmup_iters 50 is not below max_iters 50; ",
    "corpus: {source: files}": "corpus: source is 'files' but corpus.files.train is empty; name ",
    "corpus: {model: {max_tokens: 1}}": "corpus.model.max_tokens = 1: should be greater than or ",
    "corpus: {model: {tokens: 3}}": "corpus.model.tokens = 3: ",
    "corpus: {model: {runs: a}}": "corpus.model.runs: unknown key; did you mean 'run'?",
    "corpus: {source: modle}": "corpus.source = \"modle\": is not a source of stories; there are: ",
    "sweep: [1, 2]": "sweep = [1, 2]: is not a section; give max_iters, warmup_iters, ",
    "sweep: null": "sweep = null: is not a section; give max_iters, warmup_iters, ",
    "final: {reported: 3}": "final.reported = 3: is not a section; give lr, dropout, n_layer, loss",
    "sample: {1: 2}": "sample[1] = 1: is under a key that is not text; write the key in quotes",
    "corpus: {hub: {text: {2020-01-01: 1}}}": "corpus.hub.text: is not text; write it in quotes",
    "sweep: {lr: &a [*a]}": "is longer than 100,000 bytes with its aliases",
    '"a\\nb": 1': "a\\nb: unknown key; known here: study, ",
    'study: "a\\u2028b"': "study = \"a\\u2028b\": may contain only letters, ",
    'corpus: {hub: {text: "\\ud800"}}': 'corpus.hub.text = "\\ud800": should be a valid string, ',
}  # fmt: skip


@pytest.mark.parametrize("overlay", MISTAKES)
def test_a_mistake_is_one_line_with_key_value_and_fix(overlay, tmp_path):
    path = tmp_path / "wrong.yaml"
    # The defaults that messages mention, so that the default study may change.
    fixed = "model: {n_embd: 64, n_head: 4}\nsweep: {max_iters: 50, warmup_iters: 5}\n"
    (tmp_path / "fixed.yaml").write_text(fixed)
    path.write_text(overlay + "\n")
    with pytest.raises(ParameterError) as error:
        params.load([DEFAULT, tmp_path / "fixed.yaml", path])
    line = str(error.value)
    assert line.startswith(f"{path}: {MISTAKES[overlay]}")
    assert line.isprintable()


def test_a_missing_key_is_named(default):
    del default["final"]["reported"]["lr"]
    with pytest.raises(ParameterError, match=r"^parameters: final\.reported\.lr: is missing; "):
        params.parse(default)


def test_studies_and_runs_from_before_there_was_mup_are_standard_ones(default):
    study = params.parse(default)
    del default["model"]["parametrization"]
    assert params.parse(default) == study
    assert study.training_keys("final")["model"] == study.table_keys()["model"] == default["model"]
    default["model"]["parametrization"] = "mup"
    mup = params.parse(default)
    assert mup.training_keys("final")["model"] == mup.table_keys()["model"] == default["model"]


def test_further_mistakes_are_counted(default):
    default["sweep"] |= {"lr": [-1], "seed": -1, "max_iters": 0}
    with pytest.raises(ParameterError, match=r"\(and 2 more\)$"):
        params.parse(default)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no keys; a study starts with 'study: NAME'"),
        (b"- 1\n", "has no keys"),
        (b"a: [1\nb: 2\n", ", line 2: is not YAML: "),
        (b"a: 1\n\tb: 2\n", ", line 2: is not YAML: "),
        (b"study: caf\xe9\n", "is not UTF-8 at byte 10"),
        (b"a: \0\n", "is not YAML: unacceptable character #x0000"),
        (b"a: 2020-13-45\n", "is not YAML: month must be in 1..12"),
        (b"a: !!int x\n", "is not YAML: "),
        (b"[" * 400, "is not YAML: "),
        (b"a: " + b"1" * 5000, "is not YAML: "),
    ],
)
def test_a_file_that_holds_no_parameters_is_one_line(tmp_path, content, said):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    with pytest.raises(ParameterError) as error:
        params.load([DEFAULT, path])
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("path", [".", "missing.yaml", "params.yaml/x"])
def test_a_file_that_cannot_be_read_is_named(path):
    with pytest.raises(ParameterError, match="cannot be read: "):
        params.load([ROOT / path])


def mutate(values: dict, draw: random.Random) -> None:
    """Change one key somewhere: drop it, rename it, or give it a strange value."""
    section = values
    while True:
        key = draw.choice(list(section))
        inner = section[key]
        if not (isinstance(inner, dict) and inner and draw.random() < 0.8):
            break
        section = inner
    strange = [
        None, True, -1, 0, 1, 3, 2.5, 10**18, 10**400, -0.0, 1e-300, float("nan"), float("inf"),
        "", "1e-3", "squentropy", "a\nb", "\ud800", "🌳", [], [1], [[]], ["a", None], {}, {"a": 1},
        {1: 2}, {None: 3}, {(1, 2): 3}, b"bytes", (1, 2), {1, 2},
    ]  # fmt: skip
    action = draw.choice(["drop", "rename", "set", "set", "set", "add", "element"])
    if action == "drop":
        del section[key]
    elif action == "rename":
        section[draw.choice([f"{key}s", str(key)[1:], "function-a", "x\r\ny", 7])] = section.pop(
            key
        )
    elif action == "add":
        section[draw.choice(["new", 3, None, ("a",)])] = draw.choice(strange)
    elif action == "element" and isinstance(inner, list) and inner:
        inner[draw.randrange(len(inner))] = draw.choice(strange)
    else:
        section[key] = draw.choice(strange)


def test_parameters_changed_at_random_are_a_study_or_one_line(default):
    draw, lines = random.Random(0), []
    for _ in range(1500):
        values = copy.deepcopy(default)
        for _ in range(draw.choice([1, 1, 2])):
            mutate(values, draw)
        try:
            study = params.parse(values)
        except ParameterError as error:
            lines.append(str(error))
        else:
            assert params.parse(yaml.safe_load(study.dump())) == study
            assert study.sweep_cells()
    assert 1000 < len(lines) < 1500
    assert [line for line in lines if not line.isprintable()] == []


def test_a_cell_by_hand_is_checked_as_the_grid_is():
    given = {"loss": "mse", "lr": 0.1, "dropout": 0.1, "n_layer": 2, "seed": 3}
    assert params.make_cell("sweep", "train", **given) == Cell("sweep", "mse", 0.1, 0.1, 2, 3)
    for wrong in ({"lr": 0.0}, {"dropout": 1.0}, {"n_layer": 0}, {"seed": -1}, {"loss": "msee"}):
        with pytest.raises(ParameterError, match=f"^train: {next(iter(wrong))} = "):
            params.make_cell("sweep", "train", **given | wrong)


def test_training_depends_on_its_phase_and_on_no_other_key():
    study = params.load([DEFAULT])
    keys = study.training_keys("final")
    assert keys["schedule"]["max_iters"] == study.final.max_iters != study.sweep.max_iters
    assert set(keys) == {"model", "train", "schedule", "evaluate"}
    assert keys["evaluate"] == {"link_floor": study.evaluate.link_floor}
    assert set(keys["schedule"]) == set(params.Schedule.model_fields)
    assert study.training_keys("reported") == keys
