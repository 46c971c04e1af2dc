"""Rule augmented_data: what the jobs of a type have made, as augmented data."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.augment.gather import gather
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    gather(
        raw=snakemake.input.table,
        made=snakemake.input.made,
        data=snakemake.output.data,
        about=snakemake.output.about,
        **snakemake.params.setting,
    )
