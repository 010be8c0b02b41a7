/* test_program.c -- programs from text: what runs, and that nothing malformed gets through or crashes.
 * Run it under the sanitizers too (make sanitize): most of what it throws at the parser is only caught there. */
#include "../../csrc/program/program.h"
#include "check.h"

#include <math.h>

/* v1 = v0.t(); v2 = v1 + v0 * ...; v3 = a row of v2, doubled in place; v4 = cat */
static const char good[] =
    "{\"root\": \"m\", \"symbols\": [\"kv\"], \"recorded_symbols\": [2], \"values\": ["
    "[\"F32\", [2, 3], [3, 1], 0], [\"F32\", [3, 2], [1, 3], 0], [\"F32\", [3, 2], [1, 3], 0], [\"F32\", [2], [3], 1],"
    "[\"F32\", [6, {\"sym\": [0, [[1, \"kv\"]]]}], [2, 1], 0], [\"I64\", [3], [1], 0], [\"F32\", [3, 2], [2, 1], 0]],"
    "\"ops\": [[\"aten.t.default\", [{\"v\": 0}], {}, [1]],"
    "[\"aten.add.Tensor\", [{\"v\": 1}, 1.5], {\"alpha\": 2}, [2]],"
    "[\"aten.select.int\", [{\"v\": 2}, 0, 1], {}, [3]],"
    "[\"aten.mul_.Tensor\", [{\"v\": 3}, {\"float\": \"inf\"}], {}, [3]],"
    "[\"aten.cat.default\", [{\"list\": [{\"v\": 1}, {\"v\": 2}]}], {}, [4]],"
    "[\"aten.arange.default\", [3], {\"dtype\": {\"dtype\": \"I64\"}, \"device\": {\"device\": \"cpu\"}}, [5]],"
    "[\"aten.embedding.default\", [{\"v\": 1}, {\"v\": 5}], {}, [6]]]}";

/* Attention of 2 heads, which runs head by head: v3 = v1 v2; v4 = v3 * 0.5; v5 = softmax; v6 = v5 v1 */
static const char attention[] =
    "{\"values\": [[\"F32\", [2, 3], [3, 1], 0], [\"F32\", [2, 96, 8], [768, 8, 1], 0], [\"F32\", [2, 8, 96], [768, 96, 1], 0],"
    "[\"F32\", [2, 96, 96], [9216, 96, 1], 0], [\"F32\", [2, 96, 96], [9216, 96, 1], 0], [\"F32\", [2, 96, 96], [9216, 96, 1], 0],"
    "[\"F32\", [2, 96, 8], [768, 8, 1], 0]],"
    "\"ops\": [[\"aten.full.default\", [{\"list\": [2, 96, 8]}, 0.5], {}, [1]],"
    "[\"aten.full.default\", [{\"list\": [2, 8, 96]}, 0.25], {}, [2]],"
    "[\"aten.bmm.default\", [{\"v\": 1}, {\"v\": 2}], {}, [3]],"
    "[\"aten.mul.Tensor\", [{\"v\": 3}, 0.5], {}, [4]],"
    "[\"aten._softmax.default\", [{\"v\": 4}, -1, false], {}, [5]],"
    "[\"aten.bmm.default\", [{\"v\": 5}, {\"v\": 1}], {}, [6]]]}";

static _Alignas(64) float memory[6] = {1, 2, 3, 4, 5, 6};

static port_run_options
options_of(void)
{
    return (port_run_options){.provider = port_provider_reference(), .profile = {PORT_CAP_DEFAULT, 1, true}};
}

static port_feed
feed_of(int64_t value)
{
    const int64_t shape[2] = {2, 3};
    return (port_feed){value, port_view_contiguous(memory, PORT_F32, 2, shape)};
}

static void
test_good(void)
{
    port_program *program = NULL;
    port_error err = {.message = ""};
    CHECK(port_program_parse(good, sizeof good - 1, &program, &err) == PORT_OK);
    if (program == NULL) {
        fprintf(stderr, "%s\n", err.message);
        return;
    }
    CHECK(port_program_num_ops(program) == 7 && port_program_num_values(program) == 7);
    CHECK(strcmp(port_program_op_name(program, 0), "aten.t.default") == 0 && port_program_op_name(program, 7) == NULL);
    CHECK(port_program_op_known(program, 3) && !port_program_op_known(program, -1));
    port_run_options options = options_of();
    options.check_strides = true;
    port_feed feed = feed_of(0);
    const int64_t fetches[3] = {4, 2, 6}, at[3] = {-1, 1, -1};
    port_result results[3];
    port_status status = port_program_run(program, 0, 7, &feed, 1, fetches, at, 3, &options, results, &err);
    CHECK(status == PORT_OK);
    if (status == PORT_OK) {
        const float *joined = results[0].view.data, *before = results[1].view.data, *rows = results[2].view.data;
        CHECK(results[0].view.shape[0] == 6 && joined[0] == 1 && joined[1] == 4 && joined[6] == 4);
        CHECK(isinf(joined[8]) && isinf(joined[9]) && joined[10] == 6); /* the row was changed through the view */
        CHECK(before[2] == 5 && before[3] == 8);                       /* fetched right after it was made */
        CHECK(rows[0] == 1 && rows[1] == 4 && rows[5] == 6);
        for (int k = 0; k < 3; k++) {
            port_free_aligned(results[k].memory);
        }
    } else {
        fprintf(stderr, "%s\n", err.message);
    }
    CHECK(memory[1] == 2 && memory[4] == 5);
    port_program_free(program);
}

