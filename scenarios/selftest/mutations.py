"""Mistakes of DP-SGD, planted in the code that runs: each puts another value in place of an attribute for a while.

They are mistakes that were made somewhere: noise of the wrong size or from a seed, a clip that is not there, lots of a
fixed size, a divisor that was counted, a charge that comes late, an accountant that reads another rate. Nothing of a
run is imitated: its silos, server, ledgers and audit are what they are, but for the one attribute.

Does NOT change a file: the hash that a silo's law names is of the packages on disk, so a mutated process passes for an
honest one, as `clients.policy` says of any changed process.

Shapes: B batch, P parameters, L a lot.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor
from torch.optim import Optimizer

from clients import carried, hiding, policy
from clients.outbox import Outbox, Release
from clients.probing import Probing
from clients.silo import Silo
from fedmodel.config import FederationConfig, PersonForm, Scenario, TrainingConfig
from fedmodel.data import Records, persons, tables
from fedmodel.data.named import each
from fedmodel.errors import LedgerError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning import models, optimizers, refusals
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import ClippedSum, book_keeping, hooks
from fedmodel.learning.gradients.book_keeping import BookKeeping
from fedmodel.learning.gradients.layers import packing
from fedmodel.learning.gradients.layers.parts import Share
from fedmodel.learning.gradients.layers.rows import Rows
from fedmodel.learning.inputs import Inputs, called, taken
from fedmodel.learning.jobs import Carried, Question, State, _pipelines, _rank, training
from fedmodel.learning.jobs.training import Answering, Asking
from fedmodel.learning.precision import in_float32
from fedmodel.learning.ranks import Ranks
from fedmodel.learning.tasks import RecordLoss
from fedmodel.ledger import Charge, Ledger, Run, admission, standing
from fedmodel.privacy import release
from fedmodel.privacy.accounting import composition, pld
from fedmodel.privacy.events import Event, bounded, protects
from fedmodel.privacy.noise import NoiseSource, OsNoise, SeededNoise
from fedmodel.provision import influence
from fedmodel.provision.simulated import GoesOn
from fedmodel.secagg import LINEAGE_SIZE
from fedmodel.seeds import derive_seed
from scenarios.report.page import render
from scenarios.selftest.planting import Planted, replaced, together
from scenarios.simulation import simulate, starting

_SEED: Final = 1


def without_preflight() -> Planted:
    """Do not measure the pipeline before it trains."""

    def unlooked(gradients: ClippedSum, *_: object) -> int:
        return gradients.rows

    return together(
        partial(replaced, _pipelines, "check_model", lambda *_: None),
        partial(replaced, _pipelines, "preflight", unlooked),
        partial(replaced, _pipelines, "check_received", unlooked),
        partial(replaced, training, "check_release", lambda *_: None),
    )


def without_comparing_processes() -> Planted:
    """Do not measure whether several processes sum up made-up records as one does."""
    return replaced(Ranks, "check_as_one", lambda *_: None)


def noise_in_each_process() -> Planted:
    """Add the noise of the release to what each other process sums up, too."""
    summed = _rank._Rank._summed

    def noised(self: _rank._Rank, names: list[str] | None, values: list[NDArray[Any]]) -> Tensor:
        sum_P = summed(self, names, values)
        return sum_P + OsNoise().gaussian(len(sum_P), self._gradients.max_grad_norm, sum_P.device)

    return replaced(_rank._Rank, "_summed", noised)


def lots_drawn_twice() -> Planted:
    """Sum up a lot that each of two processes drew, where the charge is of one."""
    of = Ranks.of

    def twice(
        self: Ranks, gradients: ClippedSum, x_N: Inputs, y_N: Tensor, lot: NDArray[np.intp], *more: Any, **said: Any
    ) -> list[Tensor]:
        second = OsNoise().lot(len(y_N), 0.5)
        return of(self, gradients, x_N, y_N, np.concatenate([lot, second]), *more, **said)

    return replaced(Ranks, "of", twice)


def clip_of_parts() -> Planted:
    """Give each view of a record to a process of its own, which clips what the view adds before all is summed."""
    of, begin = Ranks.of, _rank._Rank._begin

    def apart(self: Ranks, gradients: ClippedSum, *lot: Any, **said: Any) -> list[Tensor]:
        views, batches = gradients.views, gradients.batches

        def parts(*given: Any, **asked: Any) -> Iterator[tuple[Inputs, Tensor]]:
            with replaced(gradients, "views", views):
                found = [*batches(*given, **asked)]
            for x_V, y_R in found:
                for view in range(views):
                    yield each(x_V, lambda one: one[view::views]), y_R  # noqa: B023 - called here

        with replaced(gradients, "batches", parts), _one_view(gradients):
            return of(self, gradients, *lot, **said)

    def begun(self: _rank._Rank, asked: dict[str, Any]) -> None:
        begin(self, asked)
        if self._gradients.views > 1:  # to the end of the process, which is another
            vars(self)["apart"] = _one_view(self._gradients)
            vars(self)["apart"].__enter__()

    return together(partial(replaced, Ranks, "of", apart), partial(replaced, _rank._Rank, "_begin", begun))


@contextmanager
def _one_view(gradients: ClippedSum) -> Iterator[None]:
    """Take a physical batch for one of a view of each record, which adds its share of the mean."""
    views, losses = gradients.views, gradients.losses
    with (
        replaced(gradients, "views", 1),
        replaced(gradients, "losses", lambda output, target_B: losses(output, target_B) / views),
    ):
        yield


def loss_couples_records() -> Planted:
    """Take from each record's loss a part of the mean of all, as a loss of one's own may that scales by the batch."""
    honest = models.training_losses

    def coupled(config: TrainingConfig, shape: DataShape, device: torch.device | None = None) -> RecordLoss:
        losses = honest(config, shape, device)

        def less_the_mean(output: Any, target_B: Tensor) -> Tensor:
            loss_B = losses(output, target_B)
            return loss_B - 0.5 * loss_B.mean()

        return less_the_mean

    return together(
        partial(replaced, refusals, "training_losses", coupled),
        partial(replaced, _pipelines, "training_losses", coupled),
    )


def batch_not_padded() -> Planted:
    """Let a physical batch have as many rows as there are records left for it."""
    return together(*(partial(replaced, kind, "padded", lambda values, _: values) for kind in (book_keeping, hooks)))


def grid_left_out() -> Planted:
    """Release every bit of the noised sum."""
    return replaced(release, "round_", lambda values, _: values)


def noise_times(factor: float) -> Planted:
    """Draw noise with another standard deviation."""
    gaussian = OsNoise.gaussian

    def scaled(self: OsNoise, size: int, std: float, device: torch.device) -> Tensor:
        return gaussian(self, size, factor * std, device)

    return replaced(OsNoise, "gaussian", scaled)


def release_noises_less(factor: float) -> Planted:
    """Have the mechanism add other noise than its event says and charges for."""
    noised = release.release

    def less(sums_L: list[Tensor], noise: NoiseSource, std: float, denominator: int) -> list[Tensor]:
        gaussian = noise.gaussian
        with replaced(noise, "gaussian", lambda size, std, device: factor * gaussian(size, std, device)):
            return noised(sums_L, noise, std, denominator)

    return replaced(release, "release", less)


def noise_once_for_two_layers() -> Planted:
    """Give the second tensor of parameters the noise of the first, of as many coordinates as both have."""
    noised = release.release

    def shared(sums_L: list[Tensor], noise: NoiseSource, std: float, denominator: int) -> list[Tensor]:
        gaussian, (first, second) = noise.gaussian, (sum_.numel() for sum_ in sums_L[:2])

        def drawn(size: int, std: float, device: torch.device) -> Tensor:
            noise_P = gaussian(size, std, device)
            both = min(first, second)
            noise_P[first : first + both] = noise_P[:both]
            return noise_P

        with replaced(noise, "gaussian", drawn):
            return noised(sums_L, noise, std, denominator)

    return replaced(release, "release", shared)


def noise_once_a_round() -> Planted:
    """Add noise to the first step of a round alone."""
    gaussian = OsNoise.gaussian

    def once(self: OsNoise, size: int, std: float, device: torch.device) -> Tensor:
        factor = 0.0 if vars(self).setdefault("drawn", False) else 1.0
        vars(self)["drawn"] = True
        return gaussian(self, size, std, device) * factor

    return replaced(OsNoise, "gaussian", once)


def noise_misses(block: bool) -> Planted:
    """Add no noise to the canaries' block, which is the last tensor of parameters, or to no tensor but that."""

    def partly(noise_P: Tensor, own: int) -> None:
        noise_P[slice(own, None) if block else slice(0, own)] = 0.0

    return _noise_made(partly)


