"""The teacher: the bare model's likeliest tokens, whatever is beside it, made once and kept."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from lorary.base import decoder
from lorary.base.fetch import get_model
from lorary.core.errors import LoraryError
from lorary.core.store import Store
from lorary.data import prompts, rows
from lorary.data.sequences import read_passages
from lorary.train import encode, teacher

SETTINGS = {**tiny.TRAINING, "objective": "distill", "distill_top_k": 4, "distill_temperature": 1.0}
OWN = {"distill_answers": "own", "own_tokens": 6, "max_length": 3000}


@pytest.fixture(scope="module")
def taught(made, tmp_path_factory):
    """Prompt ids with a teacher's."""
    path = tmp_path_factory.mktemp("taught") / "prompts.parquet"
    prompter = prompts.load_prompter(str(made / "llama"), tiny.PROMPTS)
    table = prompts.build(rows.load_all([made / "total.json"], -1, "aug"), prompter, 3000, "distill")
    prompts.save(table, str(path))
    return path


@pytest.fixture
def model(made):
    return decoder.load(made / "llama", "float32", torch.device("cpu"))


@pytest.mark.parametrize("shortest", [1, 1000], ids=["read once", "each alone"])
def test_it_says_what_the_bare_model_does(made, taught, model, tmp_path, monkeypatch, shortest):
    monkeypatch.setattr(teacher.reading, "SHORTEST", shortest)
    theirs = AutoModelForCausalLM.from_pretrained(made / "llama", dtype=torch.float32)
    for passage in read_passages(taught, {(0, 0), (1, 0), (2, 0)}):
        for example in teacher.Teacher(model, "weights", SETTINGS, str(tmp_path)).teach(passage).examples:
            ids = torch.tensor(example.teacher, dtype=torch.long)
            with torch.no_grad():
                logits = theirs(input_ids=ids[None]).logits[0]
            best = torch.log_softmax(logits, -1)[len(ids) - example.predicted() - 1 : -1].topk(4)
            assert example.likeliest[0].tolist() == best.indices.tolist()
            assert np.abs(example.likeliest[1] - best.values.numpy()).max() < 1e-4


def test_a_model_that_goes_through_transformers_says_the_same(made, taught, model):
    (passage,) = read_passages(taught, {(0, 0)})
    asked = [(example.teacher.tolist(), len(example.teacher) - example.predicted()) for example in passage.examples]
    theirs = AutoModelForCausalLM.from_pretrained(made / "llama", dtype=torch.float32)
    for mine, other in zip(teacher.likeliest(model, asked, 4), teacher.likeliest(theirs, asked, 4), strict=True):
        assert np.abs(mine - other).max() < 1e-4


