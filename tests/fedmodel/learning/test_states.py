"""A loss of a user's own that keeps something is refused by its name, and by where it keeps it."""

from __future__ import annotations

import logging
import random
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fedmodel as fm
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import PrivacyError
from fedmodel.kinds import own_code
from fedmodel.learning.refusals import check_model
from fedmodel.learning.states import changed, state_of

CPU = torch.device("cpu")
seen: list[float] = []
log = logging.getLogger("tests.losses")
rng = np.random.default_rng(1)
WEIGHTS = {"all": torch.tensor([2.0])}


def each(output: Tensor, target: Tensor) -> Tensor:
    return (output[:, 0] - target) ** 2


class Centred(nn.Module):
    """Whose losses are those beyond a mean that runs along."""

    running: Tensor

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("running", torch.zeros(()))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        found = each(output, target)
        self.running += self.rate * (found.mean().detach() - self.running)
        return found


class Counting:
    """Which counts its calls, in itself or in its class."""

    calls: ClassVar[int] = 0

    def __init__(self, *, in_class: bool) -> None:
        self.own, self.in_class = 0, in_class

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        if self.in_class:
            type(self).calls += 1
        else:
            self.own += 1
        return each(output, target)


class Slotted:
    __slots__ = ("last",)

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.last = target
        return each(output, target)


def closing() -> Callable[..., Tensor]:
    largest = 0.0

    def loss(output: Tensor, target: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, float(each(output, target).max()))
        return each(output, target)

    return loss


def of_a_list(output: Tensor, target: Tensor) -> Tensor:
    seen.append(float(target[0]))
    return each(output, target)


def of_a_list_further_down(output: Tensor, target: Tensor) -> Tensor:
    return of_a_list(output, target)


def of_a_default(output: Tensor, target: Tensor, kept: dict[str, Tensor] = {}) -> Tensor:  # noqa: B006 - as users do
    kept["last"] = output.detach()
    return each(output, target)


def noted(output: Tensor, target: Tensor) -> Tensor:
    noted.last = output.detach()  # type: ignore[attr-defined]
    return each(output, target)


def drawing(output: Tensor, target: Tensor) -> Tensor:
    rng.normal()
    return each(output, target)


def at_random(output: Tensor, target: Tensor) -> Tensor:
    return each(output, target) * torch.rand(len(target))


def turning(turns: Iterator[int], output: Tensor, target: Tensor) -> Tensor:
    return each(output, target) * (1 + next(turns) % 2)


KEEPING: list[tuple[Callable[..., Any], str]] = [
    (partial(Centred()), "keeps 'running' and changes it as it is called"),
    (Centred().forward, "keeps 'running' and"),
    (partial(nn.Sequential(Centred())[0].forward), "keeps 'running' and"),
    (Counting(in_class=False), "keeps 'own' and"),
    (Counting(in_class=True), "keeps 'calls' and"),
    (Slotted(), "keeps 'last' and"),
    (closing(), "keeps 'largest' and"),
    (of_a_list, "keeps 'seen.*' and"),
    (of_a_list_further_down, r"keeps 'of_a_list\.seen.*' and"),
    (of_a_default, "keeps 'a default.*' and"),
    (noted, "keeps 'last' and"),
    (drawing, "keeps 'rng' and"),
    (at_random, "gave other losses of the same records when it was asked again, so that it draws at random or keeps"),
    (partial(turning, count()), "gave other losses of the same records"),  # of whose place Python shows nothing
]


class Weighed(nn.Module):
    """A loss with constants in it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([0.5]))
        self.table = np.arange(3.0)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        log.debug("asked %s", self.table)
        return self.weight * WEIGHTS["all"] * each(output, target)  # type: ignore[no-any-return]


class Kept(Weighed):
    """Which writes what is there already."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        self.weight = self.weight.to(output.device).clone()
        self.table = np.arange(3.0)
        return each(output, target)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    own_code.close()
    seen.clear()
    vars(noted).clear()


def scenario(loss: Callable[..., Any]) -> Scenario:
    own_code.hand_over("script:loss", loss)
    return read_scenario("quickstart", ["training.loss=script:loss"])


@pytest.mark.parametrize(("loss", "words"), KEEPING, ids=[words[:30] for _, words in KEEPING])
def test_a_loss_that_keeps_something_is_refused_by_its_name(loss: Callable[..., Any], words: str) -> None:
    with pytest.raises(PrivacyError, match=f"^training.loss = 'script:loss' {words}") as refused:
        check_model(scenario(loss), CPU)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("loss", [each, partial(Weighed()), Kept().forward, lambda o, t: each(o, t)])
def test_a_loss_that_keeps_nothing_else_than_before_is_taken(loss: Callable[..., Any]) -> None:
    check_model(scenario(loss), CPU)


def test_it_is_refused_from_a_script_before_a_folder_is_there(tmp_path: Path) -> None:
    x, y = torch.randn(90, 3), torch.randn(90)
    with pytest.raises(PrivacyError, match=r"^training\.loss = 'script:Centred' keeps 'running'") as refused:
        fm.simulate(
            model=lambda: nn.Linear(3, 1), train=(x, y), task="regression", target_range=(-3, 3), silos=3, rounds=1,
            epsilon=8, delta=1e-4, max_grad_norm=1.0, sample_rate=0.5, loss=Centred(), out=tmp_path / "run",
        )  # fmt: skip
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held.update(a=2),
        lambda held: held["list"].append(1),
        lambda held: held["set"].add("b"),
        lambda held: (held["pairs"].remove((1, ("a",))), held["pairs"].add((2, ("a",)))),
        lambda held: held["bytes"].__setitem__(0, 1),
        lambda held: held["numbers"].__setitem__(0, 1.0),
        lambda held: held["tensor"].mul_(2),
        lambda held: held.update(tensor=torch.ones(1, 2)),
        lambda held: held["strided"].t_(),
        lambda held: held["array"].__setitem__(0, 5),
        lambda held: held["objects"].__setitem__(0, 5),
        lambda held: held["random"].random(),
        lambda held: held["generator"].manual_seed(3),
        lambda held: held["nothing"].update(x=None),
        lambda held: held.update(itself=None),
    ],
)
def test_whatever_is_changed_is_found(change: Callable[[dict[str, Any]], object]) -> None:
    held: dict[str, Any] = {
        "a": 1,
        "list": [],
        "set": {"a"},
        "pairs": {(1, ("a",))},
        "bytes": bytearray(3),
        "numbers": array("d", [0.0]),
        "tensor": torch.ones(2),
        "strided": torch.arange(4.0).view(2, 2),
        "array": np.zeros(3),
        "objects": np.array([None, "x"], dtype=object),
        "random": random.Random(1),  # noqa: S311 - which a loss may hold
        "generator": torch.Generator().manual_seed(1),
        "nothing": {},
        "many": (torch.zeros(2, dtype=torch.bool), torch.zeros((), device="meta"), torch.eye(2).to_sparse(), 1j),
    }
    held["itself"] = held
    before = state_of(held)
    assert changed(before, state_of(held)) is None
    change(held)
    assert changed(before, state_of(held)) is not None
