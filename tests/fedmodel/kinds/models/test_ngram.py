"""A neural n-gram model sees its context and nothing else, and is private: each record by itself."""

from __future__ import annotations

import pytest
import torch

from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.kinds.models.ngram import NgramConfig
from fedmodel.kinds.shape import NEXT, ArrayShape, DataShape
from fedmodel.kinds.tokens import text_inputs
from fedmodel.learning.models import parameters_of

LENGTH, TOKENS, CONTEXT = 12, 257, 3
TEXT = DataShape(
    (), TOKENS, inputs=text_inputs(LENGTH, None), target=ArrayShape((LENGTH,), TOKENS, ignores=True), task=NEXT
)


def small(**said: object) -> NgramConfig:
    return NgramConfig.model_validate({"kind": "ngram", "context": CONTEXT, "embedding": 4, "hidden": [6], **said})


def test_it_has_the_parameters_of_a_table_a_window_and_a_linear_layer_for_each_step() -> None:
    window, deeper, head = 4 * 3 * 6 + 6, 6 * 5 + 5, 5 * 257 + 257
    assert parameters_of(small(hidden=[6, 5]), TEXT) == 257 * 4 + window + deeper + head


@pytest.mark.parametrize("place", range(LENGTH))
def test_an_answer_is_of_the_tokens_of_its_context_alone(place: int) -> None:
    """Of no token behind a position, nor of one that is further back than the context; and of each that is in it."""
    torch.manual_seed(1)
    module = small(hidden=[6, 6]).build(TEXT).double()
    tokens_BT = torch.randint(1, TOKENS, (2, LENGTH))
    mask_BT = torch.ones_like(tokens_BT)
    moved_BT = tokens_BT.clone()
    moved_BT[0, place] = (moved_BT[0, place] + 100) % TOKENS
    with torch.no_grad():
        differs_BT = (module(tokens_BT, mask_BT) != module(moved_BT, mask_BT)).any(dim=2)
    assert differs_BT[0].tolist() == [place <= position < place + CONTEXT for position in range(LENGTH)]
    assert not differs_BT[1].any()


@pytest.mark.parametrize(
    "shape",
    [
        DataShape((12,), 2),
        DataShape((), 3, inputs=text_inputs(LENGTH, None)),
        DataShape((), TOKENS, inputs={"tokens": ArrayShape((LENGTH,), TOKENS)}, target=TEXT.target, task=NEXT),
    ],
    ids=["numbers", "classes", "no mask"],
)
def test_what_has_no_next_token_is_refused(shape: DataShape) -> None:
    with pytest.raises(ConfigError, match=r'model\.kind = "ngram" takes arrays "tokens" and "mask" of which the next'):
        small().build(shape)


def test_a_scenario_of_another_task_is_refused_before_records_are_read() -> None:
    with pytest.raises(ConfigError, match='"ngram" foretells the next token, and'):
        read_scenario("digits", ['model={kind="ngram"}'])


@pytest.mark.parametrize("said", [{"hidden": []}, {"context": 0}, {"embedding": 0}])
def test_sizes_of_nothing_are_refused(said: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(said))):
        small(**said)
