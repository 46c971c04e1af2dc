"""The config: defaults, what values are read as, what is refused and in which words, and runs."""

import copy
import re

import pytest
import yaml
from snakemake.cli import parse_config

import tiny
from lorary.core.errors import LoraryError
from lorary.plan import layout
from lorary.plan.config import load_schema, table
from lorary.plan.config import resolve as resolve_runs
from lorary.plan.recipes import RECIPES
from lorary.plan.translate import of_kind

PROPERTIES = load_schema()["properties"]


def resolve(config):
    """Every key of each run."""
    return [run.flat() for run in resolve_runs(config)]


def refusal(config):
    with pytest.raises(LoraryError) as caught:
        resolve(config)
    return str(caught.value)


def test_an_empty_config_is_one_run_of_defaults():
    (run,) = resolve({})
    assert list(run) == [key for key in PROPERTIES if key not in ("runs", "recipe")]
    assert (run["dataset"], run["sample"], run["max_length"], run["chat_date"]) == (
        "invented",
        300,
        3000,
        "26 Jul 2024",
    )
    assert run["augment_model"] == run["model_name"] == "smollm2-135m-instruct"
    assert run["data_dir"] == layout.one_spelling(str(layout.DEMO))
    assert run["projector_data_dir"] == f"{run['data_dir']}_projector"


def test_the_demo_has_questions_that_are_held_out_and_other_data_have_none():
    (run,) = resolve({})
    assert run["heldout_questions"] == layout.one_spelling(str(layout.DEMO_HELDOUT))
    assert run["general_questions"] == layout.one_spelling(str(layout.GENERAL))
    (run,) = resolve({"heldout_questions": "my/x.json", "general_questions": "./default"})
    assert (run["heldout_questions"], run["general_questions"]) == ("my/x.json", "default")
    for other in ({"data_dir": "data"}, {"dataset": "popqa"}, {"source": "passages", "corpus": "c.tsv"}):
        (run,) = resolve(other)
        assert run["heldout_questions"] is run["general_questions"] is None
        (run,) = resolve({**other, "general_questions": "default"})
        assert run["general_questions"] == layout.one_spelling(str(layout.GENERAL))


def test_names_that_follow_from_others():
    (run,) = resolve({"model_name": "m", "data_dir": "my/data/"})
    assert (run["augment_model"], run["projector_data_dir"]) == ("m", "my/data_projector")
    (run,) = resolve({"model_name": "m", "augment_model": "a", "projector_data_dir": "p"})
    assert (run["augment_model"], run["projector_data_dir"]) == ("a", "p")


def test_the_projects_own_files_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (run,) = resolve({})
    assert run["data_dir"] == str(tiny.ROOT / "resources/demo")
    assert run["prompt_templates"] == str(tiny.ROOT / "resources/prompt_templates.yaml")
    monkeypatch.chdir(tiny.ROOT)  # in the checkout as one would write them
    (run,) = resolve({})
    assert (run["data_dir"], run["prompt_templates"]) == ("resources/demo", "resources/prompt_templates.yaml")


HOMES = ["data_dir", "projector_data_dir", "prompt_templates", "fewshot", "base_weight", "task_adapter"]


@pytest.mark.parametrize("key", [*HOMES, "adapter_dir", "store_dir"])
def test_a_tilde_is_the_home_folder(key, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve({key: "~/mine"})[0][key] == "/home/somebody/mine"


def test_a_run_is_frozen_and_in_groups():
    (run,) = resolve_runs({"sample": 7})
    assert run.data.sample == 7
    with pytest.raises(AttributeError):
        run.data.sample = 8
    assert not {"inference_methods", "max_new_tokens", "export"} & run.flat("answers").keys()


def test_config_yaml_documents_every_key_with_its_default():
    """Those that a recipe sets in a comment: given there, they would win over every recipe."""
    text = (tiny.ROOT / "config.yaml").read_text(encoding="utf-8")
    bundled = {key for bundle in RECIPES.values() for key in bundle}
    assert bundled.isdisjoint(yaml.safe_load(text))
    shown = re.sub(rf"^# ({'|'.join(bundled)}): ", r"\1: ", text, flags=re.MULTILINE)
    assert yaml.safe_load(shown) == {key: rule["default"] for key, rule in PROPERTIES.items()}


BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/x",
    ".hidden",
    "-x",
    "x\n",
    "a b",
    "a{b}",
    "ä",
    "m" * 65,
    2024,
    True,
    ["x"],
]


