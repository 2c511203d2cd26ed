"""What stops ``import klce``, in one sentence, and for the command line in one line.

The command line cannot say it itself: Python imports the package before any module of it.
"""

import os
import sys
from typing import NoReturn


def refuse(error: ImportError) -> NoReturn:
    """Raise it, or end the command line."""
    if error.name == "klce":  # it has no klce._ufuncs
        error = ImportError(
            f"{os.path.dirname(__file__)}: this is the source folder of klce, without its compiled "
            "part: pip install -e . in the folder above compiles it, and an installed klce is "
            "found from any other folder"
        )
    program = os.path.basename(sys.argv[0])
    if program == "klce" or (program == "-m" and "klce" in sys.orig_argv):
        print(f"klce: {error}", file=sys.stderr)
        sys.exit(2)
    raise error from None
