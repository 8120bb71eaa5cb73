"""Conversations in a hurry: what is done twice a second is done many times, so that tests need not wait."""

import pytest

from equipoise.api import peer_entrance
from equipoise.app.pair import connection, joining, moving, talking


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_entrance, "_SHUTDOWN_S", 0.05)
    monkeypatch.setattr(connection, "_SERVE_EVERY_S", 0.1)
    monkeypatch.setattr(talking, "_AFTER_REFUSAL_S", 0.3)
    monkeypatch.setattr(talking, "_GREET_EVERY_S", 0.05)
    monkeypatch.setattr(talking, "_PUSH_EVERY_S", 0.02)
    monkeypatch.setattr(moving, "_JUDGE_EVERY_S", 0.03)
    monkeypatch.setattr(joining, "_AFTER_ANSWER_S", 0.05)
    monkeypatch.setattr(joining, "_LOOK_EVERY_S", 0.02)
