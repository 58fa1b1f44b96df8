"""The whole study: data, tokens, all trained cells, tables, stories, figures and the report.

snakemake --cores all                                     the default study, params.yaml
snakemake --cores all --configfile studies/smoke.yaml     another study
snakemake --cores all figures                             only the figures, from the results
snakemake --cores all report                              only the report, from the results
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


# These run where Snakemake runs, because a cluster would take longer to start them.
localrules:
    all,
    select,


rule all:
    default_target: True
    input:
        # Include the runs: a clone contains their tables but not the runs.
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
    # dvc.yaml lists these folders, so create them even if the study has no such runs.
    for phase in ("lengths", "reported"):
        Path(CHECKPOINTS, phase).mkdir(parents=True, exist_ok=True)


onerror:
    tell(what_failed())
    tell(
        "The jobs above failed, and dependent jobs did not run; the same command resumes from here."
    )


onsuccess:
    tell(what_came())