@pytest.mark.parametrize("key", ["model_name", "dataset", "data_type", "augment_model"])
@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_names_become_folders_and_nothing_else(key, name):
    message = refusal({key: name})
    assert f"{key}: {name!r} is not allowed; expected " in message


@pytest.mark.parametrize("name", ["2wikimultihopqa", "llama3.2-1b-instruct", "a_b+c=d@e", "_x"])
def test_names_of_models_and_datasets_are_taken(name):
    (run,) = resolve({"model_name": name, "dataset": name, "data_type": name})
    assert run["model_name"] == run["dataset"] == run["data_type"] == name


NAN, INF = float("nan"), float("inf")
# values that are refused, for every key that is not a name
BAD = {
    "model_path": [None, "", 3],
    "model_revision": [1, False],
    "trust_remote_code": [None, 1, "yes"],
    "pack": [None, 1, "yes"],
    "data_dir": ["", 3, "a\nb", "a\0"],
    "projector": [None, 1, 0, "yes", "tru"],
    "projector_data_dir": ["", 1],
    "sample": [0, -2, 1.5, "ten", "300", True, NAN, INF],
    "with_cot": [None, 1, "cot"],
    "prompt_templates": ["", {}],
    "fewshot": ["", [], 1],
    "max_length": [1, 0, -1, "3000", 2.5, True],
    "chat_date": ["", "2024-07-26", "July 26, 2024", "31 Feb 2024", "26 Jul 2024\n", 2024, None],
    "chat_template_kwargs": [
        None,
        [],
        "enable_thinking",
        {"a": [1]},
        {"a": {}},
        {"a b": 1},
        {"": 1},
        {1: 1},
        {"a": NAN},
        {"a": "1e999"},
        {"a": 10**400},
        *({name: True} for name in ("tokenize", "add_generation_prompt", "messages", "conversation", "self", "tools")),
    ],
    "split_special_tokens": [None, 1, "yes"],
    "recipe": [None, "best", 1, ["know"]],
    "objective": [None, "answer", 1],
    "contexts": ["rewrite", 1, []],
    "lenient_answers": [None, 1, "yes"],
    "source": [None, "files", 3],
    "documents": ["", 1],
    "corpus": ["", []],
    "questions": ["", 1],
    "passage_words": [9, 2001, "100", None, 50.5],
    "retrieve_top_k": [0, 101, None],
    "augment_with": [None, "gpt"],
    "augment_model_path": ["", 3],
    "augment_model_revision": [1],
    "augment_base_url": [
        "",
        "localhost:8000",
        "ftp://x",
        "http://a b",
        "http://me:secret@x/v1",
        "http://x/v1?key=1",
        1,
    ],
    "augment_server_model": ["", 1],
    "augment_at_once": [0, 2000, None],
    "augment_prices": [[1], [1, -1], [1, NAN], "1", 3],
    "augment_style": [None, "free"],
    "augment_prompts": ["", 1],
    "pairs": [0, 101, 1.5, None],
    "augment_tries": [0, 101, None],
    "augment_precision": ["float16", 32],
    "passages_per_augment_job": [0, "many", None],
    "heldout_pairs": [-1, 100, 1.5, None],
    "per_device_train_batch_size": [0, -1, 1.5, None],
    "num_train_epochs": [0, -1, 0.5, None],
    "learning_rate": [0, 0.0, -3e-4, NAN, INF, -INF, "nan", "inf", "1e999", "fast", None, True, [1e-3]],
    "lora_rank": [0, 1.5, None],
    "lora_alpha": [0, -32, 0.5],
    "lora_target_modules": [[], "down_proj", [""], ["q_proj", "q_proj"], [1], None],
    "base_weight": ["", 1],
    "task_adapter": ["", 1, []],
    "seed": [-1, 0.5, None, INF],
    "precision": ["float16", "fp32", None, 32],
    "adapter_precision": ["float16", "tf32", None, 16],
    "distill_top_k": [0, 1025, 1.5, "all", None],
    "distill_temperature": [0, -1, NAN, INF, "hot", None],
    "distill_answers": ["gold", None, True, ["own"]],
    "keep_directions": [-0.1, 1, 1.0, NAN, "all", None],
    "keep_sequences": [-1, 1001, 1.5, NAN, "all", None],
    "keep_questions": ["", 1, []],
    "translator": ["dyprag", True, 1, ["memory"]],
    "translator_datasets": [None, "popqa", ["a/b"], ["a", "a"], [1], {}],
    "translator_pairs": [0, -2, 1.5, "all", None],
    "translator_epochs": [0, -1, 1.5, "many"],
    "translator_learning_rate": [0, -1e-3, NAN, INF, "fast", True],
    "translator_hidden": [0, 1.5, "wide"],
    "translator_batch": [0, 1.5, "all"],
    "translator_control": ["none", True, ["shared"]],
    "passages_per_job": [0, -1, "many", "8", 1.5, None],
    "adapters_per_step": [0, "many", None],
    "adapter_dir": ["", "a{b}", None, "a}"],
    "store_dir": ["", "{a", None],
    "inference_methods": [["rag"], ["prag", "prag"], "prag", None],
    "combine_adapters": ["product", ["sum", "sum"], ["sum", "cat"], [], None, 1],
    "routed_top": [0, -1, 1.5, "2", None],
    "routed_by": ["tfidf", None, 1],
    "max_new_tokens": [0, 1.5, None],
    "export": ["total/", "total/data_x", "../data_0", "a/b/data_0", ["total/data_0", "total/data_0"], [], [3], 3],
    "heldout_questions": ["", 1, []],
    "general_questions": ["", True, {}],
    "general_adapters": [0, 65, None],
    "runs": [{"sample": 1}, [3], "all", None],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD.items() for value in values], ids=lambda value: repr(value)
)
def test_values_that_are_refused(key, value):
    message = refusal({key: value})
    assert f"{key}: " in message
    assert f"is not allowed; expected {PROPERTIES[key]['description']}" in message
    assert len(message.splitlines()) == 2


