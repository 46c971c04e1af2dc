"""Which passages ask finds for a question: by words, and in scripts without blanks by pairs of letters."""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest

from lorary.answer import route
from lorary.answer.ask import Found, Opened
from lorary.core.errors import LoraryError
from lorary.data import rows
from lorary.data.rows import title_of
from lorary.plan.methods import ROUTED

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
