"""What each silo would get, for a terminal: a bar for each silo, of signs that are its labels', 80 columns wide."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from fedmodel.errors import ConfigError
from fedmodel.system.counts import counted, one_or_more
from scenarios.cli.printing import answer, out

if TYPE_CHECKING:
    from fedmodel.config import Scenario
    from scenarios.simulation.shares import Shares

_WIDTH, _LEAST_BAR, _MOST_SILOS = 80, 20, 100
_SIGNS: Final = digits + ascii_lowercase
_OTHER: Final = "+"
_STYLES: Final = ("cyan", "yellow", "green", "magenta", "blue", "red")
_NOTE: Final = (
    "Nothing was run and nothing is charged: a simulation's data are of whoever simulates."
    " A deployed silo's records are never counted so."
)


def show_shares(scenario: Scenario, picture: Path | None, as_json: bool) -> None:
    """Print what each silo would get, and draw it into a file where one is named.

    Raises:
        ConfigError: When the file is no PNG by its name, or cannot be written.
        DataError: When the data cannot be dealt.
    """
    from scenarios.simulation.shares import shares

    if picture is not None and picture.suffix.lower() != ".png":
        raise ConfigError(f"--out {picture}: with --show-partition it is a picture's file; name it, as partition.png")
    found = shares(scenario)
    if picture is not None:
        _draw(scenario, found, picture)
    if as_json:
        answer({**found.document(), "picture": None if picture is None else str(picture.resolve())}, "", as_json)
        return
    for line in lines(found):
        out.print(line, soft_wrap=True, highlight=False)
    out.print(_NOTE, highlight=False, width=_WIDTH)
    if picture is not None:
        out.print(f"{picture}", soft_wrap=True, highlight=False)


def lines(found: Shares) -> list[Text]:
    """Return the lines: what is dealt, a bar for each silo, and which sign is of which label."""
    size_S, held_out = found.count_SL.sum(axis=1), int(found.held_out_L.sum())
    told = [
        Text(
            f"{counted(int(size_S.sum()), 'record')} over {counted(len(size_S), 'silo')}, {_spread(size_S)}; seed"
            f" {found.seed}"
        ),
        Text(f"{counted(held_out, 'record')} {one_or_more(held_out, 'is', 'are')} held out by the server"),
    ]
    name = max(map(len, found.silos))  # whole: 40 letters at most, and half of the line is left for bars
    number, longest = len(f"{size_S.max():,}"), max(1, int(size_S.max()))
    for silo, size, count_L in list(zip(found.silos, size_S, found.count_SL, strict=True))[:_MOST_SILOS]:
        bar = _bar(count_L, longest, max(_LEAST_BAR, _WIDTH - name - number - 2))
        told.append(Text(f"{silo:<{name}} {size:>{number},} ") + bar)
    if len(rest_S := size_S[_MOST_SILOS:]):
        told.append(Text(f"and {counted(len(rest_S), 'more silo')}, {_spread(rest_S)}"))
    return [*told, *_key(found.labels)]


def _spread(size_S: NDArray[Any]) -> str:
    """Say how much silos have."""
    return f"from {size_S.min():,} to {size_S.max():,} each"


def _bar(count_L: NDArray[Any], longest: int, width: int) -> Text:
    """Return a bar of each label's sign, as many of each as its share of the longest bar is."""
    ends = np.round(np.cumsum(count_L) / longest * width).astype(int).tolist()
    bar = Text()
    for label, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
        bar.append(_sign(label) * (end - begin), _STYLES[label % len(_STYLES)])
    return bar


def _key(labels: tuple[str, ...]) -> list[Text]:
    """Return the lines that say which sign is of which label, nothing where labels are their own signs."""
    if len(labels) == 1 or all(name == _sign(label) for label, name in enumerate(labels)):
        return []
    told = [Text()]
    for label, name in enumerate(labels[: len(_SIGNS)]):
        said = f"{_sign(label)} {name}"[: _WIDTH - 2]
        if len(told[-1]) + len(said) > _WIDTH:
            told.append(Text())
        told[-1].append(f"{said}  ", _STYLES[label % len(_STYLES)])
    if len(labels) > len(_SIGNS):
        told.append(Text(f"{_OTHER} any other of {len(labels)} labels"))
    return told


def _sign(label: int) -> str:
    """Return a label's sign."""
    return _SIGNS[label] if label < len(_SIGNS) else _OTHER


def _draw(scenario: Scenario, found: Shares, picture: Path) -> None:
    """Write the picture, whole."""
    from fedmodel.system.durable import replace_file
    from scenarios.report.page.shares import shares_png

    title = f"{scenario.name}: what each silo would get (seed {found.seed})"
    try:
        replace_file(picture, shares_png(found, title))
    except OSError as error:
        raise ConfigError(f"--out {picture}: cannot be written: {error.strerror}") from error
