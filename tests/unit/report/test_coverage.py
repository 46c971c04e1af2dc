"""The share of a passage's facts that its pairs ask for."""

import json

import tiny
from lorary.data import rows
from lorary.report.coverage import coverage

TEXT = "The tower of Ormvalk was lit in 1887. Old Ildra Penhosk drew it, and 41 men built it."


def table(path, *answers):
    pairs = [{"question": "Q?", "answer": answer, "full_answer": f"{answer}."} for answer in answers]
    passage = {"pid": 0, "passage": TEXT, "aug_rewrite": TEXT, "aug_qa": pairs}
    row = {"question": "Q?", "answer": "x", "passages": [TEXT, TEXT], "augment": [passage, {**passage, "pid": 1}]}
    rows.save(rows.load_all([tiny.write_rows(path / "total.json", [row])], -1, "aug"), str(path / "table.parquet"))
    return {"total": str(path / "table.parquet")}


def test_names_and_numbers_that_an_answer_has_are_asked_for(tmp_path):
    tables = table(tmp_path, "Ildra Penhosk", "in 1887", "stone")
    about = {"config": [{}], "tables": tables}
    some = coverage(about)
    assert 0 < some < 1
    assert coverage({**about, "config": [{"heldout_pairs": 1}]}) == some  # of the last pair nothing is a fact
    assert coverage({**about, "config": [{"heldout_pairs": 2}]}) < some
    assert coverage({"config": [{}], "tables": table(tmp_path, TEXT)}) == 1
    assert coverage(json.loads(json.dumps({**about, "tables": {"total": "gone.parquet"}}))) is None
