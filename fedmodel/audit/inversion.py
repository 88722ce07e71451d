"""What a server sees of a record: the same attack on an unprotected update, a clipped and noised one, a masked one.

The attack: for a linear layer over an input x, the gradient of its weights is the outer product of the gradient of its
biases with x. So any row of the one over its entry of the other IS the input, exactly (Phong et al. 2018, section 3;
Zhu, Liu and Han 2019 for networks without such a layer). The row with the largest bias gradient is taken.

What it is tried on, each the update of a silo whose lot holds that one record:

| Picture       | Made by                                                                                            |
|---------------|----------------------------------------------------------------------------------------------------|
| `unprotected` | one step of plain SGD                                                                              |
| `noised`      | one step of `fedmodel.learning.dp_sgd`, noise from the operating system, at a scenario's clip and
noise      |
| `masked`      | `unprotected`, quantised and masked by `fedmodel.secagg`; the server's view of one silo's words    |

Illustrative. It shows what the mechanisms do to one attack on one update, and measures no privacy: another attack can
do better, and noise averages out over rounds, which epsilon counts and this does not; an unprotected update of a large
lot shows a mixture and not a record. A mask hides an update and not the sum, which is why noise is added too.

Shapes: P parameters, F pixels, R rows of the first layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.crypto import SigningKey, digest
from fedmodel.data import Records, silo_records
from fedmodel.errors import ConfigError
from fedmodel.kinds.models.mlp import MlpConfig
from fedmodel.learning import vectors
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import kind
from fedmodel.learning.models import build_model
from fedmodel.learning.optimizers import build_optimizer
from fedmodel.learning.tasks.classification import cross_entropy
from fedmodel.privacy import grid
from fedmodel.privacy.mechanisms import mechanism_of
from fedmodel.privacy.noise import OsNoise
from fedmodel.privacy.plan import SiloPlan
from fedmodel.privacy.rounding import small, up
from fedmodel.secagg import Collection, Member, Participant, Policy, Roster, Setting, Window
from fedmodel.secagg.ring import Words
from fedmodel.seeds import derive_seed

NOTE: Final = (
    "Illustrative, not a measurement of privacy: one attack on one update of one record. Another attack can do better;"
    " noise averages out over rounds, which epsilon counts and this does not; without protection a large lot shows a"
    " mixture. A mask hides an update and not the sum, so a run needs the noise too."
)
OTHERS: Final = 24  # digits that the same is done to, for a median beside the one that is shown

PictureName = Literal["original", "unprotected", "noised", "masked"]

_MODEL: Final = MlpConfig(kind="mlp", hidden=(32,))
_BOUND: Final = 4.0  # of a coordinate under secure aggregation, as in `hospitals`
_RUN: Final = 1
_MOST_DIGITS: Final = 256  # rounds in a window of secure aggregation


@dataclass(frozen=True)
class Picture:
    """One picture of the row.

    Attributes:
        name: Which.
        caption: What was attacked, in a few words.
        image: float64, 8x8 grey levels in [0, 1], stretched to their own range, which moves no correlation.
        correlation: Pearson's, with the original.
        median_correlation: The median of that over this digit and the others.
    """

    name: PictureName
    caption: str
    image: NDArray[np.float64]
    correlation: float
    median_correlation: float


@dataclass(frozen=True)
class Inversion:
    """The row of pictures, and what it was made with.

    Attributes:
        digit: The label of the digit shown.
        seed: Decided the digits and the model. Noise and masks are fresh at every call.
        digits: How many the medians are over.
        plan: Whose clip, target and steps the noise belongs to.
        noise_multiplier: The noise of that plan, over its clip.
        pictures: The original, and what the attack made of the unprotected, the noised and the masked update.
    """

    digit: int
    seed: int
    digits: int
    plan: SiloPlan
    noise_multiplier: float
    pictures: tuple[Picture, ...]

    @property
    def claim(self) -> str:
        """What the noise belongs to, in words."""
        plan = self.plan
        is_calibrated = plan.epsilon is not None
        target = f", that of epsilon {up(plan.epsilon)} at delta {small(plan.delta)}" if is_calibrated else ""
        return f"noise multiplier {self.noise_multiplier:.2f}{target} over {self.steps} steps"

    @property
    def steps(self) -> int:
        """All steps that the noise is for."""
        return sum(one.steps for one in self.plan.trained)


def inversion(scenario: Scenario, digit: int | None = None, seed: int = 1, others: int = OTHERS) -> Inversion:
    """Attack the three updates of a digit, and of some others.

    Args:
        scenario: Of the digits; its first silo's plan gives clip, noise and denominator.
        digit: Which, 0 to 9; drawn where None.
        seed: Decides which digits are drawn and the model that the updates are of.
        others: Further digits, for the medians.

    Raises:
        ConfigError: When the scenario is not of the digits, or there is no such digit.
    """
    if scenario.data.source != "digits":
        raise ConfigError(f'the demonstration is of source = "digits", found {scenario.data.source!r}')
    if not 0 <= others < _MOST_DIGITS:
        raise ConfigError(f"from 0 to {_MOST_DIGITS - 1} other digits can be attacked too, not {others}")
    records = Records.joined([silo_records(scenario, silo) for silo in scenario.federation.silos])
    x_NF, y_N = records.x_NF, records.y_N
    drawn = _draw(y_N, digit, seed, others + 1)
    plan = scenario.plan(scenario.federation.silos[0])
    attacked = _Attacked(scenario, plan, seed, rounds=len(drawn))
    rows = [[x_NF[i].ravel().astype(np.float64), *attacked.images(x_NF[i], int(y_N[i]))] for i in drawn]
    correlations = np.array([[correlation(row[0], image) for image in row] for row in rows])
    label = int(y_N[drawn[0]])
    captions = (f"a handwritten {label}", "plain SGD", "clipped and noised", "masked, no noise")
    names: tuple[PictureName, ...] = ("original", "unprotected", "noised", "masked")
    shape = scenario.data.shape.features[1:]
    pictures = tuple(
        Picture(name, caption, _stretched(image).reshape(shape), float(one), float(median))
        for name, caption, image, one, median in zip(
            names, captions, rows[0], correlations[0], np.median(correlations, axis=0), strict=True
        )
    )
    return Inversion(label, seed, len(drawn), plan, attacked.noise_multiplier, pictures)


def invert(update_P: NDArray[np.floating], inputs: int, rows: int) -> NDArray[np.float64]:
    """Return the input of the first linear layer that an update was made from, if it was made from a single record.

    Args:
        update_P: A gradient, or any multiple of one; begins with the layer's weights, `rows` by `inputs`, and biases.
        inputs: Inputs of the layer.
        rows: Its outputs.

    Returns:
        float64, shape `(inputs,)`: the row of weights with the largest bias, over that bias.

    Raises:
        ConfigError: When no row has a bias gradient: every unit of the layer was silent.
    """
    weight_RF = update_P[: rows * inputs].astype(np.float64).reshape(rows, inputs)
    bias_R = update_P[rows * inputs : rows * inputs + rows].astype(np.float64)
    row = int(np.abs(bias_R).argmax())
    if bias_R[row] == 0:
        raise ConfigError(
            "the update moves no bias of the first layer, so there is nothing to invert; try another seed"
        )
    image_F: NDArray[np.float64] = weight_RF[row] / bias_R[row]
    return image_F


def correlation(one_F: NDArray[np.floating], other_F: NDArray[np.floating]) -> float:
    """Return Pearson's correlation; 0 where one of the two is constant.

    >>> round(correlation(np.array([0.0, 1.0, 2.0]), np.array([5.0, 3.0, 1.0])), 6)
    -1.0
    """
    one, other = one_F.ravel() - one_F.mean(), other_F.ravel() - other_F.mean()
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.clip(one @ other / norm, -1.0, 1.0)) if norm > 0 else 0.0


class _Attacked:
    """The pipelines of one silo, and the attack on what the server gets from each."""

    def __init__(self, scenario: Scenario, plan: SiloPlan, seed: int, rounds: int) -> None:
        self._scenario, self._plan, self._event = scenario, plan, plans.private_event(plan)
        self.noise_multiplier = self._event.noise_multiplier
        self._seed = derive_seed(seed, "demo-model")
        self._cohort = Cohort(rounds)
        self._rounds: Iterator[int] = iter(range(1, rounds + 1))

    def images(self, x_F: NDArray[np.float32], label: int) -> list[NDArray[np.float64]]:
        """Return what the attack makes of the three updates of one record."""
        plain_P = self._update(x_F, label, noised=False)
        words_P = self._cohort.masked(next(self._rounds), plain_P)
        seen = (plain_P, self._update(x_F, label, noised=True), self._cohort.read(words_P))
        return [invert(update_P, x_F.size, _MODEL.hidden[0]) for update_P in seen]

    def _update(self, x_F: NDArray[np.float32], label: int, *, noised: bool) -> NDArray[np.float32]:
        """Return what a silo whose lot is this one record sends: the model after a step, less the model before."""
        module = build_model(_MODEL, self._scenario.data.shape, self._seed)
        before_P = vectors.flatten(module)
        training = self._scenario.training
        plain = training.model_copy(update={"optimizer": "sgd", "momentum": 0.0})
        optimizer = build_optimizer(plain, module, training.learning_rate)
        x_1F, y_1 = torch.from_numpy(x_F[None]), torch.tensor([label])
        if noised:
            clip = self._plan.max_grad_norm
            gradients = kind(self._scenario.training.gradients)(
                module, cross_entropy, max_grad_norm=clip, unit=grid.fine(self.noise_multiplier * clip), rows=1
            )
            release = partial(mechanism_of(self._event).release, self._event.times(1), noise=OsNoise())
            sgd = DpSgd(gradients, optimizer, release, noise_multiplier=self.noise_multiplier)
            sgd.step(x_1F, y_1, np.arange(1))
        else:
            torch.autograd.backward(cross_entropy(module(x_1F), y_1).sum() / self._plan.expected_batch_size)
            optimizer.step()
        return vectors.flatten(module) - before_P


class Cohort:
    """Three silos of secure aggregation in this process: real keys, real shares, real masks.

    Args:
        rounds: How many updates will be masked, each under keys of its own round.
    """

    def __init__(self, rounds: int) -> None:
        keys = [SigningKey.generate() for _ in range(3)]
        roster = Roster("demo", tuple(Member(f"silo-{place}", key.public) for place, key in enumerate(keys)))
        policy = Policy(n_min=3, colluding=1, dropping=0, bound=_BOUND, largest_roster=len(keys), window=rounds)
        window = Window(_RUN, first=1, attempt=1, count=rounds)
        silos = [Participant(key, roster, policy, _RUN) for key in keys]
        collection = Collection(Setting(roster, policy, window))
        for silo in silos:
            collection.add_advert(silo.advert(window))
        adverts = collection.close_adverts()
        for silo in silos:
            collection.add_shares(silo.deal(adverts))
        for silo in silos:
            silo.receive(collection.shares_for(silo.number))
        self._silo, self._quantizer = silos[0], policy.quantizer

    def masked(self, round_number: int, update_P: NDArray[np.float32]) -> Words:
        """Return the words that leave the first silo for its update."""
        words_P = self._quantizer.encode(update_P)
        model, configuration = (digest(b"fedmodel/v1/demo", what) for what in (b"model", b"configuration"))
        self._silo.mask(round_number, words_P, model, configuration)
        return words_P

    def read(self, words_P: Words) -> NDArray[np.float64]:
        """Return one silo's words as if they were a sum: the update itself, were there no mask."""
        return self._quantizer.decode(words_P)


def _draw(y_N: NDArray[np.int64], digit: int | None, seed: int, count: int) -> list[int]:
    """Return which records are attacked, the one that is shown first."""
    rng = np.random.default_rng(derive_seed(seed, "demo-digits"))
    fitting = np.arange(len(y_N)) if digit is None else np.flatnonzero(y_N == digit)
    if not len(fitting):
        raise ConfigError(f"there is no digit {digit}; name one from 0 to {int(y_N.max())}")
    shown = int(rng.choice(fitting))
    others = rng.choice(np.delete(np.arange(len(y_N)), shown), count - 1, replace=False)
    return [shown, *(int(one) for one in others)]


def _stretched(image_F: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return grey levels in [0, 1]; a constant image is black."""
    low, high = image_F.min(), image_F.max()
    stretched_F: NDArray[np.float64] = (image_F - low) / (high - low) if high > low else np.zeros_like(image_F)
    return stretched_F