def noise_uniform() -> Planted:
    """Draw noise of the right variance from a uniform distribution."""

    def uniform(self: OsNoise, size: int, std: float, device: torch.device) -> Tensor:  # noqa: ARG001 - one shape
        end = math.sqrt(3) * std
        return torch.from_numpy(np.random.default_rng().uniform(-end, end, size)).to(device)

    return replaced(OsNoise, "gaussian", uniform)


def noise_seeded(seed_of: Callable[[str, int], int]) -> Planted:
    """Start the generator of noise every round, from a seed that is made from the silo's name and the round."""
    make = training._noise

    def seeded(scenario: Scenario, silo: str, round_number: int, event: Event) -> NoiseSource:
        source = make(scenario, silo, round_number, event)
        vars(source)["gaussian"] = SeededNoise(derive_seed(_SEED, seed_of(silo, round_number))).gaussian
        return source

    return replaced(training, "_noise", seeded)


def clip_doubled() -> Planted:
    """Clip to twice what was charged, and add the noise that was charged."""
    add = BookKeeping.add

    def doubled(self: BookKeeping, x_R: Inputs, y_R: Tensor) -> None:
        with replaced(self, "max_grad_norm", 2 * self.max_grad_norm):
            add(self, x_R, y_R)

    return replaced(BookKeeping, "add", doubled)


