"""Pre-training at the server and fine-tuning under privacy, against privacy alone; and what a model gives away.

    python benchmarks/pretraining.py --folder FOLDER [--seeds 5] [--epsilon E]... [--steps 1000]
    python benchmarks/pretraining.py --folder FOLDER --exposure [--copies 1]

FOLDER is what `mail.py` wrote; a record is the first 48 bytes of a message. Public text is what Python's own manual
says (`pydoc_data.topics`), which every Python has. The model is the same both times and all of it trains; what differs
is whether it begins from random parameters or from those that public text left, `init = {file, trained_on = "public"}`.
Pre-training is done once; partition, lots and noise differ between seeds.

`--exposure` trains with five secrets among the messages, each "the pin of NAME is DDDD" with digits at random, so many
copies of each, and tells their exposure (Carlini et al. 2019, section 4.2): with a loss of each of the 10,000 pins that
there could be,

    exposure = log2 10,000 - log2 of the rank of the true one

13.3 bits where the true pin is the likeliest of all, and 1.4 on average where the model knows nothing of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import pydoc_data.topics
import random
import statistics
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import byte_model
import safetensors.torch
import torch
from torch import nn

from fedmodel.config import Scenario, read_scenario
from fedmodel.data.tokens import coded
from fedmodel.kinds import own_code
from fedmodel.learning.models import build_model
from scenarios.simulation.simulate import check_scenario, placed, run_folder, simulate

_SCENARIO: Final = Path(__file__).with_name("pretraining.toml")
_FIRST_SEED: Final = 11
_NAMES: Final = ("anna", "bela", "cora", "dina", "edda")
_PINS: Final = 10_000
_LOT: Final = 64
_LONG: Final = ["rounds=20", "training.local_steps=15"]  # so long that a secret can be learnt
_NO_PRIVACY: Final = "privacy.baseline=no-noise-no-clip"


def scenario_of(folder: Path, settings: Sequence[str], seed: int) -> Scenario:
    """Return the scenario on a folder of messages."""
    own_code.hand_over("byte_model:net", byte_model.net)
    return placed(read_scenario(str(_SCENARIO), [f"data.folder={folder}", *settings, f"seed={seed}"]))


def run(scenario: Scenario) -> tuple[dict[str, Any], nn.Module]:
    """Return the figures of a run on the held-out messages, and its model."""
    parameters = check_scenario(scenario)
    with TemporaryDirectory() as name, run_folder(scenario, Path(name) / "run") as run_dir:
        summary = simulate(scenario, parameters, "in-process", "cpu", run_dir, nullcontext())
        module = build_model(scenario.model, scenario.data.shape, seed=0)
        module.load_state_dict(safetensors.torch.load((run_dir / "model.safetensors").read_bytes()))
    return summary["metrics"], module


def public_texts(length: int) -> list[str]:
    """Return the manual, cut into pieces of as many characters as a record has bytes."""
    whole = " ".join(" ".join(pydoc_data.topics.topics.values()).split())
    return [whole[at : at + length] for at in range(0, len(whole), length)]


def pre_trained(scenario: Scenario, steps: int, path: Path) -> Path:
    """Train the scenario's model on public text, and write it down."""
    torch.manual_seed(_FIRST_SEED)
    module = build_model(scenario.model, scenario.data.shape, seed=_FIRST_SEED)
    length = scenario.data.shape.inputs["tokens"].size[0]
    code_NT = torch.from_numpy(coded(public_texts(length), length))
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(steps):
        code_BT = code_NT[torch.randint(len(code_NT), (_LOT,))]
        optimizer.zero_grad()
        _losses(module, code_BT).mean().backward()
        optimizer.step()
    path.write_bytes(safetensors.torch.save(module.state_dict()))
    return path


