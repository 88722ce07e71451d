"""Training, the first kind of job: at a silo the DP-SGD loop, top to bottom, and at the server the model that it moves.

Guarantee: what `Answering.answer` returns depends on the silo's records only through `event.steps` releases of the
mechanism that `event` describes, at the figures it names, and the event's parts cover what these release. That holds of
a mechanism whose noise is Gaussian, which is measured and not proved (`fedmodel.privacy.conformance`). The number of
steps comes from the event, never from the data; no loss, norm or count is returned. A refusal once records are read has
the code of any failure, so that which rule a record broke is not told; that a round failed is. Post-processing (the
inner optimiser, its learning rate, a proximal term, the difference from the global model) costs nothing.

Dropout: a record's gradient is random through its mask. Masks are drawn from the same source as the noise,
independently for every record and step, and nobody sees them. For any fixed masks of the others, adding a record moves
the clipped sum by at most C, and hiding which masks were drawn can only help (joint convexity of the hockey-stick
divergence): a mask belongs to a place of a physical batch, but masks of all places have one distribution and are
independent, so that each record's own mask may be thought of as going with it wherever it is. Masks that an adversary
could predict would void this: moving every later record to another mask by adding one would change all their gradients.
Only "seeded-unsafe" runs, which claim nothing, repeat them.

Augmentation (`data.augment`) rests on the same argument, with draws in place of masks (`fedmodel.learning.augmenting`).

A baseline (`privacy.baseline`) is the same code, measured as for the private run, and then given a release without
noise and perhaps an infinite clip, whose sums are plain ones (`fedmodel.learning.unclipped`). It promises nothing, and
a silo that is not a simulation's own never runs it: `answer` refuses, whatever was asked, charged or checked before.

Several processes may compute the sums of one lot (`fedmodel.learning.ranks`): lots and noise are drawn here all the
same, once, and the sum is to the bit what this process alone makes of the lot. A round that is observed, or that does
not clip, is refused in several: the other processes would clip, and no observer would see into them.

Observers hang on the loop from outside, an audit's for one: whoever puts a silo's job together hands them over, and
without any the loop is the same.

Shapes: N records, P parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch

from fedmodel import plans
from fedmodel.config import Scenario
from fedmodel.data import Records
from fedmodel.errors import ConfigError, DataError, FedmodelError, PrivacyError
from fedmodel.kinds.layers import Dropout
from fedmodel.learning import vectors
from fedmodel.learning.augmenting import augmenting
from fedmodel.learning.averaging import Average, outcome
from fedmodel.learning.devices import sharing, use_device
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.inputs import tensors
from fedmodel.learning.jobs import Carried, Observer, Question, Serving, Site, State, Vector
from fedmodel.learning.jobs._pipelines import gradients_of, key_of, measuring_s, most_rows_of, rows_at, share
from fedmodel.learning.magnitude import check_magnitude
from fedmodel.learning.memory import said_if_it_runs_out
from fedmodel.learning.optimizers import build_optimizer, hold_near, keep_state, recall_state
from fedmodel.learning.ranks import Masks, Pipeline, Ranks, ranks_of
from fedmodel.privacy.conformance import check_parts, check_release
from fedmodel.privacy.events import EXPERIMENT, Event, clip_of, event_to_json, protects
from fedmodel.privacy.mechanisms import mechanism_of
from fedmodel.privacy.noise import NoiseSource, source_of
from fedmodel.privacy.plan import SiloPlan


class Asking:
    """Training at the server: a round asks about the model, and its mean moves it.

    Args:
        serving: The run.
    """

    def __init__(self, serving: Serving) -> None:
        self._apply, self._measure = serving.apply, serving.measure
        self._decay = serving.scenario.training.ema_decay

    def question(self, _number: int, state: State) -> Vector:
        """Return the model."""
        return state.vector_P

    def fold(self, state: State, mean_P: Vector) -> State:
        """Return the model moved by the mean of the updates, and the average of models, if there is one, with it."""
        if self._decay is None:
            return State(*self._apply(state.vector_P, mean_P, state.kept))
        kept, average = Average.behind(state.kept, len(state.vector_P))
        model_P, kept = self._apply(state.vector_P, mean_P, kept)
        return State(model_P, kept + average.after(model_P, self._decay).to_bytes())

    def tell(self, state: State, _answers: int) -> Mapping[str, Any]:
        """Return the figures of the run's model on the server's own records, and whether that is the average."""
        figures = self._measure(outcome(state.vector_P, state.kept, self._decay))
        return figures if self._decay is None else {**figures, "model": "average"}


class Answering:
    """Training at a silo: the answer is the noised difference from the model that was received.

    Args:
        site: The silo.
        observers: What looks on.
    """

    def __init__(self, site: Site, observers: Sequence[Observer] = ()) -> None:
        self.site, self._observers = site, observers
        self._wrappers = tuple(one.wrapper for one in observers if one.wrapper is not None)

    def check(self, question: Question, plan: Event) -> None:
        """Refuse a question that could not be trained on, before anything is charged for it. Reads no record.

        Raises:
            ConfigError: When records cannot be augmented as is declared.
            PrivacyError: When the preflight, or a measurement at the model received, finds that one record could move
                more than the clip, or the plan's mechanism charges for less than its release was measured to cost, or
                noise cannot be computed exactly enough on the silo's device; or when the round would be charged at
                another rate than the scenario has for it; or when it is one for a single process, and there are more.
            ProtocolError: When the model received does not fit, or would swallow a step.
        """
        self._check_processes(plan)
        scenario = self.site.scenario
        for observer in self._observers:
            observer.ready()
        device = self._device()
        pipeline = plans.pipeline_event(_plan_of_round(self.site, question.number, plan), plan)
        _check_charged(pipeline)
        check_magnitude(scenario, pipeline, question.vector_P)
        if scenario.data.augment is not None:
            scenario.data.augment.of(scenario.data.shape)
        with said_if_it_runs_out(scenario.training.max_physical_batch, ConfigError):
            self._measured(question, pipeline, device)

    def answer(self, question: Question, records: Callable[[], Records], event: Event, carried: Carried) -> Vector:
        """Train on the silo's records as charged, and return the difference from the model received.

        Args:
            question: The round and the model.
            records: Reads the silo's records; called once.
            event: What the ledger was charged; every privacy figure is taken from here.
            carried: Optimiser state between rounds, if the scenario keeps it; changed in place.

        Returns:
            The update, float32 of shape `(P,)`, differentially private; of an event that leaves noise out it is not.

        Raises:
            DataError: When memory runs out, which may hang on how many records a silo has; and whatever else is refused
                once they are read: its code is that of any failure, and its message is the refusal's own.
            PrivacyError: Before a record is read: when lots and noise would not come from the source that the event
                names, the round was charged at another rate than the scenario has for it, the pipeline does not hold to
                the clip at the model received, noise is to be left out at a silo that is not simulated, or the round is
                one for a single process.
            ProtocolError: When the model received does not fit.
        """
        with said_if_it_runs_out(self.site.scenario.training.max_physical_batch, DataError):
            return self._trained(question, records, event, carried)

    def _trained(self, question: Question, records: Callable[[], Records], event: Event, carried: Carried) -> Vector:
        """Return the update; the loop of DP-SGD, top to bottom."""
        self._check_processes(event)
        scenario = self.site.scenario
        device = self._device()
        noise = _noise(scenario, self.site.silo, question.number, event)
        if noise.name != event.drawn_from:
            raise PrivacyError(f"noise would come from {noise.name!r} where {event.drawn_from!r} was charged")
        pipeline = plans.pipeline_event(_plan_of_round(self.site, question.number, event), event)
        _check_charged(pipeline)
        if not protects(event) or EXPERIMENT in (event.drawn_from, event.noise_source):
            _check_simulated(self.site)
        rows, others, alike = self._measured(question, pipeline, device)
        clip = math.inf if event.max_grad_norm is None else clip_of(pipeline)
        gradients = gradients_of(*key_of(scenario, pipeline), device, clip, self._wrappers)
        gradients.rows = rows
        module = gradients.module
        for layer in module.modules():
            if isinstance(layer, Dropout):
                layer.source = noise
        vectors.load(module, question.vector_P)
        rate = scenario.training.rate(question.number, scenario.rounds)
        optimizer = build_optimizer(scenario.training, module, rate)
        release = partial(mechanism_of(event).release, event.times(1), noise=noise)  # of one step, as was measured
        augment = augmenting(scenario.data.augment, scenario.data.shape, noise)
        sums = None if others is None else partial(others.of, gradients)
        sgd = DpSgd(gradients, optimizer, release, noise_multiplier=pipeline.noise_multiplier, augment=augment, of=sums)
        if scenario.training.keep_optimizer_state:
            recall_state(optimizer, carried)

        for observer in self._observers:
            observer.begin(pipeline)
        x_N, y_N = tensors(records(), device)
        with as_any_failure():
            for observer in self._observers:
                x_N, y_N = observer.add(x_N, y_N)
            for observer in self._observers:
                observer.watch(sgd)
            hold_near(optimizer, scenario.training.proximal)  # behind observers, which see what is released
            if others is not None and alike is not None:
                masks = Masks(event.drawn_from, _seed(scenario), self.site.silo, question.number)
                others.begin(alike, masks, rows)

            for _ in range(event.steps):
                lot = noise.lot(len(y_N), event.sample_rate)
                for observer in self._observers:
                    observer.drew(lot)
                sgd.step(x_N, y_N, lot)

        if scenario.training.keep_optimizer_state:
            keep_state(optimizer, carried)
        update_P = vectors.flatten(module) - question.vector_P
        for observer in self._observers:
            observer.end(update_P)
        return update_P

    def _measured(
        self, question: Question, event: Event, device: torch.device
    ) -> tuple[int, Ranks | None, Pipeline | None]:
        """Return the rows of a physical batch, the processes besides this one, and what all measured, if there are any.

        Every process holds the pipeline to the clip at this model, on its own device; and together they were seen to
        sum up made-up records to the bit as this one does, in physical batches of these rows.
        """
        scenario, key = self.site.scenario, key_of(self.site.scenario, event)
        others = ranks_of(self.site.processes)
        share(device, sharing(self.site.device, self.site.processes, device))
        own = partial(rows_at, *key, device, question.vector_P, self._wrappers)
        if others is None:
            return own(), None, None
        alike = Pipeline(key[0], event_to_json(key[1]), self.site.device, None)
        if scenario.training.max_physical_batch == "auto":
            alike = replace(alike, most=most_rows_of(*key, device))
        rows = others.measured(alike, question.vector_P, own, partial(measuring_s, key[0], device))
        gradients = gradients_of(*key, device)
        gradients.rows = rows
        vectors.load(gradients.module, question.vector_P)
        others.check_as_one(alike, gradients, scenario.data.shape)
        return rows, others, alike

    def _check_processes(self, event: Event) -> None:
        """Refuse several processes where the others would not do what this one does: be observed, or clip nothing."""
        alone = "is audited" if self._observers else "trains without a clip" if event.max_grad_norm is None else ""
        if alone and self.site.processes > 1:
            raise PrivacyError(
                f"a silo that {alone} does so in one process, and this one has {self.site.processes}; say processes = 1"
                " in silo.toml; nothing was trained"
            )

    def _device(self) -> torch.device:
        """Return where this silo trains; simulated ones share this machine's cards."""
        place = self.site.scenario.federation.silos.index(self.site.silo) if self.site.simulated else 0
        return use_device(self.site.device, self.site.scenario.training.threads, place)


