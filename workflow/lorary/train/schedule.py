"""Which passages take a step together: those whose next batches are alike, so that little of the step is padding."""

import itertools
from collections.abc import Callable

MOST_PADDING = 0.1  # of the tokens of a step
# Passages under way for each one in a step: so many to choose from keep steps full (measured on 2WikiMultihopQA and
# on PRAG's own rows).
PLACES = 4
# A step of twice as many passages has to save this part of the time a passage, or it is not worth its memory.
GAIN = 0.05

Shape = tuple[int, int]  # of a batch: sequences, tokens of the longest


def choose(waiting: dict[int, Shape], most: int) -> list[int]:
    """The places, `most` at most, whose next batches go into one step: as many as `MOST_PADDING` allows, and of those
    the ones that pad least. Batches of a step have the same number of sequences. No passage waits for ever, since the
    pool runs empty at the end."""
    best: tuple[int, float] = (0, 0.0)
    chosen: list[int] = []
    ordered = sorted(waiting, key=lambda place: (waiting[place], place), reverse=True)
    for _, group in itertools.groupby(ordered, key=lambda place: waiting[place][0]):
        alike = list(group)
        for start, place in enumerate(alike):  # the longest, then the next ones as long as the padding allows
            longest, tokens = waiting[place][1], 0
            for end in range(start, min(start + most, len(alike))):
                tokens += waiting[alike[end]][1]
                full = tokens / (longest * (end - start + 1))
                if full < 1 - MOST_PADDING:
                    break
                if (end - start + 1, full) > best:
                    best, chosen = (end - start + 1, full), alike[start : end + 1]
    return chosen


def most_that_pays(trial: Callable[[int], tuple[float, int] | None], memory: float, most: int) -> int:
    """How many passages a step should train, found by trying: doubled for as long as that saves time and fits.

    `trial(n)` makes a step of n and returns its seconds and the bytes that it took, or None where it did not fit;
    `memory` are the bytes that there are.
    """
    n, result = 1, trial(1)
    while result and 2 * n <= most and 2 * result[1] <= memory:
        twice = trial(2 * n)
        if twice is None or twice[0] > 2 * result[0] * (1 - GAIN):
            break
        n, result = 2 * n, twice
    return n
