"""Scores on the test split, stories, and the tables of the final runs."""

SCORED_RUNS = {
    phase: [
        f"{CHECKPOINTS}/{folder}".format(loss=slug(loss))
        for loss in losses
        for folder in SCORED[phase]
    ]
    for phase, losses in {
        "final": STUDY.sweep.losses,
        "lengths": STUDY.sweep.losses,
        "reported": [cell.loss for cell in STUDY.reported_cells()],
    }.items()
}


for phase in [phase for phase in ("final", "reported") if SCORED[phase]]:

    rule:
        name:
            f"evaluate_{phase}"
        input:
            TOKENS,
            f"{DATA}/corpus/manifest.json",
            f"{DATA}/corpus/test.parquet",
            scored(phase, "run.json", *WEIGHTS),
        output:
            scored(phase, "test.json"),
        log:
            f"{LOGS}/{phase}/{{loss}}/evaluate.log",
        threads: STUDY.train.threads
        resources:
            gpu=gpus_a_run(),
            mem_mb=memory(resources.training_mb(STUDY)),
            runtime=minutes(resources.evaluation_flops(STUDY, phase)),
        params:
            data=subpath(input[0], ancestor=2),
            params=PARAMS,
            evaluate=STUDY.evaluate.scoring_keys() | {"reading": STUDY.plan.reading},
            code=lambda wildcards: digests.digest("evaluation", loss=wildcards.loss),
            runs=folders(scored(phase, "run.json")),
        message:
            "{wildcards.loss}: scores on the test stories"
        shell:
            "squentropy evaluate {params.runs} --data {params.data} --params {params.params}"
            " > {log} 2>&1 || failed {log}"

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
            mem_mb=memory(resources.training_mb(STUDY)),
            runtime=minutes(resources.evaluation_flops(STUDY, phase)),
        params:
            tokens=subpath(input[0], parent=True),
            params=PARAMS,
            sample=STUDY.sample.model_dump(),
            code=lambda wildcards: digests.digest("sampling", loss=wildcards.loss),
            runs=folders(files(phase, "run.json")),
        message:
            "{wildcards.loss}: stories"
        shell:
            "squentropy sample {params.runs} --tokens {params.tokens} --params {params.params}"
            " > {log} 2>&1 || failed {log}"


rule voices:
    """Small models to embed in the report."""
    input:
        TOKENS,
        [
            f"{run_folder(cell)}/{file}"
            for cell in STUDY.voice_cells()
            for file in ["run.json", "test.json", *WEIGHTS]
        ],
    output:
        VOICES,
    log:
        f"{LOGS}/voices.log",
    threads: STUDY.train.threads
    resources:
        mem_mb=memory(resources.PROCESS_MB),
        runtime=minutes(),
    params:
        data=subpath(input[0], ancestor=2),
        checkpoints=lambda wildcards: here(CHECKPOINTS),
        results=subpath(output[0], parent=True),
        params=PARAMS,
        plan=STUDY.plan.reading,
        code=digests.digest("voices"),
    message:
        "Models that generate stories in the report"
    shell:
        "squentropy voices {params.data} {params.checkpoints} {params.results}"
        " --params {params.params} > {log} 2>&1 || failed {log}"


rule metrics:
    input:
        f"{DATA}/corpus/manifest.json",
        SELECTION_TABLES,
        VOICES,
        f"{DATA}/corpus/test.parquet",
        TOKENS,
        expand(
            "{folder}/{file}",
            folder=[run_folder(cell) for cell in STUDY.sweep_cells()],
            file=["run.json", "history.csv"],
        ),
        ALL_SELECTED,
        [
            f"{folder}/{file}"
            for phase, runs in SCORED_RUNS.items()
            for folder in runs
            for file in ["run.json", "history.csv", "test.json"]
        ],
        [f"{run}/samples.json" for phase in ("final", "reported") for run in SCORED_RUNS[phase]],
    output:
        [path for path in TABLES if path not in (*SELECTION_TABLES, VOICES)],
    log:
        f"{LOGS}/metrics.log",
    resources:
        mem_mb=memory(resources.PROCESS_MB),
        runtime=minutes(),
    params:
        data=subpath(input[0], ancestor=2),
        checkpoints=lambda wildcards: here(CHECKPOINTS),
        results=subpath(output[0], parent=True),
        params=PARAMS,
        tables=STUDY.table_keys(),
        code=digests.digest("tables"),
        labels=digests.labels(STUDY.sweep.losses),
    message:
        "Tables"
    shell:
        "squentropy metrics {params.data} {params.checkpoints} {params.results}"
        " --params {params.params} > {log} 2>&1 || failed {log}"
