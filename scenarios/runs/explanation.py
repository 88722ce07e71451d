"""What was found of how a model answers: `explanation.json`, as `fedmodel explain` writes it and a report shows it.

All figures are over records: the server's held-out ones, or a party's own. `records` says which, and a report takes no
explanation of a party's own records.

Does NOT say that a figure is so: it is the word of whoever explained the model, which `model` names by its file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from fedmodel.errors import LedgerTampered
from scenarios.runs.parts import Hash, Part

EXPLANATION: Final = "explanation.json"
FORMAT: Final = "fedmodel/v1/explanation"
_MOST_BYTES: Final = 50_000_000

Share = Annotated[float, Field(ge=0)]


class Effect(Part):
    """What one column, or feature, did to what is explained; the two add up to the mean of the absolute attribution.

    Attributes:
        name: Of the column; a category's features are added up for each record.
        toward: Mean over all records of the attributions above 0, those below counted as 0.
        away: Mean of those below 0, without their sign.
    """

    name: str
    toward: Share
    away: Share

    @property
    def size(self) -> float:
        """The mean of the absolute attribution."""
        return self.toward + self.away


class Explained(Part):
    """What one score of the model rests on.

    Attributes:
        name: What more of the score speaks for: a class, a label, or what is predicted.
        scale: What the score is in: log-odds of the class; by how much the predicted class's score is over the mean of
            all classes; the label's own units; log-odds of the event, averaged over intervals; or a bare score.
        effects: The largest first; none of an image.
        towards: Of an image, by row and column, as `Effect.toward`; of a large image, of blocks of pixels.
        aways: Likewise.
    """

    name: str
    scale: Literal["log-odds", "margin", "units", "hazard", "score"]
    effects: tuple[Effect, ...]
    towards: tuple[tuple[Share, ...], ...] = Field(default=(), exclude_if=lambda rows: not rows)
    aways: tuple[tuple[Share, ...], ...] = Field(default=(), exclude_if=lambda rows: not rows)


class Dependence(Part):
    """What the model answers on average, were one column the same in all records (Friedman 2001, section 8.2).

    Attributes:
        name: Of the column.
        at: At which values, in the column's units, over its public range; none of choices.
        choices: Or at which choices, in order.
        answers: By what is answered, the mean answer at each.
    """

    name: str
    at: tuple[float, ...] = ()
    choices: tuple[str, ...] = ()
    answers: dict[str, tuple[float, ...]]


class Group(Part):
    """How good the model is for a part of the records.

    Attributes:
        column: By which they are a part.
        group: A choice of it, or a quarter of its public range.
        records: How many they are.
        figures: By name, those that are defined there.
    """

    column: str
    group: str
    records: int
    figures: dict[str, float]


class Explanation(Part):
    """How a model answers.

    Attributes:
        format: Of this document.
        model: SHA-256 of the model's file, opened.
        scenario_hash: Of what it was trained by.
        records: Whose records figures are over: held out by the server, or a party's own.
        count: How many figures by group are over.
        looked_at: How many attributions are over: of many records some, evenly over them.
        curves_over: How many dependence is over, likewise.
        method: "exact" of a linear model, from its weights; "integrated-gradients" of any other (Sundararajan, Taly and
            Yan 2017), by Captum.
        steps: Of the integral; 0 where there is none.
        gap: How far attributions are from adding up to the score less that of the baseline, as a share of it, on
            average.
        explained: What is explained.
        dependence: By column.
        not_drawn: Columns whose dependence was not computed, since many others count for more.
        least: Records that a group needs.
        groups: Those that have as many.
        left_out: By column, how many groups have fewer, or none.
        figures: Of all records, those that are defined there; none where nobody says their labels.
        no_groups: Why there are no groups, None where some were looked for.
    """

    format: Literal["fedmodel/v1/explanation"] = FORMAT
    model: Hash
    scenario_hash: Hash
    records: Literal["held-out", "own"]
    count: int
    looked_at: int
    curves_over: int
    method: Literal["exact", "integrated-gradients"]
    steps: int
    gap: Share
    explained: tuple[Explained, ...]
    dependence: tuple[Dependence, ...]
    not_drawn: int
    least: int
    groups: tuple[Group, ...]
    left_out: dict[str, int]
    figures: dict[str, float]
    no_groups: str | None

    def written(self) -> bytes:
        """Return it as a file."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def read_explanation(path: Path) -> Explanation:
    """Read an explanation back.

    Raises:
        LedgerTampered: When it is none.
        OSError: When it cannot be read.
    """
    data = path.read_bytes()
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError("too large")
        return Explanation.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise LedgerTampered(f"{path}: is not as `fedmodel explain` writes it: {where}: {first['msg']}") from None
    except ValueError:
        raise LedgerTampered(f"{path}: has {len(data)} bytes, more than an explanation") from None
