"""The compiled kernels as NumPy gufuncs, one for each row of ``src_c/ops.def``.

This module only translates: NumPy's strides into a ``klce_call``, and the core's answers into
Python objects.  Users call the functions of the ``klce`` package, which validate first.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.math cimport NAN
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc

import numpy as np

cimport numpy as cnp

cnp.import_array()
cnp.import_ufunc()


cdef extern from "Python.h" nogil:
    ctypedef struct PyThreadState:
        pass
    int PyGILState_Check()
    PyThreadState *PyEval_SaveThread()
    void PyEval_RestoreThread(PyThreadState *state)

cdef extern from "klce.h" nogil:
    enum:
        KLCE_OP_COUNT
        KLCE_DTYPE_COUNT
        KLCE_MAX_ARGS
        KLCE_TOTALS
        KLCE_SCORE_COUNT
        KLCE_COMPARE_COUNT
        KLCE_TOP
        KLCE_OK
        KLCE_BAD_LABEL
        KLCE_IGNORED_LABEL
    ctypedef struct atomic_int:
        pass
    ctypedef struct klce_call:
        int op
        int dtype
        Py_ssize_t rows
        Py_ssize_t n
        char **arg
        Py_ssize_t *step
        Py_ssize_t *core
        const char *mask
        Py_ssize_t mask_step
        Py_ssize_t mask_core
        Py_ssize_t *extent
        Py_ssize_t slabs
        Py_ssize_t *slab_step
        atomic_int *labels_met
    ctypedef struct klce_isa:
        const char *name
        int (*supported)() noexcept nogil
    const char **klce_op_names
    const char **klce_op_signatures
    const char **klce_op_fills
    const char **klce_dtype_names
    const char **klce_score_names
    const char **klce_compare_names
    const char *klce_score_letters
    const char *klce_compare_letters
    const size_t *klce_real_sizes
    int klce_isa_count()
    const klce_isa *klce_isa_at(int index)
    const klce_isa *klce_active_isa()
    int klce_select_isa(const char *name)
    int klce_run(const klce_call *call)
    Py_ssize_t klce_check_labels(const int64_t *labels, Py_ssize_t count,
                                 int64_t classes, int64_t ignore, int64_t *counted)
    int klce_run_totals(const klce_call *call, double *totals)
    double klce_sum(int dtype, const char *values, Py_ssize_t count, Py_ssize_t step)
    void klce_widen(int dtype, const char *elems, Py_ssize_t count, float *reals)
    int atomic_load(atomic_int *value)
    void atomic_init(atomic_int *value, int start)

cdef extern from *:
    """
    #include <stdint.h>
    /* What a DLPack capsule holds, as far as it is needed here: the first version's, and the one
     * with a version number, whose tensor stands last.  dmlc.github.io/dlpack, "C API". */
    typedef struct {
        void *data;
        int32_t device_type, device_id, ndim;
        uint8_t code, bits;
        uint16_t lanes;
        int64_t *shape, *strides;
        uint64_t byte_offset;
    } klce_dl_tensor;
    typedef struct {
        uint32_t major, minor;
        void *manager, (*deleter)(void *);
        uint64_t flags;
        klce_dl_tensor tensor;
    } klce_dl_versioned;
    """
    ctypedef struct klce_dl_tensor:
        unsigned char code
        unsigned char bits
    ctypedef struct klce_dl_versioned:
        klce_dl_tensor tensor

cdef extern from "cpus.h" nogil:
    int klce_cpu_count()
    int klce_get_num_threads()
    void klce_set_num_threads(int n)
    int klce_set_thread_override(int n)

cdef extern from *:
    """
    /* What went wrong in this thread's loops since it was last asked: a gufunc's loop has no way
     * of its own to raise. */
    static KLCE_THREAD_LOCAL int klce_trouble;
    static void klce_set_trouble(int what) { klce_trouble = what; }
    static int klce_take_trouble(void)
    {
        int what = klce_trouble;
        klce_trouble = 0;
        return what;
    }
    #if defined(__clang__)
    #define KLCE_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define KLCE_COMPILER "gcc " __VERSION__
    #elif defined(_MSC_VER)
    #define KLCE_COMPILER "msvc"
    #else
    #define KLCE_COMPILER "unknown"
    #endif
    """
    void klce_set_trouble(int what) nogil
    int klce_take_trouble() nogil
    const char *KLCE_COMPILER

cdef enum:
    NO_MEMORY = 1
    BAD_LABEL = 2
    # Elements below which releasing the GIL costs more than the work.
    GIL_THRESHOLD = 2048


# What a loop must know of its op, handed to NumPy as the loop's data; it lives as long as the
# process.
ctypedef struct loop_data:
    int op
    int dtype
    int operands
    char letter[KLCE_MAX_ARGS + 1]
    bint elementwise
    bint has_classes


cdef int run(const klce_call *call, bint parameters_vary) noexcept nogil:
    """Run the call; row by row where a parameter, meant for the whole call, differs by row."""
    cdef klce_call one
    cdef Py_ssize_t row
    cdef int k, status
    if not parameters_vary:
        return klce_run(call)
    one = call[0]
    one.rows = 1
    for row in range(call.rows):
        for k in range(KLCE_MAX_ARGS):
            if call.arg[k] != NULL:
                one.arg[k] = call.arg[k] + row * call.step[k]
        if call.mask != NULL:
            one.mask = call.mask + row * call.mask_step
        status = klce_run(&one)
        if status != KLCE_OK:
            return status
    return KLCE_OK


cdef void leave_word(int status, atomic_int *labels_met) noexcept nogil:
    """Leave word of what a loop cannot raise, for raise_trouble."""
    if status != KLCE_OK:
        klce_set_trouble(NO_MEMORY)
    elif atomic_load(labels_met) & KLCE_BAD_LABEL:
        klce_set_trouble(BAD_LABEL)


cdef void loop(char **args, const cnp.npy_intp *dimensions, const cnp.npy_intp *steps,
               void *data) noexcept nogil:
    """The inner loop of every gufunc: build the call, let other Python threads run, compute."""
    cdef loop_data *what = <loop_data *>data
    cdef klce_call call
    cdef atomic_int labels_met
    cdef PyThreadState *state = NULL
    # The sizes of NumPy's core dimensions follow that of the loop, in the order of the operands.
    cdef int k, i = 0, core = what.operands, extent = 2 if what.has_classes else 1, status
    cdef bint parameters_vary = False

    atomic_init(&labels_met, 0)
    call.op = what.op
    call.dtype = what.dtype
    call.labels_met = &labels_met
    call.slabs = 1
    call.rows = 1 if what.elementwise else dimensions[0]
    call.n = dimensions[0] if what.elementwise else (dimensions[1] if what.has_classes else 1)
    for k in range(KLCE_MAX_ARGS):
        call.arg[k] = NULL
        call.extent[k] = 1
    call.mask = NULL
    for k in range(what.operands):
        if what.letter[k] == b"m":
            call.mask = args[k]
            call.mask_step = steps[k]
            call.mask_core = steps[core]
            core += 1
            continue
        call.arg[i] = args[k]
        call.step[i] = 0 if what.elementwise else steps[k]
        call.core[i] = 0
        if what.elementwise:
            call.core[i] = steps[k]
        elif what.letter[k] == b"v" or what.letter[k] == b"g" or what.letter[k] == b"w":
            call.core[i] = steps[core]
            core += 1
        elif what.letter[k] == b"S" or what.letter[k] == b"L":
            call.core[i] = steps[core]
            call.extent[i] = dimensions[extent]
            core += 1
            extent += 1
        elif (what.letter[k] == b"i" or what.letter[k] == b"d") and call.rows > 1:
            parameters_vary = parameters_vary or steps[k] != 0
        i += 1
    # NumPy itself has let go of the GIL where a loop has more than 500 rows.
    if call.rows > GIL_THRESHOLD // (call.n + 1) and PyGILState_Check():
        state = PyEval_SaveThread()
    status = run(&call, parameters_vary)
    if state != NULL:
        PyEval_RestoreThread(state)
    leave_word(status, &labels_met)


# NumPy's dtypes of elements, by the row in dtypes.def.  NumPy takes the first loop to which the
# operands can be cast, hence float16 first.  bfloat16 is another package's: see register_bfloat16.
cdef tuple NATIVE = (("f16", np.dtype(np.float16)), ("f32", np.dtype(np.float32)),
                     ("f64", np.dtype(np.float64)))


cdef int type_number(char letter, int dtype, cnp.dtype element) noexcept:
    if letter == b"m":
        return cnp.NPY_BOOL
    if letter == b"l" or letter == b"i" or letter == b"L":
        return cnp.NPY_INT64
    if letter == b"d":
        return cnp.NPY_FLOAT64
    if letter == b"s" or letter == b"S" or letter == b"w":
        return cnp.NPY_FLOAT32 if klce_real_sizes[dtype] == 4 else cnp.NPY_FLOAT64
    return element.type_num


cdef loop_data *describe(int op, int dtype, str letters) except NULL:
    """What the loop of an op and a dtype must know: it lives as long as the process."""
    cdef loop_data *what = <loop_data *>calloc(1, sizeof(loop_data))
    if what == NULL:
        raise MemoryError
    what.op = op
    what.dtype = dtype
    what.operands = len(letters)
    what.elementwise = "e" in letters
    what.has_classes = not set("vgw").isdisjoint(letters)
    for k in range(what.operands):
        what.letter[k] = <char>ord(letters[k])
    return what


cdef object make_ufunc(int op, bint masked):
    """The gufunc of one row of ops.def, with a mask (the letter m) as its last input, or without.

    NumPy keeps pointers to the tables: never freed.
    """
    cdef bytes signature = klce_op_signatures[op]
    inputs, outputs = signature.decode().split(">")
    if masked:
        inputs += "m"
    letters = inputs + outputs
    cdef int i, k, dtype, operands = len(letters), count = len(NATIVE)
    cdef cnp.PyUFuncGenericFunction *functions = <cnp.PyUFuncGenericFunction *>calloc(
        count, sizeof(cnp.PyUFuncGenericFunction))
    cdef void **data = <void **>calloc(count, sizeof(void *))
    cdef char *types = <char *>calloc(count * operands, 1)
    if functions == NULL or data == NULL or types == NULL:
        raise MemoryError
    for i, (name, element) in enumerate(NATIVE):
        dtype = DTYPES.index(name)
        for k in range(operands):
            types[i * operands + k] = type_number(<char>ord(letters[k]), dtype, element)
        functions[i] = <cnp.PyUFuncGenericFunction>loop
        data[i] = describe(op, dtype, letters)

    cores = ["(n)" if letter in "vgwm" else f"(m{k})" if letter in "SL" else "()"
             for k, letter in enumerate(letters)]
    core = f"{','.join(cores[:len(inputs)])}->{','.join(cores[len(inputs):])}"

    doc = f"Kernel {klce_op_names[op].decode()}, operands {inputs}>{outputs} (see src_c/ops.def)."
    keep.append((doc.encode(), core.encode(), klce_op_names[op]))
    cdef bytes doc_bytes = keep[-1][0]
    cdef bytes core_bytes = keep[-1][1]
    return cnp.PyUFunc_FromFuncAndDataAndSignature(
        functions, data, types, count, len(inputs), len(outputs), cnp.PyUFunc_None,
        klce_op_names[op], doc_bytes, 0, NULL if "e" in letters else <char *>core_bytes)


# The strings that the ufuncs point to.
cdef list keep = []

#: Signature by kernel, as in src_c/ops.def.
OPS = {klce_op_names[i].decode(): klce_op_signatures[i].decode() for i in range(KLCE_OP_COUNT)}
#: What stands for masked classes by kernel, likewise.
FILLS = {klce_op_names[i].decode(): klce_op_fills[i].decode() for i in range(KLCE_OP_COUNT)}
#: The dtypes that the kernels come in.
DTYPES = tuple(klce_dtype_names[i].decode() for i in range(KLCE_DTYPE_COUNT))
cdef int F16 = DTYPES.index("f16"), BF16 = DTYPES.index("bf16")
cdef int F32 = DTYPES.index("f32"), F64 = DTYPES.index("f64")
#: Every instruction set compiled in, worst first.
ISAS = tuple(klce_isa_at(i).name.decode() for i in range(klce_isa_count()))
#: Letter by statistic, of the ops that can tell several, as in src_c/statistics.def.
STATISTICS = {
    "score": {klce_score_names[i].decode(): chr(klce_score_letters[i])
              for i in range(KLCE_SCORE_COUNT)},
    "compare": {klce_compare_names[i].decode(): chr(klce_compare_letters[i])
                for i in range(KLCE_COMPARE_COUNT)},
}
#: The most that the top of a row may be asked for.
MAX_TOP = KLCE_TOP
COMPILER = KLCE_COMPILER.decode()

globals().update({klce_op_names[i].decode(): make_ufunc(i, False) for i in range(KLCE_OP_COUNT)})

#: The twin of a kernel that takes a mask of the classes, by name.
MASKED = {klce_op_names[i].decode(): make_ufunc(i, True) for i in range(KLCE_OP_COUNT)
          if klce_op_fills[i][0] != 0}


#: NumPy's number of bfloat16, which it has once that is registered.
cdef int bfloat16 = -1


cdef object add_loop(object ufunc, int op, int row, cnp.dtype dtype, str letters):
    """Register the loop of a dtype that NumPy does not know."""
    cdef int types[KLCE_MAX_ARGS + 1]
    cdef int k
    for k in range(len(letters)):
        types[k] = type_number(<char>ord(letters[k]), row, dtype)
    cnp.PyUFunc_RegisterLoopForType(
        <cnp.ufunc>ufunc, dtype.type_num, <cnp.PyUFuncGenericFunction>loop, types,
        describe(op, row, letters))


def register_bfloat16(cnp.dtype dtype not None):
    """Give every kernel its loop for bfloat16, the dtype of another package's; once.

    It must be done before a kernel is called with that dtype: NumPy keeps what it once chose.
    """
    global bfloat16
    cdef int op
    if bfloat16 != -1:
        return
    for op in range(KLCE_OP_COUNT):
        name = klce_op_names[op].decode()
        inputs, outputs = OPS[name].split(">")
        add_loop(globals()[name], op, BF16, dtype, inputs + outputs)
        if name in MASKED:
            add_loop(MASKED[name], op, BF16, dtype, inputs + "m" + outputs)
    bfloat16 = dtype.type_num


# DLPack's codes of floats that NumPy does not know, by ml_dtypes' names.
cdef dict FOREIGN_FLOATS = {
    4: "bfloat16", 7: "float8_e3m4", 8: "float8_e4m3", 9: "float8_e4m3b11fnuz", 10: "float8_e4m3fn",
    11: "float8_e4m3fnuz", 12: "float8_e5m2", 13: "float8_e5m2fnuz", 14: "float8_e8m0fnu"}


def as_integers(capsule):
    """Turn a DLPack capsule of floats that NumPy does not know into one of unsigned integers.

    Returns ml_dtypes' name of what they are, or "" for a capsule that was left as it is.
    """
    cdef klce_dl_tensor *tensor
    if PyCapsule_IsValid(capsule, b"dltensor_versioned"):
        tensor = &(<klce_dl_versioned *>PyCapsule_GetPointer(capsule, b"dltensor_versioned")).tensor
    else:
        tensor = <klce_dl_tensor *>PyCapsule_GetPointer(capsule, b"dltensor")
    name = FOREIGN_FLOATS.get(tensor.code, "")
    if name:
        tensor.code = 1
    return name


def raise_trouble():
    """Raise what a loop of this thread could not raise itself, if anything."""
    cdef int what = klce_take_trouble()
    if what == NO_MEMORY:
        raise MemoryError("not enough memory for the scratch space of a call")
    if what == BAD_LABEL:
        raise IndexError("target holds a label out of range that was not there when the call "
                         "checked it")


cdef int element_of(cnp.ndarray array) noexcept:
    """The row in dtypes.def of an array that kernels take as it stands; -1 for any other."""
    cdef int number = cnp.PyArray_TYPE(array) if cnp.PyArray_ISCARRAY_RO(array) else cnp.NPY_NOTYPE
    return (F32 if number == cnp.NPY_FLOAT32 else F64 if number == cnp.NPY_FLOAT64
            else F16 if number == cnp.NPY_FLOAT16
            else BF16 if number == bfloat16 and number != -1 else -1)


cdef bint is_plain(object array, int number, int ndim, cnp.npy_intp *shape,
                   bint writable) noexcept:
    """Whether it is exactly an array, C-contiguous, of this dtype and shape."""
    cdef int i
    if not cnp.PyArray_CheckExact(array):
        return False
    if not (cnp.PyArray_ISCARRAY(array) if writable else cnp.PyArray_ISCARRAY_RO(array)):
        return False
    if cnp.PyArray_TYPE(array) != number or cnp.PyArray_NDIM(array) != ndim:
        return False
    for i in range(ndim):
        if cnp.PyArray_DIM(array, i) != shape[i]:
            return False
    return True


cdef bint are_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C-contiguous arrays have no memory in common."""
    cdef const char *start = <const char *>cnp.PyArray_DATA(a)
    cdef const char *other = <const char *>cnp.PyArray_DATA(b)
    return start + cnp.PyArray_NBYTES(a) <= other or other + cnp.PyArray_NBYTES(b) <= start


