"""The benchmark of retrieval measures what it says: on few passages, in this process."""

import json

import pandas as pd
import pytest

from benchmarks import retrieve as bench


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(bench, "SIZES", (20, 40))
    monkeypatch.setattr(bench, "QUESTIONS", 5)
    monkeypatch.setattr(bench, "in_a_process", lambda _, arguments: bench.measure(**arguments))


def test_invented_passages_of_each_size_and_further(quick, tmp_path):
    text = bench.bench_retrieval(None, None, str(tmp_path / "figures.tsv"))
    figures = pd.read_csv(tmp_path / "figures.tsv", sep="\t")
    assert figures["passages"].round(-3).tolist() == [0, 0, 21015000]
    assert (figures > 0).all(axis=None)
    disk = figures["disk_gb"]
    assert disk[2] == pytest.approx(disk[1] + (disk[1] - disk[0]) / 20 * (bench.WIKIPEDIA - 40), rel=1e-3)
    assert text.count("\n| ") == 5
    assert "golden" not in text


def test_the_golden_passages_of_a_corpus(quick, tmp_path):
    corpus = ["the ferry on the river", "keys of bone", "a mill", "the boat", "a ferry, and a ferry", "ferry boat"]
    lines = ["id\ttext\ttitle", *(f"{number}\t{text}\t" for number, text in enumerate(corpus))]
    (tmp_path / "corpus.tsv").write_text("\n".join(lines), encoding="utf-8")
    asked = [("keys of bone", ["Keys of  bone!"]), ("ferry", ["a mill", "the ferry on the river"])]
    rows = [{"question": question, "answer": "a", "golden_passages": golden} for question, golden in asked]
    (tmp_path / "questions.json").write_text(json.dumps(rows), encoding="utf-8")
    files = [str(tmp_path / name) for name in ("corpus.tsv", "questions.json", "figures.tsv")]
    text = bench.bench_retrieval(*files)
    assert text.endswith("there are 66.7% among the first 3, and 66.7% among the first 10.\n")
    last = pd.read_csv(files[2], sep="\t").iloc[-1]
    assert last["passages"] == 6
    assert last["recall_at_3"] == pytest.approx(2 / 3, abs=1e-4)


def test_invented_passages_are_always_the_same_and_as_frequent_as_words_are():
    some, again = (list(bench.invented(1500)) for _ in range(2))
    assert some == again
    assert len({passage.text for passage in some}) == 1500
    assert {len(passage.text.split()) for passage in some} == {bench.WORDS}
    counts = pd.Series([word for passage in some for word in passage.text.split()]).value_counts()
    assert counts.index[0] == "a"
    assert counts.iloc[0] / counts.iloc[9] == pytest.approx(10, rel=0.4)
    assert len({bench._word(rank) for rank in range(1, 20_000)}) > 19_990  # some look like frequent ones