def clip_missing() -> Planted:
    """Weigh every record's gradient with 1."""
    add = BookKeeping.add

    def unclipped(self: BookKeeping, x_R: Inputs, y_R: Tensor) -> None:
        with replaced(self, "max_grad_norm", math.inf):
            add(self, x_R, y_R)

    return replaced(BookKeeping, "add", unclipped)


def clip_of_the_sum() -> Planted:
    """Clip the sum of a batch, and not each record's gradient."""
    add = BookKeeping.add

    def summed(self: BookKeeping, x_R: Inputs, y_R: Tensor) -> None:
        with replaced(self, "max_grad_norm", math.inf):
            add(self, x_R, y_R)
        if self._pending_P is not None:
            self._pending_P *= (self.max_grad_norm / self._pending_P.norm()).clamp(max=1.0)

    return replaced(BookKeeping, "add", summed)


def weights_after_the_clip() -> Planted:
    """Weigh a record by its class when its gradient is clipped already, and not its loss."""
    factors = BookKeeping._factors
    noted: list[Tensor] = []

    def unweighed(loss_B: Tensor, weight_B: Tensor) -> Tensor:
        noted[:] = [weight_B.double()]
        return loss_B

    def late(self: BookKeeping, parts: list[Share], records: int) -> Tensor:
        return factors(self, parts, records) * noted[0]

    return together(partial(replaced, models, "weighed", unweighed), partial(replaced, BookKeeping, "_factors", late))


def noise_repeats_on_the_model() -> Planted:
    """Draw the noise of the model's own coordinates once, and use it in every step, round and silo."""
    kept: list[Tensor] = []

    def same(noise_P: Tensor, own: int) -> None:
        if not kept:
            kept.append(noise_P[:own].clone())
        noise_P[:own] = kept[0]

    return _noise_made(same)


def noise_misses_a_coordinate() -> Planted:
    """Add no noise to the first coordinate of the model."""

    def short(noise_P: Tensor, own: int) -> None:  # noqa: ARG001 - one shape
        noise_P[0] = 0.0

    return _noise_made(short)


def _noise_made(change: Callable[[Tensor, int], None]) -> Planted:
    """Change the noise of every step: of so many coordinates of the model's own, and of the canaries' block."""
    noised, gaussian = DpSgd._release, OsNoise.gaussian

    def changed(self: DpSgd, sums_L: list[Tensor]) -> None:
        block = sums_L[-1].numel()

        def drawn(source: OsNoise, size: int, std: float, device: torch.device) -> Tensor:
            noise_P: Tensor = gaussian(source, size, std, device)
            change(noise_P, size - block)
            return noise_P

        with replaced(OsNoise, "gaussian", drawn):
            noised(self, sums_L)

    return replaced(DpSgd, "_release", changed)


