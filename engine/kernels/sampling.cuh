// What the kernels of sampling share: a row's parameters and its outcome, and arithmetic
// that has the bits of engine/src/sampling, which is the definition of all of it.
//
// Nothing here is left to the compiler to contract, and no sum depends on the order of its
// additions: weights are exponentials in steps of 2^-34 and are added as integers, in ticks
// of that size. So a token does not depend on how its row was cut into chunks.

// How a row is sampled. Lists are places and counts in one array of words, which all rows share.
struct RowParameters {
    u64 seed;
    u32 place;  // tokens generated so far
    u32 kind;
    float temperature, top_p;
    float min_p;
    u32 top_k;
    float repetition_penalty, frequency_penalty;
    float presence_penalty;
    u32 logprobs;  // 0: none; n + 1: of the token and of the n most likely
    u32 token;     // the token of a row that is only scored
    u32 adjusted_slot;
    u32 prompt_first, prompt_count;
    u32 generated_first, generated_room;
    u32 biases_first, biases_count;  // a token and the bits of its bias, each
    u32 banned_first, banned_count;
    u32 banned_until;  // the place from which nothing is banned
    u32 unused;
};
static_assert(sizeof(RowParameters) == 96, "as in Rust");

enum Kind : u32 { KIND_NONE, KIND_SAMPLED, KIND_SCORED };
enum : u32 { NO_SLOT = 0xffffffff };

enum : u32 { TOP_MAX = 20 };

struct TopToken {
    u32 token;
    float logit;
};

struct Outcome {
    u32 token, status;
    u32 rank, top_count;
    float logit, largest;
    u64 total_ticks;
    TopToken top[TOP_MAX];
};
static_assert(sizeof(Outcome) == 192, "as in Rust");

enum Status : u32 { STATUS_CHOSEN, STATUS_NOT_FINITE, STATUS_NOTHING_LEFT };

// A row is cut into chunks, one a block: 16 logits a thread.
enum : u32 { THREADS = 256, WARPS = THREADS / 32, CHUNK = 4096, CHUNKS_MAX = 64 };

// What the chunks of a row tell the block that finishes it.
struct Partial {
    u64 best;
    u32 first_bad, unused;
};

// What is known of a row, from kernel to kernel.
struct RowState {
    float model_largest;  // of the model's logits
    float largest;        // of those to choose from
    u32 arrivals;         // blocks that are done; zero between kernels
    u32 candidates;       // tokens at the edge of what is kept; zero between kernels
    u32 bin_first, bin_last;
    u64 needed_ticks;  // what the candidates have to bring
};
static_assert(sizeof(RowState) == 32, "as in Rust");

// Memory between the kernels of a step, for all rows.
struct Scratch {
    RowState* states;    // [rows]
    Partial* partials;   // [rows][CHUNKS_MAX]
    u64* masses;         // [rows][CHUNKS_MAX]
    u64* bins;           // [rows][chunks][BINS]
    u32* candidates;     // [rows][LIST_MAX]
    u64* top;            // [rows][CHUNKS_MAX][TOP_MAX]
    float* adjusted;     // [slots][stride]
    u32* occurrences;    // [slots][stride], zeros between launches
};

struct SamplingArguments {
    Scratch scratch;
    const float* logits;
    const RowParameters* parameters;
    const u32* lists;
    Outcome* outcomes;
    u32 logits_stride, tokens;
    u32 chunks, pass;
};

// ---- logits -------------------------------------------------------------------

