"""The one way in which anything is timed here: turn by turn in one process.

A turn is: a pause in which the threads of the one before stop spinning, one call untimed (it wakes
the runner's own threads and leaves the caches as it leaves them), then as many timed calls as fill
a few milliseconds. The runners take turns, in another order each round.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

PAUSE = 0.02  # seconds; OpenMP's workers spin for up to ten milliseconds
TURN = 0.01  # seconds of timed calls in a turn
LOOKS, LOOK = 5, 0.1  # calls, and seconds of them, before the first round
HOPELESS = 4  # times the fastest rival's: one that slow takes its turn in the first round only


@dataclass(frozen=True)
class Runner:
    """What takes a turn: a call, how often it does its work within it, how long it spins after."""

    run: Callable[[], object]
    repeats: int = 1
    spins: float = 0.0  # seconds that its threads may be busy after a call, for want of another


def seconds_per_call(run: Callable[[], object], calls: int) -> float:
    """Time that many calls in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def _first_look(run: Callable[[], object]) -> float:
    """Return the best of a few calls; of one, if it takes long."""
    run()  # wakes threads
    times = [seconds_per_call(run, 1)]
    while len(times) < LOOKS and sum(times) < LOOK:
        times.append(seconds_per_call(run, 1))
    return min(times)


def take_turns(
    runners: Mapping[str, Runner],
    rounds: int,
    rivals: Collection[str] = (),
    pause: float = PAUSE,
    turn: float = TURN,
) -> dict[str, list[float]]:
    """Return the seconds that each runner takes to do its work once, in each round.

    Those of the `rivals` that a first call shows to be far from the fastest of them get one round:
    their time is worth knowing, but not the minutes that it would take to know it well.
    """
    first = {}
    for name, runner in runners.items():
        runner.run()  # compiles, touches memory
        time.sleep(max(pause, runner.spins))  # of its own as well, which compiling began
        first[name] = _first_look(runner.run)
        time.sleep(runner.spins)
    fastest = min((first[name] for name in rivals), default=0.0)
    hopeless = {name for name in rivals if first[name] > HOPELESS * fastest}
    calls = {name: max(1, round(turn / value)) for name, value in first.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    order = list(runners)
    shuffle = random.Random(0).shuffle
    enabled = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            shuffle(order)
            for name in order:
                if number > 0 and name in hopeless:
                    continue
                runner = runners[name]
                time.sleep(pause)
                runner.run()
                seconds[name].append(seconds_per_call(runner.run, calls[name]) / runner.repeats)
                time.sleep(runner.spins)
    finally:
        if enabled:
            gc.enable()
    return seconds
