"""Adapters: which layers have one, and that what is saved of them is what peft reads, of every task."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fedmodel.errors import ConfigError
from fedmodel.kinds import pretrained
from fedmodel.kinds.adapted import mean_of_text
from fedmodel.kinds.adapters import IN_NAMES, Lora, as_peft_saves, with_lora
from fedmodel.kinds.hidden import in_turn
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.models import build_model
from tests.bases import CLASSES, LABELS, LENGTH, NEXT_TOKEN, OF_PEFT, TOKENS, config_of, make_base

LORA: dict[str, Any] = {"targets": ["query", "dense"], "rank": 3, "alpha": 5.0, "dropout": 0.1}
WAYS: dict[str, tuple[str, str, DataShape, str, dict[str, Any]]] = {
    "classes": ("encoder", "sequence-classification", CLASSES, "AutoModelForSequenceClassification", LORA),
    "a pooler of no base": ("masked", "sequence-classification", CLASSES, "AutoModelForSequenceClassification", LORA),
    "each token": ("encoder", "token-classification", LABELS, "AutoModelForTokenClassification", LORA),
    "hidden": ("masked", "masked-lm", NEXT_TOKEN, "AutoModelForMaskedLM", LORA),
    "features": ("encoder", "feature-extraction", CLASSES, "AutoModel", LORA),
    "next token": ("decoder", "causal-lm", NEXT_TOKEN, "AutoModelForCausalLM", {"targets": ["c_attn"], "rank": 2}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for kind in ("encoder", "masked", "decoder"):
        make_base(folder / kind, kind)
    return folder


class Loud(ModuleType):
    """A module that warns of another as it is imported, and is not there in the end."""

    def __getattr__(self, name: str) -> Any:
        logging.getLogger("torchao").warning("Failed to load")
        raise ModuleNotFoundError(name)


def test_whoever_lacks_peft_is_told_so_and_nothing_of_what_peft_imports(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "peft", Loud("peft"))
    with pytest.raises(ConfigError, match="peft is not installed here"):
        with_lora(nn.Sequential(nn.Linear(2, 2)), Lora(("0",), 1, 1.0, 0.0))
    assert caplog.messages == []


class LoudTable:
    """Architectures of transformers, which warns of another library as it imports one."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __contains__(self, key: Any) -> bool:
        return key in self._table

    def __getitem__(self, key: Any) -> Any:
        logging.getLogger("torchao").warning("Failed to load")
        return self._table[key]


def test_nothing_is_told_of_what_transformers_imports(
    made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    auto, name = pretrained._transformers(), "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING"
    models = SimpleNamespace(**{name: LoudTable(getattr(auto.models, name))})
    monkeypatch.setattr(pretrained, "_transformers", lambda: SimpleNamespace(**{**vars(auto), "models": models}))
    build_model(config_of(made / "encoder", "sequence-classification", **LORA), CLASSES, seed=0)
    assert "Failed to load" not in caplog.messages


def moved(module: nn.Module) -> nn.Module:
    """Move what trains off its beginning, where an adapter adds nothing."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for one in module.parameters():
            if one.requires_grad:
                one.add_(0.3 * torch.randn(one.shape, generator=generator))
    return module.eval()


@pytest.mark.filterwarnings(OF_PEFT)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_saved_is_read_by_peft_with_the_same_outputs(made: Path, tmp_path: Path, way: str) -> None:
    import transformers
    from peft import PeftModel

    kind, task, shape, theirs, said = WAYS[way]
    module = moved(build_model(config_of(made / kind, task, **said), shape, seed=1))
    inner = {name.removeprefix("base."): one for name, one in module.state_dict().items() if name[:5] == "base."}
    for name, data in as_peft_saves(module.get_submodule("base"), inner, task).items():
        (tmp_path / name).write_bytes(data)
    classes = {"num_labels": shape.outputs} if "Classification" in theirs else {}
    base = getattr(transformers, theirs).from_pretrained(made / kind, **classes)
    again = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    mask_BT = (torch.arange(LENGTH) < torch.tensor([LENGTH, 5, 1])[:, None]).long()
    token_BT = torch.randint(1, TOKENS, mask_BT.shape, generator=torch.Generator().manual_seed(3)) * mask_BT
    with torch.no_grad():
        found = again(input_ids=token_BT, attention_mask=mask_BT)
        expected = module(tokens=token_BT, mask=mask_BT)
        answered = (
            module.answer(mean_of_text(found.last_hidden_state, mask_BT))  # type: ignore[operator]
            if task == "feature-extraction"
            else in_turn(lambda one: again(input_ids=one, attention_mask=mask_BT).logits, token_BT, 10)
            if task == "masked-lm"
            else found.logits
        )
    stands = mask_BT[:, :, None] if expected.dim() == 3 else 1
    assert torch.allclose(answered * stands, expected * stands, atol=1e-5)


def test_what_is_saved_names_no_folder_and_says_what_an_adapter_is(made: Path) -> None:
    module = build_model(config_of(made / "encoder", "sequence-classification", **LORA), CLASSES, seed=1)
    inner = {name.removeprefix("base."): one for name, one in module.state_dict().items()}
    told = json.loads(
        as_peft_saves(module.get_submodule("base"), inner, "sequence-classification")["adapter_config.json"]
    )
    assert (told["r"], told["lora_alpha"], told["lora_dropout"], told["task_type"]) == (3, 5.0, 0.1, "SEQ_CLS")
    assert told["modules_to_save"] == ["classifier"]
    assert told["base_model_name_or_path"] is None


def test_a_layer_that_the_base_lacks_trains_whole_and_has_no_adapter(made: Path) -> None:
    """An adapter would freeze the layer at what was drawn for it."""
    config = config_of(made / "masked", "sequence-classification", **LORA)
    module = build_model(config, CLASSES, seed=1)
    named = {name: one.requires_grad for name, one in module.named_parameters()}
    assert not any("pooler" in name and IN_NAMES in name for name in named)
    assert named["base.bert.pooler.dense.weight"]
    one, other = (dict(build_model(config, CLASSES, seed).named_parameters()) for seed in (1, 2))
    assert all(torch.equal(one[name], other[name]) for name, trains in named.items() if not trains)
    with pytest.raises(ConfigError, match="no linear layer 'classifier'; it has"):
        build_model(config_of(made / "encoder", "sequence-classification", targets=["classifier"]), CLASSES, seed=1)
