// What kernels are written in: everything that is special to a GPU, by a name.
//
// This text comes before each kernel's when NVRTC compiles it. Kernels include
// nothing, and have no inline assembly of their own: so they also compile for the
// software device, whose prelude (software/prelude.hpp) gives the same names a
// meaning on a CPU, where tests without a GPU run them.
//
// Instructions are those of the PTX ISA, version 8.0 and later; its sections are
// cited where a layout or an order matters. The least architecture is sm_80. What only
// a later one has is behind FORESAIL_ARCHITECTURE, which is 80, 90, 100, …

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

#define DEVICE __device__ __forceinline__

// A kernel: one structure of arguments, the threads of a block, and how many
// blocks a multiprocessor shall hold at least.
#define KERNEL(name, threads, blocks, Arguments) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) \
        name(const __grid_constant__ Arguments args)

// The shared memory of the block, as many bytes as the launch says, at an address
// that is a multiple of 1024. There is no other: no `__shared__` variables.
extern __shared__ __align__(1024) u8 foresail_shared[];
DEVICE u8* shared_memory() { return foresail_shared; }

DEVICE u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

// ---- numbers ----------------------------------------------------------------

// The upper half of a float.
struct bf16 {
    u16 bits;
};

DEVICE float to_float(bf16 value) { return __uint_as_float((u32)value.bits << 16); }

// Rounded to nearest even.
DEVICE bf16 to_bf16(float value) {
    bf16 rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(value));
    return rounded;
}

// Two numbers in a word, the first in its low half, as vectors and matrix fragments have them.
DEVICE u32 pack(float low, float high) {
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}
DEVICE float low_half(u32 packed) { return __uint_as_float(packed << 16); }
DEVICE float high_half(u32 packed) { return __uint_as_float(packed & 0xffff0000u); }

// 2^x, to about 2 units in the last place; 0 at minus infinity.
DEVICE float exp2_fast(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// The same number, of which the compiler knows nothing: what is computed from it in a loop stays there, and takes no registers outside.
DEVICE u32 opaque(u32 number) {
    asm volatile("" : "+r"(number));
    return number;
}

DEVICE float minus_infinity() { return __uint_as_float(0xff800000u); }

// ---- threads ----------------------------------------------------------------

DEVICE u32 lane_index() { return threadIdx.x & 31; }
DEVICE u32 warp_index() { return threadIdx.x >> 5; }

DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }
// Some warps of a block: `threads` is how many threads come to barrier `id` (1 to 15).
DEVICE void sync_threads(u32 id, u32 threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Comes to such a barrier for those that wait there, and goes on.
DEVICE void arrive_threads(u32 id, u32 threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// All 32 lanes come to each of these.
template <typename T> DEVICE T shuffle_xor(T value, u32 mask) { return __shfl_xor_sync(~0u, value, mask); }
template <typename T> DEVICE T shuffle(T value, u32 lane) { return __shfl_sync(~0u, value, lane); }
// From the lane `delta` below; lanes without one keep their own.
template <typename T> DEVICE T shuffle_up(T value, u32 delta) { return __shfl_up_sync(~0u, value, delta); }
DEVICE u32 ballot(bool predicate) { return __ballot_sync(~0u, predicate); }

// ---- memory -----------------------------------------------------------------

// 16 bytes, at an address that is a multiple of 16.
DEVICE uint4 load_16(const void* from) { return *(const uint4*)from; }
DEVICE void store_16(void* to, uint4 value) { *(uint4*)to = value; }

// 16 bytes that nothing writes while the kernel runs and no one reads again: weights.
DEVICE uint4 load_weights_16(const void* from) {
    uint4 value;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(from));
    return value;
}

// Copies 16 bytes to shared memory meanwhile, or zeros if there is nothing to copy.
// `from` must be an address of the device even then.
DEVICE void copy_async_16(void* to_shared, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)),
                 "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}
// What this thread has begun to copy since the last call is a group.
DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all of this thread's groups but the last `pending` have arrived. Others see them after a barrier.
template <int pending> DEVICE void copy_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory"); }