def state_without_noise() -> Planted:
    """Keep the inner optimiser's momentum between rounds from the last clipped sum, and not from what was noised."""
    keep, noised = optimizers.keep_state, DpSgd._release
    kept: dict[Tensor, Tensor] = {}

    def noted(self: DpSgd, sums_L: list[Tensor]) -> None:
        kept.update(zip(self.gradients.parameters, _bare(self, sums_L), strict=True))
        noised(self, sums_L)

    def leaky(optimizer: Optimizer, carried: Carried) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in kept:
                    optimizer.state[parameter]["momentum_buffer"] = kept[parameter]
        keep(optimizer, carried)

    return together(lambda: replaced(DpSgd, "_release", noted), lambda: replaced(training, "keep_state", leaky))


def _bare(sgd: DpSgd, sums_L: list[Tensor]) -> list[Tensor]:
    """Return what a step would release without noise."""

    def none(_: OsNoise, size: int, std: float, device: torch.device) -> Tensor:  # noqa: ARG001 - one shape
        return torch.zeros(size, dtype=torch.float64, device=device)

    with replaced(OsNoise, "gaussian", none):
        return sgd.release(sums_L)


def state_without_lineage() -> Planted:
    """Begin every round from whatever is kept, also where the cohort is to begin fresh."""
    begin = carried.begin
    return replaced(carried, "begin", lambda kept, _: begin(kept, kept[:LINEAGE_SIZE]))


def noise_taken_off() -> Planted:
    """Put the gradient without noise back, once the audit has looked at the one with."""
    watch = Probing.watch

    def blind(self: Probing, sgd: DpSgd) -> None:
        watch(self, sgd)

        def put_back(*_: Any) -> None:
            for parameter, mean in zip(sgd.gradients.parameters, _bare(sgd, sgd.sums), strict=True):
                parameter.grad = mean

        sgd.optimizer.register_step_pre_hook(put_back)

    return replaced(Probing, "watch", blind)


def clip_misses(place: int) -> Planted:
    """Leave one tensor of parameters out of a gradient's norm: the canaries' block is number -1."""
    factors = BookKeeping._factors

    def partly(self: BookKeeping, parts: list[Share], records: int) -> Tensor:
        if isinstance(parts[0], Rows):
            return factors(self, [_Missing(parts[0], place)], records)
        return factors(self, [part for part in parts if part is not parts[place]], records)

    return replaced(BookKeeping, "_factors", partly)


class _Missing(Rows):
    """What records add to linear layers, one tensor of whose parameters is left out of the norm."""

    def __init__(self, whole: Rows, place: int) -> None:
        super().__init__(whole.layers, whole.lefts, whole.rights)
        missing = whole.layers.parameters[place]
        layer = next(n for n, one in enumerate(whole.layers.of) if missing is one.weight or missing is one.bias)
        own_B = whole.lefts[layer].double().norm(dim=1)
        self._own_B = own_B * whole.rights[layer].double().norm(dim=1) if missing.dim() > 1 else own_B

    def squares(self) -> tuple[Tensor, Tensor]:
        """Return squared norms of the other tensors."""
        square_B = (super().squares()[0] - self._own_B**2).clamp(min=0.0)
        return square_B, square_B


def factors_of_another_batch() -> Planted:
    """Weigh a physical batch's gradients with the factors of the one before it."""
    factors = BookKeeping._factors

    def late(self: BookKeeping, parts: list[Share], records: int) -> Tensor:
        own_B = factors(self, parts, records)
        before_B: Tensor = vars(self).get("before", own_B)
        vars(self)["before"] = own_B
        return before_B

    return replaced(BookKeeping, "_factors", late)


def tied_weight_counted_twice() -> Planted:
    """Sum what a record adds to a weight once for each of two uses, where its norm is that of one."""
    summed = packing.summed
    return replaced(packing, "summed", lambda parts, factor_B: 2 * summed(parts, factor_B))


