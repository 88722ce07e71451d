"""Records of several arrays by name, and targets of any type, go through all that records of one array go through."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmodel.data import Records
from fedmodel.errors import DataError, PrivacyError
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.learning.conformance import conforms, hostile
from fedmodel.learning.gradients import kind
from fedmodel.learning.inputs import Inputs, called, ends, made_up, made_up_short, tensors
from fedmodel.learning.preflight import check_received, check_sums, preflight
from fedmodel.learning.refusals import check_module
from fedmodel.learning.tasks import objective
from server.metrics import evaluate
from tests.fedmodel.learning.test_dp_sgd import NoNoise, clipped, make

CPU = torch.device("cpu")
TOKENS = DataShape(
    (), 2, inputs={"tokens": ArrayShape((5,), 11), "mask": ArrayShape((5,), 2), "age": ArrayShape((1,))}
)  # fmt: skip
REAL = DataShape((), 2, inputs=TOKENS.inputs, target=ArrayShape((2,)))


class Reader(nn.Module):
    """Words under a mask, beside a number."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.words, self.out = nn.Embedding(11, 6), nn.Linear(7, outputs)

    def forward(self, tokens: Tensor, mask: Tensor, age: Tensor) -> Tensor:
        said = (self.words(tokens) * mask[:, :, None]).sum(dim=1) / 5
        return self.out(torch.cat([said, age], dim=1))  # type: ignore[no-any-return]


class Coupled(Reader):
    """Takes the mask of the record before."""

    def forward(self, tokens: Tensor, mask: Tensor, age: Tensor) -> Tensor:
        return super().forward(tokens, mask.roll(1, dims=0), age)


def distance(output: Tensor, target: Tensor) -> Tensor:
    return ((output - target) ** 2).sum(dim=1)


def several(count: int, shape: DataShape = TOKENS, seed: int = 0) -> tuple[Mapping[str, Tensor], Tensor]:
    x, y = made_up(shape, count, torch.Generator().manual_seed(seed))
    assert isinstance(x, Mapping)
    return x, y


def records(count: int = 9) -> Records:
    x, y = several(count)
    return Records({name: one.numpy() for name, one in x.items()}, y.numpy(), np.arange(count) // 2)


def test_what_is_made_up_looks_like_the_shape() -> None:
    x, y = several(1000, REAL)
    assert {name: (tuple(one.shape), one.dtype) for name, one in x.items()} == {
        "tokens": ((1000, 5), torch.int64),
        "mask": ((1000, 5), torch.int64),
        "age": ((1000, 1), torch.float32),
    }
    assert set(x["tokens"].unique().tolist()) == set(range(11))
    assert (tuple(y.shape), y.dtype) == ((1000, 2), torch.float32)
    assert [one.tolist() for one in ends(REAL, 3.0)] == [[[-3.0, -3.0]], [[3.0, 3.0]]]
    assert [one.tolist() for one in ends(DataShape((4,), 3), 9.0)] == [[0], [2]]


@pytest.mark.parametrize("shape", [TOKENS, REAL], ids=["labels", "real numbers"])
def test_a_model_of_several_inputs_is_held_to_the_clip(shape: DataShape) -> None:
    losses = distance if shape is REAL else None
    gradients = clipped(Reader(2 if shape is REAL else 1), losses=losses, denominator=8)
    assert preflight(gradients, shape, 1.0) == gradients.rows > 1
    for name in hostile(gradients.parameters, seed=3):
        assert conforms(gradients, shape), name
        assert check_sums(gradients, shape, 1.0, (1.0, math.nan), (1, 8, 19)) <= 1
    assert check_received(gradients, shape, 1.0) > 1


def test_a_model_that_couples_records_by_one_of_its_inputs_is_refused() -> None:
    with pytest.raises(PrivacyError, match="couples records"):
        preflight(clipped(Coupled(), denominator=8), TOKENS, 1.0)


def test_a_sum_over_several_inputs_is_that_of_each_record_alone() -> None:
    x, y = several(11)
    gradients = clipped(Reader(), denominator=4, physical=4, clip=0.3)
    alone = [gradients.flat({name: one[i : i + 1] for name, one in x.items()}, y[i : i + 1]) for i in range(11)]
    assert torch.equal(gradients.flat(x, y), torch.stack(alone).sum(dim=0))
    assert all(0 < float(one.norm()) <= 0.3 for one in alone)
    order = torch.randperm(11)
    assert torch.equal(gradients.flat(x, y), gradients.flat({k: one[order] for k, one in x.items()}, y[order]))


def test_a_step_takes_the_lot_of_every_input() -> None:
    x, y = several(11)
    lot = np.array([1, 4, 9])
    sgd = make(Reader(), noise=NoNoise(0), denominator=3, physical=2, lr=0.1)
    before = [parameter.detach().clone() for parameter in sgd.gradients.parameters]
    expected = clipped(Reader()).of({name: one[lot] for name, one in x.items()}, y[lot], np.arange(3))
    sgd.step(x, y, lot)
    for parameter, old, sum_ in zip(sgd.gradients.parameters, before, expected, strict=True):
        assert torch.allclose(old - parameter, 0.1 * sum_.float() / 3, atol=1e-5)


def test_records_of_several_arrays_are_taken_capped_joined_and_evaluated() -> None:
    whole = records()
    some = whole.take(np.array([2, 5]))
    assert isinstance(some.x, Mapping)
    assert isinstance(whole.x, Mapping)
    assert all(np.array_equal(some.x[name], whole.x[name][[2, 5]]) for name in whole.x)
    assert len(whole.capped("person", 1)) == 5
    assert len(whole.capped("client", 4)) == 4
    joined = Records.joined([some, whole])
    assert len(joined) == 11
    assert isinstance(joined.x, Mapping)
    assert np.array_equal(joined.x["tokens"][2:], whole.x["tokens"])
    figures = evaluate(Reader(), objective(TOKENS, "cross-entropy"), whole, CPU)
    x, y = tensors(whole, CPU)
    right = ((called(Reader(), x)[:, 0] > 0).long() == y).double().mean()
    assert figures["accuracy"] == pytest.approx(float(right))


def test_records_that_do_not_go_together_are_refused() -> None:
    whole, one = records(), Records(np.zeros((2, 3), np.float32), np.zeros((2, 2)), np.arange(2))
    assert one.x_NF.shape == (2, 3)
    assert repr(whole) == "Records(...)"
    with pytest.raises(DataError, match="several arrays, tokens, mask, age, where one is needed"):
        _ = whole.x_NF
    with pytest.raises(DataError, match="do not go together"):
        Records.joined([whole, one])
    with pytest.raises(DataError, match="do not go together"):
        Records.joined([whole, Records({"tokens": np.zeros((1, 5))}, np.zeros(1), np.zeros(1, np.int64))])
    for x in ({}, {"a": np.zeros(2), "b": np.zeros(3)}, np.zeros(3)):
        with pytest.raises(DataError, match="arrays of one length"):
            Records(x, np.zeros(2), np.arange(2))


def test_a_batch_whose_inputs_are_of_two_lengths_never_conforms() -> None:
    class Short(Reader):
        """Its mask is of another length than the other inputs."""

    gradients = clipped(Short(), denominator=8)
    gradients.module.register_forward_pre_hook(_shorten, with_kwargs=True)
    with pytest.raises(PrivacyError, match="of 1 and 8 rows reached the model"):
        conforms(gradients, TOKENS)


def _shorten(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], Inputs]:
    return inputs, {**named, "mask": named["mask"][:1]}


