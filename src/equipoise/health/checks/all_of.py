"""Check `all_of`: several checks, in order.  Passes when each of them does; the first failure is the answer.

Each has its settings and its own `timeout`; all of them together have the `timeout` of the whole.  What `all_of` says
of `port`, `source_address` and `tls` holds for each check that says nothing else.  Leaves out alternatives and nesting:
a node is well when everything that is asked is.
"""

import asyncio
from typing import Annotated, Any

from pydantic import Field, field_validator

from equipoise.config.base import CheckParams
from equipoise.config.parts import Parts
from equipoise.health.base import Check, Result, Visit

_OF_THE_WHOLE = ("interval", "rise", "fall")


class Params(CheckParams):
    """The checks."""

    checks: Annotated[Parts, Field(min_length=1, max_length=16)]
    """The checks in their order, each with `check`, its name, and its settings; all but `all_of`, and without
    `interval`, `rise` and `fall`."""

    @field_validator("checks", mode="before")
    @classmethod
    def _refuse_nesting(cls, value: Any) -> Any:
        for each in value if isinstance(value, list) else ():
            if not isinstance(each, dict):
                continue
            if each.get("check") == "all_of":
                raise ValueError("all_of within all_of; write the checks of both into one list")
            for key in _OF_THE_WHOLE:
                if key in each:
                    raise ValueError(f"{key!r} of {each.get('check')} belongs to all_of itself; move it up")
        return value


async def visit(visit: Visit, params: Params) -> Result:
    """Ask one after another, within the time of the whole."""
    ends_s = asyncio.get_running_loop().time() + visit.timeout_s
    seen = []
    for part in visit.question.parts:
        left_s = ends_s - asyncio.get_running_loop().time()
        if left_s <= 0:
            return Result.failed(f"{part.check}: not asked, {visit.timeout_s:g} s were over before; set health.timeout")
        result = await visit.ask(part, min(part.params.timeout, left_s))
        if not result.ok:
            return Result.failed(f"{part.check}: {result.reason}")
        seen.append(f"{part.check}: {result.reason}")
    return Result.passed("; ".join(seen))


CHECK = Check(name="all_of", params=Params, visit=visit)
