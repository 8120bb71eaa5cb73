"""Servers of pynetdicom for what DCMTK has none for: performed procedure steps, and reports of storage commitment.

Source: DICOM PS3.4 sections F.7.2 (N-CREATE, N-SET), J.3.2 (N-ACTION) and J.3.3 (N-EVENT-REPORT).
"""

from threading import Condition
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.sop_class import ModalityPerformedProcedureStep, StorageCommitmentPushModel

from tests.system.conversation import Credentials
from tests.system.pynet import VERIFICATION, entity
from tests.system.pynet_client import server_context

_NO_SUCH_INSTANCE, _DUPLICATE = 0x0112, 0x0111  # PS3.7 annex C.5.6 and C.5.1


class _Server:
    """Listens on a port of its own until it is left."""

    def __init__(self, title: str, tls: Credentials | None, handlers: list[Any]) -> None:
        self.entity = entity(title)
        self.entity.add_supported_context(VERIFICATION)
        self._tls, self._handlers = tls, handlers
        self._server: Any = None

    def __enter__(self) -> Self:
        self._server = self.entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=self._handlers, ssl_context=server_context(self._tls)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])


class ProcedureSteps(_Server):
    """An MPPS provider: `steps` has what was created, by UID, with what was set since."""

    def __init__(self, tls: Credentials | None = None) -> None:
        super().__init__("PACS", tls, [(evt.EVT_N_CREATE, self._create), (evt.EVT_N_SET, self._set)])
        self.entity.add_supported_context(ModalityPerformedProcedureStep)
        self.steps: dict[str, Dataset] = {}

    def _create(self, event: Any) -> tuple[int, Dataset | None]:
        uid = str(event.request.AffectedSOPInstanceUID)
        if uid in self.steps:
            return _DUPLICATE, None
        self.steps[uid] = event.attribute_list
        return 0x0000, event.attribute_list

    def _set(self, event: Any) -> tuple[int, Dataset | None]:
        uid = str(event.request.RequestedSOPInstanceUID)
        if uid not in self.steps:
            return _NO_SUCH_INSTANCE, None
        self.steps[uid].update(event.modification_list)
        return 0x0000, self.steps[uid]


class Reports(_Server):
    """Where a device listens for the answer to its N-ACTION, which comes on an association that the archive opens."""

    def __init__(self, title: str, tls: Credentials | None = None) -> None:
        super().__init__(title, tls, [(evt.EVT_N_EVENT_REPORT, self._report)])
        # The one who calls is the provider here: PS3.4 section J.3.3.1.3.
        self.entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        self._heard = Condition()
        self._reports: list[tuple[str, Dataset]] = []

    def _report(self, event: Any) -> tuple[int, None]:
        caller = str(event.assoc.requestor.ae_title).strip()
        with self._heard:
            self._reports.append((caller, event.event_information))
            self._heard.notify_all()
        return 0x0000, None

    def wait(self, within_s: float = 30) -> tuple[str, Dataset]:
        """Return the caller's title and the first report."""
        with self._heard:
            assert self._heard.wait_for(lambda: bool(self._reports), within_s), "no N-EVENT-REPORT came"
            return self._reports[0]
