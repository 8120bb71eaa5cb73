"""What a simulated registry and a repository have in common: an HTTP request becomes a SOAP message, and back.

The answer has the format of the request: MTOM for MTOM, simple SOAP for simple SOAP (IHE ITI TF-2, appendix V.3.6).
Errors of XDS are answers with HTTP status 200; what is no request at all is a SOAP fault with 400.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from equipoise.base.errors import PeerError
from equipoise.sim import mtom, soap
from equipoise.sim.http_server import Exchange, Headers
from equipoise.sim.soap import Element, Message
from equipoise.sim.xds import Transaction, XdsError, registry_response

_MOST_BYTES = 256 << 20
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: the content of its envelope's body, and the documents beside it."""

    body: Element
    parts: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Told:
    """Its answer, likewise."""

    body: Element
    parts: Mapping[str, bytes] = field(default_factory=dict)


Answer: TypeAlias = Callable[[Asked], Awaitable[Told]]


class XdsNode:
    """One actor.

    Args:
        name: Said in the header `x-served-by`.
        busy_code: What a node that is switched to busy answers to everything.
        transactions: What it can do.
        errors: Makes the answer that tells an error, by transaction; RegistryResponse where nothing else is said.
    """

    def __init__(
        self,
        name: str,
        busy_code: str,
        transactions: Mapping[Transaction, Answer],
        errors: Mapping[Transaction, Callable[[XdsError], Element]],
    ) -> None:
        self._name = name
        self._busy_code = busy_code
        self._transactions = transactions
        self._errors = errors
        self.busy = False

    async def handle(self, exchange: Exchange) -> None:
        """Answer one HTTP request: SOAP by POST at every path, a sign of life by GET, `POST /busy?on=1` the switch."""
        request = exchange.request
        if request.path == "/busy" and request.method == "POST":
            self.busy = request.query.get("on") == "1"
            await exchange.answer(200, f"busy: {self.busy}\n".encode(), _TEXT, self._served())
        elif request.method != "POST":
            await exchange.answer(200, b"an XDS actor: POST SOAP 1.2\n", _TEXT, self._served())
        else:
            await self._soap(exchange)

    async def _soap(self, exchange: Exchange) -> None:
        content_type = exchange.request.header("content-type")
        content = await exchange.body(_MOST_BYTES)
        try:
            is_mtom = mtom.is_mtom(content_type)
            package = mtom.read(content_type, content) if is_mtom else mtom.Package(content, {})
            message = soap.read(package.envelope)
            transaction = self._transaction(message)
        except PeerError as error:
            await exchange.answer(400, soap.fault("Sender", str(error)), soap.CONTENT_TYPE, self._served())
            return
        told = await self._tell(transaction, Asked(message.body, package.parts))
        kind, body = _written(told, transaction, message, is_mtom=is_mtom)
        await exchange.answer(200, body, kind, self._served())

    def _transaction(self, message: Message) -> Transaction:
        for transaction in self._transactions:
            if message.action == transaction:
                return transaction
        known = ", ".join(self._transactions)
        raise PeerError(f"the action {message.action!r} is not one of {known}")

    async def _tell(self, transaction: Transaction, asked: Asked) -> Told:
        error_body = self._errors.get(transaction, _registry_response)
        try:
            if self.busy:
                raise XdsError(self._busy_code, "switched to busy")
            return await self._transactions[transaction](asked)
        except XdsError as error:
            return Told(error_body(error))
        except PeerError as error:
            return Told(error_body(XdsError("XDSRegistryMetadataError", str(error))))

    def _served(self) -> Headers:
        return [("x-served-by", self._name)]


def _registry_response(error: XdsError) -> Element:
    return registry_response([error])


def _written(told: Told, transaction: Transaction, asked: Message, *, is_mtom: bool) -> tuple[str, bytes]:
    if is_mtom:
        return mtom.write(soap.response(transaction.answer, asked, told.body), told.parts, transaction.answer)
    mtom.inline(told.body, told.parts)
    kind = f'{soap.CONTENT_TYPE}; charset=UTF-8; action="{transaction.answer}"'
    return kind, soap.response(transaction.answer, asked, told.body)
