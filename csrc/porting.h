/* porting.h -- the whole public C API of porting: captures, tensors, comparison. No Python, no NumPy.
 *
 * A capture is a directory that holds every tensor which went in and out of every module of one run
 * (docs/FORMAT.md). This header lets a C, Zig, Rust or C++ program
 *   - open a capture and read its tensors by name             port_reader_*
 *   - write its own tensors under the same names              port_writer_*
 *   - measure how far two tensors are apart                   port_compare
 *
 * Rules that hold for every function here:
 *   - It returns a port_status; PORT_OK is 0. On failure `err` (may be NULL) holds one sentence that says
 *     what was expected, what was found and where. No function prints, exits or aborts on bad data.
 *   - Paths and names are UTF-8, NUL-terminated.
 *   - Shapes and element strides are int64_t, memory sizes size_t, sizes and offsets on disk uint64_t.
 *   - An object is used by one thread at a time, unless its comment says more.
 *   - free(NULL) is fine. Borrowed pointers say until when they live.
 */
#ifndef PORTING_H
#define PORTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PORT_API __attribute__((visibility("default")))
#else
#define PORT_API
#endif

#define PORT_MAX_NDIM 16 /* no tensor has more dimensions; a file that says so is refused */

/* ------------------------------------------------------------------ errors */

/* Values are pinned: they never change meaning. Gaps are for later members of a group. */
typedef enum port_status {
    PORT_OK = 0,
    PORT_E_NOMEM = 10,       /* memory could not be had */
    PORT_E_IO = 20,          /* the operating system refused; os_errno says why */
    PORT_E_EXISTS = 21,      /* the path to create is there already */
    PORT_E_CLOSED = 22,      /* the object was closed or has failed before */
    PORT_E_FORMAT = 30,      /* not a capture, or not what this file should be */
    PORT_E_TRUNCATED = 31,   /* ends too early */
    PORT_E_CORRUPT = 32,     /* a checksum or an invariant does not hold */
    PORT_E_VERSION = 33,     /* written by a later format version */
    PORT_E_NAME = 40,        /* no such tensor, module or op */
    PORT_E_SHAPE = 50,       /* shapes do not fit */
    PORT_E_DTYPE = 51,       /* dtypes do not fit */
    PORT_E_VALUE = 52,       /* an argument is out of its range */
    PORT_E_UNSUPPORTED = 60, /* valid, but there is no kernel or no code for it */
} port_status;

typedef struct port_error {
    port_status status;
    int os_errno;       /* 0 unless status is PORT_E_IO */
    uint64_t offset;    /* byte offset in the file spoken of, or 0 */
    char message[768];  /* one sentence, UTF-8, always NUL-terminated */
} port_error;

/* Short constant name of a status ("corrupt"), for logs. Never NULL. */
PORT_API const char *port_status_name(port_status status);

/* ------------------------------------------------------------------ dtypes and views */

/* Values are pinned: they stand in the journal. Names as in safetensors. */
typedef enum port_dtype {
    PORT_BOOL = 0,
    PORT_U8 = 1,
    PORT_I8 = 2,
    PORT_I16 = 3,
    PORT_U16 = 4,
    PORT_I32 = 5,
    PORT_U32 = 6,
    PORT_I64 = 7,
    PORT_U64 = 8,
    PORT_F16 = 9,
    PORT_BF16 = 10,
    PORT_F32 = 11,
    PORT_F64 = 12,
    PORT_F8_E4M3 = 13, /* e4m3fn: no infinity, largest 448 */
    PORT_F8_E5M2 = 14,
    PORT_C64 = 15, /* two F32 */
    PORT_NUM_DTYPES = 16
} port_dtype;

