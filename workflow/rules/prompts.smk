# The prompt ids of the passages, in files of 64 passages or of one batch where that is more.


rule build_prompts:
    input:
        model=lambda w: JOBS["build_prompts"][w.prompts].inputs["model"],
        table=lambda w: JOBS["build_prompts"][w.prompts].inputs["table"],
        templates=lambda w: JOBS["build_prompts"][w.prompts].inputs["templates"],
        fewshot=lambda w: JOBS["build_prompts"][w.prompts].inputs["fewshot"],
    output:
        layout.PROMPTS,
    log:
        layout.log("build_prompts/{prompts}/{start}-{stop}"),
    benchmark:
        layout.benchmark("build_prompts/{prompts}/{start}-{stop}")
    wildcard_constraints:
        start=r"\d+",
        stop=r"\d+",
    retries: 0
    # A rule with a group is no local one.
    group:
        "prompts" if PROMPTS_ARE_GROUPED else None
    localrule: True
    conda:
        "../../envs/lorary.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        setting=lambda w: JOBS["build_prompts"][w.prompts].params,
    script:
        "../scripts/build_prompts.py"
