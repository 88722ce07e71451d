"""Tasks of a base from end to end, by the command: a run and its report, the model in use, and what others get.

That of a text's class is run in `test_on_a_base`, and by the page on large models.

What is expected is computed here from the exported folder, by peft and transformers alone.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

import fedmodel as fm
from fedmodel.config import read_scenario
from fedmodel.data import held_out_records
from fedmodel.kinds import bases, pretrained
from fedmodel.kinds.shape import IGNORED
from tests.bases import OF_PEFT, scenario_on
from tests.scenarios.cli.test_main import Run

LETTERS = "abcdefgh"
MASK = 10  # the base's own mask token
QUERY: dict[str, Any] = {"targets": ["query"]}
WAYS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "feature-extraction": ("encoder", "AutoModel", QUERY, {}),
    "token-classification": (
        "encoder", "AutoModelForTokenClassification", QUERY,
        {"task": "sequence-labels", "text": "words", "label": "tags", "labels": ["low", "high", "other"]},
    ),
    "causal-lm": (
        "decoder", "AutoModelForCausalLM", {"targets": ["c_attn"]}, {"task": "next-token", "labels": None},
    ),
    "masked-lm": ("masked", "AutoModelForMaskedLM", QUERY, {"task": "next-token", "labels": None}),
}  # fmt: skip


def written(folder: Path, task: str) -> Path:
    """Write a scenario of a task, with texts for it."""
    kind, _, model, data = WAYS[task]
    said = {"model": {"task": task, **model}, "data": data, "training": {"learning_rate": 1.0}}
    path = scenario_on(folder, kind, **said)
    if "tags" in data.values():
        words = [[LETTERS[(number + place) % 8] for place in range(1 + number % 4)] for number in range(48)]
        lines = [{"words": one, "tags": [["low", "high"][word > "d"] for word in one]} for one in words]
        (folder / "texts" / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return path


def opened(folder: Path, base: Path, task: str, outputs: int) -> nn.Module:
    """Return the exported folder as others open it."""
    import transformers
    from peft import PeftModel

    name = WAYS[task][1]
    classes = {"num_labels": outputs} if "Classification" in name else {}
    found: nn.Module = PeftModel.from_pretrained(getattr(transformers, name).from_pretrained(base, **classes), folder)
    return found.eval()


def outputs_of(theirs: nn.Module, folder: Path, task: str, token_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Return a task's outputs, by the exported folder alone."""
    if task == "feature-extraction":
        hidden_NTH = theirs(input_ids=token_NT, attention_mask=mask_NT).last_hidden_state
        answer = safetensors.torch.load((folder / "answer.safetensors").read_bytes())
        mean_NH = (hidden_NTH * mask_NT[:, :, None]).sum(1) / mask_NT.sum(1, keepdim=True)
        return functional.linear(mean_NH, answer["weight"], answer["bias"])
    if task != "masked-lm":
        found: Tensor = theirs(input_ids=token_NT, attention_mask=mask_NT).logits
        return found
    # A place tells of the next token, with that token and every seventh one from it hidden.
    count, length = token_NT.shape
    next_NTV = torch.zeros(count, length, 257)
    for place in range(1, length):
        hidden_NT = token_NT.clone()
        hidden_NT[:, [one for one in range(1, length) if (one - place) % 7 == 0]] = MASK
        next_NTV[:, place - 1] = theirs(input_ids=hidden_NT, attention_mask=mask_NT).logits[:, place]
    return next_NTV


@pytest.mark.filterwarnings(OF_PEFT)
@pytest.mark.parametrize("task", WAYS)
def test_a_task_runs_is_reported_used_and_handed_on(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = written(tmp_path, task), Run(monkeypatch, capsys, tmp_path)
    assert run("simulate", str(path), "--out", "run", "--report") == 0, run.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["privacy"][0]["steps"] == 1
    bases.lie_at({}, tmp_path)  # as another process, which knows of no base
    pretrained._loaded.cache_clear()
    run("report", "verify", "run")
    assert "every figure of its report follows from the folder" in run.out
    assert f'task = "{task}"' in (tmp_path / "run" / "scenario.toml").read_text()

    assert run("export", "run", "--format", "peft", "--base", "base", "--out", "made") == 0, run.err
    scenario = read_scenario(str(tmp_path / "run" / "scenario.toml"))
    records, shape = held_out_records(scenario), scenario.data.shape
    token_NT, mask_NT = (torch.tensor(records.x[name]) for name in ("tokens", "mask"))
    theirs = opened(tmp_path / "made", tmp_path / "base", task, shape.outputs)
    module = fm.Run.read(tmp_path / "run", base=tmp_path / "base").model
    assert any(float(one.abs().max()) > 0 for name, one in module.state_dict().items() if "lora_B" in name)
    with torch.no_grad():
        expected_N = outputs_of(theirs, tmp_path / "made", task, token_NT, mask_NT)
        found_N = module(tokens=token_NT, mask=mask_NT)
    stands = mask_NT[:, :, None] if found_N.dim() == 3 else 1
    assert torch.allclose(found_N * stands, expected_N * stands, atol=1e-4)
    target_N = torch.tensor(records.y_N)
    if found_N.dim() == 3:  # the figures are those of the exported model, too
        counts_NT = target_N != IGNORED
        assert 0 < int(counts_NT.sum()) < counts_NT.numel()
        right = float((expected_N.argmax(-1) == target_N)[counts_NT].double().mean())
        loss_NT = functional.cross_entropy(expected_N.mT, target_N, reduction="none", ignore_index=IGNORED)
        figures = summary["metrics"]
        assert figures["token-accuracy"] == pytest.approx(right, abs=1e-6)
        mean = float(loss_NT[counts_NT].mean())
        assert figures["perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)

    (tmp_path / "new.jsonl").write_text("\n".join(json.dumps({"text": one}) for one in ("good 1", "bad")))
    done = run("predict", "run", "new.jsonl", "--base", "base", "--json")
    if found_N.dim() == 3:
        assert done == 2
        assert run.err.count("\n") == 1
        assert "no column of a table is known to be one of them; use the model from Python" in run.err
        return
    assert done == 0, run.err
    scores = [row["probabilities"] for row in json.loads(run.out)["scores"]]
    code_NT = torch.zeros(2, 8, dtype=torch.long)
    for row, text in enumerate((b"good 1", b"bad")):
        code_NT[row, : len(text)] = torch.tensor(list(text)) + 1
    with torch.no_grad():
        expected_N = outputs_of(theirs, tmp_path / "made", task, code_NT, (code_NT > 0).long())
    assert np.allclose([row["bad"] for row in scores], torch.sigmoid(expected_N[:, 0]), atol=1e-5)
