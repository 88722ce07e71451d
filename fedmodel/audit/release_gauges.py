"""Gauges of what leaves a silo: values that are numbers, charged before they were made, and summed with their noise.

They are exact: under correct code they cannot fail, whatever the noise.

Shapes: T steps, R releases, K canaries, S silos that trained in a round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.audit.measured import Gauge, gauge
from fedmodel.canaries.observations import Observations
from fedmodel.secagg.quantize import Quantizer

_TOLERANCE: Final = 1e-3  # of a share; float32 leaves 1e-5
_COARSEST: Final = 0.25  # of a share: beyond, a silo that is left out would pass for rounding
_FLOAT32: Final = float(np.finfo(np.float32).eps)


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


def noise_shares(
    seen: Sequence[Observations], weights: Mapping[str, float], quantizer: Quantizer | None
) -> Iterator[Gauge]:
    """How far a silo's share in a round's sum is from its weight over the survivors', or a sum from its silos' updates.

    The change of the global model over a round, on the canaries' coordinates and some of the model's own, is regressed
    on the updates of the silos that trained in it, without intercept. A silo is lost where its coefficient is under
    half of the least share that it could have; every other's must be its weight over their sum, a lost one's 0, and the
    sum of updates with these shares must be the change. Measured is the largest of all these distances in parts of a
    share, or of the change; a thousandth is left open, and what quantisation and float32 can make of it at worst.

    A round is left out where no model after it is known, where it failed closed, where there are no more than twice as
    many coordinates as silos or their updates are not independent, and where rounding could make up a quarter of a
    share; so is the gauge where every round is. Blind to such rounds, and to a share that is wrong by less than a
    thousandth.
    """
    found = [miss for miss in (_miss(*one, weights, quantizer) for one in _rounds(seen)) if miss is not None]
    if found:
        miss, allowed, told = max(found, key=lambda one: one[0] / one[1])
        yield gauge(
            "noise_shares",
            None,
            miss,
            0.0,
            (0.0, allowed),
            f"of {len(found)} rounds the worst is {told}; {miss:.2e} of it is not as its survivors' weights have it,"
            f" and rounding leaves {allowed:.2e}",
        )


def _rounds(
    seen: Sequence[Observations],
) -> Iterator[tuple[int, dict[str, NDArray[np.float64]], NDArray[np.float32], NDArray[np.float32]]]:
    """Yield each round whose following model is known: its number, updates by silo, and the models before and after."""
    models: dict[int, NDArray[np.float32]] = {}
    updates: dict[int, dict[str, NDArray[np.float64]]] = {}
    for of in seen:
        for at, number in enumerate(int(number) for number in of.round_R):
            model, update = of.model_RK[at], of.update_RK[at]
            if of.update_RS.size:
                model, update = np.concatenate([model, of.model_RS[at]]), np.concatenate([update, of.update_RS[at]])
            models.setdefault(number, model)
            updates.setdefault(number, {})[of.silo] = update.astype(np.float64)
    for number in sorted(updates):
        if number + 1 in models:
            yield number, updates[number], models[number], models[number + 1]


def _miss(
    number: int,
    updates: Mapping[str, NDArray[np.float64]],
    before_K: NDArray[np.float32],
    after_K: NDArray[np.float32],
    weights: Mapping[str, float],
    quantizer: Quantizer | None,
) -> tuple[float, float, str] | None:
    """Return how far a round is from what it must be, how far it may be, and what it is; None if not measurable."""
    silos, most = sorted(updates), max(weights.values())
    weight_S = np.array([weights[silo] / most for silo in silos])
    update_KS = np.stack([updates[silo] for silo in silos], axis=1)
    if quantizer is not None:
        update_KS = np.clip(update_KS * weight_S, -quantizer.bound, quantizer.bound) / weight_S
    change_K = after_K.astype(np.float64) - before_K.astype(np.float64)
    size = float(np.linalg.norm(change_K))
    # A round that failed closed leaves the model as it was.
    if size == 0 or len(change_K) <= 2 * len(silos) or np.linalg.matrix_rank(update_KS) < len(silos):
        return None
    inverse_SK = np.linalg.pinv(update_KS)
    share_S = inverse_SK @ change_K
    survives_S = share_S > weight_S / weight_S.sum() / 2
    expected_S = np.where(survives_S, weight_S, 0.0) / max(float(weight_S[survives_S].sum()), 1e-300)
    # At worst, a coordinate: one level a survivor, and the rounding of the model before and after.
    rounding = _FLOAT32 * float(np.abs([before_K, after_K]).max())
    if quantizer is not None and survives_S.any():
        rounding += survives_S.sum() / quantizer.scale / float(weight_S[survives_S].sum())
    error = rounding * len(change_K) ** 0.5
    part_S = weight_S / weight_S.sum()
    off_S = np.abs(share_S - expected_S) / part_S
    open_S = _TOLERANCE + error * np.linalg.norm(inverse_SK, axis=1) / part_S
    rest = float(np.linalg.norm(change_K - update_KS @ expected_S)) / size
    worst = int((off_S / open_S).argmax())
    of_silo = f"silo {silos[worst]} has a share of {share_S[worst]:.4f} where {expected_S[worst]:.4f} is its due"
    if open_S.max() > _COARSEST:
        return None
    return max(
        (float(off_S[worst]), float(open_S[worst]), f"round {number}, in which {of_silo}"),
        (rest, _TOLERANCE + error / size, f"round {number}, the sum of {int(survives_S.sum())} silos' updates"),
        key=lambda one: one[0] / one[1],
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
