// Products of weights with few tokens, at the speed of memory: y = f(x Wᵀ).
//
// What bounds it: with 64 tokens or fewer, reading the weights once. At 4.2 TB/s, Llama-3-8B's take,
// in microseconds: qkv 12.0, o 8.0, gate and up 56, down 28, output projection 250.
//
//   weights ──copies──> ring in shared memory ──> rows of A ─┐
//                                                            mma m16n8k16 ──> sums in registers ──> f ──> y
//   x ────────copies──> ring in shared memory ──> columns of B ┘
//
// - A step is 16 KB of weights, ROWS rows by STEP inputs, and x's same inputs. STAGES steps are in shared memory, and
//   all but one of them on their way: 80 KB a multiprocessor for 8 tokens, 48 KB for 64, where 33 GB/s
//   and 1 us of latency need 33 KB. Copies rather than loads to registers, because then the depth costs
//   no registers: with at most 128 and half of the shared memory, the block of the next kernel fits
//   beside this one, and its first weights, 1.5 to 2.5 us of memory time, come while this kernel
//   ends (they come before `wait_for_earlier_kernels`).
// - Steps of all row tiles in a row are divided evenly over a grid that stays ("Stream-K", Osama et al. 2023):
//   a block may begin in the middle of a tile and end in that of another. Parts of tiles go to memory; the
//   block that comes last to a tile adds them up, in the order of k, whoever it is. So every run
//   gives the same bits, and every multiprocessor has the same work to within a step.
// - RMSNorm(x) W = rstd (x * scales) W, and rstd is a number a token: x comes multiplied by the scales, and the
//   sum is multiplied by rstd, whose sums of squares the kernel that made x left. A norm costs no kernel.
//
// A step of 16 KB takes memory 890 cycles. Meanwhile its 8 warps issue about 95 instructions each with 8
// tokens (a fifth of the cycles), 150 with 64; shared memory moves 20 KB in and 48 KB out with 64 tokens (550
// cycles); and tensor cores, at 600 TFLOP/s through mma.sync, are busy for half of them with 64 tokens, 6 % with 8.
//
// Constants: TOKENS (a multiple of 8: the most tokens), ROW_TILES (16 rows each, of a warp), ROW_WARPS and
// K_WARPS (8 warps in all), STAGES, and PASS (a multiple of 8: tokens that are finished at a time).

constexpr u32 WARPS = 8;
constexpr u32 THREADS = 32 * WARPS;
constexpr u32 ROWS = 16 * ROW_TILES * ROW_WARPS;
constexpr u32 STEP = 8192 / ROWS; // inputs: with the rows, 16 KB of weights
constexpr u32 PIECES = STEP / 8; // of 16 bytes, of a row in a step
constexpr u32 RISE = THREADS / PIECES; // rows that all threads together copy a piece of: a multiple of 8
constexpr u32 TOKEN_TILES = TOKENS / 8;
constexpr u32 STAGE_BYTES = (ROWS + TOKENS) * STEP * 2;
constexpr u32 PASS_TILES = PASS / 8;
constexpr u32 TILE_THREADS = 32 * ROW_WARPS; // that have the sums of a tile
constexpr u32 STAGED_STRIDE = ROWS + 4; // so that a fragment's rows and columns are in different banks
// Rows of a part of the sums of squares.
constexpr u32 PART_ROWS = 64;

static_assert(ROW_WARPS * K_WARPS == WARPS, "8 warps");
static_assert(STEP / K_WARPS % 32 == 0, "a warp multiplies 32 inputs at once");
static_assert(TOKENS % PASS == 0 && PASS % 8 == 0, "passes are of whole token tiles");
static_assert(STAGES >= 2, "one arrives while another is used");

enum Epilogue : u32 { STORE, STORE_F32, ADD, SILU_MUL };