cdef bint start_call(klce_call *call, int op, int dtype, cnp.ndarray first, Py_ssize_t at,
                     cnp.npy_intp *rows_shape, atomic_int *labels_met) noexcept:
    """Begin a call of an op on C-contiguous arrays like the first, whose classes are on axis `at`.

    Whether the rows lie side by side: those after the axis do, in a slab for each index before it.
    `rows_shape` receives the shape without the axis.
    """
    cdef int axes = cnp.PyArray_NDIM(first), k
    cdef Py_ssize_t beside = 1, n = cnp.PyArray_DIM(first, at)
    for k in range(axes - 1):
        rows_shape[k] = cnp.PyArray_DIM(first, k + (k >= at))
    for k in range(at, axes - 1):
        beside *= rows_shape[k]
    atomic_init(labels_met, 0)
    call.op = op
    call.dtype = dtype
    call.n = n
    call.rows = cnp.PyArray_SIZE(first) // n
    call.slabs = 1
    call.labels_met = labels_met
    call.mask = NULL
    for k in range(KLCE_MAX_ARGS):
        call.arg[k] = NULL
        call.step[k] = call.core[k] = call.slab_step[k] = 0
        call.extent[k] = 1
    if beside == 1 or n == 1:
        return False
    call.slabs = call.rows // beside
    call.rows = beside
    return True


