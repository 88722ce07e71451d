"""The server's other process: registers the roster's nodes with Flower, and brings every run to its outcome, in turn.

A run without an outcome is begun, or taken up from its checkpoint: after a restart of this process, of the SuperLink or
of the machine alike. For Flower it is another run each time; for silos it is the same one, by its number.

An error of ours is a run's outcome: tried again it would end so again. Any other, a SuperLink that is gone first of
all, is not, and the run is taken up again after a while that doubles. An error of ours while Flower no longer knows the
task is of that kind too: whoever loses the SuperLink in the middle of a round sees silos that do not answer.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from flwr.app import Context, Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode, Status, SubStatus
from flwr.common.serde import context_from_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid, http_grid

from fedmodel.config import read_scenario
from fedmodel.errors import FedmodelError
from fedmodel.system.supervision import Facts
from fedmodel.wire.bundle import make_bundle
from fedmodel.wire.runtime import SERVER_TASK, SocketControl, SocketRuntime, hasten, log_plainly
from server import runs
from server.exchange import is_link_lost
from server.journal import forget

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.5
_CONNECT_S: Final = 0.1
_PATIENCE_S: Final = 30.0
_LONGEST_UPLOAD_S: Final = 30.0
_FIRST_DELAY_S: Final = 0.2
_LONGEST_DELAY_S: Final = 30.0


@dataclass(frozen=True)
class Desk:
    """What a coordinator is started with.

    Attributes:
        home: The server's kit, unlocked.
        nodes: Reads the public keys, in PEM, of the silos' nodes by silo, from the roster as it is when it is called.
        app: The server's app, as installed.
        device: Where models are measured: "auto", "cpu", "cuda" or "cuda:N".
        socket: The SuperLink's.
        secret: What whoever runs tasks shares with it. Sensitive.
    """

    home: Path
    nodes: Callable[[], Mapping[str, str]]
    app: Callable[[Grid, Context], None]
    device: str
    socket: Path
    secret: bytes


class SocketGrid(HttpGrid):
    """Flower's grid over a socket; it lives no longer than the task, and retries nothing.

    Args:
        client: With the task in hand.
        owners: By node, the silo whose key it is registered with.
        timeout_s: For how long a reply that a silo began to send, and did not end, holds up all others.
    """

    def __init__(self, client: SocketRuntime, owners: Mapping[int, str], timeout_s: float) -> None:
        hasten(http_grid, "pull_objects", timeout_s)
        super().__init__(token="of the task in hand")  # noqa: S106 - the client shows the task's own
        self._client = client
        self.owners = owners

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there, each taken in by itself.

        Flower gives each reply out once, and reads all that it gave in one go: what it cannot read of one node's would
        cost everybody whose reply came along.
        """
        told = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=list(message_ids)))
        pairs = zip(told.messages_list, told.message_object_trees, strict=True)
        return [self._taken_in(message.metadata, tree) for message, tree in pairs]

    def _taken_in(self, told: ProtoMetadata, tree: ObjectTree) -> Message:
        """Return a reply, or an error of Flower's own in its place where it cannot be read."""
        run_id = self.run.run_id
        try:
            pull = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, run_id)
            ids = [part.object_id for part in iterate_object_tree(tree)]
            contents = http_grid.pull_objects(ids, pull_object_fn=pull)  # type: ignore[attr-defined]  # as hastened
            received = ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=told.message_id)
            self._runtime_client.ConfirmMessageReceived(received)
            reply = inflate_object_from_contents(told.message_id, contents)
            if not isinstance(reply, Message):
                raise TypeError("what a node sent as a reply is none")
        except Exception as error:  # of any kind: what a node sends is read here
            if is_link_lost(error):
                raise
            return _unreadable(told, run_id)
        reply.metadata.__dict__["_message_id"] = told.message_id
        return reply


def _unreadable(told: ProtoMetadata, run_id: int) -> Message:
    """Return what stands for a reply that cannot be read."""
    metadata = Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        message_type=SYSTEM_MESSAGE_TYPE,
        group_id="",
        ttl=0,
        reply_to_message_id=told.reply_to_message_id,
        created_at=time.time(),
    )
    return make_message(metadata=metadata, error=Error(code=ErrorCode.MESSAGE_UNAVAILABLE, reason=""))


def run_coordinator(desk: Desk, _facts: Facts) -> None:
    """Register nodes and bring runs to their outcomes, until the process is ended."""
    log_plainly()
    bundle = make_bundle()
    with SocketControl(desk.socket) as control, SocketRuntime(desk.socket, "flwr-serverapp", desk.secret) as runtime:
        _wait_for_link(control)
        register_nodes(control, desk.nodes())
        _stop_leftovers(control)
        delay_s = _FIRST_DELAY_S
        while True:
            submitted = runs.waiting(desk.home)
            if submitted is None:
                time.sleep(_POLL_S)
                continue
            try:
                conduct(control, runtime, desk, submitted, bundle)
                delay_s = _FIRST_DELAY_S
            except Exception as error:  # whatever it is, the run is still to be done
                logger.exception("run %s: %s; again in %.1f s", submitted.folder.name, type(error).__name__, delay_s)
                time.sleep(delay_s)
                delay_s = min(delay_s * 2, _LONGEST_DELAY_S)
                _stop_leftovers(control)


