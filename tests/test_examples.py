"""The examples of `docs/examples/` are ones that work: kits are made from them, and Kubernetes would take them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml  # type: ignore[import-untyped]

from fedmodel.config import read_federation_file, read_silo_file
from fedmodel.crypto.sealed import opener_from_key_file
from fedmodel.provision import read_server_law, unlock
from fedmodel.provision.authority import issue, read_scenarios

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
PARTIES = ["server", "silo"]


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kits of the federation that docs/deploy.md walks through."""
    federation = read_federation_file(EXAMPLES / "federation.toml")
    out = tmp_path_factory.mktemp("example") / "kits"
    issue(federation, read_scenarios(federation, EXAMPLES), out)
    return out


def documents(party: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / "kubernetes" / f"{party}.yaml").read_text(encoding="utf-8")))


def workload(party: str) -> dict[str, Any]:
    (found,) = [one for one in documents(party) if one["kind"] in ("StatefulSet", "Deployment")]
    return found


def pod(party: str) -> dict[str, Any]:
    found: dict[str, Any] = workload(party)["spec"]["template"]["spec"]
    return found


def containers(party: str) -> list[dict[str, Any]]:
    return [*pod(party)["initContainers"], *pod(party)["containers"]]


def test_the_example_of_a_federation_makes_kits(kits: Path) -> None:
    assert {path.name for path in (kits / "silos").iterdir()} == {"aurora", "borealis", "cascade", "dune"}
    assert read_server_law(kits / "server").listen == "0.0.0.0:9443"
    law = read_silo_file(kits / "silos" / "aurora" / "silo.toml")
    assert law.connection is not None
    assert law.connection.address == "fl.example.org:9443"
    assert law.encryption.secure_aggregation == "on"


@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("party", PARTIES)
def test_kubernetes_knows_every_key_of_the_manifests(party: str, version: str) -> None:
    for document in documents(party):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_key_that_kubernetes_does_not_know_is_found() -> None:
    document = workload("server")
    document["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readonlyRootFilesystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.31", strict=True)


@pytest.mark.parametrize("party", PARTIES)
def test_a_pod_is_shut_in(party: str) -> None:
    spec = pod(party)
    assert spec["automountServiceAccountToken"] is False
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] != 0
    assert security["fsGroupChangePolicy"] == "OnRootMismatch"  # or a kit would be opened to its group at each start
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
    assert all("hostPath" not in volume for volume in spec["volumes"])
    for container in containers(party):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
    assert workload(party)["spec"]["replicas"] == 1


@pytest.mark.parametrize("party", PARTIES)
def test_secrets_reach_the_copying_container_alone(party: str) -> None:
    secret = {volume["name"] for volume in pod(party)["volumes"] if "secret" in volume}
    assert secret == {"kit-secret", "key-secret"}
    for container in pod(party)["containers"]:
        assert not secret & {mount["name"] for mount in container["volumeMounts"]}
        assert "livenessProbe" not in container
    assert all(one["kind"] != "Secret" for one in documents(party))
    assert [volume["emptyDir"]["medium"] for volume in pod(party)["volumes"] if "emptyDir" in volume] == ["Memory"] * 2


def test_one_port_is_open_at_the_server_and_none_at_a_silo() -> None:
    policies = {party: next(one for one in documents(party) if one["kind"] == "NetworkPolicy") for party in PARTIES}
    assert policies["server"]["spec"]["ingress"] == [{"ports": [{"port": 9443}]}]
    assert policies["server"]["spec"]["egress"] == []
    assert policies["silo"]["spec"]["ingress"] == []
    assert [one["kind"] for one in documents("silo") if one["kind"] == "Service"] == []
    (container,) = pod("server")["containers"]
    assert container["ports"] == [{"name": "fleet", "containerPort": 9443}]
    assert "ports" not in pod("silo")["containers"][0]


@pytest.mark.skipif(not shutil.which("install"), reason="coreutils are not installed here")
@pytest.mark.parametrize(("party", "name"), [("server", "server"), ("silo", "aurora")])
def test_a_copied_kit_is_its_owners_alone_and_opens(party: str, name: str, kits: Path, tmp_path: Path) -> None:
    """As Kubernetes lays a Secret out under fsGroup: links to files that the group reads, and no folder in it."""
    source = kits / "server" if party == "server" else kits / "silos" / name
    hidden = tmp_path / "secret" / "kit" / "..data"
    hidden.mkdir(parents=True)
    files = [path for path in source.iterdir() if path.is_file()]
    for path in files:
        shutil.copy(path, hidden / path.name)
        (hidden / path.name).chmod(0o440)
        (hidden.parent / path.name).symlink_to(Path("..data") / path.name)
    (tmp_path / "secret" / "key").mkdir()
    shutil.copy(kits / "keys" / f"{name}.key", tmp_path / "secret" / "key" / "key")
    (tmp_path / "secret" / "key" / "key").chmod(0o440)
    for folder in ("run", "data"):
        (tmp_path / folder).mkdir()
    (script,) = pod(party)["initContainers"][0]["args"]
    for there, here in (("/secret/", "secret/"), ("/run/fedmodel", "run"), ("/var/lib/fedmodel/", "data/")):
        assert there in script
        script = script.replace(there, str(tmp_path / here) + ("/" if here.endswith("/") else ""))
    assert pod(party)["initContainers"][0]["command"] == ["/bin/sh", "-euc"]
    for _ in range(2):  # the second start finds a kit, and leaves it alone
        subprocess.run(["/bin/sh", "-euc", script], check=True)
        kit = tmp_path / "data" / name
        (kit / "kept").write_text("from the first start on")
        os.chmod(kit / "silo.toml" if party == "silo" else kit / "server.toml", 0o660)  # noqa: PTH101
    subprocess.run(["/bin/sh", "-euc", script], check=True)
    assert (kit / "kept").exists()
    assert {path.name for path in files} == {path.name for path in kit.iterdir()} - {"kept"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kit.iterdir())
    assert unlock(kit, opener_from_key_file(tmp_path / "run" / "key")).name == name


@pytest.mark.parametrize(("party", "name"), [("server", "server"), ("silo", "aurora")])
def test_a_container_starts_the_party_from_what_was_copied(party: str, name: str) -> None:
    (container,) = pod(party)["containers"]
    assert container["command"] == [
        "/opt/fedmodel/bin/fedmodel", party, "start", f"/var/lib/fedmodel/{name}", "--key-file", "/run/fedmodel/key"
    ]  # fmt: skip
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/run/fedmodel", "/var/lib/fedmodel", "/tmp"}  # noqa: S108
    image = (EXAMPLES / "Containerfile").read_text(encoding="utf-8")
    assert re.search(r'ENTRYPOINT \["/opt/fedmodel/bin/fedmodel"\]', image)
    assert "No test builds it" in image