struct SkinnyArguments {
    const bf16* x;
    const bf16* weights;
    // y, x or h
    void* output;
    // [outputs], or null
    const float* bias;
    // [sum_parts][tokens] sums of squares of the norm before this product, or null
    const float* sums;
    // The norm after it, or null: scales [outputs]; x * scales; sums of squares [ceil(outputs / 64)][tokens].
    const float* next_scales;
    bf16* next_scaled;
    float* next_sums;
    // Parts of tiles: two of each block, as threads have them; and how many have come, of each tile.
    float4* parts;
    u32* arrivals;
    u32 tokens, outputs;
    // Inputs, rounded up to a multiple of 64: zeros are beyond those that there are.
    u32 inputs, x_stride;
    u32 weights_stride, output_stride, next_stride;
    // Steps of a tile, and of each block: one more for the first `steps_extra`.
    u32 steps, steps_each, steps_extra;
    u32 epilogue, sum_parts;
    float norm_width, norm_eps;
};

// A step, as a place in the list of all.
struct Place {
    u32 tile, step;
};

DEVICE void advance(Place& at, u32 steps) {
    if (++at.step == steps) at.step = 0, ++at.tile;
}

// The sums of a warp: 16-row tile, token tile, fragment.
typedef float Sums[ROW_TILES][TOKEN_TILES][4];

// ---- the ring ---------------------------------------------------------------

// Where a piece of a row is in a stage (bytes): the same piece of 8 rows that follow each other is in different banks.
DEVICE u32 piece_offset(u32 row, u32 piece) {
    return 16 * (row * PIECES + (piece ^ (PIECES == 4 ? row / 2 % 4 : row % 8)));
}

// Begins to copy a step of weights. Beyond the last row and input there are zeros.
DEVICE void copy_weights(u8* stage, const SkinnyArguments& args, Place at) {
    u32 row = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
    u32 output = at.tile * ROWS + row, input = at.step * STEP + piece * 8;
    const bf16* from = args.weights + (u64)output * args.weights_stride + input;
    u8* to = stage + piece_offset(row, piece);
#pragma unroll
    for (u32 i = 0; i < ROWS / RISE; ++i) {
        bool valid = output + i * RISE < args.outputs && input < args.inputs;
        copy_async_16(to + i * THREADS * 16, valid ? from + (u64)(i * RISE) * args.weights_stride : args.weights, valid);
    }
}

// Begins to copy a step of x. Rows beyond the last stay what they are: no other token's sum knows of them.
DEVICE void copy_tokens(u8* stage, const SkinnyArguments& args, Place at) {
    u32 token = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
    u32 input = at.step * STEP + piece * 8;
    bool valid = input < args.inputs;
    const bf16* from = args.x + (u64)token * args.x_stride + input;
    u8* to = stage + ROWS * STEP * 2 + piece_offset(token, piece);
#pragma unroll
    for (u32 i = 0; i * RISE < TOKENS; ++i)
        if (token + i * RISE < args.tokens)
            copy_async_16(to + i * THREADS * 16, valid ? from + (u64)(i * RISE) * args.x_stride : args.x, valid);
}

// Adds the products of a step, those of this warp's rows and inputs.
DEVICE void multiply(Sums& sums, const u8* stage, u32 tokens) {
    const u8* x = stage + ROWS * STEP * 2;
    u32 first_row = warp_index() % ROW_WARPS * 16 * ROW_TILES;
    u32 first_piece = warp_index() / ROW_WARPS * (PIECES / K_WARPS);
    // Which row of which 8 x 8 matrix this lane gives the address of: of A, the matrices are two of rows, then two of
    // inputs; of B, four of inputs.
    u32 row = lane_index() % 8, matrix = lane_index() / 8;
#pragma unroll
    for (u32 piece = first_piece; piece < first_piece + PIECES / K_WARPS; piece += 4) {
        u32 a[ROW_TILES][2][4], b[2][4];
#pragma unroll
        for (u32 m = 0; m < ROW_TILES; ++m)
#pragma unroll
            for (u32 half = 0; half < 2; ++half)
                load_matrices(a[m][half],
                              stage + piece_offset(first_row + 16 * m + matrix % 2 * 8 + row, piece + 2 * half + matrix / 2));
#pragma unroll
        for (u32 n = 0; n < TOKEN_TILES; ++n) {
            // Two at a time: all at once take more registers than there are.
            if (n % 2 == 0) {
                if (n > 0 && 8 * n >= tokens) break;
                load_matrices(b[0], x + piece_offset(8 * n + row, piece + matrix));
                if (n + 1 < TOKEN_TILES) load_matrices(b[1], x + piece_offset(8 * n + 8 + row, piece + matrix));
            }
#pragma unroll
            for (u32 half = 0; half < 2; ++half)
#pragma unroll
                for (u32 m = 0; m < ROW_TILES; ++m) mma(sums[m][n], a[m][half], b[n % 2][2 * half], b[n % 2][2 * half + 1]);
        }
    }
}

