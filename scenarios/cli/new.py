"""The verb `new`: a scenario drafted from a few answers, or from a table's header.

Thin: `scenarios.drafts` does the work.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from fedmodel.errors import ConfigError
from fedmodel.system.inert import inert
from scenarios.cli.printing import Json, answer, err
from scenarios.cli.verbs import Verb

if TYPE_CHECKING:
    from scenarios.drafts.asking import Options

T = TypeVar("T")
_CHOICES: Final = {"--data": "breast-cancer|digits|texts|own", "--task": "classification|regression"}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def new(
    out: Annotated[Path, typer.Option(help="A new folder; its name is the scenario's and the data set's.")],
    table: Annotated[
        Path | None, typer.Option("--from", metavar="CSV", help="One's own table: a CSV or Parquet file.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME", help="Without a table: breast-cancer, digits, texts, or own code.")
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Of own code: classification or regression.")] = None,
    base: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Of texts: the base, a model that was trained before.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column to predict.")] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="A,B", help="Its classes, in order; LOW:HIGH of a number.")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Of a time until an event: for how long each was looked at; --label: if so."
        ),
    ] = None,
    ends: Annotated[
        str | None, typer.Option(metavar="12,24,60", help="When each interval of that time ends; public.")
    ] = None,
    time_unit: Annotated[str | None, typer.Option(metavar="WORD", help="What both are counted in, as months.")] = None,
    person: Annotated[
        str | None, typer.Option(metavar="COLUMN", help='Whose a record is; "record" where each person has one.')
    ] = None,
    max_records: Annotated[int | None, typer.Option(help="Most records of one person.")] = None,
    ranges: Annotated[
        list[str] | None, typer.Option("--range", metavar="COLUMN=LOW:HIGH", help="Public range of a number.")
    ] = None,
    categories: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=A,B", help="Public codes of a column.")
    ] = None,
    boolean: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="A column of true and false.")] = None,
    leave_out: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="A column that is not used.")] = None,
    silos: Annotated[str | None, typer.Option(metavar="A,B,C", help="Names of the silos.")] = None,
    records: Annotated[
        str | None, typer.Option(metavar="LOW:HIGH", help="Public numbers between which each silo's records lie.")
    ] = None,
    epsilon: Annotated[str | None, typer.Option(help="Of each silo, for the whole run.")] = None,
    flower: Annotated[
        bool, typer.Option("--flower", help="Write a pyproject.toml besides, by which `flwr run` runs it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Draft a scenario that runs as it is: of a data set on board, of texts, of one's own code, or of one's own table.

    `--from` takes the header of a table, and makes up tables like it; `--data own` writes data.py and model.py, and
    `--data texts` made-up texts, to fine-tune a model on that was trained before, `--base`. At a terminal it asks for
    what no option says; elsewhere it refuses, and names what is missing. What each column is, ranges, categories and
    labels are public knowledge and never read off the data.
    """
    from fedmodel.data.looking import look
    from scenarios.drafts.asking import BOOLEAN, WHY, Options, gather
    from scenarios.drafts.draft import SCENARIO, TABLE, write_draft

    if not _NAME.fullmatch(out.name):
        raise ConfigError(f"--out {out}: its name becomes the scenario's; use lower-case letters, digits and hyphens")
    if out.exists():
        raise ConfigError(f"--out {out}: is there already; name a new folder")
    plain = {"--label": label, "--labels": labels, "--person": person, "--silos": silos, "--records": records,
             "--epsilon": epsilon, "--time": time, "--ends": ends, "--time-unit": time_unit,
             "--max-records": None if max_records is None else str(max_records)}  # fmt: skip
    given = {option: said for option, said in plain.items() if said is not None}
    if table is None:
        begun = {"--data": data, "--task": task, "--base": base}
        given |= {option: said for option, said in begun.items() if said is not None}
        of_columns = {"--range": ranges, "--categories": categories, "--boolean": boolean, "--leave-out": leave_out}
        said_of_columns = [option for option, said in of_columns.items() if said]
        table = _begun(out, given, said_of_columns, as_json, flower=flower)
        if table is None:
            return
        given = {option: said for option, said in given.items() if option not in begun}
    elif not all(said is None for said in (data, task, base)):
        raise ConfigError("--from names a table, whose columns say what is learnt; leave --data, --task and --base out")
    looked = look(table)
    names = [column.name for column in looked.columns]
    left_out = tuple(_named(name, names, "--leave-out") for name in leave_out or ())
    given |= _of_columns("--range", ranges or (), names) | _of_columns("--categories", categories or (), names)
    given |= {f"--boolean {_named(name, names, '--boolean')}": BOOLEAN for name in boolean or ()}
    options = Options(given)
    if _asks():
        err.print(WHY, highlight=False)
    answers = gather(looked, left_out, given, _Asking(options) if _asks() else options)
    if options.missing or answers is None:
        wanted = " ".join(map(_wanted, options.missing))
        raise ConfigError(f"not said, and nobody is at a terminal to be asked: {wanted}. {WHY}")
    write_draft(out, out.name, looked, answers, flower=flower)
    scenario = out / SCENARIO
    whose = table.stem if table.stem in answers.silos else out.name  # a silo's lots are checked as the silo's
    check = f"fedmodel data check {scenario} --table {shlex.quote(f'{whose}={table}')} --fix"
    by_flower = _by_flower(out) if flower else []
    commands = [f"fedmodel simulate {scenario}", check, *by_flower]
    unused = f"Not used: {', '.join(answers.left_out)}." if answers.left_out else "Every column is used."
    lines = [
        f"{scenario}: a draft. Read it, above all [privacy]. {unused}",
        f"{out / TABLE}: for the silo's own silo.toml, and for nobody else.",
        f"On made-up records:    {commands[0]}",
        f"On your own table:     {commands[1]}",
        *[f"By Flower's command:   {one}" for one in by_flower],
    ]
    document = {"scenario": str(scenario), "table": str(out / TABLE), "left_out": answers.left_out, "next": commands}
    answer(document, "\n".join(lines), as_json)


