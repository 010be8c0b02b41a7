/* bind_compare.c -- compare(expected, actual, scale, unit_roundoff): port_compare on arrays (see _core.pyi). */
#include "bind.h"

#include "../compare/error_map.h"
#include "../compare/row_sizes.h"
#include "../compare/summary.h"

#define GIL_FREE_BYTES 65536

static int
set_item(PyObject *dict, const char *key, PyObject *value)
{
    if (value == NULL) {
        return -1;
    }
    int result = PyDict_SetItemString(dict, key, value);
    Py_DECREF(value);
    return result;
}

static PyObject *
histogram_list(const int64_t *counts)
{
    PyObject *list = PyList_New(PORT_ULP_BUCKETS);
    for (Py_ssize_t i = 0; list != NULL && i < PORT_ULP_BUCKETS; i++) {
        PyObject *count = PyLong_FromLongLong(counts[i]);
        if (count == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, i, count);
        }
    }
    return list;
}

static int
fill_counts(PyObject *dict, const port_metrics *m)
{
    const struct {
        const char *key;
        int64_t value;
    } rows[] = {
        {"num_elems", m->num_elems},
        {"num_unequal", m->num_unequal},
        {"num_nan_expected", m->num_nan_expected},
        {"num_nan_actual", m->num_nan_actual},
        {"num_nan_mismatch", m->num_nan_mismatch},
        {"num_inf_expected", m->num_inf_expected},
        {"num_inf_actual", m->num_inf_actual},
        {"num_inf_mismatch", m->num_inf_mismatch},
        {"first_nonfinite_mismatch", m->first_nonfinite_mismatch},
        {"max_abs_idx", m->max_abs_idx},
        {"max_rel_idx", m->max_rel_idx},
        {"num_rel_inf", m->num_rel_inf},
        {"max_ulp_idx", m->max_ulp_idx},
        {"max_err_scale_idx", m->max_err_scale_idx},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (set_item(dict, rows[i].key, PyLong_FromLongLong(rows[i].value)) < 0) {
            return -1;
        }
    }
    return set_item(dict, "max_ulp", PyLong_FromUnsignedLongLong(m->max_ulp));
}

static int
fill_numbers(PyObject *dict, const port_metrics *m)
{
    const struct {
        const char *key;
        double value;
    } rows[] = {
        {"max_abs", m->max_abs},
        {"mean_abs", m->mean_abs},
        {"p99_abs", m->p99_abs},
        {"p999_abs", m->p999_abs},
        {"max_rel", m->max_rel},
        {"mean_rel", m->mean_rel},
        {"mean_error", m->mean_error},
        {"mean_signed_ulp", m->mean_signed_ulp},
        {"max_err_scale", m->max_err_scale},
        {"sum_sq_error", m->sum_sq_error},
        {"sum_sq_expected", m->sum_sq_expected},
        {"sum_sq_actual", m->sum_sq_actual},
        {"sqnr_db", m->sqnr_db},
        {"nmse", m->nmse},
        {"cosine", m->cosine},
        {"pcc", m->pcc},
        {"min_expected", m->min_expected},
        {"max_expected", m->max_expected},
        {"min_actual", m->min_actual},
        {"max_actual", m->max_actual},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (set_item(dict, rows[i].key, PyFloat_FromDouble(rows[i].value)) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
read_scale(core_state *state, PyObject *scale, port_view *view, port_compare_options *options)
{
    if (scale == NULL || scale == Py_None) {
        return 0;
    }
    if (bind_is_array(scale)) {
        options->scale = view;
        return bind_view_from_array(state, scale, view);
    }
    options->scale_scalar = PyFloat_AsDouble(scale);
    return options->scale_scalar == -1.0 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *
compare(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"expected", "actual", "scale", "unit_roundoff", "slope", "basic", NULL};
    core_state *state = bind_state(module);
    PyObject *expected, *actual, *scale = NULL;
    port_compare_options options = {0};
    int basic = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|Oddp:compare", names, &expected, &actual, &scale,
                                     &options.unit_roundoff, &options.scale_slope, &basic)) {
        return NULL;
    }
    options.basic = basic != 0;
    port_view view_e, view_a, view_s;
    if (bind_view_from_array(state, expected, &view_e) < 0 || bind_view_from_array(state, actual, &view_a) < 0 ||
        read_scale(state, scale, &view_s, &options) < 0) {
        return NULL;
    }
    port_metrics m;
    port_error err;
    port_status status;
    if ((uint64_t)port_view_elems(&view_e) * port_dtype_size(view_e.dtype) >= GIL_FREE_BYTES) {
        Py_BEGIN_ALLOW_THREADS
        status = port_compare(&view_e, &view_a, &options, &m, &err);
        Py_END_ALLOW_THREADS
    } else {
        status = port_compare(&view_e, &view_a, &options, &m, &err);
    }
    if (status != PORT_OK) {
        return bind_raise(state, &err, NULL);
    }
    PyObject *dict = PyDict_New();
    if (dict == NULL || fill_counts(dict, &m) < 0 || fill_numbers(dict, &m) < 0 ||
        (!basic && set_item(dict, "ulp_histogram", histogram_list(m.ulp_histogram)) < 0)) {
        Py_XDECREF(dict);
        return NULL;
    }
    return dict;
}

PyDoc_STRVAR(compare_doc, "compare(expected, actual, scale=None, unit_roundoff=0.0, slope=0.0, basic=False)\n--\n\n"
             "Measure two arrays of the same shape in one pass; port_metrics as a dict. Indices are flat, row-major.");

static PyObject *
row_sizes(PyObject *module, PyObject *args)
{
    core_state *state = bind_state(module);
    PyObject *array;
    const char *kind;
    port_view view;
    if (!PyArg_ParseTuple(args, "Os:row_sizes", &array, &kind) || bind_view_from_array(state, array, &view) < 0) {
        return NULL;
    }
    if (strcmp(kind, "rms") != 0 && strcmp(kind, "median") != 0) {
        PyErr_Format(PyExc_ValueError, "the size of a row is 'rms' or 'median', got '%s'", kind);
        return NULL;
    }
    int64_t cols = view.ndim > 0 ? view.shape[view.ndim - 1] : 1;
    int64_t rows = cols > 0 ? port_view_elems(&view) / cols : 0;
    double *sizes = port_alloc_aligned((size_t)rows * sizeof *sizes);
    if (sizes == NULL) {
        return PyErr_NoMemory();
    }
    port_error err;
    port_status status;
    Py_BEGIN_ALLOW_THREADS
    status = port_row_sizes(&view, strcmp(kind, "rms") == 0 ? PORT_ROW_RMS : PORT_ROW_MEDIAN, sizes, &err);
    Py_END_ALLOW_THREADS
    if (status != PORT_OK) {
        port_free_aligned(sizes);
        return bind_raise(state, &err, NULL);
    }
    port_view out = port_view_contiguous(sizes, PORT_F64, 1, &rows);
    return bind_array_take(state, &out, sizes);
}

PyDoc_STRVAR(row_sizes_doc, "row_sizes(x, kind)\n--\n\n"
             "Root mean square ('rms') or median of |x| ('median') of each row of a row-major array: float64, one per row.");

PyDoc_STRVAR(summarize_doc, "summarize(x)\n--\n\nStatistics, hash and sketch of an array as bytes (docs/FORMAT.md, section 10).");

static PyObject *
summarize(PyObject *module, PyObject *array)
{
    core_state *state = bind_state(module);
    port_view view;
    if (bind_view_from_array(state, array, &view) < 0) {
        return NULL;
    }
    port_summary summary;
    port_error err;
    port_status status;
    Py_BEGIN_ALLOW_THREADS
    status = port_summarize(&view, &summary, &err);
    Py_END_ALLOW_THREADS
    if (status != PORT_OK) {
        return bind_raise(state, &err, NULL);
    }
    unsigned char bytes[SUMMARY_MAX_BYTES];
    size_t size = port_summary_write(&view, &summary, bytes);
    return PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)size);
}

