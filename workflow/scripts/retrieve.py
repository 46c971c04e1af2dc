"""Rule retrieve: the passages that go best with each question."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.raw import brought, table

with job(snakemake.log[0], snakemake.rule):
    setting = snakemake.params.setting
    rows = brought.of_questions(
        setting["questions"], setting["type"], setting["sample"], snakemake.input.index, setting["top_k"]
    )
    table.save(rows, snakemake.output[0])
