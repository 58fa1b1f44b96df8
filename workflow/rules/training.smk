"""Every cell of the grid, each loss's best cell, and the final runs."""

WEIGHTS = ["model.safetensors"]


rule sweep_cell:
    input:
        TOKENS,
    output:
        expand(
            f"{CHECKPOINTS}/sweep/{{{{loss}}}}/lr{{{{lr}}}}_dropout{{{{dropout}}}}_layers{{{{n_layer}}}}/{{file}}",
            file=["run.json", "history.csv", *(WEIGHTS if STUDY.sweep.keep_weights else [])],
        ),
    params:
        study=STUDY.training_keys("sweep"),
        seed=STUDY.sweep.seed,
        code=lambda wildcards: code.digest(*code.TRAINING, loss=wildcards.loss),
        folder=subpath(output[0], parent=True),
    log:
        f"{LOGS}/sweep/{{loss}}/lr{{lr}}_dropout{{dropout}}_layers{{n_layer}}.log",
    threads: STUDY.train.threads
    resources:
        gpu=gpus_a_run(),
    shell:
        "squentropy train {params.folder} --tokens {DATA}/tokens --params {PARAMS} --phase sweep"
        " --loss {wildcards.loss} --lr {wildcards.lr} --dropout {wildcards.dropout}"
        " --n-layer {wildcards.n_layer} --seed {params.seed} > {log} 2>&1"


rule select:
    input:
        [f"{run_folder(cell)}/run.json" for cell in STUDY.sweep_cells()],
    output:
        f"{RESULTS}/sweep.csv",
        f"{RESULTS}/selected.json",
    params:
        code=code.digest("tables.py"),
    log:
        f"{LOGS}/select.log",
    shell:
        "squentropy select {CHECKPOINTS} {RESULTS} --params {PARAMS} > {log} 2>&1"


rule final:
    input:
        TOKENS,
        selected=f"{RESULTS}/selected.json",
    output:
        expand(
            f"{CHECKPOINTS}/final/{{{{loss}}}}/seed{{{{seed}}}}/{{file}}",
            file=["run.json", "history.csv", *WEIGHTS],
        ),
    params:
        study=STUDY.training_keys("final"),
        code=lambda wildcards: code.digest(*code.TRAINING, loss=wildcards.loss),
        folder=subpath(output[0], parent=True),
    log:
        f"{LOGS}/final/{{loss}}/seed{{seed}}.log",
    threads: STUDY.train.threads
    resources:
        gpu=gpus_a_run(),
    shell:
        "squentropy train {params.folder} --tokens {DATA}/tokens --params {PARAMS} --phase final"
        " --loss {wildcards.loss} --selected {input.selected} --seed {wildcards.seed}"
        " > {log} 2>&1"


rule reported:
    """The best cell that the seed study reports."""
    input:
        TOKENS,
    output:
        expand(
            f"{CHECKPOINTS}/reported/{{{{loss}}}}/seed{{{{seed}}}}/{{file}}",
            file=["run.json", "history.csv", *WEIGHTS],
        ),
    params:
        study=STUDY.training_keys("reported"),
        cell=STUDY.final.reported.model_dump() if STUDY.final.reported else None,
        code=lambda wildcards: code.digest(*code.TRAINING, loss=wildcards.loss),
        folder=subpath(output[0], parent=True),
    log:
        f"{LOGS}/reported/{{loss}}/seed{{seed}}.log",
    threads: STUDY.train.threads
    resources:
        gpu=gpus_a_run(),
    shell:
        "squentropy train {params.folder} --tokens {DATA}/tokens --params {PARAMS}"
        " --phase reported --loss {wildcards.loss} --lr {params.cell[lr]}"
        " --dropout {params.cell[dropout]} --n-layer {params.cell[n_layer]}"
        " --seed {wildcards.seed} > {log} 2>&1"
