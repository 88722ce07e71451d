"""The section `besides`: which jobs a run does besides training, each by its name, and with how much noise."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from fedmodel.config.figures import NoiseMultiplier
from fedmodel.kinds.section import Positive, Section

MOST_BESIDES: Final = 16
JobName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]


class BesidesConfig(Section):
    """A job that is done once, in a round of its own after those of training.

    Which jobs there are, a file each, is in `fedmodel.learning.jobs`: whoever runs the scenario looks the name up.

    Attributes:
        noise_multiplier: Standard deviation of each silo's noise, over what one record may add to the answer in L2.
        bound: The largest magnitude of an answer's coordinate, in the job's own unit, that a silo tells; whatever is
            larger is told as this. A public guess, never computed from records.
    """

    noise_multiplier: NoiseMultiplier
    bound: Positive


Besides = Annotated[dict[JobName, BesidesConfig], Field(max_length=MOST_BESIDES)]