// Where 16 bytes of a tile in shared memory are (bytes): `unit` of `row`, in rows of `units` of them, an
// even number. The same unit of any 8 rows that follow each other is in different banks, and so are the units of
// a row: rows of a power of two have their units permuted (those of 8 as wgmma's 128-byte swizzle has
// them: PTX ISA, "Swizzling modes"), all others are followed by a unit that nothing uses.
template <u32 units> DEVICE constexpr u32 tile_row_bytes() { return (units & (units - 1)) ? 16 * units + 16 : 16 * units; }
template <u32 units> DEVICE u32 tile_offset(u32 row, u32 unit) {
    if constexpr ((units & (units - 1)) != 0) return row * (16 * units + 16) + 16 * unit;
    else if constexpr (units >= 8) return 16 * (row * units + (unit ^ (row & 7)));
    else return 16 * (row * units + (unit ^ (row / (8 / units) & (units - 1))));
}
// From there to the unit that is 2 `steps` to the right in the same row, if `unit` was 0 or 1. The offset may be from
// before the tile, by a multiple of the bytes of a row.
template <u32 units> DEVICE u32 tile_step(u32 offset, u32 steps) {
    if constexpr ((units & (units - 1)) != 0) return offset + 32 * steps;
    else return offset ^ (32 * steps);
}

// ---- between blocks ---------------------------------------------------------

// What this thread wrote or knew to be written before is seen by all of the device before what it writes after, and
// what it reads after is no older than what it read before. It orders, as release and acquire do; the sequential
// consistency of `__threadfence` costs about twice as much and no kernel here relies on it (PTX ISA, "membar/fence").
DEVICE void fence_device() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
// All return what was there before.
DEVICE u32 atomic_add(u32* at, u32 value) { return atomicAdd(at, value); }
DEVICE u32 atomic_add_shared(u32* at, u32 value) { return atomicAdd(at, value); }
DEVICE u32 atomic_exchange(u32* at, u32 value) { return atomicExch(at, value); }

// ---- between kernels --------------------------------------------------------

// Programmatic dependent launch (PTX ISA, griddepcontrol). A kernel reads nothing
// that an earlier one may have written, and writes nothing that one may read, before
// it has waited: weights, and what the launch carries, are all that may come first.
DEVICE void wait_for_earlier_kernels() {
#if FORESAIL_ARCHITECTURE >= 90
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel may begin its part before that wait.
DEVICE void let_next_kernel_begin() {
#if FORESAIL_ARCHITECTURE >= 90
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- matrices ---------------------------------------------------------------

// D += A B of 16 x 16 by 16 x 8, of a warp (PTX ISA, "Matrix fragments for mma.m16n8k16").
// With g = lane / 4 and t = lane % 4, of A: a[0] row g, a[1] row g + 8, both columns 2t and
// 2t + 1; a[2], a[3] the same rows, columns 2t + 8 and 2t + 9. Of B: b0 rows 2t and 2t + 1, b1 rows
// 2t + 8 and 2t + 9, column g. Of D: d[0], d[1] row g, d[2], d[3] row g + 8, columns 2t and 2t + 1.
DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of 16-bit numbers from shared memory: lane i gives the address of row
// i % 8 of matrix i / 8, 16 bytes, and gets of each matrix what a fragment has: row lane / 4,
// columns 2 (lane % 4) and the next (PTX ISA, ldmatrix).
DEVICE void load_matrices(u32 (&matrices)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// The same, each matrix transposed.
DEVICE void load_matrices_transposed(u32 (&matrices)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// ---- time -------------------------------------------------------------------

// Nanoseconds since some moment; it ticks coarsely, about once a microsecond.
DEVICE u64 clock_ns() {
    u64 now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}

// ---- Hopper: copies in bulk, their barriers, and products of warpgroups -------

#if FORESAIL_ARCHITECTURE == 90

// A barrier in shared memory that `arrivals` arrivals and all expected bytes complete (PTX ISA, mbarrier).
DEVICE void barrier_init(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// After barriers were made, before copies in bulk use them; a `sync_block` follows.
DEVICE void fence_barriers_made() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void barrier_arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and has the barrier wait for so many more bytes.
DEVICE void barrier_arrive_expecting(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}
// Waits until the phase of this parity is complete: that of the first is 0, then 1, then 0, …
DEVICE void barrier_wait(u64* barrier, u32 parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

// Copies `bytes`, a multiple of 16, to shared memory; the barrier counts them as they arrive.
DEVICE void copy_bulk(void* to_shared, const void* from, u32 bytes, u64* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to_shared)),
                 "l"(from), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

// Between this thread's ordinary writes to shared memory and reads of it by tensor cores or copies.
DEVICE void fence_shared_for_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

template <int count> DEVICE void registers_give_up() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count)); }
template <int count> DEVICE void registers_take() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count)); }

