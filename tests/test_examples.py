"""The losses in a plain PyTorch training loop and in the Trainer of transformers.

pytest tests/test_examples.py
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from squentropy.losses import LOSSES

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("loss", ["squentropy", "mse"])
def test_a_plain_torch_model_learns(loss):
    first, *_, last = load("plain_torch").main(loss, steps=12)
    assert last < 0.8 * first


# --- Trainer ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trainer():
    return load("trainer")


@pytest.fixture(scope="module")
def data() -> list[dict]:
    """Eight rows; some begin with ignored targets, like a prompt, and one has no target."""
    ids = torch.randint(0, 256, (8, 12), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    for row, ignored in enumerate((0, 3, 11, 0, 12, 6, 1, 0)):
        labels[row, :ignored] = -100
    return [{"input_ids": i, "labels": y} for i, y in zip(ids, labels)]


def naive_squentropy(logits, labels):
    """Squentropy by its definition, from whole logits: the mean over targets."""
    logits, targets = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    logits, targets = logits[targets != -100], targets[targets != -100]
    wrong = logits.square().sum(-1) - logits.gather(-1, targets[:, None])[:, 0].square()
    return F.cross_entropy(logits, targets) + (wrong / (logits.shape[-1] - 1)).mean()


def make(trainer, data, folder, batch: int, accumulation: int, loss: str = "squentropy"):
    from transformers import TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=1, learning_rate=0.01, logging_steps=1,
        per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
        use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        max_grad_norm=0.0, optim="sgd",
    )  # fmt: skip
    model = trainer.small_model().double().eval()
    model.train = lambda mode=True: model  # no dropout, so that steps are comparable
    return trainer.LossTrainer(model, arguments, train_dataset=data, loss=loss)


@pytest.mark.slow
def test_trainers_loss_is_squentropy_by_its_definition(trainer, data, tmp_path):
    it = make(trainer, data, tmp_path, batch=8, accumulation=1)
    batch = {key: torch.stack([row[key] for row in data]) for key in data[0]}
    with torch.no_grad():
        logits = it.model(input_ids=batch["input_ids"]).logits
        expected = naive_squentropy(logits, batch["labels"])
        assert it.compute_loss(it.model, batch).item() == pytest.approx(expected.item(), rel=1e-12)
        targets = (batch["labels"][:, 1:] != -100).sum()
        shared = it.compute_loss(it.model, batch, num_items_in_batch=2 * targets)
        assert shared.item() == pytest.approx(expected.item() / 2, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "accumulation"), [(2, 4), (1, 8)])
def test_accumulated_steps_are_those_of_the_whole_batch(
    trainer, data, tmp_path, batch, accumulation
):
    """Even though micro-batches have different numbers of targets, and one has none."""
    steps = []
    for b, a in ((8, 1), (batch, accumulation)):
        it = make(trainer, data, tmp_path, b, a)
        before = [p.detach().clone() for p in it.model.parameters()]
        it.train()
        loss = next(entry["loss"] for entry in it.state.log_history if "loss" in entry)
        moved = [p.detach() - q for p, q in zip(it.model.parameters(), before)]
        steps.append((loss, torch.cat([m.flatten() for m in moved])))
    (whole, moved), (parts, moved_in_parts) = steps
    assert float(parts) == pytest.approx(float(whole), rel=1e-6)  # logged in float32
    assert moved.abs().max() > 1e-5
    torch.testing.assert_close(moved_in_parts, moved, rtol=1e-9, atol=1e-14)


@pytest.mark.slow
def test_a_small_gpt2_learns(trainer):
    first, *_, last = trainer.main("squentropy", steps=8)
    assert float(last) < 0.9 * float(first)


@pytest.mark.slow
def test_positions_that_are_no_targets_get_no_gradient(trainer):
    hidden = torch.randn(1, 6, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 4, dtype=torch.float64)
    labels = torch.tensor([[1, 2, -100, 3, -100, -100]])
    loss = trainer.causal_loss("squentropy", hidden, weight, labels)
    loss.backward()
    used = [0, 2]  # positions that predict the labels 2 and 3
    expected = LOSSES["squentropy"](hidden[0, used], weight, torch.tensor([2, 3]))
    assert loss.item() == expected.item()
    touched = hidden.grad[0].abs().sum(-1) > 0
    assert touched.tolist() == [position in used for position in range(6)]
