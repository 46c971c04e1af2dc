"""pack: true, as a user has it: packed afterwards, read as it is, and unpacked byte for byte."""

import os
import subprocess
import sys

import tiny


def test_a_finished_run_is_packed_and_unpacked_without_training(finished):
    before = finished.adapters()
    said = finished.snakemake("pack", pack=True).stdout
    assert "2 packs" in said
    assert "6 of 6 adapters are in place: 0 trained and 6 linked from the store by this call" in said
    assert finished.adapters() == {}
    files = [
        path for name in ("adapters", "store") for path in (finished.folder / "results" / name).rglob("*.safetensors")
    ]
    assert len(files) == 2 + 2 + 1  # and the base weight

    def unpack(*names):
        command = [sys.executable, "-m", "lorary", "unpack", *names]
        env = {**os.environ, "PYTHONPATH": str(tiny.ROOT / "workflow")}
        return subprocess.run(command, cwd=finished.folder, env=env, capture_output=True, text=True)

    said = unpack("total/data_1", "total/data_2/passage_0").stdout
    assert said.startswith("3 adapters unpacked in results/adapters/tiny/")
    some = finished.adapters()
    assert len(some) == 3
    assert some.items() <= before.items()
    assert unpack().stdout.startswith("6 adapters unpacked")
    assert finished.adapters() == before
    assert "Nothing to be done" in finished.snakemake(pack=True).stdout
