"""Rule index_corpus: passages as an index that finds them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.job import job
from lorary.raw import brought, index

with job(snakemake.log[0], snakemake.rule):
    index.make(brought.corpus(snakemake.input[0], snakemake.params.setting["read"]), snakemake.output[0])
