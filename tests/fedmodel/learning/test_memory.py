"""How many records are in memory at once is computed from a probe, and holds."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from fedmodel import plans
from fedmodel.config import Scenario, read_scenario
from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds import own_code
from fedmodel.kinds.models.own import OwnConfig
from fedmodel.kinds.shape import DataShape
from fedmodel.learning import memory
from fedmodel.learning.gradients import ClippedSum, kind, physical_batch
from fedmodel.learning.jobs import Question, Site, _pipelines, training
from fedmodel.learning.memory import held_at_most, most_rows, said_if_it_runs_out
from fedmodel.learning.refusals import check_model
from fedmodel.learning.tasks import objective

SHAPE = DataShape((60,), 10)
CPU = torch.device("cpu")


def wide(name: str = "per-sample", rows: int = 32) -> ClippedSum:
    """Return a pipeline whose records need tens of kilobytes each."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(60, 20), nn.ReLU(), nn.Linear(20, 10))
    losses = objective(SHAPE, "cross-entropy").losses
    return kind(name)(module, losses, max_grad_norm=1.0, unit=2.0**-30, rows=rows)


def test_held_at_most_counts_what_was_held_at_once() -> None:
    def act() -> None:
        for _ in range(3):  # one after the other
            one = torch.zeros(1_000_000)
            del one
        two = [torch.zeros(1_000_000), torch.zeros(500_000)]
        del two

    assert 6e6 <= held_at_most(CPU, act) < 6.1e6


@pytest.mark.parametrize("name", ["per-sample", "functional"])
def test_a_lot_of_4096_goes_through_where_little_is_free(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is held at most, which is less than is free; the next larger batch would take half of it, or nearly."""
    free = 8_000_000
    monkeypatch.setattr(memory, "free", lambda _: free)
    gradients = wide(name)
    x_N, y_N = torch.randn(4_096, 60), torch.randint(10, (4_096,))
    gradients.rows = physical_batch(4_096, most_rows(gradients, SHAPE))
    assert 16 <= gradients.rows <= 2_048
    assert held_at_most(CPU, lambda: gradients.of(x_N, y_N, np.arange(4_096))) < free
    gradients.rows *= 2
    assert held_at_most(CPU, lambda: gradients.of(x_N, y_N, np.arange(gradients.rows))) > 0.9 * free / 2


def test_it_is_said_and_changes_nothing_of_the_pipeline(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gradients = wide(rows=7)
    before = [one.detach().clone() for one in gradients.parameters]
    monkeypatch.setattr(memory, "free", lambda _: 1_000_000_000)
    with caplog.at_level(logging.INFO, logger="fedmodel.learning.memory"):
        found = most_rows(gradients, SHAPE)
    assert f"up to {found} of them are in memory at once" in caplog.text
    assert gradients.rows == 7
    assert all(torch.equal(*both) for both in zip(before, gradients.parameters, strict=True))
    assert all(float(sum_.abs().max()) == 0 for sum_ in gradients.take())


@pytest.mark.parametrize("free", [0, 1_000])
def test_where_not_one_record_fits_it_is_said(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free", lambda _: free)
    with pytest.raises(ConfigError, match=r"one record needs \d+ MB on cpu, and half of what is free there is 0 MB"):
        most_rows(wide(), SHAPE)


def test_what_is_free_of_a_processor_is_what_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 17)
    assert memory.free(CPU) == 17


@pytest.mark.parametrize(
    ("most", "lower"), [(512, 'less than 512, or "auto"'), ("auto", "a number, as 64: what was free is not any more")]
)
def test_where_memory_runs_out_one_line_names_the_key(most: int | str, lower: str) -> None:
    def really() -> None:
        torch.empty(2**55)

    def card() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    def python() -> None:
        raise MemoryError

    for runs_out in (really, card, python):
        with pytest.raises(DataError) as caught, said_if_it_runs_out(most, DataError):
            runs_out()
        assert str(caught.value) == (
            f"memory ran out; set training.max_physical_batch to {lower}, or train on another device"
        )


def test_another_error_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="a layer's own"), said_if_it_runs_out(512, DataError):
        raise RuntimeError("a layer's own")


@pytest.mark.gpu
def test_a_lot_goes_through_on_a_card_whose_memory_is_nearly_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda", 0)
    gradients = wide()
    gradients.module.to(card)
    x_N, y_N = torch.randn(4_096, 60, device=card), torch.randint(10, (4_096,), device=card)
    room = 8_000_000
    monkeypatch.setattr(memory, "free", lambda _: room)
    gradients.rows = physical_batch(4_096, most_rows(gradients, SHAPE))
    assert held_at_most(card, lambda: gradients.of(x_N, y_N, np.arange(4_096))) < room


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    MemoryError(),
]


class Asks(nn.Module):
    """A network, or a loss, that asks for more than there is where more than so many records come."""

    def __init__(self, error: Exception, above: int) -> None:
        super().__init__()
        self.layer, self.error, self.above = nn.Linear(10, 1), error, above

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.above:
            raise self.error
        return self.layer(x)  # type: ignore[no-any-return]

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (self(torch.zeros(len(output), 10))[:, 0].detach() * 0 + output[:, 0] - target) ** 2


@pytest.fixture
def scenario() -> Iterator[Callable[..., Scenario]]:
    """A scenario whose model, or loss, asks for too much."""

    def made(error: Exception, part: str, above: int) -> Scenario:
        own_code.hand_over("script:net", partial(copy.deepcopy, Asks(error, above)))
        own_code.hand_over("script:loss", Asks(error, above).loss)
        found = read_scenario("quickstart", ["training.loss=script:loss"] if part == "loss" else ())
        model = OwnConfig(kind="own", use="script:net")
        return found if part == "loss" else found.model_copy(update={"model": model})

    yield made
    own_code.close()
    _pipelines.forget_pipelines()


@pytest.mark.parametrize("error", ERRORS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("part", ["loss", "model"])
def test_a_model_that_does_not_fit_at_all_is_said_not_to_and_is_not_called_wrong(
    error: Exception, part: str, scenario: Callable[..., Scenario]
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_model(scenario(error, part, above=2), CPU)
    assert str(refused.value) == (
        "memory ran out on cpu at 5 made-up records, which no training.max_physical_batch makes fewer; take a smaller"
        " model, end other programs, or train on another device"
    )


@pytest.mark.parametrize("error", ERRORS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("part", ["loss", "model"])
def test_memory_that_runs_out_in_a_step_is_one_line_before_and_after_the_charge(
    error: Exception, part: str, scenario: Callable[..., Scenario]
) -> None:
    found = scenario(error, part, above=20)
    silo = found.federation.silos[0]
    event = plans.planned_event(found.plan(silo))
    answering = training.Answering(Site(silo, found, "cpu", simulated=True))
    question = Question(1, np.zeros(11, np.float32))
    line = 'memory ran out; set training.max_physical_batch to less than 512, or "auto", or train on another device'
    with pytest.raises(ConfigError) as before:
        answering.check(question, event)
    with pytest.raises(DataError) as after:
        answering.answer(question, lambda: pytest.fail("records were read"), event, {})
    assert str(before.value) == str(after.value) == line


def test_a_factory_that_asks_for_too_much_is_said_to() -> None:
    def net() -> nn.Module:
        raise MemoryError

    own_code.hand_over("script:net", net)
    with pytest.raises(ConfigError, match=r"^model.use = 'script:net' needs more memory than there is here: Mem"):
        OwnConfig(kind="own", use="script:net").build(SHAPE)
    own_code.close()
