"""What has to be made of trained adapters: which jobs, of what, and where it goes."""

import json
import os

import pytest

import tiny
from lorary.core.errors import LoraryError
from lorary.plan import answer, encode
from lorary.plan.config import resolve
from lorary.plan.layout import run_folder
from lorary.plan.methods import METHODS, Method

RUN = "m/rank=2_alpha=32/toy/lr=0.0015_epoch=3_direct/aug_model=aug"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write([2, 1, 3])


def write(counts, kind="total"):
    rows = [{**tiny.make_rows(1, n, seed=i)[0]} for i, n in enumerate(counts)]
    tiny.write_rows(tiny.Path(f"data/toy/aug/{kind}.json"), rows)


def make(*runs, **settings):
    settings = {
        "model_name": "m",
        "model_path": "x",
        "data_dir": "data",
        "dataset": "toy",
        "augment_model": "aug",
        **settings,
    }
    made = encode.make(resolve({**settings, "sample": -1, "runs": list(runs)}))
    return made, answer.make(made)


def method_of(prediction):
    return prediction.result.params["settings"]["inference_method"]


def test_each_method_has_its_folder_in_the_tree_of_predictions():
    _, predict = make()
    assert [p.result.outputs["predictions"] for p in predict.predictions] == [
        f"results/predictions/{RUN}/{method}/total/predict.json" for method in ("vanilla", "icl", "prag", "combine")
    ]
    assert [k.result.outputs["table"] for k in predict.knowledge] == [f"results/predictions/{RUN}/knowledge.tsv"]


@pytest.mark.parametrize(
    ("adapters", "predictions"),
    [
        ("results/adapters", "results/predictions"),
        ("/a/adapters", "/a/predictions"),
        ("mine", "mine_predictions"),
        (".", "predictions"),
    ],
)
def test_predictions_lie_beside_the_adapters(adapters, predictions):
    (run,) = resolve({"model_name": "m", "dataset": "toy", "augment_model": "aug", "adapter_dir": adapters})
    assert run_folder(run).beside("predictions") == f"{predictions}/{RUN}"


def test_no_link_leads_predictions_elsewhere(tmp_path):
    (tmp_path / "results/predictions").mkdir(parents=True)
    (tmp_path / "results/predictions/m").symlink_to("/tmp")
    with pytest.raises(LoraryError, match="results/predictions/m is a symbolic link that leads out"):
        make()


def test_a_job_needs_the_records_of_the_adapters_that_it_uses_and_no_others(monkeypatch):
    monkeypatch.setattr(answer, "QUESTIONS_PER_JOB", 2)
    made, predict = make(passages_per_job=1)
    records = [batch.outputs["record"] for batch in made.batches]
    jobs = {method_of(p): p.jobs for p in predict.predictions}
    assert [job.params["rows"] for job in jobs["prag"]] == [[0, 3], [3, 6]]
    for method in ("prag", "combine"):
        assert [job.inputs["records"] for job in jobs[method]] == [records[:3], records[3:]]
    for method in ("vanilla", "icl"):
        assert [job.inputs["records"] for job in jobs[method]] == [[], []]


def test_what_is_learnt_is_compared_with_the_adapter_of_another_question(monkeypatch):
    monkeypatch.setattr(answer, "PASSAGES_PER_JOB", 2)
    made, predict = make(passages_per_job=1)
    jobs = predict.knowledge[0].jobs
    assert [job.params["others"] for job in jobs] == [[(1, 0), (1, 0)], [(2, 0), (0, 0)], [(0, 1), (0, 0)]]
    records = [batch.outputs["record"] for batch in made.batches]
    assert [job.inputs["records"] for job in jobs] == [
        records[:3],
        records[:1] + records[2:4],
        records[:2] + records[4:],
    ]


@pytest.mark.parametrize(("counts", "others"), [([2], [(0, 1), (0, 0)]), ([1], [None])])
def test_with_one_question_the_other_is_of_the_same_or_there_is_none(counts, others):
    write(counts)
    _, predict = make()
    assert predict.knowledge[0].jobs[0].params["others"] == others


