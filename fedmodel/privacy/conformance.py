"""Is what a mechanism releases what its event says and charges for? Measured on made-up sums, before any charge.

Accountants read an event's parts, and records are released by the mechanism's own code: here both are held together, so
that no mechanism is trained by that adds less noise than it is charged for.

Guarantee: of a mechanism that passes,

- the parts hold, for each step, a sampled Gaussian of no less cost than one of the event's own figures (`check_parts`);
- the noise that it added to every sum tried was drawn from the source that it was given, and nowhere else, and as often
  as it says, and one of its draws alone has the noise that is charged for; its size and shape were such as Gaussian
  noise of the event's standard deviation has, of each coordinate, of each tensor and of all together, within the bounds
  below;
- that noise was drawn anew: no two coordinates had the same of it over all calls, nor one the other's with its sign
  changed; and differences of one call and the next, of the two ends of a call, and of coordinates that are 1, 2, 3, 8
  and 32 apart were on the whole as large as of independent noise;
- what came out lay on the coarse grid, and the sum was left as it was (`check_release`).

Two bounds decide, each proven. Of m squares of unit normals, the mean is a or farther from 1 on a's side with
probability at most exp(-m/2 (a - 1 - ln a)) (Chernoff). The distribution of n draws is farther than t from the true one
with probability at most 2 exp(-2 n t^2) (Massart 1990). So a mechanism that adds the noise it says is refused with
probability at most 2^-64 over the seed, which is fixed: it is refused always or never. One whose noise is 0.93 of that
or less is let pass with no greater probability. The noise is seeded and nobody's: it tells of the mechanism and not of
`fedmodel.privacy.noise`, and of no record.

It is a test and not a proof. Does NOT find a mechanism that knows the sums tried, that keeps or sends what it is given,
whose noise is Gaussian but for what such bounds let pass, or is correlated otherwise than is looked for here: among few
coordinates without being the same, at other distances, or among three and more.

Shapes: T calls, L tensors, P coordinates of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from fedmodel.errors import PrivacyError
from fedmodel.privacy import grid
from fedmodel.privacy.events import Event, bounded, clip_of
from fedmodel.privacy.mechanisms import Mechanism
from fedmodel.privacy.noise import SeededNoise

_SHAPES: Final = ((40, 32), (32,), (3, 32), (3,))  # as a model's are: matrices, vectors, and one of few coordinates
_CALLS: Final = 32
_LAGS: Final = (1, 2, 3, 8, 32)  # neighbours in a row, and in a column
_REACH: Final = 4.0  # of a sum tried, in standard deviations: float32 then keeps where on the grid a value lies
_OFF_GRID: Final = 1 / 8  # of a step: over what float32 rounds so near to zero, and under what a value off it may be
_FLOAT: Final = 1e-12  # how two ways to compute one standard deviation may differ
_RARE: Final = 64 * math.log(2)
_SEED: Final = 1


def check_parts(event: Event) -> None:
    """Refuse an event whose parts do not cover what its steps release: a sampled Gaussian each, of its own figures.

    A part covers a step if it costs no less: if it is of a rate, and of as many records of one unit, that are no
    smaller, and of noise that is no larger.

    Raises:
        PrivacyError: When fewer steps are covered than the event has.
    """
    rate, noise, records = event.realised_sample_rate, event.noise_multiplier, event.max_records
    covered = sum(
        count
        for part, count in bounded([event]) or ()
        if part.rate >= rate and part.noise <= noise and part.records >= records
    )
    if covered < event.steps:
        raise PrivacyError(
            f"{event.steps} steps release a sampled Gaussian each, and mechanism {event.mechanism!r} charges for"
            f" {covered} of them; nothing was trained"
        )


def check_release(mechanism: Mechanism, event: Event) -> None:
    """Refuse a mechanism whose release of an event is not what the event says.

    Args:
        mechanism: Whose release is measured.
        event: One of its own, of one step, that has a clip and noise.

    Raises:
        PrivacyError: What was found.
    """
    noise_TP = _measured(mechanism, event) / (event.noise_multiplier * clip_of(event))
    sizes, half = [math.prod(shape) for shape in _SHAPES], noise_TP.shape[1] // 2
    squares_TP = noise_TP**2
    # Of independent noise, the difference of two draws over the root of two is as large as one.
    again = (noise_TP[::2] - noise_TP[1::2]) ** 2 / 2
    beside = (noise_TP[:, :half] - noise_TP[:, -half:].flip(1)) ** 2 / 2
    looked_at = [
        ("all tensors", squares_TP.mean(), squares_TP.numel()),
        *(("one tensor", one.mean(), one.numel()) for one in torch.split(squares_TP, sizes, dim=1)),
        ("one coordinate, where it is least", squares_TP.mean(0).min(), _CALLS),
        ("one coordinate, where it is most", squares_TP.mean(0).max(), _CALLS),
        ("one release, compared with the next", again.mean(), again.numel()),
        ("one coordinate, compared with another", beside.mean(), beside.numel()),
        *((f"one coordinate, compared with that {lag} on", *_lagged(noise_TP, lag)) for lag in _LAGS),
        ("one coordinate, compared with that most like it", _most_alike(noise_TP), _CALLS),
    ]
    rare = _rare(noise_TP.shape[1], len(looked_at))
    for what, mean, draws in looked_at:
        if _rarity(float(mean), draws) > rare:
            raise _refused(event, f"noise of {math.sqrt(float(mean)):.3f} times what its event says, of {what}")
    apart = _apart(noise_TP)
    if apart > math.sqrt(rare / (2 * noise_TP.numel())):
        raise _refused(event, f"noise that is not Gaussian: its distribution is {apart:.3f} from that")


def _rare(coordinates: int, others: int) -> float:
    """Return how rare what is refused is: so many are tried that all together it is as `_RARE` says.

    Each coordinate and all else on both sides, each pair of coordinates with either sign, and then the distribution.
    """
    return _RARE + math.log(2 * (coordinates + others) + coordinates * (coordinates - 1) + 2)


def _lagged(noise_TP: Tensor, lag: int) -> tuple[Tensor, int]:
    """Return the mean square of differences of coordinates so far apart, and of how many: each is in one of them."""
    whole = noise_TP.shape[1] // (2 * lag) * 2 * lag
    pairs_TNL = noise_TP[:, :whole].reshape(len(noise_TP), -1, 2, lag)
    squares = (pairs_TNL[:, :, 0] - pairs_TNL[:, :, 1]) ** 2 / 2
    return squares.mean(), squares.numel()


def _most_alike(noise_TP: Tensor) -> Tensor:
    """Return the least mean square over all calls of a difference, or a sum, of two coordinates over the root of two.

    >>> float(_most_alike(torch.tensor([[1.0, 3.0, -1.0], [2.0, 0.0, -2.0]])))
    0.0
    """
    products_PP = noise_TP.T @ noise_TP / len(noise_TP)
    power_P = products_PP.diagonal()
    apart_PP = (power_P[:, None] + power_P) / 2 - products_PP.abs()
    return apart_PP.fill_diagonal_(math.inf).min().clamp(min=0.0)


def _measured(mechanism: Mechanism, event: Event) -> Tensor:
    """Return what a release added to made-up sums, float64 of shape `(T, P)`."""
    made_up, noise = torch.Generator().manual_seed(_SEED), _Counted(_SEED)
    added = [_added(mechanism, event, list(_sums(event, made_up)), noise) for _ in range(_CALLS)]
    made_up.manual_seed(_SEED)
    if not torch.equal(added[0], _added(mechanism, event, list(_sums(event, made_up)), _Counted(_SEED))):
        raise _refused(event, "noise that is not drawn from the source that it is given")
    found_TP = torch.stack(added)
    often = noise.drawn / found_TP.numel()
    if often != mechanism.draws:
        raise _refused(event, f"{often:.3g} draws of noise for each coordinate, and says {mechanism.draws}")
    charged = min((part.noise for part, _ in bounded([event]) or ()), default=math.inf) * clip_of(event)
    if charged > noise.largest * (1 + _FLOAT):
        raise _refused(
            event, f"noise of {charged / noise.largest:.3g} times its largest draw as if it were one: each is rounded"
        )
    return found_TP


def _sums(event: Event, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield a made-up clipped sum, on the fine grid."""
    std = event.noise_multiplier * clip_of(event)
    fine = grid.fine(std)
    for shape in _SHAPES:
        even = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
        yield torch.trunc(even * (_REACH * std / fine)) * fine


