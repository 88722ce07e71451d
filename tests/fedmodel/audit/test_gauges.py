"""Gauges against a simulated Gaussian mechanism: correct, and with each fault that a gauge is there for.

Shapes: T steps, K canaries, R releases, N records, M canary records.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from fedmodel.audit.gauges import FALSE_ALARM, OF_ALL, OF_SILOS, Gauge, failed, gauges, unmeasured
from fedmodel.audit.intervals import dispersion, dispersion_interval, thinned_interval
from fedmodel.audit.noise_gauges import _slope_limit
from fedmodel.audit.sum_gauges import Apply
from fedmodel.canaries.observations import Observations
from fedmodel.errors import DataError
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.secagg.quantize import Quantizer
from fedmodel.secagg.ring import RingBits

_OWN = 40  # parameters of the model itself
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Run:
    """What a run is, and what is wrong with it."""

    silos: int = 3
    rounds: int = 4
    steps: int = 5
    canaries: int = 100
    records: int = 300
    sigma: float = 1.0
    clip: float = 1.5
    rate: float = 0.25
    copies: int = 1
    quantizer: Quantizer | None = None
    lost: tuple[tuple[int, int], ...] = ((2, 1),)  # a round, and which silo was lost in it
    # Faults.
    noise: float = 1.0
    shape: Literal["normal", "uniform", "laplace"] = "normal"
    again: Literal["", "step", "round", "silos", "delayed", "once"] = ""
    clips: float = 1.0
    coins: Literal["", "reversed"] = ""
    lots: Literal["poisson", "shuffle", "fixed", "same"] = "poisson"
    faster: float = 1.0
    skipped: int = 0
    divisor: Literal["public", "lot"] = "public"
    poison: float = 0.0
    share: Literal["", "unnoised", "left out", "by records"] = ""
    quiet: float = 1.0  # the noise of the model's own tensor, in parts of what is claimed
    alike: Literal["", "steps", "silos", "once", "uniform", "a coordinate"] = ""
    unexplained: float = 0.0
    off_grid: float = 0.06

    def measure(self, seed: int = 0, level: float = FALSE_ALARM) -> list[Gauge]:
        """Simulate the run and return its gauges."""
        return measure(*self.simulate(seed), quantizer=self.quantizer, level=level)

    def simulate(self, seed: int = 0) -> tuple[list[Observations], dict[str, DpSgdEvent]]:
        """Return what the silos saw, and what they were charged for a round."""
        rng = np.random.default_rng(seed)
        clean = [self._silo(rng, number) for number in range(self.silos)]
        if self.again == "silos":
            clean = [(one, event, clean[0][2]) for one, event, _ in clean]
        if self.again == "delayed":
            clean = [(one, event, np.roll(clean[0][2], number, axis=0)) for number, (one, event, _) in enumerate(clean)]
        made = [self._noised(*one) for one in clean]
        return self._trained(made, rng), {one.silo: event for one, event, _ in clean}

    def _silo(self, rng: np.random.Generator, number: int) -> tuple[Observations, DpSgdEvent, NDArray[np.float64]]:
        steps = self.rounds * self.steps
        coins_K = rng.random(self.canaries) < 0.5
        is_in_K = ~coins_K if self.coins else coins_K
        records = self.records + int(is_in_K.sum()) * self.copies + 1
        lot_TN = self._lots(rng, steps, records)
        lot_TM = lot_TN[:, self.records : -1].reshape(steps, -1, self.copies).sum(axis=2)
        sums_TK = np.zeros((steps, self.canaries + 1))
        sums_TK[:, np.flatnonzero(is_in_K)] = lot_TM * self.clip * self.clips
        sums_TK[:, -1] = self.poison * self.clip * lot_TN[:, -1]
        round_R = np.arange(1, self.rounds + 1)
        event = DpSgdEvent(
            self.sigma,
            self.clip,
            self.rate,
            self.steps,
            max(1, round(records * self.rate)),
            max_records=self.copies,
        )
        observed = Observations(
            silo=f"silo-{number}",
            coins_K=coins_K,
            sums_TK=sums_TK.astype(np.float32),
            poison_T=np.zeros(steps, np.float32),
            lots_T=lot_TN.sum(axis=1),
            drawn_N=lot_TN.sum(axis=0),
            round_T=np.repeat(round_R, self.steps),
            round_R=round_R,
            update_RK=np.zeros((self.rounds, self.canaries), np.float32),
            model_RK=np.zeros((self.rounds, self.canaries), np.float32),
            started_R=tuple(_time(at, 5) for at in range(self.rounds)),
            noise_TL=self._squares(rng.spawn(1)[0], steps),
            followed_TS=self._followed(rng.spawn(1)[0], number, steps),
            sizes_L=np.array([_OWN, self.canaries + 1]),
            unexplained_R=np.array([0.0] * (self.rounds - 1) + [self.unexplained]),
            off_grid_R=np.array([0.0] * (self.rounds - 1) + [self.off_grid]),
        )
        return observed, event, self._noise(rng, (steps, self.canaries + 1))

    def _squares(self, rng: np.random.Generator, steps: int) -> NDArray[np.float64]:
        """Mean squares of noise on the model's own tensor, and on the block."""
        sizes_L = np.array([_OWN, self.canaries + 1])
        part_L = np.array([self.quiet, self.noise]) * self.sigma * self.clip
        squares_TL: NDArray[np.float64] = rng.chisquare(sizes_L, (steps, 2)) / sizes_L * part_L**2
        return squares_TL

    def _followed(self, rng: np.random.Generator, number: int, steps: int) -> NDArray[np.float32]:
        """Noise on the model's own coordinates."""
        drawn_TS = rng.normal(0, self.quiet * self.sigma * self.clip, (steps, 250))
        if self.alike == "steps":
            drawn_TS[:] = drawn_TS[0]
        if self.alike == "silos":
            drawn_TS = np.random.default_rng(1).normal(0, self.sigma * self.clip, (steps, 250))
        if self.alike == "once" and number == 0:
            drawn_TS[-1] = drawn_TS[1]
        if self.alike == "uniform":
            drawn_TS = rng.uniform(-(3**0.5), 3**0.5, (steps, 250)) * self.sigma * self.clip
        if self.alike == "a coordinate":
            drawn_TS[:, 7] = 0.0
        return drawn_TS.astype(np.float32)

    def _lots(self, rng: np.random.Generator, steps: int, records: int) -> NDArray[np.bool_]:
        lot_TN = rng.random((steps, records)) < self.rate * self.faster
        size = round(records * self.rate)
        if self.lots == "same":
            lot_TN = np.repeat(lot_TN[:1], steps, axis=0)
        elif self.lots != "poisson":
            lot_TN = np.zeros((steps, records), np.bool_)
            orders = [rng.permutation(records) for _ in range(steps)]
            ring = np.concatenate(orders)
            for step in range(steps):
                drawn = ring[step * size : (step + 1) * size] if self.lots == "shuffle" else orders[step][:size]
                lot_TN[step, drawn] = True
        if self.skipped:
            lot_TN[0, : self.skipped] = False
        return lot_TN

    def _noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
        drawn_TK = {
            "normal": lambda: rng.normal(size=shape),
            "uniform": lambda: rng.uniform(-math.sqrt(3), math.sqrt(3), shape),
            "laplace": lambda: rng.laplace(scale=math.sqrt(0.5), size=shape),
        }[self.shape]()
        at_T = np.arange(shape[0])
        if self.again in ("step", "round"):
            at_T = at_T % (1 if self.again == "step" else self.steps)
        if self.again == "once":
            at_T[-1] = 2
        scaled_TK: NDArray[np.float64] = drawn_TK[at_T] * self.sigma * self.clip * self.noise
        return scaled_TK

    def _noised(self, of: Observations, event: DpSgdEvent, noise_TK: NDArray[np.float64]) -> dict[str, Any]:
        sums_TK = of.sums_TK + noise_TK
        unnoised_TK = of.sums_TK
        if self.divisor == "lot":
            sums_TK = sums_TK * event.denominator / np.maximum(of.lots_T, 1)[:, None]
        step_TK, bare_TK = (
            (-0.1 * values[:, :-1] / event.denominator).reshape(self.rounds, self.steps, -1)
            for values in (sums_TK, unnoised_TK)
        )
        clean = replace(
            of,
            sums_TK=sums_TK[:, :-1].astype(np.float32),
            poison_T=sums_TK[:, -1].astype(np.float32),
            update_RK=step_TK.sum(axis=1).astype(np.float32),
        )
        return {"of": clean, "bare_RK": bare_TK.sum(axis=1)}

    def _trained(self, made: list[dict[str, Any]], rng: np.random.Generator) -> list[Observations]:
        weight = weights(self.silos)
        most = max(weight.values())
        model_K = np.zeros(self.canaries, np.float32)
        model_RK = []
        for number in range(1, self.rounds + 1):
            model_RK.append(model_K)
            total_K = np.zeros(self.canaries)
            due = 0.0
            for at, one in enumerate(made):
                if (number, at) in self.lost:
                    continue
                update_K = one["of"].update_RK[number - 1].astype(np.float64)
                factor = weight[one["of"].silo] / most
                due += factor
                if at == 0 and self.share == "unnoised":
                    update_K = one["bare_RK"][number - 1]
                if at == 0 and self.share == "left out":
                    continue
                if self.share == "by records":
                    factor *= 1 + 0.05 * at
                weighed_K = update_K * factor
                if self.quantizer is not None:
                    words = self.quantizer.encode(weighed_K, rng.bytes)
                    weighed_K = self.quantizer.decode(words)
                total_K += weighed_K
            if due:
                model_K = model_K + (total_K / due).astype(np.float32)
        return [replace(one["of"], model_RK=np.stack(model_RK)) for one in made]


