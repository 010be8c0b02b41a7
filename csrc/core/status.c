/* status.c -- error reports: one sentence, filled once. */
#include "core.h"

const char *
port_status_name(port_status status)
{
    switch (status) {
    case PORT_OK: return "ok";
    case PORT_E_NOMEM: return "no memory";
    case PORT_E_IO: return "io";
    case PORT_E_EXISTS: return "exists";
    case PORT_E_CLOSED: return "closed";
    case PORT_E_FORMAT: return "format";
    case PORT_E_TRUNCATED: return "truncated";
    case PORT_E_CORRUPT: return "corrupt";
    case PORT_E_VERSION: return "version";
    case PORT_E_NAME: return "unknown name";
    case PORT_E_SHAPE: return "shape";
    case PORT_E_DTYPE: return "dtype";
    case PORT_E_VALUE: return "value";
    case PORT_E_UNSUPPORTED: return "unsupported";
    }
    return "unknown status";
}

static void
fill(port_error *err, port_status status, int os_errno, const char *format, va_list args)
{
    err->status = status;
    err->os_errno = os_errno;
    err->offset = 0;
    vsnprintf(err->message, sizeof err->message, format, args);
}

port_status
port_fail(port_error *err, port_status status, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        fill(err, status, 0, format, args);
        va_end(args);
    }
    return status;
}

port_status
port_fail_errno(port_error *err, int os_errno, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        fill(err, PORT_E_IO, os_errno, format, args);
        va_end(args);
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, ": %s", strerror(os_errno));
    }
    return PORT_E_IO;
}
