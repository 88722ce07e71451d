"""What privacy costs one training step: time and memory over the same step without privacy, in one interleaved run.

    python benchmarks/dp_sgd.py [--json] [--device cpu|cuda] [--precision float32|bf16]... [--model NAME]...
        [--way NAME]... [--rounds N]

For each of five models at a batch of 64: this project's step by each of its kinds of gradients, Opacus's in each of its
modes, and fastDP's where that is installed. With `--precision bf16` the plain step and this project's are taken in bf16
too; figures are over the plain one in float32 all the same. Every way has a process of its own, so that memory is its
own, and the processes take turns, so that other work on the machine slows all of them alike. A figure of time is the
median, over the turns, of a way's time over that of the plain step in the same turn.

On a CPU time is the processor's, of all threads; on a CUDA device it is between two events on the device's stream.
"memory" is what torch's allocator held at most in one step, the model included; "resident" is by how much the process
grew until then, which counts what others allocate too. A model of texts has the tokens of a lot over the seconds of a
step besides. A way that does not take a model says why.

Measured are steps alone: no model is built, no preflight runs and nothing is charged in them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import torch
from step_models import TRIALS, losses
from torch import Tensor, nn

from fedmodel.config.training import Precision
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import KINDS
from fedmodel.learning.memory import held_at_most
from fedmodel.learning.precision import in_precision
from fedmodel.privacy import grid
from fedmodel.privacy.noise import OsNoise
from fedmodel.privacy.release import release

_BATCH: Final = 64
_CLIP, _NOISE, _RATE = 1.0, 1.0, 0.01
_STEPS: Final = 10  # of a round, for which a silo says that there will be noise
_OPACUS: Final = ("hooks", "functorch", "ew", "ghost")
_PACKAGES: Final = ("torch", "opacus", "numpy", "fastDP")

Step = Callable[[Tensor, Tensor], None]
Way = Callable[[nn.Module, float], Step]
"""From a model and a noise multiplier, or 0, to its step."""
ALL: Final[tuple[Precision, ...]] = get_args(Precision)


def plain(module: nn.Module, _noise: float) -> Step:
    """Return a step without privacy: the mean of the lot's losses, SGD."""
    optimizer = torch.optim.SGD(module.parameters(), lr=_RATE)

    def step(x_B: Tensor, y_B: Tensor) -> None:
        optimizer.zero_grad()
        losses(module(x_B), y_B).mean().backward()
        optimizer.step()

    return step


def ours(kind: str, module: nn.Module, noise: float) -> Step:
    """Return this project's step, as a silo takes it."""
    gradients = KINDS[kind](
        module, losses, max_grad_norm=_CLIP, unit=grid.fine(_NOISE * _CLIP), rows=_BATCH
    )  # fmt: skip
    steps, sources = count(), [OsNoise()]

    def released(sums_L: list[Tensor]) -> list[Tensor]:
        if noise:
            if next(steps) % _STEPS == 0:
                sources[:] = [OsNoise(_STEPS)]
            return release(sums_L, sources[0], noise * _CLIP, _BATCH)
        return [(one / _BATCH).float() for one in sums_L]

    optimizer = torch.optim.SGD(gradients.parameters, lr=_RATE)
    sgd = DpSgd(gradients, optimizer, released, noise_multiplier=_NOISE)
    return lambda x_B, y_B: sgd.step(x_B, y_B, np.arange(len(y_B)))


def opacus(mode: str, module: nn.Module, noise: float) -> Step:
    """Return Opacus's step, as its own engine sets it up; its noise is torch's ordinary generator's."""
    from opacus.grad_sample.utils import prepare_module
    from opacus.optimizers import get_optimizer_class
    from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

    # Expanded weights know nothing of being strict, and ghost clipping clips by itself.
    more = {"hooks": {"strict": False}, "functorch": {"strict": False}, "ew": {}}
    more["ghost"] = {"strict": False, "max_grad_norm": _CLIP, "use_ghost_clipping": True}
    per_record = prepare_module(module, mode, loss_reduction="mean", batch_first=True, **more[mode])
    plain_optimizer = torch.optim.SGD(per_record.parameters(), lr=_RATE)
    optimizer = get_optimizer_class("flat", distributed=False, grad_sample_mode=mode)(
        plain_optimizer, noise_multiplier=noise, max_grad_norm=_CLIP, expected_batch_size=_BATCH
    )

    def step(x_B: Tensor, y_B: Tensor) -> None:
        optimizer.zero_grad()
        loss_B = losses(per_record(x_B), y_B)
        if mode == "ghost":
            DPTensorFastGradientClipping(per_record, optimizer, loss_B, loss_reduction="mean").backward()
            per_record.enable_hooks()
        else:
            loss_B.mean().backward()
        optimizer.step()

    return step


