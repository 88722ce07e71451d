"""The app bundle that Flower carries to silos: made here from the packages as installed, without the network.

A silo runs its own installed packages whatever comes; a bundle only has to be of the same code.
"""

from __future__ import annotations

import warnings

from flwr.cli.build import build_fab_from_files

from fedmodel.errors import ConfigError
from fedmodel.system.packages import app_files


def make_bundle() -> bytes:
    """Return the installed packages as a Flower app bundle; the same bytes each time for the same files.

    Raises:
        ConfigError: When Flower does not take them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Flower names a pattern as pathspec did before
            bundle, _ = build_fab_from_files(app_files())
    except ValueError as error:
        raise ConfigError(f"the installed packages make no app bundle: {error}") from error
    return bundle
