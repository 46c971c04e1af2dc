"""Answers of many questions at once, each with adapters of its own, are those of PEFT and transformers one by one."""

import copy
import functools
import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import tiny
from lorary.adapters import merge
from lorary.adapters.digest import digest_task_adapter
from lorary.adapters.files import init_base_weight
from lorary.adapters.lora import Active, load_adapter
from lorary.adapters.task import load_task_adapter, merge_task_adapter
from lorary.answer import generate
from lorary.base import decoder, reading
from lorary.base import fetch as model
from lorary.core.errors import LoraryError

CPU = torch.device("cpu")
KINDS = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},
    "granite": {"logits_scaling": 3.0},
}  # the last: transformers'


@pytest.fixture(scope="module", params=KINDS)
def base(request, tmp_path_factory):
    """A folder with a base model `model`, and adapters `0` to `3` of it that change every answer."""
    folder = tmp_path_factory.mktemp(request.param)
    source = tiny.make_model(folder / "source", request.param, initializer_range=0.3, **KINDS[request.param])
    model.get_model(str(source), None, str(folder / "model"))
    for i in range(4):
        targets = [*tiny.TARGETS, *(["lm_head"] if request.param == "qwen2" else [])]
        init_base_weight(str(folder / "model"), 2, 32, targets, i, None, str(folder / str(i)))
        file = folder / str(i) / "adapter_model.safetensors"
        torch.manual_seed(i)
        changed = {
            name: t + 0.05 * torch.randn(t.shape) if "lora_B" in name else t for name, t in load_file(file).items()
        }
        save_file(changed, file, metadata={"format": "pt"})
    return folder


QUESTIONS = [  # length of the prompt, and the adapters that are active together
    (17, []),
    (5, [0]),
    (40, [1, 2, 3]),
    (9, [2]),
    (40, [0, 3]),
    (1, [1, 0]),
]


def prompts():
    rng = torch.Generator().manual_seed(3)
    return [torch.randint(2, 512, (length,), generator=rng).tolist() for length, _ in QUESTIONS]


def with_peft(base, adapters):
    """transformers' model with these adapters active together, as Parametric RAG does it."""
    theirs = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.float32)
    if not adapters:
        return theirs
    names = [f"a{i}" for i in adapters]
    adapted = PeftModel.from_pretrained(theirs, base / str(adapters[0]), adapter_name=names[0])
    for name, i in zip(names[1:], adapters[1:], strict=True):
        adapted.load_adapter(base / str(i), adapter_name=name)
    adapted.add_weighted_adapter(names, [1.0] * len(names), "merge", combination_type="cat")
    adapted.set_adapter("merge")
    return adapted


def ours(base):
    return generate.Answerer(str(base / "model"), "float32", CPU, list(load_file(base / "0/adapter_model.safetensors")))


def sets(base):
    loaded = [load_adapter(str(base / str(i))) for i in range(4)]
    return [[loaded[i] for i in adapters] for _, adapters in QUESTIONS]


def test_greedy_answers_are_those_of_peft_one_by_one(base, monkeypatch):
    monkeypatch.setitem(reading.AT_ONCE, "cpu", 48)  # several groups, with and without padding
    wanted = []
    for prompt, (_, adapters) in zip(prompts(), QUESTIONS, strict=True):
        output = with_peft(base, adapters).generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=None,
        )
        wanted.append(output[0, len(prompt) :].tolist())
    answerer = ours(base)
    answerer.ends = {100_000}  # none
    assert answerer.generate(prompts(), sets(base), 12) == wanted
    assert len({tuple(tokens) for tokens in wanted}) == len(wanted)
    # the same adapters again, in another batch
    assert answerer.generate(prompts()[2:4], sets(base)[2:4], 12) == wanted[2:4]
    # an answer ends before its end token, and the others go on
    stopped = wanted[4].index(wanted[4][5])
    answerer.ends = {wanted[4][5]}
    again = answerer.generate(prompts(), sets(base), 12)
    assert again[4] == wanted[4][:stopped]
    assert any(tokens == full for tokens, full in zip(again, wanted, strict=True))


