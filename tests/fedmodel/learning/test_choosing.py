"""The kind of gradients that a scenario leaves to choice: the first that is right, and why not those before it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Never

import pytest
import torch
from torch import Tensor, nn

from fedmodel.config import read_scenario
from fedmodel.kinds.shape import DataShape
from fedmodel.learning import choosing
from fedmodel.learning.gradients import kind
from fedmodel.learning.jobs import _pipelines
from fedmodel.learning.tasks.classification import cross_entropy
from tests.fedmodel.learning.gradients.test_one_by_one import Asking, Gated
from tests.fedmodel.learning.test_dp_sgd import FLAT
from tests.fedmodel.learning.test_refusals import HalfBlind, Outside, Recurrent, Scaled, plain, shared


class Squared(nn.Module):
    """A parameter of the model's own, in a use that has no row for each record."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.out = nn.Parameter(torch.ones(6)), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x * self.scale.square())  # type: ignore[no-any-return]


class StepsFirst(nn.Module):
    """A layer that is given the steps of sequences first, and records after them."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(1, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.into(x.T[:, :, None]).mean(dim=0))  # type: ignore[no-any-return]


class Paired(nn.Module):
    """A layer of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.Bilinear(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pair(x, x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("make", "name", "why"),
    [
        (plain, "book-keeping", []),
        (shared, "book-keeping", []),
        (HalfBlind, "book-keeping", []),
        (partial(Scaled, False), "book-keeping", []),
        (Recurrent, "book-keeping", []),
        (Gated, "book-keeping", []),
        (Squared, "hooks", ["is used outside of a layer by"]),
        (Paired, "functional", ["has not one tensor in and one out", "cannot be computed"]),
        (Asking, "one-by-one", ["", "", "cannot be computed"]),
        (Outside, "functional", ["do not add up to the batch's", "do not add up to the batch's"]),
    ],
)
def test_the_first_kind_whose_gradients_are_right_is_taken(
    make: Callable[[], nn.Module], name: str, why: list[str]
) -> None:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return make()

    with torch.random.fork_rng():
        found = choosing.chosen(build, cross_entropy, FLAT)
    assert (found.name, found.of) == (name, kind(name))
    assert [reason.split(":")[0] for reason in found.why] == ["book-keeping", "hooks", "functional"][: len(why)]
    for words, reason in zip(why, found.why, strict=True):
        assert any(one in reason for one in words.split("|"))


@pytest.mark.parametrize("steps", [4, 5, 6, 7, 8])
def test_a_sequence_that_goes_first_is_not_taken_for_records_whatever_its_length(steps: int) -> None:
    """Sums over as many steps as there are records are the batch's too."""
    found = choosing.chosen(lambda _: StepsFirst(), cross_entropy, DataShape((steps,), 2))
    assert found.name == "functional"
    assert found.why[0].startswith(f"book-keeping: the layer 'into' (Linear) was given ({steps}, ")


@pytest.mark.parametrize("where", ["records'", "the batch's"])
@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory: 9 bytes")],
)
def test_memory_that_runs_out_says_nothing_of_a_kind(
    error: Exception, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another kind would be chosen at one party than at the others."""

    def run_out(*_: object, **__: object) -> Never:
        raise error

    if where == "records'":
        monkeypatch.setattr(kind("book-keeping"), "flat", run_out)
    else:
        monkeypatch.setattr(torch.autograd, "grad", run_out)
    with torch.random.fork_rng(), pytest.raises(type(error)) as caught:
        choosing.chosen(lambda _: plain(), cross_entropy, FLAT)
    assert caught.value is error


def test_a_choice_is_said_and_made_once(caplog: pytest.LogCaptureFixture) -> None:
    _pipelines.forget_pipelines()
    scenario = read_scenario("quickstart")
    with caplog.at_level(logging.INFO):
        first, second = (choosing.of_scenario(scenario, torch.device("cpu")) for _ in range(2))
    assert first is second is kind("book-keeping")
    assert [line for line in caplog.messages if "auto" in line] == ['gradients = "auto" is book-keeping']
    assert choosing.of_scenario(
        read_scenario("quickstart", ["training.gradients=functional"]), torch.device("cpu")
    ) is (kind("functional"))
