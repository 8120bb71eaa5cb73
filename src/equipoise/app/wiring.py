"""What is put together with what: the catalogue that configuration validates against, and the engines."""

from equipoise.config.models import Catalogue
from equipoise.health.catalogue import checks
from equipoise.policy.catalogue import policies
from equipoise.templates.reader import Templates


def catalogue() -> Catalogue:
    """Return the checks, policies and site templates of this installation."""
    return Catalogue(
        checks={name: check.params for name, check in checks().items()},
        balances=frozenset(policies()),
        templates=Templates(),
    )
