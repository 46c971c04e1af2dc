"""Runs for the benchmark of scale: passages of invented towns, as many as are wanted, and adapters that nobody trained.

The base model is a tiny random one, with the tokenizer of a real one; its adapters are some numbers each, so that a
million fit on a disk. Prompt ids are made of the passages of a few jobs. Those of the others, which take hours, are
copies of the first job's, but for the first ids of each sequence.
"""

import functools
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from lorary.core.pack import Part, own_file, pack_of, read_head
from lorary.core.store import Store
from lorary.core.values import TENSORS
from lorary.plan import layout, whole

if TYPE_CHECKING:
    import pyarrow as pa

PER_JOB = 1000  # passages
DATA, MODEL, CONFIG, ARGUMENTS = "data/towns/none/total.json", "tiny-model", "config.json", "arguments"
SETTINGS: dict[str, Any] = {
    "model_name": "tiny",
    "model_path": f"./{MODEL}",
    "data_dir": "data",
    "dataset": "towns",
    "augment_model": "none",
    "sample": -1,
    "inference_methods": [],
    "lora_rank": 1,
    "lora_target_modules": ["down_proj"],
    "pack": True,
}
SHAPE = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
EPOCHS, STEPS = 3, 9
TOLD = {"sequences": 3, "tokens": 600, "seconds": 0.1, "device": "processor", "adapters_per_step": 1}


