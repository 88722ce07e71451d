"""fedmodel: federated learning in which privacy is refused rather than guessed.

>>> import fedmodel as fm
>>> fm.epsilon(noise_multiplier=1.0, sample_rate=0.0128, steps=1560, delta=1e-5) < 3.0
True

`fedmodel.simulate` trains a scenario's model, or your own, over simulated silos and returns a `Run`. These names are
the whole face; what lies in the folders beneath may change. Each is imported when it is first asked for, so that
`import fedmodel` is quick and reads no environment variable. Some are of `scenarios`, above this package: this is the
one place that looks up, and only by name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmodel.config import read_scenario as read_scenario
    from fedmodel.errors import ConfigError as ConfigError
    from fedmodel.errors import DataError as DataError
    from fedmodel.errors import FedmodelError as FedmodelError
    from fedmodel.errors import LedgerError as LedgerError
    from fedmodel.errors import PrivacyBudgetExceeded as PrivacyBudgetExceeded
    from fedmodel.errors import PrivacyError as PrivacyError
    from fedmodel.kinds.partitions.column import ByColumn as ByColumn
    from fedmodel.kinds.partitions.dirichlet import Dirichlet as Dirichlet
    from fedmodel.kinds.partitions.iid import IID as IID
    from fedmodel.kinds.partitions.shards import Shards as Shards
    from fedmodel.kinds.partitions.sizes import Sizes as Sizes
    from fedmodel.learning.fixing import fix as fix
    from fedmodel.privacy.plan_figures import epsilon as epsilon
    from fedmodel.privacy.plan_figures import noise_multiplier as noise_multiplier
    from scenarios.face.auditing import Audit as Audit
    from scenarios.face.auditing import audit as audit
    from scenarios.face.bases import Base as Base
    from scenarios.face.run import Run as Run
    from scenarios.face.scenario import Scenario as Scenario
    from scenarios.face.simulating import simulate as simulate

_FROM = {
    "Audit": "scenarios.face.auditing",
    "Base": "scenarios.face.bases",
    "ByColumn": "fedmodel.kinds.partitions.column",
    "ConfigError": "fedmodel.errors",
    "DataError": "fedmodel.errors",
    "Dirichlet": "fedmodel.kinds.partitions.dirichlet",
    "FedmodelError": "fedmodel.errors",
    "IID": "fedmodel.kinds.partitions.iid",
    "LedgerError": "fedmodel.errors",
    "PrivacyBudgetExceeded": "fedmodel.errors",
    "PrivacyError": "fedmodel.errors",
    "Run": "scenarios.face.run",
    "Scenario": "scenarios.face.scenario",
    "Shards": "fedmodel.kinds.partitions.shards",
    "Sizes": "fedmodel.kinds.partitions.sizes",
    "audit": "fedmodel.audit",
    "epsilon": "fedmodel.privacy.plan_figures",
    "fix": "fedmodel.learning.fixing",
    "noise_multiplier": "fedmodel.privacy.plan_figures",
    "read_scenario": "fedmodel.config",
    "simulate": "scenarios.face.simulating",
}
__all__ = sorted(_FROM)


def __getattr__(name: str) -> Any:
    """Import a name of the face when it is first asked for."""
    if name not in _FROM:
        raise AttributeError(f"module 'fedmodel' has no attribute {name!r}; it offers {', '.join(_FROM)}")
    if name == "audit":  # the package of that name, which can be called
        return import_module("fedmodel.audit")
    found = globals()[name] = getattr(import_module(_FROM[name]), name)
    return found


def __dir__() -> list[str]:
    """Return the face beside what every module has."""
    return sorted({*globals(), *_FROM})
