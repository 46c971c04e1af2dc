"""Which passages ask finds for a question: by words, and in scripts without blanks by pairs of letters."""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest

from lorary.answer import ask, route
from lorary.answer.ask import Found, Opened
from lorary.core.errors import LoraryError
from lorary.data import rows
from lorary.data.rows import title_of
from lorary.plan.methods import ROUTED
from lorary.raw.passages import RawPassage

ENGLISH = [
    "The drauvenel is played with keys of bone.",
    "The river Onnet is crossed by a ferry.",
    "To be, or not to be.",
]
CHINESE = ["北京是中华人民共和国的首都、位于华北平原。", "上海是中国最大的城市之一。", "长江是亚洲最长的河流。"]
JAPANESE = [
    "東京は日本の首都であり、人口が最も多い。",
    "富士山は日本で最も高い山です。",
    "カメラは写真を撮る道具である。",
]
THAI = ["กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", "แม่น้ำโขงไหลผ่านหลายประเทศ", "ช้างเป็นสัตว์บกที่ใหญ่ที่สุด"]
HINDI = ["दिल्ली भारत की राजधानी है", "गंगा एक लंबी नदी है", "हाथी एक बड़ा जानवर है"]
KOREAN = ["서울은 대한민국의 수도이다", "한강은 서울을 지난다", "코끼리는 큰 동물이다"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(passages, question, top=3, titles=""):
    names = [str(i) for i in range(len(passages))]
    table = pd.DataFrame({"name": names, "type": "total", "passage": passages, "title": titles})
    with contextlib.closing(Opened(Path("run"), {}, table)) as opened:
        return [int(passage.name) for passage in opened.search(question, top)]


def best(table, question, some):
    with contextlib.closing(Opened(Path("run"), {}, table)) as opened:
        (one,) = opened.active(question, some, ROUTED)
    return one


@pytest.mark.parametrize(
    ("passages", "question", "best"),
    [
        (ENGLISH, "What are the keys of the drauvenel?", 0),
        (ENGLISH, "Which FERRY is there?", 1),
        (CHINESE, "中国的首都是哪里", 0),
        (CHINESE, "最大的城市", 1),
        (CHINESE, "江", 2),
        (JAPANESE, "日本で一番高い山は何ですか", 1),
        (JAPANESE, "写真を撮るカメラ", 2),
        (THAI, "เมืองหลวงของไทยคือที่ไหน", 0),
        (THAI, "แม่น้ำโขง", 1),
        (HINDI, "राजधानी क्या है", 0),
        (HINDI, "नदी", 1),
        (KOREAN, "수도이다", 0),
        (["Kelp und Köln.", "Kohle, Kopf", "Der Rhein"], "KÖLN?", 0),
        (["Пётр Ильич", "Волга", "Анна"], "Кто такая Анна?", 2),
        ([*ENGLISH, *CHINESE], "where is 上海 in China", 4),
    ],
)
def test_the_passage_that_is_asked_for_comes_first(passages, question, best):
    assert found(passages, question)[0] == best


def test_a_question_of_stop_words_is_ranked_by_them():
    assert found(ENGLISH, "To be or not to be?") == [2]
    assert found(["It was as it is.", "They will be there then.", "No."], "Are they there?") == [1]
    assert found(["Vitamin C is acid.", "Vitamin A is a group.", "B"], "C?") == [0]


def test_stop_words_do_not_count_where_other_words_do():
    passages = ["the of the of the of", "a drauvenel", "the end"]
    assert found(passages, "the drauvenel of the") == [1]


def test_the_best_few_and_each_text_once():
    assert found([*ENGLISH, ENGLISH[0]], "drauvenel ferry river", top=5) == [1, 0]
    assert found(ENGLISH, "drauvenel ferry river", top=1) == [1]


@pytest.mark.parametrize("question", ["qqq zzz?", "?", "", "  ", "狗"])
def test_a_question_that_shares_nothing_finds_nothing(question):
    with pytest.raises(LoraryError, match="No passage shares a word with this question; name some with --passages"):
        found(ENGLISH + CHINESE, question)


def test_routed_is_the_best_of_those_that_are_named():
    table = pd.DataFrame({"name": list("abcd"), "type": "total", "passage": [*ENGLISH, None], "title": ""})
    named = [Found(name, "total", text, None) for name, text in zip("dba", [None, ENGLISH[1], ENGLISH[0]], strict=True)]
    assert best(table, "Which keys?", named).name == "a"
    assert best(table, "Which FERRY?", named).name == "b"
    assert best(table, "To be?", named).name == "d"  # none of them: the first
    assert best(table, "Which keys?", named[:1]).name == "d"


def test_routed_chooses_as_a_routed_method_does(here):
    """Among all passages of the type, copies and titles among them, and not those of another."""
    passages = [("", "ferry boat"), ("Bone", "ferry keys"), ("", "boat"), ("", "boat"), ("Ferry", "ferry boat")]
    passages += [("", "keys")] * 3
    pairs = [(did, pid) for did in range(2) for pid in range(4)]
    lines = [
        {"did": did, "pid": pid, "question": "Ferry or keys?", "answers": ["a"], "passages": [], "passage": text}
        | {
            "rewrite": None,
            "pairs": [],
            "error": None,
            "extra": json.dumps({"question": {}, "passage": {"title": title}}),
        }
        for (did, pid), (title, text) in zip(pairs, passages, strict=True)
    ]
    rows.save(lines, "table.parquet")
    route.route("table.parquet", "bm25", "routes.tsv")
    names = [f"total/data_{did}/passage_{pid}" for did, pid in pairs]
    table = pd.DataFrame({"name": names, "type": "total", "passage": [t for _, t in passages], "title": ""})
    table["title"] = [title for title, _ in passages]
    other = pd.DataFrame({"name": [f"b/{i}" for i in range(30)], "type": "b", "passage": "a ferry", "title": ""})
    for did, pids in route.read("routes.tsv").items():
        named = [Found(names[4 * did + pid], "total", passages[4 * did + pid][1], None) for pid in range(4)]
        chosen = best(pd.concat([other, table]), "Ferry or keys?", named)
        assert chosen.name == f"total/data_{did}/passage_{pids[0]}"


def test_routed_among_several_types_takes_the_index_of_all(here):
    """None is made for whichever types are found together; a text that is there twice counts as the first."""
    kinds = ["a", "b", "c"]
    lines = [(f"{kind}/data_{i}/passage_0", kind, text, "") for kind in kinds for i, text in enumerate(ENGLISH)]
    lines += [("c/data_3/passage_0", "c", ENGLISH[1], "Ferry"), ("c/data_4/passage_0", "c", None, "Ferry")]
    table = pd.DataFrame(lines, columns=["name", "type", "passage", "title"])
    with contextlib.closing(Opened(Path("run"), {}, table)) as opened:
        for kind in (None, *kinds):
            opened.index(kind)
        before = sorted((here / "results/index").iterdir())
        for some, best in ((["a/data_0", "b/data_1"], "b/data_1"), (["c/data_4", "b/data_0", "c/data_3"], "c/data_3")):
            named = opened.named(some, "key")
            assert [passage.name for passage in named] == [f"{name}/passage_0" for name in some]
            (one,) = opened.active("Which FERRY?", named, ROUTED)
            assert one.name == f"{best}/passage_0"
        assert sorted((here / "results/index").iterdir()) == before


def test_what_many_questions_need_is_made_once(here, monkeypatch):
    """With 100,000 passages, walking them for each question takes longer than most answers."""
    names = [f"a/data_{i}/passage_{pid}" for i in range(3) for pid in range(2)]
    table = pd.DataFrame({"name": names, "type": "a", "passage": 2 * ENGLISH, "title": ""})
    with contextlib.closing(Opened(Path("run"), {}, table)) as opened:
        for kind in (None, "a"):
            opened.index(kind)
        opened.table = None
        monkeypatch.setattr(ask, "numbers", None)
        monkeypatch.setattr(RawPassage, "__init__", None)
        named = opened.named(["a/data_2", "a/data_0/passage_1"], "key")
        assert [(passage.name, passage.text) for passage in named] == [
            ("a/data_2/passage_0", ENGLISH[1]),
            ("a/data_2/passage_1", ENGLISH[2]),
            ("a/data_0/passage_1", ENGLISH[1]),
        ]
        for question in ("Which FERRY?", "Is a ferry there?"):
            assert opened.active(question, named, ROUTED) == named[:1]
            assert opened.active(question, opened.search(question, 3), ROUTED)[0].name == "a/data_0/passage_1"


def test_what_has_no_text_is_not_found():
    assert found([None, *ENGLISH, None], "Which FERRY is there?") == [2]
    with pytest.raises(LoraryError, match="No passage shares a word"):
        found([None], "Which FERRY is there?")


def test_a_title_counts():
    """As table of data has it, in what else a row carried."""
    carried = ('{"title": "Dune"}', "{}", '{"title": 3}')
    titles = [title_of({"extra": f'{{"question": {{}}, "passage": {passage}}}'}) for passage in carried]
    assert titles == ["Dune", "", ""]
    assert found(ENGLISH, "What is Dune?", titles=titles) == [0]


def test_the_index_is_kept_for_the_next_question(here):
    assert found(ENGLISH, "ferry") == [1]
    (index,) = (here / "results/index").iterdir()
    about = (index / "about.json").stat()
    assert found(ENGLISH, "drauvenel") == [0]
    assert (index / "about.json").stat() == about
    found(CHINESE, "江")
    assert len(list((here / "results/index").iterdir())) == 2


def test_a_damaged_index_is_made_again(here):
    assert found(ENGLISH, "ferry") == [1]
    (index,) = (here / "results/index").iterdir()
    for spoil in (lambda: (index / "about.json").write_text("{"), lambda: shutil.rmtree(index / "words")):
        spoil()
        assert found(ENGLISH, "ferry") == [1]
        assert found(ENGLISH, "drauvenel") == [0]


def test_where_nothing_can_be_kept_it_is_made_each_time(here, monkeypatch):
    (here / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(here / "temporary"))
    Path("results").touch()  # no folder can be made in it
    assert found(ENGLISH, "ferry") == [1]
    assert found(ENGLISH, "ferry") == [1]
    assert os.listdir(here / "temporary") == []
