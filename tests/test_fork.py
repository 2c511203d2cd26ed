"""A child of a process that has used the pool computes the same, and so does the parent after."""

from tests.kernels import run_script

COMMON = """
import os, sys, threading, time
import numpy as np
import klce

klce.set_num_threads(4)
x = np.random.default_rng(0).normal(size=(400, 1000)).astype(np.float32)
# Rows enough for several threads, a long row in segments, columns that are packed.
work = [lambda: klce.softmax(x), lambda: klce.logsumexp(x.reshape(1, -1)),
        lambda: klce.entropy(x, 0, form="logits"),
        lambda: klce.kl_divergence(x, x[::-1], form="logits")]
expected = [f().tobytes() for f in work]

def right():
    return all(f().tobytes() == e for f, e in zip(work, expected))

def wait(pid):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hangs"

def child(then=lambda: True):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if right() and then() and right() else 1)
    return pid
"""


def run(code):
    process = run_script(COMMON + code)
    assert process.returncode == 0, process.stdout + process.stderr


def test_children_and_grandchildren():
    run(
        """
assert right()
for _ in range(5):
    children = [child(), child(lambda: wait(child()) == 0)]
    assert right()
    assert [wait(pid) for pid in children] == [0, 0]
    assert right()
"""
    )


def test_fork_while_the_pool_is_at_work():
    run(
        """
stop = threading.Event()
def keep_busy():
    while not stop.is_set():
        right()
others = [threading.Thread(target=keep_busy) for _ in range(2)]
for other in others:
    other.start()
results = [wait(child()) for _ in range(20)]
stop.set()
for other in others:
    other.join()
assert results == [0] * 20, results
assert right()
"""
    )


def test_a_child_keeps_the_settings():
    run(
        """
def same():
    return klce.get_num_threads() == 3
with klce.threads(3):
    assert right()
    assert wait(child(same)) == 0
def change():
    klce.set_num_threads(2)
    return klce.get_num_threads() == 2
assert wait(child(change)) == 0
assert klce.get_num_threads() == 4
"""
    )


def test_multiprocessing():
    run(
        """
import multiprocessing
def one(i):
    with klce.threads(1 + i % 3):
        return right()
with multiprocessing.get_context("fork").Pool(3) as pool:
    assert all(pool.map(one, range(12)))
assert right()
"""
    )


def test_a_process_ends_while_others_compute():
    """Threads that are in a kernel, or wait for work, do not keep a process from ending."""
    run(
        """
def forever():
    while True:
        right()
for _ in range(2):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.05)
"""
    )
