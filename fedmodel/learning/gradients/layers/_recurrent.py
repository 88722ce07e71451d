"""Torch's recurrent layers, taken apart while records pass: linear layers around gates that have no parameters.

Torch computes a whole sequence in one function, within which no state is seen. While records pass it is computed here,
one step after the other, from the same parameters and by the same equations: those of Elman's network, of a gated unit
(Cho et al. 2014) and of long short-term memory (Hochreiter and Schmidhuber 1997), as torch documents them. What goes
into each product is noted, so that a record's steps are so many positions of two linear layers.

Does NOT take packed sequences, of which rows are not records: they are refused by the layer's name. Does NOT take
`nn.LSTM` and others that a class was derived from.

Shapes: B rows of a physical batch, T steps, d inputs, H units, S what a layer's products give: one, three or four H.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.errors import PrivacyError
from fedmodel.learning.advice import ONE_BY_ONE
from fedmodel.learning.gradients.layers._linear import Note, noted

_Cell = nn.RNNCell | nn.GRUCell | nn.LSTMCell
_SEQUENCES: Final = (nn.RNN, nn.GRU, nn.LSTM)
_CELLS: Final = (nn.RNNCell, nn.GRUCell, nn.LSTMCell)
_State = Tensor | tuple[Tensor, ...] | None
_Gates = Callable[[Tensor, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""From what a step's input and its state gave, and the state, to the next state, what comes out of it first."""


def is_recurrent(layer: nn.Module) -> bool:
    """Tell whether a layer is one that can be computed here."""
    return type(layer) in (*_SEQUENCES, *_CELLS)


def is_taken_apart(layer: nn.Module) -> bool:
    """Tell whether a layer is one that is computed here, and has something to train."""
    return is_recurrent(layer) and any(one.requires_grad for one in layer.parameters())


@contextmanager
def step_by_step(module: nn.Module) -> Iterator[None]:
    """Compute recurrent layers here meanwhile, of which nothing is noted: torch's transforms fail on its own."""
    layers = [(name, layer) for name, layer in module.named_modules() if is_recurrent(layer)]
    try:
        for name, layer in layers:
            layer.forward = partial(recur, name, layer, lambda *_: None)
        yield
    finally:
        for _, layer in layers:
            vars(layer).pop("forward", None)


def recur(name: str, layer: nn.Module, note: Note, given: Tensor, hx: _State = None) -> object:
    """Return what the layer's own `forward` does, with the same arguments.

    Raises:
        PrivacyError: When records have no dimension of their own.
    """
    if not isinstance(given, Tensor) or given.dim() != (2 if isinstance(layer, _Cell) else 3):
        found = f"tensor of {given.dim()} dimensions" if isinstance(given, Tensor) else type(given).__name__
        raise PrivacyError(
            f"the layer {name!r} ({type(layer).__name__}) was given a {found}, of which no dimension is that of"
            " records; give it padded sequences of all records, and take what came out at each one's last step, or"
            f" {ONE_BY_ONE}"
        )
    if isinstance(layer, _Cell):
        return _of_cell(layer, note, given, hx)
    assert isinstance(layer, nn.RNNBase)  # noqa: S101 - as `is_taken_apart` has it
    return _of_layers(layer, note, given, hx)


def _of_cell(layer: _Cell, note: Note, given_Bd: Tensor, hx: _State) -> object:
    """Return the state after one step."""
    one = given_Bd.new_zeros(len(given_Bd), layer.hidden_size)
    state = (one, one) if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
    input_BS = noted(note, layer.weight_ih, layer.bias_ih, given_Bd)
    state_BS = noted(note, layer.weight_hh, layer.bias_hh, state[0])
    new = _gates(layer)(input_BS, state_BS, state)
    return new if isinstance(layer, nn.LSTMCell) else new[0]


def _of_layers(layer: nn.RNNBase, note: Note, given: Tensor, hx: _State) -> object:
    """Return what comes out at each step, and the states after the last."""
    x_BTd = given if layer.batch_first else given.transpose(0, 1)
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    starts = None if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
    last: list[tuple[Tensor, ...]] = []
    for number in range(layer.num_layers):
        if number and layer.dropout:
            x_BTd = functional.dropout(x_BTd, layer.dropout, layer.training)
        outputs = []
        for direction in directions:
            start = _zeros(layer, x_BTd) if starts is None else tuple(one[len(last)] for one in starts)
            output_BTH, state = _of_direction(layer, note, f"_l{number}{direction}", x_BTd, start)
            outputs.append(output_BTH)
            last.append(state)
        x_BTd = torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]
    after = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
    return x_BTd if layer.batch_first else x_BTd.transpose(0, 1), after if isinstance(layer, nn.LSTM) else after[0]


def _of_direction(
    layer: nn.RNNBase, note: Note, ending: str, x_BTd: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return what comes out of one layer in one direction, at each step, and the state after the last."""
    of_input, of_state = (
        (getattr(layer, f"weight_{which}{ending}"), getattr(layer, f"bias_{which}{ending}", None))
        for which in ("ih", "hh")
    )
    gates, shorter = _gates(layer), getattr(layer, f"weight_hr{ending}", None)
    input_BTS, found = noted(note, *of_input, x_BTd), []
    steps = range(x_BTd.shape[1])
    for step in reversed(steps) if ending.endswith("reverse") else steps:
        state = gates(input_BTS[:, step], noted(note, *of_state, state[0]), state)
        if shorter is not None:
            state = (noted(note, shorter, None, state[0]), *state[1:])
        found.append(state[0])
    return torch.stack(found[::-1] if ending.endswith("reverse") else found, dim=1), state


def _zeros(layer: nn.RNNBase, x_BTd: Tensor) -> tuple[Tensor, ...]:
    """Return the state before the first step."""
    sizes = (layer.proj_size or layer.hidden_size, layer.hidden_size)
    return tuple(x_BTd.new_zeros(len(x_BTd), size) for size in sizes[: 2 if isinstance(layer, nn.LSTM) else 1])


def _gates(layer: nn.Module) -> _Gates:
    """Return the equations of a layer's step."""
    if isinstance(layer, nn.LSTM | nn.LSTMCell):
        return _long_short_term
    if isinstance(layer, nn.GRU | nn.GRUCell):
        return _gated
    return partial(_elman, torch.relu if layer.nonlinearity == "relu" else torch.tanh)


def _elman(
    bent: Callable[[Tensor], Tensor], input_BS: Tensor, state_BS: Tensor, _: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    return (bent(input_BS + state_BS),)


def _gated(input_BS: Tensor, state_BS: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    reset, update, new = input_BS.chunk(3, dim=1)
    of_reset, of_update, of_new = state_BS.chunk(3, dim=1)
    kept = torch.sigmoid(update + of_update)
    new = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
    return (new + kept * (state[0] - new),)


def _long_short_term(input_BS: Tensor, state_BS: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    into, forget, cell, out = (input_BS + state_BS).chunk(4, dim=1)
    cell_BH = torch.sigmoid(forget) * state[1] + torch.sigmoid(into) * torch.tanh(cell)
    return torch.sigmoid(out) * torch.tanh(cell_BH), cell_BH
