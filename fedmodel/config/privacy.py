"""The section `privacy`: unit, clip, noise or a target, delta and lots, for all silos and for each.

Privacy has no silent default: unit, clip, delta, sample rate, expected batch size and one of noise multiplier or
epsilon are said, or the scenario is refused.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from fedmodel.config.figures import Delta, MechanismName, NoiseMultiplier, SampleRate, TargetEpsilon, records_are_said
from fedmodel.kinds.section import Positive, Section
from fedmodel.privacy.events import MOST_RECORDS, Baseline, NoiseSourceName, UnitName


class SiloPrivacyConfig(Section):
    """What one silo declares differently from the rest."""

    sample_rate: SampleRate | None = None
    expected_batch_size: int | None = Field(default=None, ge=1)
    delta: Delta | None = None
    epsilon: TargetEpsilon | None = None
    noise_multiplier: NoiseMultiplier | None = None

    @model_validator(mode="after")
    def _not_both(self) -> SiloPrivacyConfig:
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise ValueError("give one of epsilon and noise_multiplier, not both")
        return self


class PrivacyConfig(Section):
    """The claim each silo will make, and the public figures it rests on.

    With `baseline` a simulation runs the same pipeline without noise, and perhaps without the clip: nothing is claimed
    then. The other figures stay those of the private run that it is compared with. `mechanism` names what every silo
    releases by, a file of `fedmodel.privacy.mechanisms`.
    """

    unit: UnitName
    max_records: int | None = Field(default=None, ge=1, le=MOST_RECORDS)
    max_grad_norm: Positive
    delta: Delta
    epsilon: TargetEpsilon | None = None
    noise_multiplier: NoiseMultiplier | None = None
    sample_rate: SampleRate
    expected_batch_size: int = Field(ge=1)
    noise: NoiseSourceName = "os"
    # Left out of a document, and so of a scenario's hash, where it is not said: older kits name hashes without it.
    baseline: Baseline | None = Field(default=None, exclude_if=lambda value: value is None)
    # Left out likewise where it is what it was before there was a choice.
    mechanism: MechanismName = Field(default="dp-sgd", exclude_if=lambda value: value == "dp-sgd")
    silo: dict[str, SiloPrivacyConfig] = {}

    @property
    def noise_name(self) -> str:
        """Where noise comes from, as every file of a run names it: "none-unsafe" where none is added."""
        return self.noise if self.baseline is None else "none-unsafe"

    @model_validator(mode="after")
    def _one_of_noise_and_epsilon(self) -> PrivacyConfig:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            found = "neither" if self.epsilon is None else "both"
            raise ValueError(f"give exactly one of epsilon and noise_multiplier, found {found}; nothing is guessed")
        records_are_said(self.unit, self.max_records)
        return self
