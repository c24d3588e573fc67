import signal

import pytest

from mtorl.interrupts import interrupts_later


def test_an_interrupt_waits_until_the_end_of_the_block() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), interrupts_later():
        signal.raise_signal(signal.SIGINT)
        steps.append("went on")
    assert steps
    with interrupts_later():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
