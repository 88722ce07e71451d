"""Silos of one architecture trained side by side: each with its own lots, clip, noise and optimiser's state.

Silos whose events and steps are alike make a group, of which as many as a processor's cache holds are one stack
(`fedmodel.learning.stacked`). A stack's release is the mechanism's own, of all its silos' sums at once: noise of the
operating system, or of an experiment, is drawn for them together, and so are their lots, since each record and each
coordinate is drawn independently of all others anyway. Seeded noise is drawn for each silo from its own seed and in its
own order, so that a round is the one that silos train one by one, but for rounding.

Guarantee: as `fedmodel.learning.jobs.training` gives it, of every silo. Before the first round the stack is measured by
the preflight that measures any other pipeline, at the shape that trains; and in each round at the model that is trained
from. A baseline is measured before the first round alone, as nothing is claimed of it.

Does NOT take every scenario: `why_not` says why silos of one are trained one by one.

Shapes: S silos of a stack, B rows of a physical batch of each, L records drawn, N records of all silos, P parameters.
"""

from __future__ import annotations

import logging
import math
from collections import ChainMap, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.data import silo_records
from fedmodel.errors import DataError, FedmodelError
from fedmodel.learning import vectors
from fedmodel.learning.devices import cores, use_device
from fedmodel.learning.gradients import physical_batch
from fedmodel.learning.jobs.training import as_any_failure
from fedmodel.learning.magnitude import check_magnitude
from fedmodel.learning.models import build_model, training_losses
from fedmodel.learning.optimizers import build_optimizer, hold_near
from fedmodel.learning.preflight import check_received, preflight
from fedmodel.learning.stacked import MOST_ROWS, OfOneSilo, Stack, batches_of, sums_of, why_not_stacked
from fedmodel.privacy import grid
from fedmodel.privacy.conformance import check_parts, check_release
from fedmodel.privacy.events import Event, clip_of, protects
from fedmodel.privacy.mechanisms import mechanism_of
from fedmodel.privacy.noise import ExperimentNoise, NoiseSource, OsNoise, source_of
from fedmodel.secagg import FRESH
from scenarios.simulation.stacks import Alike, Stacks
from scenarios.simulation.trainers import Trained

_MOST_ROWS: Final = 512
_MECHANISMS: Final = ("dp-sgd", "none-unsafe")
_SPREAD: Final = 3  # standard deviations of a lot's size that a physical batch has room for

logger = logging.getLogger("server.trainers")


def why_not(scenario: Scenario) -> str:
    """Return why a scenario's silos are not trained side by side, empty where they are."""
    if scenario.data.augment is not None:
        return "data.augment makes views of each record"
    if ":" in scenario.training.loss:
        return "the loss is the user's own"
    if scenario.training.precision != "float32":
        return f"training.precision = {scenario.training.precision!r} rounds in each layer"
    if (name := plans.planned_event(scenario.plan(scenario.federation.silos[0])).mechanism) not in _MECHANISMS:
        return f"mechanism {name!r} releases otherwise"
    if isinstance(scenario.data.shape.arrays, Mapping):
        return "records have several arrays"
    return why_not_stacked(build_model(scenario.model, scenario.data.shape, seed=0))


@dataclass(frozen=True)
class _Group:
    """Silos that are charged alike.

    Attributes:
        event: Of one step.
        steps: Of a round.
        rows: Of a physical batch of each silo.
        silos: How many a stack of them has.
        clip: C', to which a record is clipped; infinite in a baseline that clips nothing.
        unit: What sums are rounded to.
        measured: What the preflight measured.
    """

    event: Event
    steps: int
    rows: int
    silos: int
    clip: float
    unit: float
    measured: OfOneSilo


@dataclass
class Held:
    """What silos are held to at the model that a round trains from.

    Attributes:
        rows: By group, of a physical batch of each silo.
        failed: Codes of the silos at whose group the model is refused.
    """

    rows: dict[Alike, int]
    failed: dict[str, str] = field(default_factory=dict)

    def of(self, trained: Trained) -> Trained:
        """Return what silos trained, without those at whose group the model is refused."""
        updates = {silo: update for silo, update in trained.updates.items() if silo not in self.failed}
        return Trained(updates, trained.failed | self.failed)


@dataclass
class _Kept:
    """Optimisers' state of a stack, after a round."""

    state: Mapping[int, Mapping[str, Any]]
    place: Mapping[str, int] = field(default_factory=dict)


