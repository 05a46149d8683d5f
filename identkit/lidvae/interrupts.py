"""Ctrl-C between two steps, never within one: what a checkpoint keeps is then a state that training has been in."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def held() -> Iterator[Callable[[], None]]:
    """Hold back the first Ctrl-C until the function that is given is called; a second one is not held.

    The process' handler is put back afterwards. In a thread of its own, where Python has no signals, nothing is held.

    >>> with held() as breathe:
    ...     breathe()  # here Ctrl-C would take effect
    """
    before: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: None
        return
    asked: list[int] = []

    def hold(number: int, frame: Any) -> None:
        asked.append(number)
        if len(asked) > 1:
            before(number, frame)

    def breathe() -> None:
        if asked:
            before(asked[0], None)
            raise KeyboardInterrupt  # whatever the handler did, the user wants to stop

    signal.signal(signal.SIGINT, hold)
    try:
        yield breathe
    finally:
        signal.signal(signal.SIGINT, before)
