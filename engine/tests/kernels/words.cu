// Tiny kernels, one or a few words each, for tests of what words do.

struct Sums {
    const u32* values;
    u32* sums;
    u32 count;
    u32 unused;
};
// The sum of each block's values, through shuffles, shared memory and a barrier.
KERNEL(block_sums, 256, 1, Sums) {
    wait_for_earlier_kernels();
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    u32 sum = index < args.count ? args.values[index] : 0;
#pragma unroll
    for (u32 mask = 16; mask > 0; mask >>= 1) sum += shuffle_xor(sum, mask);
    u32* of_warps = (u32*)shared_memory();
    if (lane_index() == 0) of_warps[warp_index()] = sum;
    sync_block();
    if (threadIdx.x == 0) {
        u32 total = 0;
        for (u32 warp = 0; warp < blockDim.x / 32; ++warp) total += of_warps[warp];
        args.sums[blockIdx.x] = total;
    }
}

struct Lanes {
    const u32* values;
    u32* out;  // [6][32]
};
KERNEL(lanes, 32, 1, Lanes) {
    u32 lane = lane_index();
    u32 value = args.values[lane];
    args.out[lane] = shuffle_xor(value, 5);
    args.out[32 + lane] = shuffle(value, (lane * 7) & 31);
    args.out[64 + lane] = shuffle_up(value, 3);
    args.out[96 + lane] = ballot((value & 1) != 0);
    args.out[128 + lane] = pack(__uint_as_float(value), 1.5f);
    sync_warp();
    args.out[160 + lane] = (u32)to_bf16(__uint_as_float(value)).bits;
}

struct Matrices {
    const bf16* a;  // [16][16]
    const bf16* b;  // [8][16]
    float* d;       // [16][8]
    u32* transposed;  // [32][4], what a transposed load of `a` gives
};
KERNEL(product, 32, 1, Matrices) {
    u8* shared = shared_memory();
    u32 lane = lane_index();
    // 16 rows of 32 bytes, and 8 rows of 32 bytes behind them.
    copy_async_16(shared + lane * 16, (const u8*)args.a + lane * 16, true);
    if (lane < 16) copy_async_16(shared + 512 + lane * 16, (const u8*)args.b + lane * 16, true);
    copy_async_commit();
    copy_async_wait<0>();
    sync_warp();
    u32 a[4], b[4];
    // Matrices 0 and 1 are rows 0-7 and 8-15 of columns 0-7; 2 and 3 the same of columns 8-15.
    load_matrices(a, shared + (lane % 16) * 32 + lane / 16 * 16);
    // Of b, matrices 0 and 1 are columns 0-7 and 8-15; 2 and 3 are not used.
    load_matrices(b, shared + 512 + (lane % 8) * 32 + (lane / 8 % 2) * 16);
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma(d, a, b[0], b[1]);
    u32 row = lane / 4, column = 2 * (lane % 4);
    args.d[row * 8 + column] = d[0];
    args.d[row * 8 + column + 1] = d[1];
    args.d[(row + 8) * 8 + column] = d[2];
    args.d[(row + 8) * 8 + column + 1] = d[3];
    load_matrices_transposed(a, shared + (lane % 16) * 32 + lane / 16 * 16);
    for (u32 i = 0; i < 4; ++i) args.transposed[lane * 4 + i] = a[i];
}

struct Counts {
    u32* partial;  // a value of each block
    u32* counter;  // zero before and after
    u32* total;
};
// The block that arrives last adds up what all have written.
KERNEL(last_block_adds, 64, 1, Counts) {
    wait_for_earlier_kernels();
    u32* is_last = (u32*)shared_memory();
    if (threadIdx.x == 0) {
        args.partial[blockIdx.x] = blockIdx.x + 1;
        fence_device();
        is_last[0] = atomic_add(args.counter, 1) == gridDim.x - 1 ? 1 : 0;
    }
    sync_block();
    if (is_last[0] == 0) return;
    fence_device();
    if (threadIdx.x == 0) {
        u32 total = 0;
        for (u32 block = 0; block < gridDim.x; ++block) total += args.partial[block];
        *args.total = total;
        *args.counter = 0;
    }
}

struct Half {
    u32* out;
};
// Half the threads end before the barrier, which does not wait for them; and two groups of warps have barriers of their own.
KERNEL(early_ends, 128, 1, Half) {
    u32* shared = (u32*)shared_memory();
    if (threadIdx.x >= 96) return;
    shared[threadIdx.x] = threadIdx.x;
    sync_block();
    u32 value = shared[95 - threadIdx.x];
    if (threadIdx.x < 64) {
        shared[96 + threadIdx.x] = value;
        sync_threads(1, 64);
        value += shared[96 + 63 - threadIdx.x];
    } else {
        sync_threads(2, 32);
    }
    args.out[threadIdx.x] = value;
}

struct Step {
    u32* values;
    u32 add;
    u32 count;
};
// Adds to each value.
KERNEL(add, 32, 1, Step) {
    let_next_kernel_begin();
    wait_for_earlier_kernels();
    u32 index = blockIdx.x * 32 + threadIdx.x;
    if (index < args.count) args.values[index] += args.add;
}

struct Floats {
    const float* x;  // [count]
    float* powers;
    float* roots;
    u32 count;
    u32 unused;
};
// Approximations.
KERNEL(approximations, 64, 1, Floats) {
    wait_for_earlier_kernels();
    for (u32 i = threadIdx.x; i < args.count; i += blockDim.x) {
        args.powers[i] = exp2_fast(args.x[i]);
        args.roots[i] = rsqrtf(fabsf(args.x[i]));
    }
}