def norms_in_float32() -> Planted:
    """Take the factors of gradients in bf16 from those that another pass has in float32, as if they were the same."""
    add = BookKeeping.add

    def apart(self: BookKeeping, x_R: Inputs, y_R: Tensor) -> None:
        with in_float32(self.module):
            own_B = self._factors(self._parts(x_R, y_R), len(y_R))
        with replaced(self, "_factors", lambda *_: own_B):
            add(self, x_R, y_R)

    return replaced(BookKeeping, "add", apart)


def rounding_forgotten() -> Planted:
    """Clip to the clip itself, with no room for what a sum is rounded by."""
    return replaced(BookKeeping, "clip", ClippedSum.clip)


def clip_lets_nan_through() -> Planted:
    """Make no number of what is none."""
    add = BookKeeping.add

    def trusting(self: BookKeeping, x_R: Inputs, y_R: Tensor) -> None:
        with replaced(Tensor, "nan_to_num_", lambda values, *_: values):
            add(self, x_R, y_R)

    return replaced(BookKeeping, "add", trusting)


def ghost_clipping() -> Planted:
    """Clip as Opacus 1.6's ghost clipping does losses of shape (B, 1): each weight times the sum of all of them."""

    def summed(
        self: BookKeeping, x_N: Inputs, y_N: Tensor, lot: NDArray[np.intp], _augment: object = None, **_refuse: bool
    ) -> list[Tensor]:
        self.forget()
        chosen = torch.from_numpy(lot).to(y_N.device)
        wrapped = vars(self).get("wrapped") or GradSampleModuleFastGradientClipping(self.module, loss_reduction="sum")
        vars(self)["wrapped"] = wrapped
        outputs, labels = called(wrapped, taken(x_N, chosen)), y_N[chosen]
        losses_L1 = self.losses(outputs, labels)[:, None]
        wrapped.max_grad_norm = self.max_grad_norm
        optimizer = torch.optim.SGD(self.parameters, lr=0.0)
        DPTensorFastGradientClipping(wrapped, optimizer, losses_L1, "sum").backward()
        sums_L = [parameter.grad.double() for parameter in self.parameters]  # type: ignore[union-attr]
        for parameter in self.parameters:
            parameter.grad = None
        return sums_L

    return replaced(BookKeeping, "of", summed)


def lots_shuffled() -> Planted:
    """Take lots of one size from a shuffled order, one after the other."""

    def shuffled(self: OsNoise, records: int, sample_rate: float) -> NDArray[np.intp]:
        size = round(sample_rate * records)
        order: NDArray[np.intp] = vars(self).get("order", np.empty(0, dtype=np.intp))
        if len(order) < size:
            order = np.random.default_rng().permutation(records)
        vars(self)["order"] = order[size:]
        return np.sort(order[:size])

    return replaced(OsNoise, "lot", shuffled)


def lots_at_rate(factor: float) -> Planted:
    """Draw lots with another rate."""
    draw = OsNoise.lot

    def faster(self: OsNoise, records: int, sample_rate: float) -> NDArray[np.intp]:
        return draw(self, records, min(1.0, factor * sample_rate))

    return replaced(OsNoise, "lot", faster)


def denominator_counted() -> Planted:
    """Divide a sum by how many records were drawn for it."""
    step, divided = DpSgd.step, release.divided

    def counted(self: DpSgd, x_N: Inputs, y_N: Tensor, lot: NDArray[np.intp]) -> None:
        with replaced(release, "divided", lambda sum_, _: divided(sum_, max(1, len(lot)))):
            step(self, x_N, y_N, lot)

    return replaced(DpSgd, "step", counted)


def noise_share_dropped() -> Planted:
    """Take the noise out of one silo's update again, when its gradients were seen."""
    train, gaussian = Answering.answer, OsNoise.gaussian
    drawn: list[Tensor] = []

    def noted(self: OsNoise, size: int, std: float, device: torch.device) -> Tensor:
        drawn.append(gaussian(self, size, std, device))
        return drawn[-1]

    def quiet(
        self: Answering, question: Question, records: Callable[[], Records], event: Event, carried: Carried
    ) -> NDArray[np.float32]:
        drawn.clear()
        update_P = train(self, question, records, event, carried)
        scenario = self.site.scenario
        if self.site.silo != scenario.federation.silos[0]:
            return update_P
        noise_P = torch.stack(drawn).sum(dim=0).cpu().numpy()
        rate = scenario.training.learning_rate / event.denominator
        return (update_P + rate * noise_P).astype(np.float32)

    return together(partial(replaced, OsNoise, "gaussian", noted), partial(replaced, Answering, "answer", quiet))