def _begun(out: Path, given: dict[str, str], of_columns: Sequence[str], as_json: bool, *, flower: bool) -> Path | None:
    """Draft a scenario without a table; or return the table that a person means."""
    from scenarios.drafts import starts
    from scenarios.drafts.asking import Options

    options = Options(given)
    ask = _Asking(options) if _asks() else options
    data = starts.ask_for_data(ask)
    if data == starts.TABLE:
        table = ask("--from", "Which file is it? A CSV or Parquet file", Path)
        if table is None:
            raise ConfigError("--data table: say --from FILE, and its columns are drafted")
        return table
    start = starts.gather_start(data or starts.DATA[0], ask)
    if options.missing or start is None:
        wanted = " ".join(map(_wanted, options.missing))
        raise ConfigError(f"not said, and nobody is at a terminal to be asked: {wanted}; or --from CSV, a table's")
    of_kind = {starts.OWN: {"--task", "--records"}, starts.TEXTS: {"--base", "--labels", "--records"}}
    used = {"--data", "--silos", "--epsilon"} | of_kind.get(data or "", set())
    if unused := [option for option in (*given, *of_columns) if option not in used]:
        raise ConfigError(f"{', '.join(unused)}: not of --data {data}; leave it out, or give a table, --from CSV")
    scenario, *others = starts.write_start(out, out.name, start, flower=flower)
    code = [out / file for file in others if file.endswith(".py")]
    made_up = [*code, *(out / file for file in others if file.endswith(".jsonl"))]
    commands = [f"fedmodel simulate {out / scenario}", *(_by_flower(out) if flower else [])]
    lines = [f"{out / scenario}: a draft. Read it, above all [privacy]."]
    lines += [f"{file}: works as it is, on made-up records. Put your own in." for file in made_up]
    document = {"scenario": str(out / scenario), "code": list(map(str, code)), "next": commands}
    answer(document, "\n".join([*lines, f"Next: {'   or: '.join(commands)}"]), as_json)
    return None


def _by_flower(out: Path) -> list[str]:
    """Return how Flower's own command runs a draft."""
    from scenarios.drafts.flower import RUN

    return [RUN.format(shlex.quote(str(out)))]


def _asks() -> bool:
    """Return whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


class _Asking:
    """Asks a person for what no option said, again until it is read; nothing typed is an answer where that may be."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def __call__(self, option: str, question: str, read: Callable[[str], T]) -> T | None:
        """Return what an option or a person said."""
        if option in self._options.given:
            return self._options(option, question, read)
        while True:
            try:
                return read(typer.prompt(inert(question), default="", show_default=False, err=True))
            except ValueError as error:
                err.print(str(error), style="yellow", highlight=False)


def _wanted(option: str) -> str:
    """Return an option as a person would type it.

    >>> _wanted("--range body mass"), _wanted("--silos")
    ("--range 'body mass=LOW:HIGH'", '--silos ...')
    """
    kind, _, column = option.partition(" ")
    if not column:
        return f"{option} {_CHOICES.get(option, '...')}"
    if kind == "--leave-out":
        return f"{kind} {shlex.quote(column)}"
    if kind == "--boolean":
        return f"({kind} {shlex.quote(column)} or --leave-out {shlex.quote(column)})"
    if kind == "--range":
        return f"{kind} {shlex.quote(f'{column}=LOW:HIGH')}"
    return f"({kind} {shlex.quote(f'{column}=A,B')} or --leave-out {shlex.quote(column)})"


def _named(name: str, names: Sequence[str], option: str) -> str:
    """Refuse a name that is no column's."""
    if name not in names:
        raise ConfigError(f"{option} {name}: is no column of the table; it has {', '.join(names)}")
    return name


def _of_columns(option: str, words: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return what COLUMN=WORDS says, by option and column; a column's name may have signs of equality in it."""
    found = {}
    for word in words:
        named = [name for name in names if word.startswith(f"{name}=")]
        if not named:
            raise ConfigError(f"{option} {word}: expected COLUMN=..., COLUMN being one of {', '.join(names)}")
        name = max(named, key=len)
        found[f"{option} {name}"] = word.removeprefix(f"{name}=")
    return found


VERBS: Final = (Verb(11, "new", new),)
