"""A test that hangs is ended by its timeout."""

import asyncio

import pytest


async def test_timeout_ends_a_test_that_waits_for_ever() -> None:
    def expire() -> None:
        pytest.fail("Timeout")

    asyncio.get_running_loop().call_soon(expire)
    with pytest.raises(asyncio.CancelledError, match="timeout"):
        await asyncio.Event().wait()