static PyObject *
error_map(PyObject *module, PyObject *args)
{
    core_state *state = bind_state(module);
    PyObject *expected, *actual, *result = NULL, *cells = NULL, *worst = NULL;
    long long rows, cols, most_worst;
    port_view view_e, view_a;
    if (!PyArg_ParseTuple(args, "OOLLL:error_map", &expected, &actual, &rows, &cols, &most_worst) ||
        bind_view_from_array(state, expected, &view_e) < 0 || bind_view_from_array(state, actual, &view_a) < 0) {
        return NULL;
    }
    if (rows < 1 || cols < 1 || rows > 4096 || cols > 4096 || most_worst < 0 || most_worst > 4096) {
        PyErr_SetString(PyExc_ValueError, "a map of errors has 1 to 4096 rows and columns and at most 4096 worst elements");
        return NULL;
    }
    port_error_map map = {.rows = rows, .cols = cols, .most_worst = most_worst};
    map.cells = port_alloc_aligned((size_t)(rows * cols) * sizeof *map.cells);
    map.worst = port_alloc_aligned((size_t)most_worst * sizeof *map.worst);
    port_error err;
    if (map.cells == NULL || map.worst == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    port_status status;
    Py_BEGIN_ALLOW_THREADS
    status = port_map_errors(&view_e, &view_a, &map, &err);
    Py_END_ALLOW_THREADS
    if (status != PORT_OK) {
        bind_raise(state, &err, NULL);
        goto done;
    }
    int64_t shape[2] = {rows, cols};
    port_view cells_view = port_view_contiguous(map.cells, PORT_F64, 2, shape);
    port_view worst_view = port_view_contiguous(map.worst, PORT_I64, 1, &map.num_worst);
    cells = bind_array_take(state, &cells_view, map.cells);
    map.cells = NULL; /* taken, also on failure */
    worst = cells != NULL ? bind_array_take(state, &worst_view, map.worst) : NULL;
    map.worst = cells != NULL ? NULL : map.worst;
    result = worst != NULL ? PyTuple_Pack(2, cells, worst) : NULL;
done:
    port_free_aligned(map.cells);
    port_free_aligned(map.worst);
    Py_XDECREF(cells);
    Py_XDECREF(worst);
    return result;
}

PyDoc_STRVAR(error_map_doc, "error_map(expected, actual, rows, cols, worst)\n--\n\n"
             "Where two row-major arrays differ: (greatest |a - e| of each of rows x cols cells, flat indices of the worst elements).");

static PyMethodDef compare_methods[] = {
    {"summarize", summarize, METH_O, summarize_doc},
    {"compare", (PyCFunction)(void (*)(void))compare, METH_VARARGS | METH_KEYWORDS, compare_doc},
    {"error_map", error_map, METH_VARARGS, error_map_doc},
    {"row_sizes", row_sizes, METH_VARARGS, row_sizes_doc},
    {NULL, NULL, 0, NULL},
};

int
bind_compare_init(PyObject *module, core_state *state)
{
    (void)state;
    return PyModule_AddFunctions(module, compare_methods);
}
