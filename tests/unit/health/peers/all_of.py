"""Peers of check `all_of`, which asks them for a C-ECHO."""

from equipoise.config.parts import Part
from equipoise.health.checks.dicom_echo import Params
from tests.unit.health.peers.dicom_echo import HEALTHY, LISTENS, SICK

__all__ = ["HEALTHY", "LISTENS", "SICK"]
SETTINGS = {"checks": (Part("dicom_echo", Params()),)}
BEGINS = "dicom_echo: "