// Larger for larger logits; both zeros are equal.
DEVICE u32 ordered(float logit) {
    u32 bits = __float_as_uint(logit);
    bits = bits == 0x80000000u ? 0 : bits;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEVICE float logit_of(u32 ordered_bits) {
    return __uint_as_float(ordered_bits & 0x80000000u ? ordered_bits & 0x7fffffffu : ~ordered_bits);
}

// Larger for likelier tokens, and among equally likely ones for the first. Zero is no token.
DEVICE u64 key_of(float logit, u32 token) { return (u64)ordered(logit) << 32 | (u64)~token; }
DEVICE u32 token_of(u64 key) { return ~(u32)key; }

// Four logits; those beyond the vocabulary are impossible.
DEVICE void load_logits(float (&logits)[4], const float* row, u32 first, u32 tokens) {
    uint4 words = first < tokens ? load_16(row + first) : uint4{0, 0, 0, 0};
    const u32 bits[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (u32 i = 0; i < 4; ++i) logits[i] = first + i < tokens ? __uint_as_float(bits[i]) : minus_infinity();
}

// Calls `visit(logit, token, place)` for 16 logits: four times four neighbours, which are `step` apart. The
// next four are on their way meanwhile; unrolled, the arithmetic would not fit the instruction cache.
template <typename Visit> DEVICE void visit_16(const float* row, u32 first, u32 step, u32 tokens, Visit visit) {
    float logits[4];
    load_logits(logits, row, first, tokens);
#pragma unroll 1
    for (u32 i = 0; i < 4; ++i) {
        float next[4] = {};
        if (i < 3) load_logits(next, row, first + (i + 1) * step, tokens);
#pragma unroll
        for (u32 j = 0; j < 4; ++j) visit(logits[j], first + i * step + j, i * 4 + j);
#pragma unroll
        for (u32 j = 0; j < 4; ++j) logits[j] = next[j];
    }
}

// The logits that a row chooses from.
DEVICE const float* chosen_from(const SamplingArguments& args, const RowParameters& row, u32 index) {
    if (row.adjusted_slot == NO_SLOT) return args.logits + (u64)index * args.logits_stride;
    return args.scratch.adjusted + (u64)row.adjusted_slot * args.logits_stride;
}

// Whether a token is drawn, once the row's logits are known to be sound.
DEVICE bool is_drawn(const RowParameters& row, const Outcome& outcome) {
    return row.kind == KIND_SAMPLED && row.temperature > 0.0f && outcome.status == STATUS_CHOSEN;
}
DEVICE bool has_top_k(const RowParameters& row, u32 tokens) { return row.top_k > 0 && row.top_k < tokens; }
DEVICE bool has_filter(const RowParameters& row, u32 tokens) { return has_top_k(row, tokens) || row.top_p < 1.0f; }

// ---- weights ------------------------------------------------------------------

// exp(x) for x <= 0: sampling/exponential.rs, operation for operation.
DEVICE float exponential(float x) {
    constexpr float to_integer = 12582912.0f;
    float clamped = x > -87.0f ? x : -87.0f;
    float shifted = __fadd_rn(__fmul_rn(clamped, 1.44269504088896340736f), to_integer);
    float k = __fsub_rn(shifted, to_integer);
    float r = __fsub_rn(__fsub_rn(clamped, __fmul_rn(k, 355.0f / 512.0f)), __fmul_rn(k, -2.1219444e-4f));
    float polynomial = 1.9875691e-4f;
    polynomial = __fadd_rn(__fmul_rn(polynomial, r), 1.3981999e-3f);
    polynomial = __fadd_rn(__fmul_rn(polynomial, r), 8.333452e-3f);
    polynomial = __fadd_rn(__fmul_rn(polynomial, r), 4.1665796e-2f);
    polynomial = __fadd_rn(__fmul_rn(polynomial, r), 1.6666666e-1f);
    polynomial = __fadd_rn(__fmul_rn(polynomial, r), 0.5f);
    float mantissa = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(polynomial, r), r), r), 1.0f);
    u32 exponent = (__float_as_uint(shifted) - __float_as_uint(to_integer) + 127) << 23;
    return x > -87.0f ? __fmul_rn(mantissa, __uint_as_float(exponent)) : 0.0f;
}

// The same in steps of 2^-34.
DEVICE float weight(float x) {
    constexpr float coarse = 1.0f / 2048.0f;
    float exact = exponential(x);
    return exact < coarse ? __fsub_rn(__fadd_rn(exact, coarse), coarse) : exact;
}
DEVICE float weight_of(float logit, float largest, float temperature) {
    return weight(__fdiv_rn(__fsub_rn(logit, largest), temperature));
}

// A weight in ticks: an integer up to 2^34.
DEVICE u64 ticks(float weight) { return (u64)(weight * 17179869184.0f); }

