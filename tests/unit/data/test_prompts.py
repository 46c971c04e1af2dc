"""Prompt ids: which sequences a passage gives, their wording, their ids, and ids that no day changes."""

import datetime as clock
import json
import logging

import pandas as pd
import pytest
import yaml
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

import tiny
from lorary.core.errors import LoraryError
from lorary.data import prompts
from lorary.data import rows as dataset
from lorary.data.objectives import passage_sequences

DEFAULT = tiny.ROOT / "resources/prompt_templates.yaml"
FEWSHOT = [{"question": "Which {passages}?", "answer": "This."}, {"question": "Who?", "answer": "She."}]
DAY = "{{ strftime_now('%d %b %Y') }}"
GUARDED = (
    "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% else %}{% set day = '' %}{% endif %}"
    "Today Date: {{ day }}\n"
)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.make_tokenizer(folder)
    return folder


@pytest.fixture
def rows(tmp_path):
    return dataset.load_all(
        [tiny.write_rows(tmp_path / "total.json", tiny.make_rows(2, passages=2, pairs=3))], -1, "aug"
    )


THINKING = (  # as Qwen3's
    tiny.CHATML + "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}"
)


def prompter(model, with_cot=False, fewshot=None, templates=DEFAULT, chat_date="26 Jul 2024", **later):
    setting = {"prompt_templates": str(templates), "fewshot": fewshot and str(fewshot), **later}
    return prompts.load_prompter(str(model), {**setting, "with_cot": with_cot, "chat_date": chat_date})


def write(path, content):
    content = content if isinstance(content, str | bytes) else json.dumps(content)  # JSON is YAML
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


NUMBERED = {"passage": "[{number}] {passage}\n", "direct__assistant": "The answer is {answer}"}


def wording(**changes):
    content = yaml.safe_load(DEFAULT.read_text())
    for key, text in changes.items():
        first, _, second = key.partition("__")
        (content[first] if second else content)[second or first] = text
    return content


@pytest.mark.parametrize(
    ("clean", "questions"),
    [
        ("Who?", ["Who", "Who?", "Who ?", "Who   ?  ", " \n Who \t"]),
        ("Who??", ["Who??"]),
        ("Who.?", ["Who. "]),
        ("Is it ? so?", ["Is it ? so"]),
        ("?", ["", " ?"]),
    ],
)
def test_a_question_ends_with_a_question_mark(questions, clean):
    assert [prompts.clean_question(question) for question in questions] == [clean] * len(questions)


def test_an_answer_ends_with_a_full_stop():
    answers = ["yes", " yes. \n", "yes .", "etc...", "no!", ""]
    assert [prompts.clean_answer(answer) for answer in answers] == ["yes.", "yes.", "yes .", "etc...", "no!.", "."]


def test_values_with_braces_are_text():
    assert prompts.fill("{{{a}}} {b}{a}", a="{b}", b="{a.__class__} {0} }") == "{{b}} {a.__class__} {0} }{b}"


