"""The policies there are: one file each in this folder, found and not listed."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import equipoise.policy
from equipoise.policy.base import PolicyKind


@cache
def policies() -> Mapping[str, PolicyKind]:
    """Return every policy by its name: a module of this folder that has a `POLICY`."""
    modules = (import_module(f"equipoise.policy.{found.name}") for found in iter_modules(equipoise.policy.__path__))
    kinds = [kind for module in modules if isinstance(kind := getattr(module, "POLICY", None), PolicyKind)]
    return {kind.name: kind for kind in kinds}
