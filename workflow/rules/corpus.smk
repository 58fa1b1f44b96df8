"""Stories, and their tokens."""

from glob import glob


def story_files():
    """What the corpus is made of, as far as it lies here: a change of it makes the corpus anew."""
    if STUDY.corpus.source == "grammar":
        return sorted(glob("src/squentropy/corpus/stories/**/*.yaml", recursive=True))
    if STUDY.corpus.source == "files":
        files = STUDY.corpus.files
        patterns = [*files.train, *files.validation, *files.test]
        return sorted({path for pattern in patterns for path in glob(pattern, recursive=True)})
    return []


rule corpus:
    input:
        story_files(),
    output:
        expand(f"{DATA}/corpus/{{split}}.parquet", split=["train", "validation", "test"]),
        f"{DATA}/corpus/manifest.json",
    log:
        f"{LOGS}/corpus.log",
    params:
        folder=f"{DATA}/corpus",
        params=PARAMS,
        corpus=STUDY.corpus.relevant(),
        code=code.digest(*code.corpus(STUDY.corpus.source)),
    shell:
        "squentropy corpus {params.folder} --params {params.params} > {log} 2>&1"


rule tokens:
    input:
        rules.corpus.output,
    output:
        TOKENS,
    log:
        f"{LOGS}/tokens.log",
    params:
        corpus=f"{DATA}/corpus",
        folder=f"{DATA}/tokens",
        params=PARAMS,
        tokens=STUDY.tokens.model_dump(),
        code=code.digest("tokenizer.py"),
    shell:
        "squentropy tokenize {params.corpus} {params.folder} --params {params.params} > {log} 2>&1"
