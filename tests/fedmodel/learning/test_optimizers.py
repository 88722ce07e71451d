"""FedProx's pull is post-processing: what is released is the same to the bit. Torch's weight decay is its measure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clients.silo import Silo
from fedmodel import plans
from fedmodel.config import read_scenario
from fedmodel.errors import ConfigError
from fedmodel.learning import vectors
from fedmodel.learning.models import build_model
from fedmodel.learning.optimizers import build_optimizer, hold_near
from fedmodel.privacy.noise import SeededNoise
from fedmodel.wire import TrainRequest
from tests.fakes import trained
from tests.fedmodel.learning.test_dp_sgd import FLAT, MLP, batch, make

MU = 0.3
RATE = 0.2


def stepped(
    received_P: NDArray[np.float32], before_P: NDArray[np.float32], proximal: float, seed: int
) -> tuple[NDArray[np.float32], bytes]:
    """Return where one step ends, and the noised gradient that whoever looked at the optimiser before it saw."""
    module, seen = build_model(MLP, FLAT, seed=1), []
    vectors.load(module, received_P)
    sgd = make(module, noise=SeededNoise(seed), denominator=5, lr=RATE)

    def note(*_: Any) -> None:
        seen.extend(one.grad.numpy().tobytes() for one in module.parameters() if one.grad is not None)

    sgd.optimizer.register_step_pre_hook(note)
    hold_near(sgd.optimizer, proximal)
    vectors.load(module, before_P)
    x, y = batch(FLAT, 8)
    sgd.step(x, y, np.arange(4))
    return vectors.flatten(module), b"".join(seen)


def test_the_noised_gradient_is_the_same_to_the_bit_with_and_without_a_pull() -> None:
    """At whatever parameters a step begins; and the pull is all that the step has besides."""
    received_P = before_P = vectors.flatten(build_model(MLP, FLAT, seed=1))
    for number in range(4):
        plain_P, alone = stepped(received_P, before_P, 0.0, number)
        pulled_P, seen = stepped(received_P, before_P, MU, number)
        assert len(seen) == before_P.nbytes
        assert seen == alone
        assert pulled_P == pytest.approx(plain_P - RATE * MU * (before_P - received_P), abs=1e-6)
        assert (pulled_P != pytest.approx(plain_P, abs=1e-3)) == (number > 0)
        before_P = pulled_P


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_a_pull_enters_where_torchs_weight_decay_does(kind: str) -> None:
    """Before momentum and before Adam's averages: towards zero it is weight decay."""

    def steps(**more: Any) -> Tensor:
        place = nn.Parameter(torch.zeros(6))
        optimizer: torch.optim.Optimizer
        if kind == "adam":
            optimizer = torch.optim.Adam([place], lr=0.1, weight_decay=more.get("weight_decay", 0.0))
        else:
            optimizer = torch.optim.SGD(
                [place], lr=0.1, momentum=0.9 if kind == "momentum" else 0.0, weight_decay=more.get("weight_decay", 0.0)
            )
        hold_near(optimizer, more.get("proximal", 0.0))
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            place.grad = torch.randn(6, generator=generator)
            optimizer.step()
        return place.detach()

    assert torch.allclose(steps(proximal=MU), steps(weight_decay=MU), atol=1e-6)
    assert not torch.allclose(steps(proximal=MU), steps(), atol=1e-2)
    assert steps().equal(steps(proximal=0.0))


@pytest.mark.parametrize(("steps", "differs"), [(1, False), (3, True)])
def test_a_silo_is_charged_the_same_and_pulled_from_its_second_step_on(
    steps: int, differs: bool, tiny_file: Path, tmp_path: Path
) -> None:
    found = []
    for proximal in ("0.0", "1.5"):
        settings = [f"training.local_steps={steps}", "privacy.noise=seeded-unsafe", f"training.proximal={proximal}"]
        scenario = read_scenario(str(tiny_file), settings)
        event = plans.planned_event(scenario.plan("north")).times(steps)
        request = TrainRequest(1, vectors.flatten(build_model(scenario.model, scenario.data.shape, 1)))
        silo = Silo("north", scenario, "1", "cpu", tmp_path, tmp_path)
        found.append((event, trained(silo, event, request)))
    (event, update_P), (same, pulled_P) = found
    assert event == same
    assert (update_P.tobytes() != pulled_P.tobytes()) == differs


