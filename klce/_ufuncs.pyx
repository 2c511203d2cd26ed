"""The compiled kernels as NumPy gufuncs, one for each row of ``src_c/ops.def``.

This module only translates: NumPy's strides into a ``klce_call``, and the core's answers into
Python objects.  Users call the functions of the ``klce`` package, which validate first.
"""

from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_New
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset, strcpy

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
    ctypedef struct klce_statistic:
        const char *name
        char letter
        int of_target
    ctypedef struct klce_isa:
        const char *name
        int (*supported)() noexcept nogil
    const char **klce_op_names
    const char **klce_op_signatures
    const char **klce_op_fills
    const char **klce_dtype_names
    const klce_statistic *klce_score_statistics
    const klce_statistic *klce_compare_statistics
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
    double klce_mean(int dtype, double total, double unit, double count)
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
    ctypedef struct klce_dl_versioned:
        klce_dl_tensor tensor

cdef extern from "pages.h" nogil:
    size_t KLCE_PAGES_LEAST
    void *klce_take_pages(size_t bytes)
    void klce_give_pages(void *memory)
    size_t klce_pages_room(const void *memory)

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void *ctx
        void *(*malloc)(void *ctx, size_t size) noexcept nogil
        void *(*calloc)(void *ctx, size_t count, size_t size) noexcept nogil
        void *(*realloc)(void *ctx, void *memory, size_t size) noexcept nogil
        void (*free)(void *ctx, void *memory, size_t size) noexcept nogil
    ctypedef struct PyDataMem_Handler:
        char name[127]
        cnp.uint8_t version
        PyDataMemAllocator allocator
    object PyDataMem_SetHandler(object handler)
    object PyDataMem_GetHandler()
    PyObject *PyDataMem_DefaultHandler

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
        call.slab_step[k] = 0
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
cdef object told_of(const klce_statistic *statistics, int count, bint of_target):
    return {statistics[i].name.decode(): chr(statistics[i].letter)
            for i in range(count) if statistics[i].of_target or not of_target}

