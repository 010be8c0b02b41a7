/* functions.c -- series, continued fractions and recurrences for the functions of functions.h.
 * Source: NIST Handbook of Mathematical Functions, chapters 5, 7, 8, 10, 18, 25. */
#include "functions.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

static const double PI = 3.14159265358979323846;

/* ---------------------------------------------------------------- Bessel */

/* The power series up to 30, beyond it the asymptotic one. */
static double
bessel_ie(int order, double x)
{
    double size = fabs(x), half = size / 2.0, sum = 1.0, term = 1.0, mu = 4.0 * order * order;
    if (isinf(size)) {
        return 0.0;
    }
    if (size < 30.0) {
        for (int k = 1; k < 120; k++) {
            term *= half / k * (half / (k + order));
            sum += term;
        }
        return sum * (order == 1 ? half : 1.0) * exp(-size);
    }
    for (int k = 1; k < 25; k++) {
        term *= ((2.0 * k - 1.0) * (2.0 * k - 1.0) - mu) / (8.0 * k * size);
        sum += term;
    }
    return sum / sqrt(2.0 * PI * size);
}

double
port_bessel_i0e(double x)
{
    return bessel_ie(0, x);
}

double
port_bessel_i1e(double x)
{
    return copysign(bessel_ie(1, x), x);
}

/* The integral of e^(-x (cosh t - 1)) cosh(order t) over t >= 0 by the trapezoidal rule, whose error is e^(-pi^2 / step). */
double
port_bessel_ke(double order, double x)
{
    const double step = 0.125;
    double sum = 0.5;
    if (!(x > 0.0)) {
        return x == 0.0 ? (double)INFINITY : (double)NAN;
    }
    for (int k = 1; k < 6400; k++) {
        double t = step * k, fall = x * (cosh(t) - 1.0);
        if (fall > 745.0) {
            break;
        }
        sum += exp(-fall) * cosh(order * t);
    }
    return isinf(x) ? 0.0 : sum * step;
}

/* ---------------------------------------------------------------- error functions */

double
port_erfcx(double x)
{
    if (x < 25.0) {
        return exp(x * x) * erfc(x);
    }
    double z = 0.5 / (x * x);
    return (1.0 - z * (1.0 - 3.0 * z * (1.0 - 5.0 * z * (1.0 - 7.0 * z)))) / (x * sqrt(PI));
}

double
port_log_ndtr(double x)
{
    double t = x * 0.70710678118654752440;
    return x < -1.0 ? log(port_erfcx(-t) / 2.0) - t * t : log1p(-erfc(t) / 2.0);
}

/* A first guess by the tail's logarithm, then Halley's steps on the lower half. */
double
port_ndtri(double p)
{
    if (p == 0.0 || p == 1.0) {
        return p == 0.0 ? -(double)INFINITY : (double)INFINITY;
    }
    if (!(p > 0.0 && p < 1.0)) {
        return (double)NAN;
    }
    double low = p <= 0.5 ? p : 1.0 - p, far = sqrt(-2.0 * log(low));
    double x = -(far - (2.515517 + far * (0.802853 + far * 0.010328)) / (1.0 + far * (1.432788 + far * (0.189269 + far * 0.001308))));
    for (int step = 0; step < 4; step++) {
        double excess = (0.5 * erfc(-x * 0.70710678118654752440) - low) * sqrt(2.0 * PI) * exp(0.5 * x * x);
        x -= excess / (1.0 + 0.5 * x * excess);
    }
    return p <= 0.5 ? x : -x;
}

/* ---------------------------------------------------------------- the gamma function's family */

