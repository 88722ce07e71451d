"""Recurrent layers taken apart: they compute what torch does, and each record's gradient is autograd's of it alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.errors import PrivacyError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.choosing import chosen
from fedmodel.learning.gradients import KINDS
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.gradients.layers import _recurrent
from fedmodel.learning.preflight import preflight
from fedmodel.learning.refusals import check_module
from tests.fedmodel.learning.test_dp_sgd import make

STEPS, SIZE, UNITS, ROWS = 7, 4, 3, 8
UNIT = 2.0**-60  # so fine that sums on it are gradients


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output, target, reduction="none")


class Sequences(nn.Module):
    """A recurrent layer, read at its last step and in its last states; begun from a learnt state where asked."""

    def __init__(self, of: type[nn.RNNBase], *, begun: bool = False, **how: Any) -> None:
        super().__init__()
        self.cells = of(SIZE, UNITS, **{"batch_first": True} | how)
        self.begin = nn.Linear(SIZE, UNITS) if begun else None
        self.out = nn.Linear(self.read(torch.zeros(1, STEPS, SIZE)).shape[1], 2)

    def read(self, x: Tensor) -> Tensor:
        hx: Any = None
        if self.begin is not None:
            layers = self.cells.num_layers * (2 if self.cells.bidirectional else 1)
            hx = self.begin(x[:, 0]).expand(layers, -1, -1)
            hx = (hx, torch.tanh(hx)) if isinstance(self.cells, nn.LSTM) else hx
        output, last = self.cells(x if self.cells.batch_first else x.transpose(0, 1), hx)
        ends = output[:, -1] if self.cells.batch_first else output[-1]
        states = last if isinstance(last, tuple) else (last,)
        return torch.cat([ends, *(one[0] for one in states)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.read(x))  # type: ignore[no-any-return]


class Cells(nn.Module):
    """A cell that is called once for each step."""

    def __init__(self, of: type[nn.RNNCellBase], **how: Any) -> None:
        super().__init__()
        self.cell, self.out = of(SIZE, UNITS, **how), nn.Linear(UNITS, 2)

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.out(state[0] if isinstance(state, tuple) else state)  # type: ignore[no-any-return]


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.out = nn.LSTM(SIZE, UNITS, batch_first=True), nn.Linear(UNITS, 2)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.full((len(x),), x.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.out(self.cells(packed)[1][0][-1])  # type: ignore[no-any-return]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "RNN": partial(Sequences, nn.RNN),
    "RNN of relu, two layers": partial(Sequences, nn.RNN, nonlinearity="relu", num_layers=2),
    "GRU": partial(Sequences, nn.GRU),
    "GRU both ways, steps first": partial(Sequences, nn.GRU, bidirectional=True, batch_first=False),
    "GRU begun, no bias": partial(Sequences, nn.GRU, begun=True, bias=False),
    "LSTM": partial(Sequences, nn.LSTM),
    "LSTM, two layers both ways": partial(Sequences, nn.LSTM, num_layers=2, bidirectional=True),
    "LSTM steps first, begun": partial(Sequences, nn.LSTM, batch_first=False, begun=True),
    "LSTM shortened": partial(Sequences, nn.LSTM, proj_size=2, num_layers=2, bidirectional=True),
    "RNNCell": partial(Cells, nn.RNNCell, nonlinearity="relu"),
    "GRUCell": partial(Cells, nn.GRUCell, bias=False),
    "LSTMCell": partial(Cells, nn.LSTMCell),
}
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
each_model = pytest.mark.parametrize("name", MODELS)


def records() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(5, STEPS, SIZE, generator=generator), torch.tensor([0, 1, 1, 0, 1])


@each_model
def test_each_records_gradient_is_what_autograd_gives_of_it_alone(name: str) -> None:
    torch.manual_seed(1)
    module = MODELS[name]()
    x, y = records()
    ours = BookKeeping(copy.deepcopy(module), cross_entropy, max_grad_norm=math.inf, unit=UNIT, rows=ROWS)
    clipped = BookKeeping(copy.deepcopy(module), cross_entropy, max_grad_norm=0.05, unit=UNIT, rows=ROWS)
    total = torch.zeros(())
    for place in range(len(x)):
        loss = cross_entropy(module(x[place : place + 1]), y[place : place + 1]).sum()
        own = torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(module.parameters()))])
        assert torch.allclose(ours.flat(x[place : place + 1], y[place : place + 1]).float(), own, atol=1e-6)
        total = total + own * min(1.0, clipped.clip / float(own.norm()))
    assert torch.allclose(clipped.flat(x, y).float(), total, atol=1e-6)


@each_model
def test_a_layer_computes_what_torch_does_and_is_torchs_again_afterwards(name: str) -> None:
    torch.manual_seed(2)
    module = MODELS[name]()
    x, y = records()
    ours = BookKeeping(module, cross_entropy, max_grad_norm=1.0, unit=UNIT, rows=len(x))
    expected = module(x)
    with ours._recorder.recording(len(x)) as passed:
        found = module(x)
    assert passed.calls
    assert torch.allclose(found, expected, atol=1e-6)
    ours.add(x, y)
    assert not any("forward" in vars(layer) for layer in module.modules())


def test_a_frozen_layer_stays_torchs() -> None:
    module = nn.Sequential(nn.GRU(SIZE, UNITS).requires_grad_(False), nn.Linear(UNITS, 2))
    assert not _recurrent.is_taken_apart(module[0])


def test_a_recurrent_model_is_checked_and_moves_a_sum_by_no_more_than_the_clip() -> None:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return MODELS["GRU"]()

    shape = DataShape((STEPS, SIZE), 2)
    assert chosen(build, cross_entropy, shape).name == "book-keeping"
    check_module(build, cross_entropy, shape, None)
    gradients = make(build(0), losses=cross_entropy, denominator=ROWS, gradients_kind="book-keeping").gradients
    assert preflight(gradients, shape, 1.0) == gradients.rows


@each_model
def test_torchs_transforms_take_recurrent_layers_too(name: str) -> None:
    torch.manual_seed(1)
    module = MODELS[name]()
    x, y = records()
    book_keeping, functional_ = (
        KINDS[kind](copy.deepcopy(module), cross_entropy, max_grad_norm=0.05, unit=UNIT, rows=ROWS).flat(x, y)
        for kind in ("book-keeping", "functional")
    )
    assert float((book_keeping - functional_).norm()) <= 1e-3 * float(functional_.norm())


@pytest.mark.parametrize("kind", ["book-keeping", "functional"])
def test_packed_sequences_are_refused_in_one_line_with_what_to_do(kind: str) -> None:
    words = (
        r"'cells' \(LSTM\) was given a PackedSequence.*give it padded sequences.*, or set training.gradients = \"one"
    )
    with pytest.raises(PrivacyError, match=words) as refused:
        check_module(lambda _: Packed(), cross_entropy, DataShape((STEPS, SIZE), 2), KINDS[kind])
    assert "\n" not in str(refused.value)
    check_module(lambda _: Packed(), cross_entropy, DataShape((STEPS, SIZE), 2), KINDS["one-by-one"])