#: Letter by statistic, of the ops that can tell several, as in src_c/statistics.def.
STATISTICS = {
    "score": told_of(klce_score_statistics, KLCE_SCORE_COUNT, False),
    "compare": told_of(klce_compare_statistics, KLCE_COMPARE_COUNT, False),
}
#: The statistics that take a target.
OF_TARGET = {
    "score": tuple(told_of(klce_score_statistics, KLCE_SCORE_COUNT, True)),
    "compare": tuple(told_of(klce_compare_statistics, KLCE_COMPARE_COUNT, True)),
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


cdef bint has_shape(cnp.ndarray array, int ndim, const cnp.npy_intp *shape) noexcept:
    cdef int i
    if cnp.PyArray_NDIM(array) != ndim:
        return False
    for i in range(ndim):
        if cnp.PyArray_DIM(array, i) != shape[i]:
            return False
    return True


cdef bint is_plain(object array, int number, int ndim, const cnp.npy_intp *shape,
                   bint writable) noexcept:
    """Whether it is exactly an array, C-contiguous, of this dtype and shape."""
    if not cnp.PyArray_CheckExact(array) or cnp.PyArray_TYPE(array) != number:
        return False
    if not (cnp.PyArray_ISCARRAY(array) if writable else cnp.PyArray_ISCARRAY_RO(array)):
        return False
    return has_shape(array, ndim, shape)


cdef bint is_repeated(object array, int number, int ndim, const cnp.npy_intp *shape) noexcept:
    """Whether it is exactly an array, of this dtype and shape, of one number by strides of 0."""
    cdef int i
    if not cnp.PyArray_CheckExact(array) or cnp.PyArray_TYPE(array) != number:
        return False
    if not cnp.PyArray_ISBEHAVED_RO(array):
        return False
    for i in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_STRIDE(array, i) != 0:
            return False
    return has_shape(array, ndim, shape)


cdef bint are_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two arrays, each C-contiguous or one number repeated, have no memory in common."""
    cdef const char *start = <const char *>cnp.PyArray_DATA(a)
    cdef const char *other = <const char *>cnp.PyArray_DATA(b)
    return start + cnp.PyArray_NBYTES(a) <= other or other + cnp.PyArray_NBYTES(b) <= start


# A call on whole arrays, as it is put together.
ctypedef struct whole_call:
    klce_call call
    atomic_int labels_met
    const int64_t *labels  # NULL where there are none, or all are one
    bint side_by_side      # rows lie so: those after the axis do, in a slab for each index before
    int axes
    int element            # NumPy's number of what rows hold, and of what they are computed in
    int real
    cnp.npy_intp *shape    # of the first operand, and the same without the axis of the classes
    cnp.npy_intp rows_shape[cnp.NPY_MAXDIMS]
    # What the operands that are Python's numbers hold.
    int64_t integer[KLCE_MAX_ARGS]
    double number[KLCE_MAX_ARGS]
    float single[KLCE_MAX_ARGS]
    bint has_classes[KLCE_MAX_ARGS]  # an array of a value for each class of each row


cdef bint start(whole_call *w, int op, cnp.ndarray first, Py_ssize_t axis) noexcept:
    """Begin a call of an op on arrays like the first, if kernels take that as it stands."""
    cdef int dtype = element_of(first), axes = cnp.PyArray_NDIM(first), k
    if dtype < 0 or cnp.PyArray_SIZE(first) == 0 or not -axes <= axis < axes:
        return False
    cdef Py_ssize_t at = axis if axis >= 0 else axis + axes, beside = 1
    w.shape = cnp.PyArray_DIMS(first)
    for k in range(axes - 1):
        w.rows_shape[k] = w.shape[k + (k >= at)]
    for k in range(at, axes - 1):
        beside *= w.rows_shape[k]
    w.axes = axes
    w.element = cnp.PyArray_TYPE(first)
    w.real = cnp.NPY_FLOAT32 if klce_real_sizes[dtype] == 4 else cnp.NPY_FLOAT64
    w.labels = NULL
    atomic_init(&w.labels_met, 0)
    w.call.labels_met = &w.labels_met
    w.call.op = op
    w.call.dtype = dtype
    w.call.n = w.shape[at]
    w.call.rows = cnp.PyArray_SIZE(first) // w.call.n
    w.call.slabs = 1
    w.side_by_side = beside != 1 and w.call.n != 1
    if w.side_by_side:
        w.call.slabs = w.call.rows // beside
        w.call.rows = beside
    w.call.mask = NULL
    for k in range(KLCE_MAX_ARGS):
        w.has_classes[k] = False
        w.call.arg[k] = NULL
        w.call.step[k] = w.call.core[k] = w.call.slab_step[k] = 0
        w.call.extent[k] = 1
    return True


cdef void place(whole_call *w, int k, bint has_classes, cnp.ndarray array) noexcept:
    """Set argument k to a whole array: of the classes of all rows, or one value of each."""
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(array), n = 1
    w.has_classes[k] = has_classes
    w.call.arg[k] = <char *>cnp.PyArray_DATA(array)
    if has_classes:
        n = w.call.n
        w.call.core[k] = w.call.rows * item if w.side_by_side else item
    w.call.step[k] = item if w.side_by_side else n * item
    w.call.slab_step[k] = w.call.rows * n * item


# ---- Large results: their memory is kept for the next, see pages.h. ----


cdef void *take_pages(void *ctx, size_t size) noexcept nogil:
    return klce_take_pages(size)


cdef void *take_cleared_pages(void *ctx, size_t count, size_t size) noexcept nogil:
    cdef void *memory = klce_take_pages(count * size)
    if memory != NULL:
        memset(memory, 0, count * size)
    return memory


cdef void *resize_pages(void *ctx, void *memory, size_t size) noexcept nogil:
    cdef size_t room = klce_pages_room(memory)
    if room // 2 <= size <= room:
        return memory
    cdef void *other = klce_take_pages(size)
    if other != NULL:
        memcpy(other, memory, min(room, size))
        klce_give_pages(memory)
    return other


cdef void give_pages(void *ctx, void *memory, size_t size) noexcept nogil:
    klce_give_pages(memory)


cdef PyDataMem_Handler handler
strcpy(handler.name, b"klce")
handler.version = 1
handler.allocator = PyDataMemAllocator(
    NULL, take_pages, take_cleared_pages, resize_pages, give_pages)
cdef object pages = PyCapsule_New(&handler, "mem_handler", NULL)


cdef object set_pages(size_t size):
    """Let an array of this size, if it is large, be made of such memory.

    The handler to go back to; None where it stays, as one does that the user has set.
    """
    if size < KLCE_PAGES_LEAST:
        return None
    current = PyDataMem_GetHandler()
    return PyDataMem_SetHandler(pages) if <PyObject *>current == PyDataMem_DefaultHandler else None


cdef int unset_pages(previous) except -1:
    if previous is not None:
        PyDataMem_SetHandler(previous)
    return 0


cdef object new_array(int ndim, cnp.npy_intp *shape, int number):
    """An array whose values are yet to come."""
    cdef size_t size = cnp.PyDataType_ELSIZE(cnp.PyArray_DescrFromType(number))
    cdef int i
    for i in range(ndim):
        size *= shape[i]
    previous = set_pages(size)
    try:
        return cnp.PyArray_EMPTY(ndim, shape, number, 0)
    finally:
        unset_pages(previous)


def new_like(cnp.ndarray array, cnp.dtype dtype):
    """An array of another's shape and layout, whose values are yet to come."""
    previous = set_pages(<size_t>dtype.itemsize * cnp.PyArray_SIZE(array))
    try:
        return np.empty_like(array, dtype, subok=False)
    finally:
        unset_pages(previous)


cdef class Plain:
    """Calls of a kernel on whole arrays, which it takes as they are.

    Such a call gives what the kernel's gufunc gives, at a fraction of what NumPy does around one,
    and its classes may be on any axis: a gufunc's loop would be given the rows after the axis
    alone, once for each index before it.

    Arrays are exactly that, C-contiguous, of the kernel's dtypes, and of the shape of the first or
    of that without the axis. Labels may also repeat one by strides of 0; so may weights, which may
    be one number for all, or of the classes alone. For any other operands the methods give None,
    and have done nothing.
    """
    cdef int op, inputs, outputs
    cdef bint takes_all, takes_masks, has_labels, sums, elementwise
    cdef char letter[KLCE_MAX_ARGS + 1]

    def __cinit__(self, str name):
        inputs, outputs = OPS[name].split(">")
        self.op = list(OPS).index(name)
        self.inputs, self.outputs = len(inputs), len(outputs)
        self.takes_masks = FILLS[name] != ""
        self.takes_all = set(inputs + outputs) <= set("vgwlside")
        self.sums = set(outputs) == {"s"} and len(outputs) <= KLCE_TOTALS
        self.has_labels = "l" in inputs
        self.elementwise = "e" in inputs
        for k, letter in enumerate(inputs + outputs):
            self.letter[k] = <char>ord(letter)

    def __call__(self, tuple operands not None, out=None, how="none", Py_ssize_t axis=-1,
                 mask=None, double nats=1, /):
        """Return what `call` does."""
        return self.call(operands, out, how, axis, mask, nats)

    cdef object call(self, tuple operands, out, how, Py_ssize_t axis, mask, double nats):
        """Return the first output, or its "mean" or "sum" if `how` says so, in units of `nats`.

        The mean divides by the sum of the second output, without one by the number of rows that are
        not ignored. The result goes to `out`, if that is an array of its very shape and dtype: a
        loss or a reduction when nothing can go wrong any more, another at once. None also for a
        label out of range, and for a unit of what is not reduced.
        """
        if type(how) is not str:
            return None
        cdef bint is_sum = how == "sum", is_mean = how == "mean"
        cdef whole_call w
        cdef double totals[KLCE_TOTALS]
        if not self.begin(&w, operands, axis, mask):
            return None
        if is_sum or is_mean:
            if not self.sums or (out is not None and not is_plain(out, w.real, 0, NULL, True)):
                return None
            if self.compute(&w, totals) & KLCE_BAD_LABEL:
                return None
            return self.sum_or_mean(&w, totals, is_mean, nats, out)
        if how != "none" or nats != 1:
            return None
        # A bad label leaves `out` as it was.
        cdef bint waits = out is not None and self.has_labels
        if waits and not is_plain(out, w.real, w.axes - 1, w.rows_shape, True):
            return None
        outs = [None if waits else out]
        if self.outputs > 1:
            outs.append(None)
        if not self.end(&w, operands, mask, outs) or self.compute(&w, NULL) & KLCE_BAD_LABEL:
            return None
        result = outs[0]
        if waits:
            cnp.PyArray_CopyInto(out, result)
            return out
        return result if out is not None or cnp.PyArray_NDIM(result) else result[()]

    def results(self, tuple operands not None, tuple outs not None, Py_ssize_t axis, mask=None, /):
        """Return all outputs: those given, which share no memory with another, new ones for None.

        Maps may work in place. A label out of range is told by raise_trouble.
        """
        cdef whole_call w
        cdef list arrays = list(outs)
        if not self.begin(&w, operands, axis, mask) or not self.end(&w, operands, mask, arrays):
            return None
        if self.compute(&w, NULL) & KLCE_BAD_LABEL:
            klce_set_trouble(BAD_LABEL)
        return tuple(arrays)

    def totals(self, tuple operands not None, Py_ssize_t axis, mask=None, /):
        """Return the sum of each output, numbers a row, which are not kept; labels as above."""
        cdef whole_call w
        cdef double totals[KLCE_TOTALS]
        if not self.sums or not self.begin(&w, operands, axis, mask):
            return None
        if self.compute(&w, totals) & KLCE_BAD_LABEL:
            klce_set_trouble(BAD_LABEL)
        return tuple([totals[k] for k in range(self.outputs)])

    cdef bint begin(self, whole_call *w, tuple operands, Py_ssize_t axis, mask) except -1:
        """Begin a call with its inputs; False for others than it takes."""
        cdef int k, number, ndim
        cdef char letter
        cdef bint by_row
        cdef object operand
        cdef cnp.npy_intp *shape
        if not self.takes_all or len(operands) != self.inputs:
            return False
        if not cnp.PyArray_CheckExact(operands[0]) or not start(w, self.op, operands[0], axis):
            return False
        if self.elementwise:
            w.call.n, w.call.rows, w.call.slabs = w.call.n * w.call.rows * w.call.slabs, 1, 1
            w.side_by_side = False
        for k in range(self.inputs):
            letter, operand = self.letter[k], operands[k]
            if letter == b"i":
                w.integer[k] = operand
                w.call.arg[k] = <char *>&w.integer[k]
                continue
            if letter == b"d" or type(operand) is float and (letter == b"w" or letter == b"s"):
                w.number[k] = operand
                w.single[k] = <float>w.number[k]
                w.call.arg[k] = <char *>&w.number[k]
                if letter != b"d" and w.real == cnp.NPY_FLOAT32:
                    w.call.arg[k] = <char *>&w.single[k]
                continue
            by_row = letter == b"l" or letter == b"s"
            number = (cnp.NPY_INT64 if letter == b"l"
                      else w.real if letter == b"s" or letter == b"w" else w.element)
            ndim = w.axes - by_row
            shape = &w.rows_shape[0] if by_row else &w.shape[0]
            if is_plain(operand, number, ndim, shape, False):
                place(w, k, not by_row, operand)
                if letter == b"l":
                    w.labels = <const int64_t *>w.call.arg[k]
                continue
            if letter == b"w":
                ndim, shape = 1, <cnp.npy_intp *>&w.call.n
            elif not by_row:
                return False
            if letter == b"s" and is_plain(operand, number, 0, NULL, False):
                w.call.arg[k] = <char *>cnp.PyArray_DATA(operand)
            elif is_repeated(operand, number, ndim, shape):
                w.call.arg[k] = <char *>cnp.PyArray_DATA(operand)
            elif letter == b"w" and is_plain(operand, number, ndim, shape, False):
                w.call.arg[k] = <char *>cnp.PyArray_DATA(operand)
                w.call.core[k] = cnp.PyArray_ITEMSIZE(operand)
            else:
                return False
        if mask is None:
            return True
        # The mask of a row of one class may be one of rows.
        if not self.takes_masks or w.call.slabs > 1 or w.call.n == 1:
            return False
        if not is_plain(mask, cnp.NPY_BOOL, w.axes, w.shape, False):
            return False
        w.call.mask = <const char *>cnp.PyArray_DATA(mask)
        w.call.mask_step = 1 if w.side_by_side else w.call.n
        w.call.mask_core = w.call.rows if w.side_by_side else 1
        return True

    cdef bint end(self, whole_call *w, tuple operands, mask, list outs) except -1:
        """Give the call its outputs, new ones for None, which `outs` then holds.

        False for those that share memory with another array, but for a map in place.
        """
        cdef int k, i, ndim, number
        cdef bint by_row, in_place
        cdef cnp.npy_intp *shape
        cdef object out, operand, other
        for k in range(self.inputs, self.inputs + self.outputs):
            by_row = self.letter[k] == b"s"
            number, ndim = (w.real if by_row else w.element), w.axes - by_row
            shape = &w.rows_shape[0] if by_row else &w.shape[0]
            out = outs[k - self.inputs]
            if out is None:
                outs[k - self.inputs] = out = new_array(ndim, shape, number)
            elif not is_plain(out, number, ndim, shape, True):
                return False
            else:
                for i in range(self.inputs):
                    operand = operands[i]
                    in_place = not by_row and w.has_classes[i] and w.call.arg[i] == (
                        <char *>cnp.PyArray_DATA(out))
                    if cnp.PyArray_Check(operand) and not in_place and not are_apart(out, operand):
                        return False
                if mask is not None and not are_apart(out, mask):
                    return False
                for other in outs:
                    if other is not None and other is not out and not are_apart(out, other):
                        return False
            place(w, k, not by_row, out)
        return True

    cdef int compute(self, whole_call *w, double *totals) except -1:
        """Run the call, or find the sums of its results; what kinds of labels were met."""
        cdef PyThreadState *state = NULL
        cdef int status
        if w.call.rows * w.call.slabs > GIL_THRESHOLD // (w.call.n + 1):
            state = PyEval_SaveThread()
        status = klce_run(&w.call) if totals == NULL else klce_run_totals(&w.call, totals)
        if state != NULL:
            PyEval_RestoreThread(state)
        if status != KLCE_OK:
            klce_set_trouble(NO_MEMORY)
            raise_trouble()
        return atomic_load(&w.labels_met)

    cdef object sum_or_mean(self, whole_call *w, const double *totals, bint is_mean, double nats,
                            out):
        """A sum or mean of the first output, as a scalar or in `out`."""
        cdef double value, by = 1
        cdef int64_t counted = w.call.rows * w.call.slabs
        cdef float rounded
        cdef cnp.ndarray scalar
        if is_mean:
            # Kernels tell what labels they met: most calls need no look at them.
            if self.outputs == 1 and atomic_load(&w.labels_met) & KLCE_IGNORED_LABEL:
                if w.labels == NULL:
                    counted = 0
                else:
                    klce_check_labels(w.labels, counted, w.call.n, w.integer[2], &counted)
            by = totals[1] if self.outputs > 1 else <double>counted
        value = klce_mean(w.call.dtype, totals[0], nats, by)
        rounded = <float>value  # which it is already
        scalar = cnp.PyArray_EMPTY(0, w.shape, w.real, 0) if out is None else out
        number = cnp.PyArray_ToScalar(
            &rounded if w.real == cnp.NPY_FLOAT32 else <void *>&value, scalar)
        if out is None:
            return number
        cnp.PyArray_SETITEM(out, cnp.PyArray_BYTES(out), number)
        return out


cdef class ShortWay:
    """Plain calls of a function, whose options are its kernels' parameters.

    On a small array, a call costs what Python does around the kernel.

    Parameters
    ----------
    defaults : dict
        The function's options.
    kernels : dict
        By ``form=``, "" where there is none, a list of tuples: the name of a kernel, and what it
        takes behind the arrays, numbers or options of the function by name. The first that has
        all options that differ from their defaults takes the call. A default None is 1: of weights.
    checks : dict
        By option, what gives its value as a kernel takes it, None where there is more to look at.
    """
    cdef dict defaults, kernels, checks
    cdef object form, reduction
    cdef Py_ssize_t axis

    def __init__(self, dict defaults not None, dict kernels not None, dict checks not None):
        self.defaults, self.checks, self.kernels = defaults, checks, {}
        self.form, self.reduction = defaults.get("form", ""), defaults.get("reduction", "none")
        self.axis = defaults.get("axis", -1)
        for form, rows in kernels.items():
            self.kernels[form] = taken = []
            for name, *parameters in rows:
                values = [defaults[p] if isinstance(p, str) else p for p in parameters]
                values = tuple([1.0 if value is None else value for value in values])
                taken.append((Plain(name), parameters, frozenset(parameters), values))

    def __call__(self, tuple args not None, dict kwargs not None, /):
        """Return the result of a plain call; None for any other, and what is wrong is not said."""
        cdef object out = None, mask = None, form = self.form, how = self.reduction
        cdef Py_ssize_t axis = self.axis
        cdef double nats = 1
        cdef dict options = None
        cdef tuple values
        for name, value in kwargs.items():
            if name not in self.defaults:
                return None
            default = self.defaults[name]
            if value is default:
                continue
            if name == "out":
                out = value
            elif name == "axis" and type(value) is int and -64 <= value < 64:
                axis = value
            elif name == "form" and type(value) is str:
                form = value
            elif name == "reduction":
                how = value
            elif name == "where":
                mask = value
            elif name in self.checks and type(value) in (float, int, np.ndarray):
                try:
                    value = self.checks[name](value)
                except (TypeError, ValueError):
                    return None
                if value is None:
                    return None
                if name == "base":
                    nats = value
                elif type(value) is np.ndarray or value != default:
                    options = {} if options is None else options
                    options[name] = value
            else:
                return None
        for plain, names, known, values in self.kernels.get(form, ()):
            if options is not None:
                if not options.keys() <= known:
                    continue
                values = tuple([options.get(name, v) for name, v in zip(names, values)])
            return (<Plain>plain).call(args + values, out, how, axis, mask, nats)
        return None


def check_labels(const int64_t[::1] labels, int64_t classes, int64_t ignore):
    """The index of the first label out of range; if -1, there is none, and how many count."""
    cdef int64_t counted = 0
    cdef Py_ssize_t count = labels.shape[0], bad
    cdef const int64_t *start = &labels[0] if count else NULL
    with nogil:
        bad = klce_check_labels(start, count, classes, ignore, &counted)
    return bad, counted


def are_weights(cnp.ndarray values):
    """Whether all numbers of a float32 or float64 array are finite and not negative."""
    if not cnp.PyArray_ISCARRAY_RO(values):
        values = values.copy()
    cdef Py_ssize_t k, count = cnp.PyArray_SIZE(values)
    cdef const float *singles = <const float *>cnp.PyArray_DATA(values)
    cdef const double *doubles = <const double *>cnp.PyArray_DATA(values)
    cdef bint good = True
    if cnp.PyArray_TYPE(values) == cnp.NPY_FLOAT32:
        for k in range(count):
            good &= (singles[k] >= 0) & (singles[k] < INFINITY)
    else:
        for k in range(count):
            good &= (doubles[k] >= 0) & (doubles[k] < INFINITY)
    return good


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
    cdef cnp.ndarray wide = new_like(halves, np.dtype(np.float32))
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