def added(model_W: NDArray[np.float32], mean_W: NDArray[np.float32], state: bytes) -> tuple[NDArray[np.float32], bytes]:
    return model_W + mean_W, state


def measure(
    seen: list[Observations],
    events: dict[str, DpSgdEvent],
    quantizer: Quantizer | None = None,
    level: float = FALSE_ALARM,
    charges: dict[str, list[tuple[str, int]]] | None = None,
    weight: dict[str, float] | None = None,
    opened: dict[int, NDArray[np.float32]] | None = None,
    apply: Apply = added,
) -> list[Gauge]:
    return gauges(
        seen,
        events,
        weights=weight or weights(len(seen)),
        charges=charges or {of.silo: charged(of, events[of.silo]) for of in seen},
        quantizer=quantizer,
        false_alarm=level,
        opened=opened or {},
        apply=apply,
    )


def opened_in(seen: list[Observations]) -> dict[int, NDArray[np.float32]]:
    """Return the means that moved the model from round to round."""
    of = seen[0]
    models_RW = np.concatenate([of.model_RK, of.model_RS], axis=1) if of.model_RS.size else of.model_RK
    moved_RW = np.diff(models_RW, axis=0)
    return {int(number): moved_W for number, moved_W in zip(of.round_R, moved_RW, strict=False)}


