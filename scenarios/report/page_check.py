"""Whether a page is the one that follows from its report: it is rendered again, and compared byte for byte.

The page is made from the document and from the pictures beside it (`pictures.json`: SVG by caption), and from nothing
else. The same code, templates and libraries give the same bytes, so what stands on a page is what the report says, but
for the pictures: they stay in their frame, which says that they are an illustration, and what stands in it is the word
of whoever signed.

Does NOT compare where the page was drawn by other versions: those place lines and text otherwise. Then the page's hash
in the signed report says that it is the file that was signed, and nobody that it tells what the report does. It is held
to running and fetching nothing all the same (`scenarios.report.page.passive`). Which versions drew it is the signer's
word.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Final

from fedmodel.errors import ClaimRefuted, LedgerTampered
from scenarios.report.document import Report
from scenarios.report.page.catalogue import DEFAULT, catalogue, languages
from scenarios.report.page.passive import check_passive, language_of

PAGE: Final = "report.html"
PICTURES: Final = "pictures.json"
NOT_RENDERED: Final = "NOT rendered again"
Render = Callable[..., str]
"""Makes a page of a report and of pictures; of its catalogue besides, where that is not the first one."""

_DRAWN_BY: Final = ("jinja2", "kiwisolver", "matplotlib", "numpy", "scipy")
_USED_BY_A_PAGE: Final = (
    ("fedmodel.privacy", "rounding.py"),
    ("fedmodel.system", "inert.py"),
    ("scenarios.runs", "explanation.py"),
    ("scenarios.runs", "parts.py"),
    ("scenarios.runs", "words.py"),
)
_SOURCES: Final = (".py", ".j2", ".css", ".toml")


def page_hash() -> str:
    """Return the SHA-256 over the code and the templates that render a page, as installed."""
    found = sha256()
    folders = (resources.files(package).iterdir() for package in ("scenarios.report.document", "scenarios.report.page"))
    own = [file for files in folders for file in files if file.name.endswith(_SOURCES)]
    used = [resources.files(package) / name for package, name in _USED_BY_A_PAGE]
    for file in sorted([*own, *used], key=lambda one: one.name):
        data = file.read_bytes()
        found.update(f"{file.name}\0{len(data)}\0".encode() + data)
    return found.hexdigest()


def read_pictures(run_dir: Path) -> dict[str, str]:
    """Return the pictures that a page shows, as SVG by caption; none where there is no file of them.

    Raises:
        LedgerTampered: When the file holds anything else.
    """
    path = run_dir / PICTURES
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LedgerTampered(f"{path}: cannot be read as JSON ({type(error).__name__})") from None
    if not isinstance(found, dict) or not all(isinstance(svg, str) for svg in found.values()):
        raise LedgerTampered(f"{path}: holds something other than pictures by caption")
    return found


def check_page(run_dir: Path, report: Report, render: Render | None) -> str:
    """Hold a page to running nothing, render it again, and hold the one in the folder to that.

    Args:
        run_dir: The run's folder.
        report: What the page was given.
        render: Makes it; None where nobody is asked to.

    Returns:
        What was found, in words; it begins with "NOT" where other versions than those that are installed made it, or
        nobody was asked to.

    Raises:
        ClaimRefuted: When the page is not what follows.
        LedgerTampered: When a picture is none, or the page could run or fetch something.
    """
    stands = (run_dir / PAGE).read_bytes()
    try:
        check_passive(stands.decode())
    except ValueError as error:
        raise LedgerTampered(f"{PAGE}: {error if not isinstance(error, UnicodeError) else 'is no text'}") from None
    if render is None:
        return f"{NOT_RENDERED}: it is the file that was signed, and nobody was asked to render it"
    others = [name for name in _DRAWN_BY if report.built.libraries.get(name) != version(name)]
    others += ["the code that renders it"] * (report.built.page != page_hash())
    if others:
        return f"{NOT_RENDERED}: {', '.join(others)} here is another version than made it"
    language = language_of(stands.decode()) or DEFAULT
    if language not in languages():
        raise LedgerTampered(f"{PAGE}: is in language {language!r}, of which there are no sentences here")
    said = () if language == DEFAULT else (catalogue(language),)
    try:
        follows = render(report, read_pictures(run_dir), *said)
    except ValueError as error:
        raise LedgerTampered(f"{PICTURES}: {error}") from None
    if stands != follows.encode():
        raise ClaimRefuted(f"{PAGE}: is not the page that follows from the report")
    return "rendered again from the report, and the same byte for byte"
