// Tiny kernels for tests of the words that only Hopper has.

struct Pipeline {
    const u32* from;  // [count][64]
    u32* sums;        // of each 64
    u32 count;
    u32 unused;
};
// A warp of the second warpgroup brings 256 bytes at a time to two places in turn, the first adds them up.
KERNEL(pipeline, 256, 1, Pipeline) {
    u64* full = (u64*)shared_memory();
    u64* empty = full + 2;
    u32* stages = (u32*)(shared_memory() + 128);
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < 2; ++stage) {
            barrier_init(full + stage, 1);
            barrier_init(empty + stage, 128);
        }
        fence_barriers_made();
    }
    sync_block();
    wait_for_earlier_kernels();
    if (warp_index() >= 4) {
        registers_give_up<24>();
        if (warp_index() > 4) return;
        for (u32 item = 0; item < args.count; ++item) {
            u32 stage = item % 2;
            if (lane_index() == 0) {
                barrier_wait(empty + stage, (item / 2 + 1) & 1);
                barrier_arrive_expecting(full + stage, 256);
                copy_bulk(stages + 64 * stage, args.from + 64 * item, 128, full + stage);
                copy_bulk(stages + 64 * stage + 32, args.from + 64 * item + 32, 128, full + stage);
            }
            sync_warp();
        }
    } else {
        registers_take<64>();
        for (u32 item = 0; item < args.count; ++item) {
            u32 stage = item % 2;
            barrier_wait(full + stage, item / 2 & 1);
            u32 sum = stages[64 * stage + lane_index()] + stages[64 * stage + 32 + lane_index()];
            barrier_arrive(empty + stage);
            for (u32 mask = 16; mask > 0; mask >>= 1) sum += shuffle_xor(sum, mask);
            if (threadIdx.x == 32 * (item % 4)) args.sums[item] = sum;
        }
    }
}

struct Products {
    const bf16* a;  // [64][64]
    const bf16* b;  // [columns][64], or [64][columns] if it is transposed
    float* d;       // [64][columns]: of A from shared memory
    float* of_registers;  // the same, of A from registers
};
// Unit `unit` of 16 bytes of a row of 128 bytes.
DEVICE u32 swizzled(u32 row, u32 unit) { return row * 128 + (unit ^ (row & 7)) * 16; }

// D = A B, 64 k in four products, of which the last two are a group that adds to what the first two left.
template <int columns, bool transposed> DEVICE void multiply(const Products& args) {
    u8* a = shared_memory();
    u8* b = a + 64 * 128;
    for (u32 at = threadIdx.x; at < 64 * 8; at += 128) {
        store_16(a + swizzled(at / 8, at % 8), load_16(args.a + at * 8));
    }
    // Rows of b are k if it is transposed, and have pieces of 64 columns, one after the other.
    for (u32 at = threadIdx.x; at < columns * 8; at += 128) {
        u32 to;
        if (transposed) {
            u32 k = at / (columns / 8), unit = at % (columns / 8);
            to = unit / 8 * 64 * 128 + swizzled(k, unit % 8);
        } else {
            to = swizzled(at / 8, at % 8);
        }
        store_16(b + to, load_16(args.b + at * 8));
    }
    fence_shared_for_tensor_cores();
    sync_block();
    u32 row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, pair = threadIdx.x % 4;
    float d[columns / 2], e[columns / 2];
    u32 of_a[4][4];
#pragma unroll
    for (u32 step = 0; step < 4; ++step) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) of_a[step][i] = *(const u32*)(args.a + (row + 8 * (i % 2)) * 64 + step * 16 + i / 2 * 8 + pair * 2);
    }
#pragma unroll
    for (u32 i = 0; i < columns / 2; ++i) e[i] = 0.0f;
    warpgroup_arrive();
#pragma unroll
    for (u32 step = 0; step < 4; ++step) {
        u64 from_a = matrix_descriptor(a + 32 * step, 16, 1024);
        u64 from_b = transposed ? matrix_descriptor(b + 16 * 128 * step, 64 * 128, 1024) : matrix_descriptor(b + 32 * step, 16, 1024);
        warpgroup_multiply<columns, transposed>(d, from_a, from_b, step > 0);
        warpgroup_multiply<columns, transposed>(e, of_a[step], from_b, true);
        if (step == 1) warpgroup_commit();
    }
    warpgroup_commit();
    warpgroup_wait<0>();
#pragma unroll
    for (u32 i = 0; i < columns / 2; ++i) {
        u32 at = (row + i / 2 % 2 * 8) * columns + i / 4 * 8 + pair * 2 + i % 2;
        args.d[at] = d[i];
        args.of_registers[at] = e[i];
    }
}
KERNEL(products_of_64, 128, 1, Products) { multiply<64, false>(args); }
KERNEL(products_of_128, 128, 1, Products) { multiply<128, false>(args); }
KERNEL(products_of_64_transposed, 128, 1, Products) { multiply<64, true>(args); }
KERNEL(products_of_128_transposed, 128, 1, Products) { multiply<128, true>(args); }