def test_the_default_templates():
    assert prompts.load_templates(str(DEFAULT)).keys() == prompts.FIELDS.keys()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (wording(passage="{number}"), "passage: the field {passage} is missing"),
        (wording(cot__user="{passages} {question}"), "cot.user: the field {fewshot} is missing"),
        (wording(direct__user="{passages} {question} {fewshot}"), "direct.user: unknown field {fewshot}; there is"),
        (wording(direct__assistant="{answer} {pasage}"), "direct.assistant: unknown field {pasage}; there is {answer}"),
        (wording(passage="{passage.__class__}"), "passage: unknown field {passage.__class__}"),
        (wording(passage="{passage} {number[0]}"), "passage: unknown field {number[0]}"),
        (wording(passage="{passage} {}"), "passage: unknown field {}"),
        (wording(passage="{passage} {0}"), "passage: unknown field {0}"),
        (wording(passage="{passage:>10}"), "passage: a field takes no format and no conversion"),
        (wording(passage="{passage:{number}}"), "passage: a field takes no format and no conversion"),
        (wording(passage="{passage!r}"), "passage: a field takes no format and no conversion"),
        (wording(passage="{passage} {"), "passage: Single '{' encountered in format string (write {{ and }}"),
        (wording(example="{question} {answer} }"), "example: Single '}' encountered in format string"),
        (wording(passage="x", other="x"), "other: unknown key\n  passage: the field {passage} is missing"),
        (wording(passage=3), "passage: expected text, found 3"),
        (wording(direct="text"), "direct.user: expected text, found nothing"),
        (wording(direct__assistent="x"), "direct.assistent: unknown key"),
        ([1], "passage: expected text, found nothing"),
        ("", "passage: expected text, found nothing"),
        ("passage: [", "cannot be read as YAML"),
        (b"passage: \xff", "cannot be read as YAML"),
        ("passage: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("passage: 2024-13-45", "cannot be read as YAML"),  # YAML takes it for a date
        ("passage: '{passage}'\npassage: '{passage}.'", "passage is given twice, in lines 1 and 2"),
        ("direct: {user: x,\n assistant: y,\n user: z}", "user is given twice, in lines 1 and 3"),
    ],
)
def test_faults_of_templates(tmp_path, content, words):
    path = write(tmp_path / "mine.yaml", content)
    with pytest.raises(LoraryError) as caught:
        prompts.load_templates(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"prompt_templates: {path} ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ([], "at least one entry"),
        (FEWSHOT[0], "is not a list"),
        ([*FEWSHOT, "q"], "entry 2, question: expected text\n  entry 2, answer: expected text"),
        ([{"question": "q", "answer": None}], "entry 0, answer: expected text"),
        ('[{"question": "q", "answer": "a", "answer": "b"}]', "answer is given twice"),
        ('[{"question": "\\ud800", "answer": "a"}]', "entry 0, question: "),  # no tokenizer takes it
    ],
)
def test_faults_of_examples(tmp_path, content, words):
    with pytest.raises(LoraryError) as caught:
        prompts.load_fewshot(write(tmp_path / "fewshot.json", content))
    assert words in str(caught.value)


def test_the_wording_of_a_sequence(model, tmp_path):
    templates = write(tmp_path / "mine.yaml", wording(**NUMBERED, direct__user="<{passages}|{question}|{{{{}}>"))
    direct = prompter(model, templates=templates)
    start, end = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    user, assistant = direct.text(" who {answer} ? ", ["A {question}."], " him ")
    assert (user, assistant) == (start + "<[1] A {question}.\n|who {answer}?|{{}>" + end, "The answer is him.")
    assert direct.text("who", [], "x.")[0] == start + "<|who?|{{}>" + end
    user, opening = direct.text("who", ["A", "B"], None)
    assert (user, opening) == (start + "<[1] A\n[2] B\n|who?|{{}>" + end, "The answer is ")


@pytest.mark.parametrize("opening", ["The answer is ", "Answer:\n", "", "{{x}} so "])
def test_an_answer_begins_where_the_opening_ends(model, tmp_path, opening):
    templates = write(tmp_path / "mine.yaml", wording(direct__assistant=opening + "{answer}"))
    opening = opening.format()
    direct = prompter(model, templates=templates)
    encode, decode = direct.tokenizer.encode, direct.tokenizer.decode
    ids, begin = direct.answer_ids("who", "him")
    user, assistant = direct.text("who", [], "him")
    assert ids == encode(user, add_special_tokens=False) + encode(assistant, add_special_tokens=False)
    assert decode(ids[begin:]).strip() == "him."
    assert decode(ids[:begin]).rstrip() == (user + opening).rstrip()
    # no more than the answer is looked at, and an empty one is its full stop
    after = prompter(model, templates=write(tmp_path / "after.yaml", wording(direct__assistant="{answer} Done")))
    ids, begin = after.answer_ids("who", "him")
    assert decode(ids[begin:]) == "him."
    ids, begin = direct.answer_ids("who", "")
    assert decode(ids[begin:]).strip() == "."
    # and an answer is asked for after the opening, tokenised on its own
    asked = direct.prompt_ids("who", ["A", "B"])
    user, _ = direct.text("who", ["A", "B"], None)
    assert asked == encode(user, add_special_tokens=False) + encode(opening, add_special_tokens=False)


