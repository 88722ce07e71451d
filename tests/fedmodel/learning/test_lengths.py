"""Rows of several lengths: each record at its own, whatever its companions; all of them measured; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.kinds.layers import without_dropout
from fedmodel.kinds.shape import IGNORED, NEXT, ArrayShape, DataShape
from fedmodel.learning import preflight as preflighting
from fedmodel.learning.gradients import ClippedSum, kind
from fedmodel.learning.jobs._pipelines import gradients_of
from fedmodel.learning.lengths import Lengths, of_shape
from fedmodel.learning.models import build_model
from fedmodel.learning.preflight import check_received, preflight
from fedmodel.learning.starts import resolved
from fedmodel.learning.tasks import objective
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from tests.bases import CLASSES, LENGTH, NEXT_TOKEN, config_of, make_base, scenario_on
from tests.fedmodel.learning.gradients.test_adapters import (
    CLIP,
    LENGTHS,
    LORA,
    losses_of,
    one_at_a_time,
    prepared,
    records,
)

CUTS = (3, 6)
SEEN = set[tuple[int, int]]()
"""Rows and length of what `Words` were given; whatever a model keeps itself is put back."""
SMALL = DataShape((), 2, inputs={"tokens": ArrayShape((8,), 9), "mask": ArrayShape((8,), 2)})
AT_EACH = replace(SMALL, classes=9, target=ArrayShape((8,), 9, ignores=True), task=NEXT)
WAYS: dict[str, tuple[str, str, DataShape, dict[str, Any], str]] = {
    "classes": ("encoder", "sequence-classification", CLASSES, LORA, "book-keeping"),
    "biases": ("encoder", "sequence-classification", CLASSES, {"adapt": "bitfit"}, "hooks"),
    "features": ("encoder", "feature-extraction", CLASSES, LORA, "functional"),
    "next token": ("decoder", "causal-lm", NEXT_TOKEN, {"targets": ["c_attn"], "rank": 3}, "book-keeping"),
    "hidden": ("masked", "masked-lm", NEXT_TOKEN, LORA, "one-by-one"),
}


class Words(nn.Module):
    """A mean of a text's tokens, which may treat rows of one length otherwise."""

    def __init__(self, odd: int = 0, *, couples: bool = False) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(9, 4), nn.Linear(4, 1)
        self._odd, self._couples = odd, couples

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        rows, length = tokens.shape
        SEEN.add((rows, length))
        weight_BT1 = mask[:, :, None].float()
        mean_BH = (self.table(tokens) * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)
        if length == self._odd and self._couples:
            mean_BH = mean_BH - mean_BH.mean(dim=0)
        elif length == self._odd and rows == 8:
            mean_BH = mean_BH + 1e-3 * torch.arange(rows)[:, None]  # a row's place, at this very shape
        return self.out(mean_BH)


class EachPlace(nn.Module):
    """An answer at each position, the sign of which hangs on how long rows are where it is told so."""

    def __init__(self, *, told: bool) -> None:
        super().__init__()
        self.table, self.out, self._told = nn.Embedding(9, 4), nn.Linear(4, 9), told

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        sign = -1 if self._told and tokens.shape[1] != 8 else 1
        answer: Tensor = self.out(self.table(tokens) * mask[:, :, None].float()) * sign
        return answer


