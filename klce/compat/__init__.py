"""Stand-ins for the functions of SciPy, torch and scikit-learn that klce covers.

``from klce.compat.scipy import logsumexp`` in the place of ``from scipy.special import logsumexp``,
and likewise :mod:`klce.compat.torch` and :mod:`klce.compat.sklearn`: the peer's names, defaults,
shapes, result dtypes, warnings and edge cases, on klce's kernels.  No module here imports its peer.
What differs from the peers, on purpose, stands in ``docs/compat.md``.
"""
