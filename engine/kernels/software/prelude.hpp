// The words that kernels are written in (see prelude.cuh), for the software device:
// the same names, with what they mean on a GPU done on a CPU.
//
// Words that the lanes of a warp do together wait until all have come to them.
// What a GPU may do late is done as late, or at once, by the launch's seed. Arithmetic is
// IEEE 754 without contraction; approximate functions are the exact ones.

#include <math.h>
#include <string.h>

#include "runtime.hpp"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define DEVICE static inline __attribute__((always_inline, unused))

#define KERNEL(name, threads, blocks, Arguments)                                                       \
    static void name(const Arguments& args);                                                           \
    static void name##_of_thread(const void* arguments) { name(*(const Arguments*)arguments); }        \
    extern "C" SOFTWARE_EXPORT const software::Kernel foresail_kernel_##name;                          \
    const software::Kernel foresail_kernel_##name = {#name, sizeof(Arguments), threads, name##_of_thread}; \
    static_assert((blocks) >= 0, "blocks of a multiprocessor");                                        \
    static void name(const Arguments& args)

// ---- what CUDA C++ has by itself ------------------------------------------------

struct alignas(8) uint2 { u32 x, y; };
struct alignas(16) uint4 { u32 x, y, z, w; };
struct alignas(8) int2 { i32 x, y; };
struct alignas(16) int4 { i32 x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(16) ulonglong2 { u64 x, y; };
DEVICE uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
DEVICE uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
DEVICE int2 make_int2(i32 x, i32 y) { return {x, y}; }
DEVICE int4 make_int4(i32 x, i32 y, i32 z, i32 w) { return {x, y, z, w}; }
DEVICE float2 make_float2(float x, float y) { return {x, y}; }
DEVICE float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
DEVICE double2 make_double2(double x, double y) { return {x, y}; }
DEVICE ulonglong2 make_ulonglong2(u64 x, u64 y) { return {x, y}; }

#define threadIdx (software::current->thread_index)
#define blockIdx (software::current->block_index)
#define blockDim (software::current->block_dimensions)
#define gridDim (software::current->grid_dimensions)

template <typename To, typename From> DEVICE To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
DEVICE float __uint_as_float(u32 bits) { return same_bits<float>(bits); }
DEVICE float __int_as_float(i32 bits) { return same_bits<float>(bits); }
DEVICE u32 __float_as_uint(float value) { return same_bits<u32>(value); }
DEVICE i32 __float_as_int(float value) { return same_bits<i32>(value); }
DEVICE i64 __double_as_longlong(double value) { return same_bits<i64>(value); }
DEVICE double __longlong_as_double(i64 bits) { return same_bits<double>(bits); }

DEVICE int __popc(u32 value) { return __builtin_popcount(value); }
DEVICE int __popcll(u64 value) { return __builtin_popcountll(value); }
DEVICE int __clz(i32 value) { return value == 0 ? 32 : __builtin_clz((u32)value); }
DEVICE int __clzll(i64 value) { return value == 0 ? 64 : __builtin_clzll((u64)value); }
DEVICE int __ffs(i32 value) { return __builtin_ffs(value); }
DEVICE int __ffsll(i64 value) { return __builtin_ffsll(value); }
DEVICE u32 __brev(u32 value) {
    u32 reversed = 0;
    for (int bit = 0; bit < 32; ++bit) reversed |= (value >> bit & 1u) << (31 - bit);
    return reversed;
}
DEVICE u32 __umulhi(u32 a, u32 b) { return (u32)((u64)a * b >> 32); }
DEVICE i32 __mulhi(i32 a, i32 b) { return (i32)((i64)a * b >> 32); }
DEVICE u64 __umul64hi(u64 a, u64 b) { return (u64)((unsigned __int128)a * b >> 64); }
DEVICE u32 __funnelshift_l(u32 low, u32 high, u32 shift) {
    shift &= 31;
    return shift == 0 ? high : high << shift | low >> (32 - shift);
}
DEVICE u32 __funnelshift_r(u32 low, u32 high, u32 shift) {
    shift &= 31;
    return shift == 0 ? low : low >> shift | high << (32 - shift);
}
DEVICE u32 __byte_perm(u32 x, u32 y, u32 selector) {
    u64 bytes = (u64)y << 32 | x;
    u32 chosen = 0;
    for (int i = 0; i < 4; ++i) {
        u32 nibble = selector >> (4 * i) & 15;
        u32 byte = (u32)(bytes >> (8 * (nibble & 7))) & 255;
        if (nibble & 8) byte = byte & 128 ? 255 : 0;
        chosen |= byte << (8 * i);
    }
    return chosen;
}
template <typename T> DEVICE T __ldg(const T* at) { return *at; }

DEVICE float rsqrtf(float x) { return 1.0f / sqrtf(x); }
DEVICE double rsqrt(double x) { return 1.0 / sqrt(x); }
// These names are the C library's own as well.
DEVICE float device_expf(float x) { return expf(x); }
DEVICE float device_logf(float x) { return logf(x); }
DEVICE float device_log2f(float x) { return log2f(x); }
DEVICE float device_sinf(float x) { return sinf(x); }
DEVICE float device_cosf(float x) { return cosf(x); }
#define __expf device_expf
#define __logf device_logf
#define __log2f device_log2f
#define __sinf device_sinf
#define __cosf device_cosf
DEVICE float __fdividef(float x, float y) { return x / y; }
DEVICE float __frcp_rn(float x) { return 1.0f / x; }
DEVICE float __fsqrt_rn(float x) { return sqrtf(x); }
DEVICE float __fadd_rn(float x, float y) { return x + y; }
DEVICE float __fsub_rn(float x, float y) { return x - y; }
DEVICE float __fmul_rn(float x, float y) { return x * y; }
DEVICE float __fdiv_rn(float x, float y) { return x / y; }
DEVICE float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
DEVICE double __dadd_rn(double x, double y) { return x + y; }
DEVICE double __dsub_rn(double x, double y) { return x - y; }
DEVICE double __dmul_rn(double x, double y) { return x * y; }
DEVICE double __ddiv_rn(double x, double y) { return x / y; }
DEVICE double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
DEVICE float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
DEVICE i32 __float2int_rn(float x) { return (i32)rintf(x); }
DEVICE i32 __float2int_rd(float x) { return (i32)floorf(x); }
DEVICE i32 __float2int_rz(float x) { return (i32)x; }
DEVICE u32 __float2uint_rn(float x) { return (u32)rintf(x); }
DEVICE float __int2float_rn(i32 x) { return (float)x; }
DEVICE float __uint2float_rn(u32 x) { return (float)x; }

#define SOFTWARE_MIN_MAX(T)                              \
    DEVICE T min(T a, T b) { return b < a ? b : a; }     \
    DEVICE T max(T a, T b) { return a < b ? b : a; }
SOFTWARE_MIN_MAX(i32)
SOFTWARE_MIN_MAX(u32)
SOFTWARE_MIN_MAX(i64)
SOFTWARE_MIN_MAX(u64)
DEVICE u32 min(i32 a, u32 b) { return min((u32)a, b); }
DEVICE u32 min(u32 a, i32 b) { return min(a, (u32)b); }
DEVICE u32 max(i32 a, u32 b) { return max((u32)a, b); }
DEVICE u32 max(u32 a, i32 b) { return max(a, (u32)b); }
DEVICE float min(float a, float b) { return fminf(a, b); }
DEVICE float max(float a, float b) { return fmaxf(a, b); }
DEVICE double min(double a, double b) { return fmin(a, b); }
DEVICE double max(double a, double b) { return fmax(a, b); }

// ---- the block's shared memory ----------------------------------------------------

DEVICE u8* shared_memory() { return software::current->shared; }
// Counted from the start of the block's shared memory.
DEVICE u32 shared_address(const void* pointer) {
    software::check_shared(pointer, 0, 1, "shared_address");
    return (u32)((const u8*)pointer - software::current->shared);
}

// ---- numbers ------------------------------------------------------------------------

struct bf16 {
    u16 bits;
};
DEVICE float to_float(bf16 value) { return __uint_as_float((u32)value.bits << 16); }
// Rounded to nearest even; NaN is 0x7fff (PTX ISA, cvt).
DEVICE u32 bf16_bits(float value) {
    u32 bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
DEVICE bf16 to_bf16(float value) { return {(u16)bf16_bits(value)}; }
DEVICE u32 pack(float low, float high) { return bf16_bits(high) << 16 | bf16_bits(low); }
DEVICE float low_half(u32 packed) { return __uint_as_float(packed << 16); }
DEVICE float high_half(u32 packed) { return __uint_as_float(packed & 0xffff0000u); }

// Subnormal numbers are zero, before and after.
DEVICE float exp2_fast(float x) {
    if (fabsf(x) < 1.17549435e-38f) x = 0.0f;
    float power = exp2f(x);
    return power < 1.17549435e-38f ? 0.0f : power;
}
DEVICE u32 opaque(u32 number) { return number; }
DEVICE float minus_infinity() { return __uint_as_float(0xff800000u); }

// ---- threads ------------------------------------------------------------------------

DEVICE u32 lane_index() { return threadIdx.x & 31; }
DEVICE u32 warp_index() { return threadIdx.x >> 5; }

DEVICE void sync_block() { software::barrier(0, 0, true); }
DEVICE void sync_warp() { software::collective(software::Kind::sync_warp, nullptr, nullptr); }
DEVICE void sync_threads(u32 id, u32 threads) {
    if (id == 0 || threads == 0) software::fail("sync_threads(%u, %u): barriers are 1 to 15, of at least a warp", id, threads);
    software::barrier(id, threads, true);
}
DEVICE void arrive_threads(u32 id, u32 threads) {
    if (id == 0 || threads == 0) software::fail("arrive_threads(%u, %u): barriers are 1 to 15, of at least a warp", id, threads);
    software::barrier(id, threads, false);
}

template <typename T> struct ShuffleOperand {
    T value, result;
    u32 parameter;
};
// `source(lane, parameter)` is the lane that a lane's value comes from.
template <typename T, u32 (*source)(u32, u32)> static void execute_shuffle(void* const* operands) {
    for (u32 lane = 0; lane < 32; ++lane) {
        ShuffleOperand<T>* to = (ShuffleOperand<T>*)operands[lane];
        to->result = ((const ShuffleOperand<T>*)operands[source(lane, to->parameter)])->value;
    }
}
static inline u32 lane_xor(u32 lane, u32 mask) { return (lane ^ mask) < 32 ? lane ^ mask : lane; }
static inline u32 lane_of(u32, u32 lane) { return lane & 31; }
static inline u32 lane_below(u32 lane, u32 delta) { return lane >= delta ? lane - delta : lane; }
static inline u32 lane_above(u32 lane, u32 delta) { return lane + delta < 32 ? lane + delta : lane; }
template <typename T, u32 (*source)(u32, u32)> DEVICE T exchange(software::Kind kind, T value, u32 parameter) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    ShuffleOperand<T> operand = {value, value, parameter};
    software::collective(kind, &operand, execute_shuffle<T, source>);
    return operand.result;
}
template <typename T> DEVICE T shuffle_xor(T value, u32 mask) { return exchange<T, lane_xor>(software::Kind::shuffle_xor, value, mask); }
template <typename T> DEVICE T shuffle(T value, u32 lane) { return exchange<T, lane_of>(software::Kind::shuffle, value, lane); }
template <typename T> DEVICE T shuffle_up(T value, u32 delta) { return exchange<T, lane_below>(software::Kind::shuffle_up, value, delta); }
template <typename T> DEVICE T shuffle_down(T value, u32 delta) { return exchange<T, lane_above>(software::Kind::shuffle_down, value, delta); }

struct BallotOperand {
    bool predicate;
    u32 votes;
};
static inline void execute_ballot(void* const* operands) {
    u32 votes = 0;
    for (u32 lane = 0; lane < 32; ++lane) votes |= (u32)((const BallotOperand*)operands[lane])->predicate << lane;
    for (u32 lane = 0; lane < 32; ++lane) ((BallotOperand*)operands[lane])->votes = votes;
}
DEVICE u32 ballot(bool predicate) {
    BallotOperand operand = {predicate, 0};
    software::collective(software::Kind::ballot, &operand, execute_ballot);
    return operand.votes;
}

// ---- memory -------------------------------------------------------------------------

DEVICE uint4 load_16(const void* from) {
    software::check_alignment(from, 16, "load_16");
    return *(const uint4*)from;
}
DEVICE void store_16(void* to, uint4 value) {
    software::check_alignment(to, 16, "store_16");
    *(uint4*)to = value;
}
DEVICE uint4 load_weights_16(const void* from) {
    software::check_alignment(from, 16, "load_weights_16");
    return *(const uint4*)from;
}

DEVICE void copy_async_16(void* to_shared, const void* from, bool valid) {
    software::check_shared(to_shared, 16, 16, "copy_async_16");
    software::check_alignment(from, 16, "copy_async_16 from");
    software::copy_async(to_shared, from, 16, valid);
}
DEVICE void copy_async_commit() { software::copy_async_commit(); }
template <int pending> DEVICE void copy_async_wait() { software::copy_async_wait(pending); }

template <u32 units> DEVICE constexpr u32 tile_row_bytes() { return (units & (units - 1)) ? 16 * units + 16 : 16 * units; }
template <u32 units> DEVICE u32 tile_offset(u32 row, u32 unit) {
    if constexpr ((units & (units - 1)) != 0) return row * (16 * units + 16) + 16 * unit;
    else if constexpr (units >= 8) return 16 * (row * units + (unit ^ (row & 7)));
    else return 16 * (row * units + (unit ^ (row / (8 / units) & (units - 1))));
}
template <u32 units> DEVICE u32 tile_step(u32 offset, u32 steps) {
    if constexpr ((units & (units - 1)) != 0) return offset + 32 * steps;
    else return offset ^ (32 * steps);
}

// ---- between blocks -------------------------------------------------------------------

DEVICE void fence_device() { software::fence(); }
DEVICE u32 atomic_add(u32* at, u32 value) {
    software::check_alignment(at, 4, "atomic_add");
    software::accesses_atomically(at);
    u32 before = *(volatile u32*)at;
    *(volatile u32*)at = before + value;
    return before;
}
DEVICE u32 atomic_exchange(u32* at, u32 value) {
    software::check_alignment(at, 4, "atomic_exchange");
    software::accesses_atomically(at);
    u32 before = *(volatile u32*)at;
    *(volatile u32*)at = value;
    return before;
}
DEVICE u32 atomic_add_shared(u32* at, u32 value) {
    software::check_shared(at, 4, 4, "atomic_add_shared");
    return atomic_add(at, value);
}

// ---- between kernels ------------------------------------------------------------------

DEVICE void wait_for_earlier_kernels() { software::wait_for_earlier(); }
DEVICE void let_next_kernel_begin() { software::maybe_yield(); }

// ---- matrices ---------------------------------------------------------------------------

// Products are exact; sums are f32, first D, then in the order of k.
DEVICE void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    software::MmaOperand operand = {d, a, {b0, b1}};
    software::collective(software::Kind::mma, &operand, software::execute_mma);
}
DEVICE void load_matrices(u32 (&matrices)[4], const void* row) {
    software::check_shared(row, 16, 16, "load_matrices");
    software::reads(row, 16);
    software::LoadMatricesOperand operand = {matrices, row};
    software::collective(software::Kind::load_matrices, &operand, software::execute_load_matrices);
}
DEVICE void load_matrices_transposed(u32 (&matrices)[4], const void* row) {
    software::check_shared(row, 16, 16, "load_matrices_transposed");
    software::reads(row, 16);
    software::LoadMatricesOperand operand = {matrices, row};
    software::collective(software::Kind::load_matrices_transposed, &operand, software::execute_load_matrices_transposed);
}

