"""Every path and every rule name of a run: spelled here, and taken apart nowhere else.

Paths are relative to the working directory. The tree of adapters is that of Parametric RAG, to the letter.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.files import refuse_detours
from ..core.values import CONFIG, MARK, TENSORS, Position
from .run import Run, in_name

# The project's own files, wherever it is called from.
ROOT = Path(__file__).parents[3]
DEMO, DEMO_DATASET = ROOT / "resources/demo", "invented"
DEMO_HELDOUT, KEEP_QUESTIONS = DEMO / "heldout.json", ROOT / "resources/keep_questions.json"
TEMPLATES, AUGMENT_PROMPTS = ROOT / "resources/prompt_templates.yaml", ROOT / "resources/augment_prompts.yaml"
GENERAL, PUBLISHED = ROOT / "resources/general_questions.json", ROOT / "resources/published_data.json"

# With Snakemake's wildcards.
MODEL = "resources/models/{model}"
RAW = "results/raw/{raw}.parquet"  # passages as they were brought
RETRIEVED = "results/retrieved/{raw}.parquet"  # the same, found for questions
CORPUS_INDEX = "results/index/{index}"
AUGMENT_FOLDER = "results/augment/{part}"
AUGMENT_PART = f"{AUGMENT_FOLDER}/{{start}}-{{stop}}.jsonl"
AUGMENTED = "results/augmented/{augmented}.json"
AUGMENTATION = "results/augmented/{augmented}.augmentation.tsv"
CUT = "results/raw/cut"  # what is remembered of data while their files stay as they are
TABLE = "results/data/{table}.parquet"
ROUTES = "results/routes/{routes}.tsv"
PROMPTS_FOLDER = "results/prompts/{prompts}"
PROMPTS = f"{PROMPTS_FOLDER}/{{start}}-{{stop}}.parquet"
KEPT = "results/kept/{kept}.safetensors"
EMBEDDINGS = "results/embeddings/{embeddings}/{start}-{stop}.safetensors"
TRANSLATOR = "results/translators/{translator}"
SCORES = "results/scores.tsv"
FAILED = "results/failed.tsv"
REPORT = "results/report.html"
PLOTS = {name: f"results/report/{name}.svg" for name in ("scores", "knowledge", "losses", "speed")}

# In the folder of a run.
INDEX, ABOUT = "adapters.tsv", "run.json"
RECORDS_OF_THE_FIRST_RELEASE = "results/train"
OWN = ".lorary"  # what calls of ours leave there for later ones
PARTS = f"{OWN}/types"
SETTLED = r"(\d+)-(\d+)\.[0-9a-f]{8}\.\w+"
DEFAULT_RANK = "rank=2_alpha=32"
HELDOUT = ".heldout"  # in PARTS, of a type


@dataclass(frozen=True)
class RunFolder:
    """Where the adapters of a run lie, and what belongs to them."""

    adapter_dir: str
    model: str
    rank: str
    dataset: str
    setting: str
    augment: str

    @property
    def path(self) -> str:
        return f"{self.rank_folder}/{self.dataset}/{self.setting}/{self.augment}"

    @property
    def rank_folder(self) -> str:
        return f"{self.adapter_dir}/{self.model}/{self.rank}"

    @property
    def base_weight(self) -> str:
        return f"{self.rank_folder}/base_weight"

    def base_weight_files(self, made_of: dict[str, Any]) -> dict[str, str]:
        """The adapter, and the file that says what it was made of."""
        names = {"config": CONFIG, "tensors": TENSORS, "mark": f"{MARK}.{digest(made_of)}.json"}
        return {key: f"{self.base_weight}/{name}" for key, name in names.items()}

    @property
    def index(self) -> str:
        return f"{self.path}/{INDEX}"

    @property
    def about(self) -> str:
        return f"{self.path}/{ABOUT}"

    def learnt(self, table: str) -> str:
        """What was learnt: knowledge, heldout or heldout_summary."""
        return f"{self.beside('predictions')}/{table}.tsv"

    def part(self, kind: str, suffix: str) -> str:
        """What the index, or run.json, says of one type, whichever call made it."""
        return f"{self.path}/{PARTS}/{kind}{suffix}"

    def learnt_part(self, kind: str, suffix: str) -> str:
        return f"{self.beside('predictions')}/{PARTS}/{kind}{suffix}"

    def predictions(self, method: str, kind: str) -> str:
        return f"{self.beside('predictions')}/{method}/{kind}"

    def beside(self, name: str) -> str:
        """The folder of predictions (or exports) that belongs to these adapters: the same tree beside theirs.

        Raises LoraryError where a link leads out of there.
        """
        root = Path(self.adapter_dir)
        if root.name == "adapters":
            root = root.with_name(name)
        elif root.name in ("", ".."):  # `.`, `/` and the like have nothing beside them
            root = root / name
        else:
            root = root.with_name(f"{root.name}_{name}")
        folder = str(root / self.model / self.rank / self.dataset / self.setting / self.augment)
        refuse_detours(folder, str(root))
        return folder

    @property
    def title(self) -> str:
        """For people, short: what of a run is seldom another is left out."""
        title = f"{self.model}, {self.dataset}, {self.setting}"
        title += "" if self.rank == DEFAULT_RANK else f", {self.rank}"
        title += "" if Path(self.adapter_dir).name == "adapters" else f", {self.adapter_dir}"
        augment = self.augment.removeprefix("aug_model=")
        return title + ("" if augment == self.model else f", {augment}")


def run_folder(run: Run) -> RunFolder:
    training = run.training
    return RunFolder(
        adapter_dir=run.jobs.adapter_dir,
        model=run.model.model_name,
        rank=f"rank={training.lora_rank}_alpha={training.lora_alpha}",
        dataset=run.data.dataset,
        setting=f"lr={training.learning_rate}_epoch={training.num_train_epochs}_{style(run)}{in_name(run.flat())}",
        augment=f"aug_model={run.data.augment_model}" + ("_projector" if run.data.projector else ""),
    )


@dataclass(frozen=True)
class TypeFolder:
    """The adapters of one type of a run."""

    run: RunFolder
    kind: str  # the type

    @property
    def path(self) -> str:
        return f"{self.run.path}/{self.kind}"

    @property
    def title(self) -> str:
        return f"{self.run.dataset} {self.kind}"

    def adapters(self, counts: list[int]) -> list[str]:
        """The directories of all passages, of questions with so many each."""
        folder = self.path
        return [f"{folder}/{place(did, pid)}" for did, n in enumerate(counts) for pid in range(n)]

    def record(self, start: int, last: int, decides: dict[str, Any]) -> str:
        """What a training job says of these adapters, which it made under these settings. It lies beside them, so that
        whoever makes others of the same passages can withdraw it."""
        return f"{self.run.path}/{OWN}/records/{self.kind}/{settled(span_name(start, last), decides)}.tsv"

    def rule(self, what: str, start: int | None = None, of: int = 0) -> str:
        """Of a job of this type, or, of the jobs that share its passages, of the one that starts at `start`."""
        rule = re.sub(r"\W", "_", f"{what}_{self.run.dataset}_{self.kind}_{digest(self.path)}")
        return rule if start is None else f"{rule}_{start:0{len(str(of))}}"


def place(did: int, pid: int) -> str:
    """As a passage of a type is named, in its path too."""
    return f"data_{did}/passage_{pid}"


def passage_name(kind: str, did: int, pid: int) -> str:
    """As people name a passage of a run: <type>/data_<did>/passage_<pid>."""
    return f"{kind}/{place(did, pid)}"


def position_of(path: str) -> Position:
    """(did, pid) of `.../data_<did>/passage_<pid>`."""
    data, passage = path.rsplit("/", 2)[-2:]
    return int(data.removeprefix("data_")), int(passage.removeprefix("passage_"))


def names_of(passage: str) -> list[str]:
    """By what a passage can be wanted: its own name, that of its question (<type>/data_<did>), and its type."""
    return [passage.rsplit("/", ends)[0] for ends in range(3)]


def adapter_files(directory: str) -> list[str]:
    return [f"{directory}/{name}" for name in (CONFIG, TENSORS)]


def export(run: RunFolder, wanted: list[str], names: list[str], ending: str) -> str:
    """The folder of a merged adapter of what was wanted, which are these passages; or what else the ending says."""
    title = "+".join(name.replace("/", "_") for name in wanted)
    if len(title) > 100:
        title = f"{len(names)}_passages_{digest(names)}"
    return f"{run.beside('export')}/{title}{ending}"


def finished_runs(adapter_dir: str) -> list[Path]:
    """The folders of the runs that have been finished there."""
    return [path.parent for path in sorted(Path(adapter_dir).glob(f"*/*/*/*/*/{ABOUT}"))]


def config_beside(predictions: str) -> str:
    """What predict.json was made with."""
    return f"{folder_of(predictions)}/config.json"


def types_there(file: str, suffix: str, adapters: str) -> dict[str, Path]:
    """By type, what is there of the types of a run, which `file` beside them is put together from; of those whose
    adapters are still there, in `adapters`."""
    found = sorted(Path(file).parent.glob(f"{PARTS}/*{suffix}"))
    there = {path.name.removesuffix(suffix): path for path in found}
    return {kind: path for kind, path in there.items() if Path(adapters, kind).is_dir()}


def finished_predictions(folder: str, adapters: str) -> list[str]:
    """Each predict.json of a run, in its `folder` of predictions, of types whose adapters are still there."""
    found = [path.parent for path in sorted(Path(folder).glob("*/*/predict.json"))]
    there = [path for path in found if (path / "config.json").is_file() and Path(adapters, path.name).is_dir()]
    return [f"{path}/predict.json" for path in there]


def method_and_type(predictions: str) -> tuple[str, str]:
    """Of a predict.json."""
    method, kind, _ = Path(predictions).parts[-3:]
    return method, kind


def table_name(run: Run, kind: str, settings: dict[str, Any]) -> str:
    return f"{run.data.dataset}_{kind}_{digest(settings)}"


def prompts_name(run: Run, kind: str, settings: dict[str, Any]) -> str:
    return f"{type_name(run, kind)}_{digest(settings)}"


def type_name(run: Run, kind: str) -> str:
    return f"{run.model.model_name}_{run.data.dataset}_{kind}_{style(run)}"


def augmented_name(run: Run, kind: str, decides: dict[str, Any]) -> str:
    """Such that it is as in a data_dir: <dataset>/<augment_model>/<type>. Another setting's is another file, so that
    none is lost that somebody has edited."""
    return f"{run.data.dataset}_{digest(decides)}/{run.data.augment_model}/{kind}"


def batches_name(run: Run, folder: TypeFolder) -> str:
    """Of the files that the jobs of one type leave beside the adapters."""
    return f"{type_name(run, folder.kind)}_{digest(folder.path)}"


def span(name: str, start: int, last: int) -> str:
    """Of the files of a job that does these."""
    return f"{name}/{span_name(start, last)}"


def span_name(start: int, last: int) -> str:
    return f"{start}-{last}"


def settled(name: str, decides: dict[str, Any]) -> str:
    """The name of an output with a digest of the settings that decide its content: another setting's is another file,
    whatever Snakemake remembers."""
    return f"{name}.{digest(decides)}"


def records_of(record: str) -> str:
    """The folder of all records of the run that this one is of."""
    return os.path.dirname(os.path.dirname(record))


def record_there(record: str, job: str) -> str:
    """This record of a job (`job`, its name); or what the first release left of it, where no later one has made any of
    these adapters."""
    former = f"{RECORDS_OF_THE_FIRST_RELEASE}/{job.partition('/')[2]}.tsv"
    return former if Path(former).is_file() and not Path(record).parent.is_dir() else record


def records_below(folder: Path) -> list[Path]:
    """The records of a run, or of those of the first release. Raises OSError where they cannot be read."""

    def refused(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    walked = os.walk(folder, onerror=refused)
    return sorted(Path(where, name) for where, _, names in walked for name in names if name.endswith(".tsv"))


def superseded(output: str) -> list[Path]:
    """The files beside this output of a job that speak of some of the same items, made under other settings or in other
    batches: they are not true any more when it is made."""
    path = Path(output)
    own, found = re.fullmatch(SETTLED, path.name), list[Path]()
    if own is None:
        return found
    for other in path.parent.glob(f"*{path.suffix}"):
        there = re.fullmatch(SETTLED, other.name)
        if there and other != path and int(there[1]) <= int(own[2]) and int(own[1]) <= int(there[2]):
            found.append(other)
    return found


def folder_of(file: str) -> str:
    """Of a file of predictions (predict.json, result.txt, config.json), or of a base weight."""
    return os.path.dirname(file)


def answers(part: str, suffix: str) -> str:
    return f"results/predict/{part}{suffix}"


def log(name: str, suffix: str = ".log") -> str:
    return f"logs/{name}{suffix}"


def benchmark(name: str) -> str:
    return f"benchmarks/{name}.tsv"


def numbered(rule: str, i: int) -> str:
    """The rule's own name for the first, as there mostly is one."""
    return f"{rule}_{i}" if i else rule


def style(run: Run) -> str:
    return "cot" if run.prompts.with_cot else "direct"


def one_spelling(folder: str) -> str:
    """A user's path, relative to the working directory where it lies below it."""
    path = os.path.normpath(os.path.expanduser(folder))
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def digest(value: Any) -> str:
    """Eight letters that tell settings apart in a name."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