cdef void place(klce_call *call, int k, char letter, cnp.ndarray array,
                bint side_by_side) noexcept:
    """Set argument k to a C-contiguous array: of the classes of all rows, or one value of each."""
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(array), n = 1
    call.arg[k] = <char *>cnp.PyArray_DATA(array)
    if letter != b"l" and letter != b"s":
        n = call.n
        call.core[k] = call.rows * item if side_by_side else item
    call.step[k] = item if side_by_side else n * item
    call.slab_step[k] = call.rows * n * item


cdef PyThreadState *released(const klce_call *call) noexcept:
    """Let other Python threads run, if the call is worth it: NULL if not."""
    if call.rows * call.slabs > GIL_THRESHOLD // (call.n + 1):
        return PyEval_SaveThread()
    return NULL


cdef class Plain:
    """Calls of an op, with parameters that stay, on whole arrays that its kernel takes as they are.

    ``Plain(name, *parameters)(args)`` is what the op's gufunc gives for these arrays, its rows
    reduced to their "mean" or "sum" if `how` says so, at a fraction of what NumPy does around a
    gufunc. The classes may be on any axis (see run_whole). None for arguments of any other kind:
    not exactly arrays, of another dtype or byte order, not C-contiguous, empty, without an axis, of
    different shapes, or with a label out of range. The result goes to `out`, where that is an array
    of its very shape and dtype: a loss or a reduction when nothing can go wrong any more, another
    at once, so that `out` must share no memory with the others then, but for a map in place.
    """
    cdef int op
    cdef Py_ssize_t arrays, operands
    cdef char letter[KLCE_MAX_ARGS + 1]
    cdef double number[KLCE_MAX_ARGS]
    cdef int64_t integer[KLCE_MAX_ARGS]

    def __cinit__(self, str name, *parameters):
        inputs, output = OPS[name].split(">")
        given = iter(parameters)
        self.op = list(OPS).index(name)
        self.operands = len(inputs) + 1
        for k, letter in enumerate(inputs + output):
            self.letter[k] = <char>ord(letter)
            if letter == "i":
                self.integer[k] = next(given)
            elif letter == "d":
                self.number[k] = next(given)
            elif k < len(inputs):
                self.arrays += 1

    def __call__(self, tuple args not None, out=None, how="none", Py_ssize_t axis=-1, /):
        if len(args) != self.arrays or not cnp.PyArray_CheckExact(args[0]):
            return None
        if type(how) is not str:
            return None
        cdef bint is_sum = how == "sum", is_mean = how == "mean", reduces = is_sum or is_mean
        if not (reduces or how == "none"):
            return None
        if reduces and self.letter[self.operands - 1] != b"s":
            return None
        cdef cnp.ndarray first = args[0], array, result = None
        cdef int dtype = element_of(first), axes = cnp.PyArray_NDIM(first)
        cdef Py_ssize_t size = cnp.PyArray_SIZE(first), k, next_array = 0
        if dtype < 0 or size == 0 or not -axes <= axis < axes:
            return None
        cdef Py_ssize_t at = axis if axis >= 0 else axis + axes
        cdef int element = cnp.PyArray_TYPE(first), wanted, ndim
        cdef int real = cnp.NPY_FLOAT32 if klce_real_sizes[dtype] == 4 else cnp.NPY_FLOAT64
        cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(first)
        cdef cnp.npy_intp rows_shape[cnp.NPY_MAXDIMS]
        cdef cnp.npy_intp *own
        cdef const int64_t *labels = NULL
        cdef bint elementwise = self.letter[0] == b"e"
        cdef char letter
        cdef atomic_int labels_met
        cdef klce_call call
        cdef bint side_by_side = start_call(&call, self.op, dtype, first, at, rows_shape,
                                            &labels_met)
        if elementwise:
            call.n, call.rows, call.slabs = size, 1, 1
        for k in range(self.operands):
            letter = self.letter[k]
            if letter == b"i":
                call.arg[k] = <char *>&self.integer[k]
                continue
            if letter == b"d":
                call.arg[k] = <char *>&self.number[k]
                continue
            if k == self.operands - 1:
                wanted = real if letter == b"s" else element
                ndim = axes - (letter == b"s")
                own = &rows_shape[0] if letter == b"s" else &shape[0]
                if reduces:
                    ndim = 0
                if out is not None and not is_plain(out, wanted, ndim, own, True):
                    return None
                if out is None or reduces or labels != NULL:
                    # A bad label leaves `out` as it was.
                    result = cnp.PyArray_EMPTY(ndim, own, wanted, 0)
                else:
                    result = out
                    for argument in args:
                        in_place = letter != b"s" and argument is out
                        if not in_place and not are_apart(result, argument):
                            return None
                array = result
            else:
                wanted = cnp.NPY_INT64 if letter == b"l" else element
                ndim = axes - (letter == b"l")
                own = &rows_shape[0] if letter == b"l" else &shape[0]
                if not is_plain(args[next_array], wanted, ndim, own, False):
                    return None
                array = args[next_array]
                next_array += 1
            place(&call, k, letter, array, side_by_side)
            if letter == b"l":
                labels = <const int64_t *>call.arg[k]
        cdef double total = 0
        cdef double *reduced = &total if reduces else NULL
        cdef int64_t counted = call.rows * call.slabs
        cdef float rounded
        if not self.run(&call, labels, reduced, &counted):
            return None
        if reduced == NULL:
            if out is None:
                return result if cnp.PyArray_NDIM(result) else result[()]
            if result is not out:
                cnp.PyArray_CopyInto(out, result)
            return out
        if is_mean:
            total = total / counted if counted else NAN
        rounded = <float>total
        cdef void *value = &rounded if real == cnp.NPY_FLOAT32 else <void *>&total
        if out is None:
            return cnp.PyArray_ToScalar(value, result)
        cnp.PyArray_SETITEM(out, cnp.PyArray_BYTES(out), cnp.PyArray_ToScalar(value, result))
        return out

    cdef bint run(self, klce_call *call, const int64_t *labels, double *total,
                  int64_t *counted) except -1:
        """Run the call, or find the sum of its results, and count the rows that are not ignored.

        False where a label is bad.
        """
        cdef PyThreadState *state = released(call)
        cdef int status, met = 0
        cdef Py_ssize_t rows = call.rows * call.slabs
        status = klce_run(call) if total == NULL else klce_run_totals(call, total)
        if status == KLCE_OK:
            # Kernels tell what labels they met: most calls need no look at those of their own.
            met = atomic_load(call.labels_met)
            if total != NULL and met == KLCE_IGNORED_LABEL:
                klce_check_labels(labels, rows, call.n, (<int64_t *>call.arg[2])[0], counted)
        if state != NULL:
            PyEval_RestoreThread(state)
        if status != KLCE_OK:
            klce_set_trouble(NO_MEMORY)
            raise_trouble()
        return not met & KLCE_BAD_LABEL


