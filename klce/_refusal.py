"""What stops ``import klce``, in one sentence, and for the command line in one line.

The command line cannot say it itself: Python imports the package before any module of it.
"""

import os
import sys
from typing import Any, NoReturn


def refuse(error: ImportError) -> NoReturn:
    """Raise it, or end the command line."""
    if error.name == "klce":  # it has no klce._ufuncs
        error = ImportError(
            f"{os.path.dirname(__file__)}: this is the source folder of klce, without its compiled "
            "part: pip install -e . in the folder above compiles it, and an installed klce is "
            "found from any other folder"
        )
    if _of_the_command_line():
        print(f"klce: {error}", file=sys.stderr)
        sys.exit(2)
    raise error from None


def require_numpy_2() -> None:
    """Refuse an older NumPy, with which much works, but not all."""
    import numpy

    if int(numpy.__version__.partition(".")[0]) < 2:
        raise ImportError(f"klce needs NumPy 2 or newer, got {numpy.__version__}")


def end_at_interrupt() -> None:
    """Let Ctrl-C end the command line at once while it is imported; for others, do nothing.

    An exception would be lost in some imports of compiled modules, or become another one.
    """
    if _of_the_command_line():
        import signal  # which `import klce` does without

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is not ignored
            signal.signal(signal.SIGINT, _end)


def interrupt_again() -> None:
    """Let Ctrl-C be the exception again that it is for Python."""
    import signal

    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: Any) -> NoReturn:
    os.write(2, b"klce: interrupted\n")
    os._exit(128 + number)


def _of_the_command_line() -> bool:
    program = os.path.basename(sys.argv[0])
    return program == "klce" or (program == "-m" and "klce" in sys.orig_argv)
