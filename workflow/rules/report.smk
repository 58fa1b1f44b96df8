"""Figures and the report, from the tables alone."""

FIGURES = expand(f"{REPORT}/figures/{{name}}.{{end}}", name=figure_names(STUDY), end=["svg", "png"])


rule figures:
    input:
        TABLES,
    output:
        [
            (
                report(path, caption=f"../report/{Path(path).stem}.rst", category="Figures")
                if path.endswith(".svg")
                else path
            )
            for path in FIGURES
        ],
    log:
        f"{LOGS}/figures.log",
    params:
        results=subpath(input[0], parent=True),
        figures=subpath(output[0], parent=True),
        code=code.digest(*code.FIGURES),
    shell:
        "squentropy figures {params.results} {params.figures} > {log} 2>&1"


rule report:
    input:
        TABLES,
        FIGURES,
        "notebooks/report.ipynb",
        "src/squentropy/report.html.j2",
        "src/squentropy/report.css",
    output:
        f"{REPORT}/index.html",
    log:
        f"{LOGS}/report.log",
    params:
        results=subpath(input[0], parent=True),
        figures=lambda wildcards: f"{REPORT}/figures",
        code=code.digest(*code.REPORT),
    shell:
        "squentropy report {params.results} {params.figures} {output} > {log} 2>&1"