def test_half_of_what_is_made_up_ends_early_in_all_its_arrays_alike() -> None:
    shape = DataShape((), 2, inputs={"tokens": ArrayShape((8,), 9), "mask": ArrayShape((8,), 2), "age": ArrayShape(())})
    x, _, short = made_up_short(shape, 400, torch.Generator().manual_seed(0))
    assert isinstance(x, Mapping)
    assert int(short.sum()) == 200
    assert torch.equal((x["tokens"] != 0)[short], x["mask"].bool()[short])
    lengths = x["mask"][short].sum(dim=1)
    assert set(lengths.tolist()) == {1, 2, 3, 4}
    assert torch.equal(x["mask"][short], (torch.arange(8) < lengths[:, None]).long())
    assert (x["tokens"][~short][:, 4:].any(dim=1)).float().mean() > 0.99
    assert bool(x["age"].all())


@pytest.mark.parametrize(("features", "axes"), [((6,), {1}), ((3, 4), {1, 2}), ((2, 4, 4), {1, 3})])
def test_real_numbers_end_along_the_first_axis_or_the_last(features: tuple[int, ...], axes: set[int]) -> None:
    x, _, short = made_up_short(DataShape(features, 2), 200, torch.Generator().manual_seed(0))
    assert isinstance(x, Tensor)
    found = {
        axis: x[short].movedim(axis, 1).flatten(2)[:, -1].eq(0).all(dim=1) if x.dim() > 2 else x[short][:, -1].eq(0)
        for axis in range(1, x.dim())
    }
    assert {axis for axis, ended in found.items() if bool(ended.any())} == axes
    assert bool(torch.stack([*found.values()]).any(dim=0).all())
    assert bool(x[~short].all())
    assert bool(x[short].flatten(1).any(dim=1).all())
    alone, _, short = made_up_short(DataShape((1,), 2), 9, torch.Generator().manual_seed(0))
    assert isinstance(alone, Tensor)
    assert bool(alone.all()), "what has no length does not end"


class Cropping(nn.Module):
    """Crops a batch to what any of its records fills."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by, self.words = by, nn.Embedding(257, 8)
        self.step, self.out = nn.Linear(1, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor | None = None, tokens: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        filled = mask if self.by == "mask" else x if x is not None else tokens
        length = max(1, int((filled != 0).any(dim=0).sum()))  # type: ignore[union-attr]
        if self.by == "steps":
            return self.out(torch.tanh(self.step(x[:, :length, None])).mean(dim=1))  # type: ignore[no-any-return, index]
        read = x if tokens is None else tokens
        return self.out(self.words(read[:, :length]).mean(dim=1))  # type: ignore[no-any-return, index]


CROPPED = {
    "steps": DataShape((16,), 2),
    "tokens": DataShape((16,), 2, below=257),
    "mask": DataShape((), 2, inputs={"tokens": ArrayShape((16,), 257), "mask": ArrayShape((16,), 2)}),
}


@pytest.mark.parametrize("by", CROPPED)
def test_a_model_that_crops_a_batch_to_its_longest_record_is_refused(by: str) -> None:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return Cropping(by)

    losses = objective(CROPPED[by], "cross-entropy").losses
    with torch.random.fork_rng(), pytest.raises(PrivacyError, match=r"own code \(Cropping\) couples records"):
        check_module(build, losses, CROPPED[by], kind("per-sample"))


@pytest.mark.parametrize("by", CROPPED)
@pytest.mark.parametrize("rows", [2, 4, 64])
def test_a_model_that_crops_conforms_in_batches_of_one_record_alone(by: str, rows: int) -> None:
    torch.manual_seed(0)
    model = Cropping(by)
    (model.words if by == "steps" else model.step).requires_grad_(False)
    gradients = clipped(model, denominator=rows)
    for gradients.rows in (rows, 1):
        assert conforms(gradients, CROPPED[by]) == (gradients.rows == 1)
