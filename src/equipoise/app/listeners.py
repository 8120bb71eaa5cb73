"""Which addresses that services listen on are on this machine; `waiting` is shown until they are."""

from collections.abc import Callable

from equipoise.engines.sockets import is_local
from equipoise.plan.model import Plan
from equipoise.state.events import Event, ListenerReady, ListenerWaiting


class Listeners:
    """The addresses of a plan, as they were found last."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self.absent: frozenset[str] = frozenset()

    def look(self, plan: Plan) -> None:
        """See which are here; where that changes an event says so, but not for those that move within a pair."""
        hosts = {endpoint.host for service in plan.services for endpoint in service.listen}
        absent = frozenset(host for host in hosts if not is_local(host))
        moving = {address.host for address in plan.vips} if plan.cluster is not None else set[str]()
        for service in plan.services:
            for host in sorted({endpoint.host for endpoint in service.listen} - moving):
                if host in absent - self.absent:
                    self._emit(ListenerWaiting(service=service.name, address=host))
                elif host in self.absent - absent:
                    self._emit(ListenerReady(service=service.name, address=host))
        self.absent = absent
