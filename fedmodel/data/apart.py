"""Who is held out of training, drawn at random, of each label about the same share.

Guarantee: for the same seed, those whom scikit-learn's `train_test_split` takes, in its order. A run's parts hang on
that, so it stands here: another release of scikit-learn changes none of them, and dealing imports nothing of it.

Shapes: P persons, C labels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedmodel.errors import DataError


def held_apart(
    label_P: NDArray[np.int64] | None, persons: int, held_out: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return who trains, and who is held out.

    Args:
        label_P: Each person's label; None where there are none.
        persons: How many there are.
        held_out: Which share of them is held out, in (0, 1); rounded up to whole persons.
        seed: Decides who.

    Raises:
        DataError: When either part would be without persons, or without those of some label.
    """
    test = math.ceil(held_out * persons)
    train, rng = persons - test, np.random.RandomState(seed)
    if label_P is None:
        _check(held_out, train, 1)
        order_P = rng.permutation(persons)
        return order_P[test:], order_P[:test]
    label_C, place_P, count_C = np.unique(label_P, return_inverse=True, return_counts=True)
    if count_C.min(initial=2) < 2:
        alone = ", ".join(str(one) for one in label_C[count_C < 2])
        raise DataError(f"data.held_out = {held_out} leaves a part without every label; one person has label {alone}")
    _check(held_out, min(train, test), len(label_C))
    persons_C = np.split(np.argsort(place_P, kind="stable"), np.cumsum(count_C)[:-1])
    train_C = _shares(count_C, train, rng)
    test_C = _shares(count_C - train_C, test, rng)
    trained, held = list[NDArray[np.intp]](), list[NDArray[np.intp]]()
    for own, most, more in zip(persons_C, train_C, test_C, strict=True):
        drawn = own[rng.permutation(len(own))]
        trained.append(drawn[:most])
        held.append(drawn[most : most + more])
    return rng.permutation(np.concatenate(trained)), rng.permutation(np.concatenate(held))


def _check(held_out: float, smaller: int, least: int) -> None:
    """Refuse a part of fewer persons than there are labels."""
    if smaller < least:
        raise DataError(
            f"data.held_out = {held_out} leaves a part without every label; the smaller part has {smaller} persons,"
            f" and needs {least} at least"
        )


def _shares(count_C: NDArray[np.intp], drawn: int, rng: np.random.RandomState) -> NDArray[np.intp]:
    """Return how many of each label are drawn: its share of all, of which the largest remainders are rounded up."""
    exact_C = count_C / count_C.sum() * drawn
    whole_C = np.floor(exact_C)
    left, remainder_C = int(drawn - whole_C.sum()), exact_C - whole_C
    for value in np.unique(remainder_C)[::-1]:
        if left <= 0:
            break
        (those,) = np.where(remainder_C == value)
        chosen = rng.choice(those, size=min(len(those), left), replace=False)
        whole_C[chosen] += 1
        left -= len(chosen)
    found_C: NDArray[np.intp] = whole_C.astype(np.intp)
    return found_C
