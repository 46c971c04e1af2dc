"""The report's plots: what a person reads at a glance, as SVG."""

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from ..plan.methods import METHODS

matplotlib.use("svg")
from matplotlib import pyplot

ADAPTERS = {"bare": "#8a8f98", "other": "#d97706", "own": "#2563eb"}
ADAPTER_NAMES = {"bare": "bare model", "other": "another passage's adapter", "own": "own adapter"}
RUNS = ["#2563eb", "#d97706", "#0d9488", "#7c3aed", "#dc2626", "#65a30d", "#0891b2", "#db2777"]
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "lorary",  # the same bytes for the same figures
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#374151",
    "text.color": "#1f2937",
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
    "legend.frameon": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
}
WIDEST = 44  # letters of a name beside a plot
MOST_DOTS = 400  # of passages, in one strip


def scores(table: pd.DataFrame, labels: list[str], output: str) -> str:
    """F1 of each method, with its interval; `labels`: of each line's run and type."""
    groups = list(dict.fromkeys(labels))
    figure, axes = _figure(height=0.9 + sum(0.3 * labels.count(group) + 0.25 for group in groups))
    y, ticks = 0.0, []
    for group in groups:
        lines = table[[label == group for label in labels]]
        top = y
        for line in lines.to_dict("records"):
            color, mean = METHODS[line["method"]].colour, 100 * line["f1"]
            low, high = 100 * line["f1_low"], 100 * line["f1_high"]
            axes.plot([low, high], [y, y], color=color, linewidth=6, alpha=0.25, solid_capstyle="butt")
            axes.plot(mean, y, "o", color=color, markersize=8)
            axes.annotate(
                f"{line['method']}  {mean:.1f}", (mean, y), (0, 7), textcoords="offset points", ha="center", fontsize=8
            )
            y -= 0.3
        ticks.append((top + y + 0.3) / 2)
        y -= 0.25
    axes.set_yticks(ticks, map(_wrapped, groups))
    axes.set_ylim(y + 0.2, 0.3)
    axes.set_xlim(-4, 104)
    axes.set_xlabel("F1 in percent; the band is the 95 % bootstrap interval over the questions")
    axes.grid(axis="y", visible=False)
    return _save(figure, output)


def knowledge(tables: dict[str, pd.DataFrame], output: str) -> str:
    """How probable the answers of passages' own pairs are, without context, under each adapter: a dot a passage."""
    figure, axes = _figure(height=0.9 + 1.25 * len(tables))
    rng = np.random.default_rng(0)
    ticks, names = [], []
    for i, (label, table) in enumerate(tables.items()):
        for j, (adapter, color) in enumerate(ADAPTERS.items()):
            y = -(i * 1.25 + j * 0.35)
            nll = table[f"nll_{adapter}"].dropna().to_numpy()
            if not len(nll):
                continue
            shown = nll if len(nll) <= MOST_DOTS else rng.choice(nll, MOST_DOTS, replace=False)
            jitter = rng.uniform(-0.09, 0.09, len(shown))
            axes.plot(100 * np.exp(-shown), y + jitter, "o", color=color, alpha=0.45, markersize=5, markeredgewidth=0)
            mean = 100 * np.exp(-nll.mean())
            axes.plot([mean, mean], [y - 0.15, y + 0.15], color=color, linewidth=3)
            axes.annotate(
                _percent(mean),
                (mean, y + 0.16),
                (0, 1),
                textcoords="offset points",
                ha="center",
                color=color,
                weight="bold",
            )
            ticks.append(y)
            names.append(ADAPTER_NAMES[adapter] + (f"\n{label}" if j == 0 and len(tables) > 1 else ""))
    axes.set_xscale("log")
    low, _ = axes.get_xlim()
    axes.set_xlim(max(low, 1e-4), 130)
    axes.xaxis.set_major_formatter(lambda value, _: _percent(value))
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.set_yticks(ticks, map(_wrapped, names))
    axes.set_ylim(min(ticks, default=0) - 0.3, 0.42)
    axes.set_xlabel("probability of an answer's token, asked without the passage (geometric mean; a dot is a passage)")
    axes.grid(axis="y", visible=False)
    return _save(figure, output)


def losses(tables: dict[str, pd.DataFrame], output: str) -> str:
    """The training loss step by step: the median over passages, and the middle 80 % of them."""
    figure, axes = _figure(height=3.2)
    for (label, table), color in zip(tables.items(), RUNS * len(tables), strict=False):
        curves = [np.array(text.split(), dtype=float) for text in table["losses"].dropna()]
        if not curves:
            continue
        longest = max(map(len, curves))
        padded = np.array([np.pad(curve, (0, longest - len(curve)), constant_values=np.nan) for curve in curves])
        enough = np.isfinite(padded).sum(axis=0) >= max(1, len(curves) // 10)  # not the few longest passages alone
        low, middle, high = np.nanpercentile(padded[:, enough], (10, 50, 90), axis=0)
        step = np.arange(1, longest + 1)[enough]
        axes.fill_between(step, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(
            step, middle, color=color, label=label, linewidth=2, marker="o" if len(step) < 30 else None, markersize=4
        )
    axes.set_xlabel("step of a passage's training")
    axes.set_ylabel("loss (nats a token)")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(tables) > 1 and axes.lines:
        axes.legend(fontsize=8)
    return _save(figure, output)


def speed(tables: dict[str, pd.DataFrame], output: str) -> str:
    """Seconds against tokens: a dot a passage."""
    figure, axes = _figure(height=3.2)
    for (label, table), color in zip(tables.items(), RUNS * len(tables), strict=False):
        shown = table if len(table) <= MOST_DOTS else table.sample(MOST_DOTS, random_state=0)
        axes.plot(
            shown["tokens"], shown["seconds"], "o", color=color, label=label, alpha=0.5, markersize=5, markeredgewidth=0
        )
    axes.set_xlabel("tokens of a passage's training sequences")
    axes.set_ylabel("seconds a passage")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    if len(tables) > 1:
        axes.legend(fontsize=8)
    return _save(figure, output)


def _figure(height: float):
    matplotlib.rcParams.update(STYLE)
    figure, axes = pyplot.subplots(figsize=(9, height), layout="constrained")
    return figure, axes


def _wrapped(label: str) -> str:
    """A long name on several lines: on one it would leave the plot no room."""
    return "\n".join(line for part in label.split("\n") for line in textwrap.wrap(part, WIDEST))


def _save(figure, output: str) -> str:
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, metadata={"Date": None})
    pyplot.close(figure)
    return output


def _percent(value: float) -> str:
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"
