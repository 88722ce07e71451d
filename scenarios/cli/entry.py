"""The program that is installed as `fedmodel`: it settles what it was started in, and then is the command.

Apart from `scenarios.cli.main`, so that nothing has been imported yet that reads an environment variable, and so that
who calls that from Python keeps an environment of his own.
"""

from __future__ import annotations

import sys

from fedmodel.errors import ConfigError
from fedmodel.system import environment
from scenarios.cli import completion
from scenarios.cli.loading import loading


def main() -> None:
    """Run the command in a settled environment (`fedmodel.system.environment`)."""
    asked = completion.is_asked(sys.argv[1:])
    try:
        environment.settle(also=completion.VARIABLES if asked else ())
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_status)
    if asked:
        sys.exit(completion.answer())
    try:
        with loading():
            from scenarios.cli import main
    except KeyboardInterrupt:
        sys.stderr.write("interrupted before anything began\n")
        sys.exit(130)

    main.main()
