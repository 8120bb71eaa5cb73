"""What is put together with what: the catalogue that configuration validates against, and the engines."""

from equipoise.config.models import Catalogue
from equipoise.health.catalogue import checks
from equipoise.policy.catalogue import policies


def catalogue() -> Catalogue:
    """Return the checks and policies of this installation."""
    return Catalogue(
        checks={name: check.params for name, check in checks().items()},
        balances=frozenset(policies()),
    )
