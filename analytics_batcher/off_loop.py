"""A call that waits, made beside an event loop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


async def run(call: Callable[[], Result]) -> Result:
    """Make a call in a thread of its own, and wait for it without blocking the loop.

    Not in the loop's executor: where the application has filled that, a call with a deadline would begin long after it,
    and the loop could not be closed before a call that was given up has ended. Who gives up leaves the call to its end.

    Args:
        call: What to do.

    Returns:
        What it returns.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        if not done.done():  # it may have been given up
            setter(value)

    def work() -> None:
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = done.set_result, call()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            outcome = done.set_exception, error
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=work, name="analytics-batcher:await", daemon=True).start()
    return await done
