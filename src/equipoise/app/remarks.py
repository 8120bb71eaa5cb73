"""What somebody should know who applies a document that is taken: a line each, at its place."""

import asyncio
from collections.abc import Iterator

from equipoise.app.certificates import ended
from equipoise.app.inputs import Inputs
from equipoise.app.unresolved import unresolved
from equipoise.plan.compile_cluster import overruled
from equipoise.plan.model import Plan


async def remarks(inputs: Inputs, plan: Plan, now_s: float) -> tuple[str, ...]:
    """Return nodes without an address, keys that are not followed, and certificates that have ended by now."""
    old = await asyncio.to_thread(ended, inputs.document, inputs.facts.files.keys(), now_s)
    return (*unresolved(inputs, plan), *_overruled(inputs), *(str(each.problem) for each in old))


def _overruled(inputs: Inputs) -> Iterator[str]:
    for key, (written, here) in overruled(inputs.document.site, inputs.facts).items():
        said = (
            f"{written!r} is not followed: cluster/here.yaml in the state directory of this machine says {here!r}; "
            "take the key out of the document, which both machines have"
        )
        yield str(inputs.document.problem(said, "cluster", key))
