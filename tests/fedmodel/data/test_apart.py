"""Who is held out is whom scikit-learn's own function takes, for the same seed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from fedmodel.data.apart import held_apart
from fedmodel.errors import DataError


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("share", [0.2, 0.37, 0.5])
@pytest.mark.parametrize("classes", [None, 2, 7])
def test_the_parts_are_scikit_learns(seed: int, share: float, classes: int | None) -> None:
    rng = np.random.default_rng(seed)
    persons = int(rng.integers(40, 90))
    label_P = None
    if classes is not None:  # of unequal frequency, with gaps between labels
        label_P = 3 * rng.choice(classes, persons, p=rng.dirichlet(np.full(classes, 4.0)))
        label_P[: 2 * classes] = 3 * np.repeat(np.arange(classes), 2)
    found = held_apart(label_P, persons, share, seed)
    wanted = train_test_split(np.arange(persons), test_size=share, stratify=label_P, random_state=seed)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("label_P", "share", "told"),
    [
        ([0, 0, 0, 0, 1], 0.4, "one person has label 1"),
        ([0, 0, 1, 1, 2, 2], 0.2, "the smaller part has 2 persons, and needs 3"),
        ([0, 0, 1, 1, 2, 2], 0.9, "the smaller part has 0 persons"),
    ],
)
def test_a_part_without_some_label_is_refused(label_P: list[int], share: float, told: str) -> None:
    with pytest.raises(DataError, match=told):
        held_apart(np.array(label_P), len(label_P), share, 0)
    with pytest.raises(ValueError, match=r"class|empty|train_size|test_size"):
        train_test_split(range(len(label_P)), test_size=share, stratify=label_P, random_state=0)


def test_a_part_without_anybody_is_refused() -> None:
    with pytest.raises(DataError, match="leaves a part without every label"):
        held_apart(None, 4, 0.9, 0)


def test_digits_are_dealt_and_measured_without_scikit_learn() -> None:
    words = (
        "import sys; from fedmodel.config import read_scenario; from fedmodel.data import held_out_records;"
        " from fedmodel.learning.tasks import task_of; import numpy as np;"
        " scenario = read_scenario('digits'); apart = held_out_records(scenario);"
        " task = task_of(scenario.data.shape);"
        " [task.figure(name) for name in task.default]; print('sklearn' in sys.modules, len(apart.y_N))"
    )
    found = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert found.stdout == "False 360\n"
