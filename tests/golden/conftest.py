"""Golden cases and examples are read as a user's are: with the checks and policies of this installation."""

import pytest

from equipoise.app import wiring
from equipoise.config.models import Catalogue


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return wiring.catalogue()