DEVICE void clear(Sums& sums) {
#pragma unroll
    for (u32 m = 0; m < ROW_TILES; ++m)
#pragma unroll
        for (u32 n = 0; n < TOKEN_TILES; ++n)
#pragma unroll
            for (u32 i = 0; i < 4; ++i) sums[m][n][i] = 0.0f;
}

DEVICE float4 get(const float (&sums)[4]) { return make_float4(sums[0], sums[1], sums[2], sums[3]); }
DEVICE void set(float (&sums)[4], float4 to) { sums[0] = to.x, sums[1] = to.y, sums[2] = to.z, sums[3] = to.w; }
DEVICE float4 sum(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

// ---- sums of warps and of blocks ----------------------------------------------

// Adds what the warps have that multiply the same rows with other inputs. Then the first ROW_WARPS warps have the sums.
DEVICE void add_warps(Sums& sums, float4* staged, u32 tokens) {
    if constexpr (K_WARPS == 1) return;
    static_assert(K_WARPS <= 2, "two halves of the inputs");
    u32 thread = threadIdx.x % (TILE_THREADS);
    bool gives = warp_index() >= ROW_WARPS;
#pragma unroll 1
    for (u32 pass = 0; pass * PASS < tokens; ++pass) {
        sync_block();
#pragma unroll
        for (u32 n = 0; n < TOKEN_TILES; ++n) {
            if (!gives || n / PASS_TILES != pass) continue;
#pragma unroll
            for (u32 m = 0; m < ROW_TILES; ++m) staged[(n % PASS_TILES * ROW_TILES + m) * TILE_THREADS + thread] = get(sums[m][n]);
        }
        sync_block();
#pragma unroll
        for (u32 n = 0; n < TOKEN_TILES; ++n) {
            if (gives || n / PASS_TILES != pass) continue;
#pragma unroll
            for (u32 m = 0; m < ROW_TILES; ++m)
                set(sums[m][n], sum(get(sums[m][n]), staged[(n % PASS_TILES * ROW_TILES + m) * TILE_THREADS + thread]));
        }
    }
}

// The part of a tile that a block has: as its threads have it, so that a thread reads what the same thread of others wrote.
DEVICE float4* part(const SkinnyArguments& args, u32 slot) {
    return args.parts + (u64)slot * (ROW_TILES * TOKEN_TILES * TILE_THREADS) + threadIdx.x;
}

// The block that a step of the list belongs to.
DEVICE u32 block_of(const SkinnyArguments& args, u32 step) {
    u32 longer = args.steps_extra * (args.steps_each + 1);
    if (step < longer) return step / (args.steps_each + 1);
    return args.steps_extra + (step - longer) / args.steps_each;
}

// Leaves this block's part of a tile in memory, and says whether it is the last of all to do so. A block
// has at most two parts: of a tile that others began, and of one that it began.
DEVICE bool leave_part(const Sums& sums, const SkinnyArguments& args, u32 tile, bool began, u32* is_last) {
    if (warp_index() < ROW_WARPS) {
        float4* mine = part(args, 2 * blockIdx.x + began);
#pragma unroll
        for (u32 n = 0; n < TOKEN_TILES; ++n) {
            if (8 * n >= args.tokens) break;
#pragma unroll
            for (u32 m = 0; m < ROW_TILES; ++m) mine[(n * ROW_TILES + m) * TILE_THREADS] = get(sums[m][n]);
        }
    }
    // What all threads wrote comes before what this one adds, as the barrier comes before it.
    sync_block();
    if (threadIdx.x == 0) {
        fence_device();
        u32 others = block_of(args, (tile + 1) * args.steps - 1) - block_of(args, tile * args.steps);
        *is_last = atomic_add(&args.arrivals[tile], 1) == others;
        // All have come: for the next launch, none.
        if (*is_last) args.arrivals[tile] = 0;
    }
    sync_block();
    if (*is_last) fence_device();
    return *is_last;
}

// ---- the norm before ------------------------------------------------------------

// 1 / rms of each token, a warp a token; without a norm, 1.
DEVICE void norms(float* rstd, const SkinnyArguments& args) {
    constexpr u32 OF_WARP = (TOKENS + WARPS - 1) / WARPS;
    float squares[OF_WARP] = {};
#pragma unroll 1
    for (u32 part = lane_index(); part < args.sum_parts; part += 32)
#pragma unroll
        for (u32 i = 0; i < OF_WARP; ++i) {
            u32 token = i * WARPS + warp_index();
            if (token < args.tokens) squares[i] += args.sums[(u64)part * args.tokens + token];
        }
#pragma unroll
    for (u32 i = 0; i < OF_WARP; ++i) {
        u32 token = i * WARPS + warp_index();
        float sum = squares[i];
        for (u32 mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
        if (lane_index() == 0 && token < args.tokens)
            rstd[token] = args.sums == nullptr ? 1.0f : rsqrtf(sum / args.norm_width + args.norm_eps);
    }
}

// ---- what is done with the sums -----------------------------------------------

// Four numbers of which `count` are there; if all, they are one access.
DEVICE void read_4(float (&values)[4], const float* from, u32 count) {
    if (count == 4) {
        float4 all = *(const float4*)from;
        values[0] = all.x, values[1] = all.y, values[2] = all.z, values[3] = all.w;
    } else {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) values[i] = i < count ? from[i] : 0.0f;
    }
}
DEVICE void read_4(float (&values)[4], const bf16* from, u32 count) {
    if (count == 4) {
        uint2 all = *(const uint2*)from;
        values[0] = low_half(all.x), values[1] = high_half(all.x), values[2] = low_half(all.y), values[3] = high_half(all.y);
    } else {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) values[i] = i < count ? to_float(from[i]) : 0.0f;
    }
}
DEVICE void write_4(float* to, const float (&values)[4], u32 count) {
    if (count == 4) {
        *(float4*)to = make_float4(values[0], values[1], values[2], values[3]);
    } else {
#pragma unroll
        for (u32 i = 0; i < 4; ++i)
            if (i < count) to[i] = values[i];
    }
}
DEVICE void write_4(bf16* to, const float (&values)[4], u32 count) {
    if (count == 4) {
        *(uint2*)to = make_uint2(pack(values[0], values[1]), pack(values[2], values[3]));
    } else {
#pragma unroll
        for (u32 i = 0; i < 4; ++i)
            if (i < count) to[i] = to_bf16(values[i]);
    }
}

