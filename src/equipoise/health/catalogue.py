"""The checks there are: one file each in `checks`, found and not listed."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import equipoise.health.checks
from equipoise.health.base import Check


@cache
def checks() -> Mapping[str, Check]:
    """Return every check by its name: a module of that folder that has a `CHECK`."""
    found = iter_modules(equipoise.health.checks.__path__)
    modules = (import_module(f"equipoise.health.checks.{module.name}") for module in found)
    kinds = [kind for module in modules if isinstance(kind := getattr(module, "CHECK", None), Check)]
    return {kind.name: kind for kind in kinds}