def test_every_key_is_tried_with_bad_values():
    assert BAD.keys() | {"model_name", "dataset", "data_type", "augment_model"} == PROPERTIES.keys()


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("dataset", 2024, "2024"),
        ("model_name", 7, "7"),
        ("data_type", 1.5, "1.5"),
        ("augment_model", True, "true"),
        ("model_revision", 1e10, "10000000000"),
        ("chat_date", 2024, "2024"),
    ],
)
def test_a_number_where_text_is_expected_is_told_of_quotes(key, value, shown):
    """YAML reads it as a number, and so does the command line, where Snakemake takes quotes away."""
    for config in ({key: value}, {"runs": [{key: value}]}):
        message = refusal(config)
        assert f'; as text it takes quotes ({key}: "{shown}"), on the command line !!str' in message
        assert f"(--config '{key}=!!str {shown}')" in message
    assert "quotes" not in refusal({"lora_rank": 2.5, "model_name": None})
    assert parse_config([f"{key}=!!str {shown}"]) == {key: shown}


PATHS = ["model_path", "data_dir", "projector_data_dir", "prompt_templates", "fewshot", "base_weight", "task_adapter"]


@pytest.mark.parametrize("key", PATHS)
def test_paths_hold_no_wildcards(key):
    """Snakemake would take a{b} for one, and say so in its own words."""
    assert f"{key}: 'a{{b}}' is not allowed" in refusal({key: "a{b}"})