def weights(silos: int) -> dict[str, float]:
    return {f"silo-{number}": 1.0 + number for number in range(silos)}


def charged(of: Observations, event: DpSgdEvent) -> list[tuple[str, int]]:
    return [(_time(at, 0), event.steps) for at in range(len(of.round_R))]


def names(found: list[Gauge]) -> set[str]:
    return {one.name for one in found}


def _time(round_at: int, milliseconds: int) -> str:
    return (_BEGIN + timedelta(seconds=round_at, milliseconds=milliseconds)).isoformat(timespec="milliseconds")


FULL = Run(rate=1.0)
GROUPS = Run(rate=0.25, copies=3)
FULL_GROUPS = Run(rate=1.0, copies=3)


@pytest.mark.parametrize("run", [Run(), FULL, GROUPS, FULL_GROUPS], ids=["q", "full", "q-groups", "full-groups"])
def test_correct_runs_pass_and_alarm_no_more_often_than_said(run: Run) -> None:
    level, times = 0.05, 100
    alarms: Counter[str] = Counter()
    for seed in range(times):
        found = run.measure(seed, level)
        assert seed >= 30 or not failed(run.measure(seed)), seed
        alarms.update(names(failed(found)))
    limit = binom.isf(1e-5, times, level)
    assert {name: count for name, count in alarms.items() if count > limit} == {}
    assert sum(alarms.values()) >= 10  # the level is in use
    assert not {"finite", "charged_before_release", "charged_steps", "noise_shares"} & alarms.keys()


def test_every_gauge_is_measured() -> None:
    silos = [f"silo-{number}" for number in range(3)]
    seen, events = Run(rounds=10, records=100, canaries=250).simulate()
    found = measure(seen, events, opened=opened_in(seen))
    assert unmeasured(found, silos, opened=True) == []
    assert names(found) == {*OF_SILOS, *OF_ALL}
    without = measure(seen, events)
    assert unmeasured(without, silos) == []
    assert unmeasured(without, silos, opened=True) == [("model_moves", None)]
    assert unmeasured(FULL.measure(), silos) == [("denominator", silo) for silo in silos]
    for one in found:
        assert one.low <= one.measured <= one.high
        assert one.low <= one.expected <= one.high
        assert all(math.isfinite(value) for value in (one.low, one.measured, one.high))
        assert one.explanation.isprintable()
        assert len(one.explanation) < 300