def run_whole(str name, tuple args not None, Py_ssize_t axis, tuple outs=None):
    """Call a kernel on whole arrays, whose classes are on an axis that is counted from the end.

    A gufunc's loop would be given the rows after the axis alone, once for each index before it.
    Returns the outputs, new ones for None in `outs`; without `outs` the sums of the rows' results,
    which are not kept. None, having done nothing, for arguments other than C-contiguous arrays of
    the kernel's dtypes, those that are the same for all rows, and outputs apart from them.
    """
    inputs, outputs = OPS[name].split(">")
    letters = inputs + outputs
    cdef object operand
    cdef list operands = [*args, *(outs or ())]
    cdef cnp.ndarray first, array
    cdef int dtype, axes, i, k, other, number, outputs_from = len(inputs)
    cdef cnp.npy_intp *own
    cdef cnp.npy_intp rows_shape[cnp.NPY_MAXDIMS]
    cdef int64_t integer[KLCE_MAX_ARGS]
    cdef double parameter[KLCE_MAX_ARGS]
    cdef bint whole[KLCE_MAX_ARGS]  # has values of its own for each row
    cdef bint in_place
    cdef char letter
    cdef double totals[KLCE_TOTALS]
    cdef atomic_int labels_met
    cdef klce_call call
    if not set(letters) <= set("vgwlsid") or not cnp.PyArray_CheckExact(args[0]):
        return None
    if outs is None and (set(outputs) != {"s"} or len(outputs) > KLCE_TOTALS):
        return None
    first = args[0]
    dtype, axes = element_of(first), cnp.PyArray_NDIM(first)
    if dtype < 0 or not -axes <= axis < 0 or cnp.PyArray_SIZE(first) == 0:
        return None
    cdef bint side_by_side = start_call(&call, list(OPS).index(name), dtype, first, axes + axis,
                                        rows_shape, &labels_met)
    for k in range(len(operands)):
        letter, operand, whole[k] = <char>ord(letters[k]), operands[k], False
        if letter == b"i" or (letter == b"l" and isinstance(operand, int)):
            integer[k] = operand
            call.arg[k] = <char *>&integer[k]
            continue
        if letter == b"d":
            parameter[k] = operand
            call.arg[k] = <char *>&parameter[k]
            continue
        number = type_number(letter, dtype, first.dtype)
        ndim, own = axes, cnp.PyArray_DIMS(first)
        if letter == b"l" or letter == b"s":
            ndim, own = axes - 1, &rows_shape[0]
        if operand is None:
            operands[k] = operand = cnp.PyArray_EMPTY(ndim, own, number, 0)
        whole[k] = is_plain(operand, number, ndim, own, k >= outputs_from)
        if whole[k]:
            place(&call, k, letter, operand, side_by_side)
            continue
        if k >= outputs_from or not cnp.PyArray_CheckExact(operand):
            return None
        array = operand
        if cnp.PyArray_TYPE(array) != number or not cnp.PyArray_ISBEHAVED_RO(array):
            return None
        call.arg[k] = <char *>cnp.PyArray_DATA(array)
        if letter == b"l" or letter == b"s":
            for i in range(cnp.PyArray_NDIM(array)):
                if cnp.PyArray_STRIDE(array, i) != 0:
                    return None
        elif cnp.PyArray_NDIM(array) == 1 and cnp.PyArray_DIM(array, 0) == call.n:
            call.core[k] = cnp.PyArray_STRIDE(array, 0)
        else:
            return None
    for k in range(outputs_from, len(operands)):
        for other in range(len(operands)):
            if other == k or not isinstance(operands[other], np.ndarray):
                continue
            in_place = whole[other] and call.arg[other] == call.arg[k] and letters[k] == "v"
            if not in_place and np.may_share_memory(operands[k], operands[other]):
                return None
    cdef PyThreadState *state = released(&call)
    cdef int status = klce_run(&call) if outs is not None else klce_run_totals(&call, totals)
    if state != NULL:
        PyEval_RestoreThread(state)
    leave_word(status, &labels_met)
    if outs is None:
        return tuple([totals[k] for k in range(len(outputs))])
    return tuple(operands[outputs_from:])


