"""A model is the same after a physical batch as before it, whatever branch its records reached."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmodel.errors import PrivacyError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning import vectors
from fedmodel.learning.gradients import KINDS, ClippedSum
from fedmodel.learning.keeping import Kept, undone
from fedmodel.learning.preflight import check_received, preflight
from tests.fedmodel.learning.test_dp_sgd import FLAT, clipped, make

RARE = 2.0**40  # of a feature: no made-up record has it, as it is between the sizes that are tried


class Hiding(nn.Module):
    """Holds something wherever a model can, and changes all of it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 1)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("buffer", torch.ones(2))
        self.plain, self.array, self.count = torch.ones(2), np.ones(2), 0
        self.listed: list[Any] = [torch.ones(2), {"deep": (torch.ones(2), deque([1]), {1})}]
        self.hidden = [nn.Linear(1, 1)]

    def change_all(self) -> None:
        with torch.no_grad():
            for one in (self.layer.weight, self.frozen, self.plain, self.listed[0]):
                one.mul_(3.0)
        self.layer.bias.data = torch.zeros(1)
        self.buffer, self.new = torch.zeros(2), torch.zeros(2)
        self.count += 1
        self.listed.append(1)

    def change(self) -> None:
        inner: Any = self.listed[1]["deep"]
        with torch.no_grad():
            for one in (self.layer.weight, self.frozen, self.plain, self.listed[0], inner[0], self.hidden[0].weight):
                one.mul_(3.0)
        self.layer.bias = nn.Parameter(torch.full((1,), 7.0))
        self.buffer, self.new = torch.zeros(2), torch.zeros(2)
        self.array *= 3
        self.count += 1
        self.listed.append(1)
        inner[1].append(2)
        inner[2].add(2)


def held(module: Hiding) -> list[object]:
    inner: Any = module.listed[1]["deep"]
    found = [*module.parameters(), module.buffer, module.plain, module.listed[0], inner[0], module.hidden[0].weight]
    return [
        *(one.tolist() for one in found),
        module.array.tolist(),
        (module.count, len(module.listed), list(inner[1]), inner[2]),
        sorted(vars(module)),
    ]


def test_all_that_a_model_holds_is_put_back_the_same_parameter_in_its_place() -> None:
    module = Hiding()
    before, bias = held(module), module.layer.bias
    with undone(module):
        module.change()
        assert not [one for one, was in zip(held(module), before, strict=True) if one == was]
    assert held(module) == before
    assert module.layer.bias is bias


def test_what_is_kept_again_is_what_the_model_holds_by_then() -> None:
    """Whatever changed in between, its values or what it is built of; and a model is put back each time."""
    module = Hiding()
    module.array = 0  # type: ignore[assignment]  # of which all is copied anew each time
    kept = Kept(module)

    def steps() -> None:
        module.layer.weight.data.add_(1.0)

    def built() -> None:
        module.more, module.listed = torch.ones(3), [*module.listed, torch.zeros(1)]

    def stored() -> None:
        module.layer.weight.data = torch.full((1, 6), 5.0)

    for between in (steps, built, stored, steps):
        between()
        module.plain[0] += 1
        before = held_by(module)
        with undone(module, kept=kept):
            module.change_all()
            assert held_by(module) != before
        assert held_by(module) == before
        with pytest.raises(PrivacyError, match=r"changes 'layer.weight'"), undone(module, refuse=True, kept=kept):
            _written(module)
        assert held_by(module) == before


def held_by(module: Hiding) -> list[object]:
    found = [*module.parameters(), module.buffer, module.plain, module.listed[0]]
    return [[one.tolist() for one in found], module.count, len(module.listed), sorted(vars(module))]


def test_a_model_is_put_back_after_an_exception() -> None:
    module = Hiding()
    before = held(module)
    with pytest.raises(ZeroDivisionError), undone(module):  # noqa: PT012 - the change is what is undone
        module.change()
        raise ZeroDivisionError
    assert held(module) == before


def _scaled(module: Hiding) -> None:
    module.layer.weight.data *= 2.0


def _written(module: Hiding) -> None:
    with torch.no_grad():
        module.layer.weight.mul_(1.0)


def _replaced(module: Hiding) -> None:
    module.layer.weight = nn.Parameter(torch.zeros(1, 6))


class Laid(nn.Module):
    """Holds what can be changed without a value of its memory being another."""

    def __init__(self) -> None:
        super().__init__()
        self.square = nn.Linear(3, 3)
        self.register_buffer("mix", torch.arange(9.0).view(3, 3))
        self.register_buffer("zeros", torch.zeros(3, 3))
        self.register_buffer("wide", torch.ones(1).expand(4))
        self.plain, self.half = torch.arange(6.0).view(2, 3), torch.arange(6.0).view(2, 3)
        self.array = np.arange(6.0).reshape(2, 3)
        self.row = self.array[0]
        self.other = np.arange(6.0).reshape(3, 2).T
        self.objects = np.array([[1.0], None], dtype=object)