// Puts a fragment of sums where its tokens and rows are neighbours: `tile` of 16 rows and 8 tokens, n first.
DEVICE void stage_fragment(float* staged, u32 fragment, u32 thread, float4 sums) {
    u32 n = fragment / ROW_TILES, m = fragment % ROW_TILES;
    u32 row = thread / 32 * 16 * ROW_TILES + 16 * m + thread % 32 / 4;
    float* to = staged + (8 * n + thread % 4 * 2) * STAGED_STRIDE + row;
    to[0] = sums.x, to[STAGED_STRIDE] = sums.y, to[8] = sums.z, to[STAGED_STRIDE + 8] = sums.w;
}

// The tokens of a pass, of a tile that is this block's alone.
DEVICE void stage_sums(float* staged, const Sums& sums, u32 pass) {
    if (warp_index() >= ROW_WARPS) return;
#pragma unroll
    for (u32 n = 0; n < TOKEN_TILES; ++n) {
        if (n / PASS_TILES != pass) continue;
#pragma unroll
        for (u32 m = 0; m < ROW_TILES; ++m) stage_fragment(staged, n % PASS_TILES * ROW_TILES + m, threadIdx.x, get(sums[m][n]));
    }
}

// The same, of a tile of several blocks: all threads add up what those blocks left, in the order of their inputs.
DEVICE void stage_parts(float* staged, const SkinnyArguments& args, u32 tile, u32 pass) {
    constexpr u32 FRAGMENTS = PASS_TILES * ROW_TILES * TILE_THREADS;
    constexpr u32 OF_THREAD = (FRAGMENTS + THREADS - 1) / THREADS;
    u32 first = block_of(args, tile * args.steps), last = block_of(args, (tile + 1) * args.steps - 1);
    // There are none of tokens beyond the last.
    u32 end = min((args.tokens + 7) / 8 - pass * PASS_TILES, PASS_TILES) * ROW_TILES * TILE_THREADS;
    float4 totals[OF_THREAD] = {};
#pragma unroll(OF_THREAD > 4 ? 2 : 4)
    for (u32 block = first; block <= last; ++block) {
        const float4* theirs = part(args, 2 * block + (block == first)) + pass * FRAGMENTS;
#pragma unroll
        for (u32 i = 0; i < OF_THREAD; ++i)
            if (i * THREADS + threadIdx.x < end) totals[i] = sum(totals[i], theirs[i * THREADS]);
    }
#pragma unroll
    for (u32 i = 0; i < OF_THREAD; ++i) {
        u32 index = i * THREADS + threadIdx.x;
        if (index < end) stage_fragment(staged, index / TILE_THREADS, index % TILE_THREADS, totals[i]);
    }
}