def update_left_out() -> Planted:
    """Let zeros go into the sum for one silo, which counts among its survivors."""
    quantise = hiding._quantised

    def zeros(silo: Silo, event: Event, number: int, update_P: NDArray[np.float32]) -> object:
        is_first = silo.name == silo.scenario.federation.silos[0]
        return quantise(silo, event, number, np.zeros_like(update_P) if is_first else update_P)

    return replaced(hiding, "_quantised", zeros)


def strategy_forgets() -> Planted:
    """Give a strategy its mean without what it kept of those before."""

    def fold(self: Asking, state: State, mean_P: NDArray[np.float32]) -> State:
        return State(*self._apply(state.vector_P, mean_P, b""))

    return replaced(Asking, "fold", fold)


def model_moves_otherwise() -> Planted:
    """Move the model by a hundredth less than the strategy does, as if by a rate of one's own."""

    def fold(self: Asking, state: State, mean_P: NDArray[np.float32]) -> State:
        after_P, kept = self._apply(state.vector_P, mean_P, state.kept)
        return State(state.vector_P + np.float32(0.99) * (after_P - state.vector_P), kept)

    return replaced(Asking, "fold", fold)


def clip_of_each_view() -> Planted:
    """Clip what each view adds to its record's gradient, and not their mean: a record has as many clips as views."""
    return _views_apart(lambda losses, views: lambda output, target_B: losses(output, target_B) / views)


def views_counted_as_records() -> Planted:
    """Take each view for a record of its own."""
    return _views_apart(lambda losses, _: losses)


def _views_apart(of_each: Callable[[RecordLoss, int], RecordLoss]) -> Planted:
    """Pass a physical batch as so many more records of one view each, with losses that are made of those of a view."""
    add = BookKeeping.add

    def apart(self: BookKeeping, x_V: Inputs, y_R: Tensor) -> None:
        views = self.views
        with (
            replaced(self, "rows", self.rows * views),
            replaced(self, "losses", of_each(self.losses, views)),
            replaced(self, "views", 1),
        ):
            add(self, x_V, y_R.repeat_interleave(views, dim=0))

    return replaced(BookKeeping, "add", apart)


def weights_lopsided() -> Planted:
    """Weigh one silo a thousand times as much as the others, and ask nobody whether that is a sum of enough."""

    def weight(self: FederationConfig, silo: str) -> float:
        return 1.0 if silo == self.silos[0] else 1e-3

    return together(
        partial(replaced, FederationConfig, "weight", weight),
        partial(replaced, influence, "least_effective", lambda *_: math.inf),
    )


def charged_late() -> Planted:
    """Charge the ledger when the update is made, and not before."""
    charge, keep = Ledger.charge, Outbox.keep
    due: list[Callable[[], Charge]] = []

    def later(self: Ledger, run: str, round_number: int, steps: int, key: str, part: int = 0) -> Charge:
        due.append(partial(charge, self, run, round_number, steps, key, part))
        return Charge(self.standing().runs[run].parts[part].times(steps), 0)

    def then(self: Outbox, made: Release) -> None:
        keep(self, replace(made, charge=due.pop()().sequence))

    return together(partial(replaced, Ledger, "charge", later), partial(replaced, Outbox, "keep", then))


def trained_twice() -> Planted:
    """Train every round twice for one charge."""
    train = Answering.answer

    def twice(self: Answering, *asked: Any) -> NDArray[np.float32]:
        train(self, *asked)
        return train(self, *asked)

    return replaced(Answering, "answer", twice)


def never_charged() -> Planted:
    """Say that a round is charged, and enter nothing."""

    def charge(self: Ledger, run: str, number: int, steps: int, key: str, part: int = 0) -> Charge:  # noqa: ARG001 - one shape
        reserved = self.reservation(run)
        if reserved is None:
            raise LedgerError("nothing was reserved")
        return Charge(reserved.parts[part].times(steps), 1)

    return replaced(Ledger, "charge", charge)


