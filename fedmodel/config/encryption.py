"""The section `encryption`: whether updates are masked, and by what terms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fedmodel.kinds.section import Positive, Section

AggregationMode = Literal["off", "simulated", "on"]
"""How updates are hidden in a sum: the whole list, of scenarios, laws and reports alike.

A mode is what a silo's own code does with an update, and what its law promises of it, so that no file at the server
adds one: `server.aggregation` has one kind for each.
"""


class EncryptionConfig(Section):
    """Whether updates are hidden in a sum, and how; what of it is a silo's own law, its `silo.toml` repeats."""

    secure_aggregation: AggregationMode = "off"
    bound: Positive | None = None
    ring_bits: Literal[8, 12, 16, 24, 32] = 32
    colluding: int | None = Field(default=None, ge=0)
    dropping: int | None = Field(default=None, ge=0)
    secrecy_bits: int = Field(default=80, ge=1, le=256)
    window: int = Field(default=8, ge=1, le=256)
    post_quantum: bool = False
    consistency: Literal["commit", "quorum"] = "commit"

    @model_validator(mode="after")
    def _bound_is_said(self) -> EncryptionConfig:
        if self.secure_aggregation != "off" and self.bound is None:
            raise ValueError(
                "secure aggregation needs bound, the largest magnitude of an update's coordinate, since sums are of"
                " integers; larger ones are clipped to it"
            )
        return self
