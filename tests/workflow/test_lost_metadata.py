"""What was made says what it was made of, whatever Snakemake remembers."""

import json
import shutil
import subprocess

import pytest

from lorary.adapters.digest import digest_base_weight


def forget(project):
    shutil.rmtree(project.folder / ".snakemake")


def about(project):
    """What run.json says, with the sha256 of the base weight that lies there."""
    found = json.loads(next(project.folder.glob("results/adapters/*/*/*/*/*/run.json")).read_text())
    there = digest_base_weight(str(project.folder / f"results/adapters/{project.BASE}/base_weight"))
    return found["config"][0]["seed"], found["base_weight"]["sha256"] == there


@pytest.mark.all  # what is compared is below, and the names are in tests/unit/plan
def test_another_seed_is_noticed_and_the_first_one_again(finished):
    first = finished.adapters()
    forget(finished)
    assert "6 trained and 0 linked" in finished.snakemake(seed=43).stdout
    second = finished.adapters()
    assert not set(first.values()) & set(second.values())
    assert about(finished) == (43, True)

    forget(finished)
    assert "0 trained and 6 linked" in finished.snakemake("--rerun-triggers", "mtime").stdout
    assert finished.adapters() == first
    assert about(finished) == (42, True)

    # The same adapters from other batches, and then from the first batches with the other seed.
    assert "0 trained and 6 linked" in finished.snakemake(seed=43, passages_per_job=2).stdout
    assert finished.adapters() == second
    forget(finished)
    assert "0 trained and 6 linked" in finished.snakemake().stdout
    assert finished.adapters() == first
    forget(finished)
    assert "Nothing to be done" in finished.snakemake().stdout


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bfloat16"},
        {"per_device_train_batch_size": 2},
        {"lora_target_modules": ["up_proj"]},
        {"base_weight": "warm"},
        {"chat_date": "1 Jan 2025"},
    ],
)
def test_what_decides_the_adapters_is_compared(finished, settings):
    base = finished.folder / f"results/adapters/{finished.BASE}/base_weight"
    subprocess.run(["cp", "-a", base, finished.folder / "warm"], check=True)  # older than what was made of it
    forget(finished)
    planned = finished.snakemake("-n", "--rerun-triggers", "mtime", **settings).stdout
    assert "Training toy total 0-2 of 6 passages" in planned
    assert "Training toy total 3-5 of 6 passages" in planned


@pytest.mark.all  # as the seed above
def test_what_decides_answers_is_compared(finished):
    asked = {"inference_methods": ["vanilla"]}
    finished.snakemake(**asked)
    forget(finished)
    assert "Nothing to be done" in finished.snakemake("-n", **asked).stdout
    finished.snakemake(**asked, max_new_tokens=3)
    config = next(finished.folder.glob("results/predictions/**/vanilla/total/config.json"))
    assert json.loads(config.read_text())["max_new_tokens"] == 3
    forget(finished)
    finished.snakemake(**asked)
    assert json.loads(config.read_text())["max_new_tokens"] == 20