def fastdp(module: nn.Module, noise: float) -> Step:
    """Return fastDP's step by its book-keeping with mixed ghost norms."""
    from fastDP import PrivacyEngine

    engine = PrivacyEngine(
        module, batch_size=_BATCH, sample_size=50_000, epochs=1, noise_multiplier=noise or 1e-9, max_grad_norm=_CLIP,
        clipping_mode="MixOpt", clipping_fn="Abadi", clipping_style="all-layer", loss_reduction="mean",
    )  # fmt: skip
    optimizer = torch.optim.SGD(module.parameters(), lr=_RATE)
    engine.attach(optimizer)

    def step(x_B: Tensor, y_B: Tensor) -> None:
        losses(module(x_B), y_B).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def ways(precisions: Sequence[Precision] = ("float32",)) -> dict[str, Way]:
    """Return the ways to take a step, the plain one in float32 first; of other libraries in that alone."""
    found = _ways()
    own = {name: way for name, way in found.items() if name.startswith(("plain", "fedmodel"))}
    if "float32" not in precisions:
        found = {"plain": found["plain"]}
    if "bf16" in precisions:
        found |= {f"{name} bf16": partial(_rounded, way) for name, way in own.items()}
    return found


def _rounded(way: Way, module: nn.Module, noise: float) -> Step:
    """Return a way's step, the model in bf16."""
    return way(in_precision(module, "bf16"), noise)


def _ways() -> dict[str, Way]:
    """Return the ways in float32."""
    found: dict[str, Way] = {"plain": plain}
    own = [name for name, kind in KINDS.items() if kind.__module__.endswith(f".{name.replace('-', '_')}")]  # no aliases
    found |= {f"fedmodel {kind}": lambda module, noise, kind=kind: ours(kind, module, noise) for kind in own}
    found |= {f"opacus {mode}": lambda module, noise, mode=mode: opacus(mode, module, noise) for mode in _OPACUS}
    return found | {"fastDP": fastdp}


def seconds(device: torch.device, act: Callable[[], None], times: int) -> float:
    """Return the time of a call."""
    if device.type == "cuda":
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        started.record()
        for _ in range(times):
            act()
        ended.record()
        ended.synchronize()
        return started.elapsed_time(ended) / 1e3 / times
    began = time.process_time()
    for _ in range(times):
        act()
    return (time.process_time() - began) / times


def child(way: str, model: str, device: torch.device) -> None:
    """Say that one way takes one model, take turns as lines come in, and at their end say what memory was needed."""
    torch.set_num_threads(1)
    trial = TRIALS[model]
    torch.manual_seed(0)
    x_B, y_B = (one.to(device) for one in trial.records(_BATCH))
    taken: list[Step] = []

    def first() -> None:
        taken.append(ways(ALL)[way](trial.build().to(device), _NOISE))
        taken[0](x_B, y_B)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        held = held_at_most(device, first)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        quiet = ways(ALL)[way](trial.build().to(device), 0.0)
        quiet(x_B, y_B)
    except Exception as error:  # whatever a library raises of a model that it does not take
        print(json.dumps({"refused": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}))
        return
    print(json.dumps({"memory": held, "resident": grown}), flush=True)
    for _ in sys.stdin:
        turn = {
            "step": seconds(device, lambda: taken[0](x_B, y_B), trial.steps),
            "without noise": seconds(device, lambda: quiet(x_B, y_B), trial.steps),
        }
        print(json.dumps(turn), flush=True)


