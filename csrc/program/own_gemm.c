/* own_gemm.c -- which products own loops make in the place of a library, with the same bits.
 *
 * The order in which a library sums follows from the sizes, strides, places and threads of a call, not from its numbers. So it is asked: at the third call
 * of a kind both ways multiply random numbers that lie as the call's operands do, and where every bit agrees, own loops (chain.h, which are faster than
 * MKL's on AMD's CPUs) make the products of that kind from then on. A library that sums otherwise, for these sizes or at all, keeps them. */
#include "exec.h"

#include <pthread.h>

enum { SLOTS = 512, PROBES = 8, CALLS_BEFORE = 2 };
#define MOST_BYTES ((uint64_t)256 << 20) /* of operands and results that are asked about */

/* Everything that the library may look at. */
typedef struct gemm_kind {
    int64_t sizes[3], a_strides[2], b_strides[2];
    uint32_t places[4]; /* of a, b, c and y in their lines */
    int32_t num_threads;
    bool adds, as_rows;
} gemm_kind;

typedef enum gemm_answer { ANSWER_NONE = 0, ANSWER_AWAITED, ANSWER_OTHER, ANSWER_SAME } gemm_answer;

static struct {
    pthread_mutex_t lock; /* only ever tried: who finds it taken asks the library */
    struct gemm_slot {
        gemm_kind kind;
        int64_t calls;
        gemm_answer answer;
    } slots[SLOTS];
    void (*sgemm)(void); /* whose answers these are */
} known = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint32_t
place_of(const port_view *view)
{
    return view != NULL ? (uint32_t)((uintptr_t)view->data % 64) : 0;
}

static gemm_kind
kind_of(const port_kernel_call *call)
{
    const port_gemm_params *params = call->params;
    const port_view *a = call->in[0], *b = call->in[1], *c = call->in[2], *y = call->out[0];
    gemm_kind kind;
    memset(&kind, 0, sizeof kind); /* kinds are compared by their bytes */
    kind.sizes[0] = y->shape[0], kind.sizes[1] = y->shape[1], kind.sizes[2] = a->shape[1];
    for (int32_t d = 0; d < 2; d++) {
        kind.a_strides[d] = a->strides[d];
        kind.b_strides[d] = b->strides[d];
    }
    kind.places[0] = place_of(a), kind.places[1] = place_of(b), kind.places[2] = place_of(c), kind.places[3] = place_of(y);
    kind.num_threads = call->profile->num_threads;
    kind.adds = params->beta != 0.0 && c != NULL;
    kind.as_rows = params->as_rows;
    return kind;
}

