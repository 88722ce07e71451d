"""A mechanism is added by one file: it is then planned, admitted by a law, charged, composed, trained by and described.

The file is added to a copy of the packages, and another process runs there, so that nothing here knows of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("fedmodel", "clients", "server", "scenarios")

# Each step is released together with its length, noised by twice as much: two Gaussians of one lot.
FILE = '''
"""DP-SGD that also releases how long each clipped sum is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from fedmodel.privacy.events import Event, check_lots, realised_rate
from fedmodel.privacy.mechanisms import Facts, Limits
from fedmodel.privacy.mechanisms.dp_sgd import MECHANISM as DP_SGD
from fedmodel.privacy.plan import SiloPlan
from fedmodel.privacy.primitives import Parts, SampledGaussian


@dataclass(frozen=True)
class MeasuredEvent:
    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int
    denominator: int
    max_records: int
    realised_sample_rate: float
    noise_source: Literal["os"] = "os"
    sampler: Literal["poisson"] = "poisson"
    mechanism: Literal["measured-sgd"] = "measured-sgd"

    def __post_init__(self) -> None:
        check_lots(self)

    @property
    def drawn_from(self) -> Literal["os"]:
        return self.noise_source

    def parts(self) -> Parts:
        rate, noise, records = self.realised_sample_rate, self.noise_multiplier, self.max_records
        return (
            (SampledGaussian(rate, noise, records), self.steps),
            (SampledGaussian(rate, 2 * noise, records), self.steps),
        )

    def times(self, steps: int) -> Self:
        return replace(self, steps=steps)


class MeasuredSgd:
    event = MeasuredEvent
    protects = True

    def plan(self, plan: SiloPlan) -> MeasuredEvent:
        from fedmodel.privacy.accounting import calibrate_parts

        rate = realised_rate(plan.sample_rate, "os")

        def of(noise: float) -> MeasuredEvent:
            figures = plan.max_grad_norm, plan.sample_rate, plan.steps, plan.expected_batch_size, plan.max_records, rate
            return MeasuredEvent(noise, *figures)

        noise = plan.noise_multiplier or calibrate_parts(plan.epsilon, plan.delta, lambda noise: of(noise).parts())
        return of(noise)

    def check(self, event: Event, law: Limits) -> None:
        DP_SGD.check(event, law)

    def describe(self, event: Event, unit: str) -> Facts:
        return DP_SGD.describe(event, unit)._replace(description="DP-SGD, and how long each sum is.")


MECHANISM = MeasuredSgd()
'''

PROGRAM = """
from pathlib import Path

from clients import policy
from fedmodel import plans
from fedmodel.config import read_scenario, scenario_to_toml
from fedmodel.crypto import SigningKey
from fedmodel.errors import ConfigError, PolicyRefused
from fedmodel.learning.jobs import training
from fedmodel.ledger import Ledger, verify_ledger
from fedmodel.privacy import accounting
from fedmodel.privacy.events import event_to_json
from fedmodel.privacy.mechanisms import event_from_json, mechanism_of
from fedmodel.privacy.mechanisms.dp_sgd import DpSgdEvent
from fedmodel.provision import law_of, scenario_hash
from scenarios.runs.claims import claim_of


def refused(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError("it was not refused")


plain = read_scenario("quickstart")
scenario = read_scenario("quickstart", ["privacy.mechanism=measured-sgd"])
assert 'mechanism = "measured-sgd"' in scenario_to_toml(scenario)
assert scenario_hash(scenario) != scenario_hash(plain)
plan = scenario.plan("left")

# It is planned, within its target over both of its parts, by more noise than DP-SGD alone.
event = plans.planned_event(plan)
spent = accounting.epsilon([event], plan.delta)
assert event.mechanism == "measured-sgd" and 0.99 * plan.epsilon < spent <= plan.epsilon
assert event.noise_multiplier > plans.planned_event(plain.plan("left")).noise_multiplier
alone = DpSgdEvent(event.noise_multiplier, 1.0, plan.sample_rate, plan.steps, 10, max_records=plan.max_records)
assert accounting.epsilon([alone], plan.delta) < spent
assert event_from_json(event_to_json(event)) == event

# A law that names it admits it, held to its limits; one of before does not.
law = law_of(scenario, "left", bytes(32))
assert law.mechanisms == ("measured-sgd",)
policy.check_event(law, event)
assert "is under" in refused(PolicyRefused, lambda: policy.check_event(
    law.model_copy(update={"least_noise_multiplier": 2 * event.noise_multiplier}), event))
told = refused(PolicyRefused, lambda: policy.check_event(law_of(plain, "left", bytes(32)), event))
assert told == "mechanism 'measured-sgd' is none of this silo's: dp-sgd", told

# It is charged and composed, and what is claimed of it is of all of its parts.
scope, key = policy.budget_scope(law, plan.data), SigningKey.generate()
with Ledger(Path("a.sqlite"), "left", key, Path("head")) as ledger:
    ledger.open_scope(scope)
    ledger.reserve(scope.name, "1", event, plan.steps_per_round)
    charged = ledger.charge("1", 1, plan.steps_per_round, "k").event
standing = verify_ledger(Path("a.sqlite"), key.public).standing
assert charged == event.times(plan.steps_per_round) and standing.claimed(scope.name) == [event]
run = standing.runs["1"]
assert claim_of(run.claimed, run.drawn, scope.delta)["epsilon"] == accounting.epsilon([event], scope.delta)

# It is trained by, since it charges for what a step releases; and it is described.
training._check_charged(charged)
assert mechanism_of(event).describe(event, "record").description == "DP-SGD, and how long each sum is."

# Any other name is no mechanism, and nothing is imported by it.
for name, known in (("measured-sdg", "did you mean 'measured-sgd'"), ("os", "unknown mechanism 'os'")):
    assert known in refused(ConfigError, lambda: read_scenario("quickstart", [f"privacy.mechanism={name}"]))
"""


def test_a_mechanism_is_added_by_one_file(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "fedmodel" / "privacy" / "mechanisms" / "measured_sgd.py").write_text(FILE)
    (tmp_path / "program.py").write_text(PROGRAM)
    found = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