/* Bytes of one element (1, 2, 4 or 8); 0 for a value that is no dtype. */
PORT_API size_t port_dtype_size(port_dtype dtype);
/* safetensors' name: "BOOL", "F32", "BF16", "F8_E4M3", ...; "?" for a value that is no dtype. */
PORT_API const char *port_dtype_name(port_dtype dtype);
/* The dtype of a safetensors name, or PORT_NUM_DTYPES if there is none. */
PORT_API port_dtype port_dtype_from_name(const char *name);

/* A strided look at memory that somebody else owns. Strides are in elements and may be 0 or negative. */
typedef struct port_view {
    void *data; /* first element; may be NULL only if a dimension is 0 */
    port_dtype dtype;
    int32_t ndim; /* 0 .. PORT_MAX_NDIM; 0 is a scalar */
    int64_t shape[PORT_MAX_NDIM];
    int64_t strides[PORT_MAX_NDIM];
} port_view;

/* A row-major view. shape has ndim entries, each >= 0. */
PORT_API port_view port_view_contiguous(void *data, port_dtype dtype, int32_t ndim, const int64_t *shape);
/* Number of elements; 1 for a scalar. */
PORT_API int64_t port_view_elems(const port_view *view);

/* ------------------------------------------------------------------ reading a capture */

typedef struct port_reader port_reader;

/* Opens the capture directory `path` read-only and maps its segments. An unfinished capture opens too, up to
 * its last committed record (port_reader_finished then says false).
 * Out:     *reader, to be freed with port_reader_free.
 * Returns: PORT_OK; IO (no such directory, not readable), FORMAT (not a capture), VERSION, TRUNCATED, CORRUPT, NOMEM.
 * Threads: after opening, all port_reader_* calls on one reader may run in parallel. */
PORT_API port_status port_reader_open(const char *path, port_reader **reader, port_error *err);
PORT_API void port_reader_free(port_reader *reader);

/* True if the capture was closed in order. */
PORT_API bool port_reader_finished(const port_reader *reader);
/* Number of names (every leaf of every call, and every name given by port_writer_add). */
PORT_API size_t port_reader_num_names(const port_reader *reader);
/* The i-th name in order of writing, borrowed until the reader is freed; NULL if i is out of range. */
PORT_API const char *port_reader_name(const port_reader *reader, size_t i);

/* The tensor called `name`, e.g. "model.layers.0.mlp.in.0" (docs/FORMAT.md, Names).
 * Out:     *view, row-major, read-only, borrowed until the reader is freed: writing to it is a fault.
 * Returns: PORT_OK; NAME (err holds the nearest name), CORRUPT. */
PORT_API port_status port_reader_find(const port_reader *reader, const char *name, port_view *view, port_error *err);

/* ------------------------------------------------------------------ writing a capture */

typedef struct port_writer port_writer;

typedef struct port_writer_options {
    uint64_t budget_bytes;  /* most bytes of tensors that wait for the disk; 0: 256 MiB */
    uint64_t segment_bytes; /* a segment is sealed when it reaches this; 0: 1 GiB */
    uint32_t rank;          /* rank of this process; 0 for a single one. MANIFEST.json is written by the rank that
                             * made the directory, which is 0 where there is one; the others leave it alone */
} port_writer_options;

/* Creates the capture directory `path` and starts the thread that writes it.
 * options may be NULL.  Returns: PORT_OK; EXISTS, IO, NOMEM, VALUE. */
PORT_API port_status port_writer_create(const char *path, const port_writer_options *options, port_writer **writer,
                                        port_error *err);

/* Stores the tensor under `name`. The data is copied before the call returns; equal tensors are stored once.
 * Blocks while budget_bytes are waiting.
 * Returns: PORT_OK; EXISTS (the name has been written before), IO (also: the disk is full; everything written before
 *          stays readable), VALUE (empty name, too many dimensions), CLOSED, NOMEM. */
PORT_API port_status port_writer_add(port_writer *writer, const char *name, const port_view *tensor, port_error *err);

/* Seals the last segment, writes the index and the manifest, and joins the thread. After this the capture is
 * finished and every file in it is an ordinary one. May be called twice.  Returns: PORT_OK, IO, NOMEM. */
