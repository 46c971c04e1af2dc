"""The questions of the benchmark of knowledge: each with its passage among others."""

from benchmarks import knowledge


def passage(did, pid, text):
    pairs = [{"question": f"{text}?", "answer": text, "full_answer": text}]
    return {"did": did, "pid": pid, "passage": text, "rewrite": text, "pairs": pairs, "question": "q", "answers": ["a"]}


def test_a_question_has_its_passage_in_each_place_in_turn_and_first_those_that_stand_with_it():
    texts = ["a", "b", "c", "d"]
    passages = [passage(did, 0, text) for did, text in enumerate(texts)]
    passages += [passage(4, 0, "a"), passage(4, 1, "d")]  # a question with two passages
    asked = [
        {"did": did, "pid": 0, "kind": kind, "question": f"which {did}?", "answers": [texts[did]]}
        for did in range(4)
        for kind in ("paraphrase", "untrained")
    ]
    rows = knowledge._among(passages, asked, 3)
    assert [row["question"] for row in rows] == [f"which {did}?" for did in range(4)]
    assert [row["passages"].index(texts[did]) for did, row in enumerate(rows)] == [0, 1, 2, 0]
    assert [row["passages"] for row in rows] == [["a", "d", "b"], ["c", "b", "d"], ["d", "a", "c"], ["d", "a", "b"]]
    assert all(
        row["augment"][i]["known_qa"][0]["answer"] == text for row in rows for i, text in enumerate(row["passages"])
    )
    assert knowledge._among(passages, [{**asked[0], "did": 9}], 3) == []  # beyond the sample


def test_recipes_take_as_many_steps_as_the_reference():
    three = passage(0, 0, "a")
    three["pairs"] *= 3
    runs = list(knowledge._runs({"num_train_epochs": 3}, [three], [1, 2]))
    alone = [run for run in runs if "dataset" not in run]
    assert [(run["objective"], run["num_train_epochs"]) for run in alone[:3]] == [
        ("reference", 3), ("answers", 5), ("mixed", 3)
    ]  # fmt: skip
    assert {run["adapter_dir"] for run in runs} == {"results/seed_1", "results/seed_2"}
