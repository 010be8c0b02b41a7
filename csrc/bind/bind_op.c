/* bind_op.c -- one ATen op on arrays, and what the C core can do: known_ops, kernel_rows, providers, show_config. */
#include "bind_program.h"

#include <limits.h>

static const port_provider *
find_provider(const char *name)
{
    const port_provider *torch = port_provider_torch(), *openblas = port_provider_openblas();
    if (strcmp(name, "auto") == 0) {
        return torch != NULL && torch->sgemm != NULL ? torch : (openblas != NULL ? openblas : port_provider_reference());
    }
    if (strcmp(name, "torch") == 0) {
        return torch;
    }
    if (strcmp(name, "openblas") == 0) {
        return openblas;
    }
    return strcmp(name, "reference") == 0 ? port_provider_reference() : NULL;
}

int
bind_mkldnn(PyObject *obj, void *address)
{
    int *level = address;
    if (PyUnicode_Check(obj)) {
        static const char *const levels[] = {"avx2", "avx512", "avx512_bf16"};
        for (int k = 0; k < 3; k++) {
            if (PyUnicode_CompareWithASCIIString(obj, levels[k]) == 0) {
                *level = 1 + k;
                return 1;
            }
        }
        PyErr_Format(PyExc_ValueError, "mkldnn %R: expected True, False, 'avx2', 'avx512' or 'avx512_bf16'", obj);
        return 0;
    }
    int on = PyObject_IsTrue(obj);
    *level = on > 0 ? 1 + (int)port_cpu_has_avx512() + (int)port_cpu_has_avx512_bf16() : 0;
    return on >= 0;
}

