"""Jobs that release one noised sum over a silo's records, a vector of each: all of such a job but the vectors.

Guarantee: an answer is a function of the release of a sum S by the event's mechanism (`Mechanism.release`), which is
measured on made-up sums before every charge. S is the sum, over the lot that the event names, of each
record's vector, times C, clipped to a length of at most C and cut to the fine grid: adding or removing one record moves
it by at most C in L2, and one unit by at most `max_records` times that. This is one sampled Gaussian of the event's
figures, which the event's parts have to cover; of any other event nothing is answered. The question says nothing that
the scenario does not, and another is refused. Taking C out again, bounding what is told and scaling it are
post-processing.

It rests on the job's word that a vector is made of its record alone. That is measured on made-up records before every
charge, and a job of which it does not hold is refused.

Why no vector is longer than C: the computed norm of at most `_MOST_WORDS` float64 is the true one but for a factor
within 1 +- 2^-40. A vector is multiplied by C (1 - 2^-39) / max(1, norm), each product rounded by at most 2^-53 of
itself, and then cut towards zero.

Does NOT hide how long the sum takes, which hangs on how many records there are.

Shapes: N records, B of them at once, K words of the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmodel.config import Scenario
from fedmodel.data import Records
from fedmodel.data.named import each
from fedmodel.errors import PrivacyError, ProtocolError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.inputs import made_up
from fedmodel.learning.jobs._answering import Carried, Observer, Question, Site, Vector
from fedmodel.learning.jobs._asking import Serving, State
from fedmodel.privacy import grid
from fedmodel.privacy.conformance import check_parts, check_release
from fedmodel.privacy.events import EXPERIMENT, Event, clip_of
from fedmodel.privacy.mechanisms import mechanism_of
from fedmodel.privacy.noise import NoiseSource, source_of
from fedmodel.privacy.normals import check_device

_MOST_WORDS: Final = 4_096
_SLACK: Final = 2.0**-39
_MADE_UP: Final = 16
_AT_ONCE: Final = 1 << 20  # words of records' vectors in memory


class Summed(Protocol):
    """What tells one such job from another."""

    def words(self, shape: DataShape) -> int:
        """Return how many words the sum has, which hangs on what is public alone; 0 where it cannot be made."""

    def vectors(self, records: Records, shape: DataShape) -> NDArray[np.float64]:
        """Return a vector of each record, made of that record alone, of shape `(B, K)`. Sensitive.

        One that is longer than 1 is clipped to that.
        """

    def told(self, sums_K: NDArray[np.float64], shape: DataShape) -> Mapping[str, object]:
        """Return what a line says of the noised sum over the records of all silos that answered."""


def summed(
    module: str, job: Summed
) -> tuple[Callable[[Serving], Asking], Callable[[Site, Sequence[Observer]], Answering]]:
    """Return the two sides of a job, `asking` and `answering`; its name is that of its module's file."""
    name = module.rpartition(".")[2].replace("_", "-")
    return partial(Asking, name, job), partial(Answering, name, job)


class Asking:
    """The server's side: asks for the sum, and says what it is.

    Args:
        name: The job's.
        job: What it sums up.
        serving: The run.
    """

    def __init__(self, name: str, job: Summed, serving: Serving) -> None:
        self._name, self._job, self._scenario = name, job, serving.scenario

    def question(self, _number: int, _state: State) -> Vector:
        """Return as many zeros as the answer has words: all else that is asked stands in the scenario."""
        return np.zeros(_words(self._name, self._job, self._scenario), dtype=np.float32)

    def fold(self, _state: State, mean_P: Vector) -> State:
        """Return the mean."""
        return State(mean_P)

    def tell(self, state: State, answers: int) -> dict[str, Any]:
        """Return the sum over the silos that answered, and one standard deviation of the noise of all of them."""
        scenario = self._scenario
        sums_K = state.vector_P.astype(np.float64) * answers / _unit(scenario, self._name)
        noise = scenario.besides[self._name].noise_multiplier * math.sqrt(answers)
        return {"noise_std": noise, **self._job.told(sums_K, scenario.data.shape)}


