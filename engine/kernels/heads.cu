// Heads: what becomes of queries, keys and values between their projection and attention.
//
//   x = product + bias;  q, k: x * rsqrt(mean(x^2) + eps) * scales, where a model has those;  q, k: turned by position;
//   q to [rows][heads][padded], k and v to their token's slot of the layer's KV cache.
//
// A few neighbouring lanes have a head of a row: each lane holds the same values of both halves, 16 bytes of each where
// the head is wide enough, so that the two values of a pair that turns (Su et al. 2021, equation 34,
// with the pairs of Hugging Face's `rotate_half`) meet in one thread, and accesses are as wide as they can be.
//
// Bound by memory: rows * (q + 2 k) * head_dim * 4 bytes. Of 8192 rows of Llama-3-8B that is 201 MB, 47 us at
// 4.3 TB/s; of one row nothing, 2 to 3 us of latency, part of which passes before the kernel before this one ends.
//
// Constants: HEAD_DIM, PADDED, QUERY_HEADS, KV_HEADS, BLOCK_SIZE, BIAS and NORM (0 or 1).

constexpr u32 THREADS = 256;
constexpr u32 HEADS = QUERY_HEADS + 2 * KV_HEADS;
constexpr u32 PAIRS = HEAD_DIM / 2;
// Values of a half that a lane takes at once, as wide as their alignment allows.
constexpr u32 WIDTH = PAIRS % 8 == 0 ? 8 : PAIRS % 4 == 0 ? 4 : PAIRS % 2 == 0 ? 2 : 1;
constexpr u32 PIECES = PAIRS / WIDTH;
constexpr u32 LANES = PIECES > 16 ? 32 : PIECES > 8 ? 16 : PIECES > 4 ? 8 : PIECES > 2 ? 4 : PIECES > 1 ? 2 : 1;
constexpr u32 ROUNDS = (PIECES + LANES - 1) / LANES;

struct HeadsArguments {
    const bf16* product;  // [rows][stride]
    const float* bias;    // [HEADS][HEAD_DIM], if BIAS
    const float* query_scales;  // [HEAD_DIM], if NORM
    const float* key_scales;
    const float* rotary;  // [position][cosines | sines][PAIRS]
    const i32* positions;
    const u32* slots;
    bf16* q;
    bf16* cache;
    u32 rows;
    u32 stride;
    float eps;
    u32 unused;
};

DEVICE void load_values(float (&values)[WIDTH], const bf16* from) {
    if constexpr (WIDTH == 8) {
        const uint4 packed = load_16(from);
        const u32 words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            values[2 * i] = low_half(words[i]);
            values[2 * i + 1] = high_half(words[i]);
        }
    } else if constexpr (WIDTH > 1) {
#pragma unroll
        for (u32 i = 0; i < WIDTH; i += 2) {
            const u32 word = *(const u32*)(from + i);
            values[i] = low_half(word);
            values[i + 1] = high_half(word);
        }
    } else {
        values[0] = to_float(*from);
    }
}

DEVICE void store_values(bf16* to, const float (&values)[WIDTH]) {
    if constexpr (WIDTH == 8) {
        store_16(to, make_uint4(pack(values[0], values[1]), pack(values[2], values[3]), pack(values[4], values[5]),
                                pack(values[6], values[7])));
    } else if constexpr (WIDTH > 1) {
#pragma unroll
        for (u32 i = 0; i < WIDTH; i += 2) *(u32*)(to + i) = pack(values[i], values[i + 1]);
    } else {
        *to = to_bf16(values[0]);
    }
}

DEVICE void load_floats(float (&values)[WIDTH], const float* from) {
    if constexpr (WIDTH >= 4) {
#pragma unroll
        for (u32 i = 0; i < WIDTH; i += 4) {
            const float4 four = *(const float4*)(from + i);
            values[i] = four.x;
            values[i + 1] = four.y;
            values[i + 2] = four.z;
            values[i + 3] = four.w;
        }
    } else {
#pragma unroll
        for (u32 i = 0; i < WIDTH; i++) values[i] = from[i];
    }
}

// What a lane holds of a head: `WIDTH` values of each half, `ROUNDS` times.
struct Part {
    float first[ROUNDS][WIDTH];
    float second[ROUNDS][WIDTH];
};

DEVICE u32 piece_of(u32 round) { return round * LANES + lane_index() % LANES; }

DEVICE void load_constants(Part& part, const float* from) {
#pragma unroll
    for (u32 round = 0; round < ROUNDS; round++) {
        if (piece_of(round) >= PIECES) continue;
        load_floats(part.first[round], from + piece_of(round) * WIDTH);
        load_floats(part.second[round], from + PAIRS + piece_of(round) * WIDTH);
    }
}

