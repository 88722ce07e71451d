"""The `fedmodel` command.

Exit status: 0 ok, 2 usage or refused, 3 a claim refuted, 4 a ledger invalid, 5 inconclusive, 6 a report that nothing
outside its folder vouches for in whole, 130 interrupted, 1 anything else. Answers go to standard
output, everything else to standard error. Figures of privacy are rounded up: what is printed is never
less than what was spent.

Heavy imports stand inside the commands that need them, so that `--help` and usage errors are quick.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Final

from fedmodel.system.environment import SWITCHES

os.environ.update(SWITCHES)  # before anything of Flower is imported

import click
import typer
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from fedmodel.errors import FedmodelError
from fedmodel.system.durable import failed
from fedmodel.system.inert import InertFormatter, inert, inert_lines, show_crash
from scenarios.cli.audit import audit_app
from scenarios.cli.budget import budget_app
from scenarios.cli.demo import demo_app
from scenarios.cli.deploy_local import deploy_local
from scenarios.cli.graph import graph
from scenarios.cli.ledger import ledger_app
from scenarios.cli.printing import INTERRUPTED, Json, answer, err, out
from scenarios.cli.provision import authority_app, provision
from scenarios.cli.report import report_app
from scenarios.cli.server import server_app
from scenarios.cli.silo import silo_app
from scenarios.cli.simulate import simulate

GROUPS: Final = {
    "budget": budget_app,
    "ledger": ledger_app,
    "silo": silo_app,
    "server": server_app,
    "authority": authority_app,
    "audit": audit_app,
    "report": report_app,
    "demo": demo_app,
}

app = typer.Typer(
    name="fedmodel",
    help="Federated learning with differential privacy that is refused rather than guessed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(simulate)
app.command()(graph)
app.command()(provision)
app.command("deploy-local")(deploy_local)
for _noun, _verbs in GROUPS.items():
    app.add_typer(_verbs, name=_noun)


@app.command()
def scenarios(as_json: Json = False) -> None:
    """List the built-in scenarios, a line each."""
    from fedmodel.config import builtin_scenarios, read_scenario

    summaries = {name: read_scenario(name).summary for name in builtin_scenarios()}
    if as_json:
        answer(summaries, "", as_json)
        return
    table = Table.grid(padding=(0, 2))
    for name, summary in summaries.items():
        table.add_row(Text(name, "bold"), summary)
    out.print(table)


def main() -> None:
    """Run the command; a user's mistake ends in one line and an exit status, never in a traceback."""
    sys.excepthook = show_crash
    handler = RichHandler(console=err, show_time=False, show_path=False, show_level=False)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(InertFormatter("%(message)s"))
    logging.raiseExceptions = False  # a log that cannot be written is no traceback on a person's terminal
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it could keep its fonts is nothing to be told
    try:
        sys.exit(app(standalone_mode=False))
    except FedmodelError as error:
        _say_error(str(error))
        sys.exit(error.exit_status)
    except BrokenPipeError:  # whoever read standard output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _say_error(failed(error))
        sys.exit(1)
    except MemoryError:
        _say_error("not enough memory for this scenario; make the data or the model smaller")
        sys.exit(1)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(file=said)
        sys.stderr.write(inert_lines(said.getvalue()))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        err.print("interrupted")
        sys.exit(INTERRUPTED)


def _say_error(reason: str) -> None:
    """Print why the command ends, in one line."""
    err.print(Text.assemble(("error:", "bold red"), " ", inert(reason)), soft_wrap=True, highlight=False)
