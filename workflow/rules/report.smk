"""Figures and the report, from the tables alone."""

FIGURES = expand(
    f"{REPORT}/figures/{{name}}.{{end}}", name=figure_names(STUDY), end=["svg", "png"]
)


rule figures:
    input:
        TABLES,
    output:
        [
            report(path, caption=f"../report/{Path(path).stem}.rst", category="Figures")
            if path.endswith(".svg")
            else path
            for path in FIGURES
        ],
    params:
        code=code.digest("figures.py", "results.py"),
    log:
        f"{LOGS}/figures.log",
    shell:
        "squentropy figures {RESULTS} {REPORT}/figures > {log} 2>&1"


rule report:
    input:
        TABLES,
        FIGURES,
        "notebooks/report.ipynb",
    output:
        f"{REPORT}/index.html",
    params:
        code=code.digest("report.py", "results.py"),
    log:
        f"{LOGS}/report.log",
    shell:
        "squentropy report {RESULTS} {REPORT}/figures {output} > {log} 2>&1"