// Sums of ticks with 32-bit additions: the low 17 bits and the rest, apart.
enum : u32 { TICKS_LOW_BITS = 17 };
DEVICE u32 ticks_low(u64 ticks) { return (u32)ticks & ((1u << TICKS_LOW_BITS) - 1); }
DEVICE u32 ticks_high(u64 ticks) { return (u32)(ticks >> TICKS_LOW_BITS); }
DEVICE u64 ticks_from(u32 low, u32 high) { return ((u64)high << TICKS_LOW_BITS) + low; }

// Weights by size, the heaviest first: 16 bins for each factor of two, from 1 to 2^-34.
enum : u32 { BINS = 34 * 16 + 1 };
DEVICE u32 bin_of(float weight) { return 127 * 16 - (__float_as_uint(weight) >> 19); }

// Candidates that are kept in shared memory; of more, the whole row is looked at again.
enum : u32 { LIST_MAX = 4096 };

// ---- a random number -------------------------------------------------------------

// Philox 4x32-10 of (seed, place), as sampling/uniform.rs has it: a number in [0, 1).
DEVICE double uniform(u64 seed, u32 place) {
    u32 key[2] = {(u32)seed, (u32)(seed >> 32)};
    u32 counter[4] = {place, 0, 0, 0};
#pragma unroll
    for (u32 round = 0; round < 10; ++round) {
        u64 first = (u64)0xd2511f53u * counter[0];
        u64 second = (u64)0xcd9e8d57u * counter[2];
        u32 next[4] = {(u32)(second >> 32) ^ counter[1] ^ key[0], (u32)second, (u32)(first >> 32) ^ counter[3] ^ key[1],
                       (u32)first};
#pragma unroll
        for (u32 i = 0; i < 4; ++i) counter[i] = next[i];
        key[0] += 0x9e3779b9u;
        key[1] += 0xbb67ae85u;
    }
    u64 bits = (u64)counter[0] | (u64)counter[1] << 32;
    return (double)(bits >> 11) * (1.0 / 9007199254740992.0);
}

// ---- a block together ---------------------------------------------------------------

// What another block has written, past this multiprocessor's cache.
template <typename T> DEVICE T load_fresh(const T* at) { return *(const volatile T*)at; }

DEVICE u64 warp_sum(u64 value) {
#pragma unroll
    for (u32 mask = 16; mask > 0; mask >>= 1) value += shuffle_xor(value, mask);
    return value;
}
DEVICE u64 warp_max(u64 value) {
#pragma unroll
    for (u32 mask = 16; mask > 0; mask >>= 1) {
        u64 other = shuffle_xor(value, mask);
        value = other > value ? other : value;
    }
    return value;
}

// The sum over the block's THREADS threads, in all of them. `room` is of WARPS words of shared memory.
DEVICE u64 block_sum(u64 value, u64* room) {
    value = warp_sum(value);
    sync_block();
    if (lane_index() == 0) room[warp_index()] = value;
    sync_block();
    u64 sum = 0;
#pragma unroll
    for (u32 warp = 0; warp < WARPS; ++warp) sum += room[warp];
    return sum;
}

// The sum over the threads before this one.
DEVICE u64 block_sum_before(u64 value, u64* room) {
    u64 running = value;
#pragma unroll
    for (u32 delta = 1; delta < 32; delta <<= 1) {
        u64 below = shuffle_up(running, delta);
        if (lane_index() >= delta) running += below;
    }
    sync_block();
    if (lane_index() == 31) room[warp_index()] = running;
    sync_block();
    u64 before = running - value;
#pragma unroll
    for (u32 warp = 0; warp < WARPS; ++warp) before += warp < warp_index() ? room[warp] : 0;
    return before;
}

// Whether this is the last of a row's blocks to come here; it sees what the others wrote. `room` is shared memory.
// Barriers and one thread's fences are enough, as in the grid synchronisation of CUDA's cooperative groups.
DEVICE bool is_last_block(RowState* state, u32 blocks, u32* room) {
    sync_block();
    if (threadIdx.x == 0) {
        fence_device();
        *room = atomic_add(&state->arrivals, 1) == blocks - 1;
        if (*room) state->arrivals = 0;
        fence_device();
    }
    sync_block();
    return *room;
}
