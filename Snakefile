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


localrules:
    all,


rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        f"{REPORT}/index.html",


onstart:
    write_parameters()


onsuccess:
    shell("squentropy show {RESULTS}")
    print(f"\nThe report: {REPORT}/index.html\nThe stories: {RESULTS}/samples.md")