static int
find_operands(const char *name, port_operand_format *format)
{
    static const char *const names[] = {"tf32", "bf16", "f16", "q8_0"};
    *format = PORT_OPERANDS_EXACT;
    if (name == NULL) {
        return 0;
    }
    for (int k = 0; k < 4; k++) {
        if (strcmp(name, names[k]) == 0) {
            *format = (port_operand_format)(PORT_OPERANDS_TF32 + k);
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "operands '%.100s': expected None, 'tf32', 'bf16', 'f16' or 'q8_0'", name);
    return -1;
}

int
bind_run_options(const char *provider, const char *variant, const char *operands, const char *capability, int num_threads, int mkldnn,
                 port_run_options *options)
{
    static const char *const capabilities[] = {"default", "avx2", "avx512"};
    *options = (port_run_options){.provider = find_provider(provider), .variant = variant};
    options->profile.num_threads = num_threads;
    options->profile.mkldnn = mkldnn != 0;
    options->profile.onednn_avx512 = mkldnn > 1;
    options->profile.onednn_bf16 = mkldnn > 2;
    if (find_operands(operands, &options->operands) < 0) {
        return -1;
    }
    if (options->provider == NULL) {
        PyErr_Format(PyExc_ValueError, "provider '%.100s' is not there; expected 'auto' or one of providers()", provider);
        return -1;
    }
    for (int k = 0; k < 3; k++) {
        if (strcasecmp(capability, capabilities[k]) == 0) {
            options->profile.capability = (port_capability)k;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "capability '%.100s': expected 'default', 'avx2' or 'avx512'", capability);
    return -1;
}

/* ------------------------------------------------------------------ arguments */

typedef struct arena_block {
    struct arena_block *next;
    port_arg items[];
} arena_block;

typedef struct op_reader {
    core_state *state;
    PyObject *keep; /* list: everything that pointers go into */
    port_view *tensors;
    size_t num_tensors, capacity;
    arena_block *blocks;
} op_reader;

static port_arg *
new_items(op_reader *reader, Py_ssize_t count)
{
    arena_block *block = PyMem_Malloc(sizeof *block + (size_t)count * sizeof block->items[0]);
    if (block == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    block->next = reader->blocks;
    reader->blocks = block;
    return block->items;
}

static void
reader_end(op_reader *reader)
{
    while (reader->blocks != NULL) {
        arena_block *next = reader->blocks->next;
        PyMem_Free(reader->blocks);
        reader->blocks = next;
    }
    PyMem_Free(reader->tensors);
    Py_XDECREF(reader->keep);
}

static int
read_tensor(op_reader *reader, PyObject *obj, port_arg *arg)
{
    if (reader->num_tensors == reader->capacity) {
        size_t capacity = reader->capacity > 0 ? 2 * reader->capacity : 8;
        port_view *grown = PyMem_Realloc(reader->tensors, capacity * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        reader->tensors = grown;
        reader->capacity = capacity;
    }
    if (bind_view_from_array(reader->state, obj, &reader->tensors[reader->num_tensors]) < 0) {
        return -1;
    }
    *arg = (port_arg){.kind = PORT_ARG_TENSOR, .i = (int64_t)reader->num_tensors++};
    return 0;
}

/* {"dtype": "F32"}, {"device": "cpu"}, {"layout": "strided"}, {"memory_format": "contiguous"}: program.json's forms. */
static int
read_tagged(op_reader *reader, PyObject *dict, port_arg *arg)
{
    static const char *const formats[] = {"contiguous", "preserve", "channels_last", "channels_last_3d"};
    PyObject *key, *value; /* borrowed; `keep` holds the value on */
    Py_ssize_t at = 0;
    if (PyDict_GET_SIZE(dict) != 1 || !PyDict_Next(dict, &at, &key, &value) || !PyUnicode_Check(key) || !PyUnicode_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "an argument that is a dict needs one of the keys dtype, device, layout, memory_format, "
                                         "and a string as value");
        return -1;
    }
    const char *tag = PyUnicode_AsUTF8(key), *text = PyUnicode_AsUTF8(value);
    if (tag == NULL || text == NULL || PyList_Append(reader->keep, value) < 0) {
        return -1;
    }
    *arg = (port_arg){.text = text};
    if (strcmp(tag, "dtype") == 0 && port_dtype_from_name(text) != PORT_NUM_DTYPES) {
        arg->kind = PORT_ARG_DTYPE;
        arg->i = port_dtype_from_name(text);
        return 0;
    }
    if (strcmp(tag, "device") == 0 || strcmp(tag, "layout") == 0) {
        arg->kind = tag[0] == 'd' ? PORT_ARG_DEVICE : PORT_ARG_LAYOUT;
        return 0;
    }
    for (int k = 0; k < 4 && strcmp(tag, "memory_format") == 0; k++) {
        if (strcmp(text, formats[k]) == 0) {
            arg->kind = PORT_ARG_MEMORY_FORMAT;
            arg->i = k;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "{'%.50s': '%.50s'} is no argument", tag, text);
    return -1;
}

static int read_arg(op_reader *reader, PyObject *obj, port_arg *arg);

/* A list or tuple argument, or (outermost) the tuple of all positional arguments, which may be lists themselves. */
static int
read_list(op_reader *reader, PyObject *obj, bool outermost, port_arg *arg)
{
    PyObject *tuple = PyList_Check(obj) ? PyList_AsTuple(obj) : Py_NewRef(obj); /* not by len(), which may say anything */
    int kept = tuple != NULL ? PyList_Append(reader->keep, tuple) : -1;
    Py_XDECREF(tuple);
    if (kept < 0) {
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    port_arg *items = new_items(reader, count);
    if (items == NULL) {
        return -1;
    }
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, k); /* borrowed */
        if (!outermost && (PyList_Check(item) || PyTuple_Check(item))) {
            PyErr_SetString(PyExc_TypeError, "a list inside a list is no argument of an op");
            return -1;
        }
        if (read_arg(reader, item, &items[k]) < 0) {
            return -1;
        }
    }
    *arg = (port_arg){.kind = PORT_ARG_LIST, .i = count, .items = items, .num_items = count};
    return 0;
}

static int
read_arg(op_reader *reader, PyObject *obj, port_arg *arg)
{
    *arg = (port_arg){.kind = PORT_ARG_NONE};
    if (obj == Py_None) {
        return 0;
    }
    if (PyBool_Check(obj)) {
        *arg = (port_arg){.kind = PORT_ARG_BOOL, .i = obj == Py_True, .d = obj == Py_True};
        return 0;
    }
    if (PyLong_Check(obj)) {
        long long value = PyLong_AsLongLong(obj);
        *arg = (port_arg){.kind = PORT_ARG_INT, .i = value, .d = (double)value};
        return value == -1 && PyErr_Occurred() ? -1 : 0;
    }
    if (PyFloat_Check(obj)) {
        *arg = (port_arg){.kind = PORT_ARG_FLOAT, .d = PyFloat_AS_DOUBLE(obj)};
        return 0;
    }
    if (PyComplex_CheckExact(obj)) {
        *arg = (port_arg){.kind = PORT_ARG_COMPLEX, .d = PyComplex_RealAsDouble(obj), .imag = PyComplex_ImagAsDouble(obj)};
        return 0;
    }
    if (PyUnicode_Check(obj)) {
        *arg = (port_arg){.kind = PORT_ARG_STRING, .text = PyUnicode_AsUTF8(obj)};
        return arg->text != NULL ? 0 : -1;
    }
    if (PyDict_Check(obj)) {
        return read_tagged(reader, obj, arg);
    }
    if (PyList_Check(obj) || PyTuple_Check(obj)) {
        return read_list(reader, obj, false, arg);
    }
    return read_tensor(reader, obj, arg);
}

static port_named_arg *
read_kwargs(op_reader *reader, PyObject *kwargs, size_t *count)
{
    PyObject *items = PyMapping_Items(kwargs);
    port_named_arg *named = NULL;
    if (items == NULL || PyList_Append(reader->keep, items) < 0) {
        goto done;
    }
    *count = (size_t)PyList_GET_SIZE(items);
    named = PyMem_Calloc(*count > 0 ? *count : 1, sizeof *named);
    for (size_t k = 0; named != NULL && k < *count; k++) {
        PyObject *pair = PyList_GET_ITEM(items, (Py_ssize_t)k); /* borrowed */
        bool is_named = PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2 && PyUnicode_Check(PyTuple_GET_ITEM(pair, 0));
        named[k].name = is_named ? PyUnicode_AsUTF8(PyTuple_GET_ITEM(pair, 0)) : NULL;
        if (named[k].name == NULL || read_arg(reader, PyTuple_GET_ITEM(pair, 1), &named[k].arg) < 0) {
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_TypeError, "the names of arguments must be strings");
            }
            PyMem_Free(named);
            named = NULL;
            goto done;
        }
    }
    if (named == NULL) {
        PyErr_NoMemory();
    }
done:
    Py_XDECREF(items);
    return named;
}

static PyObject *
results_to_python(core_state *state, port_result *results, size_t num_results)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)num_results);
    for (size_t k = 0; tuple != NULL && k < num_results; k++) {
        void *memory = results[k].memory;
        results[k].memory = NULL; /* the array takes it, also on failure */
        PyObject *array = bind_array_take(state, &results[k].view, memory);
        if (array == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)k, array);
    }
    port_results_free(results, num_results);
    if (tuple != NULL && num_results == 1) {
        PyObject *only = Py_NewRef(PyTuple_GET_ITEM(tuple, 0));
        Py_DECREF(tuple);
        return only;
    }
    return tuple;
}

