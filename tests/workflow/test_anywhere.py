"""Lorary from anywhere: with its Snakefile by path, as a module of another workflow, and deployed by snakedeploy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from project import SETTINGS

SETTING = {**SETTINGS, "passages_per_job": 4, "inference_methods": ["prag"], "max_new_tokens": 4}
RUN = "tiny/rank=2_alpha=32/toy/lr=0.01_epoch=1_direct/aug_model=aug"
ADAPTERS = [f"{RUN}/total/data_{did}/passage_{pid}" for did in range(2) for pid in range(2)]

MODULE = """
configfile: {config!r}


module lorary:
    snakefile:
        {snakefile!r}
    config:
        config{key}


use rule * from lorary{naming}


rule everything:
    default_target: True
    input:
        "results/scores.tsv",
"""


@pytest.fixture
def elsewhere(tmp_path, tiny_llama):
    """A folder with data, a model and a config of what differs, and nothing of the checkout."""
    folder = tmp_path / "elsewhere"
    tiny.write_rows(folder / "data/toy/aug/total.json", tiny.make_rows(2))
    (folder / "tiny-model").symlink_to(tiny_llama)
    (folder / "mine.yaml").write_text(json.dumps(SETTING))
    return folder


def snakemake(folder, *arguments):
    process = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
        cwd=folder,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout + process.stderr


def encoded(folder):
    files = (folder / "results/adapters").glob("**/data_*/*/adapter_model.safetensors")
    return sorted(str(file.parent.relative_to(folder / "results/adapters")) for file in files)


def test_the_snakefile_by_its_path_from_another_folder(elsewhere, tmp_path):
    said = snakemake(
        tmp_path, "-s", str(tiny.ROOT / "Snakefile"), "--directory", "elsewhere", "--configfile", "elsewhere/mine.yaml"
    )
    assert encoded(elsewhere) == ADAPTERS
    assert "4 of 4 adapters are in place" in said
    assert (elsewhere / "results/report.html").is_file()
    assert not (tmp_path / "results").exists()
    # the project's own wording, wherever it lies
    (about,) = (json.loads(file.read_text()) for file in (elsewhere / "results/adapters").glob("**/run.json"))
    (config,) = about["config"]
    assert Path(config["prompt_templates"]) == tiny.ROOT / "resources/prompt_templates.yaml"


def test_without_any_config_it_is_the_demo(tmp_path):
    said = snakemake(tmp_path, "-s", str(tiny.ROOT / "workflow/Snakefile"), "-n")
    assert "Training invented total" in said


@pytest.mark.all  # the Snakefile by its path is called from another folder too
@pytest.mark.parametrize(("key", "naming"), [("", ""), ("['lorary']", " as encoder_*")])
def test_as_a_module_of_another_workflow(elsewhere, key, naming):
    config = {"lorary": SETTING} if key else SETTING
    (elsewhere / "config.json").write_text(json.dumps(config))
    snakefile = str(tiny.ROOT / "workflow/Snakefile")
    module = MODULE.format(config="config.json", snakefile=snakefile, key=key, naming=naming)
    (elsewhere / "Snakefile").write_text(module)
    said = snakemake(elsewhere, "--resources", "gpu=1")
    assert encoded(elsewhere) == ADAPTERS
    assert "rule everything" in said
    assert (elsewhere / "results/scores.tsv").is_file()
    assert "Nothing to be done" in snakemake(elsewhere)


@pytest.mark.all  # what is deployed is a module, as above
def test_deployed_by_snakedeploy(elsewhere, tmp_path):
    """It writes the path of a local workflow without its folder: that line is the user's to mend."""
    source, deployed = tmp_path / "source", tmp_path / "deployed"
    names = ["config.yaml", "config", "workflow", "profiles", "LICENSE"]  # what it looks at
    source.mkdir()
    for name in names:
        (source / name).symlink_to(tiny.ROOT / name)
    program = "from snakedeploy.client import main; main()"
    command = [sys.executable, "-c", program, "deploy-workflow", str(source), str(deployed), "--branch", "main"]
    subprocess.run(command, check=True, capture_output=True)
    snakefile = deployed / "workflow/Snakefile"
    assert '"workflow/Snakefile"' in snakefile.read_text()
    snakefile.write_text(snakefile.read_text().replace('"workflow/Snakefile"', f'"{tiny.ROOT}/workflow/Snakefile"'))
    assert (deployed / "config/config.yaml").read_text() == (tiny.ROOT / "config.yaml").read_text()
    assert (deployed / "profiles/slurm/config.yaml").is_file()

    assert "Training invented total" in snakemake(deployed, "-n")
    for name in ("data", "tiny-model"):
        (deployed / name).symlink_to(elsewhere / name)
    snakemake(deployed, "--configfile", str(elsewhere / "mine.yaml"))
    assert encoded(deployed) == ADAPTERS