// Before the first product of a warpgroup that uses registers written before.
DEVICE void warpgroup_arrive() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int pending> DEVICE void warpgroup_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory"); }

// A matrix in shared memory as a product of a warpgroup reads it (PTX ISA, "Matrix descriptor" and "Canonical
// layouts"): rows of 128 bytes, whose unit u of 16 bytes is at u ^ (row % 8), as `tile_offset<8>` has it; rows begin
// at multiples of 1024 bytes. What has its k along the rows is [rows or columns][64 k] so laid, 8 rows in `stride_bytes`;
// 16 k further on are 32 bytes further on, and `leading_bytes` are nothing. What is transposed is [k][64 columns],
// 8 k in `stride_bytes`, and the next 64 columns are `leading_bytes` further on.
DEVICE u64 matrix_descriptor(const void* at, u32 leading_bytes, u32 stride_bytes) {
    return (u64)((shared_address(at) & 0x3ffff) >> 4) | (u64)(leading_bytes >> 4) << 16 | (u64)(stride_bytes >> 4) << 32 | (u64)1 << 62;
}

// D = A B, or D += A B if it adds: 64 rows, `columns` columns, 16 k; of a warpgroup (PTX ISA, "wgmma.mma_async").
// Begun here; done when the group that it is committed to is waited for. With g = lane / 4 and t = lane % 4, a warp has
// rows 16 (warp % 4) + g and + g + 8 of each 8 columns j as `mma` has them, in d[4 j] to d[4 j + 3]. A is in shared
// memory, k along its rows; or in registers, each warp's 16 rows as `mma` has them. B's k are along its rows, unless transposed.
#define FORESAIL_D_8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define FORESAIL_D_32(i) FORESAIL_D_8(i), FORESAIL_D_8(i + 8), FORESAIL_D_8(i + 16), FORESAIL_D_8(i + 24)
#define FORESAIL_LIST_32 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
#define FORESAIL_LIST_64 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
    "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
    "%62, %63}, "
template <int columns, bool b_transposed> DEVICE void warpgroup_multiply(float (&d)[columns / 2], u64 a, u64 b, bool adds) {
    static_assert(columns == 64 || columns == 128, "products of 64 and of 128 columns are written here");
    if constexpr (columns == 64) {
        asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %34, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " FORESAIL_LIST_32 "%32, %33, adds, 1, 1, 0, %35;\n"
                     "}"
                     : FORESAIL_D_32(0)
                     : "l"(a), "l"(b), "r"((u32)adds), "n"(b_transposed ? 1 : 0)
                     : "memory");
    }
    if constexpr (columns == 128) {
        asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %66, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " FORESAIL_LIST_64 "%64, %65, adds, 1, 1, 0, %67;\n"
                     "}"
                     : FORESAIL_D_32(0), FORESAIL_D_32(32)
                     : "l"(a), "l"(b), "r"((u32)adds), "n"(b_transposed ? 1 : 0)
                     : "memory");
    }
}
template <int columns, bool b_transposed> DEVICE void warpgroup_multiply(float (&d)[columns / 2], const u32 (&a)[4], u64 b, bool adds) {
    static_assert(columns == 64 || columns == 128, "products of 64 and of 128 columns are written here");
    if constexpr (columns == 64) {
        asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %37, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " FORESAIL_LIST_32 "{%32, %33, %34, %35}, %36, adds, 1, 1, %38;\n"
                     "}"
                     : FORESAIL_D_32(0)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((u32)adds), "n"(b_transposed ? 1 : 0)
                     : "memory");
    }
    if constexpr (columns == 128) {
        asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %69, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " FORESAIL_LIST_64 "{%64, %65, %66, %67}, %68, adds, 1, 1, %70;\n"
                     "}"
                     : FORESAIL_D_32(0), FORESAIL_D_32(32)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((u32)adds), "n"(b_transposed ? 1 : 0)
                     : "memory");
    }
}

// After the wait for products, for all registers that they had, D's and A's: so that the compiler moves nothing that
// has to do with them to before it.
template <int count> DEVICE void warpgroup_has(float (&d)[count]) {
#pragma unroll
    for (int i = 0; i < count; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int count> DEVICE void warpgroup_has(u32 (&a)[count][4]) {
#pragma unroll
    for (int i = 0; i < count; i++) asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
}

#endif
