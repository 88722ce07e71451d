"""How many records a physical batch may have so that it fits in memory, and what is said where it does not fit.

The number is computed from one probe at two sizes, on made-up records: what a batch holds at most grows by so much for
each row. Half of what is free may be taken, since others use a machine too, and kernels take memory of their own.

Guarantee: it is a function of the model, of public figures and of how much memory was free when it was asked for.
`fedmodel.learning.jobs._pipelines` asks once a process for each scenario, before anything is charged for it. Of a
process's first scenario that is before a record was read. Of a later one, a baseline after its private run for
instance, what is free may hang on records that the process read before, their number above all. That moves no bound:
however a lot is cut into physical batches, one record moves its sum by at most the clip, as
`fedmodel.learning.gradients` has it. Exact sums are the same at any number, and of a kind that rounds its sums only the
rounding is another, within what it is bounded by. No message tells of the number.

Does NOT know what other programs take later. Does NOT hide the time that a step takes, which hangs on the number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch.profiler import ProfilerActivity, profile

from fedmodel.data.named import each
from fedmodel.errors import ConfigError, FedmodelError
from fedmodel.kinds.layers import without_dropout
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.gradients import ClippedSum
from fedmodel.learning.inputs import made_up
from fedmodel.system.memory import available, ran_out

_PROBES: Final = (8, 16)
_SHARE: Final = 0.5  # of what is free
_MOST: Final = 1_000_000

log = logging.getLogger(__name__)


def most_rows(gradients: ClippedSum, shape: DataShape) -> int:
    """Return how many rows of a physical batch fit in half of the memory that is free.

    Args:
        gradients: The pipeline; its `rows` is left as it was.
        shape: What records look like.

    Raises:
        ConfigError: When not one fits.
    """
    device, rows = gradients.parameters[0].device, gradients.rows
    try:
        few, more = (held_at_most(device, one_pass(gradients, shape, size)) for size in _PROBES)
    finally:
        gradients.rows = rows
        gradients.forget()
    of_each = max(1.0, (more - few) / (_PROBES[1] - _PROBES[0]))
    beside = max(0.0, few - _PROBES[0] * of_each)
    room = free(device) * _SHARE
    found = min(_MOST, int((room - beside) // of_each))
    if found < 1:
        raise ConfigError(
            f"one record needs {(beside + of_each) / 1e6:,.0f} MB on {device}, and half of what is free there is"
            f" {room / 1e6:,.0f} MB; end other programs, or take a smaller model"
        )
    log.info("on %s a record needs %.2f MB: up to %d of them are in memory at once", device, of_each / 1e6, found)
    return found


def held_at_most(device: torch.device, act: Callable[[], object]) -> int:
    """Return how many bytes torch's allocator held at most while a call ran, over what it held before."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        act()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        act()
    held = most = 0
    told = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    for event in sorted(told, key=lambda one: one.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def free(device: torch.device) -> int:
    """Return how many bytes a device has yet to give."""
    if device.type != "cuda":
        return available()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + unused)


@contextmanager
def said_if_it_runs_out(most: int | str, kind: type[FedmodelError]) -> Iterator[None]:
    """Say in one line which key to lower, where memory runs out.

    Args:
        most: `training.max_physical_batch`, as the scenario says it.
        kind: What is raised; where a silo's own records are in memory, one whose code is that of any failure.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        lower = "a number, as 64: what was free is not any more" if most == "auto" else f'less than {most}, or "auto"'
        raise kind(f"memory ran out; set training.max_physical_batch to {lower}, or train on another device") from None


def one_pass(gradients: ClippedSum, shape: DataShape, rows: int) -> Callable[[], object]:
    """Return what passes one physical batch of so many made-up records through, and takes its sum."""
    device = gradients.parameters[0].device
    x_B, y_B = made_up(shape, rows, torch.Generator().manual_seed(0))
    x_B, y_B = each(x_B, lambda one: one.to(device)), y_B.to(device)

    def act() -> None:
        gradients.rows = rows
        with without_dropout(gradients.module):
            gradients.flat(x_B, y_B)

    return act
