/* bind_array.c -- NumPy arrays to port_view and back. The only file that includes NumPy headers. */
#include "bind.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

static const struct {
    port_dtype dtype;
    int type_num;            /* NumPy's, or -1: the ml_dtypes scalar type named here */
    const char *extension;
} numpy_types[PORT_NUM_DTYPES] = {
    {PORT_BOOL, NPY_BOOL, NULL},         {PORT_U8, NPY_UINT8, NULL},
    {PORT_I8, NPY_INT8, NULL},           {PORT_I16, NPY_INT16, NULL},
    {PORT_U16, NPY_UINT16, NULL},        {PORT_I32, NPY_INT32, NULL},
    {PORT_U32, NPY_UINT32, NULL},        {PORT_I64, NPY_INT64, NULL},
    {PORT_U64, NPY_UINT64, NULL},        {PORT_F16, NPY_FLOAT16, NULL},
    {PORT_BF16, -1, "bfloat16"},         {PORT_F32, NPY_FLOAT32, NULL},
    {PORT_F64, NPY_FLOAT64, NULL},       {PORT_F8_E4M3, -1, "float8_e4m3fn"},
    {PORT_F8_E5M2, -1, "float8_e5m2"},   {PORT_C64, NPY_COMPLEX64, NULL},
};

/* The NumPy dtype (borrowed, kept in the module state). */
static PyArray_Descr *
descr_of(core_state *state, port_dtype dtype)
{
    PyObject **slot = &state->numpy_dtypes[dtype];
    if (*slot == NULL) {
        if (numpy_types[dtype].type_num >= 0) {
            *slot = (PyObject *)PyArray_DescrFromType(numpy_types[dtype].type_num);
        } else {
            PyObject *module = PyImport_ImportModule("ml_dtypes");
            PyObject *type = module != NULL ? PyObject_GetAttrString(module, numpy_types[dtype].extension) : NULL;
            PyArray_Descr *descr = NULL;
            if (type != NULL && PyArray_DescrConverter(type, &descr)) {
                *slot = (PyObject *)descr;
            }
            Py_XDECREF(type);
            Py_XDECREF(module);
        }
    }
    return (PyArray_Descr *)*slot;
}

/* The dtype of a descriptor; PORT_NUM_DTYPES if there is none, -1 with an exception on failure. */
static int
dtype_of(core_state *state, PyArray_Descr *descr)
{
    for (int i = 0; i < PORT_NUM_DTYPES; i++) {
        if (numpy_types[i].type_num == descr->type_num) {
            return i;
        }
    }
    for (int i = 0; i < PORT_NUM_DTYPES; i++) { /* another name of one of them; slow to ask */
        if (numpy_types[i].type_num >= 0 && descr->type_num < NPY_USERDEF && PyArray_EquivTypenums(descr->type_num, numpy_types[i].type_num)) {
            return i;
        }
    }
    if (descr->type_num < NPY_USERDEF) {
        return PORT_NUM_DTYPES;
    }
    for (int i = 0; i < PORT_NUM_DTYPES; i++) {
        if (numpy_types[i].type_num < 0) {
            PyArray_Descr *known = descr_of(state, (port_dtype)i);
            if (known == NULL) {
                return -1;
            }
            if (known->type_num == descr->type_num) {
                return i;
            }
        }
    }
    return PORT_NUM_DTYPES;
}

int
bind_is_array(PyObject *obj)
{
    return PyArray_Check(obj);
}

int
bind_view_from_array(core_state *state, PyObject *obj, port_view *view)
{
    if (!PyArray_Check(obj)) {
        PyErr_Format(PyExc_TypeError, "expected a NumPy array, got %.100s", Py_TYPE(obj)->tp_name);
        return -1;
    }
    PyArrayObject *array = (PyArrayObject *)obj;
    PyArray_Descr *descr = PyArray_DESCR(array);
    int dtype = dtype_of(state, descr);
    if (dtype < 0) {
        return -1;
    }
    if (dtype == PORT_NUM_DTYPES || !PyArray_ISNBO(descr->byteorder)) {
        PyErr_Format(state->dtype_error, "no tensor can have dtype %R; expected a native bool, integer, float, bfloat16, "
                     "float8 or complex64 array", descr);
        return -1;
    }
    if (PyArray_NDIM(array) > PORT_MAX_NDIM) {
        PyErr_Format(state->shape_error, "the array has %d dimensions, at most %d are possible", PyArray_NDIM(array),
                     PORT_MAX_NDIM);
        return -1;
    }
    *view = (port_view){.data = PyArray_DATA(array), .dtype = (port_dtype)dtype, .ndim = PyArray_NDIM(array)};
    npy_intp size = (npy_intp)port_dtype_size(view->dtype);
    for (int d = 0; d < view->ndim; d++) {
        view->shape[d] = PyArray_DIM(array, d);
        if (view->shape[d] > 1 && PyArray_STRIDE(array, d) % size != 0) {
            PyErr_SetString(PyExc_ValueError, "the array's strides are no whole number of elements; copy it first");
            return -1;
        }
        view->strides[d] = PyArray_STRIDE(array, d) / size;
    }
    return 0;
}

static PyObject *
new_array(core_state *state, const port_view *view, int flags)
{
    PyArray_Descr *descr = descr_of(state, view->dtype);
    if (descr == NULL) {
        return NULL;
    }
    npy_intp shape[PORT_MAX_NDIM], strides[PORT_MAX_NDIM];
    npy_intp size = (npy_intp)port_dtype_size(view->dtype);
    for (int d = 0; d < view->ndim; d++) {
        shape[d] = (npy_intp)view->shape[d];
        strides[d] = (npy_intp)view->strides[d] * size;
    }
    static char nothing[8]; /* NumPy allocates for itself when given NULL */
    Py_INCREF(descr);       /* stolen by the call below */
    return PyArray_NewFromDescr(&PyArray_Type, descr, view->ndim, shape, strides, view->data != NULL ? view->data : nothing,
                                flags, NULL);
}

PyObject *
bind_array_over(core_state *state, const port_view *view, PyObject *owner)
{
    PyObject *array = new_array(state, view, 0);
    if (array != NULL) {
        Py_INCREF(owner); /* stolen by the call below, also on failure */
        if (PyArray_SetBaseObject((PyArrayObject *)array, owner) < 0) {
            Py_CLEAR(array);
        }
    }
    return array;
}

static void
free_memory(PyObject *capsule)
{
    port_free_aligned(PyCapsule_GetPointer(capsule, "porting.memory"));
}

PyObject *
bind_array_take(core_state *state, const port_view *view, void *memory)
{
    PyObject *capsule = PyCapsule_New(memory, "porting.memory", free_memory);
    if (capsule == NULL) {
        port_free_aligned(memory);
        return NULL;
    }
    PyObject *array = new_array(state, view, NPY_ARRAY_WRITEABLE);
    if (array == NULL) {
        Py_DECREF(capsule);
        return NULL;
    }
    if (PyArray_SetBaseObject((PyArrayObject *)array, capsule) < 0) { /* steals capsule */
        Py_CLEAR(array);
    }
    return array;
}

int
bind_array_init(PyObject *Py_UNUSED(module), core_state *Py_UNUSED(state))
{
    import_array1(-1);
    return 0;
}
