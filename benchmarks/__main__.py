"""Run the race and print its table: ``python -m benchmarks --help``."""

from benchmarks.table import main

if __name__ == "__main__":
    main()
