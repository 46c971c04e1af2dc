"""Rule get_model: the base model as one directory."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.base.fetch import get_model
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule, network=True):
    source = snakemake.params.source
    get_model(source["model_path"], source["model_revision"], snakemake.output[0], source["trust_remote_code"])