def test_a_dataset_is_not_called_as_the_folder_beside_it():
    """<dataset> and base_weight lie in one folder of the adapter tree."""
    assert "dataset: 'base_weight' is not allowed" in refusal({"dataset": "base_weight"})


def test_one_way_of_working_together_may_be_a_word():
    assert [resolve({"combine_adapters": ways})[0]["combine_adapters"] for ways in ("mean", ["routed", "sum"])] == [
        ["mean"],
        ["routed", "sum"],
    ]


def test_the_task_adapter_alone_is_asked_only_where_there_is_one():
    assert "task" not in resolve({})[0]["inference_methods"]
    told = refusal({"inference_methods": ["task", "prag"]})
    assert "inference_methods: task asks the task adapter alone, and task_adapter is null" in told
    assert resolve({"inference_methods": ["task"], "task_adapter": "warm"})[0]["inference_methods"] == ["task"]
    told = refusal({"task_adapter": "warm", "base_weight": "warm"})
    assert "task_adapter and base_weight are one adapter, which would be counted twice" in told


def test_an_integer_beyond_floats_is_no_learning_rate():
    assert "learning_rate: 1000" in refusal({"learning_rate": 10**400})


@pytest.mark.parametrize(
    ("key", "given", "read"),
    [
        ("learning_rate", "3e-4", 3e-4),  # YAML 1.1 takes it for a string
        ("learning_rate", "0.01", 0.01),
        ("learning_rate", 1, 1.0),  # 1 and 1.0 are one path
        ("with_cot", "false", False),
        ("projector", "true", True),
        ("projector", "True", True),
        ("data_type", "null", None),
        ("fewshot", "null", None),
        ("base_weight", "null", None),
        ("sample", 2.0, 2),
        ("sample", -1.0, -1),
        ("num_train_epochs", 2.0, 2),
        ("passages_per_job", 8.0, 8),
        ("chat_date", "6 Jul 2024", "6 Jul 2024"),
        (
            "chat_template_kwargs",
            {"a": "false", "b": "True", "c": "5", "d": "x"},
            {"a": False, "b": True, "c": 5, "d": "x"},
        ),
        (
            "chat_template_kwargs",
            {"a": "null", "b": '"5"', "c": "1.5", "d": "[1]"},
            {"a": None, "b": "5", "c": 1.5, "d": "[1]"},
        ),
    ],
)
def test_what_yaml_and_the_command_line_make_of_values_is_undone(key, given, read):
    for config in ({key: given}, {"runs": [{key: given}]}):
        (run,) = resolve(config)
        assert run[key] == read
        assert type(run[key]) is type(read)


