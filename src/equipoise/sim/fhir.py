"""A simulated FHIR server: its capabilities, and any other read or search with the same small answer.

Leaves out every resource.  A process of its own:

    python -m equipoise.sim.fhir --name a --port 0

Source: FHIR R4, RESTful API (capabilities, search), CapabilityStatement, Bundle, OperationOutcome.
"""

import json
from collections.abc import Mapping
from typing import Any

from equipoise.sim.http_server import Exchange
from equipoise.sim.node_process import arguments_of, run

_JSON = "application/fhir+json; charset=utf-8"
_CAPABILITIES = {
    "resourceType": "CapabilityStatement",
    "status": "active",
    "date": "2031-03-04",
    "kind": "instance",
    "fhirVersion": "4.0.1",
    "format": ["json"],
    "rest": [{"mode": "server", "resource": [{"type": "ImagingStudy", "interaction": [{"code": "search-type"}]}]}],
}
_NOTHING_FOUND = {"resourceType": "Bundle", "type": "searchset", "total": 0}


class FhirServer:
    """One node; `handle` answers a request."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = exchange.request.path
        if exchange.request.method not in {"GET", "HEAD"}:
            issue = {"severity": "error", "code": "not-supported", "diagnostics": exchange.request.method}
            await self._answer(exchange, 405, {"resourceType": "OperationOutcome", "issue": [issue]})
        elif path.endswith("/metadata"):
            await self._answer(exchange, 200, _CAPABILITIES)
        else:
            await self._answer(exchange, 200, _NOTHING_FOUND)

    async def _answer(self, exchange: Exchange, status: int, resource: Mapping[str, Any]) -> None:
        await exchange.answer(status, json.dumps(resource).encode(), _JSON, [("x-served-by", self._name)])


def main() -> None:
    """Serve until told to stop."""
    arguments = arguments_of("fhir", "A simulated FHIR server.").parse_args()
    run(FhirServer(arguments.name).handle, arguments)


if __name__ == "__main__":
    main()