KNOBS = ("noise", "shape", "again", "clips", "coins", "lots", "faster", "skipped", "divisor", "poison", "share")
WIDE = Run(canaries=250, steps=2)  # 125 out, 8 steps: 1,000 values of noise a silo

FAULTS = [
    ("noise a tenth too small", replace(WIDE, rate=1.0, noise=0.9), "noise_std"),
    ("noise a tenth too small, one silo", replace(WIDE, rate=1.0, noise=0.9, silos=1, lost=()), "noise_std"),
    ("noise a tenth too small, lots", replace(WIDE, noise=0.9), "noise_std"),
    ("noise halved", Run(noise=0.5), "noise_std"),
    ("noise a tenth too large", replace(WIDE, rate=1.0, noise=1.1), "noise_std"),
    ("clip twice as large", Run(clips=2.0), "canary_mean"),
    ("clip twice as large, q = 1", Run(rate=1.0, clips=2.0), "canary_mean"),
    ("no clip", Run(clips=10.0), "canary_mean"),
    ("no clip, seldom drawn", Run(rate=0.01, clips=10.0), "canary_peak"),
    ("canaries add nothing", Run(clips=0.0), "canary_mean"),
    ("groups clipped as one", replace(GROUPS, clips=1 / 3), "canary_mean"),
    ("coins not kept to", Run(coins="reversed"), "out_mean"),
    ("same noise in every step", Run(again="step"), "noise_lag1"),
    ("same noise in every round of four steps", Run(steps=4, again="round"), "noise_lag1"),
    ("same noise twice", Run(canaries=250, again="once"), "noise_repeat"),
    ("same noise in all silos", Run(again="silos"), "noise_between_silos"),
    ("same noise in all silos, a step later", Run(canaries=250, again="delayed"), "noise_repeat"),
    ("uniform noise", Run(shape="uniform"), "noise_shape"),
    ("Laplace noise", Run(shape="laplace"), "noise_shape"),
    ("shuffled lots: sizes", Run(lots="shuffle"), "lot_dispersion"),
    ("shuffled lots: draws", Run(lots="shuffle"), "draw_dispersion"),
    ("shuffled lots of one epoch", Run(lots="shuffle", rounds=2, steps=2), "draw_dispersion"),
    ("lots of one size", Run(lots="fixed"), "lot_dispersion"),
    ("one lot again and again", Run(lots="same"), "draw_dispersion"),
    ("twice the rate", Run(faster=2.0), "lot_rate"),
    ("one record not drawn once, q = 1", Run(rate=1.0, skipped=1), "lot_rate"),
    ("one record not drawn once, q = 1: sizes", Run(rate=1.0, skipped=1), "lot_dispersion"),
    ("one record not drawn once, q = 1: draws", Run(rate=1.0, skipped=1), "draw_dispersion"),
    ("divided by the lot", Run(canaries=250, records=100, rounds=10, divisor="lot"), "denominator"),
    ("a record that is not a number adds a clip", Run(rounds=20, rate=1.0, poison=1.0), "poison"),
    ("a record that is not a number adds a little", Run(rounds=40, rate=1.0, poison=0.3), "poison"),
    ("a record that is not a number adds ten clips", Run(poison=10.0), "poison"),
    ("a silo's noise left out of the sum", Run(share="unnoised"), "noise_shares"),
    ("a silo counted and left out of the sum", Run(share="left out"), "noise_shares"),
    ("weights by how many records there are", Run(share="by records"), "noise_shares"),
]


@pytest.mark.parametrize(("run", "name"), [one[1:] for one in FAULTS], ids=[one[0] for one in FAULTS])
def test_a_fault_fails_its_gauge(run: Run, name: str) -> None:
    plain = replace(run, **{field: getattr(Run(), field) for field in KNOBS})
    for seed in range(3):
        assert not failed(plain.measure(seed))
        assert name in names(failed(run.measure(seed)))