static PyObject *
run_op(op_reader *reader, const char *name, PyObject *args, PyObject *kwargs, const port_run_options *options)
{
    port_arg list = {0};
    size_t num_named = 0, num_results = 0;
    port_result *results = NULL;
    port_error err = {.message = ""};
    if (read_list(reader, args, true, &list) < 0) {
        return NULL;
    }
    port_named_arg *named = read_kwargs(reader, kwargs, &num_named);
    if (named == NULL) {
        return NULL;
    }
    port_op_inputs inputs = {list.items, (size_t)list.num_items, named, num_named, reader->tensors, reader->num_tensors};
    uint64_t bytes = 0;
    for (size_t k = 0; k < reader->num_tensors; k++) {
        bytes += (uint64_t)port_view_elems(&reader->tensors[k]) * port_dtype_size(reader->tensors[k].dtype);
    }
    port_status status;
    if (bytes >= BIND_RELEASE_GIL_BYTES) {
        Py_BEGIN_ALLOW_THREADS
        status = port_op_run(name, &inputs, options, &results, &num_results, &err);
        Py_END_ALLOW_THREADS
    } else {
        status = port_op_run(name, &inputs, options, &results, &num_results, &err);
    }
    PyMem_Free(named);
    return status == PORT_OK ? results_to_python(reader->state, results, num_results) : bind_raise(reader->state, &err, NULL);
}

