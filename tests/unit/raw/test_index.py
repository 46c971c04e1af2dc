"""The index of passages: what a question finds, that it is whole or not there, and what a damaged one says."""

import json
import os
import signal
import time

import pytest

from lorary.core.errors import LoraryError
from lorary.raw import index as index_module
from lorary.raw.index import Index, digest, make
from lorary.raw.passages import RawPassage

FERRY = RawPassage("The river is crossed by a ferry.", "Onnet", {"id": 7, "place": {"page": 3}})
BONE = RawPassage("It is played with keys of bone.", "Drauvenel")
COPY = RawPassage(FERRY.text, FERRY.title, {"id": 8})


@pytest.fixture
def indexed(tmp_path):
    """`indexed(passages)`: an index of them; strings are texts."""

    def indexed(*passages):
        folder = str(tmp_path / "index")
        whole = [passage if isinstance(passage, RawPassage) else RawPassage(passage) for passage in passages]
        assert make(iter(whole), folder) == len(whole)
        return Index(folder)

    return indexed


def numbers(index, question, top=10):
    return [number for number, _ in index.search(question, top)]


def test_what_is_asked_for_comes_first_and_only_what_shares_a_word(indexed):
    index = indexed(FERRY, BONE, "A boat that takes cars is called a ferry.", "nothing of it")
    assert numbers(index, "Which ferries cross the Onnet?") == [0, 2]  # stems, and the title
    assert numbers(index, "drauvenel") == [1]
    assert numbers(index, "zzz") == numbers(index, "") == numbers(index, " ?! ") == []
    assert all(score > 0 for _, score in index.search("ferry", 10))


def test_the_better_field_counts_and_half_of_the_other(indexed):
    other = ["ballast here"] * 3
    index = indexed(
        RawPassage("words that follow", "quartz"),
        RawPassage("quartz and pyrite in it", "no mineral"),
        RawPassage("quartz and slate in it", "quartz"),
        *other,
    )
    scores = dict(index.search("quartz", 10))
    assert scores.keys() == {0, 1, 2}
    title, text = scores[0], scores[1]
    assert scores[2] == pytest.approx(max(title, text) + min(title, text) / 2, abs=1e-3)


def test_the_same_title_and_text_are_found_once(indexed, tmp_path):
    index = indexed(BONE, FERRY, COPY, RawPassage(FERRY.text, "Other"), FERRY)
    assert numbers(index, "ferry") == [1, 3]
    assert (index.count, index.distinct) == (5, 3)
    about = json.loads((tmp_path / "index/about.json").read_bytes())
    assert (about["count"], about["distinct"], about["version"]) == (5, 3, index_module.VERSION)
    assert about["sha256"] == digest([BONE, COPY, FERRY, RawPassage(FERRY.text, "Other"), FERRY])  # extra aside
    assert about["sha256"] != digest([BONE, FERRY, FERRY, FERRY, RawPassage(FERRY.text, "Other")])
    assert digest([RawPassage("b", "a")]) != digest([RawPassage("", "ab")])


def test_passages_come_back_by_number_with_all_that_they_carry(indexed, monkeypatch):
    monkeypatch.setattr(index_module, "GROUP", 2)
    all_of_them = [FERRY, BONE, COPY, RawPassage("ünï \U0001f600\n\x00", "東京", {"ä": [1, None]}), RawPassage("")]
    index = indexed(*all_of_them)
    assert index.passages(range(5)) == all_of_them
    assert index.passages([3, 0, 3]) == [all_of_them[3], FERRY, all_of_them[3]]
    assert index.passages([]) == []
    with pytest.raises(LoraryError):
        index.passages([5])


def test_of_equals_the_lower_number_comes_first_wherever_the_limit_is(indexed, monkeypatch):
    index = indexed(*(RawPassage("a quartz", extra={"n": n}, title=f"title {n}") for n in range(100)), "quartz quartz")
    for top in (1, 2, 7, 60, 101):
        assert numbers(index, "quartz", top) == [100, *range(100)][:top]

    def in_another_order(query, limit, hits=index._hits):  # as several segments may have them
        found = [(score, number, address) for number, (score, address) in enumerate(hits(query, 101))]
        return [(score, address) for score, _, address in sorted(found, key=lambda hit: hit[:2], reverse=True)][:limit]

    monkeypatch.setattr(index, "_hits", in_another_order)
    for top in (1, 2, 7, 60, 101):
        assert numbers(index, "quartz", top) == [100, *range(100)][:top]


def test_scores_of_some_are_those_of_a_search_and_only_these_are_looked_at(indexed, monkeypatch):
    """A range from the first to the last would score all that lies between."""
    index = indexed(*(RawPassage(f"quartz {n % 7 * 'pyrite '}", f"title {n}") for n in range(300)), FERRY)
    searched = dict(index.search("quartz pyrite", 300))
    limits = []
    monkeypatch.setattr(
        index, "_hits", lambda query, limit, hits=index._hits: limits.append(limit) or hits(query, limit)
    )
    for some in ([0, 299, 300], [5], [7, 150, 7]):
        assert index.scores("quartz pyrite", some) == {n: searched[n] for n in some if n in searched}
    assert index.scores("quartz", []) == index.scores("zzz", [1, 2]) == {}
    assert limits == [3, 1, 2, 2]


