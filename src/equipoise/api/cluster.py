"""The API's routes of a pair of machines, under `/api/v1/cluster`.

Answers are the pair's own documents (`ports.Pair`) and pass as they are.  Leaves out what the peer asks, which comes by
another door, with certificates.
"""

from typing import Any

from fastapi import APIRouter

from equipoise.api import schemas
from equipoise.api.ports import Supervisor
from equipoise.cluster.wanted import WantedPair


def router(supervisor: Supervisor) -> APIRouter:
    """Return the routes; the supervisor is asked for its pair each time, as that comes and goes."""
    router = APIRouter()

    @router.get("")
    async def status() -> dict[str, Any]:
        return await supervisor.pair.status()

    @router.post("/join")
    async def join(request: schemas.JoinRequest) -> dict[str, Any]:
        wanted = WantedPair(request.peer, request.role, request.address, request.interface)
        return await supervisor.pair.join(wanted, request.token)

    @router.post("/leave")
    async def leave() -> dict[str, Any]:
        return await supervisor.pair.leave()

    @router.post("/sync")
    async def sync(request: schemas.SyncRequest) -> dict[str, Any]:
        return await supervisor.pair.sync(request.take)

    @router.post("/handover")
    async def handover(request: schemas.HandoverRequest) -> dict[str, Any]:
        return await supervisor.pair.handover(list(request.groups), request.here)

    return router