def test_a_scenario_without_a_pull_has_the_text_of_before(tiny_file: Path) -> None:
    assert "proximal" not in read_scenario(str(tiny_file), ["training.proximal=0.0"]).model_dump_json()
    assert read_scenario(str(tiny_file), ["training.proximal=0.5"]).training.proximal == 0.5


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (["training.proximal=-0.1"], "training.proximal = -0.1 is not accepted"),
        (["training.proximal=4"], "proximal times learning_rate is 2: from 2 on, each step overshoots"),
        (["training.proximal=8", "training.momentum=0.5"], "is 4: from 3 on"),
        (["training.proximal=0.1", "training.keep_optimizer_state=true"], "leave one of the two out"),
    ],
)
def test_a_pull_that_could_not_work_is_refused(settings: list[str], found: str, tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=found):
        read_scenario(str(tiny_file), settings)


def test_adam_divides_a_pull_and_so_takes_any(tiny_file: Path) -> None:
    read_scenario(str(tiny_file), ["training.proximal=1000.0", "training.optimizer=adam"])


OPTIMIZERS = {
    "sgd": (["training.momentum=0"], lambda places: torch.optim.SGD(places, lr=RATE, momentum=0.0)),
    "momentum": (["training.momentum=0.9"], lambda places: torch.optim.SGD(places, lr=RATE, momentum=0.9)),
    "adam": (["training.momentum=0"], lambda places: torch.optim.Adam(places, lr=RATE)),
    "adagrad": (["training.momentum=0"], lambda places: torch.optim.Adagrad(places, lr=RATE)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_hooks_and_state_are_those_of_torchs_optimiser_to_the_bit(name: str) -> None:
    settings, theirs = OPTIMIZERS[name]
    kind = "sgd" if name == "momentum" else name
    config = read_scenario("digits", [f"training.optimizer={kind}", *settings]).training

    def steps(build: Callable[[nn.Module], torch.optim.Optimizer]) -> tuple[list[bytes], list[str]]:
        module, called = build_model(MLP, FLAT, seed=1), list[str]()
        optimizer, generator = build(module), torch.Generator().manual_seed(1)
        optimizer.register_step_pre_hook(lambda *_: called.append("before"))
        optimizer.register_step_post_hook(lambda *_: called.append("after"))
        for number in range(4):
            if number == 2:  # what a round keeps, and the next one begins with
                kept, optimizer = optimizer.state_dict(), build(module)
                optimizer.load_state_dict(kept)
            for parameter in module.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
            optimizer.zero_grad()
        state = optimizer.state_dict()
        held = [value for each in state["state"].values() for value in each.values() if isinstance(value, Tensor)]
        assert all(one.grad is None and one.is_leaf for one in module.parameters())
        groups = str([{**group, "params": len(group["params"])} for group in state["param_groups"]])
        return [one.detach().numpy().tobytes() for one in (*module.parameters(), *held)], [*called, groups]

    assert steps(lambda module: build_optimizer(config, module, RATE)) == steps(lambda m: theirs([*m.parameters()]))


STEPS = """
import sys, torch
from fedmodel.config import read_scenario
from fedmodel.learning.optimizers import build_optimizer
module = torch.nn.Linear(2, 2)
for kind in ("sgd", "adam", "adagrad"):
    config = read_scenario("digits", [f"training.optimizer={kind}", "training.momentum=0"]).training
    optimizer = build_optimizer(config, module, 0.1)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
    print(kind)
print("torch._dynamo" in sys.modules)
torch.optim.SGD(module.parameters())
print("torch._dynamo" in sys.modules)
"""


def test_optimisers_import_no_compiler() -> None:
    """Which torch imports at an optimiser's first call: as much CPU time as a round of a small model takes."""
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["sgd", "adam", "adagrad", "False", "True"]
