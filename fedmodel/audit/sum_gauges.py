"""Gauges of what the server makes of releases: every survivor's noise is in a sum, and the model moves by sums alone.

A strategy makes a step of a mean, and most steps do not tell the mean: an adaptive one divides each coordinate by how
far it went before. So the mean is looked at where it is opened, before a strategy is given it (`noise_shares`), and the
model against what the strategy makes of these means (`model_moves`). That holds for strategies of means that move each
coordinate of a model by that coordinate of means alone, whatever they keep between rounds; which do is for the caller.

Both are exact: under correct code they cannot fail, whatever the noise.

Shapes: W coordinates where an audit looks, S silos that trained in a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedmodel.audit.measured import Gauge, gauge
from fedmodel.canaries.observations import Observations
from fedmodel.secagg.quantize import Quantizer

Apply = Callable[[NDArray[np.float32], NDArray[np.float32], bytes], tuple[NDArray[np.float32], bytes]]
"""What a strategy makes of a model, a mean and what it kept: the model after, and what it keeps."""


class _Come(NamedTuple):
    """What a round's updates came to, where an audit looks, and the largest value that float32 rounded in it."""

    mean_W: NDArray[np.float32] | NDArray[np.float64]
    largest: float


_TOLERANCE: Final = 1e-3  # of a share; float32 leaves 1e-5
_COARSEST: Final = 0.25  # of a share: beyond, a silo that is left out would pass for rounding
_FLOAT32: Final = float(np.finfo(np.float32).eps)
_EXACT: Final = 1e-6  # of a model's largest coordinate: the same arithmetic gives the same bits


def noise_shares(
    seen: Sequence[Observations],
    weights: Mapping[str, float],
    quantizer: Quantizer | None,
    opened: Mapping[int, NDArray[np.float32]],
) -> Iterator[Gauge]:
    """How far a silo's share in a round's sum is from its weight over the survivors', or a sum from its silos' updates.

    The mean that a round came to, on the canaries' coordinates and some of the model's own, is regressed on the updates
    of the silos that trained in it, without intercept. A silo is lost where its coefficient is under half of the least
    share that it could have; every other's must be its weight over their sum, a lost one's 0, and the sum of updates
    with these shares must be the mean. Measured is the largest of all these distances in parts of a share, or of the
    mean; a thousandth is left open, and what quantisation and float32 can make of it at worst.

    Of a run that kept no means, the change of the model over a round stands for its mean, as under federated averaging.

    A round is left out where no mean of it is known, where it failed closed, where there are no more than twice as many
    coordinates as silos or their updates are not independent, and where rounding could make up a quarter of a share; so
    is the gauge where every round is. Blind to such rounds, and to a share that is wrong by less than a thousandth.
    """
    updates, models = _by_round(seen)
    means = {number: _Come(mean_W, _largest(mean_W)) for number, mean_W in opened.items()} or _changes(models)
    rounds = sorted(updates.keys() & means.keys())
    misses = [_miss(number, updates[number], means[number], weights, quantizer) for number in rounds]
    found = [one for one in misses if one is not None]
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


def model_moves(
    seen: Sequence[Observations], opened: Mapping[int, NDArray[np.float32]], apply: Apply
) -> Iterator[Gauge]:
    """How far a model is from what the strategy made of the means before it, over its largest coordinate: hardly.

    The steps are taken again in the same arithmetic, from the first model that silos got and the means that were
    opened, with what the strategy keeps; each model is compared as silos got it. A millionth is left open. Blind to the
    last round, whose model no silo was sent.
    """
    models, distances = _by_round(seen)[1], []
    expected_W, state = None, b""
    for number in sorted(models.keys() | opened.keys()):
        model_W = models.get(number, expected_W)
        if model_W is None:
            continue
        if expected_W is not None:
            apart = float(np.abs(model_W.astype(np.float64) - expected_W).max(initial=0.0))
            distances.append((apart / max(_largest(expected_W), 1e-30), number))
        expected_W = model_W
        if number in opened:
            expected_W, state = apply(model_W, opened[number], state)
    if distances and opened:
        farthest, number = max(distances, key=lambda one: np.nan_to_num(one[0], nan=np.inf))
        yield gauge(
            "model_moves",
            None,
            farthest,
            0.0,
            (0.0, _EXACT),
            f"of {len(distances)} models the one of round {number} is farthest from what the strategy made of the means"
            f" before it: {farthest:.2e} of its largest coordinate; {_EXACT:g} is left open",
        )


