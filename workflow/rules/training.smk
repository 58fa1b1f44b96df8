"""All cells of the grid, the runs that refine each loss's best cell, and the final runs.

Each loss moves to the next phase independently of the others. With few cores, tuning comes first,
because the runs that refine a loss depend on each other and final runs do not.

Jobs keep their outputs, because the commands train only what is missing: a cell whose parameters,
data and code match its run.json is left unchanged.
"""

PROCESSES = STUDY.train.processes  # that share the work of one run
WEIGHTS = ["model.safetensors"]
CELL_FILES = ["run.json", "history.csv", *(WEIGHTS if STUDY.sweep.keep_weights else [])]


WHOLE_GRID = f"{LOGS}/sweep/whole.done"


rule grid:
    """On a single GPU: the whole grid in one job. Its rows then find their cells trained."""
    input:
        TOKENS,
    output:
        touch(WHOLE_GRID),
    log:
        f"{LOGS}/sweep/whole.log",
    priority: 20
    threads: STUDY.train.threads
    resources:
        gpu=gpus_a_run(),
        mem_mb=memory(resources.training_mb(STUDY)),
    params:
        checkpoints=lambda wildcards: here(CHECKPOINTS),
        tokens=subpath(input[0], parent=True),
        params=PARAMS,
        study=STUDY.training_keys("sweep"),
        sweep=STUDY.sweep.model_dump(),
        code=[digests.digest("training", loss=loss) for loss in STUDY.sweep.losses],
    message:
        "The whole grid at once"
    shell:
        "squentropy sweep {params.checkpoints} --tokens {params.tokens} --params {params.params}"
        " > {log} 2>&1 || failed {log}"


rule sweep:
    """A row of the grid: all dropouts and depths at one loss and learning rate."""
    input:
        TOKENS,
        lambda wildcards: WHOLE_GRID if one_gpu() and PROCESSES == 1 else [],
    output:
        [
            kept(f"{CHECKPOINTS}/{ROW}/{point}/{file}")
            for point in sorted(set(map(point_name, STUDY.sweep.points())))
            for file in CELL_FILES
        ],
    log:
        f"{LOGS}/{ROW}.log",
    priority: 20
    threads: STUDY.train.threads * PROCESSES
    resources:
        gpu=gpus_a_run(PROCESSES),
        mem_mb=memory(PROCESSES * resources.training_mb(STUDY)),
        runtime=minutes(resources.training_flops(STUDY, "sweep") / PROCESSES),
    params:
        checkpoints=lambda wildcards: here(CHECKPOINTS),
        tokens=subpath(input[0], parent=True),
        params=PARAMS,
        study=STUDY.training_keys("sweep"),
        seed=STUDY.sweep.seed,
        code=lambda wildcards: digests.digest("training", loss=wildcards.loss),
    message:
        "{wildcards.loss}: the grid at learning rate {wildcards.lr}"
    shell:
        "squentropy sweep {params.checkpoints} --tokens {params.tokens} --params {params.params}"
        " --loss {wildcards.loss} --lr {wildcards.lr} > {log} 2>&1 || failed {log}"


rule refine:
    """Longer runs around a loss's best cell; each run determines the next."""
    input:
        TOKENS,
        lambda wildcards: [
            f"{run_folder(cell)}/run.json"
            for cell in STUDY.sweep_cells()
            if slug(cell.loss) == wildcards.loss
        ],
    output:
        SELECTED,
    log:
        f"{LOGS}/refine/{{loss}}.log",
    priority: 10
    threads: STUDY.train.threads * PROCESSES
    resources:
        gpu=gpus_a_run(PROCESSES),
        mem_mb=memory(PROCESSES * resources.training_mb(STUDY)),
        runtime=minutes(resources.training_flops(STUDY, "refine") / PROCESSES),
    params:
        checkpoints=lambda wildcards: here(CHECKPOINTS),
        tokens=subpath(input[0], parent=True),
        params=PARAMS,
        study=STUDY.training_keys("refine"),
        rule=STUDY.refine.model_dump(),
        reading=STUDY.plan.reading,
        code=lambda wildcards: [
            digests.digest("training", loss=wildcards.loss),
            digests.digest("selection"),
        ],
    message:
        "{wildcards.loss}: longer runs around its best cell"
    shell:
        "squentropy refine {params.checkpoints} --tokens {params.tokens} --params {params.params}"
        " --loss {wildcards.loss} > {log} 2>&1 || failed {log}"