/* The first terms, then Euler's and Maclaurin's formula. */
double
port_zeta(double x, double q)
{
    static const double bernoulli[] = {1.0 / 6, -1.0 / 30, 1.0 / 42, -1.0 / 30, 5.0 / 66, -691.0 / 2730, 7.0 / 6, -3617.0 / 510};
    if (x == 1.0) {
        return (double)INFINITY;
    }
    if (x < 1.0 || q != q) {
        return (double)NAN;
    }
    if (q <= 0.0 && (q == floor(q) || x != floor(x))) {
        return q == floor(q) ? (double)INFINITY : (double)NAN;
    }
    if (isinf(x)) { /* above 1 the reference multiplies 0 by infinity */
        return q > 1.0 ? (double)NAN : pow(q, -x);
    }
    double sum = 0.0, at = q;
    for (int k = 0; k < 10 || at <= 10.0; k++, at += 1.0) {
        double term = pow(at, -x);
        sum += term;
        if (k >= 10 && at > 0.0 && fabs(term) < 1e-17 * fabs(sum)) {
            return sum;
        }
        if (at < -1e6) { /* so far below 0 no sum of terms comes to an end */
            return (double)NAN;
        }
    }
    double last = pow(at, -x), factor = x / at / 2.0;
    sum += last * at / (x - 1.0) + last / 2.0;
    for (int k = 0; k < 8; k++) {
        sum += bernoulli[k] * last * factor;
        factor *= (x + 2.0 * k + 1.0) * (x + 2.0 * k + 2.0) / (at * at) / ((2.0 * k + 3.0) * (2.0 * k + 4.0));
    }
    return sum;
}

/* Six terms of the recurrence and three of the asymptotic series, which is all that the reference takes: 9 digits. */
static double
trigamma(double x)
{
    double sum = 0.0;
    if (x < 0.5) {
        double wave = sin(PI * x);
        return PI * PI / (wave * wave) - trigamma(1.0 - x);
    }
    for (int k = 0; k < 6; k++, x += 1.0) {
        sum += 1.0 / (x * x);
    }
    double z = 1.0 / (x * x);
    return sum + (1.0 + 1.0 / (2.0 * x) + z * (1.0 / 6.0 - z * (1.0 / 30.0 - z * (1.0 / 42.0)))) / x;
}

double
port_polygamma(double n, double x)
{
    if (n == 1.0) {
        return trigamma(x);
    }
    double size = exp(lgamma(n + 1.0)) * port_zeta(n + 1.0, x);
    return fmod(n, 2.0) == 0.0 ? -size : size;
}

enum { MAX_TERMS = 20000 };

/* x^a e^-x / gamma(a + 1) */
static double
gamma_factor(double a, double x)
{
    return exp(a * log(x) - x - lgamma(a + 1.0));
}

/* From 0 to x: its power series, for x below a + 1. */
static double
lower_series(double a, double x)
{
    double sum = 1.0, term = 1.0;
    for (int k = 1; k < MAX_TERMS && term > 1e-17 * sum; k++) {
        term *= x / (a + k);
        sum += term;
    }
    return gamma_factor(a, x) * sum;
}

/* From x on: Lentz's evaluation of the continued fraction. */
static double
upper_fraction(double a, double x)
{
    double b = x + 1.0 - a, c = 1e300, d = 1.0 / b, f = d;
    for (int k = 1; k < MAX_TERMS; k++) {
        double numerator = -k * (k - a);
        b += 2.0;
        d = 1.0 / (numerator * d + b);
        c = b + numerator / c;
        f *= c * d;
        if (fabs(c * d - 1.0) < 1e-16) {
            break;
        }
    }
    return a * gamma_factor(a, x) * f;
}

/* The value where nothing is to be summed: of the part from 0 on. */
static bool
igamma_at_an_end(double a, double x, double *lower)
{
    bool at_zero = a == 0.0, far = isinf(a) && x != 0.0 && !at_zero;
    *lower = (at_zero && x > 0.0) || (!at_zero && x != 0.0 && isinf(x)) ? 1.0 : 0.0;
    if (x < 0.0 || a < 0.0 || (at_zero && !(x > 0.0)) || (far && isinf(x))) {
        *lower = (double)NAN;
        return true;
    }
    if (far) {
        *lower = 0.0;
    }
    return at_zero || x == 0.0 || far || isinf(x);
}

