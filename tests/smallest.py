"""The smallest grammar study that runs every step. It takes seconds and learns nothing."""

STUDY = {
    "corpus": {"grammar": {"train": 100, "validation": 5, "test": 6}},
    "tokens": {"vocab_size": 300},
    "model": {"n_embd": 16, "n_head": 2, "block_size": 16},
    "sweep": {
        "losses": ["cross_entropy"],
        "lr": [0.003],
        "dropout": [0.1],
        "n_layer": [1],
        "max_iters": 6,
        "warmup_iters": 2,
        "eval_interval": 6,
    },
    "refine": {
        "max_runs": 3,
        "tie": 0.0,
        "max_iters": 6,
        "warmup_iters": 2,
        "eval_interval": 6,
    },
    "final": {
        "seeds": [1],
        "lengths": [4],
        "max_iters": 8,
        "warmup_iters": 2,
        "eval_interval": 4,
        "reported": None,
    },
    "evaluate": {"original_batches": 2, "bootstrap": 100},
    "sample": {"prompts": ["Once upon a time"], "max_tokens": 20},
}
