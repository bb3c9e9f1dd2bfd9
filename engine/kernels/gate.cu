// h = silu(gate) * up, after a product of large matrices: of 16 columns of `both`, the first 8 are the
// gate's, and the others are those of up.
//
// A thread has 8 columns of h: 32 bytes in, 16 out. What bounds it: memory. Expected for 8,192 rows of
// Llama-3-8B's 14,336 at 4 TB/s: 176 us.

constexpr u32 THREADS = 256;

struct GateArguments {
    // [rows][both_stride]
    const bf16* both;
    // [rows][h_stride]
    bf16* h;
    // Columns of h, a multiple of 8, and blocks of a row
    u32 width, row_blocks;
    u32 both_stride, h_stride;
};

DEVICE float gated(float gate, float up) { return gate / (1.0f + expf(-gate)) * up; }

DEVICE u32 gated(u32 gate, u32 up) {
    return pack(gated(low_half(gate), low_half(up)), gated(high_half(gate), high_half(up)));
}

KERNEL(gate, THREADS, 8, GateArguments) {
    wait_for_earlier_kernels();
    let_next_kernel_begin();
    u32 row = blockIdx.x / args.row_blocks;
    u32 at = (blockIdx.x % args.row_blocks * THREADS + threadIdx.x) * 8;
    if (at >= args.width) return;
    const bf16* from = args.both + (u64)row * args.both_stride + at * 2;
    uint4 gate = load_16(from), up = load_16(from + 8);
    store_16(args.h + (u64)row * args.h_stride + at,
             make_uint4(gated(gate.x, up.x), gated(gate.y, up.y), gated(gate.z, up.z), gated(gate.w, up.w)));
}
