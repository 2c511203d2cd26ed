"""The command line: ``klce`` and ``python -m klce``."""

import signal
import sys
from typing import Any, NoReturn

from klce._refusal import interrupt_again


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    stopped_by = [signal.SIGINT]

    def terminate(number: int, frame: Any) -> NoReturn:  # as Ctrl-C does, but for the status
        stopped_by[:] = [signal.SIGTERM]
        raise KeyboardInterrupt

    try:
        from klce.cli import app

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
