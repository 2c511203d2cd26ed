"""The command line: ``klce`` and ``python -m klce``."""

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from klce._refusal import interrupt_again

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main() -> None:
    """Run the command line, or say how to install what it needs.

    Raises
    ------
    SystemExit
        With the status of the command: 2 after an error, 130 after Ctrl-C, 143 after SIGTERM.
    """
    stopped_by = [signal.SIGINT]

    def terminate(number: int, frame: Any) -> NoReturn:  # as Ctrl-C does, but for the status
        stopped_by[:] = [signal.SIGTERM]
        raise KeyboardInterrupt

    def interrupt_once_more(lost: "UnraisableHookArgs") -> None:
        # Python drops what is raised in, say, the callback of a weak reference, and in here, too.
        if issubclass(lost.exc_type, KeyboardInterrupt):
            again = threading.Timer(0.01, os.kill, (os.getpid(), stopped_by[0]))
            again.daemon = True
            again.start()
        else:
            sys.__unraisablehook__(lost)

    if sys.stderr is None:  # closed; whom messages are for will not read them
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        from klce.cli import app

        sys.unraisablehook = interrupt_once_more
        signal.signal(signal.SIGTERM, terminate)
        interrupt_again()
        app(prog_name="klce")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("click", "rich"):
            raise
        print(f"klce: the command line needs {package}: pip install 'klce[cli]'", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("klce: interrupted", file=sys.stderr)
        sys.exit(128 + stopped_by[0])
    except SystemExit as end:
        sys.exit(128 + stopped_by[0] if end.code == 128 + signal.SIGINT else end.code)


if __name__ == "__main__":
    main()