/* Runs all ops with value 0 fed and the last value fetched; whatever the program is, this must come back. */
static port_status
run_all(const port_program *program, port_error *err)
{
    port_run_options options = options_of();
    port_feed feed = feed_of(0);
    int64_t fetch = port_program_num_values(program) - 1;
    port_result result = {0};
    port_status status = port_program_run(program, 0, port_program_num_ops(program), &feed, 1, &fetch, NULL, 1, &options, &result, err);
    port_free_aligned(result.memory);
    return status;
}

static port_status
parse_and_run(const char *text, size_t size, port_error *err)
{
    port_program *program = NULL;
    port_status status = port_program_parse(text, size, &program, err);
    if (status == PORT_OK) {
        status = run_all(program, err);
        port_program_free(program);
    }
    return status;
}

static void
test_truncations(void)
{
    for (size_t n = 0; n + 1 < sizeof good - 1; n++) {
        char *copy = malloc(n > 0 ? n : 1); /* its own block, so that a read past the end is seen */
        if (copy == NULL) {
            return;
        }
        memcpy(copy, good, n);
        port_program *program = NULL;
        port_error err = {.message = ""};
        CHECK(port_program_parse(copy, n, &program, &err) == PORT_E_FORMAT && program == NULL && err.message[0] != '\0');
        free(copy);
    }
}

#define VALUES "\"values\": [[\"F32\", [2, 3], [3, 1], 0], [\"F32\", [2, 3], [3, 1], 0]]"
#define PROGRAM(OPS) "{" VALUES ", \"ops\": [" OPS "]}"

