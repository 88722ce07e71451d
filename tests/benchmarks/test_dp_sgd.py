"""What the benchmark of a step compares is one and the same step, however it is taken."""

import importlib
import json
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from fedmodel.learning.gradients import KINDS

_FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(_FOLDER))
    return importlib.import_module("dp_sgd")


def test_every_way_but_the_plain_one_takes_the_same_step_without_noise(benchmark: ModuleType) -> None:
    trial = benchmark.TRIALS["mlp"]
    moved = {}
    torch.manual_seed(1)
    x_B, y_B = trial.records(64)
    x_B *= 30  # of which most gradients are clipped, and some are not
    for way, stepping in benchmark.ways(benchmark.ALL).items():
        if way == "fastDP":
            continue
        torch.manual_seed(2)
        module = trial.build()
        before_P = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
        stepping(module, 0.0)(x_B, y_B)
        moved[way] = torch.nn.utils.parameters_to_vector(module.parameters()).detach() - before_P
    first = moved["opacus hooks"]
    ours = [way for way in moved if way.startswith("fedmodel ")]
    assert len(ours) == 2 * len({*KINDS.values()})  # an alias is none of its own
    rounded = [way for way in moved if way.endswith(" bf16")]
    assert [*moved][: len(moved) - len(rounded)] == [way for way in benchmark.ways() if way != "fastDP"]
    assert [*benchmark.ways(["bf16"])] == ["plain", *rounded]
    assert (moved["plain"] - first).norm() > 0.1 * first.norm()
    for way, own in moved.items():  # book-keeping shrinks the clip by less than 2^-8 for its rounding
        apart = float((own - first).norm() / first.norm())
        assert way.startswith("plain") or apart <= 2.0 ** (-4 if way in rounded else -8), way
        assert way not in rounded or apart > 2.0**-11, way


def test_noise_moves_a_step_only_where_it_is_asked_for(benchmark: ModuleType) -> None:
    trial = benchmark.TRIALS["mlp"]
    x_B, y_B = trial.records(64)
    for way in ("fedmodel functional", "opacus hooks"):
        for noise in (0.0, 1.0):
            moved = []
            for _ in range(2):
                torch.manual_seed(2)
                module = trial.build()
                step = benchmark.ways()[way](module, noise)
                torch.manual_seed(torch.seed())
                step(x_B, y_B)
                moved.append(torch.cat([one.detach().reshape(-1) for one in module.parameters()]))
            assert torch.equal(*moved) == (noise == 0), (way, noise)


def test_a_way_that_takes_no_such_model_says_why(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object) -> None:
        raise ValueError("no such layer\nand more")

    monkeypatch.setattr(benchmark, "ways", lambda _: {"plain": refusing})
    benchmark.child("plain", "mlp", torch.device("cpu"))
    told = json.loads(capsys.readouterr().out)
    assert told == {"refused": "ValueError: no such layer"}
    assert "| plain | ValueError: no such layer | | | | |" in list(benchmark.table("mlp", {"plain": told}))


def test_a_model_of_texts_is_measured_in_tokens_a_second_and_no_other(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [{"memory": 4, "resident": 1}, {"memory": 8, "resident": 1}]
    turn = [{"step": 2.0, "without noise": 1.0}, {"step": 4.0, "without noise": 1.0}]
    monkeypatch.setattr(benchmark.subprocess, "Popen", lambda *_, **__: nullcontext(SimpleNamespace(stdin=StringIO())))
    for model in ("adapters", "mlp"):
        left = iter([*map(dict, first), *turn])
        monkeypatch.setattr(benchmark, "_line", lambda _, left=left: next(left))
        found = benchmark.compared(model, "cpu", 1, ["plain", "fedmodel book-keeping"])
        rows = list(benchmark.table(model, found))
        assert {row.count("|") for row in rows} == {8 if model == "adapters" else 7}
        told = [one.get("tokens a second") for one in found.values()]
        assert told == ([64 * 64 / 2, 64 * 64 / 4] if model == "adapters" else [None, None])
    assert rows[0].endswith("| MB |")
    for trial in benchmark.TRIALS.values():
        x_B, _ = trial.records(2)
        assert trial.tokens == (0 if x_B.is_floating_point() else x_B.shape[1])
