"""The rules that pairs and rewrites have to stand: what is good stands, and each fault is told."""

import json

import pytest

import tiny
from lorary.augment import checks
from lorary.augment.spans import sentence_of, sentences, spans

ROWS = json.loads(tiny.DEMO.read_text(encoding="utf-8"))
NAME = "smollm2-135m-instruct"
LIGHT = ROWS[0]["passages"][0]
WRITTEN = {augment["passage"]: augment for row in ROWS for augment in row["augment"]}.values()


@pytest.mark.parametrize("augment", WRITTEN, ids=lambda augment: augment["passage"][:20])
def test_what_people_wrote_for_the_demo_stands(augment):
    for pair in augment[f"{NAME}_qa"]:
        assert checks.pair_fault(pair["question"], pair["answer"], augment["passage"]) is None, pair
    assert checks.rewrite_fault(augment[f"{NAME}_rewrite"], augment["passage"]) is None


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        ("Who designed Ormvalk Light?", "Ildra Penhosk", None),
        ("When was Ormvalk Light first lit?", "3 March 1887", None),
        ("Who designed Ormvalk Light?", "", "empty"),
        ("Who designed Ormvalk Light?", "Penhosk Ildra", "not in the passage"),
        ("What is said of Ormvalk Light?", " ".join(LIGHT.split()[:13]), "answer too long"),
        ("Who?", "Ildra Penhosk", "question too short or too long"),
        ("Ormvalk Light was designed by somebody.", "Ildra Penhosk", "no question"),
        ("Sure, here is one: who designed Ormvalk Light?", "Ildra Penhosk", "no question"),
        ("According to the passage, who designed Ormvalk Light?", "Ildra Penhosk", "speaks of the text"),
        ("What did the engineer Ildra Penhosk design in Tessolm?", "Ildra Penhosk", "answer in the question"),
        ("Who lit Ormvalk Light?", "41 metres", "wrong kind of answer"),
        ("When was Ormvalk Light designed?", "Ildra Penhosk", "wrong kind of answer"),
        ("How many metres tall is Ormvalk Light?", "pale green slate", "wrong kind of answer"),
        ("Where is Ormvalk Light?", "41 metres", "wrong kind of answer"),
        ("How tall is the tower?", "41 metres", "does not say what it is about"),
        ("What is the name of the lighthouse?", "Ormvalk Light", "does not say what it is about"),
        ("奥姆瓦尔克灯塔 Ormvalk 是谁设计的呢，请告诉我？", "Ildra Penhosk", "another language"),
        ("Wer hat den Turm von Ormvalk entworfen?", "Ildra Penhosk", "another language"),
    ],
)
def test_a_pair_is_told_its_fault(question, answer, fault):
    assert checks.pair_fault(question, answer, LIGHT) == fault


def test_names_of_another_language_let_none_of_its_questions_through():
    passage = (
        "Don Juan Alfonso Pérez de Guzmán y Afán de Ribera inherited the title in 1492, aged 28. His mother is known as"
        " Leonor de Mendoza y Ribera, although he was known by his second name. She may have been a Mendoza, and it was"
        " not unknown for women of that house to use the name of their mother."
    )
    assert len(passage.split()) >= 40
    for question in ("¿De qué casa era Juan Alfonso de Guzmán?", "Cuál es el nombre de la madre de Juan Alfonso?"):
        assert checks.pair_fault(question, "Mendoza", passage) == "another language"
    assert checks.pair_fault("What was the house of Juan Alfonso Pérez de Guzmán?", "Mendoza", passage) is None


@pytest.mark.parametrize(
    ("passage", "own", "english"),
    [
        (
            "El puente de Guzmán fue construido por Juan Pérez en 1902 con piedra de la cantera de Ribera. La obra duró"
            " dos años y costó más de lo que se había previsto, de modo que el pueblo no quiso pagar por ella, y el"
            " puente quedó sin nombre hasta que un alcalde le dio el suyo.",
            "¿Quién construyó el puente de Guzmán?",
            "Who was the man that built the bridge of Guzmán?",
        ),
        (
            "Die Universität der Stadt Köln wurde 1919 von Konrad Adenauer wieder eröffnet und hat heute mehr als"
            " fünfzig Tausend Studenten. Sie ist eine der größten Hochschulen im Westen des Landes, und ihr Gebäude am"
            " Platz ist von dem Architekten Adolf Abel entworfen, der auch die Brücke der Stadt gebaut hat.",
            "Wer hat die Universität der Stadt Köln 1919 eröffnet?",
            "Who was the man that opened it in Köln?",
        ),
        (
            "O rio nasce nas montanhas do norte e corre para o mar por um vale que os romanos conheciam bem. A ponte"
            " que o cruza foi feita por Manuel Prado em 1880, e as pedras dela vieram de longe, como se pode ler no"
            " arco mais velho, onde o nome do mestre ainda está.",
            "Quem fez a ponte que cruza o rio?",
            "Who was the man that put up the bridge?",
        ),
    ],
    ids=["Spanish", "German", "Portuguese"],
)
def test_a_question_is_in_the_language_of_its_passage(passage, own, english):
    assert len(checks.words(passage)) >= 40
    assert not checks.other_language(own, passage)
    assert checks.other_language(english, passage)


