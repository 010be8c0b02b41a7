/* functions.h -- functions of one or two real numbers that few models use, in double: Bessel's, of gamma's family, error functions,
 * orthogonal polynomials. Private to csrc/.
 *
 * They follow the reference in what they give at poles and outside their domain (infinity, NaN); inside it they are near the true
 * value, as the reference is, whose own approximations in float they do not restate. */
#ifndef PORT_FUNCTIONS_H
#define PORT_FUNCTIONS_H

#include "precision.h"

/* The modified Bessel functions of the first kind, of order 0 and 1, times e^-|x|. */
double port_bessel_i0e(double x);
double port_bessel_i1e(double x);
/* The modified Bessel function of the second kind of order 0 or 1, times e^x. */
double port_bessel_ke(double order, double x);
/* The integral of e^(-t^2) from x on, times 2 / sqrt(pi) e^(x^2). */
double port_erfcx(double x);
/* The logarithm of the normal distribution's function, and that function's inverse. */
double port_log_ndtr(double x);
double port_ndtri(double p);
/* Hurwitz's zeta function: the sum of (q + k)^-x over k = 0, 1, ... */
double port_zeta(double x, double q, port_precision precision);
/* The n-th derivative of digamma, n >= 1. */
double port_polygamma(double n, double x, port_precision precision);
/* The regularised incomplete gamma function from 0 to x, or from x on. */
double port_igamma(double a, double x, port_precision precision);
double port_igammac(double a, double x, port_precision precision);

typedef enum port_polynomial {
    PORT_CHEBYSHEV_T, PORT_CHEBYSHEV_U, PORT_CHEBYSHEV_V, PORT_CHEBYSHEV_W,
    PORT_HERMITE_H, PORT_HERMITE_HE, PORT_LAGUERRE_L, PORT_LEGENDRE_P
} port_polynomial;
/* Of degree n, of which the fraction is cut; 0 below 0 and beyond 64-bit integers. shifted: Chebyshev's on [0, 1].
 * The number of steps is at most n; callers refuse what is_long says has more than PORT_MAX_DEGREE of them. */
#define PORT_MAX_DEGREE 1000000.0
bool port_polynomial_is_long(port_polynomial kind, bool shifted, double x, double n, port_precision precision);
double port_polynomial_of(port_polynomial kind, bool shifted, double x, double n, port_precision precision);

#endif /* PORT_FUNCTIONS_H */
