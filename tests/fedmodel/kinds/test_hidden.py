"""Hidden tokens: no output is a function of the token that it is asked for, in training and in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.kinds.hidden import RATE, Hider
from fedmodel.kinds.layers import without_dropout
from fedmodel.learning.models import build_model
from fedmodel.privacy.noise import SeededNoise
from tests.bases import LENGTH, NEXT_TOKEN, TOKENS, config_of, make_base

LORA: dict[str, Any] = {"targets": ["query", "value"], "rank": 2}
MASK = 10  # as the tokenizer of the tests' base has it


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bases") / "masked", "masked")


@pytest.fixture
def module(made: Path) -> Any:
    return build_model(config_of(made, "masked-lm", **LORA), NEXT_TOKEN, seed=1)


def texts(count: int) -> dict[str, Tensor]:
    token_BT = torch.randint(11, TOKENS, (count, LENGTH), generator=torch.Generator().manual_seed(3))
    return {"tokens": token_BT, "mask": torch.ones_like(token_BT)}


def test_in_use_each_token_is_foretold_by_transformers_own_model_from_which_it_is_hidden(
    made: Path, module: Any
) -> None:
    from transformers import AutoModelForMaskedLM

    theirs, given = AutoModelForMaskedLM.from_pretrained(made).eval(), texts(2)
    with torch.no_grad():
        found = module.eval()(**given)
        for place in range(1, LENGTH):
            hidden = given["tokens"].clone()
            hidden[:, [one for one in range(1, LENGTH) if (one - place) % 7 == 0]] = MASK
            expected = theirs(input_ids=hidden, attention_mask=given["mask"]).logits[:, place]
            assert torch.allclose(found[:, place - 1], expected, atol=1e-5)
    assert not bool(found[:, -1].any())


def gradient_at(module: nn.Module, given: dict[str, Tensor], place: int) -> Tensor:
    """Return the gradient of the output for a token, of all that trains."""
    output = module(**given)[:, place - 1].square().sum()
    trained = [one for one in module.parameters() if one.requires_grad]
    return torch.cat([one.flatten() for one in torch.autograd.grad(output, trained)])


@pytest.mark.parametrize("mode", ["training", "measured", "used"])
def test_no_output_is_a_function_of_the_token_that_is_asked_for(module: Any, mode: str) -> None:
    module.train(mode != "used")
    seen = 0
    for place in range(1, LENGTH):
        outputs = []
        for change in (0, 1):
            module.hider.source = SeededNoise(place)
            given = texts(3)
            given["tokens"][:, place] = 20 + change
            if mode == "measured":
                with without_dropout(module):
                    outputs.append(module(**given))
            else:
                outputs.append(module(**given))
        assert torch.equal(outputs[0][:, place - 1], outputs[1][:, place - 1])
        seen += int(outputs[0][:, place - 1].any())
    assert seen > 0  # not all of them are zeros


def test_tokens_that_were_not_hidden_have_no_gradient_and_draws_are_new_each_time(module: Any) -> None:
    module.train().hider.source = SeededNoise(1)
    given, shares = texts(64), []
    for _ in range(8):
        hidden_BT = module(**given)[:, :-1].detach().abs().sum(dim=2) > 0
        shares.append(hidden_BT.float().mean())
    tokens = 8 * 64 * (LENGTH - 1)
    assert abs(float(torch.stack(shares).mean()) - RATE) < 5 * (RATE * (1 - RATE) / tokens) ** 0.5
    assert len({float(one) for one in shares}) > 1
    hidden_BT = module(**given)[:, :-1].detach().abs().sum(dim=2) > 0
    assert len({tuple(row) for row in hidden_BT.tolist()}) > 32  # each record has its own
    with without_dropout(module):  # places 1 and 8
        assert float(gradient_at(module, given, 1).abs().max()) > 0
        assert not bool(gradient_at(module, given, 2).any())


def test_what_is_measured_before_a_model_trains_hides_a_token_of_the_shortest_records_too() -> None:
    """Else all its outputs were zeros there, and every check of gradients would pass on nothing."""
    hider = Hider().eval()
    for length in (2, 3, LENGTH):
        (hidden_BT,) = hider.places(torch.ones(4, length, dtype=torch.long), trains=True)
        assert bool(hidden_BT.any(dim=1).all())


def test_without_a_source_nothing_is_hidden_and_nothing_passes(module: Any) -> None:
    with pytest.raises(PrivacyError, match="without a source"):
        module.train()(**texts(2))
    assert isinstance(module.hider, Hider)


def test_a_base_without_a_mask_token_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "masked", "masked")
    for spoiled in ({"added_tokens": []}, {"added_tokens": None}, {"added_tokens": [{"content": "[MASK]"}]}):
        told = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(told | spoiled))
        with pytest.raises(ConfigError, match=r"has no mask token, \[MASK\] or <mask>, in its tokenizer.json") as found:
            build_model(config_of(folder, "masked-lm", **LORA), NEXT_TOKEN, seed=1)
        assert "\n" not in str(found.value)