// The sum over the lanes of a head. All lanes of the warp come here.
DEVICE float sum_over_lanes(float sum) {
#pragma unroll
    for (u32 mask = LANES / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    return sum;
}

DEVICE void normalise(Part& part, const Part& scales, float eps, bool wanted) {
    float sum = 0;
#pragma unroll
    for (u32 round = 0; round < ROUNDS; round++) {
        if (piece_of(round) >= PIECES) continue;
#pragma unroll
        for (u32 i = 0; i < WIDTH; i++)
            sum += part.first[round][i] * part.first[round][i] + part.second[round][i] * part.second[round][i];
    }
    const float factor = rsqrtf(sum_over_lanes(sum) / HEAD_DIM + eps);
    if (!wanted) return;
#pragma unroll
    for (u32 round = 0; round < ROUNDS; round++) {
        if (piece_of(round) >= PIECES) continue;
#pragma unroll
        for (u32 i = 0; i < WIDTH; i++) {
            part.first[round][i] *= factor * scales.first[round][i];
            part.second[round][i] *= factor * scales.second[round][i];
        }
    }
}

DEVICE void turn(Part& part, const float* row) {
#pragma unroll
    for (u32 round = 0; round < ROUNDS; round++) {
        if (piece_of(round) >= PIECES) continue;
        float cosines[WIDTH], sines[WIDTH];
        load_floats(cosines, row + piece_of(round) * WIDTH);
        load_floats(sines, row + PAIRS + piece_of(round) * WIDTH);
#pragma unroll
        for (u32 i = 0; i < WIDTH; i++) {
            const float x = part.first[round][i], y = part.second[round][i];
            part.first[round][i] = x * cosines[i] - y * sines[i];
            part.second[round][i] = y * cosines[i] + x * sines[i];
        }
    }
}

// Where a head of a row goes.
DEVICE bf16* destination(const HeadsArguments& args, u32 row, u32 head) {
    if (head < QUERY_HEADS) return args.q + ((u64)row * QUERY_HEADS + head) * PADDED;
    const u32 slot = args.slots[row];
    const u32 is_value = head >= QUERY_HEADS + KV_HEADS;
    const u32 kv_head = head - QUERY_HEADS - is_value * KV_HEADS;
    const u64 page = ((u64)(slot / BLOCK_SIZE) * 2 + is_value) * KV_HEADS + kv_head;
    return args.cache + (page * BLOCK_SIZE + slot % BLOCK_SIZE) * PADDED;
}

KERNEL(heads, THREADS, 1, HeadsArguments) {
    let_next_kernel_begin();
    const u32 item = (u32)(((u64)blockIdx.x * THREADS + threadIdx.x) / LANES);
    const u32 row = item / HEADS, head = item % HEADS;
    const bool rotates = head < QUERY_HEADS + KV_HEADS;

    Part bias, scales;
    if (BIAS) load_constants(bias, args.bias + head * HEAD_DIM);
    if (NORM && rotates) load_constants(scales, head < QUERY_HEADS ? args.query_scales : args.key_scales);
    wait_for_earlier_kernels();

    const i32 position = row < args.rows ? args.positions[row] : -1;
    const bool exists = position >= 0;
    Part part;
    const bf16* from = args.product + (u64)row * args.stride + head * HEAD_DIM;
#pragma unroll
    for (u32 round = 0; round < ROUNDS; round++) {
        if (!exists || piece_of(round) >= PIECES) continue;
        load_values(part.first[round], from + piece_of(round) * WIDTH);
        load_values(part.second[round], from + PAIRS + piece_of(round) * WIDTH);
        if (BIAS) {
#pragma unroll
            for (u32 i = 0; i < WIDTH; i++) {
                part.first[round][i] += bias.first[round][i];
                part.second[round][i] += bias.second[round][i];
            }
        }
    }
    if (NORM) normalise(part, scales, args.eps, exists && rotates);
    if (!exists) return;
    if (rotates) turn(part, args.rotary + (u64)position * HEAD_DIM);

    bf16* to = destination(args, row, head);
#pragma unroll
    for (u32 round = 0; round < ROUNDS; round++) {
        if (piece_of(round) >= PIECES) continue;
        store_values(to + piece_of(round) * WIDTH, part.first[round]);
        store_values(to + PAIRS + piece_of(round) * WIDTH, part.second[round]);
    }
    for (u32 i = HEAD_DIM + lane_index() % LANES; i < PADDED; i += LANES) to[i] = to_bf16(0);
}
