"""The summary page, results/report.html: one file that any browser shows, without a network."""

import base64
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from ..answer import heldout, knowledge
from ..answer.score import score
from ..core.errors import damaged
from ..core.files import read_json, written_whole
from ..plan import layout
from ..plan.methods import METHODS
from ..train.index import types_of
from ..train.records import UNLEARNT, has_learnt, read_record
from . import augmentation, plots, together
from .coverage import coverage
from .labels import labels

log = logging.getLogger(__name__)

TEMPLATE = Path(__file__).parents[2] / "report" / "page.html"
EXAMPLES, WORST = 12, 20  # lines
NO_GAIN = 0.1  # nats a token: less is none
# Of the probability of a token of another passage's answers: a fall by more is harm. (What was as good as unknown may
# become more so: that harms nobody.)
HARM = 0.05
# Kinds of questions that were not trained on, in the order of the page, which is that of their summary.
HELDOUT = {
    "paraphrase": "Trained facts, asked in other words",
    "untrained": "Facts of the passage that no trained pair asks for",
    "kept": "Pairs that were kept out of training",
    "general": "General questions, which have nothing to do with the passages (is anything lost?)",
}


@dataclass(frozen=True)
class ShownRun:
    """A run, and where its results lie."""

    title: str
    folder: str
    about: str  # run.json
    records: list[str]
    knowledge: str | None  # knowledge.tsv
    predictions: list[dict[str, str]]  # each a `file`, with the `type` and the `method` of it
    answers: str  # the folder of all predictions of the run
    heldout: str | None = None  # heldout.tsv


def build(runs: list[ShownRun], augmented: list[dict[str, str]], failed: str | None = None) -> None:
    """Draw the plots, and write the page. What is not there, as after a run in which passages failed, is left out.

    `augmented`: see `augmentation.describe`; `failed`: the table of passages that have failed, where there is one.
    Raises LoraryError.
    """
    runs = [_with_other_types(run) for run in runs if any(Path(record).is_file() for record in run.records)]
    records = {}
    described = []
    for run in runs:
        about = _describe(run)
        described.append(about)
        lines = pd.concat(read_record(record) for record in run.records if Path(record).is_file())
        records[run.title] = lines
        about |= {"passages": len(lines), "tokens": lines["tokens"].sum(), "seconds": lines["seconds"].sum()}
        epochs = about["config"][0]["num_train_epochs"] if about["config"] else 1
        learning = (list(map(float, losses.split())) for losses in lines["losses"].dropna())
        about |= {"unlearnt": sum(not has_learnt(losses, epochs) for losses in learning)}
    learnt = {
        run.title: knowledge.read(run.knowledge) for run in runs if run.knowledge and Path(run.knowledge).is_file()
    }
    beyond = {run.title: heldout.read(run.heldout) for run in runs if run.heldout and Path(run.heldout).is_file()}
    table = _read_table(layout.SCORES) if Path(layout.SCORES).is_file() else None
    if table is not None:  # not of another config
        table = table[table["path"].isin([layout.folder_of(p["file"]) for run in runs for p in run.predictions])]
        table = None if table.empty else table
    named = [] if table is None else labels(table.to_dict("records"))
    drawn = dict.fromkeys(("scores", "knowledge", "losses", "speed"), "")
    if table is not None:
        drawn["scores"] = plots.scores(table, named, layout.PLOTS["scores"])
    if learnt:
        drawn["knowledge"] = plots.knowledge(learnt, layout.PLOTS["knowledge"])
    if records:
        losses = plots.losses(records, layout.PLOTS["losses"])
        if any(lines["losses"].notna().any() for lines in records.values()):  # else all were translated
            drawn["losses"] = losses
        drawn["speed"] = plots.speed(records, layout.PLOTS["speed"])
    examples = [example for run in runs for example in _examples(run)][:EXAMPLES]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {
        "percent": _percent,
        "probability": lambda nll: math.exp(-nll),
        "number": lambda value: f"{value:,.0f}",
    }
    html = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        runs=described,
        heldout={label: kinds for label, asked in beyond.items() if (kinds := _beyond_training(asked))},
        lacking={run.title: n for run in runs if (n := _lacking_pairs(run, learnt, beyond))},
        learnt={label: _summarize(found) for label, found in learnt.items()},
        scores=[] if table is None else table.assign(label=named).to_dict("records"),
        together=None if table is None else together.describe(table, named, [run.predictions for run in runs]),
        augmented=augmentation.describe(augmented),
        published=augmentation.published(),
        translated=[about["label"] for about in described if about["translated"]],
        why_unlearnt=UNLEARNT,
        examples=examples,
        methods={m: METHODS[m].title for m in METHODS if any(m in example["given"] for example in examples)},
        failed=_read_table(failed).to_dict("records") if failed and Path(failed).is_file() else [],
        plots={name: path and _data_uri(path) for name, path in drawn.items()},
    )
    with written_whole(layout.REPORT) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _with_other_types(run: ShownRun) -> ShownRun:
    """With what calls for other types have left in the folders of this run."""
    if not Path(run.about).is_file():
        return run
    others = read_json(run.about).get("other_types", {})
    records = [record for about in others.values() for record in about["records"]]
    predictions = []
    for path in layout.finished_predictions(run.answers, run.folder):
        method, kind = layout.method_and_type(path)
        if kind in others:
            predictions.append({"file": path, "type": kind, "method": method})
    return replace(run, records=run.records + records, predictions=run.predictions + predictions)


