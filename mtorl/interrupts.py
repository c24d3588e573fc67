"""Ctrl-C at a moment that suits."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Lets Ctrl-C wait until the end of the block: for imports that would turn it into an ImportError."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            signal.raise_signal(signal.SIGINT)


class StopRequest:
    """Turns the first Ctrl-C into a request that is honoured where it suits; the second one is immediate."""

    def __init__(self) -> None:
        self.requested = self._immediate = False
        self._previous: Any = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or self._immediate:
            raise KeyboardInterrupt
        self.requested = True

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Inside the block already the first Ctrl-C interrupts: for long work that can simply be done again."""
        if self.requested:  # while the checkpoint before it was being saved
            raise KeyboardInterrupt
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