def _losses(module: nn.Module, code_BT: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each text's bytes, given those before; a code of bytes is its token."""
    logits_BTV = module(tokens=code_BT, mask=(code_BT > 0).long())[:, :-1]
    each_BT = nn.functional.cross_entropy(logits_BTV.mT, code_BT[:, 1:], reduction="none", ignore_index=0)
    return each_BT.sum(dim=1)


def gains(folder: Path, epsilons: Sequence[float], seeds: int, steps: int) -> list[dict[str, Any]]:
    """Return the figures of both beginnings."""
    found = []
    with TemporaryDirectory() as name:
        start = pre_trained(scenario_of(folder, [], _FIRST_SEED), steps, Path(name) / "start.safetensors")
        begun = f"model.init={{file='{start}', trained_on='public'}}"
        for seed in range(_FIRST_SEED, _FIRST_SEED + seeds):
            for epsilon in epsilons:
                for beginning, settings in (("random", []), ("public", [begun])):
                    metrics, _ = run(scenario_of(folder, [f"privacy.epsilon={epsilon}", *settings], seed))
                    found.append({"seed": seed, "epsilon": epsilon, "beginning": beginning, **metrics})
                    print(json.dumps(found[-1]), flush=True)
    return found


def with_secrets(folder: Path, to: Path, copies: int, seed: int) -> dict[str, str]:
    """Copy messages with secrets among those that train, and return the pin of each name."""
    drawn = random.Random(seed)  # noqa: S311 - made-up secrets, which are to repeat themselves
    pins = {name: f"{drawn.randrange(_PINS):04}" for name in _NAMES}
    for part in ("train", "held-out"):
        (to / part).mkdir(parents=True)
        lines = (folder / part / "all.jsonl").read_text().splitlines()
        if part == "train":
            lines += [json.dumps({"text": said(*one)}) for one in pins.items() for _ in range(copies)]
        (to / part / "all.jsonl").write_text("\n".join(lines) + "\n")
    return pins


def said(name: str, pin: str) -> str:
    """Return a secret's text."""
    return f"the pin of {name} is {pin}"


def exposure(module: nn.Module, name: str, pin: str, length: int) -> float:
    """Return how much a model gives away of a pin, in bits: a tie counts against it."""
    code_NT = torch.from_numpy(coded([said(name, f"{one:04}") for one in range(_PINS)], length))
    with torch.no_grad():
        loss_N = torch.cat([_losses(module.eval(), some) for some in code_NT.split(1_000)])
    rank = int((loss_N <= loss_N[int(pin)]).sum())
    return math.log2(_PINS) - math.log2(rank)


def exposures(folder: Path, copies: int, steps: int, epsilons: Sequence[float]) -> list[dict[str, Any]]:
    """Return the exposure of each secret: of the public model, and of what training it on made of that."""
    found = []
    with TemporaryDirectory() as name:
        to, seed = Path(name) / "mail", _FIRST_SEED
        pins = with_secrets(folder, to, copies, seed)
        plain = scenario_of(to, _LONG, seed)
        start = pre_trained(plain, steps, Path(name) / "start.safetensors")
        before = build_model(plain.model, plain.data.shape, seed=0)
        before.load_state_dict(safetensors.torch.load(start.read_bytes()))
        begun = f"model.init={{file='{start}', trained_on='public'}}"
        length = plain.data.shape.inputs["tokens"].size[0]
        ways = {"before": None, "no privacy": [_NO_PRIVACY]}
        ways |= {f"epsilon {epsilon:g}": [f"privacy.epsilon={epsilon}"] for epsilon in epsilons}
        for way, settings in ways.items():
            metrics: dict[str, Any] = {}
            module = before
            if settings is not None:
                metrics, module = run(scenario_of(to, [*_LONG, begun, *settings], seed))
            bits = [exposure(module, *one, length) for one in pins.items()]
            found.append({"way": way, "copies": copies, "exposure": bits, **metrics})
            print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epsilon", type=float, action="append")
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--exposure", action="store_true")
    parser.add_argument("--copies", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    folder, epsilons = asked.folder.absolute() / "mail", asked.epsilon or [1.0, 3.0, 8.0]
    if asked.exposure:
        for one in exposures(folder, asked.copies, asked.steps, epsilons):
            print(f"{one['way']}: {statistics.mean(one['exposure']):.1f} bits on average", file=sys.stderr)
        return
    gains(folder, epsilons, asked.seeds, asked.steps)


if __name__ == "__main__":
    main()
