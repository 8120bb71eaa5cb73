"""Run tests that failed beside others once more, alone: `python -m tools.second_look CACHE...`.

Whole processes that watch each other's silence share two cores with hundreds of tests, and now and then one of them
loses to a machine that stood still.  What fails twice fails; so does what lost data, or a change that broke several.
Source: docs/adr/0015-a-second-look.md.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

MOST = 3  # a busy machine fails one or two; more have a cause in common
LOSSES = ("fault_run", "soak")  # in names of files: what was lost is lost, whatever the next run says


def failed(caches: Iterable[Path]) -> list[str]:
    """Return the tests that failed in the runs that kept these caches of pytest."""
    files = [cache / "v/cache/lastfailed" for cache in caches]
    return sorted(test for file in files if file.exists() for test in json.loads(file.read_text()))


def refusal(tests: Sequence[str]) -> str | None:
    """Return why these are not looked at again; None where they are."""
    if not tests:
        return "no test failed: what went wrong stands above"
    if len(tests) > MOST:
        return f"{len(tests)} tests failed, more than {MOST}"
    lost = [test for test in tests if any(word in test.partition("::")[0] for word in LOSSES)]
    return f"nothing may be lost even once: {', '.join(lost)}" if lost else None


def main(arguments: Sequence[str]) -> int:
    """Look again; return 0 where all tests passed this time."""
    tests = failed(map(Path, arguments))
    if (why := refusal(tests)) is not None:
        _say(f"not run once more: {why}")
        return 1
    _say("run once more, alone:", *tests)
    code = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests], check=False).returncode
    if code == 0:
        _say("FAILED BESIDE OTHERS, PASSED ALONE; why stands above, and somebody should look into it:", *tests)
    return code


def _say(headline: str, *tests: str) -> None:
    print(f"second look: {headline}", *(f"  {test}" for test in tests), sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