def _transposed(module: Laid) -> None:
    with torch.no_grad():
        for one in (module.square.weight, module.mix, module.zeros, module.plain):
            one.t_()


def _read_otherwise(module: Laid) -> None:
    module.square.weight.data = module.square.weight.data.view(9)
    module.mix.data = module.mix.data.view(torch.int32)
    module.half.data = module.half.data[:, :2]


def _freed(module: Laid) -> None:
    module.plain.untyped_storage().resize_(0)
    module.plain = torch.zeros(1)


def _of_overlapping_places(module: Laid) -> None:
    module.wide[0] = 5.0
    module.plain.data = module.plain.data[:1].expand(2, 3)


def _closed(module: Laid) -> None:
    module.array *= 3
    module.other[...] = 0
    for one in (module.row, module.array, module.other):
        one.flags.writeable = False


def _laid_otherwise(module: Laid) -> None:
    module.array.shape = (3, 2)
    module.array[0] = 7.0
    module.other.dtype = np.int64
    module.objects.resize((1,), refcheck=False)


def _strided_otherwise(module: Laid) -> None:
    with pytest.deprecated_call() if np.lib.NumpyVersion(np.__version__) >= "2.4.0" else nullcontext():
        module.array.strides = (8, 8)


def _within_objects(module: Laid) -> None:
    module.objects[0].append(2.0)
    module.objects[1] = 1


def laid(module: Laid) -> list[object]:
    tensors = [module.square.weight, module.mix, module.zeros, module.wide, module.plain, module.half]
    arrays = [module.array, module.row, module.other, module.objects]
    return [(one.tolist(), one.stride(), one.dtype) for one in tensors] + [
        (one.tolist(), one.strides, one.dtype, one.flags.writeable) for one in arrays
    ]


@pytest.mark.filterwarnings("ignore:Setting the (shape|dtype):DeprecationWarning")  # of a numpy to come
@pytest.mark.parametrize(
    "change",
    [
        _transposed,
        _read_otherwise,
        _freed,
        _of_overlapping_places,
        _closed,
        _laid_otherwise,
        _strided_otherwise,
        _within_objects,
    ],
)
def test_how_values_lie_in_memory_is_put_back_too(change: Callable[[Laid], None]) -> None:
    module = Laid()
    before, kept = deepcopy(laid(module)), Kept(module)
    views = module.row
    for _ in range(2):
        with undone(module, kept=kept):
            change(module)
            assert laid(module) != before
        assert laid(module) == before
    module.array[0, 0] = 9.0
    assert module.row is views
    assert views[0] == 9.0


class Slotted(nn.Linear):
    __slots__ = ("_own", "deep", "late", "sign")

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.sign, self.deep, self._own = 1.0, [torch.ones(1)], True


def test_what_a_module_holds_in_slots_is_put_back() -> None:
    module = nn.Sequential(Slotted())
    (layer,), kept = module, Kept(module)
    for _ in range(2):
        with undone(module, kept=kept):
            layer.sign = layer.late = -1.0
            layer.deep[0] *= 3
            layer.deep.append(1)
            del layer._own
        assert (layer.sign, layer.deep, layer._own, hasattr(layer, "late")) == (1.0, [torch.ones(1)], True, False)
        layer.late = 2.0
        with undone(module, kept=kept):
            layer.late = 3.0
        assert layer.late == 2.0
        del layer.late


def test_an_array_that_was_only_read_is_put_back_and_can_still_only_be_read() -> None:
    module = Laid()
    module.array.flags.writeable = False
    module.const = np.frombuffer(bytes(8))  # type: ignore[assignment]
    before = laid(module)
    with undone(module):
        module.array.flags.writeable = True
        module.array += 1
    assert laid(module) == before


@pytest.mark.parametrize("name", ["square.weight", "mix", "zeros"])
def test_a_transpose_in_place_is_named_whatever_the_values(name: str) -> None:
    module = Laid()
    with torch.no_grad(), pytest.raises(PrivacyError, match=rf"changes '{name}'"), undone(module, refuse=True):
        dict([*module.named_parameters(), *module.named_buffers()])[name].t_()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_scaled, "layer.weight"),
        (_written, "layer.weight"),  # to what it was: other records, other values
        (_replaced, "layer.weight"),
        (lambda module: module.frozen.data.add_(1.0), "frozen"),
        (lambda module: module.buffer.add_(1.0), "buffer"),
        (lambda module: setattr(module, "buffer", torch.zeros(2)), "buffer"),
        (lambda module: module.layer(torch.ones(3, 6)), None),
    ],
)
def test_what_was_changed_is_named(change: Callable[[Hiding], object], name: str | None) -> None:
    module = Hiding()
    kept = Kept(module)
    change(module)
    assert kept.changed() == name
    kept.put_back()
    assert kept.changed() == (name if change is _written else None)


