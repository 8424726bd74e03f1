"""Signals that wait for the end of a step, so that what is saved is never half a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn


@dataclass
class Interruption:
    """Which signal came, if any."""

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def deferred_signals() -> Iterator[Interruption]:
    """Take note of SIGINT and SIGTERM instead of stopping at once; a second one stops.

    The body looks at what is yielded between its steps. Only the main thread can do this;
    elsewhere nothing changes. On the way out the signals mean again what they did.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        if interruption:
            restore()
            signal.raise_signal(number)
        interruption.signal_number = number

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        # Ignored on purpose (nohup-like), or set by something that is not Python: leave it.
        if handler is not None and handler is not signal.SIG_IGN:
            before[number] = handler
            signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()


def stop_for(signal_number: int) -> NoReturn:
    """Do what the signal does when nobody waits for it: call its handler or end the process."""
    signal.raise_signal(signal_number)
    raise SystemExit(128 + signal_number)
