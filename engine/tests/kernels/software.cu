// Tiny kernels that see what only the software device does, and mistakes that it finds.

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

struct Half {
    u32* out;
};

__attribute__((noinline)) static u32 put_much_on_the_stack(u32 index) {
    volatile u32 much[20000];
    for (u32 i = 0; i < 20000; ++i) much[19999 - i] = i;
    return much[index];
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
        case 10:  // more on the stack than there is
            args.values[0] = put_much_on_the_stack(lane);
            break;
        case 11:  // a barrier as one of two numbers of threads
            sync_threads(4, warp_index() == 0 ? 64 : 32);
            break;
        default: break;
    }
}

// Accesses in order and not, each one by its number; even ones are in order. Two blocks.
KERNEL(unordered, 128, 1, Mistake) {
    u32* shared = (u32*)shared_memory();
    u32 thread = threadIdx.x, lane = lane_index(), sum = 0;
    u32* counter = args.values + 4;
    wait_for_earlier_kernels();
    switch (args.which) {
        case 0:  // a barrier between a write and another's read, and the next write
        case 1:  // none before the read
        case 3:  // none before the next write
            shared[thread] = thread;
            if (args.which != 1) sync_block();
            sum = shared[127 - thread];
            if (args.which != 3) sync_block();
            shared[thread] = sum + thread;
            break;
        case 2:  // lanes are at one place after `sync_warp`
        case 5:  // and only seem to be after a shuffle
            shared[thread] = thread;
            if (args.which == 2) sync_warp();
            else shuffle_xor(thread, 1);
            sum = shared[thread ^ 1];
            break;
        case 4:  // the block that comes last sees what is behind a fence
        case 7:  // and what is behind none is not there yet
            if (thread == 0) {
                args.values[blockIdx.x] = blockIdx.x + 1;
                if (args.which == 4) fence_device();
                if (atomic_add(counter, 1) == 1) {
                    fence_device();
                    sum = args.values[0] + args.values[1];
                }
            }
            break;
        case 6:  // many write the same
        case 9:  // or not the same
            shared[0] = args.which == 6 ? 5 : thread;
            break;
        case 8:  // an asynchronous copy that is waited for by all before a barrier
        case 11:  // or after it
            copy_async_16(shared + 4 * lane + 128 * warp_index(), args.values, true);
            copy_async_commit();
            if (args.which == 8) copy_async_wait<0>();
            sync_block();
            if (args.which == 11) copy_async_wait<0>();
            sum = shared[511 - 4 * thread];
            break;
        case 10:  // the last number of an allocation
        case 13:  // and the one after it
            sum = args.values[args.count - (args.which == 10 ? 1 : 0)];
            break;
        default: break;
    }
    if (sum == 12345) args.values[5] = sum;
}

#if FORESAIL_ARCHITECTURE == 90

// A product of what threads have written: they make it seen, or not; and write the next only when it is done, or before.
KERNEL(unordered_product, 128, 1, Mistake) {
    u8* shared = shared_memory();
    for (u32 i = threadIdx.x; i < 8192; i += 128) ((u16*)shared)[i] = 0x3f80;
    if (args.which != 1) fence_shared_for_tensor_cores();
    sync_block();
    float d[32];
    warpgroup_arrive();
    warpgroup_multiply<64, false>(d, matrix_descriptor(shared, 16, 1024), matrix_descriptor(shared + 8192, 16, 1024), false);
    warpgroup_commit();
    if (args.which == 3) sync_block();
    warpgroup_wait<0>();
    if (args.which != 3) sync_block();
    ((u32*)shared)[threadIdx.x] = (u32)d[0];
}

struct Pipeline {
    const u32* from;  // [count][64]
    u32* sums;        // of each 64
    u32 count;
    u32 unused;
};
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

// Reads what a product will write before it is waited for: `out[0]` is of then, `out[1]` of after.
KERNEL(reads_a_product_early, 128, 1, Half) {
    u8* shared = shared_memory();
    for (u32 i = threadIdx.x; i < 8192; i += 128) ((u16*)shared)[i] = 0x3f80;
    sync_block();
    float d[32];
    for (u32 i = 0; i < 32; ++i) d[i] = 1.0f;
    warpgroup_arrive();
    warpgroup_multiply<64, false>(d, matrix_descriptor(shared, 16, 1024), matrix_descriptor(shared + 8192, 16, 1024), true);
    warpgroup_commit();
    float early = d[5];
    warpgroup_wait<0>();
    if (threadIdx.x == 0) {
        args.out[0] = (u32)early;
        args.out[1] = (u32)d[5];
    }
}

#endif
