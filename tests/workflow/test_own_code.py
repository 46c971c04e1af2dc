"""A model that brings Python files: nothing of them runs unless the config says so, and then the log says it."""

import json

import pytest

CONFIGURATION = """from pathlib import Path
from transformers import LlamaConfig
Path({ran!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own"
"""
MODELING = """from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own(project, monkeypatch):
    """The project's model under a type that only its own Python files know."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(project.folder / "modules"))
    model = project.folder / "tiny-model"
    (model / "configuration_own.py").write_text(CONFIGURATION.format(ran=str(project.folder / "ran")))
    (model / "modeling_own.py").write_text(MODELING)
    config = json.loads((model / "config.json").read_text())
    classes = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    (model / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": classes}))
    project.settings |= {"sample": 1, "passages_per_job": 2}
    return project


def test_code_of_a_model_is_run_only_where_the_config_says_so(own):
    process = own.snakemake(check=False)
    assert process.returncode != 0
    assert "needs Python code of its own to be run. If you trust it" in process.stdout
    assert "set trust_remote_code: true" in process.stdout
    assert not (own.folder / "ran").exists()

    said = own.snakemake(trust_remote_code=True).stdout
    assert "trust_remote_code is set: code of tiny-model will be run (configuration_own.py, modeling_own.py)" in said
    assert "trust_remote_code is set: code that came with resources/models/tiny is run" in said
    assert (own.folder / "ran").exists()
    assert len(own.adapters()) == 2

    # taken back: the code is not run any more
    (own.folder / "ran").unlink()
    assert own.snakemake(check=False).returncode != 0
    assert not (own.folder / "ran").exists()