static void
test_malformed(void)
{
    static const struct {
        port_status status;
        const char *text;
    } rows[] = {
        {PORT_OK, PROGRAM("[\"aten.neg.default\", [{\"v\": 0}], {}, [1]]")},
        {PORT_E_FORMAT, "[]"},
        {PORT_E_FORMAT, "{\"values\": [], \"ops\": {}}"},
        {PORT_E_FORMAT, "{\"values\": [[\"F32\", [2, -3], [3, 1], 0]], \"ops\": []}"},
        {PORT_E_FORMAT, "{\"values\": [[\"F32\", [2, 3], [3], 0]], \"ops\": []}"},
        {PORT_E_FORMAT, "{\"values\": [[\"F32\", [2, 3], [3, 1], -1]], \"ops\": []}"},
        {PORT_E_FORMAT, "{\"values\": [[\"F32\", [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1], [], 0]], \"ops\": []}"},
        {PORT_E_FORMAT, "{\"values\": [[\"F32\", [{\"sym\": [0, [[1, \"kv\"]]]}], [1], 0]], \"ops\": []}"},
        {PORT_E_FORMAT, "{\"symbols\": [\"kv\"], \"values\": [], \"ops\": []}"},
        {PORT_E_FORMAT, PROGRAM("[\"aten.neg.default\", [{\"v\": 2}], {}, [1]]")},
        {PORT_E_FORMAT, PROGRAM("[\"aten.neg.default\", [{\"v\": -1}], {}, [1]]")},
        {PORT_E_FORMAT, PROGRAM("[\"aten.neg.default\", [{\"v\": 0}], {}, [9]]")},
        {PORT_E_FORMAT, PROGRAM("[\"aten.neg.default\", [[0]], {}, [1]]")},
        {PORT_E_FORMAT, PROGRAM("[\"aten.neg.default\", [{\"v\": 0}], [], [1]]")},
        {PORT_E_FORMAT, PROGRAM("[\"\", [{\"v\": 0}], {}, [1]]")},
        {PORT_E_FORMAT, PROGRAM("[\"aten.neg.default\", [{\"v\": 0}], {}]")},
        /* well-formed, and wrong when it is run */
        {PORT_E_VALUE, PROGRAM("[\"aten.neg.default\", [{\"v\": 1}], {}, [1]]")}, /* uses what it makes */
        {PORT_E_VALUE, PROGRAM("[\"aten.neg.default\", [{\"v\": 0}], {}, [1, 0]]")},
        {PORT_E_VALUE, PROGRAM("[\"aten.neg.default\", [{\"v\": 0}, 1], {}, [1]]")},
        {PORT_E_VALUE, PROGRAM("[\"aten.neg.default\", [], {}, [1]]")},
        {PORT_E_UNSUPPORTED, PROGRAM("[\"aten.neg.default\", [{\"v\": 0}], {\"out\": {\"v\": 0}}, [1]]")},
        {PORT_E_UNSUPPORTED, PROGRAM("[\"aten.neg.default\", [\"x\"], {}, [1]]")},
        {PORT_E_UNSUPPORTED, PROGRAM("[\"aten.neg.default\", [{\"complex\": [\"1\", \"2\"]}], {}, [1]]")},
        {PORT_E_UNSUPPORTED, PROGRAM("[\"aten.bernoulli.default\", [{\"v\": 0}], {}, [1]]")},
        {PORT_E_UNSUPPORTED, PROGRAM("[\"neg\", [{\"v\": 0}], {}, [1]]")},
        {PORT_E_SHAPE, PROGRAM("[\"aten.t.default\", [{\"v\": 0}], {}, [1]]")}, /* not the recorded shape */
        {PORT_E_DTYPE, PROGRAM("[\"aten.eq.Scalar\", [{\"v\": 0}, 1], {}, [1]]")},
        {PORT_E_SHAPE, PROGRAM("[\"aten.view.default\", [{\"v\": 0}, {\"list\": [4, 2]}], {}, [1]]")},
        {PORT_E_SHAPE, PROGRAM("[\"aten.view.default\", [{\"v\": 0}, {\"list\": [-1, 0]}], {}, [1]]")},
        {PORT_E_SHAPE, PROGRAM("[\"aten.as_strided.default\", [{\"v\": 0}, {\"list\": [2, 3]}, {\"list\": [9, 1]}], {}, [1]]")},
        {PORT_E_SHAPE, PROGRAM("[\"aten.as_strided.default\", [{\"v\": 0}, {\"list\": [2, 3]}, {\"list\": [-3, 1]}], {}, [1]]")},
        {PORT_E_SHAPE, PROGRAM("[\"aten.as_strided.default\", [{\"v\": 0}, {\"list\": [2, 3]}, {\"list\": [3, 1]}, -4], {}, [1]]")},
        {PORT_E_SHAPE, PROGRAM("[\"aten.as_strided.default\", [{\"v\": 0}, {\"list\": [4611686018427387904, 3]}, "
                               "{\"list\": [4611686018427387904, 1]}], {}, [1]]")},
        {PORT_E_SHAPE, PROGRAM("[\"aten.zeros.default\", [{\"list\": [4611686018427387904, 4]}], {}, [1]]")},
        {PORT_E_NOMEM, PROGRAM("[\"aten.zeros.default\", [{\"list\": [1152921504606846975]}], {}, [1]]")},
        {PORT_E_SHAPE, PROGRAM("[\"aten.zeros.default\", [{\"list\": [-1]}], {}, [1]]")},
        {PORT_E_SHAPE, PROGRAM("[\"aten.expand.default\", [{\"v\": 0}, {\"list\": [2, 9]}], {}, [1]]")},
        {PORT_E_VALUE, PROGRAM("[\"aten.transpose.int\", [{\"v\": 0}, 0, 2], {}, [1]]")},
        {PORT_E_VALUE, PROGRAM("[\"aten.select.int\", [{\"v\": 0}, 0, 2], {}, [1]]")},
        {PORT_E_VALUE, PROGRAM("[\"aten.slice.Tensor\", [{\"v\": 0}, 0, 0, 1, 0], {}, [1]]")},
        {PORT_E_SHAPE, PROGRAM("[\"aten.mm.default\", [{\"v\": 0}, {\"v\": 0}], {}, [1]]")},
        {PORT_E_VALUE, PROGRAM("[\"aten.arange.default\", [{\"float\": \"nan\"}], {}, [1]]")},
        {PORT_E_VALUE, PROGRAM("[\"aten.arange.start_step\", [-9223372036854775807, 9223372036854775807, 1], {}, [1]]")},
        {PORT_E_VALUE, PROGRAM("[\"aten.constant_pad_nd.default\", [{\"v\": 0}, {\"list\": [9223372036854775807, 9]}], {}, [1]]")},
        {PORT_E_UNSUPPORTED, PROGRAM("[\"aten.repeat.default\", [{\"v\": 0}, {\"list\": [1,1,1,1,1,1,1,1,1]}], {}, [1]]")},
    };
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        port_error err = {.message = ""};
        port_status status = parse_and_run(rows[k].text, strlen(rows[k].text), &err);
        CHECK(status == rows[k].status);
        CHECK((status == PORT_OK) == (err.message[0] == '\0'));
        if (status != rows[k].status) {
            fprintf(stderr, "  row %zu: %s: %s\n", k, port_status_name(status), err.message);
        }
    }
}

