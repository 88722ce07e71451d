"""What a scenario, or a deployed party's file, may say, and how one is read.

Each section of a scenario has a file, and `scenario` holds them together. `law` is a silo's own file, `tables` what a
table is and where it lies, `federation` what a deployed federation is made from. `reading` turns a TOML file and
`--set` options into one of these frozen, validated models, or into one clear line that says what is wrong.
"""

from fedmodel.config.audit import AuditConfig
from fedmodel.config.besides import BesidesConfig
from fedmodel.config.encryption import AggregationMode, EncryptionConfig
from fedmodel.config.faults import FaultsConfig
from fedmodel.config.federation import FederationFile, ServerFile, ServerPlace, SiloEntry
from fedmodel.config.kinds import ModelConfig, data_from_json
from fedmodel.config.law import BudgetConfig, ConnectionConfig, HoursConfig, SiloEncryptionConfig, SiloFile
from fedmodel.config.privacy import PrivacyConfig
from fedmodel.config.purpose import ControllerConfig, PurposeConfig
from fedmodel.config.reading import (
    builtin_scenarios,
    explained,
    folder_of,
    read_federation_file,
    read_scenario,
    read_server_file,
    read_silo_file,
    scenario_from,
    scenario_from_json,
    scenario_to_toml,
    silo_file_to_toml,
    to_toml,
)
from fedmodel.config.scenario import TRAINING, Scenario
from fedmodel.config.silos import LEAST_EFFECTIVE, FederationConfig
from fedmodel.config.tables import TableSource
from fedmodel.config.training import TrainingConfig
from fedmodel.kinds.columns import ColumnConfig, PersonColumn, PersonForm
from fedmodel.kinds.model import StartConfig
from fedmodel.kinds.spelling import CsvForm

__all__ = [
    "LEAST_EFFECTIVE",
    "TRAINING",
    "AggregationMode",
    "AuditConfig",
    "BesidesConfig",
    "BudgetConfig",
    "ColumnConfig",
    "ConnectionConfig",
    "ControllerConfig",
    "CsvForm",
    "EncryptionConfig",
    "FaultsConfig",
    "FederationConfig",
    "FederationFile",
    "HoursConfig",
    "ModelConfig",
    "PersonColumn",
    "PersonForm",
    "PrivacyConfig",
    "PurposeConfig",
    "Scenario",
    "ServerFile",
    "ServerPlace",
    "SiloEncryptionConfig",
    "SiloEntry",
    "SiloFile",
    "StartConfig",
    "TableSource",
    "TrainingConfig",
    "builtin_scenarios",
    "data_from_json",
    "explained",
    "folder_of",
    "read_federation_file",
    "read_scenario",
    "read_server_file",
    "read_silo_file",
    "scenario_from",
    "scenario_from_json",
    "scenario_to_toml",
    "silo_file_to_toml",
    "to_toml",
]