@functools.cache
def dense(base, adapters, factor=1.0):
    """transformers' model in float64, with these updates, each times `factor`, in its weights."""
    theirs = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.float64)
    if theirs.config.tie_word_embeddings is False:
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.clone())
    for i in adapters:
        tensors = load_file(base / str(i) / "adapter_model.safetensors")
        for name in (name for name in tensors if ".lora_A." in name):
            update = tensors[name.replace("lora_A", "lora_B")].double() @ tensors[name].double()
            place = name.removeprefix("base_model.model.").replace(".lora_A", "")
            theirs.get_parameter(place).data += 16 * factor * update
    return theirs


def greedily(models, prompt, tokens):
    """One token after the other: the likeliest by the mean of the models' probabilities."""
    ids = list(prompt)
    for _ in range(tokens):
        with torch.no_grad():
            each = [model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1) for model in models]
        ids.append(int(torch.stack(each).mean(0).argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("way", ["sum", "mean", "routed", "mixture"])
def test_adapters_work_together_as_dense_updates_in_float64(base, way, monkeypatch):
    monkeypatch.setitem(reading.AT_ONCE, "cpu", 48)
    wanted = []
    for prompt, (_, adapters) in zip(prompts(), QUESTIONS, strict=True):
        if way == "mixture":
            models = [dense(base, (i,)) for i in adapters] or [dense(base, ())]
        else:
            models = [dense(base, tuple(adapters), 1 / len(adapters) if way == "mean" and adapters else 1)]
        wanted.append(greedily(models, prompt, 8))
    answerer = ours(base)
    answerer.ends = {100_000}  # none
    mixtures = [generate.together(adapters, way) for adapters in sets(base)]
    assert answerer.generate_mixed(prompts(), mixtures, 8) == wanted
    # an answer ends for all models of its question, and the others go on
    answerer.ends = {wanted[2][3]}
    stopped = [tokens[: tokens.index(wanted[2][3])] if wanted[2][3] in tokens else tokens for tokens in wanted]
    assert answerer.generate_mixed(prompts(), mixtures, 8) == stopped
    assert any(len(tokens) == 8 for tokens in stopped)


def test_ways_of_working_together_differ(base):
    answerer = ours(base)
    answerer.ends = {100_000}
    answers = {
        tuple(answerer.generate_mixed(prompts(), [generate.together(some, way) for some in sets(base)], 8)[2])
        for way in ("sum", "mean", "mixture")
    }
    assert len(answers) == 3


def test_a_merged_mean_gives_by_peft_the_logits_of_ours(base, tmp_path):
    merge.merge_adapters([str(base / str(i)) for i in (1, 2, 3)], str(tmp_path / "mean"), mean=True)
    config = json.loads((tmp_path / "mean/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], type(config["lora_alpha"])) == (6, 32, int)
    ids = torch.tensor([prompts()[2]])
    theirs = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.float32)
    answerer = ours(base)
    answerer.active.set(generate.together(sets(base)[2], "mean"))
    with torch.no_grad():
        merged = PeftModel.from_pretrained(theirs, tmp_path / "mean")(input_ids=ids).logits
        torch.testing.assert_close(merged, decoder.logits(answerer.model, ids), rtol=1e-4, atol=1e-4)
        wanted = dense(base, (1, 2, 3), 1 / 3)(input_ids=ids).logits.float()
    torch.testing.assert_close(merged, wanted, rtol=1e-4, atol=1e-4)


@pytest.fixture
def task(base, tmp_path):
    """A task adapter of another rank, another scale and other layers than the adapters of passages."""
    init_base_weight(str(base / "model"), 3, 4, ["q_proj", "down_proj"], 7, None, str(tmp_path / "task"))
    file = tmp_path / "task/adapter_model.safetensors"
    torch.manual_seed(7)
    save_file({name: t + 0.3 * torch.randn(t.shape) for name, t in load_file(file).items()}, file)
    return {"path": str(tmp_path / "task"), "sha256": digest_task_adapter(str(tmp_path / "task"))}


def over(base, task, adapters, factor=1.0):
    """transformers' model in float64, with the update of the task adapter, and those of these times `factor`."""
    theirs = copy.deepcopy(dense(base, tuple(adapters), factor))
    return PeftModel.from_pretrained(theirs, task["path"], autocast_adapter_dtype=False).double().merge_and_unload()


def test_a_task_adapter_counts_once_under_any_set(base, task):
    """As one more adapter of the set, and as part of the frozen weights, in float64 too; and a set of none is bare."""
    loaded = [load_adapter(str(base / str(i))) for i in range(4)]
    ids = torch.tensor([prompts()[2]])
    together = [([], 1.0), ([2], 1.0), ([1, 2, 3], 1.0), ([1, 2, 3], 1 / 3)]
    wanted = [over(base, task, *some) if some[0] else dense(base, ()) for some in together]
    answerer = generate.Answerer(str(base / "model"), "float32", CPU, list(loaded[0].tensors), task)
    merged = decoder.load(str(base / "model"), "float32", CPU).double()
    merge_task_adapter(merged, load_task_adapter(task, merged))
    active = Active(merged, list(loaded[0].tensors))
    for (adapters, factor), theirs in zip(together, wanted, strict=True):
        some = [replace(loaded[i], scale=loaded[i].scale * factor) for i in adapters]
        with torch.no_grad():
            logits = theirs(input_ids=ids).logits
            answerer.active.set([some])
            torch.testing.assert_close(decoder.logits(answerer.model, ids), logits.float(), rtol=1e-3, atol=1e-3)
            if adapters:
                active.set([some])
                # transformers' own norms go through float32
                torch.testing.assert_close(decoder.logits(merged, ids), logits, rtol=1e-3, atol=1e-4)
    with torch.no_grad():  # alone; and what a mixture makes of two
        answerer.active.set([[answerer.task]])
        alone = over(base, task, [])(input_ids=ids).logits
        torch.testing.assert_close(decoder.logits(answerer.model, ids), alone.float(), rtol=1e-3, atol=1e-3)
        answerer.active.set(generate.together(loaded[2:], "mixture"))
        each = torch.cat([over(base, task, [i])(input_ids=ids).logits for i in (2, 3)])
        torch.testing.assert_close(decoder.logits(answerer.model, ids.repeat(2, 1)), each.float(), rtol=1e-3, atol=1e-3)
        assert (alone - wanted[0](input_ids=ids).logits).abs().max() > 0.1
        assert (alone - wanted[1](input_ids=ids).logits).abs().max() > 0.1


@pytest.mark.parametrize("mean", [False, True])
def test_a_merged_adapter_holds_the_task_adapter_once(base, task, tmp_path, mean):
    merge.merge_adapters([str(base / str(i)) for i in (1, 2, 3)], str(tmp_path / "merged"), mean, task)
    config = json.loads((tmp_path / "merged/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (9, 48 if mean else 144)
    assert json.loads((tmp_path / "merged/passages.json").read_text())[3:] == [task["path"]]
    ids = torch.tensor([prompts()[2]])
    bare = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.float32)
    with torch.no_grad():
        logits = PeftModel.from_pretrained(bare, tmp_path / "merged")(input_ids=ids).logits
        wanted = over(base, task, [1, 2, 3], 1 / 3 if mean else 1.0)(input_ids=ids).logits
    torch.testing.assert_close(logits, wanted.float(), rtol=1e-3, atol=1e-3)


def test_likelihoods_are_those_of_peft(base):
    sequences = [([*prompt, 7, 11, 13], len(prompt)) for prompt in prompts()]
    greedy = ours(base)
    greedy.ends = {100_000}
    answers = greedy.generate(prompts(), sets(base), 3)
    sequences += [(prompt + answer, len(prompt)) for prompt, answer in zip(prompts(), answers, strict=True)]
    found = ours(base).likelihood(sequences, sets(base) * 2)
    for (ids, begin), (_, adapters), (nll, exact) in zip(sequences, QUESTIONS * 2, found, strict=True):
        with torch.no_grad():
            logits = with_peft(base, adapters)(input_ids=torch.tensor([ids])).logits[0]
        each = torch.nn.functional.cross_entropy(logits[begin - 1 : -1], torch.tensor(ids[begin:]), reduction="none")
        assert nll == pytest.approx(each.mean().item(), rel=1e-4)
        assert exact == (logits[begin - 1 : -1].argmax(-1).tolist() == ids[begin:])
    assert all(exact for _, exact in found[len(QUESTIONS) :])  # what greedy decoding gave
    assert not any(exact for _, exact in found[: len(QUESTIONS)])


def test_likelihood_and_answer_together_are_those_alone(base, monkeypatch):
    monkeypatch.setitem(reading.AT_ONCE, "cpu", 48)
    sequences = [([*prompt, *range(7, 8 + i)], len(prompt)) for i, prompt in enumerate(prompts())]  # of 1 to 6 tokens
    answerer = ours(base)
    answerer.ends = {100_000}
    found = answerer.likelihood_and_answer(sequences, sets(base), 12, lambda tokens: False)
    alone = answerer.likelihood(sequences, sets(base))
    assert [exact for _, exact, _ in found] == [exact for _, exact in alone]
    assert [nll for nll, *_ in found] == pytest.approx([nll for nll, _ in alone], rel=1e-4)
    answers = answerer.generate(prompts(), sets(base), 12)
    assert [tokens for *_, tokens in found] == answers
    # what is exact, and what has ended
    sequences = [(prompt + answer[:3], len(prompt)) for prompt, answer in zip(prompts(), answers, strict=True)]
    again = answerer.likelihood_and_answer(sequences, sets(base), 12, lambda tokens: len(tokens) == 5)
    assert all(exact for _, exact, _ in again)
    assert [tokens[:5] for *_, tokens in again] == [answer[:5] for answer in answers]
    if isinstance(answerer.model, decoder.Decoder):  # transformers goes on
        assert all(len(tokens) == 5 for *_, tokens in again)
    # those that go on are as before, when most have ended
    some = {tuple(answer[:2]) for answer in answers[:4]}
    again = answerer.likelihood_and_answer(sequences, sets(base), 12, lambda tokens: tuple(tokens) in some)
    assert [tokens for *_, tokens in again[4:]] == answers[4:]


def test_a_merged_adapter_gives_the_logits_of_the_separate_ones(base, tmp_path):
    merge.merge_adapters([str(base / str(i)) for i in (1, 2, 3)], str(tmp_path / "merged"))
    config = json.loads((tmp_path / "merged/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (6, 96)
    assert json.loads((tmp_path / "merged/passages.json").read_text()) == [str(base / str(i)) for i in (1, 2, 3)]
    ids = torch.tensor([prompts()[2]])
    separate = with_peft(base, [1, 2, 3])(input_ids=ids).logits
    theirs = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.float32)
    bare = theirs(input_ids=ids).logits
    merged = PeftModel.from_pretrained(theirs, tmp_path / "merged")(input_ids=ids).logits
    torch.testing.assert_close(merged, separate, rtol=1e-4, atol=1e-4)
    assert (bare - separate).abs().max() > 0.1
    # and one alone is itself
    merge.merge_adapters([str(base / "1")], str(tmp_path / "one"))
    one, itself = (load_file(f / "adapter_model.safetensors") for f in (tmp_path / "one", base / "1"))
    assert all((one[name] == itself[name]).all() for name in itself)


@pytest.mark.parametrize(
    ("adapters", "told"), [(4, "--max-lora-rank 8"), (5, "--max-lora-rank 16"), (257, "of a rank above 512")]
)
def test_merging_says_which_rank_vllm_is_to_take(base, tmp_path, caplog, adapters, told):
    caplog.set_level("INFO", "lorary")
    merge.merge_adapters([str(base / "1")] * adapters, str(tmp_path / "merged"))
    assert told in caplog.text


def test_adapters_of_another_scale_are_not_merged(base, tmp_path):
    targets = json.loads((base / "0/adapter_config.json").read_text())["target_modules"]
    init_base_weight(str(base / "model"), 2, 16, targets, 0, None, str(tmp_path / "other"))
    with pytest.raises(LoraryError, match=r"other does not go with .*: another scale"):
        merge.merge_adapters([str(base / "0"), str(tmp_path / "other")], str(tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def test_a_model_keeps_the_end_tokens_of_its_generation_config(tmp_path):
    source = tiny.make_model(tmp_path / "source")
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 7]}))
    model.get_model(str(source), None, str(tmp_path / "model"))
    assert model.end_tokens(str(tmp_path / "model")) == {1, 7}


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        ({"eos_token_id": 1}, None, {1}),
        ({"eos_token_id": [1, 2]}, {"eos_token_id": [2, 3]}, {1, 2, 3}),
        ({}, {}, set()),
    ],
)
def test_end_tokens_are_those_of_the_models_files(tmp_path, config, generation, ends):
    (tmp_path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert model.end_tokens(str(tmp_path)) == ends
