# From what people bring to augmented data: passages read, or found for questions, and augmented by a language model.


rule read_passages:
    input:
        lambda w: JOBS["read_passages"][w.raw].inputs["files"],
    output:
        layout.RAW,
    log:
        layout.log("read_passages/{raw}"),
    wildcard_constraints:
        raw=planned("read_passages"),
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        setting=lambda w: JOBS["read_passages"][w.raw].params,
        cache=layout.CUT,
    script:
        "../scripts/read_passages.py"


rule index_corpus:
    input:
        lambda w: JOBS["index_corpus"][w.index].inputs["corpus"],
    output:
        directory(layout.CORPUS_INDEX),
    log:
        layout.log("index_corpus/{index}"),
    benchmark:
        layout.benchmark("index_corpus/{index}")
    wildcard_constraints:
        index=planned("index_corpus"),
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        setting=lambda w: JOBS["index_corpus"][w.index].params,
    script:
        "../scripts/index_corpus.py"


rule retrieve:
    input:
        files=lambda w: JOBS["retrieve"][w.raw].inputs["files"],
        index=lambda w: JOBS["retrieve"][w.raw].inputs["index"],
    output:
        layout.RETRIEVED,
    log:
        layout.log("retrieve/{raw}"),
    benchmark:
        layout.benchmark("retrieve/{raw}")
    wildcard_constraints:
        raw=planned("retrieve"),
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        setting=lambda w: JOBS["retrieve"][w.raw].params,
    script:
        "../scripts/retrieve.py"


# A batch of passages; what is finished is in the store first, as in training.
rule augment:
    input:
        table=lambda w: JOBS["augment"][w.part].inputs["table"],
        model=lambda w: JOBS["augment"][w.part].inputs["model"],
        wording=lambda w: JOBS["augment"][w.part].inputs["wording"],
    output:
        layout.AUGMENT_PART,
    log:
        layout.log("augment/{part}/{start}-{stop}"),
    benchmark:
        layout.benchmark("augment/{part}/{start}-{stop}")
    wildcard_constraints:
        part=planned("augment"),
        start=r"\d+",
        stop=r"\d+",
    conda:
        "../../envs/lorary.yaml"
    threads: threads
    resources:
        # A model here takes a GPU; a server is asked by a processor.
        gpu=lambda w: 1 if JOBS["augment"][w.part].inputs["model"] else 0,
        # For a cluster; each attempt asks for more.
        mem_mb=lambda w, input, attempt: JOBS["augment"][w.part].resources.memory_mb(input.model, attempt),
        runtime=lambda w, input, attempt: JOBS["augment"][w.part].resources.minutes(input.model, attempt),
    params:
        setting=lambda w: {k: v for k, v in JOBS["augment"][w.part].params.items() if k != "others"},
        # Decides nothing. Snakemake notices no change of params that are functions of the output.
        others=lambda w, output: JOBS["augment"][w.part].params["others"],
    script:
        "../scripts/augment.py"


rule augmented_data:
    input:
        table=lambda w: JOBS["augmented_data"][w.augmented].inputs["table"],
        made=lambda w: JOBS["augmented_data"][w.augmented].inputs["parts"],
    output:
        data=layout.AUGMENTED,
        about=layout.AUGMENTATION,
    log:
        layout.log("augmented_data/{augmented}"),
    wildcard_constraints:
        augmented=planned("augmented_data"),
    retries: 0
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    params:
        setting=lambda w: JOBS["augmented_data"][w.augmented].params,
    script:
        "../scripts/augmented_data.py"
