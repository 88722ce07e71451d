"""Invariant gauges: what a run's releases must look like under correct code, whatever the data.

A lower bound on epsilon sees a fault only where it shows in how well canaries are guessed; halved noise in one silo of
ten, a seed used twice or a shuffle in place of Poisson lots need not. A gauge measures one thing that the claimed
mechanism fixes, against its distribution under correct code. It is two-sided: noise over what is claimed fails too,
since the claim is then of another mechanism. Each NAME gives a false alarm with a probability of at most `FALSE_ALARM`
in a run, over all its silos; those of `release_gauges` and
`sum_gauges` give none.

What cannot be measured is left out, never passed: `unmeasured` tells what that is, and the caller must look.

Does NOT see what the observations do not say: whether noise can be predicted, and what else a silo released. Each
gauge says what it is blind to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.audit.canary_gauges import canary_gauges
from fedmodel.audit.lot_gauges import lot_gauges
from fedmodel.audit.measured import Gauge, Seen
from fedmodel.audit.noise_gauges import noise_gauges
from fedmodel.audit.release_gauges import (
    charged_before_release,
    charged_steps,
    finite,
    noise_grid,
    update_explained,
)
from fedmodel.audit.sum_gauges import Apply, model_moves, noise_shares
from fedmodel.canaries.observations import Observations
from fedmodel.errors import DataError
from fedmodel.privacy.events import Event
from fedmodel.secagg.quantize import Quantizer

__all__ = ["FALSE_ALARM", "OF_ALL", "OF_SERVER", "OF_SILOS", "Gauge", "failed", "gauges", "unmeasured"]

FALSE_ALARM: Final = 1e-6
OF_SILOS: Final = (
    "noise_std",
    "noise_everywhere",
    "noise_shape",
    "noise_lag1",
    "denominator",
    "canary_mean",
    "canary_peak",
    "out_mean",
    "poison",
    "lot_rate",
    "lot_dispersion",
    "draw_dispersion",
    "finite",
    "charged_before_release",
    "charged_steps",
    "update_explained",
    "noise_grid",
    "model_noise_std",
    "model_noise_shape",
    "model_noise_lag1",
)
"""Gauges of one silo; `noise_std`, `denominator` and `poison` are measured of all silos together too."""
OF_ALL: Final = (
    "noise_repeat",
    "noise_between_silos",
    "noise_shares",
    "model_moves",
    "model_noise_repeat",
    "model_noise_between_silos",
)
"""Gauges of all silos together, whose `silo` is None."""
OF_SERVER: Final = ("model_moves",)
"""Those among them of what the server makes of means alone. Each mean is private as it is opened, and what is made of
it is post-processing, so that no epsilon hangs on them: one that fails says that the run is not the declared one, and
refutes no claim."""


def gauges(
    seen: Sequence[Observations],
    event_by_silo: Mapping[str, Event],
    *,
    weights: Mapping[str, float],
    charges: Mapping[str, Sequence[tuple[str, int]]],
    quantizer: Quantizer | None = None,
    opened: Mapping[int, NDArray[np.float32]] = MappingProxyType({}),
    apply: Apply = lambda model_W, mean_W, state: (model_W + mean_W, state),
    false_alarm: float = FALSE_ALARM,
) -> list[Gauge]:
    """Return every gauge that can be measured.

    A silo that released a value that is not a number fails `finite`, and no other gauge of its values is measured.

    Args:
        seen: What each silo's audit saw.
        event_by_silo: What its ledger was charged; every figure that is claimed is taken from here.
        weights: Every silo's public weight.
        charges: The ledger's charges of the run, by silo and in order: time as ISO 8601, and steps.
        quantizer: What updates were rounded with, None where they were not.
        opened: By round, the mean that it came to where the audit looks; nothing of a run that kept none, whose model
            then has to have moved by the means themselves.
        apply: What the strategy makes of such means, coordinate by coordinate; federated averaging, unless said.
        false_alarm: The probability with which a gauge of one name may fail under correct code, in (0, 1).

    Raises:
        DataError: When the observations do not fit together, or lack a silo's event, weight or charges.
    """
    for of in seen:
        _check(of)
        looked = of.model_RK.shape[1] + of.model_RS.shape[1]
        if any(mean_W.shape != (looked,) for mean_W in opened.values()):
            raise DataError("what was opened does not fit to where the audit looks")
        if of.silo not in event_by_silo or of.silo not in weights or of.silo not in charges:
            raise DataError(f"silo {of.silo} was seen, but its event, weight or charges are not given")
    if len({of.silo for of in seen}) < len(seen) or len({of.sums_TK.shape[1] for of in seen}) > 1:
        raise DataError("observations are one a silo, of a block that silos share")
    found = [finite(of) for of in seen]
    sound = [of for of, one in zip(seen, found, strict=True) if one.passed]
    told = [Seen(of, event_by_silo[of.silo]) for of in sound]
    found += [*noise_gauges(told, false_alarm), *canary_gauges(told, false_alarm)]
    found += lot_gauges([Seen(of, event_by_silo[of.silo]) for of in seen], false_alarm)
    if len(sound) == len(seen):
        found += [*noise_shares(seen, weights, quantizer, opened), *model_moves(seen, opened, apply)]
    for of in seen:
        found += [charged_before_release(of, charges[of.silo]), charged_steps(of, charges[of.silo])]
        found += [*update_explained(of), *noise_grid(of)]
    return found


def failed(found: Iterable[Gauge]) -> list[Gauge]:
    """Return the gauges that did not pass."""
    return [one for one in found if not one.passed]


def unmeasured(found: Iterable[Gauge], silos: Sequence[str], *, opened: bool = False) -> list[tuple[str, str | None]]:
    """Return the name and the silo of each gauge that could not be measured, None for the silo of one of all together.

    `denominator` has no measure where lots do not vary, at q = 1, and `noise_between_silos` none where there is one
    silo; they are named all the same.

    Args:
        found: What was measured.
        silos: That were seen.
        opened: Whether the means that rounds came to are known; where they are not, `model_moves` is not due.
    """
    there = {(one.name, one.silo) for one in found}
    due: list[tuple[str, str | None]] = [(name, silo) for name in OF_SILOS for silo in silos]
    due += [(name, None) for name in OF_ALL if opened or name != "model_moves"]
    return [one for one in due if one not in there]


def _check(of: Observations) -> None:
    """Refuse observations whose arrays do not fit together."""
    steps, releases = len(of.lots_T), len(of.round_R)
    width = of.sums_TK.shape[1:]
    fits = (
        of.sums_TK.shape[:1] == of.round_T.shape == of.lots_T.shape
        and of.poison_T.shape in ((steps,), (0,))
        and of.update_RK.shape == of.model_RK.shape == (releases, *width)
        and len(of.started_R) == releases
        and width in (of.coins_K.shape, (0,))
        and int(of.drawn_N.sum()) == int(of.lots_T.sum())
        and (not of.noise_TL.size or of.noise_TL.shape == (steps, len(of.sizes_L)))
        and of.update_RS.shape == of.model_RS.shape
        and (not of.followed_TS.size or len(of.followed_TS) == steps)
        and (not of.update_RS.size or len(of.update_RS) == releases)
        and len(of.unexplained_R) in (releases, 0)
        and len(of.off_grid_R) in (releases, 0)
    )
    if not fits:
        raise DataError(f"what was seen at silo {of.silo} does not fit together")
