"""The one command for a machine with a GPU: refused without one, and every step's end is in its JSON."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests import gpu


def test_without_a_gpu_it_says_so_in_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "no CUDA device is available here, so nothing was tested; run this on a machine with one"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("steps", "status"), [(("good", "able"), 0), (("bad", "good"), 1), (("slow",), 1), (("blind",), 1)]
)
def test_what_each_step_found_is_in_one_json(
    steps: tuple[str, ...], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = {
        "good": "import json, sys; print('chatter'); print(json.dumps({'out': sys.argv[1]}))",
        "bad": "import sys; print('what was seen'); sys.exit('why')",
        "able": 'print(\'{"metrics": {"accuracy": 0.9}}\')',
        "blind": 'print(\'{"metrics": {"accuracy": 0.5}}\')',
        "slow": "import time; time.sleep(600)",
    }
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(gpu, "_MOST_S", 0.0 if "slow" in steps else 60.0)  # a step has a second all the same
    monkeypatch.setattr(gpu, "STEPS", {name: ("-c", code[name], "{out}") for name in steps})
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == status
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["versions"]["torch"]
    if "bad" in steps:
        assert found["bad"]["found"] == ["what was seen", "why"]
        assert not found["bad"]["passed"]
        assert found["good"]["passed"]
        assert not Path(found["good"]["found"]["out"]).exists()
    if "slow" in steps:
        assert found["slow"]["found"] == "ran out of time"


def test_every_step_is_a_command_that_there_is() -> None:
    root = Path(gpu.__file__).parents[1]
    for words in gpu.STEPS.values():
        assert words[0] == "-m" or (root / words[0]).is_file()
        for one in words:
            assert not one.startswith("tests/") or (root / one).exists(), one


def test_the_benchmark_takes_steps_of_every_model_adapters_too_in_both_precisions() -> None:
    program, *words = gpu.STEPS["benchmark"]
    assert program == "benchmarks/dp_sgd.py"
    assert "--model" not in words  # which leaves some out
    assert "--way" not in words
    assert [after for word, after in pairwise(words) if word == "--precision"] == ["float32", "bf16"]
    assert ("--device", "cuda") in pairwise(words)