def test_chain_of_thought_shows_the_examples(model, tmp_path):
    fewshot = write(tmp_path / "fewshot.json", [{**example, "source": "x"} for example in FEWSHOT])
    user, assistant = prompter(model, with_cot=True, fewshot=fewshot).text("how", ["P"], "So")
    shown = "Question: Which {passages}?\nAnswer: This.\n\nQuestion: Who?\nAnswer: She.\n\n"
    assert f"{shown}P\n\nQuestion: how?" in user
    assert assistant == "So."
    assert "She." not in prompter(model, fewshot=fewshot).text("how", ["P"], "So")[0]


def test_a_tokenizer_without_chat_template_is_refused(tmp_path):
    tiny.make_tokenizer(tmp_path, chat_template=None)
    with pytest.raises(LoraryError, match="has no chat template"):
        prompts.load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("bos_and_eos", [False, True])
def test_ids_are_those_of_the_chat_template_and_then_of_the_answer(model, tmp_path, rows, bos_and_eos):
    if bos_and_eos:  # a tokenizer that puts special tokens around what it encodes, as Llama's puts one before
        tiny.make_tokenizer(tmp_path)
        file = str(tmp_path / "tokenizer.json")
        special = [("<|im_start|>", 0), ("<|im_end|>", 1)]
        backend = Tokenizer.from_file(file)
        backend.post_processor = TemplateProcessing("<|im_start|> $A <|im_end|>", special_tokens=special)
        backend.save(file)
        model = tmp_path
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert (len(tokenizer.encode("a")) == 3) == bos_and_eos
    table = prompts.build(rows, prompter(model), 3000).to_pylist()
    expected = []
    for row in rows:
        for i, (question, context, answer) in enumerate(passage_sequences(row, False)):
            shown = f"{context}\n" if context else ""
            text = wording()["direct"]["user"].format(passages=shown, question=f"{question}?")
            messages = [{"role": "user", "content": text}]
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            ids = ids + tokenizer.encode(f"{answer}.", add_special_tokens=False)
            place = {"did": row["did"], "pid": row["pid"], "sequence": i}
            expected.append({**place, "length": len(ids), "input_ids": ids, "begin": None, "end": None, "error": None})
    assert table == expected
    assert [tokenizer.decode(row["input_ids"][-1:]) for row in table] == ["."] * len(table)


class Later(clock.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2031, 12, 5)


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        (DAY + tiny.CHATML, "09 Mar 2025"),
        (GUARDED + tiny.CHATML, "Today Date: 09 Mar 2025"),
        ("{{ strftime_now('%B %d, %Y') }}" + tiny.CHATML, "March 09, 2025"),
        ("{% macro day() %}" + DAY + "{% endmacro %}{{ day() }}" + tiny.CHATML, "09 Mar 2025"),
    ],
    ids=["plain", "guarded", "granite", "macro"],
)
def test_no_template_sees_the_clock(tmp_path, monkeypatch, rows, template, shown):
    tiny.make_tokenizer(tmp_path, template)
    made, other = (prompter(tmp_path, chat_date=date) for date in ("9 Mar 2025", "1 Jan 2020"))
    assert shown in made.text("q", [], "a")[0]
    assert "2020" in other.text("q", [], "a")[0]
    ids = prompts.build(rows, made, 3000)
    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    message = {"role": "user", "content": "q"}
    assert made.tokenizer.apply_chat_template([message], tokenize=False, chat_template=DAY) == "05 Dec 2031"
    assert prompts.build(rows, made, 3000) == ids
    assert ids["error"].null_count == len(ids)


def test_variables_of_the_chat_template_are_given_to_it_wherever_a_prompt_is_made(tmp_path, rows):
    tiny.make_tokenizer(tmp_path, THINKING)
    default = prompter(tmp_path)
    for same in ({}, {"enable_thinking": True}, {"enable_thinking": None}):
        assert prompts.build(rows, prompter(tmp_path, chat_template_kwargs=same), 3000) == prompts.build(
            rows, default, 3000
        )
    quick = prompter(tmp_path, chat_template_kwargs={"enable_thinking": False})
    closed = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert quick.text("who", ["A"], None)[0] == default.text("who", ["A"], None)[0] + "<think>\n\n</think>\n\n"
    decode = quick.tokenizer.decode
    assert decode(quick.prompt_ids("who", ["A"])).endswith(closed + quick.text("who", [], None)[1])
    ids, begin = quick.answer_ids("who", "him")
    assert closed in decode(ids[:begin])
    assert all(closed in decode(row["input_ids"]) for row in prompts.build(rows, quick, 3000).to_pylist())