def compared(model: str, device: str, rounds: int, chosen: list[str]) -> dict[str, dict[str, Any]]:
    """Return the figures of each way that takes a model, and the reason of each that does not."""
    found: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        started: dict[str, subprocess.Popen[str]] = {}
        for way in chosen:  # all at once, since importing is most of it, and nothing is timed yet
            words = [sys.executable, __file__, "--child", way, "--model", model, "--device", device]
            started[way] = stack.enter_context(
                subprocess.Popen(  # noqa: S603 - this program again
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    env=os.environ | {"PYTHONWARNINGS": "ignore"},
                )
            )  # fmt: skip
        found |= {way: _line(process) for way, process in started.items()}
        processes = {way: process for way, process in started.items() if "refused" not in found[way]}
        turns: dict[str, list[dict[str, float]]] = {way: [] for way in processes}
        for _ in range(rounds):
            for way, process in processes.items():
                print("turn", file=process.stdin, flush=True)
                turns[way].append(_line(process))
        for process in processes.values():
            process.stdin.close()
    for way, own in turns.items():
        for figure in ("step", "without noise"):
            ratios = [one[figure] / base["step"] for one, base in zip(own, turns["plain"], strict=True)]
            found[way] |= {
                f"{figure} seconds": min(one[figure] for one in own),
                f"{figure} over plain": statistics.median(ratios),
            }
        found[way]["memory over plain"] = found[way]["memory"] / found["plain"]["memory"]
        if TRIALS[model].tokens:
            found[way]["tokens a second"] = _BATCH * TRIALS[model].tokens / found[way]["step seconds"]
    return found


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a child says next: the last thing it printed that is an answer, past what libraries print."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    assert process.stderr is not None
    return {"refused": f"ended: {(process.stderr.read().splitlines() or ['without a word'])[-1]}"}


def surroundings(device: str) -> dict[str, Any]:
    """Return what the figures hang on: the machine and the versions."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    processor = next((one.partition(":")[2].strip() for one in told.splitlines() if one.startswith("model name")), "")
    found = {"processor": processor or platform.processor(), "cores": os.cpu_count(), "versions": versions}
    return found | ({"card": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {})


def table(model: str, found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the rows of one model, as Markdown."""
    of_texts = TRIALS[model].tokens > 0
    yield f"| {model} | step | without noise | memory | seconds | MB |" + " tokens a second |" * of_texts
    yield "|---|---|---|---|---|---|" + "---|" * of_texts
    for way, row in found.items():
        if "refused" in row:
            yield f"| {way} | {row['refused'][:90]} | | | | |" + " |" * of_texts
            continue
        ratios = [f"{row[key]:.2f}" for key in ("step over plain", "without noise over plain", "memory over plain")]
        line = f"| {way} | {' | '.join(ratios)} | {row['step seconds']:.4f} | {row['memory'] / 1e6:.0f} |"
        yield line + (f" {row['tokens a second']:,.0f} |" if of_texts else "")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="cpu", help='"cpu", "cuda" or "cuda:N"')
    parser.add_argument("--model", action="append", choices=TRIALS)
    parser.add_argument("--precision", action="append", choices=ALL, help="in which models compute; both if said twice")
    parser.add_argument("--way", action="append", choices=ways(ALL))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {asked.device}: no CUDA device is available here; use --device cpu")
    if asked.child:
        warnings.simplefilter("ignore")
        child(asked.child, asked.model[0], torch.device(asked.device))
        return
    there = ways(asked.precision or ALL[:1])
    chosen = [way for way in there if asked.way is None or way == "plain" or way in asked.way]
    found = {"device": asked.device, "batch": _BATCH, **surroundings(asked.device), "models": {}}
    for model in asked.model or TRIALS:
        found["models"][model] = compared(model, asked.device, asked.rounds, chosen)
        if not asked.json:
            print("\n".join(table(model, found["models"][model])), flush=True)
    print(json.dumps(found) if asked.json else json.dumps({key: found[key] for key in found if key != "models"}))


if __name__ == "__main__":
    main()