// ---- time ---------------------------------------------------------------------------------

// Time passes, and others with it, so that a loop that waits for a moment ends.
DEVICE u64 clock_ns() {
    software::maybe_yield();
    return software::now_ns();
}

// ---- Hopper -------------------------------------------------------------------------------

#if FORESAIL_ARCHITECTURE == 90

DEVICE void barrier_init(u64* barrier, u32 arrivals) { software::barrier_init((uint64_t*)barrier, arrivals); }
DEVICE void fence_barriers_made() {}
DEVICE void barrier_arrive(u64* barrier) { software::barrier_arrive((uint64_t*)barrier, 0); }
DEVICE void barrier_arrive_expecting(u64* barrier, u32 bytes) { software::barrier_arrive((uint64_t*)barrier, bytes); }
DEVICE void barrier_wait(u64* barrier, u32 parity) { software::barrier_wait((uint64_t*)barrier, parity); }
DEVICE void copy_bulk(void* to_shared, const void* from, u32 bytes, u64* barrier) {
    software::copy_bulk(to_shared, from, bytes, (uint64_t*)barrier);
}
DEVICE void fence_shared_for_tensor_cores() { software::fence_for_tensor_cores(); }

template <int count> DEVICE void set_registers() {
    static_assert(count >= 24 && count <= 256 && count % 8 == 0, "registers are set to 24 to 256, by eights");
    software::collective(software::Kind::set_registers, nullptr, nullptr);
}
template <int count> DEVICE void registers_give_up() { set_registers<count>(); }
template <int count> DEVICE void registers_take() { set_registers<count>(); }

