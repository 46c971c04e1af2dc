"""One call a type, docs/cluster.md's way to scale: one after the other, and at once from two checkouts."""

import csv
import json

import pytest

import tiny


def lines(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.all  # a minute; tests/unit/train/test_index.py and unit/answer/test_tables.py have the behaviour
def test_calls_for_one_type_each_at_once_and_after_each_other(with_model, tmp_path):
    first = with_model
    for kind, seed in (("a", 1), ("b", 2), ("c", 3)):
        first.write_rows(tiny.make_rows(2, seed=seed), kind)
    (first.folder / "data/toy/aug/total.json").unlink()
    first.settings |= {"adapter_dir": str(tmp_path / "shared/adapters"), "inference_methods": ["vanilla"]}
    first.settings |= {"store_dir": str(tmp_path / "shared/store")}
    second = first.copy(tmp_path / "second")
    calls = {"a": first.start(data_type="a"), "b": second.start(data_type="b")}
    for kind, call in calls.items():
        output, _ = call.communicate()
        assert call.returncode == 0, f"{kind}: {output}"
        assert "4 trained and 0 linked" in output
    first.snakemake(data_type="c")

    run = tmp_path / f"shared/adapters/{first.BASE}/toy/lr=0.01_epoch=1_direct/aug_model=aug"
    listed = [(line["type"], line["did"], line["pid"]) for line in lines(run / "adapters.tsv")]
    assert listed == [(kind, did, pid) for kind in "abc" for did in "01" for pid in "01"]
    about = json.loads((run / "run.json").read_text())
    assert [config["data_type"] for config in about["config"]] == ["c"]
    assert {kind: other["config"][0]["data_type"] for kind, other in about["other_types"].items()} == {
        "a": "a",
        "b": "b",
    }
    assert (
        len({about["base_weight"]["sha256"], *(o["base_weight"]["sha256"] for o in about["other_types"].values())}) == 1
    )
    (knowledge,) = tmp_path.glob("shared/predictions/**/knowledge.tsv")
    assert [line["type"] for line in lines(knowledge)] == 4 * ["a"] + 4 * ["b"] + 4 * ["c"]
    scores = {line["type"]: line["questions"] for line in lines(first.folder / "results/scores.tsv")}
    assert scores == {"a": "2", "b": "2", "c": "2"}
    page = (first.folder / "results/report.html").read_text()
    assert "12 passages" in page
    for kind in "abc":
        assert f"toy {kind}" in page
