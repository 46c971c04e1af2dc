# The prompt ids of the passages, in files of 64 passages or of one batch where that is more.


rule build_prompts:
    input:
        model=lambda w: prompt_settings(w)["model"],
        table=lambda w: prompt_settings(w)["table"],
        templates=lambda w: prompt_settings(w)["prompt_templates"],
        fewshot=lambda w: prompt_settings(w)["fewshot"] or [],
    output:
        "results/prompts/{prompts}/{start}-{stop}.parquet",
    log:
        "logs/build_prompts/{prompts}/{start}-{stop}.log",
    benchmark:
        "benchmarks/build_prompts/{prompts}/{start}-{stop}.tsv"
    wildcard_constraints:
        start=r"\d+",
        stop=r"\d+",
    retries: 0
    # A rule with a group is no local one.
    group:
        "prompts" if len(PROMPTS) > LOCAL_PROMPTS else None
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        with_cot=lambda w: prompt_settings(w)["with_cot"],
        chat_date=lambda w: prompt_settings(w)["chat_date"],
        max_length=lambda w: prompt_settings(w)["max_length"],
    script:
        "../scripts/build_prompts.py"
