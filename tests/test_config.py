"""Instruction sets, threads and the environment variables that set them."""

import os
import threading
from pathlib import Path

import pytest

import klce
from klce import _ufuncs, config
from tests.kernels import ISAS, run_script


@pytest.fixture(autouse=True)
def number_of_threads():
    before = klce.get_num_threads()
    yield before
    klce.set_num_threads(before)


def imported(print_what="klce.get_config()", **environment):
    """What a new process prints after importing klce; its last line of error if it fails."""
    process = run_script(f"import klce; print({print_what})", **environment)
    if process.returncode:
        return process.stderr.splitlines()[-1]
    return process.stdout.strip()


# --- the environment ------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
def test_an_instruction_set_is_forced(isa):
    assert imported("klce.get_config()['isa']", KLCE_ISA=isa) == isa


def test_the_best_instruction_set_is_the_default():
    assert imported("klce.get_config()['isa']") == ISAS[-1]
    assert imported("klce.get_config()['isa']", KLCE_ISA="") == ISAS[-1]


@pytest.mark.parametrize("name", ["sse9", "AVX2", " "])
def test_an_unknown_instruction_set_stops_the_import(name):
    error = imported(KLCE_ISA=name)
    assert error == (
        f"ImportError: KLCE_ISA: name must be one of {', '.join(_ufuncs.ISAS)}, got {name!r}"
    )


def test_an_instruction_set_that_the_machine_lacks_stops_the_import():
    lacking = set(_ufuncs.ISAS) - set(ISAS)
    if not lacking:
        pytest.skip("this machine has every instruction set")
    for isa in lacking:
        error = imported(KLCE_ISA=isa)
        assert error == (
            "ImportError: KLCE_ISA: name must be one that this machine supports "
            f"({', '.join(ISAS)}), got {isa!r}"
        )


@pytest.mark.parametrize("count", ["1", "3", "256", " 2 "])
def test_the_number_of_threads_is_set(count):
    assert int(imported("klce.get_num_threads()", KLCE_NUM_THREADS=count)) == int(count)


@pytest.mark.parametrize("count", ["0", "-1", "4097", "two", "1.5", " ", "9" * 30])
def test_a_wrong_number_of_threads_stops_the_import(count):
    assert imported(KLCE_NUM_THREADS=count) == (
        f"ImportError: KLCE_NUM_THREADS must be an integer from 1 to 256, got {count!r}"
    )


def test_the_affinity_bounds_the_number_of_threads():
    one = min(os.sched_getaffinity(0))
    config = "klce.get_config()['cpus'], klce.get_num_threads()"
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); import klce; print({config})"
    assert run_script(code).stdout == "1 1\n"
    assert run_script(code, KLCE_NUM_THREADS="5").stdout == "1 5\n"


# --- what it says ---------------------------------------------------------------------------------


def test_get_config():
    config = klce.get_config()
    assert set(config) == {"version", "compiler", "isas_available", "isa", "threads", "cpus"}
    assert config["version"] == klce.__version__
    assert config["isas_available"] == ISAS
    assert config["isas_available"][0] == "baseline"
    assert config["isa"] in config["isas_available"]
    assert config["threads"] == klce.get_num_threads()
    assert 1 <= config["cpus"] <= os.cpu_count()
    assert config["compiler"].split()[0] in ("gcc", "clang", "msvc")


def test_show_config(capsys):
    klce.show_config()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(klce.get_config())
    assert klce.__version__ in lines[0]
    assert " ".join(ISAS) in lines[2]


def test_select_isa():
    before = _ufuncs.active_isa()
    for isa in ISAS:
        _ufuncs.select_isa(isa)
        assert _ufuncs.active_isa() == isa
    with pytest.raises(ValueError, match=r"name must be one of .*, got 'mmx'$"):
        _ufuncs.select_isa("mmx")
    # An error changes nothing.
    assert _ufuncs.active_isa() == ISAS[-1]
    _ufuncs.select_isa(before)


# --- threads --------------------------------------------------------------------------------------


def in_another_thread(function):
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


def test_the_number_is_global():
    klce.set_num_threads(3)
    assert klce.get_num_threads() == 3
    assert in_another_thread(klce.get_num_threads) == 3
    in_another_thread(lambda: klce.set_num_threads(5))
    assert klce.get_num_threads() == klce.get_config()["threads"] == 5


def test_a_block_is_of_its_thread():
    klce.set_num_threads(2)
    with klce.threads(7):
        assert klce.get_num_threads() == 7
        assert in_another_thread(klce.get_num_threads) == 2
        klce.set_num_threads(3)
        assert klce.get_num_threads() == 7
        assert in_another_thread(klce.get_num_threads) == 3
    assert klce.get_num_threads() == 3


def test_blocks_nest_and_end_with_an_error(number_of_threads):
    block = klce.threads(2)
    with klce.threads(5) as outer, block:
        assert isinstance(outer, klce.threads)
        with klce.threads(1):
            # The same one again, within itself.
            with block:
                assert klce.get_num_threads() == 2
            assert klce.get_num_threads() == 1
        assert klce.get_num_threads() == 2
    assert klce.get_num_threads() == number_of_threads
    with pytest.raises(ZeroDivisionError), klce.threads(3):
        raise ZeroDivisionError
    assert klce.get_num_threads() == number_of_threads


def test_one_block_in_two_threads():
    """Each goes back to what it had itself."""
    klce.set_num_threads(5)
    block, entered, left = klce.threads(2), threading.Event(), threading.Event()
    found = []

    def first():
        with block:
            entered.set()
            left.wait()
        found.append(klce.get_num_threads())

    other = threading.Thread(target=first)
    other.start()
    entered.wait()
    with klce.threads(3):
        with block:
            left.set()
            other.join()
        found.append(klce.get_num_threads())
    assert found == [5, 3]


def test_the_most_threads_are_those_of_the_pool():
    header = (Path(__file__).parents[1] / "src_c" / "cpus.h").read_text()
    assert f"#define KLCE_MAX_THREADS {config.MAX_THREADS}\n" in header
    klce.set_num_threads(config.MAX_THREADS)
    assert klce.get_num_threads() == config.MAX_THREADS


@pytest.mark.parametrize("set_threads", [klce.set_num_threads, klce.threads])
def test_wrong_numbers_of_threads(set_threads, number_of_threads):
    for wrong in (0, -1, 257, 4097, 10**30):
        with pytest.raises(ValueError, match=rf"^n must be from 1 to 256, got {wrong}$"):
            set_threads(wrong)
    for wrong in (2.0, "2", None, True):
        with pytest.raises(TypeError, match=rf"^n must be an integer, got {wrong!r}$"):
            set_threads(wrong)
    assert klce.get_num_threads() == number_of_threads
