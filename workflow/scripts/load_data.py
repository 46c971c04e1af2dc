"""Rule load_data: augmented data as one checked table."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.data import rows

with job(snakemake.log[0], snakemake.rule):
    rows.save(rows.load([Path(path) for path in snakemake.input], **snakemake.params.setting), snakemake.output[0])