CLEAN_BESIDE = [
    ("noise_std", Run(noise=0.8), {"noise_std", "noise_everywhere", "noise_shape", "poison"}),
    ("clip", Run(clips=2.0), {"canary_mean", "canary_peak"}),
    ("lots", Run(lots="shuffle"), {"lot_dispersion", "draw_dispersion"}),
    ("share", Run(share="unnoised"), {"noise_shares"}),
    ("seed", Run(canaries=250, again="step"), {"noise_lag1", "noise_repeat", "noise_std", "noise_shape", "poison"}),
    ("poison", Run(poison=10.0), {"poison"}),
]


@pytest.mark.parametrize(("run", "allowed"), [one[1:] for one in CLEAN_BESIDE], ids=[one[0] for one in CLEAN_BESIDE])
def test_a_fault_leaves_gauges_alone_that_are_not_of_it(run: Run, allowed: set[str]) -> None:
    assert names(failed(run.measure())) <= allowed


def test_a_value_that_is_no_number_fails_and_measures_nothing_else_of_its_silo() -> None:
    seen, events = Run().simulate()
    for field in ("sums_TK", "poison_T", "update_RK", "model_RK"):
        values = getattr(seen[1], field).copy()
        values.flat[3] = np.nan
        found = measure([seen[0], replace(seen[1], **{field: values}), seen[2]], events)
        assert [(one.name, one.silo) for one in failed(found)] == [("finite", "silo-1")]
        lacking = unmeasured(found, ["silo-0", "silo-1", "silo-2"])
        assert {("noise_std", "silo-1"), ("canary_mean", "silo-1"), ("noise_shares", None)} <= set(lacking)


@pytest.mark.parametrize("factor", [0.2, 3.0])
def test_the_size_of_what_is_no_number_counts_and_not_its_mean_alone(factor: float) -> None:
    seen, events = Run().simulate()
    scaled = [replace(of, poison_T=(of.poison_T - of.poison_T.mean()) * np.float32(factor)) for of in seen]
    assert names(failed(measure(scaled, events))) == {"poison"}


def test_the_rate_that_was_charged_is_the_one_that_counts() -> None:
    seen, events = Run(faster=2.0).simulate()
    charged_for = {silo: replace(event, realised_sample_rate=0.5) for silo, event in events.items()}
    assert "lot_rate" in names(failed(measure(seen, events)))
    assert not failed(measure(seen, charged_for))


@pytest.mark.parametrize("milliseconds", [5, 6])
def test_a_charge_after_the_start_of_its_release_fails(milliseconds: int) -> None:
    seen, events = Run().simulate()
    charges = {of.silo: charged(of, events[of.silo]) for of in seen}
    charges["silo-2"][1] = (_time(1, milliseconds), 5)
    late = names(failed(measure(seen, events, charges=charges)))
    assert late == (set() if milliseconds == 5 else {"charged_before_release", "charged_steps"})


def test_times_are_compared_and_not_their_text() -> None:
    seen, events = Run().simulate()
    charges = {of.silo: charged(of, events[of.silo]) for of in seen}
    charges["silo-0"] = [(_time(at, 5).replace("+00:00", "Z"), 5) for at in range(4)]
    assert not failed(measure(seen, events, charges=charges))


def test_a_release_without_a_charge_fails() -> None:
    seen, events = Run().simulate()
    charges = {of.silo: charged(of, events[of.silo]) for of in seen}
    charges["silo-1"].pop()
    wrong = failed(measure(seen, events, charges=charges))
    assert [(one.name, one.silo, one.measured) for one in wrong] == [
        ("charged_before_release", "silo-1", 1),
        ("charged_steps", "silo-1", 5),
    ]


def test_a_step_more_than_charged_fails_though_fewer_follow() -> None:
    seen, events = Run().simulate()
    charges = {of.silo: charged(of, events[of.silo]) for of in seen}
    charges["silo-1"][1] = (charges["silo-1"][1][0], 4)
    charges["silo-1"][3] = (charges["silo-1"][3][0], 6)
    wrong = failed(measure(seen, events, charges=charges))
    assert [(one.name, one.silo, one.measured) for one in wrong] == [("charged_steps", "silo-1", 1)]


