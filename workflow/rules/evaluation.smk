"""Scores on the test split, stories, and the tables of the final runs."""

FINAL_RUNS = [
    f"{CHECKPOINTS}/final/{loss}/seed{seed}"
    for loss in STUDY.sweep.losses
    for seed in STUDY.final.seeds
] + [run_folder(cell) for cell in STUDY.reported_cells()]

TABLES = expand(
    f"{RESULTS}/{{name}}",
    name=[
        "sweep.csv", "selected.json", "metrics.csv", "metrics.json", "reported.csv",
        "history.csv", "stories.csv", "corpus.json", "samples.json", "samples.md",
    ],
)  # fmt: skip


wildcard_constraints:
    phase="final|reported",


rule evaluate:
    input:
        TOKENS,
        f"{DATA}/corpus/test.parquet",
        expand(
            f"{CHECKPOINTS}/{{{{phase}}}}/{{{{loss}}}}/seed{{{{seed}}}}/{{file}}",
            file=["run.json", *WEIGHTS],
        ),
    output:
        f"{CHECKPOINTS}/{{phase}}/{{loss}}/seed{{seed}}/test.json",
    params:
        evaluate=STUDY.evaluate.model_dump(include={"batch_tokens", "seed_batches"}),
        code=lambda wildcards: code.digest(*code.EVALUATION, loss=wildcards.loss),
        folder=subpath(output[0], parent=True),
    log:
        f"{LOGS}/{{phase}}/{{loss}}/seed{{seed}}_evaluate.log",
    threads: STUDY.train.threads
    resources:
        gpu=gpus_a_run(),
    shell:
        "squentropy evaluate {params.folder} --data {DATA} --params {PARAMS} > {log} 2>&1"


rule sample:
    input:
        TOKENS,
        expand(
            f"{CHECKPOINTS}/{{{{phase}}}}/{{{{loss}}}}/seed{{{{seed}}}}/{{file}}",
            file=["run.json", *WEIGHTS],
        ),
    output:
        f"{CHECKPOINTS}/{{phase}}/{{loss}}/seed{{seed}}/samples.json",
    params:
        sample=STUDY.sample.model_dump(),
        code=code.digest(*code.SAMPLING),
        folder=subpath(output[0], parent=True),
    log:
        f"{LOGS}/{{phase}}/{{loss}}/seed{{seed}}_sample.log",
    threads: STUDY.train.threads
    resources:
        gpu=gpus_a_run(),
    shell:
        "squentropy sample {params.folder} --tokens {DATA}/tokens --params {PARAMS} > {log} 2>&1"


rule metrics:
    input:
        f"{RESULTS}/selected.json",
        f"{DATA}/corpus/manifest.json",
        f"{DATA}/corpus/test.parquet",
        TOKENS,
        [f"{run_folder(cell)}/history.csv" for cell in STUDY.sweep_cells()],
        expand(
            "{folder}/{file}",
            folder=FINAL_RUNS,
            file=["run.json", "history.csv", "test.json", "samples.json"],
        ),
    output:
        TABLES[2:],
    params:
        evaluate=STUDY.evaluate.model_dump(include={"bootstrap", "confidence"}),
        code=code.digest("tables.py", "statistics.py"),
    log:
        f"{LOGS}/metrics.log",
    shell:
        "squentropy metrics {DATA} {CHECKPOINTS} {RESULTS} --params {PARAMS} > {log} 2>&1"