rule select:
    input:
        [f"{run_folder(cell)}/run.json" for cell in STUDY.sweep_cells()],
        ALL_SELECTED,
    output:
        SELECTION_TABLES,
    log:
        f"{LOGS}/select.log",
    params:
        checkpoints=lambda wildcards: here(CHECKPOINTS),
        results=subpath(output[0], parent=True),
        params=PARAMS,
        sweep=STUDY.sweep.model_dump(exclude={"keep_weights"}),
        refine=STUDY.refine.model_dump(),
        plan=STUDY.plan.reading,
        code=digests.digest("selection"),
        labels=digests.labels(STUDY.sweep.losses),
    message:
        "The selected hyperparameters"
    shell:
        "squentropy select {params.checkpoints} {params.results} --params {params.params}"
        " > {log} 2>&1 || failed {log}"


rule final:
    """Each loss at full length, with its selected hyperparameters."""
    input:
        TOKENS,
        selected=SELECTED,
    output:
        [
            kept(f"{CHECKPOINTS}/{RUNS['final']}/{file}")
            for file in ["run.json", "history.csv", *WEIGHTS]
        ],
    log:
        f"{LOGS}/{RUNS['final']}.log",
    threads: STUDY.train.threads * PROCESSES
    resources:
        gpu=gpus_a_run(PROCESSES),
        mem_mb=memory(PROCESSES * resources.training_mb(STUDY)),
        runtime=minutes(resources.training_flops(STUDY, "final") / PROCESSES),
    params:
        tokens=subpath(input[0], parent=True),
        params=PARAMS,
        study=STUDY.training_keys("final"),
        code=lambda wildcards: digests.digest("training", loss=wildcards.loss),
        folder=subpath(output[0], parent=True),
    message:
        "{wildcards.loss}: final run with seed {wildcards.seed}"
    shell:
        "squentropy train {params.folder} --tokens {params.tokens} --params {params.params} --phase final"
        " --loss {wildcards.loss} --selected {input.selected} --seed {wildcards.seed}"
        " > {log} 2>&1 || failed {log}"


if STUDY.final.lengths:

    rule lengths:
        """The same at shorter lengths, each with its own schedule."""
        input:
            TOKENS,
            SELECTED,
        output:
            [kept(path) for path in files("lengths", "run.json", "history.csv", *WEIGHTS)],
        log:
            f"{LOGS}/lengths/{{loss}}.log",
        threads: STUDY.train.threads * PROCESSES
        resources:
            gpu=gpus_a_run(PROCESSES),
            mem_mb=memory(PROCESSES * resources.training_mb(STUDY)),
            runtime=minutes(resources.training_flops(STUDY, "lengths") / PROCESSES),
        params:
            checkpoints=lambda wildcards: here(CHECKPOINTS),
            tokens=subpath(input[0], parent=True),
            params=PARAMS,
            study=[STUDY.training_keys("lengths", length) for length in STUDY.final.lengths],
            code=lambda wildcards: digests.digest("training", loss=wildcards.loss),
        message:
            "{wildcards.loss}: shorter runs"
        shell:
            "squentropy lengths {params.checkpoints} --tokens {params.tokens} --params {params.params}"
            " --loss {wildcards.loss} > {log} 2>&1 || failed {log}"


rule reported:
    """The best cell reported by the original study."""
    input:
        TOKENS,
    output:
        [
            kept(f"{CHECKPOINTS}/{RUNS['reported']}/{file}")
            for file in ["run.json", "history.csv", *WEIGHTS]
        ],
    log:
        f"{LOGS}/{RUNS['reported']}.log",
    priority: 5  # a single run, which would otherwise remain at the end
    threads: STUDY.train.threads * PROCESSES
    resources:
        gpu=gpus_a_run(PROCESSES),
        mem_mb=memory(PROCESSES * resources.training_mb(STUDY)),
        runtime=minutes(resources.training_flops(STUDY, "reported") / PROCESSES),
    params:
        tokens=subpath(input[0], parent=True),
        params=PARAMS,
        study=STUDY.training_keys("reported"),
        at=[
            f"--at {key}={value!r}"
            for cell in STUDY.reported_cells()[:1]
            for key, value in cell.point.items()
        ],
        code=lambda wildcards: digests.digest("training", loss=wildcards.loss),
        folder=subpath(output[0], parent=True),
    message:
        "The original study's best cell: {wildcards.loss}"
    shell:
        "squentropy train {params.folder} --tokens {params.tokens} --params {params.params}"
        " --phase reported --loss {wildcards.loss} {params.at} --seed {wildcards.seed}"
        " > {log} 2>&1 || failed {log}"
