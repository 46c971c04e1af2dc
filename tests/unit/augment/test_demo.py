"""What comes with the demo's documents: a result of an able model for each passage, under the digest of today."""

import pytest
import yaml

import tiny
from lorary.augment import augment
from lorary.augment.checks import pair_fault, rewrite_fault
from lorary.augment.kept import FOLDER, Results
from lorary.augment.wording import load_wording
from lorary.plan import encode
from lorary.plan.config import resolve
from lorary.raw import brought


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the plan keeps what it has cut
    config = yaml.safe_load((tiny.ROOT / "resources/demo/documents.yaml").read_text(encoding="utf-8"))
    for key in ("documents", "questions"):
        config[key] = str(tiny.ROOT / config[key])
    kinds = encode.make(resolve(config)).raw["augment"].values()
    return next(job for job in kinds if "documents" in job.label)


def test_each_passage_has_its_result(job, tmp_path):
    (tmp_path / FOLDER).symlink_to(tiny.ROOT / "resources/demo/augmented")
    kept = Results(str(tmp_path))
    wording = load_wording(job.inputs["wording"])
    rows = brought.of_documents(str(tiny.ROOT / "resources/demo/documents"), 100, str(tmp_path / "cut"), 100)
    wanted = set()
    for row in rows:
        passage = row["passage"]
        key = augment.key_of(passage, augment.decides(job.params, wording, ""))
        wanted.add(key)
        result = kept.get(key)
        assert result, f"{passage.title}: what is asked, or how, has changed: have the demo's documents augmented anew"
        assert result["pairs"]
        for pair in result["pairs"]:
            assert pair_fault(pair["question"], pair["answer"], passage.text, passage.title) is None
        assert not result["rewritten"] or rewrite_fault(result["rewrite"], passage.text) is None
    assert set(kept.keys()) == wanted
