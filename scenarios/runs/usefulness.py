"""One line on a run whose model is of no use: what is so, and what to look at first (`server.usefulness`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from scenarios.runs import words
from server.usefulness import USEFULNESS

_CLEARLY: Final = 0.99


def told_of(run_dir: Path) -> str | None:
    """Say that a run's model is of no use, and the likeliest causes; None where it is of some, or nobody looked."""
    found = _found(run_dir)
    return None if found is None else useless(found)


def of_one_class_told_of(run_dir: Path) -> str | None:
    """Say that a model that is of use predicts one class of all at its threshold; None of any other."""
    found = _found(run_dir)
    return None if found is None else of_one_class(found)


def _found(run_dir: Path) -> dict[str, Any] | None:
    """Return what the server found; None of a version that did not look, or that ended without a whole round."""
    try:
        found: dict[str, Any] = json.loads((run_dir / USEFULNESS).read_bytes())
    except FileNotFoundError:
        return None
    return found


def useless(found: dict[str, Any]) -> str | None:
    """Return the line of `told_of` from what was found.

    >>> found = {"one_class": "benign", "loss": 0.7, "base_loss": 0.69, "signal_to_noise": 0.449, "noise_walk": 0.2,
    ...          "reach": 0.5, "supposed": {"aurora": 60}}
    >>> useless(found)[:60]
    "The model predicts 'benign' of every held-out record, and is"
    """
    label = found["one_class"]
    if _tells_apart(found) or (label is None and (found["base_loss"] is None or found["loss"] < found["base_loss"])):
        return None
    if label is None:
        begins = (
            f"The model's loss, {words.number(found['loss'])}, is no better than {words.number(found['base_loss'])},"
            f" that of answering every record with {found.get('knows_nothing', 'the shares of the classes')}"
        )
    else:
        begins = f"The model predicts {label!r} of every held-out record, and is of no use"
    return f"{begins}. To look at first: {'; '.join(_causes(found))}."


def of_one_class(found: dict[str, Any]) -> str | None:
    """Return the line of `of_one_class_told_of` from what was found.

    The loss of a model that is told apart from nothing has to be smaller by a hundredth: it predicts one class, and a
    smaller difference may be chance.

    >>> of_one_class({"one_class": "no policy", "loss": 0.2, "base_loss": 0.22})
    "At its threshold the model predicts 'no policy' of every held-out record. It may tell them apart all the same: its\
 loss is 0.2000, where answering every record with the shares of the classes has 0.2200. Look at figures of\
 ranking, or choose a threshold of your own."
    >>> of_one_class({"one_class": None, "loss": 0.2, "base_loss": 0.22})
    """
    if found["one_class"] is None or not _tells_apart(found):
        return None
    loss, base = words.number(found["loss"]), words.number(found["base_loss"])
    return (
        f"At its threshold the model predicts {found['one_class']!r} of every held-out record. It may tell them apart"
        f" all the same: its loss is {loss}, where answering every record with the shares of the classes has {base}."
        " Look at figures of ranking, or choose a threshold of your own."
    )


def _tells_apart(found: dict[str, Any]) -> bool:
    """Tell whether the model's loss is clearly smaller than that of any answer that is one for all."""
    return found["base_loss"] is not None and bool(found["loss"] < _CLEARLY * found["base_loss"])


def _causes(found: dict[str, Any]) -> list[str]:
    """Return what is likeliest to blame, by public figures."""
    ratio, reach, walk = found["signal_to_noise"], found["reach"], found["noise_walk"]
    causes = []
    if reach is not None and reach < 1:
        causes.append(f"a learning rate too small, with which all steps together reach {words.number(reach)} at most")
    if walk is not None and walk > 1:
        causes.append(
            f"a learning rate too large, with which noise alone moves a parameter by {words.number(walk)} in all"
        )
    sizes = sorted(set(found["supposed"].values()))
    least, most = words.number(sizes[0]), words.number(sizes[-1])
    causes.append(
        "lots of another size than privacy.expected_batch_size, which each sum is divided by and which supposes"
        f" {least if least == most else f'{least} to {most}'} records at a silo: each compares that with its own"
    )
    if ratio is None:
        return causes
    noise = f"as what a step learns is at most {words.number(ratio)} times as large as the noise added to it"
    if ratio >= 1:
        return [*causes, f"noise last, {noise}"]
    part = ", or sending more of each update," if "put_back" in found else ""
    helps = f"fewer parameters, larger lots, more silos or a larger epsilon{part} help"
    return [f"too much noise, {noise} ({helps})", *causes]
