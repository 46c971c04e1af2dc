"""Rule pack: says what the adapters are in now, or that no run wants that."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorary.core.errors import LoraryError
from lorary.core.job import job

with job(snakemake.log[0], snakemake.rule):
    if not snakemake.input.packs:
        raise LoraryError(
            "pack is false: set pack: true in the config, or give --config pack=true, now and in later calls. A call"
            " without it makes directories again."
        )
    logging.getLogger("lorary").info("%d packs", len(snakemake.input.packs))