class Stacked:
    """Trains silos side by side.

    Args:
        scenario: What is done; `why_not` says nothing of it.
        device: Where.
        dtype: Of the models in training; float64 is for comparing.
        threads: How many train on a processor, a stack each; as many as there are cores by default.

    Attributes:
        stacks: Which silos train together.

    Raises:
        DataError: When a silo has more records than sums are exact for.
        PrivacyError: When the preflight finds that a record could move more than the clip.
    """

    def __init__(
        self, scenario: Scenario, device: torch.device, dtype: torch.dtype = torch.float32, threads: int | None = None
    ) -> None:
        self._scenario, self._dtype = scenario, dtype
        self._device = use_device(str(device), 1)
        shape = scenario.data.shape
        self._module = build_model(scenario.model, shape, seed=0).to(self._device)
        self._losses = training_losses(scenario.training, shape, self._device)
        self.stacks = Stacks(scenario, vectors.parameter_count(self._module), self._device.type)
        self._lay_out()
        self._groups = {key: self._group(*key, silos) for key, silos in self.stacks.most.items()}
        self._passed: dict[Alike, tuple[NDArray[np.float32], int]] = {}
        self._kept: dict[str, _Kept] = {}
        self._workers = ThreadPoolExecutor(max_workers=(threads or cores()) if self._device.type == "cpu" else 1)

    def _lay_out(self) -> None:
        """Put all silos' records in a row on the device, and note where each silo's begin."""
        found = [silo_records(self._scenario, silo) for silo in self._scenario.federation.silos]
        sizes = [len(one) for one in found]
        self._begin = dict(zip(self.stacks.alike, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        self._size = dict(zip(self.stacks.alike, sizes, strict=True))
        self._x_N = torch.from_numpy(np.concatenate([one.x for one in found])).to(self._device)
        self._y_N = torch.from_numpy(np.concatenate([one.y_N for one in found])).to(self._device)

    def _group(self, event: Event, steps: int, silos: int) -> _Group:
        """Measure what a group of silos is trained with."""
        scenario, alike = self._scenario, self.stacks.alike
        silo = next(name for name, key in alike.items() if key == (event, steps))
        pipeline = plans.pipeline_event(scenario.plan(silo), event)
        check_parts(pipeline)
        check_release(mechanism_of(pipeline), pipeline)
        for name, size in self._size.items():
            if alike[name] == (event, steps) and size > grid.most_records(pipeline.noise_multiplier):
                raise DataError(f"silo {name} has {grid.too_many(pipeline.noise_multiplier)}")
        lot = event.denominator + _SPREAD * math.isqrt(event.denominator)
        said = scenario.training.max_physical_batch
        rows = min(physical_batch(lot, _MOST_ROWS if said == "auto" else said), MOST_ROWS)
        clip, unit = clip_of(pipeline), grid.fine(pipeline.noise_multiplier * clip_of(pipeline))
        module = build_model(scenario.model, scenario.data.shape, seed=0).to(self._device)
        measured = OfOneSilo(module, self._losses, max_grad_norm=clip, unit=unit, rows=rows)
        measured.silos = silos
        rows = preflight(measured, scenario.data.shape, clip)
        clipped = math.inf if event.max_grad_norm is None else measured.clip
        return _Group(event, steps, rows, silos, clipped, unit, measured)

    def round(self, number: int, silos: Sequence[str], model_P: NDArray[np.float32], lineage: bytes) -> Trained:
        """Return the silos' updates; where the model that is trained from is refused, none of a group has one."""
        held = self.hold(silos, model_P)
        asked = [silo for silo in silos if silo not in held.failed]
        return held.of(self.train(number, asked, model_P, lineage, held.rows))

    @property
    def rows(self) -> dict[Alike, int]:
        """By group, the rows of a physical batch at the last model that was measured."""
        return {key: group.measured.rows for key, group in self._groups.items()}

    def hold(self, silos: Sequence[str], model_P: NDArray[np.float32]) -> Held:
        """Hold the groups of some silos to their bounds at the model that is trained from."""
        held = Held({})
        for key, named in self.stacks.grouped(silos).items():
            try:
                held.rows[key] = self._rows(key, named[0], model_P)
            except FedmodelError as error:
                held.failed |= _failed(named, error)
        return held

    def close(self) -> None:
        """End the threads, each after the stack that it is at."""
        self._workers.shutdown(cancel_futures=True)

    def train(
        self,
        number: int,
        silos: Sequence[str],
        model_P: NDArray[np.float32],
        lineage: bytes,
        rows: Mapping[Alike, int],
    ) -> Trained:
        """Return the updates of silos; where a stack's training fails, none of its group has one.

        Guarantee: none, but where `hold` found these rows at this very model. Until then nothing of it may leave.

        Args:
            number: The round.
            silos: Who trains.
            model_P: From which model.
            lineage: What optimisers' state they all begin from, as `Trainer.round` has it.
            rows: By group, of a physical batch of each silo.
        """
        received_P = torch.from_numpy(model_P.copy()).to(self._device)
        grouped = defaultdict[Alike, list[list[str]]](list)
        for key, stack in self.stacks.of(silos):
            grouped[key].append(stack)
        updates: dict[str, NDArray[np.float32]] = {}
        failed: dict[str, str] = {}
        for key, stacks in grouped.items():
            train = partial(self._stack, self._groups[key], rows[key], number, received_P, lineage)
            try:
                # A stack after the other, or as many as there are threads at once.
                updates |= ChainMap(*self._workers.map(train, stacks))
            except FedmodelError as error:
                failed |= _failed([silo for stack in stacks for silo in stack], error)
        return Trained(updates, failed)

    def _rows(self, key: Alike, silo: str, model_P: NDArray[np.float32]) -> int:
        """Hold a group to its bound at the model that is trained from, once for as long as that is the same.

        Returns:
            Rows of a physical batch of each silo.
        """
        group, passed = self._groups[key], self._passed.get(key)
        if passed is not None and np.array_equal(passed[0], model_P):
            return passed[1]
        pipeline = plans.pipeline_event(self._scenario.plan(silo), group.event)
        check_magnitude(self._scenario, pipeline, model_P)
        rows = group.rows
        if protects(group.event):
            vectors.load(group.measured.module, model_P)
            rows = check_received(group.measured, self._scenario.data.shape, clip_of(pipeline))
        self._passed[key] = model_P.copy(), rows
        return rows

    def _stack(
        self, group: _Group, rows: int, number: int, received_P: Tensor, lineage: bytes, silos: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Return the updates of one stack: the loop of DP-SGD, top to bottom."""
        training = self._scenario.training
        stack = Stack(self._module, group.silos, self._dtype)
        stack.load(received_P)
        optimizer = build_optimizer(training, stack, training.rate(number, self._scenario.rounds))
        if training.keep_optimizer_state and lineage != FRESH:
            self._recall(optimizer, silos, group.silos)
        hold_near(optimizer, training.proximal)
        draws = self._draws(group, number, silos)
        noise = cast("NoiseSource", draws)  # of which a release asks for Gaussians alone
        release = mechanism_of(group.event).release
        parameters = list(stack.parameters())
        with as_any_failure():
            for _ in range(group.steps):
                lot_L, owner_L = draws.lots(group.event.sample_rate)
                batches = self._batches(lot_L, owner_L, group, rows)
                sums = sums_of(stack, batches, self._losses, group.clip, group.unit)
                for parameter, mean in zip(parameters, release(group.event, sums, noise), strict=True):
                    parameter.grad = mean.to(self._dtype)
                optimizer.step()
        if training.keep_optimizer_state:
            self._keep(optimizer, silos)
        update_SP = (stack.flat() - received_P.to(self._dtype)).to(torch.float32).cpu().numpy()
        return {silo: update_SP[place] for place, silo in enumerate(silos)}

    def _batches(
        self, lot_L: NDArray[np.intp], owner_L: NDArray[np.intp], group: _Group, rows: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield physical batches of a lot."""
        fitted = math.isinf(group.clip)
        x_SB: Tensor | None = None
        for index_SB, counts_SB in batches_of(lot_L, owner_L, group.silos, rows, fitted=fitted):
            index = index_SB.to(self._device)
            # In the same memory: each batch is done with before the next is asked for, and new memory costs more.
            x_SB = self._x_N.new_empty((*index.shape, *self._x_N.shape[1:])) if x_SB is None else x_SB
            torch.index_select(self._x_N, 0, index.flatten(), out=x_SB.flatten(0, 1))
            yield x_SB, self._y_N[index], counts_SB.to(self._device)

    def _draws(self, group: _Group, number: int, silos: Sequence[str]) -> _Together | _Apart:
        """Return where a stack's lots and noise come from, as charged."""
        begin_S = np.array([self._begin[silo] for silo in silos], dtype=np.intp)
        size_S = np.array([self._size[silo] for silo in silos], dtype=np.intp)
        seed, drawn_from = self._scenario.seed or 0, group.event.drawn_from
        together = source_of(drawn_from, seed, silos[0], number)
        if isinstance(together, OsNoise | ExperimentNoise):
            return _Together(together, begin_S, size_S)
        sources = [source_of(drawn_from, seed, silo, number) for silo in silos]
        sizes = [one.numel() for one in self._module.parameters()]
        return _Apart(sources, begin_S, size_S, sizes, group.silos)

    def _keep(self, optimizer: Optimizer, silos: Sequence[str]) -> None:
        """Note the state of a stack's optimiser for the next round."""
        kept = _Kept(optimizer.state_dict()["state"], {silo: place for place, silo in enumerate(silos)})
        self._kept.update(dict.fromkeys(silos, kept))

    def _recall(self, optimizer: Optimizer, silos: Sequence[str], stacked: int) -> None:
        """Give an optimiser the state of its silos; all have one history, so that what is counted is alike."""
        restored = optimizer.state_dict()
        kept = [self._kept[silo] for silo in silos]
        for index, names in kept[0].state.items():
            for name, value in names.items():
                if value.dim():
                    rows = [one.state[index][name][one.place[silo]] for one, silo in zip(kept, silos, strict=True)]
                    value = torch.stack([*rows, *[rows[0]] * (stacked - len(rows))])
                restored["state"].setdefault(index, {})[name] = value.clone()
        optimizer.load_state_dict(restored)


def _failed(silos: Sequence[str], error: FedmodelError) -> dict[str, str]:
    """Log why silos of a group have no update, and return their codes."""
    logger.warning("silos %s and others like it: %s", silos[0], error)
    return dict.fromkeys(silos, error.code)


class _Together:
    """Lots and noise of all silos of a stack, from one source.

    Args:
        source: The operating system's, which keeps nothing between draws, or an experiment's.
        begin_S: Where each silo's records begin.
        size_S: How many each has. Sensitive.
    """

    def __init__(self, source: OsNoise | ExperimentNoise, begin_S: NDArray[np.intp], size_S: NDArray[np.intp]) -> None:
        self._source, self.name = source, source.name
        self._owner_N = np.repeat(np.arange(len(size_S)), size_S)
        self._record_N = np.arange(int(size_S.sum())) + np.repeat(begin_S - (np.cumsum(size_S) - size_S), size_S)

    def lots(self, sample_rate: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the records that were drawn, each independently, a silo's after another's, and whose each is."""
        drawn_L = self._source.lot(len(self._owner_N), sample_rate)
        return self._record_N[drawn_L], self._owner_N[drawn_L]

    def gaussian(self, size: int, std: float, device: torch.device) -> Tensor:
        """Return noise for all silos' sums."""
        return self._source.gaussian(size, std, device)


class _Apart:
    """Lots and noise of each silo of a stack from its own source, in its own order.

    Args:
        sources: A silo's each.
        begin_S: Where each silo's records begin.
        size_S: How many each has.
        sizes: Numbers of each parameter.
        stacked: Silos of the stack, the last of which may be nobody's: their noise is zero.
    """

    def __init__(
        self,
        sources: Sequence[NoiseSource],
        begin_S: NDArray[np.intp],
        size_S: NDArray[np.intp],
        sizes: Sequence[int],
        stacked: int,
    ) -> None:
        self._sources, self.name = sources, sources[0].name
        self._begin_S, self._size_S, self._sizes, self._stacked = begin_S, size_S, sizes, stacked

    def lots(self, sample_rate: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the records that were drawn, a silo's after another's, and whose each is."""
        each = zip(self._sources, self._begin_S, self._size_S, strict=True)
        lots = [begin + source.lot(int(size), sample_rate) for source, begin, size in each]
        return np.concatenate(lots), np.repeat(np.arange(len(lots)), [len(lot) for lot in lots])

    def gaussian(self, size: int, std: float, device: torch.device) -> Tensor:
        """Return noise for all silos' sums, laid out as these are: a parameter after the other, of all silos each."""
        noise_SP = torch.zeros(self._stacked, size // self._stacked, dtype=torch.float64, device=device)
        for place, source in enumerate(self._sources):
            noise_SP[place] = source.gaussian(noise_SP.shape[1], std, device)
        return torch.cat([part.reshape(-1) for part in torch.split(noise_SP, list(self._sizes), dim=1)])