def test_what_is_kept_is_read_again_unless_it_is_damaged(taught, model, tmp_path, monkeypatch):
    (passage,) = read_passages(taught, {(0, 0)})
    asked = []
    likeliest = teacher.likeliest
    monkeypatch.setattr(teacher, "likeliest", lambda *arguments: asked.append(1) or likeliest(*arguments))

    def said(**settings):
        examples = teacher.Teacher(model, "w", SETTINGS | settings, str(tmp_path)).teach(passage).examples
        return [array.tolist() for example in examples for array in example.likeliest]

    first = said()
    assert said() == said(distill_temperature=2.0) == first
    assert len(asked) == 1
    (file,) = (tmp_path / "teacher").glob("*/*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert said() == first
    assert len(asked) == 2
    said(distill_top_k=3)
    said(task_adapter="in its weights")
    assert len(asked) == 4


def own_answers(theirs, passage, ends, room):
    """What a plain loop in float64 has follow each of the teacher's prompts."""
    answers = []
    for example in passage.examples:
        ids = prompt = example.teacher[: len(example.teacher) - example.predicted()].tolist()
        while len(ids) < len(prompt) + room:
            with torch.no_grad():
                token = int(theirs(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token in ends:
                break
            ids = [*ids, token]
        answers.append(ids[len(prompt) :])
    return answers


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A model whose answers differ."""
    folder = tmp_path_factory.mktemp("writer")
    get_model(str(tiny.make_model(folder / "source", initializer_range=0.3)), None, str(folder / "model"))
    return folder / "model"


@pytest.fixture(scope="module")
def exact(writer):
    return AutoModelForCausalLM.from_pretrained(writer, dtype=torch.float64)


@pytest.fixture
def own(writer, tmp_path):
    """`own(**settings)`: a teacher that answers itself."""
    model = decoder.load(writer, "float32", torch.device("cpu"))

    def own(model=model, **settings):
        return teacher.Teacher(model, "weights", {**SETTINGS, **OWN, "ends": [], **settings}, str(tmp_path))

    return own


@pytest.mark.parametrize("theirs", [False, True], ids=["written out here", "by transformers"])
def test_its_own_answers_are_greedy_and_what_it_says_is_said_of_them(taught, writer, exact, own, theirs):
    (passage,) = read_passages(taught, {(1, 0)})
    without = own_answers(exact, passage, (), 6)
    assert len({tuple(answer) for answer in without}) == 4
    ends = [without[0][3], without[2][0]]
    wanted = own_answers(exact, passage, ends, 6)
    assert (len(wanted[0]), len(wanted[2])) == (3, 0)
    other = {"model": AutoModelForCausalLM.from_pretrained(writer, dtype=torch.float32)} if theirs else {}
    examples = own(ends=ends, **other).teach(passage).examples
    for given, example, answer in zip(passage.examples, examples, wanted, strict=True):
        answer = answer or given.ids[given.begin :].tolist()  # the given one, where it has none
        assert example.ids.tolist() == given.ids[: given.begin].tolist() + answer
        assert example.teacher.tolist() == given.teacher[: len(given.teacher) - given.predicted()].tolist() + answer
        assert (example.predicted(), example.ids.dtype, example.teacher.dtype) == (len(answer), np.int32, np.int32)
        with torch.no_grad():
            logits = exact(input_ids=torch.tensor(example.teacher, dtype=torch.long)[None]).logits[0]
        best = torch.log_softmax(logits, -1)[-len(answer) - 1 : -1].topk(4)
        assert example.likeliest[0].tolist() == best.indices.tolist()
        assert np.abs(example.likeliest[1] - best.values.numpy()).max() < 1e-4


def test_an_answer_of_its_own_is_cut_at_max_length(taught, exact, own):
    (passage,) = read_passages(taught, {(1, 0)})
    most = min(example.begin for example in passage.examples) + 2
    passage.examples = [example for example in passage.examples if example.begin < most]
    wanted = own_answers(exact, passage, (), 6)
    for example, answer in zip(own(max_length=most).teach(passage).examples, wanted, strict=True):
        assert len(example) == most
        assert example.ids[example.begin :].tolist() == answer[: most - example.begin]


def test_its_own_answers_are_kept_and_read_again(taught, own, monkeypatch):
    (passage,) = read_passages(taught, {(1, 0)})
    asked = []
    greedy = teacher.greedy
    monkeypatch.setattr(teacher, "greedy", lambda *arguments: asked.append(1) or greedy(*arguments))

    def said(passage=passage, **settings):
        return [example.ids.tolist() for example in own(**settings).teach(passage).examples]

    first = said()
    with monkeypatch.context() as patch:
        patch.setattr(teacher, "likeliest", None)
        assert said() == said(distill_temperature=2.0) == first
    said(distill_top_k=3)
    assert len(asked) == 1  # which decides no answer
    for i, other in enumerate([{"own_tokens": 5}, {"ends": [first[0][-1]]}, {"max_length": 2999}], start=2):
        said(**other)
        assert len(asked) == i
    said(replace(passage, examples=passage.examples[::-1]))
    assert len(asked) == 5


@pytest.fixture
def job(made, taught, tmp_path):
    """`job(name, n)`: what the store holds, of three passages, n at once."""
    arguments = {"base_weight": made / "llama-base", "prompts": taught}
    settings = {**SETTINGS, "learning_rate": 0.01, "num_train_epochs": 3}

    def job(name, n, model=made / "llama", **own):
        folder = tmp_path / name
        encode.train_adapters(
            outputs=[f"{folder}/out/data_{did}/passage_0" for did in range(3)],
            record=f"{tmp_path}/{name}.tsv",
            outcome=f"{tmp_path}/{name}.json",
            store=f"{folder}/store",
            settings=settings | own,
            model=str(model),
            adapters_per_step=n,
            threads=1,
            **{key: str(value) for key, value in arguments.items()},
        )
        assert json.loads((tmp_path / f"{name}.json").read_text())["trained"] == 3
        store = Store(f"{folder}/store")
        return {digest: store.get(digest) for digest in store.digests()}

    return job


def test_it_is_asked_between_the_steps_of_others(job):
    """The adapters under way are not at work while it speaks, and are afterwards."""
    alone, beside = job("alone", 1), job("beside", 3)
    assert alone.keys() == beside.keys()
    for digest, training in alone.items():
        assert training["losses"] == pytest.approx(beside[digest]["losses"], rel=1e-3)
        an_epoch = len(training["losses"]) // 3
        assert sum(training["losses"][-an_epoch:]) < sum(training["losses"][:an_epoch])
        assert (training["objective"], training["distill_top_k"]) == ("distill", 4)


def limit_memory(monkeypatch, tokens):
    """The teacher cannot read more tokens than this at once."""
    hidden = decoder.Decoder.hidden

    def limited(self, ids, *cache):
        if cache and ids.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return hidden(self, ids, *cache)

    monkeypatch.setattr(decoder.Decoder, "hidden", limited)


def test_a_job_whose_teacher_has_none_of_its_own_learns_the_given_and_says_so_once(taught, writer, exact, job, caplog):
    passages = list(read_passages(taught, {(did, 0) for did in range(3)}))
    first = own_answers(exact, passages[1], (), 6)
    (writer / "generation_config.json").write_text(json.dumps({"eos_token_id": first[2][0]}), encoding="utf-8")
    wanted = [own_answers(exact, passage, [1, first[2][0]], 6) for passage in passages]
    given = [[example.predicted() for example in passage.examples] for passage in passages]
    counts = [sum(len(own) or n for own, n in zip(*both, strict=True)) for both in zip(wanted, given, strict=True)]
    trained = job("own", 1, writer, **OWN)
    assert sorted(training["predicted"] for training in trained.values()) == sorted(counts)
    assert all(training["distill_answers"] == "own" for training in trained.values())
    none = sum(not own for answers in wanted for own in answers)
    assert caplog.text.count("ends at once") == caplog.text.count(f"ends at once after {none} of 8 questions") == 1
    # other ends of answers are other adapters, and given answers do not look at them
    taken = job("given", 1, writer)
    (writer / "generation_config.json").unlink()
    assert job("given again", 1, writer).keys() == taken.keys()
    assert not trained.keys() & (job("other ends", 1, writer, **OWN).keys() | taken.keys())


def test_what_does_not_fit_into_memory_at_once_is_asked_one_by_one(taught, job, monkeypatch, caplog):
    passages = list(read_passages(taught, {(did, 0) for did in range(3)}))
    longest = max(len(example.teacher) for passage in passages for example in passage.examples)
    whole = job("whole", 1)
    limit_memory(monkeypatch, longest)
    one_by_one = job("one by one", 3)  # while others are under way
    assert "sequences do not fit into memory at once: going on one by one" in caplog.text
    assert one_by_one.keys() == whole.keys()
    for digest, training in one_by_one.items():
        assert training["losses"] == pytest.approx(whole[digest]["losses"], rel=1e-3)


def test_a_sequence_that_does_not_fit_alone_fails_its_passage(taught, job, tmp_path, monkeypatch):
    passages = list(read_passages(taught, {(did, 0) for did in range(3)}))
    longest = [max(len(example.teacher) for example in passage.examples) for passage in passages]
    limit_memory(monkeypatch, max(longest) - 2)
    with pytest.raises(LoraryError, match="a prompt of the teacher, with the passage, does not fit into memory, even"):
        job("short", 2)
    told = json.loads((tmp_path / "short.json").read_text())
    failed = [i for i, tokens in enumerate(longest) if tokens - 1 > max(longest) - 2]
    assert [fault["path"] for fault in told["failed"]] == [f"{tmp_path}/short/out/data_{i}/passage_0" for i in failed]
    assert told["trained"] == 3 - len(failed) > 0


def test_another_prompt_of_the_teacher_is_another_adapter(made, taught, tmp_path):
    table = pq.read_table(taught).to_pylist()
    rows = [{**row, "teacher": row["teacher"][1:]} for row in table]
    prompts.save(prompts.pa.Table.from_pylist(rows, schema=prompts.TAUGHT_SCHEMA), str(tmp_path / "other.parquet"))
    digests = [
        encode.passage_digests(str(made / "llama"), str(made / "llama-base"), str(path), SETTINGS, {(0, 0)})[0]
        for path in (taught, tmp_path / "other.parquet")
    ]
    assert digests[0] != digests[1]