static void
test_requests(void)
{
    port_program *program = NULL;
    port_error err = {.message = ""};
    port_run_options options = options_of();
    port_feed feeds[2] = {feed_of(0), feed_of(0)};
    port_result results[1];
    int64_t fetch = 2, at = 0;
    CHECK(port_program_parse(good, sizeof good - 1, &program, &err) == PORT_OK);
    if (program == NULL) {
        return;
    }
    CHECK(port_program_run(program, 0, 9, feeds, 1, &fetch, NULL, 1, &options, results, &err) == PORT_E_VALUE);
    CHECK(port_program_run(program, 3, 2, feeds, 1, &fetch, NULL, 1, &options, results, &err) == PORT_E_VALUE);
    CHECK(port_program_run(program, 0, 7, feeds, 2, &fetch, NULL, 1, &options, results, &err) == PORT_E_VALUE);
    CHECK(port_program_run(program, 0, 7, feeds, 1, &fetch, &at, 1, &options, results, &err) == PORT_E_VALUE);
    fetch = 7;
    CHECK(port_program_run(program, 0, 7, feeds, 1, &fetch, NULL, 1, &options, results, &err) == PORT_E_VALUE);
    feeds[0].value = 1; /* recorded as (3, 2) */
    CHECK(port_program_run(program, 1, 2, feeds, 1, &fetch, NULL, 0, &options, results, &err) == PORT_E_SHAPE);
    feeds[0].value = 5;
    CHECK(port_program_run(program, 1, 2, feeds, 1, &fetch, NULL, 0, &options, results, &err) == PORT_E_DTYPE);
    feeds[0].value = 99;
    CHECK(port_program_run(program, 1, 2, feeds, 1, &fetch, NULL, 0, &options, results, &err) == PORT_E_VALUE);
    options.variant = "no such variant";
    CHECK(port_program_run(program, 0, 0, feeds, 0, &fetch, NULL, 0, &options, results, &err) == PORT_E_VALUE);
    port_program_free(program);
}

static void
test_attention(void)
{
    port_program *program = NULL;
    port_error err = {.message = ""};
    int64_t ops[PORT_FUSION_MAX_OPS];
    CHECK(port_program_parse(attention, sizeof attention - 1, &program, &err) == PORT_OK);
    if (program == NULL) {
        return;
    }
    CHECK(port_program_num_fusions(program) == 1 && port_program_fusion(program, 0, ops) == 4 && ops[0] == 2 && ops[3] == 5);
    CHECK(run_all(program, &err) == PORT_OK);
    port_program_free(program);
}

/* Every allocation of a parse and a run fails once; nothing leaks (the sanitizers see to that), nothing else is reported. */
static void
test_no_memory(const char *text, size_t size)
{
    for (size_t n = 1; n < 4000; n++) {
        port_error err = {.message = ""};
        port_alloc_fail_after(n);
        port_status status = parse_and_run(text, size, &err);
        port_alloc_fail_after(0);
        CHECK(status == PORT_OK || status == PORT_E_NOMEM);
        if (status == PORT_OK) {
            CHECK(n > 20);
            return;
        }
    }
    CHECK(!"it never had enough memory");
}

static void
test_mutations(void)
{
    uint64_t state = 88172645463325252u; /* xorshift64: the same mutations every time */
    static const char alphabet[] = "0123456789-.,:[]{}\"aetvnF";
    char text[sizeof good];
    size_t parsed = 0;
    for (int round = 0; round < 20000; round++) {
        memcpy(text, good, sizeof good);
        for (int change = 0; change < 1 + round % 3; change++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text[(state >> 8) % (sizeof good - 1)] = alphabet[(state >> 40) % (sizeof alphabet - 1)];
        }
        port_program *program = NULL;
        port_error err = {.message = ""};
        port_status status = port_program_parse(text, sizeof good - 1, &program, &err);
        CHECK(status == PORT_OK || (status == PORT_E_FORMAT && program == NULL));
        if (status == PORT_OK) {
            parsed++;
            run_all(program, &err);
            port_program_free(program);
        }
    }
    CHECK(parsed > 500); /* the mutations reach the executor, not only the parser */
}

int
main(void)
{
    test_good();
    test_truncations();
    test_malformed();
    test_requests();
    test_attention();
    test_no_memory(good, sizeof good - 1);
    test_no_memory(attention, sizeof attention - 1);
    test_mutations();
    return CHECK_REPORT();
}
