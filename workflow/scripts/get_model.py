"""Rule get_model: the base model as one directory."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.base.fetch import get_model
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule, network=True):
    get_model(
        snakemake.params.model_path,
        snakemake.params.model_revision,
        snakemake.output[0],
        snakemake.params.trust_remote_code,
    )
