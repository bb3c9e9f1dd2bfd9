// A block of threads that are fibers, and what each of them waits for.
#pragma once

#include <stdarg.h>
#include <stdio.h>

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fibers.hpp"
#include "runtime.hpp"

namespace software {

enum class Wait : unsigned char { nothing, collective, barrier, earlier_kernels, memory_barrier, ended };

struct Copy {
    void* to;
    const void* from;
    unsigned bytes;
    bool valid;
    bool done;
};

// Who accessed a place, and at what time of his.
struct Epoch {
    uint64_t launch : 8;  // of the chain
    uint64_t waited : 1;  // had waited for earlier kernels
    uint64_t by_copy : 1; // not by the thread itself: a copy in bulk
    uint64_t block : 20;
    uint64_t thread : 10;
    uint64_t clock : 24;  // from 1 on; 0 is no one
};
static_assert(sizeof(Epoch) == 8, "an epoch is a word");

// What is remembered of two bytes: the last write; the last read; the last before of another warp; and of another lane.
struct Cell {
    Epoch write, read, read_of_other_warp, read_of_other_lane;
};

// A write after one that nothing orders before it, of which it is not known yet whether it changes anything.
struct WriteInDoubt {
    uintptr_t at;
    size_t bytes;  // 0: there is none
    unsigned char before[16];
    Epoch other, now;
};

struct Clocks;

struct Thread : ThreadView {
    Block* block;
    Context context;
    Wait wait;
    unsigned wait_detail;
    // Copies that have begun, and where each group of them ends.
    std::vector<Copy> copies;
    std::vector<size_t> group_ends;
    // For the checker: what it knows, what an atomic access has found that a fence will let it know, what it let others know by
    // its last fence; its own time, and that of its last fence for tensor cores.
    std::shared_ptr<const Clocks> known, to_acquire, released;
    uint32_t clock, fenced;
    bool waited;        // for earlier kernels
    bool arrives_only;  // at the barrier that it has come to last
};

// A product of a warpgroup that a warp has begun: its part of 16 rows.
struct WarpProduct {
    std::array<WarpgroupProduct, 32> lanes;
    bool done = false;
};

struct Warp {
    uint32_t runnable;
    uint32_t arrived;  // at the collective
    Kind kind;
    void* operands[32];
    // Products that have begun, and where each group of them ends.
    std::vector<WarpProduct> products;
    std::vector<size_t> product_group_ends;
    bool has_arrived_for_products;
    unsigned products_begun;

    void reset() {
        runnable = arrived = 0;
        products.clear();
        product_group_ends.clear();
        has_arrived_for_products = false;
        products_begun = 0;
    }
};

// A copy in bulk that has begun.
struct BulkCopy {
    void* to;
    const void* from;
    uint32_t bytes;
    uint64_t* barrier;
};

struct Barrier {
    unsigned arrived;
    unsigned threads;  // as those that came said; 0 if all
};

struct Launch;

struct Block {
    Launch* launch = nullptr;
    unsigned index = 0;
    unsigned threads_count = 0;
    unsigned live = 0;
    uint32_t runnable_warps = 0;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<WarpStacks> stacks;
    Barrier barriers[16];
    std::vector<BulkCopy> bulk_copies;
    // For the checker.
    std::vector<Cell> shared_cells;
    WriteInDoubt write_in_doubt = {};
    std::array<std::vector<unsigned>, 16> participants;
    struct Arrivals {
        std::shared_ptr<Clocks> arriving, complete;
    };
    std::map<const void*, Arrivals> memory_barriers;
    GuardedPages shared;
    unsigned char* shared_at = nullptr;

    ~Block() {
        for (WarpStacks& stack : stacks) stack.unmap();
        shared.unmap();
    }

    // What it waits for is forgotten at once, so that it is made runnable once.
    void make_runnable(unsigned thread) {
        threads[thread].wait = Wait::nothing;
        warps[thread / 32].runnable |= 1u << thread % 32;
        runnable_warps |= 1u << thread / 32;
    }
    // All that wait for this.
    void release(Wait wait, unsigned detail) {
        for (unsigned thread = 0; thread < threads_count; ++thread) {
            if (threads[thread].wait == wait && threads[thread].wait_detail == detail) make_runnable(thread);
        }
    }
    bool waits(Wait wait) const {
        for (unsigned thread = 0; thread < threads_count; ++thread) {
            if (threads[thread].wait == wait) return true;
        }
        return false;
    }
};

inline const char* name_of(Kind kind) {
    static const char* const names[(unsigned)Kind::count_of_kinds] = {
        "sync_warp", "shuffle_xor", "shuffle", "shuffle_up", "shuffle_down", "ballot", "mma", "load_matrices",
        "load_matrices_transposed", "store_matrices", "registers_take or registers_give_up", "warpgroup_arrive",
        "warpgroup_commit", "warpgroup_wait", "a product of a warpgroup"};
    return names[(unsigned)kind];
}

// "threads 0-31, 64-95", of those for which it holds.
template <typename Holds> std::string ranges(unsigned count, Holds holds) {
    std::string text;
    for (unsigned first = 0; first < count; ++first) {
        if (!holds(first)) continue;
        unsigned last = first;
        while (last + 1 < count && holds(last + 1)) ++last;
        text += text.empty() ? "" : ", ";
        text += std::to_string(first);
        if (last > first) text += "-" + std::to_string(last);
        first = last;
    }
    return text;
}

std::string describe_barrier(const unsigned char* at);

// What each thread of a stuck block waits for.
inline std::string describe_waits(const Block& block) {
    std::string text;
    std::vector<bool> told(block.threads_count, false);
    for (unsigned thread = 0; thread < block.threads_count; ++thread) {
        if (told[thread]) continue;
        const Thread& first = block.threads[thread];
        auto same = [&](unsigned other) {
            const Thread& thread = block.threads[other];
            return thread.wait == first.wait && thread.wait_detail == first.wait_detail;
        };
        for (unsigned other = thread; other < block.threads_count; ++other) {
            if (same(other)) told[other] = true;
        }
        text += "\n  threads " + ranges(block.threads_count, same);
        switch (first.wait) {
            case Wait::nothing: text += " run"; break;
            case Wait::ended: text += " have ended"; break;
            case Wait::collective:
                text += " wait at " + std::string(name_of((Kind)first.wait_detail)) + " for other lanes of their warps";
                break;
            case Wait::barrier: {
                const Barrier& barrier = block.barriers[first.wait_detail];
                text += " wait at barrier " + std::to_string(first.wait_detail) + ", where " + std::to_string(barrier.arrived) + " of " +
                        std::to_string(barrier.threads == 0 ? block.live : barrier.threads) + " threads have come";
                break;
            }
            case Wait::earlier_kernels: text += " wait for earlier kernels"; break;
            case Wait::memory_barrier:
                text += " wait for the barrier at " + std::to_string(first.wait_detail) + " of shared memory, which " +
                        describe_barrier(block.shared_at + first.wait_detail);
                break;
        }
    }
    return text;
}

}  // namespace software
