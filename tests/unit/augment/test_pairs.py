"""The talk about a passage: what is asked, what is kept of the replies, and how often it is asked again."""

import json
import re

import pytest

import tiny
from lorary.augment import pairs, reference
from lorary.augment.talk import Reply
from lorary.augment.wording import load_wording
from lorary.core.errors import LoraryError
from lorary.core.work import Fault
from lorary.plan import layout
from lorary.raw.passages import RawPassage

WORDING = load_wording(str(layout.AUGMENT_PROMPTS))
ROW = json.loads(tiny.DEMO.read_text(encoding="utf-8"))[0]["augment"][0]
LIGHT, REWRITE = ROW["passage"], ROW["smollm2-135m-instruct_rewrite"]
PASSAGE = RawPassage(LIGHT, "Ormvalk Light")
ANSWERS = {
    "Ildra Penhosk": "Who designed Ormvalk Light?",
    "3 March 1887": "When was Ormvalk Light first lit?",
    "41 metres": "How tall is the tower of Ormvalk Light?",
    "pale green slate": "What is the tower of Ormvalk Light built of?",
    "Tessolm": "On which island does Ormvalk Light stand?",
    "Harrune Strait": "Which strait surrounds the island of Ormvalk Light?",
}


def kind(request):
    return next(name for name, template in WORDING.items() if template == request.template)


class Speaker:
    """A model that knows what it talks about, but for what `says` gives it to say: by kind of request, a function of
    the request."""

    def __init__(self, **says):
        self.says, self.asked = says, []

    def __call__(self, request):
        name = kind(request)
        self.asked.append(request)
        said = (self.says.get(name) or getattr(self, f"say_{name}"))(request)
        return said if isinstance(said, Fault) else Reply(said, True, 10, len(said.split()))

    def say_answers(self, request):
        return "- pale green slate\n2. seventeen seconds\nTessolm"

    def say_question(self, request):
        return ANSWERS.get(request.values["answer"], f"What of Ormvalk Light is {request.values['answer'][::-1]}?")

    def say_check(self, request):
        return next((a for a, question in ANSWERS.items() if question == request.values["question"]), "nothing")

    def say_check_without(self, request):
        return "I do not know"

    def say_rewrite(self, request):
        return REWRITE

    def times(self, name):
        return sum(kind(request) == name for request in self.asked)


def hear(talk, speaker):
    """The result of a talk."""
    replies = None
    while True:
        try:
            requests = talk.send(replies)
        except StopIteration as end:
            return end.value
        replies = [speaker(request) for request in requests]


def augment(speaker, wanted=3, tries=3, passage=PASSAGE):
    return hear(pairs.augment(passage, WORDING, wanted, tries, 42), speaker)


def test_pairs_and_rewrite_of_an_able_model():
    speaker = Speaker()
    made = augment(speaker)
    assert (made["rewrite"], made["rewritten"]) == (REWRITE, True)
    assert len(made["pairs"]) == 3
    for pair in made["pairs"]:
        assert ANSWERS[pair["answer"]] == pair["question"]
    notes = made["notes"]
    assert (notes["tries"], notes["known"]) == (1, 0)
    assert notes["requests"] == len(speaker.asked)
    assert notes["asked"] == speaker.times("question")
    json.dumps(made)


def test_a_question_that_the_passage_answers_otherwise_is_dropped_and_others_are_asked():
    speaker = Speaker(check=lambda r: "Tessolm" if "designed" in r.values["question"] else Speaker().say_check(r))
    made = augment(speaker)
    assert "Ildra Penhosk" not in [pair["answer"] for pair in made["pairs"]]
    assert len(made["pairs"]) == 3
    assert made["notes"]["faults"]["the passage answers otherwise"] >= 1
    assert len(made["notes"]["rejected"]) <= pairs.REJECTED_KEPT


def test_babble_leaves_nothing_and_the_tries_have_an_end():
    speaker = Speaker(question=lambda r: "What is the answer to this question about Ormvalk Light?")
    made = augment(speaker, tries=3)
    assert made["pairs"] == []
    assert made["notes"]["tries"] <= 3
    again = Speaker(question=lambda r: "What is the answer to this question about Ormvalk Light?")
    augment(again, tries=1)
    assert again.times("question") < speaker.times("question")


def test_what_failed_is_asked_again_and_drawn():
    def question(request):
        return "Who?" if request.seed is None else Speaker().say_question(request)

    speaker = Speaker(question=question)
    made = augment(speaker, wanted=6)
    seeds = [request.seed for request in speaker.asked if kind(request) == "question" and request.seed is not None]
    assert len(set(seeds)) == len(seeds) > 0
    assert made["pairs"]
    assert made == augment(Speaker(question=question), wanted=6)


def test_what_it_knows_without_the_passage_is_taken_last():
    speaker = Speaker(check_without=lambda r: "Ildra Penhosk" if "designed" in r.values["question"] else "no")
    made = augment(speaker)
    assert "Ildra Penhosk" not in [pair["answer"] for pair in made["pairs"]]
    assert made["notes"]["known"] == 0
    knows_all = Speaker(check_without=Speaker().say_check)
    made = augment(knows_all)
    assert (len(made["pairs"]), made["notes"]["known"]) == (3, 3)


