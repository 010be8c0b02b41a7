/* providers.c -- where GEMM and vector math come from: own loops, OpenBLAS, or the torch that is in the process. */
#include "kernels.h"

static const port_provider reference = {.name = "reference"};

const port_provider *
port_provider_reference(void)
{
    return &reference;
}

const port_provider *
port_provider_openblas(void)
{
    return NULL;
}

const port_provider *
port_provider_torch(void)
{
    return NULL;
}

port_status
port_provider_torch_set(const char *name, void *address, port_error *err)
{
    (void)address;
    return port_fail(err, PORT_E_NAME, "the torch provider has no function %s", name);
}
