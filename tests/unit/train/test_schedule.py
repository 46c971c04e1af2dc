"""Which passages take a step together, and how many."""

import random

import pytest

from lorary.train.schedule import MOST_PADDING, PLACES, choose, most_that_pays


def test_as_many_as_the_padding_allows_and_those_that_pad_least():
    assert choose({0: (1, 100), 1: (1, 50), 2: (1, 99), 3: (1, 98)}, 2) in ([0, 2], [2, 3])
    assert sorted(choose({0: (1, 100), 1: (1, 50), 2: (1, 99), 3: (1, 98)}, 4)) == [0, 2, 3]
    assert choose({4: (1, 7)}, 8) == [4]


def test_batches_of_a_step_have_the_same_number_of_sequences():
    assert sorted(choose({0: (2, 10), 1: (1, 10), 2: (2, 10), 3: (1, 9), 4: (2, 10)}, 8)) == [0, 2, 4]


@pytest.mark.parametrize("most", [1, 4, 16])
def test_every_batch_has_its_turn_in_its_order_and_little_is_padding(most):
    rng = random.Random(most)
    lengths = [[rng.randint(200, 300) for _ in range(4)] + [rng.randint(70, 90)] for _ in range(200)]
    coming, under_way, done = list(enumerate(lengths)), {}, {i: [] for i in range(200)}
    steps = tokens = computed = 0
    while coming or under_way:
        while coming and len(under_way) < PLACES * most:
            i, some = coming.pop()
            under_way[i] = some
        together = choose({i: (1, lengths[i][len(done[i])]) for i in under_way}, most)
        assert 1 <= len(together) <= most
        here = [lengths[i][len(done[i])] for i in together]
        steps, tokens, computed = steps + 1, tokens + sum(here), computed + len(here) * max(here)
        assert sum(here) >= (1 - MOST_PADDING) * len(here) * max(here)
        for i in together:
            done[i].append(lengths[i][len(done[i])])
            if done[i] == lengths[i]:
                del under_way[i]
    assert [done[i] for i in range(200)] == lengths
    assert 1000 / steps > 0.8 * most  # steps are nearly full


@pytest.mark.parametrize(
    ("seconds", "size", "memory", "most", "expected"),
    [
        (lambda n: 1.0, lambda n: n, 10**6, 64, 64),  # launch-bound: the more the better
        (lambda n: 1.0 * n, lambda n: n, 10**6, 64, 1),  # compute-bound from the start
        (lambda n: max(4.0, 1.0 * n), lambda n: n, 10**6, 64, 4),  # from four on
        (lambda n: 1.0, lambda n: 100 * n, 1000, 64, 8),  # 16 would need 1,600
        (lambda n: 1.0, lambda n: n, 10**6, 11, 8),  # there are only eleven passages
        (lambda n: 1.0, lambda n: n, 10**6, 1, 1),
    ],
)
def test_as_many_as_pay(seconds, size, memory, most, expected):
    assert most_that_pays(lambda n: (seconds(n), size(n)), memory, most) == expected


def test_a_trial_that_does_not_fit_is_no_choice():
    assert most_that_pays(lambda n: (1.0, n) if n <= 4 else None, 10**6, 64) == 4
    assert most_that_pays(lambda n: None, 10**6, 64) == 1
