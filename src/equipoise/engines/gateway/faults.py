"""Whether the gateways carry what they should at this moment: another machine had better, where they do not.

A gateway that ended is started anew by the supervisor; until the new one serves, that is a fault.  A successor that is
being started beside a living old one is none.
"""

import asyncio
from collections.abc import Mapping, Sequence

from equipoise.base.errors import EngineError
from equipoise.engines.gateway.messages import Observe
from equipoise.engines.gateway.render import Artifact
from equipoise.engines.gateway.worker import Worker

_ANSWER_S = 3.0  # its loop answers in milliseconds; a gateway that is this late was stopped, or serves as late


async def fault(artifact: Artifact, serving: Mapping[int, Worker], retiring: Sequence[Worker]) -> str | None:
    """Return why one does not carry its services, at once where it is dead, else within 3 s; None where all do."""
    needed = [number for number, tasks in enumerate(artifact.workers) if tasks]
    carrying = [_carrying(number, serving, retiring) for number in needed]
    if None in carrying:
        return "a gateway process ended and is being started again"
    said = await asyncio.gather(*(_silence(process) for process in carrying if process is not None))
    return next((reason for reason in said if reason is not None), None)


def _carrying(number: int, serving: Mapping[int, Worker], retiring: Sequence[Worker]) -> Worker | None:
    process = serving.get(number)
    if process is not None and process.is_ready and not process.channel.closed:
        return process
    # Until the new one is ready the old one has its services still.
    return next((old for old in retiring if old.number == number and old.tasks and not old.channel.closed), None)


async def _silence(process: Worker) -> str | None:
    try:
        await process.channel.ask(Observe(), timeout_s=_ANSWER_S)
    except EngineError as error:
        return f"gateway process {process.pid}: {error}"
    return None
