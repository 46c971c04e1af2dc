"""Rules export_routes: a table from question to adapter."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.answer.route import export
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    export(**snakemake.params.setting, output=snakemake.output[0])
