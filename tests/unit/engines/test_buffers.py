from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.engines.gateway.buffers import BufferPool


def test_the_same_memory_serves_one_read_after_the_other() -> None:
    pool = BufferPool(64)
    assert pool.lend() is pool.lend()
    assert len(pool.lend()) == 64


def test_a_kept_buffer_is_not_read_into_until_it_is_given_back() -> None:
    pool = BufferPool(64)
    kept = pool.keep()
    assert pool.kept == 1
    assert pool.lend() is not kept
    pool.give_back(kept)
    assert pool.kept == 0
    pool.keep()
    assert pool.lend() is kept


def test_buffers_of_a_lost_connection_are_never_used_again() -> None:
    pool = BufferPool(64)
    lost = pool.keep()
    pool.forget(1)
    assert pool.kept == 0
    assert all(pool.keep() is not lost for _ in range(50))


def test_only_some_spare_buffers_are_held() -> None:
    pool = BufferPool(64)
    kept = [pool.keep() for _ in range(100)]
    for buffer in kept:
        pool.give_back(buffer)
    again = {id(pool.keep()) for _ in range(100)} & {id(buffer) for buffer in kept}
    assert 0 < len(again) < 50


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=100))
def test_nobody_is_lent_what_another_keeps(operations: list[bool]) -> None:
    pool, kept = BufferPool(8), list[memoryview]()
    for keeps in operations:
        if keeps:
            kept.append(pool.keep())
        elif kept:
            pool.give_back(kept.pop(0))
        assert all(pool.lend() is not buffer for buffer in kept)
        assert len({id(buffer) for buffer in kept}) == pool.kept == len(kept)
