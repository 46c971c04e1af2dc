"""Rule embed: what a translator reads of passages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.base.fetch import check_source
from lorary.core.job import job
from lorary.translate.embed import embed

setting, wildcards = snakemake.params.setting, snakemake.wildcards

with job(snakemake.log[0], f"{snakemake.rule} {wildcards.embeddings} {wildcards.start}-{wildcards.stop}"):
    check_source(snakemake.input.model, **setting["model_source"])
    embed(
        output=snakemake.output[0],
        passages=snakemake.input.table,
        rows=[int(wildcards.start), int(wildcards.stop) + 1],
        model=snakemake.input.model,
        states=setting["states"],
        modules=setting["modules"],
        precision=setting["precision"],
        max_length=setting["max_length"],
        threads=snakemake.threads,
        split_special_tokens=setting.get("split_special_tokens", False),
    )
