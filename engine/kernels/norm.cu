// RMS norms, with what is added to the residual stream before them: n = x / rms(x) * scales.
//
// A block has a row, and holds it in registers, 16 or 32 bytes a thread: it is read once and written once. What bounds
// it: memory. With 1,536 threads or more a multiprocessor, 48 KB of it are on their way, or twice that with the addition. Expected for 8,192 rows of 4,096 at
// 4 TB/s: 34 us for the norm, 67 us with the addition. With few rows it is latency: about 3 us.
//
// Constants: WIDTH (values of a row), VECTORS (of 8 values, of a thread), WARPS.

constexpr u32 THREADS = 32 * WARPS;
// Of a multiprocessor, so that a thread has 40 registers.
constexpr u32 BLOCKS = 1536 / THREADS < 16 ? 1536 / THREADS : 16;

struct NormArguments {
    // [rows][x_stride]; written only if something is added
    bf16* x;
    // [rows][y_stride], or null: what is added
    const bf16* y;
    // [WIDTH], or null: what is added to all rows
    const float* bias;
    const float* scales;
    // [blocks][n_stride]
    bf16* n;
    // Which row of x each block has, or null: its own
    const u32* rows;
    u32 x_stride, y_stride;
    u32 n_stride;
    float eps;
};

DEVICE void unpack(float (&values)[8], uint4 packed) {
    u32 words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (u32 i = 0; i < 4; ++i) values[2 * i] = low_half(words[i]), values[2 * i + 1] = high_half(words[i]);
}
DEVICE uint4 pack_8(const float (&values)[8]) {
    return make_uint4(pack(values[0], values[1]), pack(values[2], values[3]), pack(values[4], values[5]), pack(values[6], values[7]));
}

// Values of an array of WIDTH, and zeros beyond it.
DEVICE void read_8(float (&values)[8], const float* array, u32 first) {
    if (first + 8 <= WIDTH) {
        float4 a = *(const float4*)(array + first), b = *(const float4*)(array + first + 4);
        values[0] = a.x, values[1] = a.y, values[2] = a.z, values[3] = a.w;
        values[4] = b.x, values[5] = b.y, values[6] = b.z, values[7] = b.w;
    } else {
#pragma unroll
        for (u32 i = 0; i < 8; ++i) values[i] = first + i < WIDTH ? array[first + i] : 0.0f;
    }
}

KERNEL(rms_norm, THREADS, BLOCKS, NormArguments) {
    float* sums = (float*)shared_memory();
    u32 first = threadIdx.x * 8;
    wait_for_earlier_kernels();
    let_next_kernel_begin();

    u32 row = args.rows == nullptr ? blockIdx.x : args.rows[blockIdx.x];
    bf16* x = args.x + (u64)row * args.x_stride;
    const bf16* y = args.y + (u64)row * args.y_stride;
    // As they are in memory: half the registers, and nothing is lost.
    uint4 held[VECTORS];
    float squares = 0.0f;
#pragma unroll
    for (u32 v = 0; v < VECTORS; ++v) {
        u32 at = first + v * THREADS * 8;
        if (at < WIDTH) held[v] = load_16(x + at);
    }
#pragma unroll
    for (u32 v = 0; v < VECTORS; ++v) {
        u32 at = first + v * THREADS * 8;
        if (at >= WIDTH) break;
        float values[8];
        unpack(values, held[v]);
        if (args.y != nullptr) {
            float more[8], bias[8] = {};
            unpack(more, load_16(y + at));
            if (args.bias != nullptr) read_8(bias, args.bias, at);
#pragma unroll
            for (u32 i = 0; i < 8; ++i) {
                // Beyond the width, y has whatever was there before.
                if (WIDTH % 8 == 0 || at + i < WIDTH) values[i] += more[i] + bias[i];
            }
            // What is normed is what others will read: rounded.
            held[v] = pack_8(values);
            store_16(x + at, held[v]);
            unpack(values, held[v]);
        }
#pragma unroll
        for (u32 i = 0; i < 8; ++i) squares += values[i] * values[i];
    }
#pragma unroll
    for (u32 mask = 16; mask > 0; mask /= 2) squares += shuffle_xor(squares, mask);
    if (lane_index() == 0) sums[warp_index()] = squares;
    sync_block();
    float total = 0.0f;
    for (u32 warp = 0; warp < WARPS; ++warp) total += sums[warp];
    float rstd = rsqrtf(total / WIDTH + args.eps);

    bf16* n = args.n + (u64)blockIdx.x * args.n_stride;
#pragma unroll
    for (u32 v = 0; v < VECTORS; ++v) {
        u32 at = first + v * THREADS * 8;
        if (at >= WIDTH) break;
        // Zeros where there is padding.
        float values[8], scales[8];
        unpack(values, held[v]);
        read_8(scales, args.scales, at);
#pragma unroll
        for (u32 i = 0; i < 8; ++i) values[i] *= rstd * scales[i];
        store_16(n + at, pack_8(values));
    }
}
