// What runs kernels on a CPU, as the words of prelude.hpp see it.
//
// A thread of a block is a fiber: it runs until it comes to something that it has to
// wait for, and then another one runs, drawn by the launch's seed. Nothing runs at
// the same time, so a test that fails does so again with the same seed.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__ELF__)
#define SOFTWARE_TLS __attribute__((tls_model("initial-exec")))
#else
#define SOFTWARE_TLS
#endif
#define SOFTWARE_EXPORT __attribute__((visibility("default")))

namespace software {

struct Index3 {
    unsigned x, y, z;
};

struct Block;

// What all lanes of a warp, or of a warpgroup, come to together.
enum class Kind : unsigned {
    sync_warp,
    shuffle_xor,
    shuffle,
    shuffle_up,
    shuffle_down,
    ballot,
    mma,
    load_matrices,
    load_matrices_transposed,
    store_matrices,
    set_registers,
    warpgroup_arrive,
    warpgroup_commit,
    warpgroup_wait,
    warpgroup_product,
    count_of_kinds,
};

// The part of a thread that words read.
struct ThreadView {
    Index3 thread_index;
    Index3 block_index;
    Index3 block_dimensions;
    Index3 grid_dimensions;
    unsigned char* shared;
    unsigned shared_bytes;
    unsigned index;  // of the thread in its block
};

// The thread that runs now. (Not `thread_local`, which would be read through a function.)
SOFTWARE_EXPORT extern __thread ThreadView* current SOFTWARE_TLS;

// ---- what words call ----------------------------------------------------------

// Ends the launch: what is wrong, as for printf.
[[noreturn]] SOFTWARE_EXPORT void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Waits until all 32 lanes have come to the same kind; the last runs `execute` with the
// operands of all, in the order of lanes.
typedef void (*Execute)(void* const* operands);
SOFTWARE_EXPORT void collective(Kind kind, void* operand, Execute execute);

// Barrier `id`; zero threads are all that have not ended. One that only arrives does not wait.
SOFTWARE_EXPORT void barrier(unsigned id, unsigned threads, bool waits);

SOFTWARE_EXPORT void copy_async(void* to, const void* from, unsigned bytes, bool valid);
SOFTWARE_EXPORT void copy_async_commit();
SOFTWARE_EXPORT void copy_async_wait(unsigned pending);

SOFTWARE_EXPORT void wait_for_earlier();
// Perhaps lets another thread run: where threads and blocks meet in memory.
SOFTWARE_EXPORT void maybe_yield();
// Lets others run, as this thread waits for what only they can do; it is stuck if there are none.
SOFTWARE_EXPORT void spin();

SOFTWARE_EXPORT uint64_t now_ns();

// An access by `what` of bytes of shared memory, at an address that is a multiple of `alignment`.
SOFTWARE_EXPORT void check_shared(const void* at, size_t bytes, size_t alignment, const char* what);
inline void check_alignment(const void* at, size_t alignment, const char* what) {
    if (__builtin_expect((uintptr_t)at % alignment != 0, 0)) {
        fail("%s of %p, which is not a multiple of %zu", what, at, alignment);
    }
}

// For the checker: an access of this thread that it cannot see, an atomic one, and fences.
SOFTWARE_EXPORT void reads(const void* at, size_t bytes);
SOFTWARE_EXPORT void accesses_atomically(void* at);
SOFTWARE_EXPORT void fence();
SOFTWARE_EXPORT void fence_for_tensor_cores();

// ---- matrices -------------------------------------------------------------------

struct MmaOperand {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
};
SOFTWARE_EXPORT void execute_mma(void* const* operands);

struct LoadMatricesOperand {
    uint32_t* matrices;
    const void* row;
};
SOFTWARE_EXPORT void execute_load_matrices(void* const* operands);
SOFTWARE_EXPORT void execute_load_matrices_transposed(void* const* operands);

// ---- Hopper ---------------------------------------------------------------------

SOFTWARE_EXPORT void barrier_init(uint64_t* barrier, uint32_t arrivals);
SOFTWARE_EXPORT void barrier_arrive(uint64_t* barrier, uint32_t expected_bytes);
SOFTWARE_EXPORT void barrier_wait(uint64_t* barrier, uint32_t parity);
SOFTWARE_EXPORT void copy_bulk(void* to, const void* from, uint32_t bytes, uint64_t* barrier);

// D (+)= A B of 64 x 16 by 16 x `columns`, of a warpgroup; A is in registers or in shared memory.
struct WarpgroupProduct {
    float* d;  // columns / 2 numbers
    unsigned columns;
    bool a_in_registers, a_transposed, b_transposed, adds;
    uint32_t a[4];
    uint64_t a_descriptor, b_descriptor;
};
SOFTWARE_EXPORT void warpgroup_product(WarpgroupProduct product);
SOFTWARE_EXPORT void warpgroup_arrive();
SOFTWARE_EXPORT void warpgroup_commit();
SOFTWARE_EXPORT void warpgroup_wait(unsigned pending);

// ---- what units export, and what the host calls -----------------------------------

struct Kernel {
    const char* name;
    uint64_t argument_bytes;
    uint64_t threads_max;
    void (*thread)(const void* arguments);
};

// One element of a chain of work. `kernel` is null for a product.
struct Product {
    uint64_t rows, outputs, inputs;
    const uint16_t* x;
    uint64_t x_stride;
    const uint16_t* weights;
    uint64_t weights_stride;
    void* y;
    uint64_t y_stride;
    uint32_t is_f32, adds;
};
struct Request {
    const Kernel* kernel;
    const void* arguments;
    uint32_t blocks[3];
    uint32_t threads;
    uint32_t shared_bytes;
    uint32_t overlaps;
    uint64_t seed;
    const Product* product;
};

}  // namespace software