@pytest.mark.parametrize(
    ("key", "hint"),
    [("datset", "dataset"), ("num_train_epoch", "num_train_epochs"), ("learning-rate", "learning_rate")],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(key, hint):
    assert f"{key}: unknown key; did you mean {hint}?" in refusal({key: 1})


@pytest.mark.parametrize("key", ["xyzzy", 7])
def test_a_key_like_no_other_is_refused_too(key):
    assert f"{key}: unknown key" in refusal({key: 1})


def test_runs_override_the_config_which_overrides_the_defaults():
    config = {"dataset": "d", "num_train_epochs": 2, "runs": [{}, {"dataset": "e"}, {"num_train_epochs": 3, "seed": 1}]}
    runs = resolve(config)
    assert [(r["dataset"], r["num_train_epochs"], r["seed"]) for r in runs] == [("d", 2, 42), ("e", 2, 42), ("d", 3, 1)]
    assert all("runs" not in run for run in runs)


def test_what_follows_from_others_follows_in_each_run():
    runs = resolve({"model_name": "m", "runs": [{"model_name": "n"}, {"data_dir": "d"}]})
    assert [run["augment_model"] for run in runs] == ["n", "m"]
    assert [run["projector_data_dir"] for run in runs][1] == "d_projector"


def test_faults_in_runs_name_the_run():
    message = refusal({"runs": [{"sample": 5}, {"sample": 0, "lora_rnk": 4}, {"learning_rate": NAN}]})
    assert "runs[1].sample: 0 is not allowed" in message
    assert "runs[1].lora_rnk: unknown key; did you mean lora_rank?" in message
    assert "runs[2].learning_rate: nan is not allowed" in message
    assert "runs[0]" not in message


def test_runs_hold_no_runs():
    assert "runs[0].runs: unknown key" in refusal({"runs": [{"runs": [{"sample": 1}]}]})


@pytest.mark.parametrize("config", [{"with_cot": True}, {"runs": [{}, {"with_cot": True, "fewshot": None}]}])
def test_chain_of_thought_needs_examples(config):
    assert "with_cot: true needs fewshot" in refusal(config)


def test_a_pair_remains_to_be_trained_on():
    raw = {"source": "passages", "corpus": "c.tsv"}
    assert "heldout_pairs: 3 of 3 pairs of a passage leave none to train on" in refusal({**raw, "heldout_pairs": 3})
    assert resolve({**raw, "heldout_pairs": 3, "pairs": 4})[0]["heldout_pairs"] == 3


def test_chain_of_thought_finds_examples_beside_the_runs():
    assert resolve({"fewshot": "f.json", "runs": [{"with_cot": True}]})[0]["fewshot"] == "f.json"


def test_the_contexts_that_an_objective_has_anyway_are_none_that_are_set():
    for objective, usual in (("reference", "both"), ("answers", "none"), ("mixed", "none")):
        for contexts in ("none", "passage", "both", None):
            (run,) = resolve({"objective": objective, "contexts": contexts})
            assert run["contexts"] == (None if contexts == usual else contexts)


def test_a_translators_pairs_are_made_as_the_reference_does():
    assert "projector: true" in refusal({"projector": True, "objective": "answers"})
    assert "projector: true" in refusal({"projector": True, "contexts": "none"})
    assert "heldout_pairs: 1 and projector: true" in refusal({"projector": True, "heldout_pairs": 1})
    resolve({"projector": True, "objective": "reference", "contexts": "both"})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"translator_epochs": 2}, "translator_epochs is given, and translator is null; translator: reference or"),
        ({"translator": "memory", "projector": True}, "translator: memory and projector: true: that reads the pairs"),
        ({"translator": "memory", "objective": "distill"}, "learns from no teacher, and objective is distill"),
        ({"translator": "memory", "task_adapter": "warm"}, "translator: memory is not trained over a task_adapter"),
        (
            {"translator": "reference", "keep_sequences": 1},
            "keep_sequences: translator: reference learns from adapters, and from no general questions",
        ),
        ({"translator": "reference", "recipe": "know"}, "leave it at 0 (recipe: know sets keep_directions: 0.9)"),
        ({"translator": "reference", "inference_methods": ["task"]}, "task asks the task adapter alone"),
    ],
)
def test_what_belongs_to_a_translator_goes_with_one(config, words):
    assert words in refusal(config)
    resolve({"translator": "memory", "inference_methods": ["task"], "objective": "answers", "heldout_pairs": 1})


def test_what_a_kind_of_translator_has_anyway_is_nothing_that_is_set():
    for key, usual in of_kind("reference").items():
        (run,) = resolve({"translator": "reference", key: str(usual) if key.endswith("rate") else usual})
        assert run[key] is None
        (run,) = resolve({"translator": "memory", key: usual})
        assert run[key] == usual
        assert type(run[key]) is type(usual)


