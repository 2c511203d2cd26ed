"""What can be wrong with what a user hands in: one sentence each, naming the file."""


class InputError(ValueError):
    """A file or an option that cannot be scored."""


class LabelError(InputError, IndexError):
    """A label that names no class (an IndexError too, as everywhere in klce)."""
