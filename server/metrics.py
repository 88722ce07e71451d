"""What the server measures, on records of its own that no silo trained on, and the file it writes them to.

No figure here comes from a silo's records except through the differentially private model.

Shapes: B batch, P parameters.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from fedmodel.data import Records
from fedmodel.data.named import each
from fedmodel.errors import ProtocolError
from fedmodel.learning.inputs import called, rows_at_once, tensors
from fedmodel.learning.tasks import Measured, Objective
from fedmodel.privacy.events import EPSILON_IF_HIDDEN, EXPERIMENT
from fedmodel.system.durable import naming

METRICS: Final = "metrics.jsonl"
BESIDES: Final = "besides.jsonl"
_NAMED: Final = 20  # silos whose epsilons a line says one by one


def evaluate(
    module: nn.Module, aim: Objective, records: Records, device: torch.device, names: tuple[str, ...] = ()
) -> dict[str, float]:
    """Return the loss and figures on held-out records, those that are defined there.

    The loss is not weighed by class, whatever weights silos train with, so that it is the same figure for all of them.

    Args:
        module: The model, on the device.
        aim: The task and its loss, which is reported as a mean over records.
        records: Held-out records.
        device: Where the model is.
        names: Of the figures; the task's own where none is named.

    Returns:
        What is defined of them, all finite; the loss always is.

    Raises:
        ProtocolError: When an output or the loss is not finite.
    """
    found = measured(module, aim, records, device)
    return {"loss": found.mean_loss, **aim.task.figures(names or aim.task.default, found)}


def measured(module: nn.Module, aim: Objective, records: Records, device: torch.device) -> Measured:
    """Return what a model answers of held-out records, and its loss on each.

    Raises:
        ProtocolError: When an output or the loss is not finite.
    """
    total = 0.0
    answers, losses = [], []
    training, rows = module.training, rows_at_once(aim.task.shape)
    module.eval()
    with torch.no_grad():
        for start in range(0, len(records), rows):
            x_B, y_B = tensors(records.take(slice(start, start + rows)), device)
            # Copies: a user's own model or loss could write into records, targets and outputs.
            output = called(module, each(x_B, torch.clone))
            answers.append(aim.answers(output).clone().cpu().numpy())
            loss_B = aim.losses(output, y_B.clone())
            total += float(loss_B.sum())
            losses.append(loss_B.cpu().numpy())
    module.train(training)
    answer_N = np.concatenate(answers)
    if not (math.isfinite(total) and np.isfinite(answer_N).all()):
        raise ProtocolError("the model diverged: its outputs or its loss are not finite; lower learning_rate")
    return Measured(answer_N, aim.task.targets(records.y_N), np.concatenate(losses), total / len(records), aim.loss)


def told_together(bounds: Mapping[str, float | None]) -> dict[str, float | None] | list[list[float | int | None]]:
    """Return silos' epsilons as a round's line says them: of many silos each bound once, and of how many it is.

    Whose they are stands in the run's summary, and follows from its ledgers or its book.

    >>> told_together({"north": 1.5, "south": None}), told_together(dict.fromkeys(map(str, range(30)), 2.0))
    ({'north': 1.5, 'south': None}, [[2.0, 30]])
    """
    if len(bounds) <= _NAMED:
        return dict(bounds)
    return [[bound, silos] for bound, silos in Counter(bounds.values()).items()]


def labelled_together(noise: str, bounds: Mapping[str, float | None]) -> dict[str, Any]:
    """Return what a round's line says of silos' epsilons: of an experiment's noise, nothing that reads as a promise.

    Args:
        noise: The name of the run's, as the line has it (`PrivacyConfig.noise_name`).
        bounds: By silo, its epsilon if nobody could subtract that noise; None where nothing bounds it.

    >>> labelled_together("os", {"north": 1.5}), labelled_together("experiment", {"north": 1.5})
    ({'epsilon': {'north': 1.5}}, {'epsilon': {'north': None}, 'epsilon_if_noise_were_secret': {'north': 1.5}})
    """
    if noise != EXPERIMENT:
        return {"epsilon": told_together(bounds)}
    return {"epsilon": told_together(dict.fromkeys(bounds)), EPSILON_IF_HIDDEN: told_together(bounds)}


def epsilons_of(line: Mapping[str, Any]) -> list[float | None]:
    """Return the figures that a round's line says, however it says them; of an experiment's noise, under its label."""
    told = line.get(EPSILON_IF_HIDDEN, line["epsilon"])
    return list(told.values()) if isinstance(told, Mapping) else [bound for bound, _ in told]


class MetricsLog:
    """`metrics.jsonl`, or another file: one JSON object a round, on disk before the next round begins.

    A reader never sees half a line that ends in a newline: each is written in one call and flushed to disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def mend(self, line: Mapping[str, object]) -> None:
        """Bring the file up to a checkpoint's line: cut off what a kill left half written, and add what it lost."""
        whole = self._path.read_bytes() if self._path.exists() else b""
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.truncate(self._path, end)
        if line["round"] not in {_round_of(one) for one in whole[:end].splitlines()}:
            self.append(line)

    def append(self, line: Mapping[str, object]) -> None:
        """Write one line."""
        text = json.dumps(dict(line), sort_keys=True, allow_nan=False) + "\n"
        with naming(self._path):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            before = os.fstat(descriptor).st_size
            try:
                if os.write(descriptor, text.encode()) != len(text.encode()):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):  # else `mend` cuts half a line off
                    os.ftruncate(descriptor, before)
                raise
            finally:
                os.close(descriptor)


class Logs:
    """Both logs of a run: `metrics.jsonl`, of the rounds of training, and `besides.jsonl`, of those of other jobs.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._training, self._besides = MetricsLog(run_dir / METRICS), MetricsLog(run_dir / BESIDES)

    def append(self, line: Mapping[str, object]) -> None:
        """Write a round's line where it belongs."""
        self._of(line).append(line)

    def mend(self, line: Mapping[str, object]) -> None:
        """Bring the file that a checkpoint's line belongs to up to it."""
        self._of(line).mend(line)

    def _of(self, line: Mapping[str, object]) -> MetricsLog:
        return self._besides if "job" in line else self._training


def _round_of(line: bytes) -> int | None:
    """Return the round of a line, None where it is no line of ours."""
    try:
        number: int = json.loads(line)["round"]
    except (ValueError, KeyError, TypeError):
        return None
    return number
