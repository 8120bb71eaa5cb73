import json

import msgspec
import pytest

from equipoise.engines.gateway.messages import (
    VERSION,
    Body,
    Done,
    Happened,
    Hello,
    Kept,
    Message,
    NodeCounters,
    Observation,
    Observe,
    Recall,
    Serve,
    ServiceCounters,
    ServiceTask,
    SetNodes,
    Share,
    Soft,
    Stop,
    Welcome,
    decode,
    encode,
)
from equipoise.plan.model import Endpoint, Node, Persistence
from equipoise.plan.states import NodeState
from tests.playbook.scene import SETTINGS

TASK = ServiceTask(
    name="pacs",
    listen=(Endpoint("192.0.2.1", 104), Endpoint("2001:db8::1", 104)),
    balance="round_robin",
    persistence=Persistence("source_ip", 1800, 32, 64),
    nodes=(Node("a", "pacs-a:104", "192.0.2.2", 104, 100, 60, False), Node("b", "pacs-b", None, None, 0, None, True)),
    allow_from=("192.0.2.0/24",),
    max_connections=100,
    queue_wait_s=5,
    source_address=None,
    dicom=SETTINGS,
)
STATES = {"pacs/a": NodeState("drain", 50)}
BODIES: list[Body] = [
    Hello(version=VERSION),
    Welcome(version=VERSION, software="0.1", pid=7, worker=0, retiring=False, sockets=TASK.listen),
    Serve(services=(TASK,), states=STATES, at_s=1.5, sockets=TASK.listen, successors={"x": "/run/x"}, retire=True),
    SetNodes(states=STATES, at_s=1.5),
    Observe(),
    Stop(drain_s=30),
    Done(problem="no"),
    Observation(
        services={
            "pacs": ServiceCounters(
                clients=1, waiting=0, nodes={"a": NodeCounters(connections=1, associations=2, bytes_in=3, bytes_out=4)}
            )
        }
    ),
    Happened(events=(msgspec.Raw(b'{"kind":"x"}'),)),
    Share(on=False),
    Recall(service="pacs", most=10),
    Kept(tables={"pacs": (("192.0.2.9", "a", 1.5), ("192.0.2.8", "b", 0.0))}),
    Soft(gateway="7", service="pacs", open={"a": 1}, persistence=(("192.0.2.9", "a", 1.5),)),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_every_message_reads_back_from_one_line(body: Body) -> None:
    line = encode(Message(body=body, number=3, answers=2, fds=1))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == Message(body=body, number=3, answers=2, fds=1)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_a_field_of_a_later_version_is_passed_over(body: Body) -> None:
    document = json.loads(encode(Message(body=body)))
    document["later"] = document["body"]["later"] = 1
    assert decode(json.dumps(document, separators=(",", ":")).encode()).body == body
