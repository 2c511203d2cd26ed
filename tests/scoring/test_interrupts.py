import os
import signal
import sys
import threading

import pytest

from klce.scoring import page
from klce.scoring.interrupts import interrupts_later

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)


def test_an_interrupt_comes_behind_the_block():
    @interrupts_later()
    def work():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(True)

    handler, reached = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_error_goes_first():
    @interrupts_later()
    def work():
        os.kill(os.getpid(), signal.SIGINT)
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()


def test_other_threads_have_no_signals():
    def work():
        with interrupts_later():
            reached.append(signal.getsignal(signal.SIGINT))

    reached, handler = [], signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reached == [handler]


@pytest.mark.slow
def test_a_picture_is_drawn_before_an_interrupt():
    """matplotlib would lose it in a callback, or take it for a bad matrix."""
    drawn = []

    def draw(axes, colours):
        os.kill(os.getpid(), signal.SIGINT)
        drawn.append(axes.plot([1, 2]))

    with pytest.raises(KeyboardInterrupt):
        page.draw("title", "caption", draw)
    assert len(drawn) == 1
