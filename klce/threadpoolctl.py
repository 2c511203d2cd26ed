"""A controller for `threadpoolctl <https://github.com/joblib/threadpoolctl>`_: import to register.

From then on ``threadpoolctl.threadpool_info()`` lists klce's pool, and ``threadpool_limits(n)``
limits it with the pools of BLAS and OpenMP.  A limit holds for the whole process, as with
:func:`klce.set_num_threads`; a block of :class:`klce.threads` stands above it.

Examples
--------
>>> import klce, klce.threadpoolctl, threadpoolctl
>>> with threadpoolctl.threadpool_limits(1, user_api="klce"):
...     klce.get_num_threads()
1
"""

from __future__ import annotations

import threadpoolctl

from klce import __version__, _ufuncs

__all__ = ["KlceController"]


class KlceController(threadpoolctl.LibController):
    """What threadpoolctl asks of a thread pool; it makes one for each pool that it finds.

    Examples
    --------
    >>> import klce, klce.threadpoolctl, threadpoolctl
    >>> (pool,) = threadpoolctl.ThreadpoolController().select(user_api="klce").lib_controllers
    >>> pool.num_threads == klce.get_num_threads(), pool.version == klce.__version__
    (True, True)
    """

    user_api = "klce"
    internal_api = "klce"
    # Other packages have a _ufuncs too: it is klce's if it has the symbol.
    filename_prefixes = ("_ufuncs",)
    check_symbols = ("klce_get_num_threads",)

    def get_num_threads(self) -> int:
        """Return the largest number of threads that a call uses.

        Returns
        -------
        int
            As :func:`klce.get_num_threads`.
        """
        return _ufuncs.get_num_threads()

    def set_num_threads(self, num_threads: int) -> None:
        """Set the largest number of threads that a call uses, for the whole process.

        Parameters
        ----------
        num_threads : int
            From 1 to ``klce.config.MAX_THREADS``.
        """
        _ufuncs.set_num_threads(num_threads)

    def get_version(self) -> str:
        """Return klce's version.

        Returns
        -------
        str
            As ``klce.__version__``.
        """
        return __version__

    def set_additional_attributes(self) -> None:
        """Tell the instruction set in use."""
        self.isa = _ufuncs.active_isa()


threadpoolctl.register(KlceController)