def test_a_title_says_what_a_question_is_about():
    passage = "It was put up in 1802 of pink stone."
    assert checks.pair_fault("When was the conservatory built?", "1802", passage) == "does not say what it is about"
    assert checks.pair_fault("When was the conservatory built?", "1802", passage, "The conservatory") is None


def test_a_passage_without_blanks():
    passage = "北京是中华人民共和国的首都，位于华北平原的北部，人口超过两千万。"
    assert checks.pair_fault("中华人民共和国的首都叫什么名字？", "北京", passage) is None
    assert checks.pair_fault("What is the capital of the country called?", "北京", passage) is not None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Who designed Ormvalk Light?", "Who designed the Ormvalk Light?", True),
        ("Who designed Ormvalk Light?", "When was Ormvalk Light designed?", False),
        ("How tall is Ormvalk Light?", "Who designed Ormvalk Light?", False),
    ],
)
def test_two_questions_that_ask_the_same(one, other, same):
    assert checks.same_question(one, [other]) == same


@pytest.mark.parametrize(
    ("given", "expected", "agree"),
    [
        ("Ildra Penhosk", "Ildra Penhosk", True),
        ("the engineer Ildra Penhosk.", "Ildra Penhosk", True),
        ("41 meters", "41 metres", True),
        ("41 metres tall", "41 metres", True),
        ("E flat", "E", True),
        ("on 3 March 1887", "3 March 1887", True),
        ("1887", "3 March 1887", False),
        ("42 metres", "41 metres", False),
        ("Tessolm", "Ildra Penhosk", False),
        ("", "Ildra Penhosk", False),
        ("It was designed by the engineer Ildra Penhosk and first lit on 3 March", "Ildra Penhosk", False),
    ],
)
def test_answers_that_agree(given, expected, agree):
    assert checks.agree(given, expected) == agree


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("41 metres", "42 metres"), "loses 41"),
        (("41 metres tall, is", "tall, is"), "loses 41"),
        (("Ildra Penhosk", "Ildra Penrose"), "loses Penhosk"),
        (("on 3 March 1887", "on 3 March 1887, in 1900 again"), "invents 1900"),
        (("the engineer", "the engineer and Count Orloff,"), "invents Count"),
        (("Ormvalk Light is", "Here is the rewritten text: Ormvalk Light is"), "speaks of itself"),
        ((LIGHT[100:], ""), "too short or too long"),
    ],
)
def test_a_rewrite_is_told_its_fault(change, fault):
    assert checks.rewrite_fault(LIGHT.replace(*change), LIGHT) == fault
    assert checks.rewrite_fault(LIGHT, LIGHT) is None


def test_numbers_with_the_commas_of_thousands():
    assert checks.facts_changed("It owns 5200 books.", "It owns 5,200 books.") == ([], [])


def test_what_is_copied():
    assert checks.copied(LIGHT, LIGHT) == 1
    assert checks.copied(" ".join(reversed(LIGHT.split())), LIGHT) == 0


def test_answers_that_could_be_asked_for_stand_in_the_passage_and_come_from_all_sentences():
    found = spans(LIGHT)
    assert {"Ormvalk Light", "3 March 1887", "41 metres", "Ildra Penhosk", "Harrune Strait", "Tessolm"} <= set(found)
    assert all(span in LIGHT for span in found)
    assert len({sentence_of(LIGHT, span) for span in found[:3]}) == 3
    assert spans("") == spans("so it goes and goes.") == []
    assert "23 square kilometres" in spans("It has 23 square kilometres.")
    assert spans("In 1643 Elisabeth married.") == ["1643", "Elisabeth"]


def test_sentences():
    assert len(sentences(LIGHT)) == 3
    assert sentences("北京是首都。人口很多！对吗？") == ["北京是首都。", "人口很多！", "对吗？"]
    assert sentences("One line\n\nanother") == ["One line", "another"]
    assert sentence_of("A b. C d.", "nowhere") == "A b. C d."


@pytest.mark.parametrize("script", ["漢字", "𠮷野", "かな", "ไทย", "ລາວ", "မြန်မာ", "ខ្មែរ"])
def test_scripts_without_blanks_are_counted_by_letters(script):
    assert checks.words(f"A {script} 3,5.") == ["a", *script, "3,5"]