def test_what_belongs_to_routing_goes_with_it():
    fault = "routed_top is given, and combine_adapters is sum; combine_adapters: routed reads it"
    assert fault in refusal({"routed_top": 2})
    assert "runs[0].routed_by is given" in refusal(
        {"combine_adapters": "routed", "routed_by": "rank", "runs": [{"combine_adapters": ["sum", "mean"]}, {}]}
    )
    for ways in ("routed", ["sum", "routed"]):
        resolve({"combine_adapters": ways, "routed_by": "rank", "routed_top": 2})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"keep_questions": "q.json"}, "keep_questions is given, and keep_directions and keep_sequences are 0"),
        ({"keep_directions": 0.5, "base_weight": "b"}, "keep_directions and base_weight: what adapters start with"),
        ({"keep_sequences": 1, "projector": True}, "leave keep_directions, keep_sequences at 0"),
    ],
)
def test_what_is_kept_goes_with_what_it_can(config, words):
    assert words in refusal(config)
    resolve({"keep_sequences": 1, "base_weight": "b", "keep_questions": "q.json"})
    resolve({"keep_directions": 0.5, "base_weight": "b", "translator": "memory"})  # which reads its shapes alone


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"objective": "distill", "contexts": "both"},
            "contexts is both, and with objective: distill only the teacher",
        ),
        ({"objective": "answers", "distill_top_k": 8}, "distill_top_k is given, and objective is answers"),
        ({"distill_temperature": 2}, "distill_temperature is given, and objective is reference"),
        ({"distill_answers": "own"}, "distill_answers is given, and objective is reference"),
    ],
)
def test_what_belongs_to_a_teacher_goes_with_one(config, words):
    assert words in refusal(config)
    resolve({"objective": "distill", "contexts": "none", "distill_top_k": 8, "distill_answers": "own"})


def test_all_faults_are_reported_at_once():
    message = refusal(
        {"sample": 0, "projector": 1, "datset": "x", "chat_date": "now", "runs": [{"seed": -1}, {"x": 1}]}
    )
    told = [line.split(":")[0].strip() for line in message.splitlines()[1:]]
    assert sorted(told) == ["chat_date", "datset", "projector", "runs[0].seed", "runs[1].x", "sample"]


def test_a_long_value_is_not_printed_whole():
    assert len(refusal({"dataset": "x/" * 10_000})) < 500


def test_the_config_that_was_given_is_left_alone():
    config = {"sample": 2.0, "runs": [{"learning_rate": "3e-4"}]}
    before = copy.deepcopy(config)
    resolve(config)
    assert config == before


def test_the_table_of_keys_is_in_step_with_the_schema():
    """After a change: `python -m lorary keys` prints it anew."""
    text = (tiny.ROOT / "config/README.md").read_text(encoding="utf-8")
    assert text.endswith(f"\n\n{table()}")


def test_the_configs_of_a_warm_up_go_together():
    warm_up, warmed_up, over_it = (
        yaml.safe_load((tiny.ROOT / f"configs/{name}.yaml").read_text(encoding="utf-8"))
        for name in ("warm_up", "warmed_up", "task_adapter")
    )
    (made,) = resolve_runs(warm_up)
    seed, warm = resolve_runs(warmed_up)
    (adapter,) = layout.TypeFolder(layout.run_folder(made), "total").adapters([1])
    assert (seed.training.base_weight, warm.training.base_weight) == (None, adapter)
    for key in ("model_name", "model_path", "lora_rank", "lora_alpha", "lora_target_modules", "precision"):
        assert made.flat()[key] == warm.flat()[key] == seed.flat()[key]
    assert layout.run_folder(seed) != layout.run_folder(warm)
    alone, over = resolve_runs(over_it)
    assert (alone.training.task_adapter, over.training.task_adapter) == (None, adapter)
    assert alone == seed
    assert layout.run_folder(alone) != layout.run_folder(over)
