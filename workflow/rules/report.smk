"""Figures and the report.

`draw` and `page` make them if the tables have changed. `figures` and `report` are targets to
request by name: they use only the existing tables, as in a fresh clone.
"""

from squentropy.report import catalogue
from squentropy.report.figures import write_captions

FIGURES = expand(f"{REPORT}/figures/{{name}}.{{end}}", name=figure_names(STUDY), end=["svg", "png"])
FIGURES.append(f"{REPORT}/figures/manifest.json")
CAPTIONS = write_captions(STUDY, f".snakemake/squentropy/{STUDY.study}.captions")


rule draw:
    input:
        TABLES,
    output:
        [
            (
                report(
                    path,
                    caption=str(CAPTIONS[Path(path).stem]),
                    category="Figures",
                    labels={"figure": catalogue.figure(Path(path).stem).title},
                )
                if path.endswith(".svg")
                else path
            )
            for path in FIGURES
        ],
    log:
        f"{LOGS}/draw.log",
    resources:
        mem_mb=memory(resources.PROCESS_MB),
        runtime=minutes(),
    params:
        results=subpath(input[0], parent=True),
        figures=subpath(output[0], parent=True),
        code=digests.digest("figures"),
        labels=digests.labels(STUDY.sweep.losses),
    message:
        "Figures"
    shell:
        "squentropy figures {params.results} {params.figures} > {log} 2>&1 || failed {log}"


rule page:
    input:
        TABLES,
        FIGURES,
        local("notebooks/report.ipynb"),
        local("src/squentropy/report/report.html.j2"),
        local("src/squentropy/report/report.css"),
        local("src/squentropy/report/report.js"),
        local("src/squentropy/report/voices.js"),
        local("src/squentropy/report/ask.js"),
    output:
        page=report(
            f"{REPORT}/index.html",
            caption="../report/page.rst",
            category="The study",
            labels={"page": "the report"},
        ),
        # Written at the start; also saved in a storage, so that a copy of its tables is readable.
        params=[update(f"{RESULTS}/params.yaml")] if STORAGE else [],
    log:
        f"{LOGS}/page.log",
    resources:
        mem_mb=memory(resources.PROCESS_MB),
        runtime=minutes(),
    params:
        results=subpath(input[0], parent=True),
        figures=lambda wildcards: here(f"{REPORT}/figures"),
        # A function, because braces in text, as in a prompt or a file name, would be wildcards.
        shown=lambda wildcards: STUDY.dump(),
        code=digests.digest("report"),
        labels=digests.labels(STUDY.sweep.losses),
    message:
        "The report"
    shell:
        "squentropy report {params.results} {params.figures} {output.page} > {log} 2>&1 || failed {log}"


rule figures:
    log:
        f"{LOGS}/figures.log",
    resources:
        mem_mb=memory(resources.PROCESS_MB),
        runtime=minutes(),
    params:
        results=RESULTS,
        figures=f"{REPORT}/figures",
    message:
        "Figures, only from the tables"
    shell:
        "squentropy figures {params.results} {params.figures} > {log} 2>&1 || failed {log}"


rule report:
    log:
        f"{LOGS}/report.log",
    resources:
        mem_mb=memory(resources.PROCESS_MB),
        runtime=minutes(),
    params:
        results=RESULTS,
        figures=f"{REPORT}/figures",
        page=f"{REPORT}/index.html",
    message:
        "Figures and report, only from the tables"
    shell:
        "(squentropy figures {params.results} {params.figures}"
        " && squentropy report {params.results} {params.figures} {params.page})"
        " > {log} 2>&1 || failed {log}"
