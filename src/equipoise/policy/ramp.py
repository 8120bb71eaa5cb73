"""Slow start: how much of its weight a node has that began to take work a while ago.  Pure."""

_FIRST_SHARE = 0.1  # of its weight, at the start: enough to warm up, little enough to fail


def ramped(weight: float, passed_s: float, slow_start_s: float) -> float:
    """Return the weight of a node that takes work since `passed_s`; all of it from `slow_start_s` on."""
    if passed_s >= slow_start_s:
        return weight
    return weight * (_FIRST_SHARE + (1 - _FIRST_SHARE) * max(passed_s, 0.0) / slow_start_s)
