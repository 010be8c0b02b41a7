/* functions.c -- series, continued fractions and recurrences for the functions of functions.h.
 * Source: NIST Handbook of Mathematical Functions, chapters 5, 7, 8, 10, 25. */
#include "functions.h"

#include <float.h>
#include <math.h>
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
    return sum / sqrt(2.0 * PI) / sqrt(size);
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

/* The integral of e^(-x (cosh t - 1)) cosh(order t) over t >= 0 by the trapezoidal rule, whose error is e^(-pi^2 / step) as long as the step is
 * not wide beside the integrand, 1 / sqrt(x); near 0 what the function tends to, and far out the asymptotic series. */
double
port_bessel_ke(double order, double x)
{
    const double step = 0.125, euler = 0.57721566490153286061;
    double sum = 0.5;
    if (!(x > 0.0)) {
        return x == 0.0 ? (double)INFINITY : (double)NAN;
    }
    if (x < 1e-10) {
        return order == 0.0 ? -log(x / 2.0) - euler : 1.0 / x;
    }
    if (x > 30.0) {
        double term = 1.0, mu = 4.0 * order * order;
        for (int k = 1; k < 25; k++) {
            term *= (mu - (2.0 * k - 1.0) * (2.0 * k - 1.0)) / (8.0 * k * x);
            sum += term;
        }
        return (sum + 0.5) * sqrt(PI / 2.0) / sqrt(x);
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

/* A first guess by the tail's logarithm, then Halley's steps on the lower half; so far out that a density is no number, Newton's on logarithms. */
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
    for (int step = 0; step < 4 && low < 1e-290; step++) {
        x -= (port_log_ndtr(x) - log(low)) * port_erfcx(-x * 0.70710678118654752440) * sqrt(PI / 2.0);
    }
    for (int step = 0; step < 4 && low >= 1e-290; step++) {
        double excess = (0.5 * erfc(-x * 0.70710678118654752440) - low) * sqrt(2.0 * PI) * exp(0.5 * x * x);
        x -= excess / (1.0 + 0.5 * x * excess);
    }
    return p <= 0.5 ? x : -x;
}

/* ---------------------------------------------------------------- the gamma function's family */

/* Ten terms or as many as it takes, then Euler's and Maclaurin's formula; the reference's steps, in its order, which
 * are in double but for the first power. */
double
port_zeta(double x, double q, port_precision p)
{
    static const double factor[] = {12.0, -720.0, 30240.0, -1209600.0, 47900160.0, -1.8924375803183791606e9, 7.47242496e10,
                                    -2.950130727918164224e12, 1.1646782814350067249e14, -4.5979787224074726105e15,
                                    1.8152105401943546773e17, -7.1661652561756670113e18}; /* (2k)! / Bernoulli's number 2k */
    const double least = 0x1p-53;
    if (x == 1.0) {
        return (double)INFINITY;
    }
    if (x < 1.0) {
        return (double)NAN;
    }
    if (q <= 0.0 && (q == floor(q) || x != floor(x))) {
        return q == floor(q) ? (double)INFINITY : (double)NAN;
    }
    double sum = p.is_f32 ? (double)powf((float)q, (float)-x) : pow(q, -x), at = q, term = 0.0;
    for (int k = 0; k < 9 || at <= 9.0; k++) {
        if (at < 0.0 && at + 1.0 == at) { /* so far below 0 the reference never comes to an end */
            return (double)NAN;
        }
        at += 1.0;
        term = pow(at, -x);
        sum += term;
        if (-least * sum < term && term < least * sum) {
            return port_step(p, sum);
        }
    }
    sum += term * at / (x - 1.0);
    sum -= 0.5 * term;
    double rising = 1.0;
    for (int k = 0; k < 12; k++) {
        rising *= x + 2.0 * k;
        term /= at;
        double t = rising * term / factor[k];
        sum += t;
        if (fabs(t / sum) < least) {
            break;
        }
        rising *= x + 2.0 * k + 1.0;
        term /= at;
    }
    return port_step(p, sum);
}

/* Six terms of the recurrence and three of the asymptotic series, which is all that the reference takes: 9 digits. */
static double
trigamma(double x, port_precision p)
{
    double sum = 0.0, sign = 1.0;
    if (x < 0.5) {
        double angle = port_step(p, port_step(p, PI) * x), wave = p.is_f32 ? (double)sinf((float)angle) : sin(angle);
        double square = port_step(p, port_step(p, PI) * port_step(p, PI));
        sum = -port_step(p, square / port_step(p, wave * wave));
        sign = -1.0;
        x = port_step(p, 1.0 - x);
    }
    for (int k = 0; k < 6; k++) {
        sum = port_step(p, sum + port_step(p, 1.0 / port_step(p, x * x)));
        x = port_step(p, x + 1.0);
    }
    double z = port_step(p, 1.0 / port_step(p, x * x)), head = port_step(p, 1.0 + port_step(p, 1.0 / (2.0 * x)));
    double inner = port_fused_step(p, -z, port_step(p, 1.0 / 42.0), port_step(p, 1.0 / 30.0));
    inner = port_fused_step(p, -z, inner, port_step(p, 1.0 / 6.0));
    sum = port_step(p, sum + port_step(p, port_fused_step(p, z, inner, head) / x));
    return sign * sum;
}

double
port_polygamma(double n, double x, port_precision p)
{
    if (n == 1.0) {
        return trigamma(x, p);
    }
    double factorial = p.is_f32 ? (double)expf(lgammaf((float)n + 1.0f)) : exp(lgamma(n + 1.0));
    double size = port_step(p, factorial * port_zeta(port_step(p, n + 1.0), x, p));
    return fmod(n, 2.0) == 0.0 ? -size : size;
}

enum { MAX_TERMS = 20000 };
static const double MANY_TERMS = 1e5; /* from this order on */
static const double FEW_DIGITS = 1e3; /* from this order on the reference's steps in F32 lose some */

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

/* Where the reference takes Temme's expansion of so large an a. */
static bool
is_expanded(double a, double x)
{
    return fabs(x - a) < 4.5 * sqrt(a);
}

/* mu - log(1 + mu) by the steps of the reference, in which few digits are left of it; it may come out negative. */
static double
cancelled_half(double mu, port_precision p)
{
    return mu == 0.0 ? 0.0 : -port_step(p, (p.is_f32 ? (double)log1pf((float)mu) : log1p(mu)) - mu);
}

/* Temme's uniform expansion for a so large that the series has too many terms and its logarithms too few digits: the part from 0 on,
 * or with `upper` that from x on. mu - log(1 + mu) and what is left of 1 / mu cancel near 0, where they are series, but for the former
 * where the reference expands: most of the result's error is in it there, NaN if it is negative. */
static double
gamma_expansion(double a, double x, bool upper, port_precision p)
{
    double mu = (x - a) / a, power = mu * mu, half = mu - log1p(mu);
    if (is_expanded(a, x)) {
        mu = port_step(p, port_step(p, x - a) / a);
        half = cancelled_half(mu, p);
    } else if (fabs(mu) < 0.05) {
        half = 0.0;
        for (int k = 2; k < 20; k++, power *= -mu) {
            half += power / k;
        }
    }
    double eta = port_step(p, copysign(sqrt(2.0 * half), mu));
    double first = fabs(eta) < 0.15 ? -1.0 / 3.0 + eta * (1.0 / 12.0 + eta * (-2.0 / 135.0 + eta / 864.0)) : 1.0 / mu - 1.0 / eta;
    double rest = exp(-0.5 * a * eta * eta) / sqrt(2.0 * PI * a) * (first - 1.0 / (540.0 * a));
    double place = port_step(p, eta * port_step(p, sqrt(a / 2.0)));
    return upper ? 0.5 * erfc(place) + rest : 0.5 * erfc(-place) - rest;
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

static bool
is_large_and_near(double a, double x, port_precision p)
{
    return (a >= MANY_TERMS && fabs(x - a) < 0.3 * a) || (p.is_f32 && a >= FEW_DIGITS && is_expanded(a, x));
}

/* The logarithm of the first factor of the series, with which the reference's overflows or comes to nothing. */
static double
factor_logarithm(double a, double x, port_precision p)
{
    double size = p.is_f32 ? (double)lgammaf((float)a) : lgamma(a);
    return port_step(p, port_step(p, port_step(p, a * port_step(p, log(x))) - x) - size);
}

double
port_igamma(double a, double x, port_precision p)
{
    double end;
    if (igamma_at_an_end(a, x, &end)) {
        return end;
    }
    if (is_large_and_near(a, x, p)) {
        return gamma_expansion(a, x, false, p);
    }
    if (x >= a + 1.0) {
        return 1.0 - upper_fraction(a, x);
    }
    /* The reference divides by the gamma function, of which nothing is left where that is infinite. */
    double logarithm = factor_logarithm(a, x, p), most = p.is_f32 ? (double)logf(FLT_MAX) : log(DBL_MAX);
    bool none = fabs(a - x) <= 0.4 * a ? a * (p.is_f32 ? (double)FLT_MAX : DBL_MAX) < 1.42 : logarithm < -most;
    return none ? 0.0 : logarithm != logarithm ? logarithm : lower_series(a, x);
}

double
port_igammac(double a, double x, port_precision p)
{
    double end;
    if (igamma_at_an_end(a, x, &end)) {
        return 1.0 - end;
    }
    if (is_large_and_near(a, x, p)) {
        return gamma_expansion(a, x, true, p);
    }
    if (x >= a + 1.0) {
        return upper_fraction(a, x);
    }
    double logarithm = factor_logarithm(a, x, p);
    return logarithm != logarithm ? logarithm : 1.0 - lower_series(a, x);
}