def test_a_rerun_with_a_larger_sample_finds_what_is_finished():
    """The journal is named after the first question, the output after both."""
    _, predict = make()
    write([2, 1, 3, 1])
    _, larger = make()
    for before, after in zip(predict.predictions, larger.predictions, strict=True):
        assert before.jobs[0].params["finished"] == after.jobs[0].params["finished"]
        assert before.jobs[0].outputs != after.jobs[0].outputs


def test_a_method_is_a_row_of_the_table(monkeypatch):
    monkeypatch.setitem(METHODS, "fifth", Method("a fifth one", "#000000", passages=False, adapters=True))
    _, predict = make(inference_methods=["fifth", "icl"])
    assert [method_of(p) for p in predict.predictions] == ["icl", "fifth"]
    assert [bool(p.jobs[0].inputs["records"]) for p in predict.predictions] == [False, True]
    _, predict = make()
    assert method_of(predict.predictions[-1]) == "fifth"  # all of them are the default


def test_each_way_of_working_together_has_a_folder_and_the_sum_is_as_ever():
    _, before = make()
    _, predict = make(combine_adapters=["routed", "sum", "mean"])
    methods = ["vanilla", "icl", "prag", "prag_mean", "prag_routed", "combine", "combine_mean", "combine_routed"]
    assert [method_of(p) for p in predict.predictions] == methods
    of_method = {method_of(p): p for p in predict.predictions}
    assert all(of_method[method_of(p)] == p for p in before.predictions)
    assert not before.routes
    assert of_method["prag_mean"].result.outputs["result"] == f"results/predictions/{RUN}/prag_mean/total/result.txt"
    settings = of_method["prag_mean"].result.params["settings"]
    assert (settings["combine_adapters"], settings.get("routed_top")) == ("mean", None)
    settings = of_method["combine_routed"].result.params["settings"]
    assert [settings[key] for key in ("combine_adapters", "routed_top", "routed_by")] == ["routed", 1, "bm25"]
    jobs = [job for p in predict.predictions for job in p.jobs]
    for names in ([job.rule for job in jobs], [job.outputs["answers"] for job in jobs]):
        assert len(set(names)) == len(names) == len(methods)


def test_routing_is_one_job_of_a_type_and_only_where_there_is_a_choice():
    def routed(**settings):
        _, predict = make(inference_methods=["icl", "prag", "combine"], combine_adapters=["routed"], **settings)
        jobs = [gathered.jobs[0].inputs["routes"] for gathered in predict.predictions]
        return list(predict.routes.values()), jobs

    (job,), needed = routed()
    routes = job.outputs["routes"]
    assert needed == [[], routes, routes]
    assert job.inputs["table"].startswith("results/data/toy_total_")
    (other,), _ = routed(routed_by="rank")
    assert other.outputs != job.outputs
    assert routed(routed_top=2) == ([job], [[], routes, routes])
    assert routed(routed_top=3) == ([], [[], [], []])  # each question has three passages at most
    write([1, 1])
    assert routed() == ([], [[], [], []])


def test_another_order_of_passages_is_another_file_of_answers(monkeypatch):
    """So that a new release's is noticed without Snakemake's records of what it has made."""

    def names(way):
        _, predict = make(inference_methods=["prag"], combine_adapters=way)
        return [job.outputs["answers"] for gathered in predict.predictions for job in gathered.jobs]

    ways = "sum", "mean", "routed"
    before = {way: names(way) for way in ways}
    for module, version in ((answer.route, "ROUTES"), (answer.route.index, "VERSION")):
        monkeypatch.setattr(module, version, 99)
        after = {way: names(way) for way in ways}
        assert [way for way in ways if after[way] != before[way]] == ["routed"]
        before = after


def test_runs_of_one_folder_are_routed_alike():
    _, predict = make(
        {"combine_adapters": "sum"}, {"combine_adapters": "mixture"}, inference_methods=["prag", "vanilla"]
    )
    assert [method_of(p) for p in predict.predictions] == ["vanilla", "prag", "prag_mixture"]
    routed = [{"combine_adapters": "routed", "routed_top": 2}, {"combine_adapters": ["mean", "routed"]}]
    with pytest.raises(LoraryError, match=r"would both write .*/total, with different routed_top\."):
        make(*routed)
    for other in ({"combine_adapters": "sum"}, {"inference_methods": [], "combine_adapters": "routed"}):
        _, predict = make(other, routed[0], inference_methods=["prag"])
        of_method = {method_of(p): p.jobs[0].params for p in predict.predictions}
        assert of_method["prag_routed"]["routed_top"] == 2  # of the run that routes


