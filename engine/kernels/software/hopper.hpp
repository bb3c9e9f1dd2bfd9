// What only Hopper has: barriers in shared memory, copies in bulk, products of warpgroups.
#pragma once

#include "block.hpp"
#include "matrices.hpp"

namespace software {

static Thread* running();
static void wait_for(Thread* thread, Wait wait, unsigned detail);

// ---- barriers in shared memory (PTX ISA, "mbarrier") ---------------------------------

// A barrier's 64 bits, as they are here: the vendor's are not told.
struct MemoryBarrier {
    uint64_t mark : 8;      // that it was made
    uint64_t phase : 1;     // the parity of the phase under way
    uint64_t arrivals : 12; // that complete a phase
    uint64_t pending : 12;  // that are left in this one
    int64_t bytes : 31;     // that are left in this one; fewer than none if some arrive before they are expected
};
static_assert(sizeof(MemoryBarrier) == 8, "a barrier has 64 bits");
constexpr uint64_t barrier_mark = 0x5b;

static MemoryBarrier* memory_barrier(uint64_t* at, const char* what) {
    check_shared(at, 8, 8, what);
    MemoryBarrier* barrier = (MemoryBarrier*)at;
    if (barrier->mark != barrier_mark) {
        fail("%s of a barrier that was not made, at %zu of shared memory", what, (size_t)((unsigned char*)at - current->shared));
    }
    return barrier;
}

inline std::string describe_barrier(const unsigned char* at) {
    const MemoryBarrier* barrier = (const MemoryBarrier*)at;
    return "misses " + std::to_string((unsigned)barrier->pending) + " of " + std::to_string((unsigned)barrier->arrivals) + " arrivals and " +
           std::to_string((long)barrier->bytes) + " bytes in a phase of parity " + std::to_string((unsigned)barrier->phase);
}

// Completes the phase if nothing is left of it.
static void memory_barrier_progress(Block& block, MemoryBarrier* barrier) {
    if (barrier->pending != 0 || barrier->bytes != 0) return;
    order_phase(block, barrier);
    barrier->phase ^= 1;
    barrier->pending = barrier->arrivals;
    block.release(Wait::memory_barrier, (unsigned)((unsigned char*)barrier - block.shared_at));
}

void barrier_init(uint64_t* at, uint32_t arrivals) {
    check_shared(at, 8, 8, "barrier_init");
    if (arrivals == 0 || arrivals > 4095) fail("barrier_init of %u arrivals", arrivals);
    MemoryBarrier* barrier = (MemoryBarrier*)at;
    barrier->mark = barrier_mark;
    barrier->phase = 0;
    barrier->arrivals = arrivals;
    barrier->pending = arrivals;
    barrier->bytes = 0;
}

void barrier_arrive(uint64_t* at, uint32_t expected_bytes) {
    MemoryBarrier* barrier = memory_barrier(at, "barrier_arrive");
    if (barrier->pending == 0) fail("barrier_arrive: the phase has all of its %u arrivals, and waits for bytes", (unsigned)barrier->arrivals);
    barrier->bytes += expected_bytes;
    barrier->pending -= 1;
    order_arrival(*running(), barrier);
    running()->block->launch->spins = 0;
    memory_barrier_progress(*running()->block, barrier);
    maybe_yield();
}

void barrier_wait(uint64_t* at, uint32_t parity) {
    if (parity > 1) fail("barrier_wait for parity %u", parity);
    const unsigned offset = (unsigned)((unsigned char*)at - current->shared);
    while (memory_barrier(at, "barrier_wait")->phase == parity) wait_for(running(), Wait::memory_barrier, offset);
    order_waited(*running(), at);
}

// ---- copies in bulk (PTX ISA, "cp.async.bulk") ------------------------------------------

static void do_bulk_copy(Block& block, const BulkCopy& copy) {
    memcpy(copy.to, copy.from, copy.bytes);
    MemoryBarrier* barrier = (MemoryBarrier*)copy.barrier;
    barrier->bytes -= copy.bytes;
    memory_barrier_progress(block, barrier);
}

void copy_bulk(void* to, const void* from, uint32_t bytes, uint64_t* at) {
    Thread* thread = running();
    check_shared(to, bytes, 16, "copy_bulk");
    check_alignment(from, 16, "copy_bulk from");
    if (bytes == 0 || bytes % 16 != 0) fail("copy_bulk of %u bytes", bytes);
    memory_barrier(at, "copy_bulk");
    access(*thread, to, bytes, Access::write, 16, true);
    access(*thread, from, bytes, Access::read, 16);
    // Whoever waits for the barrier sees what this thread has begun.
    order_arrival(*thread, at);
    const BulkCopy copy = {to, from, bytes, at};
    if (thread->block->launch->copies_late()) thread->block->bulk_copies.push_back(copy);
    else do_bulk_copy(*thread->block, copy);
    thread->block->launch->spins = 0;
    maybe_yield();
}

// When nothing else can go on: one of the copies that have begun, whichever.
static bool deliver_a_bulk_copy(Launch& launch) {
    for (const auto& block : launch.resident) {
        if (block->bulk_copies.empty()) continue;
        std::swap(block->bulk_copies[launch.random() % block->bulk_copies.size()], block->bulk_copies.back());
        const BulkCopy copy = block->bulk_copies.back();
        block->bulk_copies.pop_back();
        if (((const MemoryBarrier*)copy.barrier)->mark != barrier_mark) {
            launch.failed = true;
            launch.error = name_of(launch, block->index) + ": the barrier of a copy in bulk was written over";
            return true;
        }
        do_bulk_copy(*block, copy);
        return true;
    }
    return false;
}

// ---- products of warpgroups (PTX ISA, "Asynchronous warpgroup level matrix instructions") ----

// Where an element is that a matrix descriptor describes: `outer` is its row of A or its column of B.
//
// "Canonical layouts", in units of 16 bytes, for swizzles of 1, 2, 4 or 8 units a row. The k of a matrix that
// is not transposed lies in a row; else its rows or columns do. The address is that of the layout, its
// bits 4 to 6 then exclusive-or bits 7 to 9, as many of them as the swizzle has.
static uint32_t element_address(uint64_t descriptor, bool transposed, unsigned outer, unsigned k) {
    const uint32_t start = (uint32_t)(descriptor & 0x3fff) << 4;
    const uint32_t leading = (uint32_t)(descriptor >> 16 & 0x3fff) << 4;
    const uint32_t stride = (uint32_t)(descriptor >> 32 & 0x3fff) << 4;
    static const unsigned swizzle_bits[4] = {0, 3, 2, 1};
    const unsigned bits = swizzle_bits[descriptor >> 62];
    const unsigned units = 1u << bits;
    uint32_t address = start;
    if (!transposed) {
        address += outer % 8 * 16 * units + outer / 8 * stride + k % 8 * 2 + k / 8 * (bits == 0 ? leading : 16);
    } else if (bits == 0) {
        address += outer % 8 * 2 + outer / 8 * stride + k % 8 * 16 + k / 8 * leading;
    } else {
        address += outer % 8 * 2 + outer / 8 % units * 16 + outer / 8 / units * leading + k % 8 * 16 * units + k / 8 * stride;
    }
    return address ^ ((address >> 7 & (units - 1)) << 4);
}

static float element(const Block& block, uint64_t descriptor, bool transposed, unsigned outer, unsigned k) {
    const uint32_t address = element_address(descriptor, transposed, outer, k);
    if (address + 2 > block.launch->request_shared_bytes()) {
        fail("a product of a warpgroup reads byte %u of %u bytes of shared memory", address, block.launch->request_shared_bytes());
    }
    uint16_t bits;
    memcpy(&bits, block.shared_at + address, 2);
    return bf16_float(bits);
}

// For the checker: all that a warp's part reads, when it begins and when it is waited for.
static void access_of_product(Block& block, unsigned warp, const WarpgroupProduct& product) {
    if (block.launch->checked_or_null() == nullptr) return;
    Thread& thread = block.threads[warp * 32];
    auto unit = [&](uint64_t descriptor, bool transposed, unsigned outer, unsigned k) {
        access(thread, block.shared_at + element_address(descriptor, transposed, outer, k), 16, Access::product, 16);
    };
    auto matrix = [&](uint64_t descriptor, bool transposed, unsigned first, unsigned count) {
        for (unsigned outer = first; outer < first + count; outer += transposed ? 8 : 1) {
            for (unsigned k = 0; k < 16; k += transposed ? 1 : 8) unit(descriptor, transposed, outer, k);
        }
    };
    matrix(product.b_descriptor, product.b_transposed, 0, product.columns);
    if (!product.a_in_registers) matrix(product.a_descriptor, product.a_transposed, warp % 4 * 16, 16);
}

// A warp's 16 rows. "Register fragments for wgmma.mma_async.m64nNk16": of D, lane i has of each 8 columns
// what it has of mma.m16n8k16; of A too.
SOFTWARE_FAST static void do_product(Block& block, unsigned warp, const WarpProduct& product) {
    const WarpgroupProduct& first = product.lanes[0];
    alignas(32) float a[16][16], b[16][256];
    for (unsigned k = 0; k < 16; ++k) {
        for (unsigned column = 0; column < first.columns; ++column) b[k][column] = element(block, first.b_descriptor, first.b_transposed, column, k);
        for (unsigned row = 0; row < 16; ++row) {
            if (first.a_in_registers) {
                const WarpgroupProduct& lane = product.lanes[row % 8 * 4 + k % 8 / 2];
                a[row][k] = bf16_float(lane.a[row / 8 + 2 * (k / 8)] >> (16 * (k % 2)) & 0xffff);
            } else {
                a[row][k] = element(block, first.a_descriptor, first.a_transposed, warp % 4 * 16 + row, k);
            }
        }
    }
    for (unsigned row = 0; row < 16; ++row) {
        alignas(32) float sums[256];
        for (unsigned column = 0; column < first.columns; ++column) {
            const WarpgroupProduct& lane = product.lanes[row % 8 * 4 + column % 8 / 2];
            sums[column] = first.adds ? lane.d[column / 8 * 4 + row / 8 * 2 + column % 2] : 0.0f;
        }
        for (unsigned column = 0; column < first.columns; column += 8) {
            Eight eight = *(const Eight*)(sums + column);
            for (unsigned k = 0; k < 16; ++k) eight += a[row][k] * *(const Eight*)(b[k] + column);
            *(Eight*)(sums + column) = eight;
        }
        for (unsigned column = 0; column < first.columns; ++column) {
            const WarpgroupProduct& lane = product.lanes[row % 8 * 4 + column % 8 / 2];
            lane.d[column / 8 * 4 + row / 8 * 2 + column % 2] = sums[column];
        }
    }
}

// Each warp's part is done by itself: warps of a group are not at the same place.
static void execute_warpgroup_product(void* const* operands) {
    Thread* thread = running();
    Warp& warp = thread->block->warps[thread->index / 32];
    WarpProduct product;
    for (int lane = 0; lane < 32; ++lane) product.lanes[lane] = *(const WarpgroupProduct*)operands[lane];
    const WarpgroupProduct& first = product.lanes[0];
    for (const WarpgroupProduct& lane : product.lanes) {
        if (lane.b_descriptor != first.b_descriptor || lane.a_descriptor != first.a_descriptor || lane.adds != first.adds) {
            fail("lanes of a warp begin different products of their warpgroup");
        }
    }
    if (!warp.has_arrived_for_products) fail("a product of a warpgroup before warpgroup_arrive");
    warp.products_begun += 1;
    access_of_product(*thread->block, thread->index / 32, first);
    if (!thread->block->launch->copies_late()) {
        do_product(*thread->block, thread->index / 32, product);
        product.done = true;
    }
    warp.products.push_back(product);
}

void warpgroup_product(WarpgroupProduct product) {
    if (product.columns == 0 || product.columns > 256 || product.columns % 8 != 0) fail("a product of a warpgroup of %u columns", product.columns);
    for (uint64_t descriptor : {product.a_in_registers ? 0 : product.a_descriptor, product.b_descriptor}) {
        if ((descriptor >> 49 & 7) != 0) fail("a matrix descriptor with a base offset: tiles begin at multiples of 1024 here");
    }
    collective(Kind::warpgroup_product, &product, execute_warpgroup_product);
}

static void execute_arrive(void* const*) {
    Thread* thread = running();
    thread->block->warps[thread->index / 32].has_arrived_for_products = true;
}
void warpgroup_arrive() {
    if (running()->block->threads_count % 128 != 0) fail("warpgroup_arrive in a block whose warps are no groups of four");
    collective(Kind::warpgroup_arrive, nullptr, execute_arrive);
}

static void execute_commit(void* const*) {
    Thread* thread = running();
    Warp& warp = thread->block->warps[thread->index / 32];
    warp.product_group_ends.push_back(warp.products.size());
}
void warpgroup_commit() { collective(Kind::warpgroup_commit, nullptr, execute_commit); }

static void execute_wait(void* const* operands) {
    Thread* thread = running();
    Warp& warp = thread->block->warps[thread->index / 32];
    const unsigned pending = *(const unsigned*)operands[0];
    if (warp.product_group_ends.size() <= pending) return;
    const size_t groups = warp.product_group_ends.size() - pending;
    const size_t products = warp.product_group_ends[groups - 1];
    for (size_t i = 0; i < products; ++i) {
        if (!warp.products[i].done) do_product(*thread->block, thread->index / 32, warp.products[i]);
        access_of_product(*thread->block, thread->index / 32, warp.products[i].lanes[0]);
    }
    warp.products.erase(warp.products.begin(), warp.products.begin() + (ptrdiff_t)products);
    warp.product_group_ends.erase(warp.product_group_ends.begin(), warp.product_group_ends.begin() + (ptrdiff_t)groups);
    for (size_t& end : warp.product_group_ends) end -= products;
}
void warpgroup_wait(unsigned pending) { collective(Kind::warpgroup_wait, &pending, execute_wait); }

// At a block's end nothing may be under way, and the warps of a group have done the same products.
static void check_all_arrived(Launch& launch, const Block& block) {
    const char* what = nullptr;
    if (!block.bulk_copies.empty()) what = " ended while copies in bulk were under way";
    const unsigned warps = block.threads_count / 32;
    for (unsigned warp = 0; warp < warps; ++warp) {
        if (!block.warps[warp].products.empty()) what = " ended while products of a warpgroup were under way";
        if (warps % 4 == 0 && block.warps[warp].products_begun != block.warps[warp / 4 * 4].products_begun) {
            what = ": the warps of a warpgroup began different numbers of products";
        }
    }
    if (what == nullptr || launch.failed) return;
    launch.failed = true;
    launch.error = name_of(launch, block.index) + what;
}

}  // namespace software