class Told(Words):
    """The sign of whose answers hangs on how long rows are."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return super().forward(tokens, mask) * (1 if tokens.shape[1] == 8 else -1)


def small(module: nn.Module, shape: DataShape = SMALL) -> ClippedSum:
    torch.manual_seed(0)
    losses = objective(shape, "cross-entropy").losses
    found = kind("hooks")(module, losses, max_grad_norm=1.0, unit=2.0**-40, rows=8)
    found.lengths = of_shape((2, 4), shape)
    return found


def small_records(*lengths: int) -> tuple[dict[str, Tensor], Tensor]:
    mask_NT = (torch.arange(8) < torch.tensor(lengths)[:, None]).long()
    token_NT = torch.randint(1, 9, mask_NT.shape, generator=torch.Generator().manual_seed(1)) * mask_NT
    return {"tokens": token_NT, "mask": mask_NT}, torch.arange(len(lengths)) % 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for name in ("encoder", "masked", "decoder"):
        make_base(folder / name, name)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_clipped_sums_are_those_of_whole_rows_one_at_a_time(made: Path, way: str) -> None:
    base, task, shape, said, name = WAYS[way]
    config, losses, (x_N, y_N) = config_of(made / base, task, lengths=CUTS, **said), losses_of(shape), records(shape)
    module = prepared(build_model(config, shape, seed=1)).train()
    gradients = kind(name)(
        prepared(build_model(config, shape, seed=1)), losses, max_grad_norm=CLIP, unit=2.0**-40, rows=4
    )
    gradients.lengths = of_shape(config.cut_to, shape)
    batches = [x["tokens"].shape[1] for x, _ in gradients.batches(x_N, y_N, np.arange(len(y_N)))]  # type: ignore[index, call-overload]
    assert batches == [3, 6, LENGTH]  # of 1, 0 and 2 tokens; of 5; and the others
    with ExitStack() as stack:
        for one in (module, gradients.module):
            stack.enter_context(without_dropout(one))  # a model that hides tokens hides the same ones
        expected_P = one_at_a_time(module, losses, x_N, y_N, CLIP)
        sum_P = torch.cat([one.reshape(-1) for one in gradients.of(x_N, y_N, np.arange(len(y_N)))])
        nothing = gradients.of(x_N, y_N, np.arange(0))
    assert float((sum_P - expected_P).abs().max()) < 1e-5 * max(1.0, float(expected_P.abs().max()))
    assert float(expected_P.abs().max()) > 1e-3
    assert not any(bool(one.any()) for one in nothing)


def test_a_sum_is_to_the_bit_that_of_its_records_alone_whatever_their_lengths(made: Path) -> None:
    config = config_of(made / "encoder", "sequence-classification", lengths=CUTS, **LORA)
    gradients = kind("hooks")(
        prepared(build_model(config, CLASSES, seed=1)), losses_of(CLASSES), max_grad_norm=CLIP, unit=2.0**-40, rows=4
    )
    gradients.lengths = of_shape(CUTS, CLASSES)
    x_N, y_N = records(CLASSES)

    def sum_of(*lot: int) -> Tensor:
        return torch.cat([one.reshape(-1) for one in gradients.of(x_N, y_N, np.array(lot, dtype=np.intp))])

    alone = [sum_of(one) for one in range(len(LENGTHS))]
    for lot in (range(len(LENGTHS)), (6, 1, 0, 3), (5, 2), (2, 2, 1)):
        assert torch.equal(sum_of(*lot), torch.stack([alone[one] for one in lot]).sum(0))


def test_a_length_is_the_first_past_which_nothing_of_the_record_counts() -> None:
    lengths = Lengths((2, 4), 8, "tokens", "mask", of_each_token=True)
    mask_NT = torch.zeros(6, 8, dtype=torch.long)
    mask_NT[1, :2], mask_NT[2, :3], mask_NT[3, 7], mask_NT[4, 0] = 1, 1, 1, 1  # of nothing, of 2, of 3, at the end
    target_NT = torch.full((6, 8), IGNORED)
    target_NT[4, 3] = 0  # which counts, though no token stands there
    x_N = {"tokens": mask_NT, "mask": mask_NT}
    assert lengths.of(x_N, target_NT).tolist() == [2, 2, 4, 8, 4, 2]
    index_L = torch.tensor([4, 3, 1, 2])
    parts = [(length, own.tolist()) for length, own in lengths.parts(x_N, target_NT, index_L)]
    assert parts == [(2, [1]), (4, [4, 2]), (8, [3])]
    marked, cut = lengths.cut({**x_N, "canary": torch.arange(6)}, target_NT, 4)
    assert isinstance(marked, dict)
    assert [tuple(one.shape) for one in (*marked.values(), cut)] == [(6, 4), (6, 4), (6,), (6, 4)]


def test_a_record_adds_one_physical_batch_at_most() -> None:
    gradients = small(Words())
    x_N, y_N = small_records(*[2] * 9, *[4] * 8, *[8] * 7)
    without = [len(list(gradients.batches(x_N, y_N, np.delete(np.arange(24), one)))) for one in range(24)]
    assert len(list(gradients.batches(x_N, y_N, np.arange(24)))) == 4
    assert set(without) == {3, 4}


def test_a_model_that_couples_records_at_a_shorter_length_is_refused() -> None:
    with pytest.raises(PrivacyError, match="couples records"):
        preflight(small(Words(2, couples=True)), SMALL, 1.0)


def test_every_length_is_measured_and_all_have_the_rows_that_conform_at_each() -> None:
    SEEN.clear()
    assert check_received(small(Words()), SMALL, 1.0) == 8
    assert {(8, length) for length in (2, 4, 8)} == SEEN
    assert check_received(small(Words(2)), SMALL, 1.0) == 4
    assert {(rows, length) for rows in (8, 4) for length in (2, 4, 8)} == SEEN


def test_the_preflight_measures_each_length_anew_where_one_takes_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = list[tuple[str, int, int]]()

    def settled(gradients: ClippedSum, shape: DataShape, *_: Any, thorough: int) -> int:
        length = (shape.inputs or {})["tokens"].size[0]
        noted.append(("settled", length, gradients.rows))
        gradients.rows = 4 if length == 2 else gradients.rows
        return gradients.rows * min(thorough, 1)

    def positions(gradients: ClippedSum, shape: DataShape, *_: Any) -> None:
        noted.append(("positions", (shape.inputs or {})["tokens"].size[0], gradients.rows))

    monkeypatch.setattr(preflighting, "settle", settled)
    monkeypatch.setattr(preflighting, "check_positions", positions)
    assert preflight(small(Words()), SMALL, 1.0) == 4
    first = [("settled", 8, 8), ("positions", 8, 8), ("settled", 4, 8), ("positions", 4, 8)]
    again = [(what, length, 4) for length in (8, 4, 2) for what in ("settled", "positions")]
    assert noted == [*first, ("settled", 2, 8), ("positions", 2, 4), *again]


@pytest.mark.parametrize("chosen", [torch.amax, torch.amin])
@pytest.mark.parametrize("shape", [SMALL, AT_EACH], ids=["one answer", "an answer at each position"])
def test_one_record_moves_a_lot_of_several_lengths_by_the_clip_at_most(
    shape: DataShape, chosen: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflighting, "_at_each_length", lambda *_: None)
    preflight(small(Words() if shape is SMALL else EachPlace(told=False), shape), shape, 1.0)
    whole = Lengths.of
    # A length that hangs on the lot's others, as where a batch is cut to its longest, of a model that tells lengths
    # apart.
    monkeypatch.setattr(Lengths, "of", lambda *given: chosen(whole(*given)).expand(len(given[2])))
    with pytest.raises(PrivacyError, match="couples records"):
        preflight(small(Told() if shape is SMALL else EachPlace(told=True), shape), shape, 1.0)


@pytest.mark.parametrize("shape", [SMALL, AT_EACH], ids=["one answer", "an answer at each position"])
def test_lots_of_all_have_records_at_each_length_and_an_outlier_at_each(
    shape: DataShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    lots, of = list[list[int]](), Lengths.of

    def noted(self: Lengths, x_L: Any, y_L: Tensor) -> Tensor:
        length_L = of(self, x_L, y_L)
        lots.append(length_L.tolist())
        return length_L

    monkeypatch.setattr(Lengths, "of", noted)
    monkeypatch.setattr(preflighting, "_at_each_length", lambda *_: None)
    preflight(small(Words() if shape is SMALL else EachPlace(told=False), shape), shape, 1.0)
    turns = [2, 4, 8, 2, 4, 8, 2, 4]
    for others in ([2, 2], [8, 8], turns):
        assert others in lots
        assert {first for first, *rest in lots if rest == others} == {2, 4, 8}


def test_records_end_at_each_length_in_turn() -> None:
    x_B = {"tokens": torch.arange(1, 41).view(5, 8), "mask": torch.zeros(5, 8, dtype=torch.long)}
    for shape in (SMALL, AT_EACH):
        lengths = of_shape((2, 4), shape)
        assert lengths is not None
        y_B = torch.zeros((5, *shape.targets.size), dtype=torch.long)
        for turns, found in (
            ([0, 1, 2, 3, 4], [2, 4, 8, 2, 4]),
            ([1] * 5, [4] * 5),
            ([5, 0, 0, 7, 2], [8, 2, 2, 4, 8]),
        ):
            ended_B, target_B = lengths.ended(x_B, y_B, torch.tensor(turns))
            stands_BT = torch.arange(8) < torch.tensor(found)[:, None]
            assert lengths.of(ended_B, target_B).tolist() == found
            assert torch.equal(ended_B["mask"], stands_BT.long())
            assert torch.equal(ended_B["tokens"], x_B["tokens"] * stands_BT)
            assert torch.equal(target_B != IGNORED, stands_BT if shape is AT_EACH else torch.ones(5, dtype=torch.bool))


def test_a_pipeline_has_the_lengths_that_its_scenario_says(tmp_path: Path) -> None:
    path, cpu = scenario_on(tmp_path, model={"lengths": [3, 5]}), torch.device("cpu")
    event = DpSgdEvent(2.0, 1.0, 0.5, 1, denominator=4)
    for said, lengths in (([], (3, 5, 8)), (["model.lengths=[4]"], (4, 8)), (["model.lengths=[]"], None)):
        scenario = resolved(read_scenario(str(path), said))
        found = gradients_of(scenario.json_text, event, cpu).lengths
        assert (None if found is None else found.every) == lengths


def test_lengths_that_fit_no_records_are_one_line(made: Path) -> None:
    def refused(shape: DataShape, told: str, *lengths: int) -> None:
        config = config_of(made / "encoder", "feature-extraction", lengths=lengths, **LORA)
        with pytest.raises(ConfigError, match=told) as found:
            build_model(config, shape, seed=0)
        assert "\n" not in str(found.value)

    refused(CLASSES, "model.lengths has 12, and rows of 12 tokens", 4, LENGTH)
    maskless = DataShape((), 3, inputs={"tokens": ArrayShape((LENGTH,), 257)})
    refused(maskless, "needs records with a mask", 4)
    for lengths in ((6, 3), (3, 3), (0,)):
        with pytest.raises(ValidationError, match="lengths"):
            config_of(made / "encoder", "feature-extraction", lengths=lengths, **LORA)


def test_lengths_are_in_a_document_where_they_are_said_alone(made: Path) -> None:
    for said in ((), CUTS):
        config = config_of(made / "encoder", "feature-extraction", lengths=said, **LORA)
        assert config.model_dump(mode="json").get("lengths", []) == list(said)
        assert ("lengths" in config.model_dump(mode="json")) == bool(said)