def test_steps_after_the_last_release_count() -> None:
    seen, events = Run().simulate()
    one = seen[0]
    fewer = replace(
        one,
        round_R=one.round_R[:3],
        update_RK=one.update_RK[:3],
        model_RK=one.model_RK[:3],
        started_R=one.started_R[:3],
        unexplained_R=one.unexplained_R[:3],
        off_grid_R=one.off_grid_R[:3],
    )
    charges = {of.silo: charged(of, events[of.silo]) for of in seen}
    assert not failed(measure([fewer, *seen[1:]], events, charges=charges))
    charges["silo-0"].pop()
    assert names(failed(measure([fewer, *seen[1:]], events, charges=charges))) == {"charged_steps"}


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_quantised_sums_keep_their_shares_and_clipped_ones_too(bits: RingBits) -> None:
    for bound in (0.05, 0.004):  # of updates of some 0.003; at the second some are clipped
        run = Run(quantizer=Quantizer(bound, bits, 3))
        assert not failed(run.measure())
        assert "noise_shares" in names(run.measure())
        assert "noise_shares" in names(failed(replace(run, share="unnoised").measure()))
        assert "noise_shares" in names(failed(replace(run, share="left out").measure()))


def test_shares_that_cannot_be_measured_are_left_out() -> None:
    for run in (
        Run(canaries=6),
        Run(rounds=1),
        Run(quantizer=Quantizer(40.0, 16, 3)),  # one level is more than an update
        Run(lost=tuple(itertools.product(range(1, 5), range(3)))),
    ):
        found = run.measure()
        assert not failed(found)
        assert "noise_shares" not in names(found)


def summed(seen: list[Observations], share: dict[str, float], more_K: NDArray[np.float64]) -> list[Observations]:
    """Return what would have been seen had each round's sum been of these shares, and something more."""
    change_RK = sum((share[of.silo] * of.update_RK.astype(np.float64) for of in seen), more_K)
    after_RK = np.cumsum(change_RK, axis=0).astype(np.float32)
    model_RK = np.concatenate([np.zeros_like(after_RK[:1]), after_RK[:-1]])
    return [replace(of, model_RK=model_RK) for of in seen]


def test_a_light_silo_counts_by_its_own_share() -> None:
    seen, events = Run().simulate()
    weight = {"silo-0": 1e-4, "silo-1": 2.0, "silo-2": 3.0}
    share = {silo: one / sum(weight.values()) for silo, one in weight.items()}
    nothing_K = np.zeros(100)
    assert not failed(measure(summed(seen, share, nothing_K), events, weight=weight))
    share["silo-0"] *= 2
    assert names(failed(measure(summed(seen, share, nothing_K), events, weight=weight))) == {"noise_shares"}


def test_what_no_silo_brought_to_a_sum_fails() -> None:
    seen, events = Run().simulate()
    share = {silo: one / 6 for silo, one in weights(3).items()}
    basis = np.concatenate([of.update_RK for of in seen]).T
    more_K = np.random.default_rng(0).normal(size=100)
    more_K -= basis @ np.linalg.lstsq(basis, more_K)[0]  # so that no silo's coefficient shows it
    assert not failed(measure(summed(seen, share, 0 * more_K), events))
    assert names(failed(measure(summed(seen, share, 1e-4 * more_K), events))) == {"noise_shares"}


def test_updates_that_cannot_be_told_apart_are_not_measured() -> None:
    seen, events = Run().simulate()
    seen[1] = replace(seen[1], update_RK=seen[0].update_RK)
    share = {silo: one / 6 for silo, one in weights(3).items()}
    assert "noise_shares" not in names(measure(summed(seen, share, np.zeros(100)), events))


@pytest.mark.parametrize("quiet", [0.0, 0.75, 1.3])
def test_noise_that_is_missing_on_the_models_own_tensors_is_found(quiet: float) -> None:
    """The canaries' block has all of its noise, and every gauge of noise that is not the model's looks there."""
    found = failed(Run(quiet=quiet).measure())
    assert {"noise_everywhere"} <= names(found) <= {"noise_everywhere", "model_noise_std", "model_noise_shape"}
    assert all("number 1 " in one.explanation for one in found if one.name == "noise_everywhere")


@pytest.mark.parametrize(
    ("alike", "gauge_of_it"),
    [
        ("steps", "model_noise_lag1"),
        ("steps", "model_noise_repeat"),
        ("silos", "model_noise_between_silos"),
        ("once", "model_noise_repeat"),
        ("uniform", "model_noise_shape"),
        ("a coordinate", "model_noise_std"),
    ],
)
def test_noise_of_the_models_own_coordinates_is_measured_by_itself(
    alike: Literal["steps", "silos", "once", "uniform", "a coordinate"], gauge_of_it: str
) -> None:
    found = names(failed(Run(alike=alike).measure()))
    assert gauge_of_it in found
    assert all(name.startswith("model_") for name in found)