// h of a pass, four rows of a token at a time: of 16 rows of the tile, 8 are the gate's, and 8 are those of up.
DEVICE void finish_gated(const SkinnyArguments& args, const float* staged, const float* rstd, u32 tile, u32 pass) {
    constexpr u32 OF_TOKEN = ROWS / 8;
    u32 row = threadIdx.x % OF_TOKEN * 4, output = tile * (ROWS / 2) + row;
    if (output * 2 >= args.outputs) return;
    const float* from = staged + row / 8 * 16 + row % 8;
    bf16* to = (bf16*)args.output + output;
    for (u32 i = threadIdx.x / OF_TOKEN; i < PASS; i += THREADS / OF_TOKEN) {
        u32 token = pass * PASS + i;
        if (token >= args.tokens) return;
        float gate[4], up[4];
        read_4(gate, from + i * STAGED_STRIDE, 4);
        read_4(up, from + i * STAGED_STRIDE + 8, 4);
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            gate[j] *= rstd[token];
            gate[j] = gate[j] / (1.0f + expf(-gate[j])) * (up[j] * rstd[token]);
        }
        write_4(to + (u64)token * args.output_stride, gate, 4);
    }
}

// y or x of a pass, four rows of a token at a time; half a warp has 64 rows of a token.
DEVICE void finish_plain(const SkinnyArguments& args, const float* staged, const float* rstd, u32 tile, u32 pass) {
    constexpr u32 OF_TOKEN = ROWS / 4, TOKENS_RISE = THREADS / OF_TOKEN;
    // So many tokens' x are on their way at once, as far as registers go beside the sums.
    constexpr u32 BATCH_MAX = TOKENS > 32 ? 2 : 4;
    constexpr u32 BATCH = PASS / TOKENS_RISE > BATCH_MAX ? BATCH_MAX : (PASS + TOKENS_RISE - 1) / TOKENS_RISE;
    u32 row = threadIdx.x % OF_TOKEN * 4, output = tile * ROWS + row;
    u32 rows = output < args.outputs ? min(args.outputs - output, 4u) : 0;
    bool adds = args.epilogue == ADD, scales_next = args.next_scaled != nullptr;
    float bias[4] = {}, scales[4] = {};
    if (args.bias != nullptr) read_4(bias, args.bias + output, rows);
    if (scales_next) read_4(scales, args.next_scales + output, rows);
    bf16* to = (bf16*)args.output + output;
#pragma unroll 1
    for (u32 i = threadIdx.x / OF_TOKEN; i < PASS; i += BATCH * TOKENS_RISE) {
        float x[BATCH][4] = {};
#pragma unroll
        for (u32 j = 0; j < BATCH; ++j) {
            u32 token = pass * PASS + i + j * TOKENS_RISE;
            if (adds && token < args.tokens) read_4(x[j], to + (u64)token * args.output_stride, rows);
        }
#pragma unroll
        for (u32 j = 0; j < BATCH; ++j) {
            u32 staged_row = i + j * TOKENS_RISE, token = pass * PASS + staged_row;
            bool valid = staged_row < PASS && token < args.tokens;
            u32 count = valid ? rows : 0;
            float y[4], squares = 0.0f;
            read_4(y, staged + (valid ? staged_row : 0) * STAGED_STRIDE + row, 4);
            float scale = rstd[valid ? token : 0];
#pragma unroll
            for (u32 k = 0; k < 4; ++k) y[k] = x[j][k] + (y[k] * scale + bias[k]);
            if (args.epilogue == STORE_F32) write_4((float*)args.output + (u64)token * args.output_stride + output, y, count);
            else write_4(to + (u64)token * args.output_stride, y, count);
            if (!scales_next) continue;
            // What is squared and scaled is what others will read: rounded.
#pragma unroll
            for (u32 k = 0; k < 4; ++k) {
                y[k] = to_float(to_bf16(y[k]));
                squares += k < count ? y[k] * y[k] : 0.0f;
                y[k] *= scales[k];
            }
            write_4(args.next_scaled + (u64)token * args.next_stride + output, y, count);
#pragma unroll
            for (u32 mask = 8; mask > 0; mask /= 2) squares += shuffle_xor(squares, mask);
            if (count > 0 && lane_index() % 16 == 0) args.next_sums[(u64)(output / PART_ROWS) * args.tokens + token] = squares;
        }
    }
}

