"""The empirical audit: canaries, what they saw, what follows from it.

A script is offered a function under this name, `fedmodel.audit(...)`, which is above this package
(`scenarios.face.auditing`). Python keeps a package as an attribute of the one that it lies in, so the function cannot
stand there beside it: this package can be called, and calls it.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Audit(ModuleType):
    """A package that can be called."""

    def __call__(self, *scenario: Any, **how: Any) -> Any:
        """Run a scenario with canaries and attack it, as `scenarios.face.auditing.audit` says."""
        return import_module("scenarios.face.auditing").audit(*scenario, **how)


sys.modules[__name__].__class__ = _Audit
