"""The stories and their tokens."""


rule corpus:
    output:
        expand(f"{DATA}/corpus/{{split}}.parquet", split=["train", "validation", "test"]),
        f"{DATA}/corpus/manifest.json",
    log:
        f"{LOGS}/corpus.log",
    localrule: bool(STORAGE) and STUDY.corpus.source in given.SOURCES  # not in the storage
    resources:
        **{"gpu": gpus_a_run()} if STUDY.corpus.source == "model" else {},
        mem_mb=memory(resources.corpus_mb(STUDY)),
        runtime=minutes(resources.drawing_flops(STUDY)),
    params:
        folder=subpath(output[0], parent=True),
        params=PARAMS,
        corpus=STUDY.corpus.relevant(),
        given=given_files(),
        code=digests.corpus(STUDY.corpus.source),
    message:
        "The stories"
    shell:
        "squentropy corpus {params.folder} --params {params.params} > {log} 2>&1 || failed {log}"


rule tokens:
    input:
        rules.corpus.output,
    output:
        TOKENS,
    log:
        f"{LOGS}/tokens.log",
    resources:
        mem_mb=memory(resources.PROCESS_MB),
        runtime=minutes(),
    params:
        corpus=subpath(input[0], parent=True),
        folder=subpath(output[0], parent=True),
        params=PARAMS,
        tokens=STUDY.tokens.model_dump(),
        code=digests.digest("tokens"),
    message:
        "The tokens of the stories"
    shell:
        "squentropy tokenize {params.corpus} {params.folder} --params {params.params}"
        " > {log} 2>&1 || failed {log}"