DEVICE void warpgroup_arrive() { software::warpgroup_arrive(); }
DEVICE void warpgroup_commit() { software::warpgroup_commit(); }
template <int pending> DEVICE void warpgroup_wait() { software::warpgroup_wait(pending); }

DEVICE u64 matrix_descriptor(const void* at, u32 leading_bytes, u32 stride_bytes) {
    return (u64)((shared_address(at) & 0x3ffff) >> 4) | (u64)(leading_bytes >> 4) << 16 | (u64)(stride_bytes >> 4) << 32 | (u64)1 << 62;
}
template <int columns, bool b_transposed> DEVICE void warpgroup_multiply(float (&d)[columns / 2], u64 a, u64 b, bool adds) {
    software::warpgroup_product({d, columns, false, false, b_transposed, adds, {}, a, b});
}
template <int columns, bool b_transposed> DEVICE void warpgroup_multiply(float (&d)[columns / 2], const u32 (&a)[4], u64 b, bool adds) {
    software::warpgroup_product({d, columns, true, false, b_transposed, adds, {a[0], a[1], a[2], a[3]}, 0, b});
}

template <int count> DEVICE void warpgroup_has(float (&)[count]) {}
template <int count> DEVICE void warpgroup_has(u32 (&)[count][4]) {}

#endif