def check_labels(const int64_t[::1] labels, int64_t classes, int64_t ignore):
    """The index of the first label out of range; if -1, there is none, and how many count."""
    cdef int64_t counted = 0
    cdef Py_ssize_t count = labels.shape[0], bad
    cdef const int64_t *start = &labels[0] if count else NULL
    with nogil:
        bad = klce_check_labels(start, count, classes, ignore, &counted)
    return bad, counted


def sum_of(cnp.ndarray values):
    """Sum of a one-dimensional float32 or float64 array, in float64, in a fixed order."""
    cdef int dtype = F32 if values.dtype == np.float32 else F64
    cdef const char *start = <const char *>cnp.PyArray_DATA(values)
    cdef Py_ssize_t count = values.shape[0], step = values.strides[0]
    cdef double total
    with nogil:
        total = klce_sum(dtype, start, count, step)
    return total


def widened(cnp.ndarray halves):
    """The float32 array of an array's float16 or bfloat16 numbers, laid out as it is.

    None for any other array: of other numbers, in another byte order or not aligned.
    """
    cdef int number = cnp.PyArray_TYPE(halves)
    cdef bint is_half = number == cnp.NPY_FLOAT16 or (number == bfloat16 and number != -1)
    if not is_half or not cnp.PyArray_ISBEHAVED_RO(halves):
        return None
    if not (halves.flags.c_contiguous or halves.flags.f_contiguous):
        halves = halves.copy("K")
    cdef cnp.ndarray wide = np.empty_like(halves, dtype=np.float32, subok=False)
    cdef const char *elems = <const char *>cnp.PyArray_DATA(halves)
    cdef float *reals = <float *>cnp.PyArray_DATA(wide)
    cdef Py_ssize_t count = cnp.PyArray_SIZE(halves)
    cdef int dtype = F16 if number == cnp.NPY_FLOAT16 else BF16
    with nogil:
        klce_widen(dtype, elems, count, reals)
    return wide


def active_isa():
    """The name of the instruction set whose kernels run."""
    return klce_active_isa().name.decode()


def available_isas():
    """The names of the instruction sets that this machine can run, worst first."""
    return tuple(klce_isa_at(i).name.decode() for i in range(klce_isa_count())
                 if klce_isa_at(i).supported())


def select_isa(name=None):
    """Run the named instruction set's kernels from now on; the best supported for None."""
    cdef bytes encoded = b"" if name is None else name.encode()
    cdef const char *wanted = NULL
    if name is not None:
        wanted = encoded
    cdef int status = klce_select_isa(wanted)
    if status == -1:
        raise ValueError(f"name must be one of {', '.join(ISAS)}, got {name!r}")
    if status == -2:
        raise ValueError("name must be one that this machine supports "
                         f"({', '.join(available_isas())}), got {name!r}")


def cpu_count():
    """CPUs that this process may use: by affinity and by cgroup quota."""
    return klce_cpu_count()


def get_num_threads():
    return klce_get_num_threads()


def set_num_threads(int n):
    klce_set_num_threads(n)


def set_thread_override(int n):
    """Threads for calls from this Python thread; 0 for the global number.  Returns the former."""
    return klce_set_thread_override(n)