asking, answering = Asking, Answering


@contextmanager
def as_any_failure() -> Iterator[None]:
    """Give a refusal the code of any failure, where a silo's own records may be why; its message stays at the silo."""
    try:
        yield
    except FedmodelError as error:
        if error.code == FedmodelError.code:
            raise
        raise DataError(str(error)) from error


def _plan_of_round(site: Site, number: int, event: Event) -> SiloPlan:
    """Return what a silo is asked to do in a round's phase, and refuse an event of another phase's lots."""
    plan = site.scenario.plan(site.silo, site.scenario.phase_of(number))
    if plan.lots and (event.sample_rate, event.denominator) != (plan.sample_rate, plan.expected_batch_size):
        raise PrivacyError(
            f"round {number} has lots at rate {plan.sample_rate:g} and divisor {plan.expected_batch_size} by the"
            f" scenario, and is charged as {event.sample_rate:g} and {event.denominator}; nothing was trained"
        )
    return plan


def _check_simulated(site: Site) -> None:
    """Refuse no noise, or an experiment's, at a silo that is not a simulation's own, whoever let it come this far."""
    if not site.simulated:
        raise PrivacyError("noise is never left out, nor an experiment's, at a deployed silo; nothing was trained")


def _check_charged(event: Event) -> None:
    """Refuse an event whose mechanism charges for less than it was measured to release."""
    check_parts(event)
    _check_release_once(event.times(1))


@lru_cache(maxsize=64)
def _check_release_once(event: Event) -> None:
    """Measure a mechanism's release, once a process: neither steps nor records change it."""
    check_release(mechanism_of(event), event)


def _noise(scenario: Scenario, silo: str, round_number: int, event: Event) -> NoiseSource:
    """Return where lots and noise come from, as charged."""
    return source_of(event.drawn_from, _seed(scenario), silo, round_number, sums=event.steps)


def _seed(scenario: Scenario) -> int:
    if scenario.seed is None:
        raise ConfigError("a scenario that runs has a seed; read it with read_scenario")
    return scenario.seed
