"""All that needs a GPU, in one command: `make test-gpu`, or `python -m tests.gpu [--out FILE]`, in under eight minutes.

    conformance   is a record's gradient its own on the card, and does one record move a sum by at most the clip
    tests         every other test marked `gpu`
    hospitals, digits    simulated with `--device cuda`, digits in bf16 too
    benchmark     a step by every way and in both precisions, on the card: time and memory over the step without privacy

One JSON object is written: what each found, how long it took, the card and the versions. The exit status is 0 where all
went well. A machine without a GPU is told so in one line, with status 1.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

_MOST_S: Final = 460.0  # of eight minutes, for all of it
_LEAST_ACCURACY: Final = 0.8  # which both scenarios pass by far where they train at all
_HERE: Final = Path(__file__).resolve().parents[1]
_PYTEST: Final = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu")
_FEDMODEL: Final = ("-m", "fedmodel", "simulate")
_LEARNING: Final = "tests/fedmodel/learning"
STEPS: Final[Mapping[str, Sequence[str]]] = {
    "conformance": (*_PYTEST, _LEARNING),
    "tests": (*_PYTEST, "tests", "--ignore", _LEARNING, "--deselect", "tests/scenarios/cli/test_main.py"),
    "hospitals": (*_FEDMODEL, "hospitals", "--device", "cuda", "--no-report", "--json", "--out", "{out}/hospitals"),
    "digits": (*_FEDMODEL, "digits", "--device", "cuda", "--no-report", "--json", "--out", "{out}/digits"),
    "digits in bf16": (
        *_FEDMODEL,
        "digits",
        "--set",
        "training.precision=bf16",
        "--device",
        "cuda",
        "--no-report",
        "--json",
        "--out",
        "{out}/rounded",
    ),
    "benchmark": (
        "benchmarks/dp_sgd.py",
        "--device",
        "cuda",
        "--precision",
        "float32",
        "--precision",
        "bf16",
        "--json",
        "--rounds",
        "5",
    ),
}
"""By name, what Python is started with, in this order."""


def carried_out(steps: Mapping[str, Sequence[str]], most_s: float) -> dict[str, dict[str, Any]]:
    """Run one step after the other, and return what each found; one for which no time is left has not passed."""
    deadline, found = time.monotonic() + most_s, {}
    with TemporaryDirectory() as out:
        for name, words in steps.items():
            _say(f"{name} ...")
            found[name] = _carried_out([one.replace("{out}", out) for one in words], deadline - time.monotonic())
    return found


def _carried_out(words: Sequence[str], left_s: float) -> dict[str, Any]:
    """Run one step."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=_HERE, capture_output=True, text=True, check=False, timeout=max(1.0, left_s)
        )
    except subprocess.TimeoutExpired:
        return {"passed": False, "seconds": round(time.monotonic() - began, 1), "found": "ran out of time"}
    lines = done.stdout.strip().splitlines()
    last = lines[-1] if lines else ""
    try:
        found = json.loads(last)
    except ValueError:
        found = last
    passed = done.returncode == 0
    if passed and isinstance(found, dict) and "metrics" in found:
        passed = found["metrics"]["accuracy"] > _LEAST_ACCURACY
    if done.returncode:
        found = [*lines[-20:], *done.stderr.strip().splitlines()[-20:]]
    return {"passed": passed, "seconds": round(time.monotonic() - began, 1), "found": found}


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def surroundings() -> dict[str, Any]:
    """Return the cards and the versions."""
    import torch

    cards = [torch.cuda.get_device_name(card) for card in range(torch.cuda.device_count())]
    versions = {name: importlib.metadata.version(name) for name in ("torch", "opacus", "numpy", "flwr")}
    return {"cards": cards, "cuda": torch.version.cuda, "cores": os.cpu_count(), "versions": versions}


def main(words: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="where the JSON goes")
    out = parser.parse_args(words).out
    import torch

    if not torch.cuda.is_available():
        _say("no CUDA device is available here, so nothing was tested; run this on a machine with one")
        return 1
    found = carried_out(STEPS, _MOST_S)
    out.write_text(json.dumps({**surroundings(), **found}, indent=1) + "\n")
    failed = [name for name, one in found.items() if not one["passed"]]
    _say(f"{out}: " + (f"not passed: {', '.join(failed)}" if failed else "all passed"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
