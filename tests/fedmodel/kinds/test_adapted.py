"""Adapters on a base: what trains, what is sent and saved, what is refused; and that records stay apart."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fedmodel.errors import ConfigError
from fedmodel.kinds.layers import Dropout
from fedmodel.kinds.shape import ArrayShape, DataShape
from fedmodel.learning.fitting import fit
from fedmodel.learning.models import build_model, parameters_of
from fedmodel.learning.vectors import flatten, load, parameter_count
from tests.bases import CLASSES, INPUTS, LABELS, LENGTH, NEXT_TOKEN, TOKENS, config_of, make_base

LORA: dict[str, Any] = {"targets": ["query", "value"], "rank": 4}
OF_GPT: dict[str, Any] = {"targets": ["c_attn"], "rank": 4}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for kind in ("encoder", "masked", "decoder"):
        make_base(folder / kind, kind)
    return folder


def built(folder: Path, task: str, shape: DataShape, seed: int = 0, **said: Any) -> nn.Module:
    return build_model(config_of(folder, task, **said), shape, seed)


def texts(count: int, length: int = LENGTH) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    token_BT = torch.randint(1, TOKENS, (count, LENGTH), generator=generator)
    mask_BT = (torch.arange(LENGTH) < length).long().expand(count, -1)
    return {"tokens": token_BT * mask_BT, "mask": mask_BT}


# 2 layers x 2 targets x (4 x 32 + 32 x 4), and a head of 3 x 32 + 3 where the base has none
WAYS = {
    "lora, classes": ("encoder", "sequence-classification", CLASSES, LORA, 1024 + 99, (LENGTH, 3)),
    "lora with a pooler of no base": ("masked", "sequence-classification", CLASSES, LORA, 1024 + 99 + 1056, None),
    "biases": ("encoder", "sequence-classification", CLASSES, {"adapt": "bitfit"}, 2 * 272 + 32 + 32 + 99, None),
    "head": ("encoder", "sequence-classification", CLASSES, {"adapt": "head"}, 99, None),
    "of each token": ("encoder", "token-classification", LABELS, LORA, 1024 + 5 * 33, None),
    "features": ("encoder", "feature-extraction", CLASSES, LORA, 1024 + 99, None),
    "hidden tokens": ("masked", "masked-lm", NEXT_TOKEN, LORA, 1024, None),
    "next tokens": ("decoder", "causal-lm", NEXT_TOKEN, OF_GPT, 2 * (4 * 32 + 96 * 4), None),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_trains_is_an_adapter_or_what_the_base_lacks(made: Path, way: str) -> None:
    kind, task, shape, said, count, _ = WAYS[way]
    config = config_of(made / kind, task, **said)
    module = build_model(config, shape, seed=1)
    assert parameter_count(module) == parameters_of(config, shape) == count
    assert len(flatten(module)) == count
    trained = {id(one) for one in module.parameters() if one.requires_grad}
    named = dict(module.named_parameters(remove_duplicate=False))
    assert {id(named[name]) for name in module.state_dict()} == trained
    positions = (LENGTH,) if shape.target is not None else ()
    assert module.eval()(**texts(2)).shape == (2, *positions, shape.outputs)


def test_the_base_is_the_same_whatever_the_seed_and_adapters_begin_as_nothing(made: Path) -> None:
    config = config_of(made / "encoder", "sequence-classification", **LORA)
    one, other = build_model(config, CLASSES, 1), build_model(config, CLASSES, 2)
    for (name, first), second in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second) == (not first.requires_grad or "lora_B" in name or name.endswith("bias")), (
            name
        )
    weights = safetensors.torch.load((made / "encoder" / "model.safetensors").read_bytes())
    state = dict(one.named_parameters())
    assert torch.equal(
        state["base.bert.encoder.layer.0.output.dense.weight"], weights["encoder.layer.0.output.dense.weight"]
    )


def test_models_of_one_base_share_what_is_frozen_and_nothing_that_trains(made: Path) -> None:
    config = config_of(made / "encoder", "sequence-classification", adapt="bitfit")
    one, other = (dict(build_model(config, CLASSES, 1).named_parameters()) for _ in range(2))
    for name, parameter in one.items():
        assert (parameter.data_ptr() == other[name].data_ptr()) != parameter.requires_grad, name
    with torch.no_grad():
        one["base.bert.encoder.layer.0.output.dense.bias"].fill_(9.0)
    again = dict(build_model(config, CLASSES, 1).named_parameters())
    assert not (again["base.bert.encoder.layer.0.output.dense.bias"] == 9.0).any()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_base_of_16_bits_is_widened_once_for_all_models_and_exactly(
    made: Path, tmp_path: Path, kind: torch.dtype
) -> None:
    folder = make_base(tmp_path / "short", "encoder")
    short = {
        name: one.to(kind) for name, one in safetensors.torch.load((folder / "model.safetensors").read_bytes()).items()
    }
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(short))
    config = config_of(folder, "sequence-classification", **LORA)
    one, other = (dict(build_model(config, CLASSES, 1).named_parameters()) for _ in range(2))
    for name, parameter in one.items():
        assert parameter.dtype == torch.float32
        assert (parameter.data_ptr() == other[name].data_ptr()) != parameter.requires_grad, name
    found = one["base.bert.encoder.layer.0.output.dense.weight"]
    assert torch.equal(found, short["encoder.layer.0.output.dense.weight"].float())


def test_a_file_of_a_model_holds_what_trains_alone_and_is_read_back(made: Path) -> None:
    module = built(made / "encoder", "sequence-classification", CLASSES, **LORA)
    load(module, torch.randn(parameter_count(module), generator=torch.Generator().manual_seed(1)).numpy())
    data = safetensors.torch.save({name: one.clone() for name, one in module.state_dict().items()})
    assert sum(one.numel() for one in safetensors.torch.load(data).values()) == parameter_count(module)
    again = built(made / "encoder", "sequence-classification", CLASSES, seed=9, **LORA)
    fit(again, data, "a file")
    assert torch.equal(again.eval()(**texts(3)), module.eval()(**texts(3)))
    with pytest.raises(ConfigError, match=r"does not fit the scenario's model: lacks answer"):
        fit(built(made / "encoder", "feature-extraction", CLASSES, **LORA), data, "a file")


@pytest.mark.parametrize(("kind", "task", "said"), [
    ("encoder", "sequence-classification", LORA),
    ("encoder", "feature-extraction", LORA),
    ("decoder", "causal-lm", OF_GPT),
])  # fmt: skip
def test_what_stands_past_a_text_tells_nothing_and_no_companion_does(
    made: Path, kind: str, task: str, said: dict[str, Any]
) -> None:
    shape = NEXT_TOKEN if task == "causal-lm" else CLASSES
    module = built(made / kind, task, shape, **said).eval()
    short, length = texts(2, length=5), 5
    filled = {**short, "tokens": torch.where(short["mask"] > 0, short["tokens"], 77)}
    of = (slice(None), slice(0, length)) if task == "causal-lm" else (slice(None),)
    assert torch.equal(module(**short)[of], module(**filled)[of])
    # All of one length, or of several: the same mask of attention, bit for bit the same outputs.
    longer = {name: torch.cat([one[:1], texts(2)[name][1:]]) for name, one in short.items()}
    assert torch.equal(module(**short)[0], module(**longer)[0])


@pytest.mark.parametrize("task", ["sequence-classification", "feature-extraction"])
def test_a_text_of_nothing_has_finite_outputs(made: Path, task: str) -> None:
    module = built(made / "encoder", task, CLASSES, **LORA)
    assert bool(module(**texts(2, length=0)).isfinite().all())
    assert module._attended(texts(2, length=0)["mask"]).float().mean(dim=(0, 1, 2)).tolist() == [
        1.0,
        *[0.0] * (LENGTH - 1),
    ]


def test_a_decoder_sees_no_token_that_comes_later(made: Path) -> None:
    module = built(made / "decoder", "causal-lm", NEXT_TOKEN, **OF_GPT).eval()
    one = texts(1)
    other = {**one, "tokens": one["tokens"].clone()}
    other["tokens"][0, 6:] = 5
    before, after = module(**one), module(**other)
    assert torch.equal(before[0, :6], after[0, :6])
    assert not torch.allclose(before[0, 6:], after[0, 6:])


def test_outputs_are_those_of_the_base_itself_as_transformers_runs_it(made: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(made / "decoder").eval()
    ours = built(made / "decoder", "causal-lm", NEXT_TOKEN, **OF_GPT).eval()
    given = texts(3, length=7)
    expected = theirs(input_ids=given["tokens"], attention_mask=given["mask"]).logits
    assert torch.allclose(ours(**given)[:, :7], expected[:, :7], atol=1e-5)


def test_dropout_is_of_adapters_alone_and_by_our_masks(made: Path) -> None:
    module = built(made / "encoder", "sequence-classification", CLASSES, **LORA, dropout=0.3)
    ours = [one for one in module.modules() if isinstance(one, Dropout)]
    theirs = [one for one in module.modules() if isinstance(one, nn.Dropout)]
    assert [one.rate for one in ours] == [0.3] * 4
    assert theirs
    assert all(one.p == 0 for one in theirs)


def test_nothing_asks_a_network(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert parameter_count(built(made / "encoder", "feature-extraction", CLASSES, **LORA))


def test_a_base_of_another_architecture_or_of_other_weights_is_refused_in_one_line(made: Path, tmp_path: Path) -> None:
    def refused(folder: Path, task: str, shape: DataShape, told: str, **said: Any) -> None:
        with pytest.raises(ConfigError, match=told) as found:
            built(folder, task, shape, **said)
        assert "\n" not in str(found.value)

    refused(made / "decoder", "masked-lm", NEXT_TOKEN, "'gpt2', for which transformers has no model of task", **OF_GPT)
    refused(made / "encoder", "sequence-classification", CLASSES, "no linear layer 'c_attn'; it has", **OF_GPT)
    refused(made / "decoder", "causal-lm", NEXT_TOKEN, "leaves nothing to train: the base lacks no head", adapt="head")
    longer = {name: ArrayShape((64,), one.below) for name, one in INPUTS.items()}
    refused(made / "encoder", "feature-extraction", DataShape((), 3, inputs=longer), "has positions for 32", **LORA)
    many = {**INPUTS, "tokens": ArrayShape((LENGTH,), 300)}
    refused(made / "encoder", "feature-extraction", DataShape((), 3, inputs=many), "the base knows 257", **LORA)
    refused(made / "encoder", "feature-extraction", DataShape((4,), 3), "takes texts, arrays", **LORA)
    for name, change, told in (
        ("unknown", {"model_type": "no-such"}, "architecture 'no-such', for which"),
        ("wider", {"hidden_size": 64}, "are missing or of another shape, such as"),
        ("deeper", {"num_hidden_layers": 3}, "are missing or of another shape, such as"),
        ("odd", {"num_attention_heads": 5}, "cannot be built as BertModel"),
    ):
        folder = make_base(tmp_path / name, "encoder")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        refused(folder, "feature-extraction", CLASSES, told, **LORA)


def test_attention_is_not_computed_by_code_that_a_base_names(made: Path, tmp_path: Path) -> None:
    folder = make_base(tmp_path / "named", "encoder")
    config = json.loads((folder / "config.json").read_text())
    named = {"attn_implementation": "some/kernel", "_attn_implementation": "some/kernel"}
    (folder / "config.json").write_text(json.dumps({**config, **named}))
    module = built(folder, "feature-extraction", CLASSES, **LORA)
    assert module.base.config._attn_implementation == "sdpa"  # type: ignore[union-attr]


@pytest.mark.parametrize(("said", "told"), [
    ({"targets": []}, "needs targets"),
    ({"adapt": "head", "targets": ["query"]}, "targets are of adapt"),
    ({"adapt": "bitfit", "targets": [], "rank": 4}, "rank is of adapt"),
    ({"targets": ["query"], "init": "zero"}, "would train nothing by adapters"),
    ({"targets": ["query"], "task": "translation"}, "sequence-classification"),
    ({"targets": ["query"], "use": "hf:"}, "names no base"),
])  # fmt: skip
def test_a_section_that_says_what_cannot_be_is_refused(made: Path, said: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        config_of(made / "encoder", **{"task": "feature-extraction", **said})


def test_a_document_names_the_base_by_its_hash_and_no_folder(made: Path) -> None:
    config = config_of(made / "encoder", "feature-extraction", **LORA)
    written = config.model_dump(mode="json")
    assert "use" not in written
    assert str(made) not in json.dumps(written)
    assert len(written["sha256"]) == 64
    again = type(config).model_validate(written)
    assert again.settled().sha256 == config.sha256
    other = config.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ConfigError, match="and the scenario says 0000000000000000"):
        other.settled()