def one_step_more() -> Planted:
    """Take a step more in every round than is charged."""
    train = Answering.answer

    def longer(
        self: Answering, question: Question, records: Callable[[], Records], event: Event, carried: Carried
    ) -> NDArray[np.float32]:
        return train(self, question, records, event.times(event.steps + 1), carried)

    return replaced(Answering, "answer", longer)


def without_second_accountant() -> Planted:
    """Admit to a budget what a second accountant contradicts."""
    return replaced(admission, "_check_not_contradicted", lambda *_: None)


def rate_halved_in_accounting() -> Planted:
    """Account for half the rate that lots are drawn with."""
    plan_of = pld._plan

    def halved(parts: Any) -> object:
        return tuple((step._replace(rate=step.rate / 2), count) for step, count in plan_of(parts))

    return replaced(pld, "_plan", halved)


def ids_as_spelled() -> Planted:
    """Group records by ids as they are spelled."""
    return replaced(persons, "normal_id", lambda value, *_: str(value))


def ids_by_column() -> Planted:
    """Leave leading zeros out of a column's ids where all of them are figures."""
    import pyarrow as pa

    normal = persons.normal_ids

    def guessed(values: Any, form: PersonForm, where: str) -> Any:
        found = normal(values, form, where).to_pylist()
        figures = all(re.fullmatch(r"[0-9]+(e[0-9]+)?", one) for one in found)
        return normal(pa.chunked_array([[one.lstrip("0") if figures else one for one in found]]), form, where)

    return replaced(tables, "normal_ids", guessed)


def baseline_let_in() -> Planted:
    """Let a run without noise into a silo, whoever's it is."""
    return replaced(policy, "check_baseline", lambda *_, **__: None)


def unprotected_left_out() -> Planted:
    """Compose what noise was added to, and leave out what was released without."""
    return replaced(pld, "bounded", lambda events: bounded([event for event in events if protects(event)]))


def charged_lapses() -> Planted:
    """Let a reservation lapse at its time whatever was charged for its run."""

    def lapses(self: standing.Standing, name: str, now: str) -> bool:
        run = self.runs[name]
        return bool(run.until) and now >= run.until and not run.closed

    return replaced(standing.Standing, "_may_lapse", lapses)


def charged_as_the_first() -> Planted:
    """Plan, reserve and charge lots that grow at the rate of the first ones, and draw them as the scenario has them."""
    lots, answer, draw, factor = Scenario._lots, Answering.answer, OsNoise.lot, [1.0]

    def flat(self: Scenario, silo: str) -> list[tuple[float, int]]:
        return [(lots(self, silo)[0][0], divisor) for _, divisor in lots(self, silo)]

    def answered(self: Answering, question: Question, *asked: Any) -> NDArray[np.float32]:
        scenario = self.site.scenario
        factor[0] = scenario.phases[scenario.phase_of(question.number)].times
        return answer(self, question, *asked)

    def drawn(self: OsNoise, records: int, sample_rate: float) -> NDArray[np.intp]:
        return draw(self, records, factor[0] * sample_rate)

    return together(
        partial(replaced, Scenario, "_lots", flat),
        partial(replaced, Answering, "answer", answered),
        partial(replaced, OsNoise, "lot", drawn),
    )


def start_forgets() -> Planted:
    """Begin from a run's model with new ledgers, which know nothing of that run."""

    def forgetful(scenario: Scenario, run_dir: Path) -> dict[str, GoesOn]:
        for silo in starting.carry(scenario, run_dir):
            (run_dir / "ledgers" / f"{silo}.sqlite").unlink()
            shutil.rmtree(run_dir / "silos" / silo)
        return {}

    return replaced(simulate, "carry", forgetful)


def picture_as_markup() -> Planted:
    """Put a picture into the page as it came, as markup of the page."""
    return replaced(render, "framed", Markup)


def claimed_by_the_steps_taken() -> Planted:
    """Claim of a run what the steps cost that it took, as if nobody had chosen where it ended."""
    return replaced(Run, "claimed", Run.events)


@contextmanager
def accounting_error_forgotten() -> Iterator[None]:
    """Compose privacy loss as if the Fourier transform were exact."""
    power = composition._power

    def exact(*words: Any) -> object:
        return power(*words)[0], 0.0

    pld.forget()
    try:
        with replaced(composition, "_power", exact):
            yield
    finally:
        pld.forget()
