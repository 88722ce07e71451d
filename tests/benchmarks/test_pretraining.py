"""What the benchmark of pre-training measures with: a decoder that sees no later byte, and exposure as defined."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from fedmodel.data.tokens import coded

_FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
_LENGTH = 30


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(_FOLDER))
    return importlib.import_module("pretraining")


class _Knows(nn.Module):
    """Logits by which the next byte is one text's, or by which all bytes are alike."""

    def __init__(self, text: str | None) -> None:
        super().__init__()
        self._code_T = None if text is None else torch.from_numpy(coded([text], _LENGTH))[0]

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        logits_BTV = torch.zeros(*mask.shape, 257)
        if self._code_T is not None:
            logits_BTV[:, torch.arange(_LENGTH - 1), self._code_T[1:]] = 1.0
        return logits_BTV


def test_exposure_is_all_bits_of_what_is_known_by_heart_and_none_of_what_is_not(benchmark: ModuleType) -> None:
    knows = _Knows(benchmark.said("anna", "0472"))
    assert benchmark.exposure(knows, "anna", "0472", _LENGTH) == pytest.approx(math.log2(10_000))
    # Of those with three digits in common there are 36 besides; all are likelier than one with none.
    assert benchmark.exposure(knows, "anna", "1472", _LENGTH) == pytest.approx(math.log2(10_000 / 37))
    assert benchmark.exposure(_Knows(None), "anna", "0472", _LENGTH) == 0.0


def test_the_decoder_sees_no_later_byte(benchmark: ModuleType) -> None:
    torch.manual_seed(1)
    module = benchmark.byte_model.Net(257, _LENGTH, 16, 2, 4)
    code_BT = torch.from_numpy(coded(["the pin of anna is 0472", "the pin of anna is 9999"], _LENGTH))
    same = len("the pin of anna is ")
    one_TV, two_TV = module(tokens=code_BT, mask=(code_BT > 0).long())
    assert torch.equal(one_TV[:same], two_TV[:same])
    assert not torch.equal(one_TV[same], two_TV[same])


def test_secrets_lie_among_what_trains_and_not_among_what_is_held_out(benchmark: ModuleType, tmp_path: Path) -> None:
    for part in ("train", "held-out"):
        (tmp_path / "mail" / part).mkdir(parents=True)
        (tmp_path / "mail" / part / "all.jsonl").write_text(json.dumps({"text": part}) + "\n")
    pins = benchmark.with_secrets(tmp_path / "mail", tmp_path / "with", 3, seed=1)
    read = {
        part: [json.loads(line)["text"] for line in (tmp_path / "with" / part / "all.jsonl").read_text().splitlines()]
        for part in ("train", "held-out")
    }
    assert read["held-out"] == ["held-out"]
    assert sorted(read["train"]) == sorted(["train", *(benchmark.said(*one) for one in pins.items() for _ in range(3))])


def test_public_text_is_cut_to_records(benchmark: ModuleType) -> None:
    texts = benchmark.public_texts(48)
    assert len(texts) > 5_000
    assert {len(one) for one in texts[:-1]} == {48}
