// Tiny kernels, one a word, for tests of the software device.

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

struct Copies {
    const u32* from;  // [2][4 * 32]
    u32* out;         // [4][32]
};
// Two groups of copies; what is read before and after each wait.
KERNEL(copies, 32, 1, Copies) {
    u32* shared = (u32*)shared_memory();
    u32 lane = lane_index();
    shared[4 * lane] = 7;
    shared[128 + 4 * lane] = 7;
    copy_async_16(shared + 4 * lane, args.from + 4 * lane, true);
    copy_async_commit();
    copy_async_16(shared + 128 + 4 * lane, args.from + 128 + 4 * lane, lane != 3);
    copy_async_commit();
    args.out[lane] = shared[4 * lane];
    copy_async_wait<1>();
    args.out[32 + lane] = shared[4 * lane];
    args.out[64 + lane] = shared[128 + 4 * lane];
    copy_async_wait<0>();
    args.out[96 + lane] = shared[128 + 4 * lane];
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
// Adds to each value; reads it after the wait, as it must.
KERNEL(add, 32, 1, Step) {
    let_next_kernel_begin();
    wait_for_earlier_kernels();
    u32 index = blockIdx.x * 32 + threadIdx.x;
    if (index < args.count) args.values[index] += args.add;
}
// Reads before the wait, as it must not.
KERNEL(add_too_early, 32, 1, Step) {
    u32 index = blockIdx.x * 32 + threadIdx.x;
    u32 value = index < args.count ? args.values[index] : 0;
    wait_for_earlier_kernels();
    if (index < args.count) args.values[index] = value + args.add;
}
// Does not wait at all.
KERNEL(add_without_waiting, 32, 1, Step) {
    u32 index = blockIdx.x * 32 + threadIdx.x;
    if (index < args.count) args.values[index] += args.add;
}

// What must not be done, each one by its number.
struct Mistake {
    u32* values;
    u32 which;
    u32 count;
};
KERNEL(mistake, 64, 1, Mistake) {
    u8* shared = shared_memory();
    u32 lane = lane_index();
    switch (args.which) {
        case 0:  // lanes of a warp come to different things
            if (lane < 16) shuffle_xor(lane, 1);
            else sync_warp();
            break;
        case 1:  // a lane does not come
            if (lane != 5) sync_warp();
            break;
        case 2:  // a barrier that too few come to
            if (warp_index() == 0) sync_threads(3, 64);
            break;
        case 3:  // an address that is not a multiple of 16
            load_16((const u8*)args.values + 4);
            break;
        case 4:  // a copy to what is not shared memory
            copy_async_16(args.values, args.values, true);
            break;
        case 5: {  // rows outside of shared memory
            u32 matrices[4];
            load_matrices(matrices, shared + 2048);
            break;
        }
        case 6:  // past the end of shared memory, by a byte that the page after it does not catch
            shared[1000] = 1;
            break;
        case 7:  // past the end of an allocation, by a word that the page after it does not catch
            args.values[args.count] = 1;
            break;
        case 8:  // far past the end of an allocation: the page after it
            args.values[args.count + 64] = 1;
            break;
        case 9:  // past the end of shared memory: the page after it
            ((volatile u8*)shared)[1024] = 1;
            break;
        case 10: {  // more on the stack than there is
            volatile u32 much[20000];
            for (u32 i = 0; i < 20000; ++i) much[19999 - i] = i;
            args.values[0] = much[lane];
            break;
        }
        case 11:  // a barrier as one of two numbers of threads
            sync_threads(4, warp_index() == 0 ? 64 : 32);
            break;
        default: break;
    }
}

#if FORESAIL_ARCHITECTURE == 90

struct Pipeline {
    const u32* from;  // [count][64]
    u32* sums;        // of each 64
    u32 count;
    u32 unused;
};
// One warp brings 256 bytes at a time to two places in turn, four others add them up.
KERNEL(pipeline, 160, 1, Pipeline) {
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
    if (warp_index() == 4) {
        registers_give_up<24>();
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

// Waits for bytes that no one brings.
KERNEL(waits_for_bytes, 32, 1, Pipeline) {
    u64* barrier = (u64*)shared_memory();
    if (threadIdx.x == 0) {
        barrier_init(barrier, 1);
        barrier_arrive_expecting(barrier, 64);
        copy_bulk(shared_memory() + 16, args.from, 32, barrier);
    }
    sync_warp();
    barrier_wait(barrier, 0);
    args.sums[0] = 1;
}

#endif
