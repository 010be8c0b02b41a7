/* numbers.c -- see numbers.h. */
#include "numbers.h"

#include <math.h>

port_status
numbers_of(op_call *call, const port_tensor *x, number_list *numbers)
{
    const port_tensor *wide;
    bool whole = !dtype_is_float(x->dtype);
    port_status status = tensor_cast(call, x, whole ? PORT_I64 : PORT_F64, &wide);
    if (status == PORT_OK) {
        const void *data = tensor_view(wide).data;
        *numbers = (number_list){whole, data, data};
    }
    return status;
}

int
compare_numbers(const number_list *numbers, int64_t i, int64_t j)
{
    if (numbers->whole) {
        return (numbers->i64[i] > numbers->i64[j]) - (numbers->i64[i] < numbers->i64[j]);
    }
    double a = numbers->f64[i], b = numbers->f64[j];
    if (a != a || b != b) {
        return (a != a) - (b != b);
    }
    return (a > b) - (a < b);
}

static port_status
new_room(op_call *call, port_dtype dtype, int64_t n, void **room)
{
    port_tensor *held;
    port_status status = tensor_new(call, dtype, 1, &n, NULL, &held);
    *room = status == PORT_OK ? tensor_view(held).data : NULL;
    return status;
}

port_status
new_doubles(op_call *call, int64_t n, double **room)
{
    void *held;
    port_status status = new_room(call, PORT_F64, n, &held);
    *room = held;
    return status;
}

port_status
new_integers(op_call *call, int64_t n, int64_t **room)
{
    void *held;
    port_status status = new_room(call, PORT_I64, n, &held);
    *room = held;
    return status;
}

bool
dtype_holds(port_dtype dtype, double v)
{
    bool is_unsigned = dtype == PORT_U8 || dtype == PORT_U16 || dtype == PORT_U32 || dtype == PORT_U64;
    int bits = 8 * (int)port_dtype_size(dtype) - (is_unsigned ? 0 : 1);
    bits = bits < 63 ? bits : 63; /* also of U64: callers go on in int64 */
    double most = bits < 53 ? ldexp(1.0, bits) - 1.0 : nextafter(ldexp(1.0, bits), 0.0);
    return v <= most && v >= (is_unsigned ? 0.0 : -ldexp(1.0, bits));
}
