"""Adapters of the demo, and what Lorary itself answers with them, token by token."""

import json
from pathlib import Path

import tiny
from lorary.adapters.lora import Adapter
from lorary.answer.predict import answerer
from lorary.answer.source import Trained
from lorary.data.prompts import clean_question, load_prompter
from project import Project

MODEL = "resources/models/smollm2-135m-instruct"
RUN = "smollm2-135m-instruct/rank=2_alpha=32/invented/lr=0.0015_epoch=3_direct/aug_model=smollm2-135m-instruct"
TREE = f"results/adapters/{RUN}"
MERGED = f"results/export/{RUN}/total_data_8"
QUESTIONS, TOKENS = 9, 20  # the last one has three passages


def make(folder: Path) -> list[dict]:
    """Train in this folder, and answer. Returns the cases: `adapters` are directories that are active together,
    `prompt` the ids of the prompt, `text` the same as text, `content` the user's turn in it, `answer` the ids that are
    said, without the one that ends them."""
    project = Project(folder, None)
    project.snakemake("all", "export", sample=QUESTIONS, inference_methods=[], export="total/data_8")
    rows = json.loads(tiny.DEMO.read_text(encoding="utf-8"))[:QUESTIONS]
    names = [[f"total/data_{did}/passage_{pid}" for pid in range(len(row["passages"]))] for did, row in enumerate(rows)]
    sets = [(row, []) for row in rows] + [(row, [name]) for row, all_ in zip(rows, names, strict=True) for name in all_]
    sets.append((rows[-1], names[-1]))
    model, prompter = str(folder / MODEL), load_prompter(str(folder / MODEL), tiny.PROMPTS)
    source = Trained({name: {"path": str(folder / TREE / name)} for of_one in names for name in of_one})
    cases = []
    with answerer(model, "float32", 1, source, names[0][0]) as ready:
        for row, active in sets:
            ids = prompter.prompt_ids(row["question"], [])
            adapters: list[Adapter] = [source.load(name) for name in active]
            (said,) = ready.generate([ids], [adapters], TOKENS)
            (text, _) = prompter.text(row["question"], [], None)
            content = "\n" + clean_question(row["question"])
            cases.append({"adapters": active, "prompt": ids, "text": text, "content": content, "answer": said})
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    return cases
