"""Statistics of rows: all that scoring or comparing models needs of a row, in one call."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from klce import _arrays, _axes, _blocks, _call, _ufuncs, _validate
from klce._validate import in_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from klce._typing import Array, ArrayLike, Form, Labels

__all__ = ["RowTable", "compare", "compare_top_k", "score"]


#: The statistics without ``want=``; those of a target where there is one.
_DEFAULT = {
    "score": ("logsumexp", "entropy", "argmax", *_ufuncs.OF_TARGET["score"]),
    "compare": (
        "kl_divergence", "entropy_p", "entropy_q", "same_argmax",
        "target_log_prob_change", "target_prob_change",
    ),
}  # fmt: skip


class RowTable(Mapping[str, "Array"]):
    """Named arrays, one value (or several) for each row; a mapping, and its names attributes too.

    Parameters
    ----------
    columns : mapping of str to ndarray
        Of the rows' shape; those with several values a row have one axis more, the last.
    shape : tuple of int
        The rows' shape.

    Notes
    -----
    Two tables are equal if they have the same names, rows and values, nan being equal to nan.

    Examples
    --------
    >>> import klce
    >>> table = klce.score([[2.0, 1.0], [0.0, 3.0]], want=["argmax", "margin"])
    >>> list(table), table["argmax"], table.margin
    (['margin', 'argmax'], array([0, 1]), array([1., 3.]))
    >>> table.to_structured()
    array([(1., 0), (3., 1)], dtype=[('margin', '<f8'), ('argmax', '<i8')])
    """

    def __init__(self, columns: Mapping[str, Array], shape: tuple[int, ...]) -> None:
        self._columns = dict(columns)
        #: The rows' shape.
        self.shape = shape

    def __getitem__(self, name: str) -> Array:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __eq__(self, other: object) -> bool:
        # A mapping's own asks arrays for their truth.
        if not isinstance(other, RowTable):
            return NotImplemented
        return (
            self.shape == other.shape
            and self.keys() == other.keys()
            and all(np.array_equal(a, other[name], equal_nan=True) for name, a in self.items())
        )

    def __getattr__(self, name: str) -> Array:
        columns: dict[str, Array] = self.__dict__.get("_columns", {})
        if name in columns:
            return columns[name]
        raise AttributeError(f"the table has no column {name!r}, it has {', '.join(columns)}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._columns]

    def __repr__(self) -> str:
        kinds = ", ".join(f"{name}: {a.dtype}{[*a.shape]}" for name, a in self.items())
        return f"RowTable({kinds})"

    def to_structured(self) -> Array:
        """Return one structured array of the rows' shape, with a field for each column.

        Returns
        -------
        ndarray
            Of the rows' shape; a field of several values a row is a subarray.

        Examples
        --------
        >>> import klce
        >>> klce.score([[2.0, 1.0], [0.0, 3.0]], want=["argmax"]).to_structured()
        array([(0,), (1,)], dtype=[('argmax', '<i8')])
        """
        fields = [(k, a.dtype, a.shape[len(self.shape) :]) for k, a in self.items()]
        table = np.empty(self.shape, np.dtype(fields))
        for name, column in self.items():
            table[name] = column
        return table

    def to_arrow(self) -> Any:
        """Return the columns as a table of Arrow.

        Returns
        -------
        pyarrow.Table
            Rows in C order, several values a row as a fixed-size list.

        Raises
        ------
        ImportError
            Where pyarrow is not installed.

        Examples
        --------
        >>> import klce
        >>> klce.score([[2.0, 1.0], [0.0, 3.0]], want=["argmax"]).to_arrow().to_pydict()
        {'argmax': [0, 1]}
        """
        from klce._columns import arrow_array  # which `import klce` does without

        arrow = _optional("pyarrow", "to_arrow")
        arrays = {name: arrow_array(arrow, column) for name, column in self._flat()}
        if not arrays:  # rows without columns are a choice of none of some
            return arrow.table({"": arrow.nulls(self._rows())}).select([])
        return arrow.table(arrays)

    def to_pandas(self) -> Any:
        """Return the columns as a data frame of pandas.

        Returns
        -------
        pandas.DataFrame
            Rows in C order, several values a row as a column each, which are named ``top_ids_0``,
            ``top_ids_1`` and so on.

        Raises
        ------
        ImportError
            Where pandas is not installed.

        Examples
        --------
        >>> import klce
        >>> frame = klce.score([[2.0, 1.0, 0.0]], want=["argmax"], top_k=2).to_pandas()
        >>> list(frame), len(frame)
        (['argmax', 'top_ids_0', 'top_ids_1', 'top_log_probs_0', 'top_log_probs_1'], 1)
        """
        from klce._columns import one_each

        pandas = _optional("pandas", "to_pandas")
        return pandas.DataFrame(one_each(self._flat()), index=range(self._rows()))

    def _rows(self) -> int:
        return int(np.prod(self.shape))

    def _flat(self) -> Iterator[tuple[str, Array]]:
        rows = self._rows()
        for name, column in self.items():
            yield name, column.reshape(rows, *column.shape[len(self.shape) :])


def _optional(package: str, method: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ImportError(f"{method} needs {package}, which is not installed") from None


def score(
    logits: ArrayLike,
    target: ArrayLike | None = None,
    *,
    axis: int = -1,
    want: Iterable[str] | None = None,
    top_k: int = 0,
    candidates: ArrayLike | None = None,
    form: Form = "logits",
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    ignore_index: int = -100,
) -> RowTable:
    r"""Statistics of each row of logits.

    Parameters
    ----------
    logits : array_like
        Distributions in the given `form`, of any floating-point dtype up to float64; integers and
        bool become float64.
    target : array_like of int, optional
        A class index for each row: of the rows' shape, that of `logits` without `axis`.
    axis : int, default -1
        The axis of the classes.
    want : iterable of str, optional
        The statistics to compute, see below; nothing else is.  Without it ``logsumexp``,
        ``entropy`` and ``argmax``, and with a target ``nll``, ``target_log_prob``,
        ``target_prob``, ``rank`` and ``greedy_match`` too.
    top_k : int, default 0
        How many of the largest classes to give, as ``top_ids`` and ``top_log_probs``: at most the
        number of classes, and 1024.
    candidates : array_like of int, optional
        Classes whose log-probabilities to give, as ``candidate_log_probs``: one-dimensional, for
        all rows, or of the rows' shape and one axis more, the last.
    form : {"logits", "log_probs", "probs"}
        What `logits` holds.  Log-probabilities and probabilities are distributions up to scale.
    temperature : float, default 1.0
        Divides the logits (logits only); from 1e-6 to 1e6.
    where : array_like of bool, optional
        Classes that count; it broadcasts to `logits`.  Others have probability 0.  With length one
        on `axis`, as ``keep[:, None]`` has on the last, or too few dimensions to reach it, it is a
        mask of rows: the others have no classes and no target, whatever their label.
    ignore_index : int, default -100
        Rows with this label have no target.

    Returns
    -------
    RowTable
        A mapping of names to arrays of the rows' shape, in this order, with
        :math:`p = \mathrm{softmax}(x/T)`:

        ``nll``
            :math:`-\log p_y` of the target y, in nats; 0 for a row without one.
        ``target_log_prob``, ``target_prob``
            :math:`\log p_y` and :math:`p_y`; nan for a row without a target.
        ``max_log_prob``
            :math:`\max_i \log p_i`.
        ``margin``
            How far the largest log-probability is ahead of the second: 0 for a tie, +inf for a row
            whose second is impossible.
        ``logsumexp``
            :math:`\log \sum_i e^{x_i/T}`.
        ``entropy``, ``varentropy``
            The mean and the variance of :math:`-\log p` under p, in nats and their square.
        ``rank``
            How many logits are not less than the target's, so 1 is the best, and classes that tie
            with the target count against it; 0 for a row without a target, and where the target's
            logit is nan.
        ``argmax``
            The first index of the largest, or of a nan; -1 for no classes.
        ``greedy_match``
            Whether that is the target (bool).
        ``candidate_log_probs``
            One axis more: :math:`\log p` of each candidate.
        ``top_ids``, ``top_log_probs``
            One axis more: the largest classes and their log-probabilities, best first; of equal
            ones the lower index first.  Nan is never among them: what is missing then is -1.

        Numbers are float64 where `logits` is float64, an integer or bool, else float32; indices are
        int64.

    Raises
    ------
    IndexError
        For a label or candidate out of range, with its value and row.
    TypeError, ValueError
        For a wrong dtype, shape, axis or option, and a name that is no statistic.

    See Also
    --------
    compare : pairs of rows.
    cross_entropy : the loss alone, reduced and with weights.
    klce.scoring.score_file : the same of files of any size.

    Notes
    -----
    Rows up to the size of the cache are read from memory once, whatever is asked for.  A row that
    holds nan or +inf, or only -inf, is no distribution: its probabilities are nan (its logsumexp is
    what `logsumexp` gives).  What is an integer or a bool still comes from comparing its logits:
    the argmax is the first nan if there is one, and no rank counts a nan, so that a target which is
    that nan has the rank 0 and ``greedy_match`` True.  Such rows are known by an ``nll`` of nan.

    Probabilities go through their logarithm, in float64 and block by block, where float64 ones that
    differ by a rounding error may tie.

    Of logits, ``nll``, ``max_log_prob`` and ``logsumexp`` are within 4 units in the last place in
    float32 and 5 in float64, ``target_prob`` within 4 and 6, ``entropy`` within 5, ``varentropy``
    within 12 and 16 units of the root of itself times the mean of :math:`(\log \max p - \log p)^2`.
    Where rows of more than 256 float32 (128 float64) classes are led by a few, and roundings of
    hundreds of others fall alike, it is 16, for the entropy 12 and for varentropy 50.

    The rank is that of vLLM; varentropy is that of Kontoyiannis and Verdu, "Optimal lossless data
    compression: non-asymptotics and asymptotics", 2014.

    Examples
    --------
    >>> import numpy as np, klce
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 3.0]])
    >>> table = klce.score(logits, [1, 2], want=["nll", "rank", "greedy_match"], top_k=2)
    >>> table.nll.round(4), table.rank, table.greedy_match
    (array([1.4076, 0.7177]), array([2, 2]), array([False, False]))
    >>> table.top_ids
    array([[0, 1],
           [1, 2]])
    """
    rows = _Rows((logits,), ("logits",), axis, form, temperature, where)
    names = _wanted("score", want, target is not None)
    size = _top_size(top_k, rows.classes)
    label, ignored = rows.labels(target, ignore_index)
    chosen = _candidates(candidates, rows.shape, rows.classes)
    ids = np.empty((*rows.shape, size), np.int64)
    log_probs = np.empty((*rows.shape, size), rows.dtype)
    given = np.empty((*rows.shape, chosen.shape[-1]), rows.dtype)
    columns = rows.run("score", names, (label, ignored), (), (chosen,), (given, ids, log_probs))
    if candidates is not None:
        columns["candidate_log_probs"] = given
    if size:
        columns |= {"top_ids": ids, "top_log_probs": log_probs}
    return RowTable(columns, rows.shape)


def compare(
    p: ArrayLike,
    q: ArrayLike,
    target: ArrayLike | None = None,
    *,
    axis: int = -1,
    want: Iterable[str] | None = None,
    top_k: int = 0,
    form: Form = "logits",
    temperature: float = 1.0,
    where: ArrayLike | None = None,
    ignore_index: int = -100,
) -> RowTable:
    r"""Statistics of each pair of rows, one of a model and one of another.

    Parameters
    ----------
    p, q : array_like
        Distributions in the given `form`, as `score` takes them: p is the one that q is held
        against.  Their shapes are broadcast against each other, but for the classes, of which both
        have the same number.
    target : array_like of int, optional
        A class index for each row: of the rows' shape, that of both without `axis`.
    axis : int, default -1
        The axis of the classes, of both the same counted from the end: one that is not negative
        counts in each array's own shape.
    want : iterable of str, optional
        The statistics to compute, see below; nothing else is.  Without it ``kl_divergence``,
        ``entropy_p``, ``entropy_q`` and ``same_argmax``, and with a target both changes.
    top_k : int, default 0
        How many of the largest classes of each to compare, as ``top_overlap``: at most the number
        of classes, and 1024.
    form : {"logits", "log_probs", "probs"}
        What `p` and `q` hold.  Log-probabilities and probabilities are distributions up to scale.
    temperature : float, default 1.0
        Divides both logits (logits only); from 1e-6 to 1e6.
    where : array_like of bool, optional
        Classes that count, or a mask of rows, as `score` takes it; broadcasts to the shape of both.
    ignore_index : int, default -100
        Rows with this label have no target.

    Returns
    -------
    RowTable
        A mapping of names to arrays of the rows' shape, in this order:

        ``kl_divergence``, ``reverse_kl_divergence``
            KL(p || q) and KL(q || p), in nats; +inf where a class of the first is impossible to the
            second.
        ``js_divergence``
            The mean of the divergences of p and q from their mean; up to log 2.
        ``total_variation``
            :math:`\frac12 \sum_i |p_i - q_i|`.
        ``cross_entropy``, ``reverse_cross_entropy``
            H(p, q) = H(p) + KL(p || q), and the same of q and p.
        ``entropy_p``, ``entropy_q``
            H(p) and H(q).
        ``expected_agreement``
            :math:`\sum_i p_i q_i`: how often samples of both are the same.
        ``target_log_prob_change``, ``target_prob_change``
            :math:`\log q_y - \log p_y` and :math:`q_y - p_y`; nan for a row without a target (the
            first also where both are 0).
        ``nll_p``, ``nll_q``
            :math:`-\log p_y` and :math:`-\log q_y`, in nats; 0 for a row without a target.
        ``max_log_prob_p``, ``max_log_prob_q``
            :math:`\max_i \log p_i` and :math:`\max_i \log q_i`.
        ``same_argmax``
            Whether both have the first maximum at the same class (bool).
        ``top_overlap``
            How many classes are in the top k of both; of equal ones the lower index comes first.
        ``argmax_p``, ``argmax_q``
            The first index of the largest of each, or of a nan; -1 for no classes.
        ``greedy_match_p``, ``greedy_match_q``
            Whether that is the target (bool).

        Numbers are float64 where p or q is float64, an integer or bool, else float32; the overlap
        and indices are int64.

    Raises
    ------
    IndexError
        For a label out of range, with its value and row.
    TypeError, ValueError
        For a wrong dtype, shape, axis or option, and a name that is no statistic.

    See Also
    --------
    score : single rows.
    kl_divergence, js_divergence : one divergence, reduced and in other forms.
    compare_top_k : where only the most likely classes of `p` are known.
    klce.scoring.compare_file : the same of files of any size.

    Notes
    -----
    Pairs of rows that fit into the cache are read from memory once, whatever is asked for, as with
    `score`.  What takes further sums goes over the cached rows again.

    What ends in ``_p`` or ``_q`` is of that row alone, as `score` has it.  All else comes from
    :math:`d = \log q - \log p`, in terms that are never negative and small where the two are near,
    so a divergence of 1e-12 keeps its digits (see `kl_divergence`); the total variation and the
    changes are good to the last place of the logits, their size.  What else is asked for decides by
    which sums numbers are found, and may change their last bit.  Probabilities go through their
    logarithm, in float64 and block by block: a divergence of float64 ones is good to the square
    root of itself times 1e-15.  What relates a row that is no distribution to another one is nan;
    what is of one row alone does not depend on the other, and ``same_argmax`` and ``top_overlap``
    come from comparing logits.

    Relative errors of the divergences of logits are within 2e-6 in float32 and 1e-13 in float64,
    down to 1e-12.  Entropies are within 5 units in the last place, ``nll_p``, ``nll_q`` and both
    largest log-probabilities within 4 in float32 and 8 in float64.  Where roundings fall alike, as
    `score` tells, it is 1e-5 in float32 for divergences, 12 for entropies and 16 for the others.

    The sources of the divergences are those of `kl_divergence` and `js_divergence`.  1 less the
    total variation is how often speculative decoding keeps what q drafts for p (Leviathan, Kalman
    and Matias, "Fast inference from transformers via speculative decoding", 2023).

    Examples
    --------
    >>> import numpy as np, klce
    >>> p, q = np.array([[2.0, 1.0, 0.0]]), np.array([[2.0, 1.5, 0.0]])
    >>> table = klce.compare(p, q, [0], top_k=2)
    >>> table.kl_divergence.round(5), table.target_prob_change.round(4), table.top_overlap
    (array([0.02499]), array([-0.0911]), array([2]))
    """
    rows = _Rows((p, q), ("p", "q"), axis, form, temperature, where)
    names = _wanted("compare", want, target is not None)
    size = _top_size(top_k, rows.classes)
    if "top_overlap" in names and not size:
        raise ValueError("want must not name 'top_overlap' without top_k")
    if size:
        names.add("top_overlap")
    label, ignored = rows.labels(target, ignore_index)
    columns = rows.run("compare", names, (label, ignored), (size,), (), ())
    return RowTable(columns, rows.shape)


def compare_top_k(
    p_ids: ArrayLike,
    p_log_probs: ArrayLike,
    q: ArrayLike,
    *,
    axis: int = -1,
    temperature: float = 1.0,
) -> RowTable:
    r"""Divergence of full logits from truncated distributions, such as servers return.

    Parameters
    ----------
    p_ids : array_like of int
        The classes that are known of p, each once: of the rows' shape and one axis more, the last;
        -1 for none.
    p_log_probs : array_like
        Their log-probabilities, of the same shape; those of -1 do not matter.
    q : array_like
        Logits, as `score` takes them.
    axis : int, default -1
        The axis of the classes of q.
    temperature : float, default 1.0
        Divides the logits q; from 1e-6 to 1e6.

    Returns
    -------
    RowTable
        ``kl_divergence`` is KL(p || q) in nats, with all classes that `p_ids` does not name taken
        as one:

        .. math:: \sum_{i \in K} p_i \log \frac{p_i}{q_i} + p_* \log \frac{p_*}{q_*}

        with :math:`p_* = 1 - \sum_{i \in K} p_i`, and :math:`q_*` likewise, as ``tail_p`` and
        ``tail_q``.  It is never more than the divergence of the whole distributions.  float64.

    Raises
    ------
    IndexError
        For an id out of range, with its value and row.
    TypeError, ValueError
        For a wrong dtype, shape or option, a class that is there twice, and log-probabilities above
        0 or with a sum of probabilities above 1 by more than 1e-3.

    See Also
    --------
    compare : where both distributions are known whole.
    score : the top k of logits, by ``top_k=``.

    Notes
    -----
    That taking classes as one loses, and never adds, is the log sum inequality (Cover and Thomas,
    "Elements of information theory", 2006, theorem 2.7.1).

    A tail is what is left of 1: it is good to 1e-7 (float64: 1e-15), and the divergence to as much
    times 1 + tail_p / tail_q.  A tail below 8 roundings counts as 0.  Where only q's is that small,
    it counts as 8 roundings in the divergence, which so stays finite.

    A class that is known of p and impossible in q gives +inf; nan of p or q gives nan.

    Examples
    --------
    >>> import numpy as np, klce
    >>> table = klce.compare_top_k([[0, 1]], np.log([[0.6, 0.3]]), np.log([[0.5, 0.3, 0.1, 0.1]]))
    >>> table.kl_divergence.round(4), table.tail_p.round(4), table.tail_q.round(4)
    (array([0.0401]), array([0.1]), array([0.2]))
    """
    q = _arrays.floats(q, "q")
    rows = _Rows((q,), ("q",), axis, "logits", temperature, None)
    ids = _validate.class_indices(p_ids, "p_ids")
    if ids.ndim != len(rows.shape) + 1 or ids.shape[:-1] != rows.shape:
        raise ValueError(
            f"p_ids must have the shape of the rows, {rows.shape}, and one axis more, "
            f"got {ids.shape}"
        )
    given = _arrays.floats(p_log_probs, "p_log_probs")
    if given.shape != ids.shape:
        raise ValueError(
            f"p_log_probs must have the shape of p_ids, {ids.shape}, got {given.shape}"
        )
    known = ids != -1
    in_order = np.sort(ids, axis=-1)
    twice = (in_order[..., 1:] == in_order[..., :-1]) & (in_order[..., 1:] != -1)
    if twice.any():
        at = tuple(np.argwhere(twice)[0].tolist())
        raise ValueError(
            f"p_ids must hold each class once, got {in_order[at]} twice{in_row(at[:-1])}"
        )
    # The first class stands in for none.
    candidates = _candidates(np.where(known, ids, 0), rows.shape, rows.classes, "p_ids")
    log_p = np.where(known, given.astype(np.float64), -np.inf)
    if (log_p > 0).any():
        at = tuple(np.argwhere(log_p > 0)[0].tolist())
        raise ValueError(f"p_log_probs must not be above 0, got {given[at]}{in_row(at[:-1])}")
    with np.errstate(all="ignore"):
        prob_p = np.exp(log_p)
        tail_p = 1 - prob_p.sum(axis=-1)
        if (tail_p < -1e-3).any():
            row = tuple(np.argwhere(tail_p < -1e-3)[0].tolist())
            raise ValueError(
                f"p_log_probs must have probabilities that sum to 1 at most, "
                f"got {1 - tail_p[row]}{in_row(row)}"
            )
        table = score(q, axis=axis, want=(), candidates=candidates, temperature=temperature)
        log_q = np.where(known, table["candidate_log_probs"].astype(np.float64), -np.inf)
        prob_q = np.exp(log_q)
        # What is left of 1 by rounding is none.
        kinds = (given.dtype, table["candidate_log_probs"].dtype)
        least = 8 * max(float(np.finfo(_arrays.computed(kind)).eps) for kind in kinds)
        whole = known.sum(axis=-1) == rows.classes
        tails = [np.where(whole | (t < least), 0, t) for t in (tail_p, 1 - prob_q.sum(axis=-1))]
        tail_p, tail_q = tails
        # q - p + p log(p/q) of each class and of the tail: never negative.
        terms = np.where(prob_p == 0, prob_q, prob_q - prob_p + prob_p * (log_p - log_q))
        of_tail = tail_q - tail_p + tail_p * np.log(tail_p / np.maximum(tail_q, least))
        tail = np.where(tail_p == 0, tail_q, of_tail)
        divergence = np.maximum(terms.sum(axis=-1) + tail, 0)
    columns = {"kl_divergence": divergence, "tail_p": tail_p, "tail_q": tail_q}
    return RowTable({k: np.asarray(a) for k, a in columns.items()}, rows.shape)


def _wanted(op: str, want: Iterable[str] | None, labelled: bool) -> set[str]:
    """Return the statistics to compute."""
    of_target = _ufuncs.OF_TARGET[op]
    if want is None:
        return {name for name in _DEFAULT[op] if labelled or name not in of_target}
    names = _validate.names(want)
    known = tuple(_ufuncs.STATISTICS[op])
    _validate.statistics(names, known, of_target, labelled=labelled)
    return set(names)


def _top_size(top_k: int, classes: int) -> int:
    size = _validate.integer(top_k, "top_k")
    if not 0 <= size <= min(classes, _ufuncs.MAX_TOP):
        raise ValueError(
            f"top_k must be from 0 to the {classes} classes, and at most {_ufuncs.MAX_TOP}, "
            f"got {top_k!r}"
        )
    return size


def _candidates(
    candidates: ArrayLike | None,
    shape: tuple[int, ...],
    classes: int,
    name: str = "candidates",
) -> Labels:
    """Return the classes whose log-probabilities are wanted: none, for all rows, or by row."""
    if candidates is None:
        return np.empty(0, np.int64)
    given = _validate.class_indices(candidates, name)
    if given.ndim == 0 or (given.ndim > 1 and given.shape[:-1] != shape):
        raise ValueError(
            f"{name} must be one-dimensional, or have the shape of the rows, {shape}, and one "
            f"axis more, got {given.shape}"
        )
    outside = (given < 0) | (given >= classes)
    if outside.any():
        at = tuple(np.argwhere(outside)[0].tolist())
        place = in_row(at[:-1]) or f" at {at[-1]}"
        raise IndexError(_validate.no_class(name, given[at], classes, place))
    return given.astype(np.int64, copy=False)


class _Rows:
    """Checked operands that hold rows, and the call of a kernel on them."""

    def __init__(
        self,
        arrays: tuple[ArrayLike, ...],
        names: tuple[str, ...],
        axis: int,
        form: Form,
        temperature: float,
        where: ArrayLike | None,
    ) -> None:
        given = [
            _arrays.floats(x, name, _arrays.WHERE) for x, name in zip(arrays, names, strict=True)
        ]
        if len(given) == 1:
            axis, shape = _validate.class_axis(axis, given[0], names[0]), given[0].shape
        else:
            p, q = given
            axis, shape = _validate.pair_axis(axis, p, q), _validate.broadcast(p, q)
        _validate.form(form)
        self._form = form
        self._t = _validate.temperature(temperature, form)
        #: The dtype of numbers for each row.
        self.dtype = _arrays.row_dtype(*given)
        self._taken = np.dtype(np.float64) if form == "probs" else _arrays.map_dtype(*given)
        # The classes last, as views.
        self._arrays = [_axes.moved(x, (axis,)) for x in given]
        self.classes = shape[axis]
        #: The rows' shape.
        self.shape = _axes.without(shape, (axis,))
        mask = _validate.mask(where, shape, (axis,), " and ".join(names))
        self._mask = None if mask is None else _axes.moved(mask, (axis,))
        self._kept = _validate.kept_rows(where, shape, (axis,))

    def labels(self, target: ArrayLike | None, ignore_index: int) -> tuple[Labels, np.int64]:
        """Return the labels, and the ignored one; no target is a row of that."""
        if target is None:
            return np.asarray(0, np.int64), np.int64(0)
        ignored = _validate.ignored(ignore_index)
        label, _ = _validate.labels(target, self.shape, self.classes, ignored, self._kept)
        return label, np.int64(ignored)

    def run(
        self,
        op: str,
        names: set[str],
        labels: tuple[Labels, np.int64],
        options: tuple[int, ...],
        by_row: tuple[Array, ...],
        out: tuple[Array, ...],
    ) -> dict[str, Array]:
        """Call the kernel `op`; return the columns of the statistics named."""
        statistics = _ufuncs.STATISTICS[op]
        told = {name: letter for name, letter in statistics.items() if name in names}
        want = sum(1 << bit for bit, name in enumerate(statistics) if name in told)
        # A column for each statistic, contiguous; the kernel's axis of columns is the last.
        count = sum(letter == "S" for letter in told.values())
        numbers = np.empty((count, *self.shape), self.dtype)
        integers = np.empty((len(told) - count, *self.shape), np.int64)
        last = (*range(1, numbers.ndim), 0)
        outputs = (numbers.transpose(last), integers.transpose(last), *out)
        label, ignored = labels
        kernel = getattr(_ufuncs, op)
        for part in self._parts():
            own = self._cut(label, part, 0)
            chosen = [self._cut(a, part, 1) for a in by_row]
            results = tuple(self._cut(a, part, 1) for a in outputs)
            args = (*self._logits(part), own, ignored, self._t, np.int64(want), *options, *chosen)
            mask = None if self._mask is None else self._cut(self._mask, part, 1)
            with np.errstate(all="ignore"):  # what float64 gives may be too small for float32
                _call.called(kernel, *args, dtype=self._taken, where=mask, out=results)
        # Arrays for a single row too.
        own_numbers = (numbers[i, ...] for i in range(len(numbers)))
        own_integers = (integers[i, ...] for i in range(len(integers)))
        columns = {
            name: next(own_numbers if letter == "S" else own_integers)
            for name, letter in told.items()
        }
        truths = {name: np.asarray(columns[name] != 0) for name in told if told[name] == "B"}
        return columns | truths

    def _parts(self) -> Iterator[slice | None]:
        """Yield parts of the rows' first axis, where logits have to be made; else all at once."""
        if self._form != "probs" or not self.shape:
            yield None
            return
        each = int(np.prod(self.shape[1:])) * max(self.classes, 1) * self._taken.itemsize
        step = max(1, _blocks.BLOCK_BYTES // max(each, 1))
        for start in range(0, self.shape[0], step):
            yield slice(start, start + step)

    def _cut(self, array: Array, part: slice | None, own: int) -> Array:
        """Take a part of the rows, unless the array, with axes of its own, is the same for all."""
        whole = array.ndim - own == len(self.shape) and array.shape[:1] == self.shape[:1]
        return array if part is None or not whole else array[part]

    def _logits(self, part: slice | None) -> list[Array]:
        """Return a part of the operands, of probabilities the logarithms."""
        if self._form != "probs":
            return self._arrays
        made = []
        for array in self._arrays:
            own = self._cut(array, part, 1)
            log = np.asarray(_call.called(_ufuncs.information, own, dtype=self._taken))
            made.append(np.negative(log, out=log))
        return made
