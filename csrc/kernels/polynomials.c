/* polynomials.c -- orthogonal polynomials by their recurrences, in the dtype and order of PyTorch's CPU kernels, whose terms cancel: another
 * order gives other digits. Formulas: ATen's Math.h (BSD-3-Clause; restated). */
#include "functions.h"

#include <stdint.h>

/* a b - c d */
static double
difference(port_precision p, double a, double b, double c, double d)
{
    return port_fused_step(p, a, b, -port_step(p, c * d));
}

static double
cosine(port_precision p, double v)
{
    return p.is_f32 ? (double)cosf((float)v) : cos(v);
}

static double
sine(port_precision p, double v)
{
    return p.is_f32 ? (double)sinf((float)v) : sin(v);
}

/* At the ends of the interval, where cosines have no sine to be divided by. */
static double
chebyshev_at_end(port_polynomial kind, bool positive, int64_t n)
{
    bool one = kind == PORT_CHEBYSHEV_T || (kind != PORT_CHEBYSHEV_U && (kind == PORT_CHEBYSHEV_V) == positive);
    double size = one ? 1.0 : (kind == PORT_CHEBYSHEV_U ? (double)(n + 1) : 2.0 * (double)n + 1.0);
    return positive || n % 2 == 0 ? size : -size;
}

static double
chebyshev_inside(port_polynomial kind, bool shifted, double x, int64_t n, port_precision p)
{
    double angle = p.is_f32 ? (double)acosf((float)x) : acos(x), half = angle / 2.0, degree = port_step(p, (double)n);
    double between = port_step(p, port_step(p, degree + 0.5) * angle);
    switch (kind) {
    case PORT_CHEBYSHEV_U: return sine(p, port_step(p, port_step(p, (double)(n + 1)) * angle)) / sine(p, angle);
    case PORT_CHEBYSHEV_V: return sine(p, half) != 1.0 ? cosine(p, between) / cosine(p, half) : chebyshev_at_end(kind, false, n);
    case PORT_CHEBYSHEV_W: return cosine(p, half) != 1.0 ? sine(p, between) / sine(p, half) : chebyshev_at_end(kind, !shifted, n);
    default: return cosine(p, port_step(p, degree * angle));
    }
}

/* The polynomial of degree k + 1 from those of degree k (now) and k - 1 (before). */
static double
next_polynomial(port_polynomial kind, double x, double k, double now, double before, port_precision p)
{
    switch (kind) {
    case PORT_HERMITE_H: return difference(p, 2.0 * x, now, 2.0 * k, before);
    case PORT_HERMITE_HE: return difference(p, x, now, k, before);
    case PORT_LAGUERRE_L: return difference(p, port_step(p, 2.0 * k + port_step(p, 1.0 - x)), now, k, before) / (k + 1.0);
    case PORT_LEGENDRE_P: return difference(p, port_step(p, (2.0 * k + 1.0) * x), now, k, before) / (k + 1.0);
    default: return difference(p, port_step(p, 2.0 * x), now, 1.0, before);
    }
}

static double
first_degree(port_polynomial kind, double x, port_precision p)
{
    double twice = port_step(p, 2.0 * x);
    switch (kind) {
    case PORT_CHEBYSHEV_U:
    case PORT_HERMITE_H: return twice;
    case PORT_CHEBYSHEV_V: return port_step(p, twice - 1.0);
    case PORT_CHEBYSHEV_W: return port_step(p, twice + 1.0);
    case PORT_LAGUERRE_L: return port_step(p, 1.0 - x);
    default: return x;
    }
}

/* Where no recurrence is needed, or none is run. */
static bool
is_closed(port_polynomial kind, bool shifted, double x, double inner, int64_t n, port_precision p, double *y)
{
    static const int64_t closed_above[2][4] = {{6, 8, 8, 8}, {6, 6, 6, 4}};
    bool chebyshev = kind <= PORT_CHEBYSHEV_W, hermite = kind == PORT_HERMITE_H || kind == PORT_HERMITE_HE;
    bool at_end = shifted ? x == 0.0 || x == 1.0 : fabs(x) == 1.0;
    if (at_end && (chebyshev || kind == PORT_LEGENDRE_P)) {
        *y = chebyshev_at_end(chebyshev ? kind : PORT_CHEBYSHEV_T, x > 0.0, n);
    } else if (chebyshev && n > closed_above[shifted][kind] && fabs(inner) < 1.0) {
        *y = chebyshev_inside(kind, shifted, inner, n, p);
    } else if (n == 0 || (kind == PORT_LAGUERRE_L && x == 0.0)) {
        *y = 1.0;
    } else if (hermite && n > (p.is_f32 ? 128 : 512)) {
        *y = (double)NAN;
    } else {
        return false;
    }
    return true;
}

static double
inner_of(bool shifted, double x, port_precision p)
{
    return shifted ? port_step(p, port_step(p, 2.0 * x) - 1.0) : x;
}

bool
port_polynomial_is_long(port_polynomial kind, bool shifted, double x, double degree, port_precision p)
{
    /* Beyond it Chebyshev's, which grow by e^sqrt(2 (x - 1)) in each step, are infinite, and then no number, in fewer. */
    const double slow = 1.0 + (p.is_f32 ? 1e-8 : 3e-7);
    double inner = inner_of(shifted, x, p), closed;
    if (!(degree > PORT_MAX_DEGREE && degree < 0x1p63)) {
        return false;
    }
    bool chebyshev = kind <= PORT_CHEBYSHEV_W, recurs = kind == PORT_LAGUERRE_L || kind == PORT_LEGENDRE_P;
    return recurs || (chebyshev && fabs(inner) < slow && !is_closed(kind, shifted, x, inner, (int64_t)degree, p, &closed));
}

double
port_polynomial_of(port_polynomial kind, bool shifted, double x, double degree, port_precision p)
{
    if (!(degree > -1.0 && degree < 0x1p63)) { /* beyond it no integer is left, and the reference's conversion gives the least one */
        return 0.0;
    }
    int64_t n = (int64_t)degree;
    double inner = inner_of(shifted, x, p), closed;
    if (is_closed(kind, shifted, x, inner, n, p, &closed)) {
        return port_step(p, closed);
    }
    bool hermite = kind == PORT_HERMITE_H || kind == PORT_HERMITE_HE;
    double before = 1.0, now = first_degree(kind, inner, p);
    for (int64_t k = 1; k < n && (hermite || now == now); k++) {
        double next = port_step(p, next_polynomial(kind, inner, (double)k, now, before, p));
        before = now;
        now = next;
    }
    return now;
}
