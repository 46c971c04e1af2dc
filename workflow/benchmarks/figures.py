"""What the benchmark of training measured, in Markdown and as a plot."""

from typing import Any

REFERENCE, BASIS = "the reference's way", "PEFT, no padding"


def tables(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    reference, basis = results["ways"][REFERENCE], results["ways"][BASIS]
    lines = [
        f"On {results['machine']}:",
        "",
        "| | seconds a passage | tokens a second | against the reference | against PEFT, no padding | GFLOP a second"
        " | of torch's matrix products | of packed ones | peak memory | operators a step and passage | cosine |",
        "|" + " --- |" * 11,
    ]
    for label, way in results["ways"].items():
        seconds = way["seconds_a_passage"]
        cells = [
            label,
            f"{seconds:.2f}",
            f"{way['tokens_a_second']:.0f}",
            f"{reference['seconds_a_passage'] / seconds:.1f}×",
            f"{basis['seconds_a_passage'] / seconds:.2f}×",
            f"{way['flop_a_second'] / 1e9:.0f}",
            _share(way, "torch"),
            _share(way, "packed"),
            f"{way['peak_memory_gb']:.1f} GB",
            f"{way['operators']:.0f}" if "operators" in way else "",
            f"{way['cosine']:.5f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    job, linear, tiny = results["job"], results["linear"], results["tiny"]
    lines += [
        "",
        f"A whole job of {job['passages']} passages took {job['seconds']:.0f} s; {job['not_training']:.1%} of that was"
        " not training (start, load, store, link).",
        "",
        "| short passages in a job | seconds a passage | peak memory |",
        "| --- | --- | --- |",
        *(f"| {n} | {r['seconds_a_passage']:.4f} | {r['peak_memory_gb']:.2f} GB |" for n, r in linear.items()),
        "",
        "| side by side, on a tiny model | passages a second | |",
        "| --- | --- | --- |",
        *(f"| {n} | {rate:.0f} | {rate / tiny['1']:.1f}× |" for n, rate in tiny.items()),
    ]
    return "\n".join(lines) + "\n"


def _share(way: dict[str, Any], product: str) -> str:
    rate = way["matrix_rates"].get(product)
    return f"{way['flop_a_second'] / rate:.0%}" if rate else ""


def draw(results: dict[str, Any], path: str) -> None:
    """Seconds a passage of each way, and the gain of training side by side where arithmetic is not the limit."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), gridspec_kw={"width_ratios": [3, 2]})
    labels = list(results["ways"])[::-1]
    seconds = [results["ways"][label]["seconds_a_passage"] for label in labels]
    bars = left.barh(labels, seconds, color=["#3b6ea5" if label.startswith("ours") else "#b0b0b0" for label in labels])
    left.bar_label(bars, [f" {value:.2f} s" if value < 10 else f" {value:.0f} s" for value in seconds])
    left.set(xscale="log", xlabel="seconds a passage", xlim=(min(seconds) / 2, max(seconds) * 3))
    left.set_title(results["machine"], fontsize=9)
    counts = [int(n) for n in results["tiny"]]
    right.plot(counts, list(results["tiny"].values()), marker="o", color="#3b6ea5")
    right.set(xscale="log", xlabel="passages side by side", ylabel="passages a second", ylim=(0, None))
    right.set_xticks(counts, counts)
    right.minorticks_off()
    right.set_title("a tiny model: launches are the limit", fontsize=9)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
