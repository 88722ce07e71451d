"""The verb `demo inversion`: what a server sees, without and with protection, as pictures.

Thin: `fedmodel.audit.inversion` attacks, `scenarios.report.page.plots` draws the file. What it shows is illustrative,
and says so in every form.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from fedmodel.errors import ConfigError
from scenarios.cli.printing import Json, answer, err, out
from scenarios.cli.verbs import Verb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedmodel.audit.inversion import Inversion

demo_app = typer.Typer(help="What protection does, shown on public data.", no_args_is_help=True)

_FILE: Final = "inversion.png"
_BLOCKS, _ASCII = " ░▒▓█", " .:*#"
_GAP: Final = "   "


@demo_app.callback()
def _demo() -> None:
    """Keep `inversion` a verb of the group, though it is the only one."""


@demo_app.command("inversion")
def demo_inversion(
    digit: Annotated[int | None, typer.Option(min=0, max=9, help="Which digit is attacked; drawn by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides digits and model; noise and masks are always fresh.")] = 1,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where inversion.png goes; new or empty. Default: under runs/.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Reconstruct a handwritten digit from an update: unprotected, clipped and noised, masked. Illustrative."""
    from fedmodel.config import read_scenario
    from fedmodel.system.durable import replace_file

    scenario = read_scenario("digits")
    with err.status("attacking") if err.is_terminal else nullcontext():
        from fedmodel.audit.inversion import inversion
        from scenarios.report.page.plots import pictures_png
        from scenarios.simulation.simulate import default_folder, new_folder

        where = new_folder(folder or default_folder("inversion")).resolve()
        found = inversion(scenario, digit, seed)
        captions = [one.caption for one in found.pictures]
        captions[0] += " (illustrative)"
        image = pictures_png([(told, one.image) for told, one in zip(captions, found.pictures, strict=True)])
    try:
        replace_file(where / _FILE, image)
    except OSError as error:
        raise ConfigError(f"--out {where}: cannot be written: {error.strerror}") from error
    if as_json:
        answer(_document(found, where / _FILE), "", as_json)
    else:
        _show(found, where / _FILE)


def _document(found: Inversion, file: Path) -> dict[str, Any]:
    """Return what --json prints."""
    from fedmodel.audit.inversion import NOTE

    return {
        "illustrative": True,
        "note": NOTE,
        "digit": found.digit,
        "seed": found.seed,
        "noise_multiplier": found.noise_multiplier,
        "max_grad_norm": found.plan.max_grad_norm,
        "epsilon": found.plan.epsilon,
        "delta": found.plan.delta,
        "steps": found.steps,
        "digits": found.digits,
        "pictures": [
            {
                "name": one.name,
                "caption": one.caption,
                "correlation": one.correlation,
                "median_correlation": one.median_correlation,
                "pixels": one.image.round(4).tolist(),
            }
            for one in found.pictures
        ],
        "picture": str(file),
    }


def _show(found: Inversion, file: Path) -> None:
    """Print the pictures as characters, and their correlations."""
    from fedmodel.audit.inversion import NOTE

    shades = _BLOCKS if _prints(_BLOCKS) else _ASCII
    out.print("What a server can make of the update of a lot of one record. Illustrative.\n", highlight=False)
    rows = zip(*(characters(one.image, shades) for one in found.pictures), strict=True)
    width = 2 * found.pictures[0].image.shape[1]
    names = [one.name.center(width) for one in found.pictures]
    for line in (_GAP.join(names), *(_GAP.join(row) for row in rows)):
        out.print(line.rstrip(), highlight=False, markup=False, no_wrap=True, overflow="ignore", crop=False)
    out.print()
    out.print(f"{found.claim.capitalize()}.", highlight=False)
    table = Table(title="Correlation with the original", title_justify="left")
    for heading in ("picture", "made from", "this digit", f"median of {found.digits}"):
        table.add_column(heading, justify="left" if heading in ("picture", "made from") else "right")
    for one in found.pictures[1:]:
        table.add_row(one.name, one.caption, signed(one.correlation), signed(one.median_correlation))
    out.print(table)
    out.print(NOTE, highlight=False)
    out.print(f"Pictures: {file}", soft_wrap=True, highlight=False, markup=False)


def characters(image: NDArray[Any], shades: str = _BLOCKS) -> list[str]:
    """Return a picture as lines, two characters a pixel, from the faintest shade to the strongest.

    Args:
        image: Grey levels in [0, 1], of two dimensions.
        shades: From the faintest to the strongest.
    """
    last = len(shades) - 1
    return ["".join(2 * shades[min(last, int(level * len(shades)))] for level in row) for row in image.tolist()]


def signed(correlation: float) -> str:
    """Return a correlation to two decimals, never a negative zero.

    >>> signed(-0.001)
    '0.00'
    """
    return f"{round(correlation, 2) + 0.0:.2f}"


def _prints(text: str) -> bool:
    """Whether standard output can carry the text."""
    try:
        text.encode(out.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


VERBS: Final = (Verb(80, "demo", demo_app),)