def test_an_empty_corpus_is_an_index_that_finds_nothing(indexed):
    index = indexed()
    assert (index.count, index.distinct, index.search("ferry", 3)) == (0, 0, [])


@pytest.mark.parametrize(
    ("texts", "question", "expected"),
    [
        (["To be, or not to be.", "A ferry", "There it was"], "to be or not?", [0]),  # nothing else is asked
        (["the of the of the of", "a drauvenel", "the end"], "the drauvenel of the", [1]),
        (["Scott's film", "The 's of English", "film"], "Scott's", [0]),
        (["Vitamin C", "Vitamin A", "it"], "What is C?", [0]),
        (["J. B. Priestley", "B. Traven", "Priestley"], "J. B. Priestley", [0, 2, 1]),
        (["Der Rhein", "Kelp und K\u006f\u0308ln", "Koln"], "K\u00d6LN", [1]),  # two spellings of one letter
        (["\uff26\uff25\uff32\uff32\uff39", "boat"], "ferry", [0]),  # wide letters
        (["गंगा एक लंबी नदी है", "दिल्ली की राजधानी", "नद"], "नदी", [0]),  # a vowel sign belongs to its word
        (["दिल्ली", "दिल"], "दिल", [1]),  # and so does one that joins letters
        (["שָׁלוֹם", "שלום"], "שָׁלוֹם", [0]),
        (["上海是中国最大的城市之一。", "长江", "北京"], "上海2020年", [0]),
        (["กรุงเทพมหานคร", "แม่น้ำโขงไหลผ่าน"], "แม่น้ำโขง", [1]),
        (["x²", "y"], "x2", [0]),
    ],
)
def test_words_of_any_script(indexed, texts, question, expected):
    assert numbers(indexed(*texts), question) == expected


@pytest.mark.parametrize("question", ["a AND (b", 'title:"x', "\x00", "x" * 70_000, "ferry " * 3_000, "+-*[]{}~^:"])
def test_no_question_is_taken_for_a_query_language(indexed, question):
    assert numbers(indexed("a ferry", "a boat"), question) in ([0], [])


def test_one_that_is_made_again_takes_the_place_of_the_former(indexed, tmp_path):
    former = indexed(FERRY)
    index = indexed(BONE)
    assert numbers(index, "drauvenel ferry") == [0]
    assert numbers(former, "ferry") == [0]  # whoever reads goes on
    assert os.listdir(tmp_path) == ["index"]


def test_what_cannot_be_written_whole_leaves_nothing(tmp_path):
    def passages():
        yield FERRY
        raise LoraryError("line 2: no text")

    with pytest.raises(LoraryError, match="line 2"):
        make(passages(), str(tmp_path / "folder/index"))
    assert os.listdir(tmp_path / "folder") == []


def test_one_that_is_killed_leaves_nothing_that_looks_finished(tmp_path, start):
    process = start(
        "import sys, time; from lorary.raw.index import make; from lorary.raw.passages import RawPassage\n"
        "def passages():\n"
        "    for n in range(2000): yield RawPassage(str(n))\n"
        "    print('all', flush=True); time.sleep(60)\n"
        "make(passages(), sys.argv[1])",
        tmp_path / "index",
    )
    assert process.stdout.readline() == "all\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = tmp_path.iterdir()
    with pytest.raises(LoraryError, match="index is damaged"):
        Index(str(tmp_path / "index"))
    make([FERRY], str(tmp_path / "index"))
    assert left.exists()  # it may be at work still
    for path in (left, *left.rglob("*")):
        os.utime(path, (time.time() - 4000,) * 2)
    make([FERRY], str(tmp_path / "index"))
    assert os.listdir(tmp_path) == ["index"]


def test_reading_changes_nothing(indexed, tmp_path):
    index = indexed(FERRY)
    assert not list((tmp_path / "index").rglob("*.lock"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "index").rglob("*")}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in before)  # and others may do it
    assert numbers(Index(index.folder), "ferry") == [0]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "index").rglob("*")} == before


def test_a_damaged_one_is_told_and_never_searched(indexed, tmp_path):
    folder = tmp_path / "index"
    indexed(FERRY, BONE)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for spoilt in (b"", whole[: len(whole) // 2], bytes(255 - byte for byte in whole), None):
            path.unlink() if spoilt is None else path.write_bytes(spoilt)
            if spoilt != whole:
                with pytest.raises(LoraryError, match=r"index is damaged \(.+\)\. Delete it, and the next call makes"):
                    Index(str(folder)).passages([0, 1])
            path.write_bytes(whole)
    about = json.loads((folder / "about.json").read_bytes())
    (folder / "about.json").write_text(json.dumps({**about, "version": about["version"] + 1}))
    with pytest.raises(LoraryError, match="made by another version"):
        Index(str(folder))


def test_passages_that_have_rotted_are_told(indexed, tmp_path):
    path = tmp_path / "index/passages.parquet"
    index = indexed(*(f"passage {n}, {n * n}" for n in range(500)))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(LoraryError, match="is damaged"):
        Index(index.folder).passages(range(500))