class Answering:
    """The silo's side: releases the sum once, as charged.

    Args:
        name: The job's.
        job: What it sums up.
        site: The silo.
        observers: There are none: an audited run does nothing besides training.
    """

    def __init__(self, name: str, job: Summed, site: Site, observers: Sequence[Observer] = ()) -> None:
        self._name, self._job, self.site = name, job, site
        if observers:
            raise PrivacyError(f"job {name!r} has no place for an observer; nothing was answered")

    def check(self, question: Question, plan: Event) -> None:
        """Refuse a question of another length, or one that says something, and an event that does not cover the sum."""
        words = _words(self._name, self._job, self.site.scenario)
        if question.vector_P.shape != (words,) or question.vector_P.any():
            raise ProtocolError(f"job {self._name!r} is asked with {words} zeros, and by nothing else")
        _check_covered(self._name, plan)
        check_release(mechanism_of(plan), plan)
        check_device(torch.device("cpu"))
        self._check_apart()

    def _check_apart(self) -> None:
        """Refuse a job whose vector of a record is another where others are beside it, on records that nobody has."""
        x_B, y_B = made_up(self.site.scenario.data.shape, _MADE_UP, torch.Generator().manual_seed(0))
        records = Records(each(x_B, Tensor.numpy), y_B.numpy(), np.arange(_MADE_UP))
        at_once_BK = self._vectors(records)
        apart_BK = [self._vectors(records.take(slice(place, place + 1))) for place in range(_MADE_UP)]
        if not np.array_equal(at_once_BK, np.concatenate(apart_BK)):
            raise PrivacyError(
                f"job {self._name!r} makes another vector of a record where others are beside it, so that nothing"
                " bounds what one record does to the sum; nothing was answered"
            )

    def _vectors(self, records: Records) -> NDArray[np.float64]:
        """Return the job's vectors; refuse other ones than one of each record, as long as the sum: they would spread.

        Sensitive.
        """
        scenario = self.site.scenario
        found_BK, words = self._job.vectors(records, scenario.data.shape), _words(self._name, self._job, scenario)
        if found_BK.shape != (len(records), words):
            raise PrivacyError(
                f"job {self._name!r} makes no vector of {words} words of each record; nothing is released"
            )
        return found_BK

    def answer(self, question: Question, records: Callable[[], Records], event: Event, carried: Carried) -> Vector:  # noqa: ARG002 - as every job
        """Return the noised sum, told in shares of the scenario's bound, float32 of shape `(K,)`.

        Args:
            question: The round, and zeros.
            records: Reads the silo's records; called once.
            event: What the ledger was charged; every figure of privacy is taken from here.
            carried: Left alone.

        Raises:
            DataError: When the silo has more records than sums are exact for.
            PrivacyError: When the event does not cover the sum, or noise would not come from the source that it names.
            ProtocolError: When there is no such sum over these records.
        """
        _check_covered(self._name, event)
        scenario, clip = self.site.scenario, clip_of(event)
        noise = _noise(self.site, question.number, event)
        sum_K = self._sum(records(), noise, event)
        (mean_K,) = mechanism_of(event).release(event, [torch.from_numpy(sum_K)], noise)
        own_K = mean_K.numpy() * np.float32(event.denominator / clip)
        bound = np.float32(scenario.besides[self._name].bound)
        told_K: Vector = np.clip(own_K, -bound, bound) * np.float32(_unit(scenario, self._name))
        return told_K

    def _sum(self, records: Records, noise: NoiseSource, event: Event) -> NDArray[np.float64]:
        """Return the clipped sum over a lot, on the fine grid, so that it is exact in whatever order. Sensitive."""
        grid.check_records(len(records), event.noise_multiplier)
        clip = clip_of(event)
        fine = grid.fine(event.noise_multiplier * clip)
        sum_K = np.zeros(_words(self._name, self._job, self.site.scenario))
        lot = noise.lot(len(records), event.sample_rate)
        rows = max(1, _AT_ONCE // len(sum_K))
        for start in range(0, len(lot), rows):
            sum_K += clipped(self._vectors(records.take(lot[start : start + rows])), clip, fine).sum(axis=0)
        return sum_K


def clipped(vectors_BK: NDArray[np.float64], clip: float, fine: float) -> NDArray[np.float64]:
    """Return vectors of at most `_MOST_WORDS` times the clip, none longer than it, cut to a grid towards zero.

    A vector with a word that is no finite number counts as zeros: to refuse it would tell that there is such a record.
    """
    vectors_BK = np.where(np.isfinite(vectors_BK).all(axis=1, keepdims=True), vectors_BK, 0.0)
    with np.errstate(over="ignore"):  # a norm that is no float64 is infinite, and its vector comes to zeros
        norm_B = np.sqrt(np.square(vectors_BK).sum(axis=1))
    factor_B = clip * (1 - _SLACK) / np.maximum(1.0, norm_B)
    cut_BK: NDArray[np.float64] = np.trunc(vectors_BK * factor_B[:, None] / fine) * fine
    return cut_BK


def _check_covered(name: str, event: Event) -> None:
    """Refuse an event that is of more sums than one, or whose parts do not cover the one that is released."""
    if event.steps != 1:
        raise PrivacyError(f"job {name!r} releases one sum, and an event of {event.steps} is none of it")
    check_parts(event)


def _words(name: str, job: Summed, scenario: Scenario) -> int:
    words = job.words(scenario.data.shape)
    if not 1 <= words <= _MOST_WORDS:
        raise ProtocolError(f"job {name!r} has no sum of 1 to {_MOST_WORDS} words over records of this data set")
    return words


def _unit(scenario: Scenario, job: str) -> float:
    """Return what one unit of a job is in an answer, so that its bound is the one of what leaves a silo quantised."""
    return (scenario.encryption.bound or 1.0) / scenario.besides[job].bound


def _noise(site: Site, number: int, event: Event) -> NoiseSource:
    """Return where lot and noise come from, as charged."""
    if event.drawn_from == EXPERIMENT and not site.simulated:
        raise PrivacyError("noise is never an experiment's at a deployed silo; nothing was answered")
    source = source_of(event.drawn_from, site.scenario.seed or 0, site.silo, number)
    if event.noise_source != source.name:
        raise PrivacyError(f"noise would come from {source.name!r} where {event.noise_source!r} was charged")
    return source