class Rarely(nn.Module):
    """Writes where a record is far out, which no made-up one is that is not an outlier."""

    centre: Tensor
    mix: Tensor

    def __init__(self, where: str, least: float = RARE) -> None:
        super().__init__()
        self.where, self.least = where, least
        self.layer = nn.Linear(6, 1)
        self.plain = torch.zeros(6)
        self.register_buffer("centre", torch.zeros(6))
        self.register_buffer("mix", torch.eye(6) + torch.arange(36.0).view(6, 6) / 36)

    def forward(self, x: Tensor) -> Tensor:
        seen = x.detach().abs().max()
        if bool(seen > self.least) and bool(seen < 2 * self.least):
            if self.where == "parameter":
                self.layer.weight.data.clamp_(-1e-3, 1e-3)
            elif self.where == "buffer":
                self.centre += x.detach()[0]
            elif self.where == "order":
                self.mix.t_()
            else:
                self.plain = x.detach()[0]
        return self.layer(x @ self.mix - self.centre - self.plain)  # type: ignore[no-any-return]


def sums(gradients: ClippedSum, x: Tensor) -> Tensor:
    lot = np.arange(len(x))
    return torch.cat([one.flatten() for one in gradients.of(x, torch.ones(len(x), dtype=torch.int64), lot)])


@pytest.mark.parametrize("where", ["parameter", "buffer", "order", "plain"])
def test_a_branch_that_only_real_records_reach_leaves_nothing_and_says_nothing(where: str) -> None:
    """The update is the released steps alone, and what one batch left moves no record of another."""
    torch.manual_seed(0)
    model = Rarely(where)
    sgd = make(model, physical=8, lr=0.0)
    gradients = sgd.gradients
    preflight(gradients, FLAT, 1.0)
    others = torch.randn(8, 6)
    expected, before = sums(gradients, others), vectors.flatten(model)
    rare = torch.cat([torch.full((1, 6), 1.5 * RARE), torch.randn(7, 6)])
    alone = sums(gradients, rare)
    assert torch.equal(sums(gradients, torch.cat([rare, others])), alone + expected)
    sgd.step(rare, torch.ones(8, dtype=torch.int64), np.arange(8))
    assert (vectors.flatten(model) == before).all()
    assert not model.centre.any()
    assert not model.plain.any()
    assert torch.equal(sums(gradients, others), expected)


@pytest.mark.parametrize("of", KINDS)
def test_a_pass_that_writes_into_a_trained_parameter_is_refused_wherever_it_is_measured(of: str) -> None:
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.layer.weight.data.clamp_(-1.0, 1.0)
            return self.layer(x)  # type: ignore[no-any-return]

    gradients = clipped(Clamped(), gradients_kind=of)
    for measure in (preflight, check_received):
        for parameter in gradients.parameters:
            parameter.data.fill_(2.0)
        with pytest.raises(PrivacyError, match=r"changes '(model.)?layer.weight' as records pass"):
            measure(gradients, FLAT, 1.0)


def test_an_embedding_that_shortens_its_weights_is_refused_even_where_none_is_too_long() -> None:
    model = nn.Sequential(nn.Embedding(50, 2, max_norm=1e9), nn.Flatten(), nn.Linear(8, 1))
    with pytest.raises(PrivacyError, match=r"changes '0.weight' as records pass"):
        preflight(clipped(model), DataShape((4,), 2, below=50), 1.0)


class Writing(nn.Module):
    """Adds to its weights in every pass, and counts them where a plain attribute lies."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.passes = nn.Linear(6, 1), 0

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append((float(self.layer.weight.detach()[0, 0]), self.passes))
        self.passes += 1
        self.layer.weight.data.add_(1.0)
        return self.layer(x)  # type: ignore[no-any-return]


SEEN: list[tuple[float, int]] = []


def test_every_physical_batch_of_a_lot_begins_with_the_model_as_the_lot_found_it() -> None:
    """Also the second and the third, and lots after a step that moved the parameters."""
    module = Writing()
    gradients = clipped(module, denominator=8, gradients_kind="book-keeping")
    x, y = torch.ones(3 * gradients.rows, 6), torch.zeros(3 * gradients.rows).long()
    for moved in (0.0, 0.25):
        with torch.no_grad():
            module.layer.weight.add_(moved)
        before = float(module.layer.weight.detach()[0, 0])
        SEEN.clear()
        gradients.of(x, y, np.arange(len(y)))
        assert [*SEEN] == [(before, 0)] * 3
        assert (float(module.layer.weight.detach()[0, 0]), module.passes) == (before, 0)