static PyObject *
core_call_op(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"name", "args", "kwargs", "provider", "variant", "capability", "num_threads", "mkldnn", "operands", NULL};
    const char *name, *provider = "auto", *variant = NULL, *operands = NULL, *capability = "default";
    PyObject *op_args, *op_kwargs = NULL, *result = NULL;
    int num_threads = 1, mkldnn = 1 + (int)port_cpu_has_avx512();
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO|O$szsiO&z", keywords, &name, &op_args, &op_kwargs, &provider, &variant,
                                     &capability, &num_threads, bind_mkldnn, &mkldnn, &operands)) {
        return NULL;
    }
    port_run_options options;
    if (bind_run_options(provider, variant, operands, capability, num_threads, mkldnn, &options) < 0) {
        return NULL;
    }
    op_reader reader = {.state = bind_state(module), .keep = PyList_New(0)};
    PyObject *tuple = PySequence_Tuple(op_args);
    PyObject *mapping = op_kwargs != NULL && op_kwargs != Py_None ? Py_NewRef(op_kwargs) : PyDict_New();
    if (reader.keep != NULL && tuple != NULL && mapping != NULL) {
        result = run_op(&reader, name, tuple, mapping, &options);
    }
    Py_XDECREF(tuple);
    Py_XDECREF(mapping);
    reader_end(&reader);
    return result;
}

/* ------------------------------------------------------------------ what there is */

static int
append_steal(PyObject *list, PyObject *item)
{
    int result = item != NULL ? PyList_Append(list, item) : -1;
    Py_XDECREF(item);
    return result;
}