def register_nodes(control: SocketControl, nodes: Mapping[str, str]) -> None:
    """Have Flower know the keys of the roster's nodes, and no others."""
    wanted = {key.strip().encode(): silo for silo, key in nodes.items()}
    known = {bytes(node.public_key).strip(): node.node_id for node in control.ListNodes(ListNodesRequest()).nodes_info}
    for key, node_id in known.items():
        if key not in wanted:
            control.UnregisterNode(UnregisterNodeRequest(node_id=node_id))
    for key, silo in wanted.items():
        if key not in known:
            control.RegisterNode(RegisterNodeRequest(public_key=key + b"\n", name=silo))
    logger.info("%d nodes are registered: %s", len(wanted), ", ".join(sorted(wanted.values())))


def conduct(
    control: SocketControl, runtime: SocketRuntime, desk: Desk, submitted: runs.Submitted, bundle: bytes
) -> None:
    """Begin a run or take it up, and write down how it ended.

    Raises:
        Exception: When it has not ended: Flower does not answer, or something unforeseen happened.
    """
    try:
        scenario = read_scenario(str(submitted.folder / runs.SCENARIO))
    except FedmodelError as error:
        _end(submitted.folder, error)
        return
    shown = {"scenario": scenario.model_dump_json(exclude_none=True), "run": str(submitted.number)}
    _start(control, shown, bundle)
    _acquire(runtime)
    with runtime.beating():
        pulled = runtime.PullTaskInput(PullTaskInputRequest())
        run, context = run_from_proto(pulled.run), context_from_proto(pulled.context)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = pulled.task_id, run.run_id, context.node_id
        own = {"home": str(desk.home), "run-dir": str(submitted.folder), "device": _device(desk.device)}
        context.run_config = {**shown, **own}
        longest_s = min(_LONGEST_UPLOAD_S, scenario.federation.round_timeout_s / 2)
        grid = SocketGrid(runtime, _owners(control, desk.nodes()), longest_s)
        grid.set_run(run)
        try:
            desk.app(grid, context)
        except FedmodelError as error:
            if not _is_known(runtime):
                raise
            _end(submitted.folder, error)
            _push_output(runtime, SubStatus.FAILED, error.code)
            return
    _end(submitted.folder, None)
    _push_output(runtime, SubStatus.COMPLETED, "")


def _owners(control: SocketControl, nodes: Mapping[str, str]) -> dict[int, str]:
    """Return the silos of the registered nodes, by node."""
    silos = {key.strip().encode(): silo for silo, key in nodes.items()}
    listed = control.ListNodes(ListNodesRequest()).nodes_info
    return {node.node_id: silos[key] for node in listed if (key := bytes(node.public_key).strip()) in silos}


def _start(control: SocketControl, config: Mapping[str, str], bundle: bytes) -> None:
    """Have Flower begin a run, so that there is a task to take."""
    fab = Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle)
    answer = control.StartRun(StartRunRequest(fab=fab, override_config=user_config_to_proto(dict(config))))
    if not answer.run_id:
        raise RuntimeError("Flower's SuperLink did not begin the run; see its log")


def _acquire(runtime: SocketRuntime) -> None:
    """Take the task of the run that was just begun."""
    deadline = time.monotonic() + _PATIENCE_S
    while runtime.acquire(SERVER_TASK) is None:
        if time.monotonic() >= deadline:
            raise RuntimeError("Flower's SuperLink gave no task for the run that it began")
        time.sleep(_CONNECT_S)


def _end(folder: Path, error: FedmodelError | None) -> None:
    """Write down a run's outcome."""
    runs.end(folder, error)
    forget(folder)
    logger.info("run %s: %s", folder.name, "completed" if error is None else f"failed: {error}")


def _push_output(runtime: SocketRuntime, status: str, details: str) -> None:
    """Tell Flower how the task ended; the outcome stands without it."""
    try:
        runtime.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=details))
    except httpx.HTTPError as error:
        logger.warning("Flower was not told how the task ended: %s", error)


def _is_known(runtime: SocketRuntime) -> bool:
    """Return whether Flower is there, and still knows the task in hand."""
    try:
        return bool(runtime.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)
    except httpx.HTTPError:
        return False


def _wait_for_link(control: SocketControl) -> None:
    """Return when the SuperLink answers on its socket."""
    while True:
        try:
            control.ListNodes(ListNodesRequest())
        except httpx.TransportError:
            time.sleep(_CONNECT_S)
        else:
            return


def _stop_leftovers(control: SocketControl) -> None:
    """Stop what an earlier coordinator left running: its messages would keep silos busy."""
    for run in control.ListRuns(ListRunsRequest()).run_dict.values():
        if run.status.status != Status.FINISHED:
            control.StopRun(StopRunRequest(run_id=run.run_id))


def _device(said: str) -> str:
    """Return "cpu", "cuda" or "cuda:N"; "auto" is the GPU where there is one."""
    if said == "cpu":
        return said
    from fedmodel.learning.devices import resolved  # imports torch

    return resolved(said)
