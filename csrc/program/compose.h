/* compose.h -- ops as formulas over other ops (compose.c). Private to csrc/program/. */
#ifndef PORT_COMPOSE_H
#define PORT_COMPOSE_H

#include "exec.h"

/* The handler of a row whose `kernel` is a formula. */
port_status run_composed(op_call *call);
/* Runs a formula for a handler that chose it. extra: further names (numbers, lists; no tensors). */
port_status run_formula(op_call *call, const char *formula, const port_named_arg *extra, int32_t num_extra);

/* activation_ops.c: a formula but for tensors that are not dense. */
port_status run_logit(op_call *call);

#endif /* PORT_COMPOSE_H */
