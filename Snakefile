"""The whole study: data, tokens, every trained cell, tables, stories, figures and the report.

snakemake --cores all                                     the default study, params.yaml
snakemake --cores all --configfile studies/smoke.yaml     another one
snakemake --cores all figures                             the figures, from the results alone
snakemake --cores all report                              the report, from the results alone
"""


configfile: "params.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/corpus.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


wildcard_constraints:
    loss="[^/]+",
    lr="[^/]+",
    seed="[0-9]+",
    iterations="[0-9]+",


# Run where Snakemake runs, since a cluster would take longer to start them.
localrules:
    all,
    select,


rule all:
    default_target: True
    input:
        # The runs too, which a clone lacks though it holds their tables.
        [f"{run_folder(cell)}/run.json" for cell in STUDY.sweep_cells()],
        [f"{run}/run.json" for runs in SCORED_RUNS.values() for run in runs],
        TABLES,
        FIGURES,
        f"{REPORT}/index.html",


onstart:
    start()
    tell(disk.summary(STUDY))
    if workflow.local_exec:
        tell(resources.summary(STUDY, workflow.cores, on_gpu()))
    # Folders that dvc.yaml names, empty if the study has no such runs.
    for phase in ("lengths", "reported"):
        Path(CHECKPOINTS, phase).mkdir(parents=True, exist_ok=True)


onerror:
    tell(what_failed())
    tell("That has failed, the rest is done; the same command goes on from here.")


onsuccess:
    tell(what_came())