PORT_API port_status port_writer_close(port_writer *writer, port_error *err);

/* Frees the writer. Without a port_writer_close before, the capture stays unfinished but readable. */
PORT_API void port_writer_free(port_writer *writer);

/* ------------------------------------------------------------------ comparing two tensors */

#define PORT_ULP_BUCKETS 34 /* 0, 1, 2-3, 4-7, ... 2^31-.., different sign or NaN against number */

/* What one pass over two tensors measures. `e` is the expected value, `a` the actual one; error is |a - e|.
 * Sums run in float64. Elements where either side is NaN or infinite are counted first and take part in
 * num_unequal, max_ulp and ulp_histogram only; the error fields speak of the finite pairs.
 * Complex elements count as their two parts. The ulp of integers and booleans is their distance. */
typedef struct port_metrics {
    int64_t num_elems;
    int64_t num_unequal;      /* bits differ, not counting NaN against NaN and -0 against 0 */
    int64_t num_nan_expected, num_nan_actual, num_nan_mismatch; /* mismatch: NaN on one side only */
    int64_t num_inf_expected, num_inf_actual, num_inf_mismatch; /* mismatch: not the same infinity on both sides */
    int64_t first_nonfinite_mismatch; /* flat row-major index, -1 if none */
    double max_abs, mean_abs, p99_abs, p999_abs; /* percentiles: upper edge of the bucket, at most 1/16 octave too high */
    int64_t max_abs_idx;      /* flat row-major index in the expected tensor, -1 if no finite pair */
    double max_rel, mean_rel; /* |a - e| / |e| over e != 0 (the mean's terms to f32's precision); inf where e = 0 and a != 0 counts in num_rel_inf instead */
    int64_t max_rel_idx, num_rel_inf;
    uint64_t max_ulp;         /* distance in representable values of the dtype; UINT64_MAX for NaN against a number */
    int64_t max_ulp_idx;
    double mean_error;        /* mean of a - e, with its sign: an offset shows here */
    double mean_signed_ulp;   /* of finite pairs; not 0 means a biased rounding point */
    int64_t ulp_histogram[PORT_ULP_BUCKETS];
    double max_err_scale;     /* max |a - e| / (u * s), u = unit roundoff of the accumulator; -1 if no scale was given */
    int64_t max_err_scale_idx;
    double sum_sq_error, sum_sq_expected, sum_sq_actual; /* finite pairs */
    double sqnr_db;           /* 10 log10(sum e^2 / sum (a-e)^2); +inf if equal */
    double nmse;              /* sum (a-e)^2 / sum e^2 */
    double cosine, pcc;       /* NaN where undefined (a constant or zero side): never a pass */
    double min_expected, max_expected, min_actual, max_actual;
} port_metrics;

typedef struct port_compare_options {
    const port_view *scale; /* condition scale s per element, F64 or F32, same shape; NULL: none */
    double scale_scalar;    /* used for every element if scale is NULL and this is > 0 */
    double unit_roundoff;   /* u of the accumulator; 0: 2^-24 */
    double scale_slope;     /* this times |e| is added to the scale of every element */
    bool basic;             /* without percentiles (NaN) and without the histogram of finite pairs (not to be read): faster */
} port_compare_options;

/* Compares two tensors of the same shape and dtype (or two floating dtypes: then ulp is counted in the narrower).
 * Tensors of 2^18 elements and more are measured by as many threads as the process may use processors; the metrics do
 * not depend on their number. options may be NULL.
 * Returns: PORT_OK; SHAPE, DTYPE, VALUE (a scale that is negative or NaN), NOMEM. */
PORT_API port_status port_compare(const port_view *expected, const port_view *actual,
                                  const port_compare_options *options, port_metrics *metrics, port_error *err);

#ifdef __cplusplus
}
#endif
#endif /* PORTING_H */