def test_without_methods_there_is_nothing_to_make():
    _, predict = make(inference_methods=[])
    assert predict == answer.Answering([], [], [])


def test_runs_of_one_folder_have_their_methods_together():
    _, predict = make({"inference_methods": ["prag"]}, {"inference_methods": ["vanilla"]}, {"inference_methods": []})
    assert [method_of(p) for p in predict.predictions] == ["vanilla", "prag"]


def test_two_lengths_of_answers_in_one_folder_are_refused():
    with pytest.raises(LoraryError, match=r"would both write .*/total, with different max_new_tokens"):
        make({"max_new_tokens": 20}, {"max_new_tokens": 30})
    make({"max_new_tokens": 20}, {"max_new_tokens": 30, "inference_methods": []})


def test_runs_without_methods_do_not_decide_how_the_others_answer():
    """They may have more questions, and other lengths of answers."""
    made, predict = make({"inference_methods": [], "max_new_tokens": 9}, {"sample": 2, "inference_methods": ["prag"]})
    assert made.types[0].counts == [2, 1, 3]
    (prediction,) = predict.predictions
    params = prediction.jobs[0].params
    assert params | {"rows": [0, 3], "max_new_tokens": 20} == params
    assert prediction.result.params["settings"]["sample"] == 2
    assert len(predict.knowledge[0].jobs[0].params["others"]) == 3
    with pytest.raises(LoraryError, match=r"runs\[1\] and runs\[2\] would both write .* different max_new_tokens"):
        make({"inference_methods": []}, {"max_new_tokens": 9}, {"max_new_tokens": 8})


def test_rules_and_files_have_names_of_their_own():
    tiny.write_rows(tiny.Path("data/two/aug/total.json"), json.loads(tiny.Path("data/toy/aug/total.json").read_text()))
    _, predict = make({"dataset": "toy"}, {"dataset": "two"}, {"dataset": "two", "learning_rate": 1})
    gathered = [*predict.predictions, *predict.knowledge]
    jobs = [job for made in gathered for job in made.jobs]
    rules = [job.rule for job in jobs] + [made.result.rule for made in gathered]
    for names in (rules, [job.outputs["answers"] for job in jobs], [job.log for job in jobs]):
        assert len(set(names)) == len(names) >= 15
    assert len({job.params["finished"] for job in jobs}) == len(jobs)


@pytest.mark.parametrize(
    ("export", "name", "adapters"),
    [
        ("total/data_2", "total_data_2", ["data_2/passage_0", "data_2/passage_1", "data_2/passage_2"]),
        ("total/data_0/passage_1", "total_data_0_passage_1", ["data_0/passage_1"]),
        (
            ["total/data_1", "total/data_0/passage_1"],
            "total_data_1+total_data_0_passage_1",
            ["data_1/passage_0", "data_0/passage_1"],
        ),
    ],
)
def test_an_export_holds_the_adapters_that_are_named(export, name, adapters):
    _, predict = make(export=export)
    (made,) = predict.exports
    assert made.outputs == {"adapter": f"results/export/{RUN}/{name}"}
    assert made.inputs["adapters"] == [f"results/adapters/{RUN}/total/{path}" for path in adapters]


def test_an_export_of_many_passages_has_a_short_name():
    write([1] * 60)
    _, predict = make(export=[f"total/data_{i}/passage_0" for i in range(60)])
    name = os.path.basename(predict.exports[0].outputs["adapter"])
    assert name.startswith("60_passages_")


def test_what_is_exported_has_nothing_scored_anew():
    _, predict = make()
    _, exporting = make(export="total/data_0")
    assert exporting.predictions == predict.predictions
    assert all(made.result.params["settings"]["export"] is None for made in predict.predictions)  # as it always stood


def test_each_run_exports_what_it_names():
    _, predict = make({}, {"export": "total/data_0"}, {"export": ["total/data_1"]}, {"export": "total/data_0"})
    assert [os.path.basename(made.outputs["adapter"]) for made in predict.exports] == ["total_data_0", "total_data_1"]
    assert len({made.rule for made in predict.exports}) == 2


