// The first rows of the residual stream: x = E[token], or zeros where the token is another rank's; and
// the first half of the norm that follows: x * scales, and the sum of squares.
//
// A block has a token. What bounds it: the latency of two reads that follow each other, about 3 us.

constexpr u32 WARPS = 8;
constexpr u32 THREADS = 32 * WARPS;

struct EmbedArguments {
    // [tokens]
    const u32* tokens;
    // [count][embedding_stride]: the rows of tokens `first` to `first + count`
    const bf16* embedding;
    // [tokens][x_stride]
    bf16* x;
    // Of the norm, or null: scales [width], x * scales [tokens][scaled_stride], sums of squares [1][tokens]
    const float* scales;
    bf16* scaled;
    float* sums;
    u32 first, count;
    u32 width, embedding_stride;
    u32 x_stride, scaled_stride;
};

KERNEL(embed, THREADS, 4, EmbedArguments) {
    float* sums = (float*)shared_memory();
    wait_for_earlier_kernels();
    let_next_kernel_begin();
    u32 row = args.tokens[blockIdx.x] - args.first;
    bool here = row < args.count;
    const bf16* from = args.embedding + (u64)(here ? row : 0) * args.embedding_stride;
    bf16* x = args.x + (u64)blockIdx.x * args.x_stride;
    bf16* scaled = args.scaled + (u64)blockIdx.x * args.scaled_stride;
    float squares = 0.0f;
    // Beyond the width there are zeros, which are copied with the rest.
    for (u32 at = threadIdx.x * 8; at < args.width; at += THREADS * 8) {
        uint4 packed = here ? load_16(from + at) : make_uint4(0, 0, 0, 0);
        store_16(x + at, packed);
        if (args.scales == nullptr) continue;
        u32 words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            float low = low_half(words[i]), high = high_half(words[i]);
            squares += low * low;
            squares += high * high;
            low *= at + 2 * i < args.width ? args.scales[at + 2 * i] : 0.0f;
            high *= at + 2 * i + 1 < args.width ? args.scales[at + 2 * i + 1] : 0.0f;
            words[i] = pack(low, high);
        }
        store_16(scaled + at, make_uint4(words[0], words[1], words[2], words[3]));
    }
    if (args.scales == nullptr) return;
#pragma unroll
    for (u32 mask = 16; mask > 0; mask /= 2) squares += shuffle_xor(squares, mask);
    if (lane_index() == 0) sums[warp_index()] = squares;
    sync_block();
    if (threadIdx.x == 0) {
        float total = 0.0f;
        for (u32 warp = 0; warp < WARPS; ++warp) total += sums[warp];
        args.sums[blockIdx.x] = total;
    }
}