def test_a_variable_that_the_chat_template_does_not_read_is_refused(tmp_path):
    """It would change nothing, in silence: as with a template that always begins a thought."""
    tiny.make_tokenizer(tmp_path, tiny.CHATML + "{% if add_generation_prompt %}<think>\n{% endif %}")
    with pytest.raises(LoraryError, match=r"chat_template_kwargs: the chat template of .* reads no enable_thinking"):
        prompter(tmp_path, chat_template_kwargs={"enable_thinking": False})
    # where the thought can be ended by the wording of the answer
    templates = write(tmp_path / "mine.yaml", wording(direct__assistant="</think>\n\nThe answer is {answer}"))
    asked = prompter(tmp_path, templates=templates)
    assert asked.tokenizer.decode(asked.prompt_ids("who", [])).endswith("<think>\n</think>\n\nThe answer is ")


def test_ids_are_cut_and_the_cut_is_told(model, rows, caplog):
    caplog.set_level(logging.INFO, logger="lorary")
    whole = prompts.build(rows, prompter(model), 3000).to_pylist()
    assert "cut" not in caplog.text
    limit = sorted(row["length"] for row in whole)[len(whole) // 2]  # reached by some, passed by others
    cut = prompts.build(rows, prompter(model), limit).to_pylist()
    assert cut == [{**row, "input_ids": row["input_ids"][:limit]} for row in whole]
    long = sum(row["length"] > limit for row in whole)
    assert 0 < long < len(whole)
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage() == f"{long} of {len(whole)} sequences were cut at max_length={limit}"


def titled(rows, title):
    return [{**row, "extra": json.dumps({"question": {}, "passage": {"title": title}})} for row in rows]


def test_answers_are_predicted_alone_and_asked_without_the_passage(model, tmp_path, rows):
    templates = write(tmp_path / "mine.yaml", wording(direct__assistant="The answer is {answer} Done"))
    of = prompter(model, templates=templates)
    table = prompts.build(rows, of, 3000, "answers").to_pylist()
    decode = of.tokenizer.decode
    asked = [(row, pair) for row in rows for pair in row["pairs"]]
    assert len(table) == len(asked)
    for line, (row, pair) in zip(table, asked, strict=True):
        user, assistant = of.text(pair["question"], [], pair["answer"])
        assert decode(line["input_ids"]) == user + assistant
        assert decode(line["input_ids"][line["begin"] :]).strip() == f"{pair['answer']}. Done"
        assert (line["did"], line["pid"], line["end"]) == (row["did"], row["pid"], None)
    beside = prompts.build(rows[:1], of, 3000, "answers", "both").to_pylist()
    shown = [rows[0][name] for name in ("passage", "rewrite")] * 2
    assert all(text in decode(line["input_ids"][: line["begin"]]) for line, text in zip(beside, shown, strict=False))
    assert [line["input_ids"] for line in beside[4:]] == [table[2]["input_ids"]]


@pytest.mark.parametrize("title", ["", "Amber"])
def test_mixed_takes_turns_with_passage_and_rewrite_as_texts(model, rows, title):
    of = prompter(model)
    first, second, third = prompts.build(rows[:1], of, 3000, "answers").to_pylist()
    row = titled(rows, title)[0]
    turns = prompts.build([row], of, 3000, "mixed").to_pylist()
    assert [line["sequence"] for line in turns] == list(range(5))
    for line, answer in zip(turns[::2], (first, second, third), strict=True):
        assert {**line, "sequence": 0} == {**answer, "sequence": 0}
    subject = title or '"' + " ".join(row["passage"].split()[:6]) + ' ..."'
    for line, text in zip(turns[1::2], (row["passage"], row["rewrite"]), strict=True):
        assert of.tokenizer.decode(line["input_ids"][: line["begin"]]) == of.turn(f"What do you know about {subject}?")
        assert of.tokenizer.decode(line["input_ids"][line["begin"] :]) == text
    alone = prompts.build([{**row, "passage": None, "rewrite": None}], of, 3000, "mixed").to_pylist()  # of a warm-up
    assert alone == [first, second, third]


def test_a_teachers_ids_end_as_the_adapters_do_after_a_prompt_with_the_passage(model, rows):
    of = prompter(model)
    answers = prompts.build(rows, of, 3000, "answers").to_pylist()
    table = prompts.build(rows, of, 3000, "distill").to_pylist()
    assert [{k: v for k, v in line.items() if k != "teacher"} for line in table] == answers
    shown = prompts.build(rows, of, 3000, "answers", "passage").to_pylist()
    assert [line["teacher"] for line in table[:2]] == [line["input_ids"] for line in shown[:2]]
    limit = max(line["length"] for line in table[:3]) - 1
    for cut, line in zip(prompts.build(rows[:1], of, limit, "distill").to_pylist(), table, strict=False):
        end = line["input_ids"][line["begin"] : limit]
        assert cut["input_ids"][cut["begin"] :] == cut["teacher"][-len(end) :] == end
    (failed,) = prompts.build([{**rows[0], "passage": None}], of, 3000, "distill").to_pylist()
    assert failed["error"] == "objective: distill needs a passage for its teacher's prompt, and this one has none"


def test_the_question_for_a_text_may_be_worded_anew(model, tmp_path, rows):
    of = prompter(model, templates=write(tmp_path / "mine.yaml", {**wording(), "about": "Say all of {title}"}))
    line = prompts.build(titled(rows, "Amber")[:1], of, 3000, "mixed").to_pylist()[1]
    assert "user\nSay all of Amber<|im_end|>" in of.tokenizer.decode(line["input_ids"])
    path = write(tmp_path / "mine.yaml", {**wording(), "about": "Say all"})
    with pytest.raises(LoraryError, match=r"about: the field {title} is missing"):
        prompts.load_templates(path)


@pytest.mark.parametrize("objective", ["answers", "mixed"])
def test_a_cut_that_leaves_nothing_to_learn_fails_the_passage_in_words(model, rows, objective):
    whole = prompts.build(rows, prompter(model), 3000, objective).to_pylist()
    mine = [line for line in whole if (line["did"], line["pid"]) == (0, 0)]
    longest = max(mine, key=lambda line: line["begin"])
    number, begin, length = longest["sequence"], longest["begin"], longest["length"]
    (failed,) = prompts.build(rows[:1], prompter(model), begin, objective).to_pylist()
    assert failed["input_ids"] == []
    assert failed["error"] == (
        f"nothing of sequence {number} is left to learn: that begins after {begin} of its {length} tokens, and"
        f" max_length={begin} cuts it away; raise that"
    )
    cut = prompts.build(rows[:1], prompter(model), begin + 1, objective).to_pylist()  # one token is something
    assert [line["error"] for line in cut] == [None] * len(mine)


def test_a_passage_that_cannot_be_encoded_fails_alone(tmp_path, rows, caplog):
    refuse = "{% if 'poison' in messages[0].content %}{{ raise_exception('no') }}{% endif %}"
    tiny.make_tokenizer(tmp_path, refuse + tiny.CHATML)
    good = prompts.build(rows, prompter(tmp_path), 3000).to_pylist()
    rows[1]["rewrite"] = "poison"  # a later sequence: those before it do not stay
    table = prompts.build(rows, prompter(tmp_path), 3000).to_pylist()
    assert [row for row in table if row["error"] is None] == [row for row in good if (row["did"], row["pid"]) != (0, 1)]
    (failed,) = [row for row in table if row["error"]]
    place = {"did": 0, "pid": 1, "sequence": 0, "length": 0, "input_ids": [], "begin": None, "end": None}
    hint = "see this passage's text and the model's chat template"
    assert failed == {**place, "error": f"TemplateError: no; {hint}"}
    assert "data_0/passage_1: the prompt ids cannot be made: TemplateError: no" in caplog.text


def test_the_files_are_readable_with_pandas(model, tmp_path, rows):
    table = prompts.build(rows, prompter(model), 3000)
    path = tmp_path / "prompts.parquet"
    prompts.save(table, str(path))
    frame = pd.read_parquet(path)
    assert list(frame.columns) == ["did", "pid", "sequence", "length", "input_ids", "begin", "end", "error"]
    assert [ids.tolist() for ids in frame["input_ids"]] == table["input_ids"].to_pylist()
    assert frame.groupby(["did", "pid"]).size().tolist() == [5] * 4