@pytest.mark.parametrize(
    ("export", "fault"),
    [
        ("total/data_3", "has no total/data_3"),
        ("total/data_0/passage_2", "has no total/data_0/passage_2"),
        ("bridge/data_0", "has no bridge/data_0"),
        (["total/data_0", "total/data_0/passage_1"], "a passage is named twice"),
    ],
)
def test_an_export_of_what_is_not_there_is_refused(export, fault):
    with pytest.raises(LoraryError, match=f"export: .*{fault}"):
        make(export=export)


def test_a_setting_that_decides_answers_is_in_the_name_of_their_file():
    """So that another one is noticed without Snakemake's records of what it has made."""

    def names(**settings):
        _, predict = make(inference_methods=["vanilla"], **settings)
        (jobs,) = (gathered.jobs for gathered in predict.predictions)
        return [job.outputs["answers"] for job in jobs]

    first = names()
    for other in ({"max_new_tokens": 9}, {"precision": "bfloat16"}, {"chat_date": "1 Jan 2025"}, {"model_path": "y"}):
        assert names(**other) != first, other
    assert names(store_dir="elsewhere", adapters_per_step=2) == first


def test_an_export_is_in_the_first_way_that_can_be_exported():
    def exported(*ways, export="total/data_2"):
        return make(export=export, combine_adapters=list(ways))[1]

    (job,) = exported("mixture", "mean", "sum").exports
    assert (job.outputs["adapter"], job.params) == (f"results/export/{RUN}/total_data_2_mean", {"mean": True})
    assert exported("sum", "mean").exports == make(export="total/data_2")[1].exports
    predict = exported("routed", export=["total/data_2", "total/data_0/passage_1"])
    assert not predict.exports
    (job,) = predict.exported_routes
    assert job.outputs == {"table": f"results/export/{RUN}/total_data_2+total_data_0_passage_1_routed.tsv"}
    assert job.params["names"] == [f"total/data_2/passage_{i}" for i in range(3)] + ["total/data_0/passage_1"]
    (routes,) = predict.routes.values()
    assert job.params["types"]["total"] == {"table": routes.inputs["table"], "routes": routes.outputs["routes"]}
    assert len(exported("routed", export="total").exported_routes[0].inputs["adapters"]) == 6
    with pytest.raises(LoraryError, match=r"mixture is of several models .* Export with combine_adapters: sum"):
        exported("mixture")
    for way in ("sum", "mean"):
        with pytest.raises(LoraryError, match=r"total is a whole type, which only combine_adapters: routed can export"):
            exported(way, export="total")


def test_an_export_of_packs_waits_for_them_and_names_adapters_in_packs():
    made, predict = make(export=["total/data_2", "total/data_0/passage_1"], pack=True, passages_per_job=2)
    (job,) = predict.exports
    first, second, third = (batch.outputs for batch in made.batches)
    assert job.inputs["adapters"] == [job[key] for job in (second, third, first) for key in ("pack", "record")]
    paths = [second["adapters"][1], *third["adapters"], first["adapters"][1]]
    assert job.params == {"packed": paths}
    (job,) = make(export="total", combine_adapters="routed", pack=True)[1].exported_routes
    assert [path.endswith("data_2/passage_2") for path in job.params["packed"]] == [False] * 5 + [True]


def test_tables_of_two_orders_are_two_files():
    """Runs that only encode may differ in how their exports are routed."""
    runs = [{"routed_by": by, "export": "total"} for by in ("bm25", "rank", "bm25")]
    _, predict = make(*runs, inference_methods=[], combine_adapters="routed")
    names = [os.path.basename(job.outputs["table"]) for job in predict.exported_routes]
    assert names == ["total_routed.tsv", "total_routed_by_rank.tsv"]
    assert len(predict.routes) == 2


def write_questions(*about, kind="untrained", **more):
    entries = [{"did": d, "pid": p, "kind": kind, "question": "Who?", "answer": "She", **more} for d, p in about]
    tiny.write_rows(tiny.Path("mine.json"), entries)
    tiny.write_rows(tiny.Path("general.json"), [{"question": f"{i}?", "answer": "x"} for i in range(4)])