double
port_igamma(double a, double x)
{
    double end;
    if (igamma_at_an_end(a, x, &end)) {
        return end;
    }
    return x < a + 1.0 ? lower_series(a, x) : 1.0 - upper_fraction(a, x);
}

double
port_igammac(double a, double x)
{
    double end;
    if (igamma_at_an_end(a, x, &end)) {
        return 1.0 - end;
    }
    return x < a + 1.0 ? 1.0 - lower_series(a, x) : upper_fraction(a, x);
}

/* ---------------------------------------------------------------- orthogonal polynomials */

/* At -1 and 1, where cosines have no sine to be divided by. */
static double
chebyshev_at_end(port_polynomial kind, bool positive, double n)
{
    double sign = positive || fmod(n, 2.0) == 0.0 ? 1.0 : -1.0;
    switch (kind) {
    case PORT_CHEBYSHEV_U: return sign * (n + 1.0);
    case PORT_CHEBYSHEV_V: return positive ? 1.0 : sign * (2.0 * n + 1.0);
    case PORT_CHEBYSHEV_W: return positive ? 2.0 * n + 1.0 : sign;
    default: return sign;
    }
}

static double
chebyshev_inside(port_polynomial kind, double x, double n)
{
    double angle = acos(x);
    switch (kind) {
    case PORT_CHEBYSHEV_U: return sin((n + 1.0) * angle) / sin(angle);
    case PORT_CHEBYSHEV_V: return cos((n + 0.5) * angle) / cos(angle / 2.0);
    case PORT_CHEBYSHEV_W: return sin((n + 0.5) * angle) / sin(angle / 2.0);
    default: return cos(n * angle);
    }
}

/* The polynomial of degree k + 1 from those of degree k (now) and k - 1 (before). */
static double
next_polynomial(port_polynomial kind, double x, double k, double now, double before)
{
    switch (kind) {
    case PORT_HERMITE_H: return 2.0 * x * now - 2.0 * k * before;
    case PORT_HERMITE_HE: return x * now - k * before;
    case PORT_LAGUERRE_L: return ((2.0 * k + 1.0 - x) * now - k * before) / (k + 1.0);
    case PORT_LEGENDRE_P: return ((2.0 * k + 1.0) * x * now - k * before) / (k + 1.0);
    default: return 2.0 * x * now - before;
    }
}

static double
first_degree(port_polynomial kind, double x)
{
    switch (kind) {
    case PORT_CHEBYSHEV_U:
    case PORT_HERMITE_H: return 2.0 * x;
    case PORT_CHEBYSHEV_V: return 2.0 * x - 1.0;
    case PORT_CHEBYSHEV_W: return 2.0 * x + 1.0;
    case PORT_LAGUERRE_L: return 1.0 - x;
    default: return x;
    }
}

double
port_polynomial_of(port_polynomial kind, double x, double n)
{
    bool chebyshev = kind <= PORT_CHEBYSHEV_W;
    n = trunc(n);
    if (!(n >= 0.0 && n < 0x1p63)) { /* beyond it no integer is left, and the reference's conversion gives the least one */
        return 0.0;
    }
    if (n > PORT_MAX_DEGREE && !chebyshev) {
        return (double)NAN;
    }
    if (fabs(x) == 1.0 && (chebyshev || kind == PORT_LEGENDRE_P)) {
        return chebyshev_at_end(chebyshev ? kind : PORT_CHEBYSHEV_T, x > 0.0, n);
    }
    if (chebyshev && n > 8.0 && fabs(x) < 1.0) {
        return chebyshev_inside(kind, x, n);
    }
    double before = 1.0, now = first_degree(kind, x);
    if (n == 0.0) {
        return before;
    }
    for (double k = 1.0; k < n && isfinite(now); k += 1.0) {
        double next = next_polynomial(kind, x, k, now, before);
        before = now;
        now = next;
    }
    return now;
}