@pytest.mark.parametrize("off_grid", [0.3, 0.5, math.nan])
def test_a_release_off_its_grid_is_found(off_grid: float) -> None:
    found = Run(off_grid=off_grid).measure()
    assert names(failed(found)) == {"noise_grid"}
    assert not failed(Run(off_grid=0.07).measure())


@pytest.mark.parametrize("unexplained", [1e-4, math.inf, math.nan])
def test_an_update_that_its_noised_gradients_do_not_make_is_found(unexplained: float) -> None:
    found = Run(unexplained=unexplained).measure()
    assert {one.name for one in failed(found)} == {"update_explained"}
    assert not failed(Run(unexplained=1e-8).measure())


def test_an_update_on_the_models_own_coordinates_is_followed_into_the_sum() -> None:
    """Four canaries' coordinates are too few for three silos; with the model's own they are enough, and lies show."""
    seen, events = Run(canaries=4, lost=()).simulate()
    rng = np.random.default_rng(1)
    shape = seen[0].update_RK.shape[0], 60
    updates = [rng.normal(size=shape).astype(np.float32) for _ in seen]
    model_RS = np.zeros(shape, np.float32)
    for at in range(shape[0] - 1):
        model_RS[at + 1] = model_RS[at] + sum((1 + number) * one[at] for number, one in enumerate(updates)) / 6
    followed = [replace(of, update_RS=one, model_RS=model_RS) for of, one in zip(seen, updates, strict=True)]

    def shares(silos: list[Observations]) -> list[Gauge]:
        return [one for one in measure(silos, events) if one.name == "noise_shares"]

    assert shares(seen) == []
    assert [one.passed for one in shares(followed)] == [True]
    quiet = replace(followed[0], update_RS=followed[0].update_RS + np.float32(0.1) * updates[1])
    assert [one.passed for one in shares([quiet, *followed[1:]])] == [False]


def test_gauges_that_could_not_fail_are_left_out() -> None:
    few = Run(rounds=1, steps=2)
    lacking = unmeasured(few.measure(), ["silo-0", "silo-1", "silo-2"])
    assert {name for name, _ in lacking} == {"lot_dispersion", "denominator", "noise_shares"}
    alone = Run(silos=1, lost=()).measure()
    assert ("noise_between_silos", None) in unmeasured(alone, ["silo-0"])
    assert not failed(alone)
    one_step = Run(rounds=1, steps=1, silos=1, lost=()).measure()
    assert {"noise_lag1", "noise_repeat"} <= {name for name, _ in unmeasured(one_step, ["silo-0"])}


def test_without_coordinates_lots_and_charges_are_measured() -> None:
    seen, events = Run(rounds=8).simulate()
    bare = [
        replace(
            of,
            sums_TK=of.sums_TK[:, :0],
            poison_T=of.poison_T[:0],
            update_RK=of.update_RK[:, :0],
            model_RK=of.model_RK[:, :0],
        )
        for of in seen
    ]
    found = measure(bare, events)
    assert not failed(found)
    of_lots = {"lot_rate", "lot_dispersion", "draw_dispersion"}
    of_releases = {"finite", "charged_before_release", "charged_steps", "update_explained", "noise_grid"}
    assert {name for name in names(found) if not name.startswith("model_")} == of_lots | of_releases | {
        "noise_everywhere"
    }


def test_a_silo_without_a_release_is_not_passed() -> None:
    seen, events = Run().simulate()
    absent = replace(
        seen[0],
        **{field: getattr(seen[0], field)[:0] for field in ("sums_TK", "poison_T", "lots_T", "drawn_N", "round_T")},
        **{field: getattr(seen[0], field)[:0] for field in ("round_R", "update_RK", "model_RK", "started_R")},
        **{field: getattr(seen[0], field)[:0] for field in ("noise_TL", "followed_TS", "unexplained_R", "off_grid_R")},
    )
    found = measure([absent, *seen[1:]], events)
    assert {one.name for one in found if one.silo == "silo-0"} == {"finite", "charged_before_release", "charged_steps"}
    assert "noise_shares" in names(failed(found))  # whose update it was nobody saw