def test_where_nothing_is_held_out_nothing_is_asked():
    """Neither jobs nor params of theirs."""
    _, predict = make()
    assert predict.heldout == []
    assert "heldout_" not in json.dumps([job.params for g in predict.predictions for job in [*g.jobs, g.result]])
    write_questions((0, 0))
    _, predict = make(inference_methods=[], heldout_questions="mine.json", heldout_pairs=1)
    assert predict.heldout == []


def test_where_nothing_is_held_out_any_more_what_was_is_withdrawn():
    folder = f"results/predictions/{RUN}"
    tiny.Path(folder).mkdir(parents=True)
    tiny.Path(f"{folder}/heldout.tsv").touch()
    _, predict = make()
    (gathered,) = predict.heldout
    assert gathered.jobs == gathered.result.inputs["parts"] == gathered.result.outputs["parts"] == []
    part = f"{folder}/.lorary/types/total.heldout"
    assert gathered.result.params["types"] == {"total": {"jobs": [], "part": part}}
    _, predict = make(inference_methods=[])  # nothing is made of what there is
    assert predict.heldout == []


def test_what_is_asked_that_was_not_trained_on_makes_no_score_again():
    """A result whose params have changed would be made again."""
    write_questions((0, 0))
    _, predict = make()
    asked = {"heldout_questions": "mine.json", "general_questions": "general.json", "general_adapters": 2}
    assert make(**asked)[1].predictions == predict.predictions


def test_a_job_asks_of_its_passages_and_has_the_records_of_their_adapters(monkeypatch):
    monkeypatch.setattr(answer, "PASSAGES_PER_JOB", 2)
    write_questions((0, 1), (2, 0), (2, 0))
    made, predict = make(passages_per_job=1, heldout_questions="mine.json")
    records = [batch.outputs["record"] for batch in made.batches]  # of 0/0, 0/1, 1/0, 2/0, 2/1, 2/2
    (gathered,) = predict.heldout
    assert [job.params["rows"] for job in gathered.jobs] == [[0, 2], [2, 4]]  # nothing is asked of the last two
    assert [job.inputs["records"] for job in gathered.jobs] == [[records[1], records[2]], [records[0], records[3]]]
    assert [job.resources.passages for job in gathered.jobs] == [1, 2]
    assert all(job.inputs["questions"] == ["mine.json"] for job in gathered.jobs)
    folder = f"results/predictions/{RUN}"
    assert gathered.result.outputs == {
        "table": f"{folder}/heldout.tsv",
        "summary": f"{folder}/heldout_summary.tsv",
        "parts": [f"{folder}/.lorary/types/total.heldout"],
    }
    _, predict = make(heldout_pairs=1)
    assert [job.params["rows"] for job in predict.heldout[0].jobs] == [[0, 2], [2, 4], [4, 6]]
    assert [job.resources.passages for job in predict.heldout[0].jobs] == [2, 2, 2]


@pytest.mark.parametrize(
    ("adapters", "whose"),
    [(1, [[0], [1], [2], [3]]), (2, [[0, 1], [2, 3], [4, 5], [0, 1]]), (20, [list(range(6))] * 4)],
)
def test_general_questions_go_round_among_the_adapters(adapters, whose):
    write_questions((0, 0))
    _, predict = make(passages_per_job=1, general_questions="general.json", general_adapters=adapters)
    positions = [(did, pid) for did, n in enumerate([2, 1, 3]) for pid in range(n)]
    (job,) = predict.heldout[0].jobs
    path, asked = job.params["general"]
    assert path == "general.json"
    assert [sorted(positions.index(position) for position in some) for some in asked] == whose
    assert len(job.inputs["records"]) == len({i for some in whose for i in some})
    assert job.resources.passages == sum(map(len, whose))


