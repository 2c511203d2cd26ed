"""The command line: ``klce`` and ``python -m klce``."""

import sys


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    try:
        from klce.cli import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("click", "rich", "typer"):
            raise
        print(f"klce: the command line needs {package}: pip install 'klce[cli]'", file=sys.stderr)
        sys.exit(2)
    app(prog_name="klce")


if __name__ == "__main__":
    main()