DEVICE void finish_pass(const SkinnyArguments& args, const float* staged, const float* rstd, u32 tile, u32 pass) {
    if (args.epilogue == SILU_MUL) finish_gated(args, staged, rstd, tile, pass);
    else finish_plain(args, staged, rstd, tile, pass);
}

// ---- the kernel -------------------------------------------------------------

KERNEL(skinny, THREADS, 2, SkinnyArguments) {
    u8* ring = shared_memory();
    float* staged = (float*)(ring + STAGES * STAGE_BYTES);
    float* rstd = staged + PASS * STAGED_STRIDE;
    u32* is_last = (u32*)(rstd + TOKENS);

    u32 begin = blockIdx.x * args.steps_each + min(blockIdx.x, args.steps_extra);
    u32 left = args.steps_each + (blockIdx.x < args.steps_extra);
    Place here = {begin / args.steps, begin % args.steps};

    // Weights first, then what earlier kernels made. The weights are one group, x of each stage is another.
    Place ahead = here;
    u32 filled = min(left, STAGES - 1u);
#pragma unroll 1
    for (u32 i = 0; i < filled; ++i, advance(ahead, args.steps)) copy_weights(ring + i * STAGE_BYTES, args, ahead);
    copy_async_commit();
    let_next_kernel_begin();
    wait_for_earlier_kernels();
    ahead = here;
#pragma unroll 1
    for (u32 i = 0; i < STAGES - 1; ++i) {
        if (i < filled) {
            copy_tokens(ring + i * STAGE_BYTES, args, ahead);
            advance(ahead, args.steps);
        }
        copy_async_commit();
    }
    norms(rstd, args);

    u32 stage = 0, stage_ahead = STAGES - 1, left_ahead = left - filled;
    while (left > 0) {
        // As much of a tile as is this block's.
        u32 steps = min(args.steps - here.step, left);
        Sums sums;
        clear(sums);
#pragma unroll 1
        for (u32 i = 0; i < steps; ++i) {
            copy_async_wait<STAGES - 2>();
            // All see this stage, and none uses the one before any more.
            sync_block();
            if (left_ahead > 0) {
                copy_weights(ring + stage_ahead * STAGE_BYTES, args, ahead);
                copy_tokens(ring + stage_ahead * STAGE_BYTES, args, ahead);
                advance(ahead, args.steps);
                --left_ahead;
            }
            copy_async_commit();
            multiply(sums, ring + stage * STAGE_BYTES, args.tokens);
            stage_ahead = stage;
            if (++stage == STAGES) stage = 0;
        }
        add_warps(sums, (float4*)staged, args.tokens);
        if (steps == args.steps) {
#pragma unroll 1
            for (u32 pass = 0; pass * PASS < args.tokens; ++pass) {
                sync_block();
                stage_sums(staged, sums, pass);
                sync_block();
                finish_pass(args, staged, rstd, here.tile, pass);
            }
        } else if (leave_part(sums, args, here.tile, here.step == 0, is_last)) {
#pragma unroll 1
            for (u32 pass = 0; pass * PASS < args.tokens; ++pass) {
                sync_block();
                stage_parts(staged, args, here.tile, pass);
                sync_block();
                finish_pass(args, staged, rstd, here.tile, pass);
            }
        }
        left -= steps;
        here = {here.tile + 1, 0};
    }
}