def sampled(passages: int) -> list[int]:
    """The jobs of a run of so many passages of which prompt ids are made: the first, one in the middle and the last."""
    jobs = -(-passages // PER_JOB)
    return sorted({0, jobs // 2, jobs - 1})


def lay_out(model: str, passages: int) -> None:
    """Data, base model and config of a run, in the working directory."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    Path(DATA).parent.mkdir(parents=True)
    with open(DATA, "w", encoding="utf-8") as file:
        for number in range(passages):
            file.write(f"{', ' if number else '['}{json.dumps(town(number))}")
        file.write("]")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.save_pretrained(MODEL)
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **SHAPE, **ends)
    AutoModelForCausalLM.from_config(config).save_pretrained(MODEL)
    settings = {**SETTINGS, "passages_per_job": PER_JOB, "num_train_epochs": EPOCHS}
    Path(CONFIG).write_text(json.dumps(settings), encoding="utf-8")


def town(number: int) -> dict[str, Any]:
    """A question with its passage, some 1,900 bytes: augmented data."""
    text = (
        f"The town of Place{number} lies on the river Water{number % 977}. It was founded in {1000 + number % 900} by"
        f" Person{number} and has {number * 7 % 100_000} inhabitants. "
    ) * 4
    answers = {"answer": f"Person{number}", "full_answer": f"Person{number} founded it."}
    pairs = [{"question": f"Who founded Place{number}, {i}?", **answers} for i in range(3)]
    augment = {"pid": 0, "passage": text, "none_rewrite": f"Rewritten {text}", "none_qa": pairs}
    question = f"Who founded Place{number}?"
    return {"question": question, "answer": f"Person{number}", "passages": [text], "augment": [augment]}


def prepare() -> None:
    """Base model and base weight; what each stage is called with, as its rule has it from the plan; and folders, which
    Snakemake makes otherwise."""
    from lorary.adapters.files import init_base_weight
    from lorary.base.fetch import get_model

    plan = whole.make(json.loads(Path(CONFIG).read_bytes()))
    (kind,), (index,) = plan.encoding.types, plan.encoding.indexes.values()
    (table,), (weight,) = plan.encoding.tables.values(), plan.encoding.base_weights
    model = plan.models[0]
    get_model(f"./{MODEL}", None, model)
    base_weight, mark = kind.folder.run.base_weight, Path(weight.outputs["mark"]).name
    targets = weight.params["lora_target_modules"]
    init_base_weight(model, SETTINGS["lora_rank"], weight.params["lora_alpha"], targets, 0, None, base_weight, mark)
    _keep("load_data", [table.inputs["files"], table.outputs["table"], table.params])
    _keep("build_prompts", [model, table.outputs["table"], kind.prompts.params])
    for number, job in enumerate(kind.batches):
        batch = {key: job.params[key] for key in ("settings", "adapters_per_step", "store")}
        batch |= {"outputs": job.params["adapters"], "record": job.outputs["record"], "outcome": job.outcome}
        batch |= {"model": model, "base_weight": base_weight, "prompts": job.inputs["prompts"], "threads": 1}
        _keep(f"batch_{number}", batch)
    tables = {each["type"]: each["table"] for each in index.params["types"]}
    run = {**{key: index.params[key] for key in ("runs", "data")}, "model": model, "base_weight": base_weight}
    files = {key: index.outputs[key] for key in ("table", "run")}
    given = {key: index.params[key] for key in ("types", "parts", "folder")}
    _keep("index_adapters", [{**run, "tables": tables}, {**given, **files}])
    _keep("report", [plan.shown_runs(), plan.shown_augmentation()])
    _keep("summary", plan.outcomes())
    parts = {"records": plan.batches(), "runs": plan.base_weights_of_runs(), "tables": [*plan.tables, *plan.prompts]}
    _keep("verify", {**parts, "models": plan.models, "stores": plan.stores, "kept": plan.kept})
    _keep("prune", plan.wanted())
    for path in (*plan.tables, *plan.prompts, *plan.packs, *plan.records, *(job.outcome for job in kind.batches)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(layout.REPORT).parent.mkdir(parents=True, exist_ok=True)


def arguments(stage: str) -> Any:
    """What `prepare` has kept for a stage."""
    return json.loads(Path(ARGUMENTS, f"{stage}.json").read_bytes())


def batch(job: int) -> dict[str, Any]:
    """What a training job is called with."""
    found: dict[str, Any] = arguments(f"batch_{job}")
    return found


def build_prompts(job: int) -> None:
    from lorary.data import prompts, rows

    model, table, setting = arguments("build_prompts")
    passages = rows.read(table, job * PER_JOB, (job + 1) * PER_JOB)
    made = prompts.build(passages, prompts.load_prompter(model, setting), setting["max_length"])
    prompts.save(made, batch(job)["prompts"])


def fill(without: list[int]) -> None:
    """Adapters into the store and the output, in packs, with their records: but those of some jobs, and what is there
    already."""
    import pyarrow.parquet as pq

    from lorary.adapters.files import trained_config

    first = batch(0)
    store, config = Store(first["store"]), trained_config(first["base_weight"], first["model"])
    with Path(first["base_weight"], TENSORS).open("rb") as file:
        head = read_head(file)
        size = len(file.read())
    ids = pq.read_table(first["prompts"])
    for job in range(len(list(Path(ARGUMENTS).glob("batch_*.json")))):
        if job not in without and not Path(batch(job)["record"]).exists():
            _fill(batch(job), ids, store, config, head, size)


def _fill(job: dict[str, Any], ids: "pa.Table", store: Store, config: bytes, head: bytes, size: int) -> None:
    """`head`, `size`: the header of an adapter's file, and the bytes that follow it."""
    import numpy as np

    from lorary.core.packing import keep_pack
    from lorary.data import prompts
    from lorary.train.encode import passage_digests
    from lorary.train.records import write_record

    paths = {layout.position_of(path): path for path in job["outputs"]}
    if not Path(job["prompts"]).exists():
        prompts.save(_of_others(ids, min(paths)[0], len(paths)), job["prompts"])
    found, _ = passage_digests(job["model"], job["base_weight"], job["prompts"], job["settings"], set(paths))
    digests = {position: latest for position, (latest, *_) in found.items()}
    parts, told = [], {}
    for (did, pid), digest in digests.items():
        rng = np.random.default_rng(did)
        content = own_file(head, rng.standard_normal(size // 4, dtype=np.float32).tobytes())
        losses = sorted(rng.uniform(0.1, 3, STEPS).round(4).tolist(), reverse=True)
        about = {"sizes": {TENSORS: len(content)}, "sha256": {TENSORS: hashlib.sha256(content).hexdigest()}}
        told[digest] = training = {**TOLD, "losses": losses, **about}
        read = functools.partial(bytes, content)
        parts.append(Part(layout.place(did, pid), digest, training, head, read))
    pack = pack_of(job["outputs"][0])
    assert pack is not None
    store.link_file(keep_pack(store, config, parts), pack, own=True)
    # Which need not look for each of them, in ever more packs.
    write_record(job["record"], cast(Store, SimpleNamespace(get=told.get)), digests, paths, config)
    outcome = {"trained": len(paths), "failed": []}
    Path(job["outcome"]).write_text(json.dumps(outcome), encoding="utf-8")


def _of_others(ids: "pa.Table", first: int, count: int) -> "pa.Table":
    """The prompt ids of the first job as those of passages from `first` on: each sequence begins with the number of its
    passage, in two ids."""
    import numpy as np
    import pyarrow as pa

    there = np.asarray(ids["did"])
    ids = ids.filter(pa.array(there < count)).combine_chunks()
    numbers = there[there < count] + first
    sequences = ids["input_ids"].chunk(0)
    values, starts = np.array(sequences.values), np.asarray(sequences.offsets)[:-1]
    values[starts], values[starts + 1] = numbers // 1000, numbers % 1000
    others = pa.ListArray.from_arrays(sequences.offsets, pa.array(values))
    columns = {"did": pa.array(numbers, pa.int32()), "input_ids": others}
    for name, column in columns.items():
        ids = ids.set_column(ids.schema.get_field_index(name), ids.schema.field(name), column)
    return ids


def _keep(stage: str, given: Any) -> None:
    Path(ARGUMENTS).mkdir(exist_ok=True)
    Path(ARGUMENTS, f"{stage}.json").write_text(json.dumps(given), encoding="utf-8")
