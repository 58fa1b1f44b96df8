"""Scores on the test split, stories, and the tables of the final runs."""

FINAL_RUNS = [
    f"{CHECKPOINTS}/final/{loss}/seed{seed}"
    for loss in STUDY.sweep.losses
    for seed in STUDY.final.seeds
] + [run_folder(cell) for cell in STUDY.reported_cells()]


SEEDS = {"final": STUDY.final.seeds, "reported": [c.seed for c in STUDY.reported_cells()]}


def files(phase, *names):
    """These files of a loss's runs, all seeds: one job scores them, since processes start slowly."""
    folder = f"{CHECKPOINTS}/{phase}/{{loss}}"
    return [f"{folder}/seed{seed}/{name}" for seed in SEEDS[phase] for name in names]


def folders(phase):
    """The same runs' folders, for a rule's `params`."""
    return lambda wildcards: expand(
        f"{CHECKPOINTS}/{phase}/{wildcards.loss}/seed{{seed}}", seed=SEEDS[phase]
    )


TABLES = expand(
    f"{RESULTS}/{{name}}",
    name=[
        "sweep.csv", "selected.json", "metrics.csv", "metrics.json", "reported.csv",
        "history.csv", "stories.csv", "corpus.json", "samples.json", "samples.md",
    ],
)  # fmt: skip


for phase in [phase for phase, seeds in SEEDS.items() if seeds]:

    rule:
        name:
            f"evaluate_{phase}"
        input:
            TOKENS,
            f"{DATA}/corpus/test.parquet",
            files(phase, "run.json", *WEIGHTS),
        output:
            files(phase, "test.json"),
        log:
            f"{LOGS}/{phase}/{{loss}}/evaluate.log",
        threads: STUDY.train.threads
        resources:
            gpu=gpus_a_run(),
        params:
            data=DATA,
            params=PARAMS,
            evaluate=STUDY.evaluate.model_dump(include={"batch_tokens", "seed_batches"}),
            code=lambda wildcards: code.digest(*code.EVALUATION, loss=wildcards.loss),
            runs=folders(phase),
        shell:
            "squentropy evaluate {params.runs} --data {params.data} --params {params.params} > {log} 2>&1"

    rule:
        name:
            f"sample_{phase}"
        input:
            TOKENS,
            files(phase, "run.json", *WEIGHTS),
        output:
            files(phase, "samples.json"),
        log:
            f"{LOGS}/{phase}/{{loss}}/sample.log",
        threads: STUDY.train.threads
        resources:
            gpu=gpus_a_run(),
        params:
            tokens=f"{DATA}/tokens",
            params=PARAMS,
            sample=STUDY.sample.model_dump(),
            code=code.digest(*code.SAMPLING),
            runs=folders(phase),
        shell:
            "squentropy sample {params.runs} --tokens {params.tokens} --params {params.params}"
            " > {log} 2>&1"


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
    log:
        f"{LOGS}/metrics.log",
    params:
        data=DATA,
        checkpoints=CHECKPOINTS,
        results=RESULTS,
        params=PARAMS,
        evaluate=STUDY.evaluate.model_dump(include={"bootstrap", "confidence"}),
        code=code.digest("tables.py", "statistics.py"),
    shell:
        "squentropy metrics {params.data} {params.checkpoints} {params.results}"
        " --params {params.params} > {log} 2>&1"