def test_no_noise_at_all_fails_without_a_division_by_zero() -> None:
    assert {"noise_std", "noise_shape"} <= names(failed(Run(noise=0.0).measure()))


def test_observations_that_do_not_fit_are_refused() -> None:
    seen, events = Run().simulate()
    charges = {of.silo: charged(of, events[of.silo]) for of in seen}
    for changed in (
        {"lots_T": seen[0].lots_T + 1},
        {"round_T": seen[0].round_T[1:]},
        {"started_R": seen[0].started_R[1:]},
        {"coins_K": seen[0].coins_K[1:]},
        {"silo": "silo-1"},
        {"poison_T": seen[0].poison_T[1:]},
        {"update_RK": seen[0].update_RK[1:]},
        {"noise_TL": seen[0].noise_TL[1:]},
        {"sizes_L": seen[0].sizes_L[1:]},
        {"followed_TS": seen[0].followed_TS[1:]},
        {"unexplained_R": seen[0].unexplained_R[1:]},
        {"update_RS": np.zeros((4, 2), np.float32)},
        {"update_RK": seen[0].update_RK[:, 1:], "model_RK": seen[0].model_RK[:, 1:]},
    ):
        with pytest.raises(DataError, match=r"fit together|one a silo"):
            measure([replace(seen[0], **changed), *seen[1:]], events, charges=charges)
    narrow = Run(canaries=99).simulate()[0][0]
    with pytest.raises(DataError, match="one a silo"):
        measure([narrow, *seen[1:]], events, charges=charges)
    with pytest.raises(DataError, match="not given"):
        measure(seen, events, charges={silo: charges[silo] for silo in ("silo-0", "silo-1")})
    with pytest.raises(DataError, match="not given"):
        measure(seen, {silo: events[silo] for silo in ("silo-0", "silo-1")}, charges=charges)
    with pytest.raises(DataError, match="not given"):
        measure(seen, events, charges=charges, weight=weights(2))


@pytest.mark.parametrize(
    ("summands", "trials", "rate"), [(3, 6, 0.3), (4, 5, 0.5), (5, 4, 0.01), (5, 4, 0.001), (2, 12, 0.9)]
)
def test_an_interval_of_dispersion_holds_exactly(summands: int, trials: int, rate: float) -> None:
    pmf = binom.pmf(np.arange(trials + 1), trials, rate)
    outcomes = list(itertools.product(range(trials + 1), repeat=summands))
    weight = np.array([math.prod(pmf[list(one)]) for one in outcomes])
    values = np.array([dispersion(np.array(one), trials, rate) for one in outcomes])
    for level in (1e-1, 1e-2, 1e-4, 1e-6):
        low, high = dispersion_interval(summands, trials, rate, level)
        if low is not None:
            assert weight[values < low].sum() <= level / 2
        if high is not None:
            assert weight[values > high].sum() <= level / 2
            assert weight[values > 0.4 * high].sum() > level / 200  # and is no wider than it needs to be


def test_an_interval_of_dispersion_is_near_the_chi_square_where_that_holds() -> None:
    low, high = dispersion_interval(400, 10_000, 0.5, 1e-6)
    assert low is not None
    assert high is not None
    assert 400 - 6 * math.sqrt(800) < low < 400 - 4.5 * math.sqrt(800)
    assert 400 + 4.8 * math.sqrt(800) < high < 400 + 7 * math.sqrt(800)


def test_a_thinned_interval_holds() -> None:
    rng = np.random.default_rng(1)
    for rate in (0.1, 0.9, 1.0):
        drawn = rng.binomial(40, rate, 200_000) + rng.normal(0, 2.0, 200_000)
        low, high = thinned_interval(40, rate, 2.0, 0.02)
        for share in ((drawn < low).mean(), (drawn > high).mean()):
            assert abs(share - 0.01) < 5 * math.sqrt(0.01 / 200_000)


def test_a_slope_keeps_its_limits() -> None:
    rng = np.random.default_rng(2)
    factor_T, half_T = np.array([0.5, 0.2, -0.3, -0.4]), np.full(4, 10.0)
    slopes = np.log(rng.chisquare(20, (100_000, 4))) @ factor_T
    for sign in (-1, 1):
        limit = _slope_limit(factor_T, half_T, 0.01, sign)
        beyond = (sign * slopes > sign * limit).mean()
        assert 0.0005 < beyond < 0.0025  # Chernoff's is wider than exact, and not by much
