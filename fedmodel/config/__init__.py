"""What a scenario, or a deployed party's file, may say, and how one is read.

`schema` and `federation` hold the frozen, validated models; `reading` turns a TOML file and `--set` options into one of
them, or into one clear line that says what is wrong.
"""

from fedmodel.config.federation import FederationFile, ServerFile, ServerPlace, SiloEntry
from fedmodel.config.reading import (
    builtin_scenarios,
    read_federation_file,
    read_scenario,
    read_server_file,
    read_silo_file,
    scenario_from_json,
    scenario_to_toml,
    silo_file_to_toml,
    to_toml,
)
from fedmodel.config.schema import (
    MOST_EPSILON,
    AuditConfig,
    BudgetConfig,
    CnnConfig,
    ConnectionConfig,
    DataConfig,
    DataSource,
    EncryptionConfig,
    FaultsConfig,
    FederationConfig,
    HoursConfig,
    MlpConfig,
    ModelConfig,
    PartitionConfig,
    PrivacyConfig,
    Scenario,
    SiloEncryptionConfig,
    SiloFile,
    SiloPlan,
    TrainingConfig,
)
from fedmodel.config.tables import ColumnConfig, TableSource

__all__ = [
    "MOST_EPSILON",
    "AuditConfig",
    "BudgetConfig",
    "CnnConfig",
    "ColumnConfig",
    "ConnectionConfig",
    "DataConfig",
    "DataSource",
    "EncryptionConfig",
    "FaultsConfig",
    "FederationConfig",
    "FederationFile",
    "HoursConfig",
    "MlpConfig",
    "ModelConfig",
    "PartitionConfig",
    "PrivacyConfig",
    "Scenario",
    "ServerFile",
    "ServerPlace",
    "SiloEncryptionConfig",
    "SiloEntry",
    "SiloFile",
    "SiloPlan",
    "TableSource",
    "TrainingConfig",
    "builtin_scenarios",
    "read_federation_file",
    "read_scenario",
    "read_server_file",
    "read_silo_file",
    "scenario_from_json",
    "scenario_to_toml",
    "silo_file_to_toml",
    "to_toml",
]