static PyObject *
core_known_ops(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    char name[128];
    PyObject *list = PyList_New(0);
    for (size_t k = 0; list != NULL && port_op_known_name(k, name, sizeof name); k++) {
        if (append_steal(list, PyUnicode_FromString(name)) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
core_op_signature(PyObject *Py_UNUSED(module), PyObject *arg)
{
    const char *name = PyUnicode_AsUTF8(arg), *signature, *kernel;
    if (name == NULL) {
        return NULL;
    }
    if (!port_op_signature(name, &signature, &kernel)) {
        PyErr_Format(PyExc_ValueError, "no op with a handler is called %.200s", name);
        return NULL;
    }
    return Py_BuildValue("(sz)", signature, kernel);
}

static PyObject *
core_kernel_rows(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    for (const port_kernel_row *const *family = port_kernel_families(); list != NULL && *family != NULL; family++) {
        for (const port_kernel_row *row = *family; list != NULL && row->op != NULL; row++) {
            if (append_steal(list, Py_BuildValue("(sssi)", row->op, port_dtype_name(row->dtype), row->variant, row->cpu_level)) < 0) {
                Py_CLEAR(list);
            }
        }
    }
    return list;
}

static PyObject *
core_providers(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    const port_provider *all[] = {port_provider_reference(), port_provider_openblas(), port_provider_torch()};
    PyObject *list = PyList_New(0);
    for (int k = 0; list != NULL && k < 3; k++) {
        if (all[k] != NULL && append_steal(list, PyUnicode_FromString(all[k]->name)) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
core_set_torch_provider(PyObject *module, PyObject *args)
{
    const char *name;
    PyObject *number;
    port_error err = {.message = ""};
    if (!PyArg_ParseTuple(args, "sO!", &name, &PyLong_Type, &number)) {
        return NULL;
    }
    void *address = PyLong_AsVoidPtr(number);
    if (address == NULL && PyErr_Occurred()) {
        return NULL;
    }
    if (port_provider_torch_set(name, address, &err) != PORT_OK) {
        return bind_raise(bind_state(module), &err, NULL);
    }
    Py_RETURN_NONE;
}

static PyObject *
cpu_features(void)
{
    PyObject *list = PyList_New(0);
#if defined(__x86_64__)
    const struct {
        const char *name;
        int there;
    } rows[] = {{"avx", __builtin_cpu_supports("avx")}, {"avx2", __builtin_cpu_supports("avx2")},
                {"fma", __builtin_cpu_supports("fma")}, {"avx512f", __builtin_cpu_supports("avx512f")},
                {"avx512dq", __builtin_cpu_supports("avx512dq")}, {"avx512bw", __builtin_cpu_supports("avx512bw")},
                {"avx512vl", __builtin_cpu_supports("avx512vl")}};
    for (size_t k = 0; list != NULL && k < sizeof rows / sizeof rows[0]; k++) {
        if (rows[k].there && append_steal(list, PyUnicode_FromString(rows[k].name)) < 0) {
            Py_CLEAR(list);
        }
    }
#endif
    return list;
}

#if defined(PORT_OPENBLAS)
extern char *scipy_openblas_get_config(void); /* prefixed, as the scipy-openblas32 wheel names it */
#endif

static PyObject *
core_show_config(PyObject *module, PyObject *Py_UNUSED(ignored))
{
#if defined(PORT_OPENBLAS)
    const char *openblas = scipy_openblas_get_config();
#else
    const char *openblas = NULL;
#endif
#if defined(__clang__)
    const char *compiler = "clang " __clang_version__;
#elif defined(__VERSION__)
    const char *compiler = "gcc " __VERSION__;
#else
    const char *compiler = "unknown";
#endif
    PyObject *features = cpu_features(), *names = core_providers(module, NULL);
    PyObject *config = features != NULL && names != NULL
                           ? Py_BuildValue("{sisOsOszssss}", "cpu_level", (int)port_cpu_level(), "cpu_features", features, "providers",
                                           names, "openblas", openblas, "compiler", compiler, "compiled_for",
#if defined(__x86_64__)
                                           "x86-64"
#else
                                           "other"
#endif
                                           )
                           : NULL;
    Py_XDECREF(features);
    Py_XDECREF(names);
    return config;
}

static PyMethodDef functions[] = {
    {"call_op", (PyCFunction)(void (*)(void))core_call_op, METH_VARARGS | METH_KEYWORDS,
     "call_op(name, args, kwargs={}, *, provider='auto', variant=None, capability='default', num_threads=1, mkldnn=True, operands=None)\n--\n\n"
     "Run one ATen op on arrays and Python scalars; an array, or a tuple of arrays. A dtype is {'dtype': 'F32'}."},
    {"known_ops", core_known_ops, METH_NOARGS, "Names of the ATen ops that have a handler."},
    {"op_signature", core_op_signature, METH_O,
     "op_signature(name)\n--\n\nAn op's arguments (\"T self, S alpha=1\", csrc/program/args.c) and the kernel that it launches, or None."},
    {"kernel_rows", core_kernel_rows, METH_NOARGS, "(op, dtype, variant, cpu_level) of every kernel."},
    {"providers", core_providers, METH_NOARGS, "Names of the providers that are there."},
    {"set_torch_provider", core_set_torch_provider, METH_VARARGS, "Set one function of the torch provider by name."},
    {"show_config", core_show_config, METH_NOARGS, "What the C core was built with and runs on."},
    {NULL, NULL, 0, NULL},
};

int
bind_op_init(PyObject *module, core_state *Py_UNUSED(state))
{
    return PyModule_AddFunctions(module, functions);
}
