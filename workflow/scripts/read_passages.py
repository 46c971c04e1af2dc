"""Rule read_passages: documents, cut into passages, or a table of them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.raw import brought, table

with job(snakemake.log[0], snakemake.rule):
    setting = snakemake.params.setting
    if "documents" in setting:
        rows = brought.of_documents(
            setting["documents"], setting["passage_words"], snakemake.params.cache, setting["sample"]
        )
    else:
        rows = brought.of_table(setting["corpus"], setting["sample"])
    table.save(rows, snakemake.output[0])
