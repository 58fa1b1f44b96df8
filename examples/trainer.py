"""Train a small GPT-2 from random weights with squentropy, using transformers' Trainer.

    pip install transformers accelerate
    python examples/trainer.py

`LossTrainer` works with every causal language model whose logits are its last hidden states times
its output embedding matrix: GPT-2, Llama and most others. Like Trainer, it supports several
processes and gradient accumulation.
"""

import tempfile

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from squentropy.losses import LOSSES

TEXT = b"Tim had a red kite. One day the kite was gone, and Tim was sad. It was in the tree! "
IGNORED = -100  # the label of positions that are not targets, such as padding


def causal_loss(
    name: str, hidden: Tensor, weight: Tensor, labels: Tensor, items: Tensor | int | None = None
) -> Tensor:
    """The loss of hidden states (B, T, D), each of which predicts the next of the labels (B, T).

    Returns the mean over the target positions or, with `items`, their sum divided by it. Trainer
    passes the number of targets in all micro-batches of a step as `items`, so a step's loss is the
    mean over its targets, however they are distributed.
    """
    hidden, targets = hidden[:, :-1], labels[:, 1:]
    counted = targets != IGNORED
    if not counted.any():
        return hidden.sum() * 0
    loss = LOSSES[name](hidden[counted], weight, targets[counted])
    return loss if items is None else loss * counted.sum() / items


class LossTrainer(Trainer):
    """Trainer with a loss from this library: `LossTrainer(..., loss="squentropy")`."""

    def __init__(self, *args, loss: str, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.loss = loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        # The loss needs no logits, but the model must return some: compute those of one position.
        outputs = model(**inputs, output_hidden_states=True, logits_to_keep=1)
        weight = self.accelerator.unwrap_model(model).get_output_embeddings().weight
        loss = causal_loss(self.loss, outputs.hidden_states[-1], weight, labels, num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes
        return (loss, outputs) if return_outputs else loss


def small_model() -> GPT2LMHeadModel:
    """A GPT-2 over bytes: two layers, 32 wide."""
    set_seed(0)
    special = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(vocab_size=256, n_positions=64, n_embd=32, n_layer=2, n_head=2, **special)
    return GPT2LMHeadModel(config)


def main(loss: str = "squentropy", steps: int = 40) -> list[float]:
    """Train and return the loss of each step."""
    ids = torch.tensor(list(TEXT * 8))[: 8 * 64].view(8, 64)
    data = [{"input_ids": row, "labels": row} for row in ids]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=steps, learning_rate=0.01, logging_steps=1,
            per_device_train_batch_size=4, gradient_accumulation_steps=2,
            use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = LossTrainer(small_model(), arguments, train_dataset=data, loss=loss)
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    first, *_, last = main()
    print(f"squentropy: {first:.3f} at the start, {last:.3f} at the end")
