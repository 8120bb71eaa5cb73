"""A catalogue of two small checks, so that tests of the configuration need nothing of the health layer."""

import pytest

from equipoise.config.base import CheckParams
from equipoise.config.fields import AeTitle
from equipoise.config.models import Catalogue


class TcpParams(CheckParams):
    """Settings of a check that connects."""


class EchoParams(CheckParams):
    """Settings of a check that sends a C-ECHO."""

    calling_ae: AeTitle = "EQUIPOISE"
    """The title that the check calls with."""
    called_ae: AeTitle = "ANY-SCP"
    """The title that the node is called by."""


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return Catalogue(
        checks={"tcp": TcpParams, "dicom_echo": EchoParams},
        balances=frozenset({"round_robin", "least_connections", "first_up"}),
    )