/* The kind's slot, or a free one for it; NULL: there is no room. */
static struct gemm_slot *
slot_of(const gemm_kind *kind)
{
    uint64_t hash = port_hash(kind, sizeof *kind).low;
    for (uint64_t k = 0; k < PROBES; k++) {
        struct gemm_slot *slot = &known.slots[(hash + k) % SLOTS];
        if (slot->calls == 0 || memcmp(&slot->kind, kind, sizeof *kind) == 0) {
            slot->kind = *kind;
            return slot;
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------ asking */

/* Bytes from the first element to the end of the last. */
static uint64_t
extent_bytes(const port_view *view)
{
    uint64_t last = 0;
    for (int32_t d = 0; d < view->ndim; d++) {
        last += (uint64_t)(view->shape[d] - 1) * (uint64_t)view->strides[d];
    }
    return (last + 1) * sizeof(float);
}

/* Bytes that random_like takes from the space, a multiple of 64. */
static uint64_t
room_of(const port_view *view)
{
    return (place_of(view) + extent_bytes(view) + 63) / 64 * 64;
}

/* The view of other memory of its own, filled with numbers between -1 and 1, as far into a line as the original; takes it from *space on. */
static port_view
random_like(const port_view *view, char **space, uint64_t *state)
{
    port_view made = *view;
    made.data = *space + place_of(view);
    float *to = made.data;
    int64_t count = (int64_t)(extent_bytes(view) / sizeof *to);
    for (int64_t i = 0; i < count; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        to[i] = (float)(int32_t)(*state >> 32) * 0x1p-31f; /* the lower half of the state is the less random one */
    }
    *space += room_of(view);
    return made;
}

static void
plant(const port_view *view, int64_t row, int64_t col, uint32_t bits)
{
    memcpy((float *)view->data + row * view->strides[0] + col * view->strides[1], &bits, sizeof bits);
}

/* Which of several NaN comes out is a matter of the order too. */
static void
plant_specials(const port_view *a, const port_view *b, const port_view *c)
{
    int64_t last = a->shape[1] - 1;
    plant(a, 0, 0, 0x7fc00001);
    plant(a, 0, last, 0x7fc00002);
    plant(a, 1, 0, 0x7f800000);
    plant(a, 1, last, 0xff800000);
    plant(b, last, 0, 0x7fc00003);
    if (c != NULL) {
        plant(c, 0, 0, 0x7fc00004);
        plant(c, 0, 1, 0x7fc00005);
    }
}

static void
run_row(const port_kernel_row *row, const port_kernel_call *call, char *scratch)
{
    port_kernel_call run = *call;
    run.scratch = scratch;
    row->run(&run);
}

static bool
same_bits(const port_kernel_call *call, const port_kernel_row *library, const port_kernel_row *own)
{
    const port_view *c = call->in[2];
    uint64_t room = room_of(call->in[0]) + room_of(call->in[1]) + (c != NULL ? room_of(c) : 0) + 2 * room_of(call->out[0]);
    size_t scratch_bytes = library->scratch_bytes(call), own_bytes = own->scratch_bytes(call);
    scratch_bytes = ((scratch_bytes > own_bytes ? scratch_bytes : own_bytes) + 63) / 64 * 64;
    room += scratch_bytes;
    char *memory = room <= MOST_BYTES ? port_alloc_aligned((size_t)room) : NULL;
    if (memory == NULL) {
        return false;
    }
    char *space = memory + scratch_bytes;
    uint64_t state = 1;
    port_view a = random_like(call->in[0], &space, &state), b = random_like(call->in[1], &space, &state), added;
    port_view y = random_like(call->out[0], &space, &state), z = random_like(call->out[0], &space, &state);
    port_kernel_call asked = *call;
    asked.in[0] = &a, asked.in[1] = &b, asked.out[0] = &y;
    if (c != NULL) {
        added = random_like(c, &space, &state);
        asked.in[2] = &added;
    }
    plant_specials(&a, &b, asked.in[2]);
    run_row(library, &asked, memory);
    asked.out[0] = &z;
    run_row(own, &asked, memory);
    bool same = memcmp(y.data, z.data, extent_bytes(&y)) == 0;
    port_free_aligned(memory);
    return same;
}

/* ------------------------------------------------------------------ the choice */

/* What is known of the kind; AWAITED: the caller shall ask, and give the answer. */
static gemm_answer
look_up(const gemm_kind *kind, void (*sgemm)(void))
{
    if (pthread_mutex_trylock(&known.lock) != 0) {
        return ANSWER_OTHER;
    }
    if (known.sgemm != sgemm) {
        memset(known.slots, 0, sizeof known.slots);
        known.sgemm = sgemm;
    }
    struct gemm_slot *slot = slot_of(kind);
    gemm_answer answer = slot != NULL ? slot->answer : ANSWER_OTHER;
    if (answer == ANSWER_NONE) {
        answer = slot->calls++ < CALLS_BEFORE ? ANSWER_OTHER : ANSWER_AWAITED;
        slot->answer = answer == ANSWER_AWAITED ? ANSWER_OTHER : ANSWER_NONE; /* nobody else asks meanwhile */
    }
    pthread_mutex_unlock(&known.lock);
    return answer;
}

static void
remember(const gemm_kind *kind, void (*sgemm)(void), gemm_answer answer)
{
    if (pthread_mutex_trylock(&known.lock) != 0) {
        return; /* the library keeps them */
    }
    struct gemm_slot *slot = known.sgemm == sgemm ? slot_of(kind) : NULL;
    if (slot != NULL) {
        slot->calls = CALLS_BEFORE + 1;
        slot->answer = answer;
    }
    pthread_mutex_unlock(&known.lock);
}

const port_kernel_row *
own_gemm_row(const port_kernel_row *row, const port_kernel_call *call)
{
    if (call->provider == NULL || call->provider != port_provider_torch() || call->provider->sgemm == NULL || strcmp(row->variant, "blas") != 0 ||
        !port_gemm_is_packed(call)) {
        return row;
    }
    const port_kernel_row *own = port_kernel_find("gemm", PORT_F32, "chain");
    void (*sgemm)(void) = (void (*)(void))call->provider->sgemm;
    gemm_kind kind = kind_of(call);
    gemm_answer answer = look_up(&kind, sgemm);
    if (answer == ANSWER_AWAITED) {
        answer = same_bits(call, row, own) ? ANSWER_SAME : ANSWER_OTHER;
        remember(&kind, sgemm, answer);
    }
    return answer == ANSWER_SAME ? own : row;
}
