"""Rule augment: rewrites and question-answer pairs of a batch of passages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.augment.augment import augment_passages
from lorary.base.fetch import check_source
from lorary.core.job import job

setting = {**snakemake.params.setting, **snakemake.params.others}
start, stop = int(snakemake.wildcards.start), int(snakemake.wildcards.stop) + 1
model = snakemake.input.get("model") or ""

with job(snakemake.log[0], f"augment {start}-{stop - 1}", network=not model):
    if model:
        check_source(model, **setting["model_source"])
    augment_passages(
        output=snakemake.output[0],
        raw=snakemake.input.table,
        rows=(start, stop),
        wording=snakemake.input.wording,
        model=model,
        settings=setting,
        threads=snakemake.threads,
    )