def test_what_is_asked_of_a_type_is_beside_the_others():
    write([1], kind="a")
    write([1, 1], kind="b")
    write_questions((1, 0), type="b")
    tiny.Path("data/toy/aug/total.json").unlink()
    _, predict = make(heldout_questions="mine.json", general_questions="general.json")
    (gathered,) = predict.heldout
    assert [(job.params["type"], job.resources.passages) for job in gathered.jobs] == [("a", 4), ("b", 1 + 4)]
    assert list(gathered.result.params["types"]) == ["a", "b"]
    _, predict = make(heldout_questions="mine.json")
    (gathered,) = predict.heldout
    assert {kind: len(about["jobs"]) for kind, about in gathered.result.params["types"].items()} == {"a": 0, "b": 1}
    assert [tiny.Path(part).name for part in gathered.result.outputs["parts"]] == ["b.heldout"]
    _, predict = make(heldout_questions="mine.json", data_type="a")  # a call for one type
    assert predict.heldout == []
    write_questions((2, 0), type="b")
    with pytest.raises(LoraryError, match="entry 0, did: b has no question 2; its last one is 1"):
        make(heldout_questions="mine.json")


def test_the_types_of_the_data_decide_and_not_those_of_the_call():
    """A question without a type is of none of several, and one of a type that is misspelt of no passage at all."""
    for kind in ("a", "b", "total"):
        write([1], kind=kind)
    write_questions((0, 0))
    for kind in ("a", "b"):
        with pytest.raises(LoraryError, match="entry 0, type: missing, and the data have the types a, b, total"):
            make(heldout_questions="mine.json", data_type=kind)
    write_questions((0, 0), type="aa")
    with pytest.raises(LoraryError, match="entry 0, type: there is no aa; there is a, b, total"):
        make(heldout_questions="mine.json", data_type="a")


def test_other_questions_are_another_file_of_answers():
    write_questions((0, 0))
    settings = {"heldout_questions": "mine.json", "general_questions": "general.json"}

    def names(**more):
        _, predict = make(**settings, **more)
        (job,) = predict.heldout[0].jobs
        return job.outputs["answers"], job.params["finished"]

    first, finished = names()
    assert names(store_dir="elsewhere") == (first, finished)
    for more in ({"general_adapters": 2}, {"heldout_pairs": 1}, {"precision": "bfloat16"}):
        assert names(**more)[0] != first
    write_questions((0, 1))
    second, found = names()
    assert second != first
    assert found == finished  # what is not asked anew is found there


@pytest.mark.parametrize("key", ["heldout_questions", "general_questions"])
def test_two_files_of_questions_for_one_folder_are_refused(key):
    write_questions((0, 0))
    with pytest.raises(LoraryError, match=f"would both write .*/total, with different {key}"):
        make({key: "mine.json"}, {})
    make({key: "general.json" if key == "general_questions" else "mine.json"}, {"inference_methods": []})


def test_a_task_adapter_is_in_the_name_of_what_is_answered_with_it_and_of_nothing_else(tmp_path):
    for name, alpha in (("task", 8), ("other", 16)):
        tiny.write_rows(tmp_path / name / "adapter_config.json", {"r": 4, "lora_alpha": alpha})
        tiny.write_rows(tmp_path / name / "adapter_model.safetensors", [])
    write_questions((0, 0))
    asked = {"heldout_questions": "mine.json", "export": "total/data_2", "combine_adapters": "mean"}

    def jobs(methods=("vanilla", "icl", "prag"), **settings):
        _, predict = make(inference_methods=list(methods), **asked, **settings)
        assert not any("task_adapter" in export.params for export in predict.exports) or settings
        gathered = [*predict.predictions, *predict.knowledge, *predict.heldout]
        names = [*(method_of(p) for p in predict.predictions), "knowledge", "heldout"]
        return {name: g.jobs[0] for name, g in zip(names, gathered, strict=True)}, predict.exports[0]

    bare, _ = jobs()
    over, export = jobs(["vanilla", "task", "icl", "prag"], task_adapter="task")
    other, _ = jobs(["task"], task_adapter="other")
    assert list(over) == ["vanilla", "task", "icl", "prag_mean", "knowledge", "heldout"]
    for name in ("vanilla", "icl"):
        assert over[name].outputs == bare[name].outputs
        assert over[name].inputs["task_adapter"] == []
    for name in ("prag_mean", "knowledge", "heldout"):
        assert over[name].outputs != bare[name].outputs
        assert over[name].inputs["task_adapter"] == ["task/adapter_config.json", "task/adapter_model.safetensors"]
    assert over["task"].outputs != other["task"].outputs
    assert over["task"].inputs["records"] == []
    assert export.params == {"mean": True, "task_adapter": over["task"].params["task_adapter"]}
