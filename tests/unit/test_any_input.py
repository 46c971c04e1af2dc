"""Whatever JSON, text or config comes: it is taken, or refused in words; nothing else is raised. Property-based."""

import json
import re
import string

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as some

import tiny
from lorary.core.errors import LoraryError
from lorary.data import prompts
from lorary.data import rows as dataset
from lorary.plan.config import resolve

MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

characters = some.characters(codec=None, categories=None)  # half surrogate pairs too
texts = some.text(characters, max_size=30)
numbers = some.integers() | some.floats()
jsons = some.recursive(
    some.none() | some.booleans() | numbers | texts,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@some.composite
def questions(draw):
    """Rows as they should be, with any text, in one place of which anything else may stand."""
    answers = texts | some.lists(texts, min_size=1, max_size=3)
    pair = some.fixed_dictionaries({"question": texts, "answer": texts, "full_answer": texts})
    pairs = {"aug_qa": some.lists(pair, min_size=1, max_size=5)}
    augment = some.fixed_dictionaries({"passage": texts, "aug_rewrite": texts, **pairs}) | some.fixed_dictionaries(
        {"passage": some.none(), **pairs}, optional={"aug_rewrite": some.none()}
    )
    question = some.fixed_dictionaries(
        {
            "question": texts,
            "answer": answers,
            "augment": some.lists(augment, min_size=1, max_size=2),
        }
    ).map(lambda row: {**row, "passages": [passage["passage"] for passage in row["augment"]]})
    rows = draw(some.lists(question, min_size=1, max_size=3))
    if draw(some.booleans()):
        *way, last = draw(some.sampled_from(list(places(rows))))
        parent = rows
        for step in way:
            parent = parent[step]
        if isinstance(parent, dict) and draw(some.booleans()):
            del parent[last]
        else:
            parent[last] = draw(jsons)
    return rows


def places(value, way=()):
    """The ways to all places inside a value."""
    for step, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        yield (*way, step)
        yield from places(item, (*way, step))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


@MANY
@given(content=some.binary(max_size=200) | jsons.map(json.dumps).map(str.encode))
def test_any_file_loads_or_is_refused(folder, content):
    file = folder / "total.json"
    file.write_bytes(content)
    for read in (dataset.outline, dataset.load_all):
        try:
            read([file], -1, "aug")
        except LoraryError as error:
            assert str(error).startswith(str(folder))


@MANY
@given(rows=questions())
def test_any_rows_load_whole_or_are_refused_with_their_place(folder, rows):
    file = folder / "rows.json"
    file.write_text(json.dumps(rows))
    try:
        table = dataset.load_all([file], -1, "aug")
    except LoraryError as error:
        assert "rows.json" in str(error)
        str(error).encode()
        return
    finally:  # what is checked for speed is what the schema says
        for row in rows:
            schema = any(True for _ in dataset.schema_faults("", 0, row, "aug"))
            assert dataset.is_good(row, "aug") is not schema
    assert len(table) == sum(dataset.outline([file], -1, "aug")[0])
    dataset.save(table, str(folder / "rows.parquet"))
    assert dataset.read(str(folder / "rows.parquet"), 0, len(table)) == table


@pytest.fixture(scope="module")
def prompter(tiny_llama):
    return prompts.load_prompter(tiny_llama, tiny.PROMPTS)


@MANY
@given(rows=questions(), max_length=some.integers(2, 100))
def test_any_rows_that_load_become_ids(folder, prompter, rows, max_length):
    file = folder / "prompts.json"
    file.write_text(json.dumps(rows))
    try:
        table = dataset.load_all([file], -1, "aug")
    except LoraryError:
        assume(False)
    built = prompts.build(table, prompter, max_length).to_pylist()
    for row in table:
        sequences = [s for s in built if (s["did"], s["pid"]) == (row["did"], row["pid"])]
        pairs = len(row["pairs"])
        assert len(sequences) == pairs + (0 if row["passage"] is None else (pairs + 1) // 2)
        assert all(s["error"] is None for s in sequences)
        assert all(len(s["input_ids"]) == min(s["length"], max_length) > 0 for s in sequences)
        assert all(0 <= i < 512 for s in sequences for i in s["input_ids"])
    prompts.save(pa.Table.from_pylist(built, schema=prompts.PROMPT_SCHEMA), str(folder / "ids.parquet"))


pieces = some.sampled_from(["{answer}", "{{", "}}", "a", "{answer.__class__}", "{answer[0]}", "{answer!r}", "{0}"])


@MANY
@given(template=texts | some.text(string.printable + "{}", max_size=40) | some.lists(pieces, max_size=6).map("".join))
def test_any_template_is_filled_by_its_names_or_refused(folder, template):
    templates = {
        "passage": "{passage}",
        "example": "{question}{answer}",
        "direct": {"user": "{passages}{question}", "assistant": "{answer}" + template},
        "cot": {"user": "{passages}{question}{fewshot}", "assistant": "{answer}"},
    }
    file = folder / "templates.yaml"
    file.write_text(json.dumps(templates))  # JSON is YAML
    try:
        read = prompts.load_templates(str(file))
    except LoraryError as error:
        assert "templates.yaml" in str(error)
        return
    # braces are doubled or around the one name: the value comes as it is, and of it nothing else
    value = "\0{answer.__class__}"
    put = {"{{": "{", "}}": "}", "{answer}": value}
    filled = re.sub(r"\{\{|\}\}|\{answer\}", lambda found: put[found[0]], template)
    assert prompts.fill(read["direct.assistant"], answer=value) == value + filled


@MANY
@given(example=jsons)
def test_any_few_shot_file_is_read_or_refused(folder, example):
    file = folder / "fewshot.json"
    file.write_text(json.dumps([example]))
    try:
        assert prompts.load_fewshot(str(file))[0].keys() == {"question", "answer"}
    except LoraryError as error:
        assert "fewshot.json" in str(error)


KEYS = [*resolve({})[0].flat(), "runs", "unknown"]


@MANY
@given(config=some.dictionaries(some.sampled_from(KEYS), jsons, max_size=5))
def test_any_config_resolves_or_is_refused_by_its_keys(config):
    try:
        runs = resolve(config)
    except LoraryError as error:
        assert any(key in str(error) for key in config)
        return
    for run in runs:
        assert run.flat().keys() == resolve({})[0].flat().keys()
        assert all(part not in ("..", "") and "/" not in part for part in (run.model.model_name, run.data.dataset))