def _added(mechanism: Mechanism, event: Event, sums_L: list[Tensor], noise: SeededNoise) -> Tensor:
    """Return what one release added to a sum, `(P,)`; refuse one of another form, or off the grid."""
    given_L = [sum_.clone() for sum_ in sums_L]
    means_L = mechanism.release(event, given_L, noise)
    if [(one.shape, one.dtype) for one in means_L] != [(sum_.shape, torch.float32) for sum_ in sums_L]:
        raise _refused(event, "tensors of another shape or type than a mean of its sum has")
    if not all(torch.equal(one, sum_) for one, sum_ in zip(given_L, sums_L, strict=True)):
        raise _refused(event, "a sum that it has changed in place")
    noised_P = torch.cat([one.double().flatten() for one in means_L]) * event.denominator
    steps_P = noised_P / grid.coarse(event.noise_multiplier * clip_of(event))
    if not bool(((steps_P - steps_P.round()).abs() <= _OFF_GRID).all()):
        raise _refused(event, "values off the grid, whose last bits tell of records")
    return noised_P - torch.cat([sum_.flatten() for sum_ in sums_L])


class _Counted(SeededNoise):
    """Seeded noise that counts its draws, and notes the standard deviation of the largest."""

    drawn, largest = 0, 0.0

    def gaussian(self, size: int, std: float, device: torch.device) -> Tensor:
        """Return noise, and count it."""
        self.drawn += size
        self.largest = max(self.largest, std)
        return super().gaussian(size, std, device)


def _rarity(mean_square: float, draws: int) -> float:
    """Return how rarely so many unit normals have such a mean square or one farther out: -ln of a bound on that.

    >>> _rarity(1.0, 10), _rarity(0.0, 10)
    (0.0, inf)
    """
    if not 0 < mean_square < math.inf:
        return math.inf
    return draws / 2 * (mean_square - 1 - math.log(mean_square))


def _apart(values: Tensor) -> float:
    """Return the largest distance between the distribution of values and that of a unit normal."""
    ideal_N = torch.special.ndtr(values.flatten().sort().values)
    below_N = torch.arange(len(ideal_N), dtype=torch.float64) / len(ideal_N)
    return float(torch.maximum((ideal_N - below_N).abs(), (ideal_N - below_N - 1 / len(ideal_N)).abs()).max())


def _refused(event: Event, why: str) -> PrivacyError:
    return PrivacyError(f"mechanism {event.mechanism!r} releases {why}; nothing was trained")
