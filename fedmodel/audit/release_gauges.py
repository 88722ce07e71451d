"""Gauges of what leaves a silo: values that are numbers, charged before they were made, made of noised gradients.

They are exact: under correct code they cannot fail, whatever the noise.

Shapes: T steps, R releases, K canaries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np

from fedmodel.audit.measured import Gauge, gauge
from fedmodel.canaries.observations import Observations


def finite(of: Observations) -> Gauge:
    """How many values of sums, updates and models are not finite: 0.

    Blind to a NaN that was made a number before it was seen here.
    """
    arrays = (of.sums_TK, of.poison_T, of.update_RK, of.model_RK)
    found = sum(int((~np.isfinite(values)).sum()) for values in arrays)
    size = sum(values.size for values in arrays)
    return gauge(
        "finite", of.silo, found, 0.0, (0, 0), f"of {size} values that silo {of.silo} released {found} are not numbers"
    )


def charged_before_release(of: Observations, charges: Sequence[tuple[str, int]]) -> Gauge:
    """How many releases began before the ledger's charge for them, matched in order: 0.

    Blind to a release without a charge of its own after a charge that nothing was released for, and to less than the
    millisecond in which times are kept.
    """
    charged = [datetime.fromisoformat(time) for time, _ in charges]
    started = [datetime.fromisoformat(time) for time in of.started_R]
    late = sum(at >= len(charged) or charged[at] > begun for at, begun in enumerate(started))
    return gauge(
        "charged_before_release",
        of.silo,
        late,
        0.0,
        (0, 0),
        f"of {len(started)} releases of silo {of.silo}, {late} began before their charge stood in the ledger, which"
        f" has {len(charged)}",
    )


def charged_steps(of: Observations, charges: Sequence[tuple[str, int]]) -> Gauge:
    """How many steps more were taken than were charged by then, at the release where it is worst: 0.

    Blind to steps that the audit did not see.
    """
    excess = len(of.lots_T) - sum(steps for _, steps in charges)
    for number, begun in zip(of.round_R, of.started_R, strict=True):
        by_then = sum(steps for time, steps in charges if datetime.fromisoformat(time) <= datetime.fromisoformat(begun))
        excess = max(excess, int((of.round_T <= number).sum()) - by_then)
    return gauge(
        "charged_steps",
        of.silo,
        max(0, excess),
        0.0,
        (0, 0),
        f"silo {of.silo} took {len(of.lots_T)} steps and was charged {sum(steps for _, steps in charges)}; at the worst"
        f" release {max(0, excess)} more were taken than charged",
    )


def update_explained(of: Observations) -> Iterator[Gauge]:
    """How far an update that left training is from what the inner optimiser makes of the noised gradients: hardly.

    Everything that is measured of gradients is of what was released only if it is so. The same steps are taken again
    in the same arithmetic; a millionth is left open. Blind to what happens to an update after training, which
    `noise_shares` is for.
    """
    if len(of.unexplained_R):
        farthest = float(of.unexplained_R[int(np.nan_to_num(of.unexplained_R, nan=np.inf).argmax())])
        yield gauge(
            "update_explained",
            of.silo,
            farthest,
            0.0,
            (0.0, 1e-6),
            f"of {len(of.unexplained_R)} updates of silo {of.silo} the one farthest from what its noised gradients make"
            f" is off by {farthest:.2e} of its largest coordinate; 1e-6 is left open",
        )


def noise_grid(of: Observations) -> Iterator[Gauge]:
    """How far a noised sum is from the grid that it was to be rounded to, in steps of the grid: hardly.

    A gradient is seen after it was made float32 and divided, which moves a sum of up to 2^20 steps by a sixteenth of
    one at most. Larger sums say nothing and are left out. Bits of the noise that leave are spread over all of a step,
    so that one coordinate in two is farther off than a quarter. Blind to a grid that is coarser than it has to be.
    """
    if len(of.off_grid_R):
        farthest = float(of.off_grid_R[int(np.nan_to_num(of.off_grid_R, nan=np.inf).argmax())])
        yield gauge(
            "noise_grid",
            of.silo,
            farthest,
            0.0,
            (0.0, 0.25),
            f"of the noised sums in {len(of.off_grid_R)} releases of silo {of.silo} the one farthest from its grid is"
            f" {farthest:.2g} of a step off; rounding leaves a sixteenth",
        )
