"""Scores on the test split, stories, and the tables of the final runs."""

FINAL_RUNS = [
    f"{CHECKPOINTS}/final/{slug(loss)}/seed{seed}"
    for loss in STUDY.sweep.losses
    for seed in STUDY.final.seeds
] + [run_folder(cell) for cell in STUDY.reported_cells()]

TABLES = expand(f"{RESULTS}/{{name}}", name=[*params.TABLES, "manifest.json"])


for phase in [phase for phase, seeds in SEEDS.items() if seeds]:

    rule:
        name:
            f"evaluate_{phase}"
        input:
            TOKENS,
            f"{DATA}/corpus/manifest.json",
            f"{DATA}/corpus/test.parquet",
            files(phase, "run.json", *WEIGHTS),
        output:
            files(phase, "test.json"),
        log:
            f"{LOGS}/{phase}/{{loss}}/evaluate.log",
        threads: STUDY.train.threads
        resources:
            gpu=gpus_a_run(),
            mem_mb=memory(needs.training_mb(STUDY)),
            runtime=minutes(needs.evaluation_flops(STUDY, phase)),
        params:
            data=subpath(input[0], ancestor=2),
            params=PARAMS,
            evaluate=STUDY.evaluate.model_dump(include={"batch_tokens", "seed_batches", "link_floor"}),
            code=lambda wildcards: code.digest(*code.EVALUATION, loss=wildcards.loss),
            runs=folders(phase),
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
            mem_mb=memory(needs.training_mb(STUDY)),
            runtime=minutes(needs.evaluation_flops(STUDY, phase)),
        params:
            tokens=subpath(input[0], parent=True),
            params=PARAMS,
            sample=STUDY.sample.model_dump(),
            code=lambda wildcards: code.digest(*code.SAMPLING, loss=wildcards.loss),
            runs=folders(phase),
        shell:
            "squentropy sample {params.runs} --tokens {params.tokens} --params {params.params}"
            " > {log} 2>&1 || failed {log}"


rule metrics:
    input:
        f"{DATA}/corpus/manifest.json",
        TABLES[:2],
        f"{DATA}/corpus/test.parquet",
        TOKENS,
        expand(
            "{folder}/{file}",
            folder=[run_folder(cell) for cell in STUDY.sweep_cells()],
            file=["run.json", "history.csv"],
        ),
        expand(
            "{folder}/{file}",
            folder=FINAL_RUNS,
            file=["run.json", "history.csv", "test.json", "samples.json"],
        ),
    output:
        TABLES[2:],
    log:
        f"{LOGS}/metrics.log",
    resources:
        mem_mb=memory(needs.PROCESS_MB),
        runtime=minutes(),
    params:
        data=subpath(input[0], ancestor=2),
        checkpoints=lambda wildcards: here(CHECKPOINTS),
        results=subpath(output[0], parent=True),
        params=PARAMS,
        tables=STUDY.table_keys(),
        code=code.digest(*code.TABLES, *code.QUALITY, *code.THEORY),
        losses=code.catalogue(STUDY.sweep.losses),
    shell:
        "squentropy metrics {params.data} {params.checkpoints} {params.results}"
        " --params {params.params} > {log} 2>&1 || failed {log}"