def _by_round(
    seen: Sequence[Observations],
) -> tuple[dict[int, dict[str, NDArray[np.float64]]], dict[int, NDArray[np.float32]]]:
    """Return each round's updates by silo, and the model that they are of, where the audit looks."""
    models: dict[int, NDArray[np.float32]] = {}
    updates: dict[int, dict[str, NDArray[np.float64]]] = {}
    for of in seen:
        for at, number in enumerate(int(number) for number in of.round_R):
            model_W, update_W = of.model_RK[at], of.update_RK[at]
            if of.update_RS.size:
                model_W = np.concatenate([model_W, of.model_RS[at]])
                update_W = np.concatenate([update_W, of.update_RS[at]])
            models.setdefault(number, model_W)
            updates.setdefault(number, {})[of.silo] = update_W.astype(np.float64)
    return updates, models


def _changes(models: Mapping[int, NDArray[np.float32]]) -> dict[int, _Come]:
    """Return how the model changed over each round whose following model is known."""
    found = {}
    for number, before_W in models.items():
        after_W = models.get(number + 1, before_W)
        if not np.array_equal(before_W, after_W):  # as they are where a round failed closed
            change_W = after_W.astype(np.float64) - before_W
            found[number] = _Come(change_W, max(_largest(before_W), _largest(after_W)))
    return found


def _largest(vector_W: NDArray[np.float32]) -> float:
    return float(np.abs(vector_W).max(initial=0.0))


def _miss(
    number: int,
    updates: Mapping[str, NDArray[np.float64]],
    come: _Come,
    weights: Mapping[str, float],
    quantizer: Quantizer | None,
) -> tuple[float, float, str] | None:
    """Return how far a round is from what it must be, how far it may be, and what it is; None if not measurable.

    Args:
        number: The round.
        updates: Its silos' updates.
        come: What they came to.
        weights: By silo.
        quantizer: Of updates.
    """
    silos, most = sorted(updates), max(weights.values())
    weight_S = np.array([weights[silo] / most for silo in silos])
    update_WS = np.stack([updates[silo] for silo in silos], axis=1)
    if quantizer is not None:
        update_WS = np.clip(update_WS * weight_S, -quantizer.bound, quantizer.bound) / weight_S
    mean_W = come.mean_W
    size = float(np.linalg.norm(mean_W))
    if len(mean_W) <= 2 * len(silos) or np.linalg.matrix_rank(update_WS) < len(silos):
        return None
    inverse_SW = np.linalg.pinv(update_WS)
    share_S = inverse_SW @ mean_W
    survives_S = share_S > weight_S / weight_S.sum() / 2
    expected_S = np.where(survives_S, weight_S, 0.0) / max(float(weight_S[survives_S].sum()), 1e-300)
    # At worst, a coordinate: one level a survivor, and the rounding of what was computed.
    rounding = _FLOAT32 * come.largest
    if quantizer is not None and survives_S.any():
        rounding += survives_S.sum() / quantizer.scale / float(weight_S[survives_S].sum())
    error = rounding * len(mean_W) ** 0.5
    part_S = weight_S / weight_S.sum()
    off_S = np.abs(share_S - expected_S) / part_S
    open_S = _TOLERANCE + error * np.linalg.norm(inverse_SW, axis=1) / part_S
    rest, open_rest = 1.0, _TOLERANCE  # of a mean that is zero where its updates are not
    if size:
        rest, open_rest = float(np.linalg.norm(mean_W - update_WS @ expected_S)) / size, _TOLERANCE + error / size
    worst = int((off_S / open_S).argmax())
    of_silo = f"silo {silos[worst]} has a share of {share_S[worst]:.4f} where {expected_S[worst]:.4f} is its due"
    if open_S.max() > _COARSEST:
        return None
    return max(
        (float(off_S[worst]), float(open_S[worst]), f"round {number}, in which {of_silo}"),
        (rest, open_rest, f"round {number}, the sum of {int(survives_S.sum())} silos' updates"),
        key=lambda one: one[0] / one[1],
    )