def _describe(run: ShownRun) -> dict[str, Any]:
    about: dict[str, Any] = {"label": run.title, "folder": run.folder, "config": [], "versions": {}, "git": None}
    about |= {"coverage": None, "translated": False, "learnt_from": 0}
    if Path(run.about).is_file():
        found = read_json(run.about)
        about |= {"config": found["config"], "versions": found["versions"], "git": found["git"]}
        about["translated"] = "translator" in found
        about["learnt_from"] = _learnt_from(found)
        if not about["translated"]:  # which is trained on no pairs
            about["coverage"] = coverage(found)
    return about


def _learnt_from(found: dict[str, Any]) -> int:
    """How many passages of a run (`found`: its run.json) its translator has learnt from, as far as that is known."""
    of_types = {kind: about.get("translator", {}).get("learnt_from", {}) for kind, about in types_of(found).items()}
    return sum(known.get(kind, {"passages": 0})["passages"] for kind, known in of_types.items())


def _beyond_training(asked: pd.DataFrame) -> list[dict[str, Any]]:
    """What the page says of each kind of question of a heldout.tsv. Of general ones how many answers have the right one
    in them: the bare model answers those in whole sentences, whose F1 is low, and adapters make its answers short."""
    shown = []
    for line in heldout.summarize(asked).to_dict("records"):
        measure = "hit" if line["kind"] == "general" else "f1"
        figures = {
            f"{which}{end}": line[f"{measure}_{which}{end}"]
            for which in ("bare", "own", "gain")
            for end in ("", "_low", "_high")
        }
        name = "F1" if measure == "f1" else "right answers, in whatever words"
        shown.append({**line, **figures, "title": HELDOUT[line["kind"]], "measure": name})
    return shown


def _lacking_pairs(run: ShownRun, learnt: dict[str, pd.DataFrame], beyond: dict[str, pd.DataFrame]) -> int:
    """How many passages of a run have kept fewer pairs out of training than was asked for."""
    if run.title not in learnt or run.title not in beyond or not Path(run.about).is_file():
        return 0
    wanted = {
        kind: about["config"][0].get("heldout_pairs", 0) for kind, about in types_of(read_json(run.about)).items()
    }
    place, asked = ["type", "did", "pid"], beyond[run.title]
    kept = asked[asked["kind"] == "kept"].groupby(place).size().to_dict()
    passages = learnt[run.title][place].itertuples(index=False, name=None)
    return sum(kept.get(passage, 0) < wanted.get(passage[0], 0) for passage in passages)


def _summarize(found: pd.DataFrame) -> dict[str, Any]:
    """What the page says of a knowledge.tsv."""
    measured = found.dropna(subset=["nll_bare", "nll_own"])
    figures: dict[str, Any] = dict.fromkeys(plots.ADAPTERS)  # None: no passage was asked so
    figures |= {
        adapter: {
            "probability": math.exp(-measured[f"nll_{adapter}"].mean()),
            "nll": measured[f"nll_{adapter}"].mean(),
            "recall": measured[f"recall_{adapter}"].mean(),
        }
        for adapter in plots.ADAPTERS
        if measured[f"nll_{adapter}"].notna().any()
    }
    place = pd.Series(map(layout.passage_name, found["type"], found["did"], found["pid"]), found.index)
    gain = found["nll_bare"] - found["nll_own"]
    before, after = np.exp(-found["nll_bare"]), np.exp(-found["nll_other"])
    harm = (before - after).where(found["recall_other"] >= found["recall_bare"], 1 + before - after)  # known, and lost
    figures["idle"] = [
        {"place": place[i], "before": found["nll_bare"][i], "after": found["nll_own"][i]}
        for i in gain[gain < NO_GAIN].sort_values().index
    ]
    figures["harmful"] = [
        {"place": found["other"][i], "of": place[i], "before": before[i], "after": after[i]}
        for i in harm[harm > HARM].sort_values(ascending=False).index
    ]
    figures["most"], figures["passages"] = WORST, len(found)
    return figures


def _examples(run: ShownRun) -> list[dict[str, Any]]:
    """Questions with the answers of the methods, side by side."""
    by_type: dict[str, dict[str, list[dict]]] = {}
    for prediction in run.predictions:
        if Path(prediction["file"]).is_file():
            by_type.setdefault(prediction["type"], {})[prediction["method"]] = read_json(prediction["file"])
    examples = []
    for methods in by_type.values():
        for rows in zip(*methods.values(), strict=False):  # one may be of a call before, with fewer questions
            if len({row["question"] for row in rows}) > 1:
                continue
            answers = rows[0]["answer"]
            given = {
                method: {
                    "text": row["text"],
                    "scored": row["eval_predict"],
                    "f1": score(row["eval_predict"], answers)["f1"],
                }
                for method, row in zip(methods, rows, strict=True)
            }
            examples.append({"question": rows[0]["question"], "answer": answers[0], "given": given})
    return examples[:EXAMPLES]


def _read_table(path: str) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep="\t", keep_default_na=False)
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None


def _data_uri(path: str) -> str:
    """The drawing as an image that the page itself carries."""
    return "data:image/svg+xml;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.2g} %"
