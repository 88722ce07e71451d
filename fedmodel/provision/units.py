"""What a kit has for its machine: a systemd unit that confines the process, and a README of five lines.

The unit runs as a user of its own, writes nowhere but in its kit and in its own folder in /run, gains no privilege, and
leaves no core dump, which would hold keys. The key file (or passphrase) comes as a credential of systemd: it lies
outside the kit, and only the service can read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

PROGRAM: Final = "/opt/fedmodel/bin/fedmodel"
HOME: Final = "/var/lib/fedmodel"
SECRETS: Final = "/etc/fedmodel"

# Neither PrivateDevices nor MemoryDenyWriteExecute: GPUs are devices of the machine, and torch makes code as it runs.
_UNIT: Final = """\
[Unit]
Description=fedmodel {what} of federation {federation}
Wants=network-online.target
After=network-online.target
# A machine that comes back after hours is taken up again, however often it failed in between.
StartLimitIntervalSec=0

[Service]
Type=exec
User=fedmodel
UMask=0077
Environment=HOME=/tmp
# The socket is in there, and not in the service's own /tmp, where no command beside the service would find it.
RuntimeDirectory=%N
RuntimeDirectoryMode=0700
WorkingDirectory={kit}
LoadCredential={credential}:{secret}
ExecStart={program} {role} start {kit} {option} ${{CREDENTIALS_DIRECTORY}}/{credential}
Restart=on-failure
RestartSec=5
KillMode=mixed
TimeoutStopSec=60

NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ReadWritePaths={kit}
PrivateTmp=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
CapabilityBoundingSet=
LimitCORE=0
{limits}
[Install]
WantedBy=multi-user.target
"""

# Each connection, also of a peer that never authenticates, takes a descriptor; systemd's 1024 could be used up.
_SERVER_LIMITS: Final = "LimitNOFILE=65536\n"

_README: Final = """\
1. This is the kit of {who} in federation {federation}. Its keys are sealed; the {secret_word} that opens them comes another way: keep the two apart.
2. Put it to {kit} (owner fedmodel, mode 0700), the {secret_word} to {secret} (owner root, mode 0600), {unit} to /etc/systemd/system/.
3. Compare the digits that `fedmodel authority show {kit}` prints with the administrator's by telephone, this party's and the authority's.
4. {law} Then: systemctl enable --now {unit}
5. If the kit, or what opens it, is lost, stolen or read by others, tell the administrator at once, who runs `fedmodel authority rotate` or `revoke`.
"""  # noqa: E501 - five lines, as a person reads them
_SERVER_LAW: Final = (
    "Read `server.toml`: `listen` is the one port that is opened, `hosts` are the names that silos find it by."
)
_SILO_LAW: Final = "Read what no server can loosen, and have it approved: `fedmodel silo policy {kit}`."


@dataclass(frozen=True)
class Installation:
    """Where a party's kit will lie on its machine.

    Attributes:
        role: What the party is.
        name: Its name.
        federation: The federation that it is a member of.
        seal: What opens its keys.
        program: The installed command.
        home: The folder that the kit is put into.
        secrets: The folder that the key file or passphrase is put into.
    """

    role: Literal["server", "silo"]
    name: str
    federation: str
    seal: Literal["key-file", "passphrase"]
    program: str = PROGRAM
    home: str = HOME
    secrets: str = SECRETS

    @property
    def kit(self) -> str:
        """The kit's folder."""
        return f"{self.home}/{self.name}"

    @property
    def secret(self) -> str:
        """The file that opens its keys."""
        return f"{self.secrets}/{self.name}.{'key' if self.seal == 'key-file' else 'passphrase'}"

    @property
    def unit(self) -> str:
        """The unit's name."""
        return f"fedmodel-{self.role}.service"


def unit_text(place: Installation) -> str:
    """Return the systemd unit of a party."""
    by_key = place.seal == "key-file"
    return _UNIT.format(
        what="server" if place.role == "server" else f"silo {place.name}",
        federation=place.federation,
        kit=place.kit,
        credential="key" if by_key else "passphrase",
        secret=place.secret,
        option="--key-file" if by_key else "--passphrase-file",
        program=place.program,
        role=place.role,
        limits=_SERVER_LIMITS if place.role == "server" else "",
    )


def readme_text(place: Installation) -> str:
    """Return the README of a kit: five lines."""
    server = place.role == "server"
    return _README.format(
        who="the server" if server else f"silo {place.name}",
        federation=place.federation,
        secret_word="key file" if place.seal == "key-file" else "passphrase",
        kit=place.kit,
        law=_SERVER_LAW if server else _SILO_LAW.format(kit=place.kit),
        secret=place.secret,
        unit=place.unit,
    )