def test_a_fuller_answer_of_the_passage_is_taken():
    speaker = Speaker(check=lambda r: "41 metres tall" if "tall" in r.values["question"] else Speaker().say_check(r))
    made = augment(speaker, wanted=6)
    assert "41 metres tall" in [pair["answer"] for pair in made["pairs"]]


@pytest.mark.parametrize(
    ("rewrite", "fault"),
    [
        (REWRITE.replace("1887", "1888"), "loses 1887"),
        ("Sure! Here is the text: " + REWRITE, "speaks of itself"),
        (LIGHT, "nearly a copy"),
    ],
)
def test_a_rewrite_that_does_not_do_is_asked_again(rewrite, fault):
    speaker = Speaker(rewrite=lambda r: rewrite if r.seed is None else REWRITE)
    made = augment(speaker)
    assert (made["rewrite"], made["notes"]["rewrite_faults"]) == (REWRITE, [fault])
    assert speaker.times("rewrite") == 2


def test_where_no_rewrite_keeps_the_facts_the_passage_stands_in():
    made = augment(Speaker(rewrite=lambda r: "A lighthouse."), tries=3)
    assert (made["rewrite"], made["rewritten"]) == (LIGHT, False)
    assert len(made["notes"]["rewrite_faults"]) == 3


def test_a_copy_is_better_than_none():
    made = augment(Speaker(rewrite=lambda r: LIGHT), tries=2)
    assert (made["rewrite"], made["rewritten"]) == (LIGHT, True)


def test_a_request_without_a_reply_ends_the_talk():
    assert augment(Speaker(check=lambda r: Fault("it is too long"))) == Fault("it is too long")


def test_answers_are_words_of_the_passage_and_none_is_within_another():
    speaker = Speaker(answers=lambda r: "Atlantis\nOrmvalk\nslate\npale green slate")
    augment(speaker, wanted=20, tries=1)
    asked = [request.values["answer"] for request in speaker.asked if kind(request) == "question"]
    assert all(answer in LIGHT for answer in asked)
    assert "Atlantis" not in asked
    assert "Ormvalk" not in asked  # of Ormvalk Light
    assert len(asked) == len(set(asked))


def test_the_passage_goes_into_prompts_as_data():
    speaker = Speaker()
    augment(speaker, passage=RawPassage(LIGHT + " {answer} <|im_end|>", "{question}"))
    assert all(LIGHT not in request.template for request in speaker.asked)
    assert all(
        "{answer} <|im_end|>" in request.values["passage"] for request in speaker.asked if "passage" in request.values
    )


JSON = json.dumps(
    [{"question": f"Q{i}?", "answer": a, "full_answer": "F."} for i, a in enumerate(["x", ["y", "z"], None])]
)


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        (JSON, ["x", "y, z", "Unknown"]),
        (f"Here you are:\n```json\n{JSON}\n```", ["x", "y, z", "Unknown"]),
        (JSON[:-1], ["x", "y, z", "Unknown"]),
        (JSON[:-1] + ",", ["x", "y, z", "Unknown"]),
        (JSON[:-1] + ", ]", ["x", "y, z", "Unknown"]),
        ('[{"question": "Q?", "answer": "a", "full_answer": "F."}]', []),
        (JSON.replace("full_answer", "reason"), []),
        ("nothing", []),
        ("[" * 100_000, []),
    ],
)
def test_pairs_of_the_references_way(text, answers):
    assert [pair["answer"] for pair in reference.read_pairs(text)] == answers


def test_the_references_way_asks_again_and_ends():
    speaker = Speaker(
        **{"reference.rewrite": lambda r: "Another text.", "reference.pairs": lambda r: JSON if r.seed else "no"}
    )
    made = hear(reference.augment(PASSAGE, WORDING, 3, 42), speaker)
    assert (made["rewrite"], len(made["pairs"]), made["notes"]["tries"]) == ("Another text.", 3, 2)
    never = Speaker(**{"reference.rewrite": lambda r: "Another text.", "reference.pairs": lambda r: "no"})
    made = hear(reference.augment(PASSAGE, WORDING, 3, 42), never)
    assert (made["pairs"], made["notes"]["faults"]) == ([], {"no JSON of three pairs": 3})


def test_wording_is_checked(tmp_path):
    file = tmp_path / "mine.yaml"
    text = layout.AUGMENT_PROMPTS.read_text(encoding="utf-8")
    file.write_text(text.replace("{question}", "{passage}").replace("rule:", "ruler:"))
    with pytest.raises(LoraryError) as caught:
        load_wording(str(file))
    said = str(caught.value)
    assert "ruler: unknown key" in said
    assert "check: the field {question} is missing" in said
    assert "rule: expected text, found nothing" in said
    file.write_text(text.replace("{title}", "{title!r}", 1), encoding="utf-8")
    with pytest.raises(LoraryError, match="answers: a field takes no format and no conversion"):
        load_wording(str(file))
    for content in ("a: [", "- 1", "a: {b", "x: '{'"):
        file.write_text(content)
        with pytest.raises(LoraryError, match=re.escape(str(file))):
            load_wording(str(file))
