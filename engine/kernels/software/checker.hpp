// Finds accesses of memory that nothing orders, as happens-before has it.
//
// Each thread counts its own time. When it waits at a barrier it learns the times that
// the others had when they came; an access is in order after another if the thread that does it has
// learned a later time of the other's thread than that access was at (Flanagan and Freund,
// "FastTrack", PLDI 2009). Ordered are: what is on both sides of `sync_warp` (other words of a warp order
// nothing), of barriers, of barriers in shared memory; a fence and an atomic access before, an atomic access of
// the same word and a fence after; and kernels, once `wait_for_earlier_kernels` was called.
//
// The compiler tells of each access: units are compiled as for its own thread sanitizer, with
// the functions that are at the end of this file in place of its library.
#pragma once

#include <algorithm>
#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "block.hpp"

namespace software {

// What a thread knows of the times of others.
struct Clocks {
    std::vector<uint32_t> of_thread;  // of its block
    std::unordered_map<unsigned, std::shared_ptr<const Clocks>> of_block;  // of others
    bool waited = false;

    bool knows(unsigned thread, uint64_t clock) const { return thread < of_thread.size() && of_thread[thread] >= clock; }
    void learn(const Clocks& other) {
        if (&other == this) return;
        if (of_thread.size() < other.of_thread.size()) of_thread.resize(other.of_thread.size());
        for (size_t i = 0; i < other.of_thread.size(); ++i) of_thread[i] = std::max(of_thread[i], other.of_thread[i]);
        for (const auto& [block, clocks] : other.of_block) learn_of_block(block, clocks);
        waited |= other.waited;
    }
    void learn_of_block(unsigned block, const std::shared_ptr<const Clocks>& clocks) {
        std::shared_ptr<const Clocks>& known = of_block[block];
        if (known == clocks) return;
        if (known == nullptr) {
            known = clocks;
            return;
        }
        auto both = std::make_shared<Clocks>();
        both->of_thread.resize(std::max(known->of_thread.size(), clocks->of_thread.size()));
        for (size_t i = 0; i < known->of_thread.size(); ++i) both->of_thread[i] = known->of_thread[i];
        for (size_t i = 0; i < clocks->of_thread.size(); ++i) both->of_thread[i] = std::max(both->of_thread[i], clocks->of_thread[i]);
        known = both;
    }
};
typedef std::shared_ptr<const Clocks> Known;

// What is remembered of the device's memory for as long as a chain runs.
struct GlobalCells {
    struct Page {
        Cell cells[2048];
    };
    std::vector<std::vector<std::unique_ptr<Page>>> pages;       // of 4096 bytes, of each allocation
    std::unordered_set<uintptr_t> atomics;                       // words that atomic accesses went to
    // What was released with an atomic access of a word, by the block that did it.
    std::unordered_map<uintptr_t, std::vector<std::pair<unsigned, Known>>> released;
    // Where memory is, by its start.
    std::vector<std::pair<uintptr_t, Allocation>> allocations;
    size_t last_found = 0;

    void look() {
        Allocations& all = software::allocations();
        std::lock_guard<std::mutex> guard(all.lock);
        allocations.assign(all.by_address.begin(), all.by_address.end());
        pages.clear();
        pages.resize(allocations.size());
    }
    bool within(size_t index, uintptr_t at) const {
        return index < allocations.size() && at >= allocations[index].first && at < (uintptr_t)allocations[index].second.pages.end();
    }
    // The allocation that an address is in, or in the rest of its last page.
    const std::pair<uintptr_t, Allocation>* find(uintptr_t at) {
        if (within(last_found, at)) return &allocations[last_found];
        auto after = std::upper_bound(allocations.begin(), allocations.end(), at,
                                      [](uintptr_t address, const auto& allocation) { return address < allocation.first; });
        if (after == allocations.begin()) return nullptr;
        const size_t index = (size_t)(after - allocations.begin()) - 1;
        if (!within(index, at)) return nullptr;
        last_found = index;
        return &allocations[index];
    }
    // Those of an address in the allocation that was found last, to the end of its page.
    Cell* cells_of_last(uintptr_t at) {
        std::vector<std::unique_ptr<Page>>& of_allocation = pages[last_found];
        const size_t index = (at >> 12) - (allocations[last_found].first >> 12);
        if (of_allocation.size() <= index) of_allocation.resize(index + 1);
        if (of_allocation[index] == nullptr) of_allocation[index].reset(new Page());
        return &of_allocation[index]->cells[(at & 4095) / 2];
    }
};

struct Checked {
    GlobalCells cells;
};

// ---- what orders accesses ----------------------------------------------------------

static Checked* checked_of(const Block& block);
static unsigned launch_of(const Block& block);
static std::string name_of_place(const Block& block, uintptr_t at);

// All that a thread has done until now, for others.
static Known all_of(const Thread& thread) {
    auto clocks = std::make_shared<Clocks>(*thread.known);
    clocks->of_thread[thread.index] = thread.clock;
    clocks->waited |= thread.waited;
    return clocks;
}
static void learn(Thread& thread, const Clocks& other) {
    auto clocks = std::make_shared<Clocks>(*thread.known);
    clocks->learn(other);
    thread.known = clocks;
}

static void begin_checking(Block& block) {
    auto nothing = std::make_shared<Clocks>();
    nothing->of_thread.resize(block.threads_count);
    for (unsigned index = 0; index < block.threads_count; ++index) {
        Thread& thread = block.threads[index];
        thread.known = nothing;
        thread.to_acquire = nullptr;
        thread.released = nullptr;
        thread.clock = 1;
        thread.fenced = 0;
        thread.waited = false;
    }
    block.write_in_doubt.bytes = 0;
    block.shared_cells.assign((size_t)(block.shared.end() - block.shared_at) / 2, Cell());
    block.memory_barriers.clear();
    for (auto& participants : block.participants) participants.clear();
}

// What all of these know and have done, they learn; but for those that only arrive.
template <typename Threads> static void order(Block& block, const Threads& threads) {
    auto all = std::make_shared<Clocks>();
    const Clocks* last = nullptr;
    std::shared_ptr<Clocks> to_acquire, released;
    const Clocks *last_to_acquire = nullptr, *last_released = nullptr;
    auto join = [](std::shared_ptr<Clocks>& both, const Known& of_thread, const Clocks*& last) {
        if (of_thread == nullptr || of_thread.get() == last) return;
        last = of_thread.get();
        if (both == nullptr) both = std::make_shared<Clocks>();
        both->learn(*of_thread);
    };
    for (unsigned index : threads) {
        Thread& thread = block.threads[index];
        if (thread.known.get() != last) all->learn(*thread.known);
        last = thread.known.get();
        all->waited |= thread.waited;
        join(to_acquire, thread.to_acquire, last_to_acquire);
        join(released, thread.released, last_released);
    }
    for (unsigned index : threads) all->of_thread[index] = block.threads[index].clock;
    for (unsigned index : threads) {
        Thread& thread = block.threads[index];
        thread.clock += 1;
        if (thread.arrives_only) {
            thread.arrives_only = false;
            continue;
        }
        thread.known = all;
        // A fence is over when what was written before it is there for all, so one of any thread serves all that wait for it.
        if (to_acquire != nullptr) thread.to_acquire = to_acquire;
        if (released != nullptr) thread.released = released;
    }
}

static void order_warp(void* const*) {
    Thread* thread = static_cast<Thread*>(current);
    if (checked_of(*thread->block) == nullptr) return;
    std::array<unsigned, 32> lanes;
    for (unsigned lane = 0; lane < 32; ++lane) lanes[lane] = thread->index / 32 * 32 + lane;
    order(*thread->block, lanes);
}

static void order_fence(Thread& thread) {
    if (checked_of(*thread.block) == nullptr) return;
    if (thread.to_acquire != nullptr) {
        learn(thread, *thread.to_acquire);
        thread.to_acquire = nullptr;
    }
    thread.released = all_of(thread);
    thread.clock += 1;
}

static void order_atomic(Thread& thread, uintptr_t at) {
    Checked* checked = checked_of(*thread.block);
    if (checked == nullptr) return;
    checked->cells.atomics.insert(at & ~(uintptr_t)3);
    auto& released = checked->cells.released[at];
    if (!released.empty()) {
        auto clocks = std::make_shared<Clocks>();
        if (thread.to_acquire != nullptr) clocks->learn(*thread.to_acquire);
        for (const auto& [block, known] : released) {
            if (block == thread.block->index) clocks->learn(*known);
            else {
                clocks->learn_of_block(block, known);
                for (const auto& [other, of_other] : known->of_block) clocks->learn_of_block(other, of_other);
            }
        }
        thread.to_acquire = clocks;
    }
    if (thread.released == nullptr) return;
    for (auto& [block, known] : released) {
        if (block != thread.block->index) continue;
        auto both = std::make_shared<Clocks>(*known);
        both->learn(*thread.released);
        known = both;
        return;
    }
    released.emplace_back(thread.block->index, thread.released);
}

static void order_arrival(Thread& thread, void* barrier) {
    if (checked_of(*thread.block) == nullptr) return;
    auto& state = thread.block->memory_barriers[barrier];
    if (state.arriving == nullptr) state.arriving = std::make_shared<Clocks>();
    state.arriving->learn(*all_of(thread));
    thread.clock += 1;
}
// A phase is complete.
static void order_phase(Block& block, void* barrier) {
    if (checked_of(block) == nullptr) return;
    auto& state = block.memory_barriers[barrier];
    state.complete = state.arriving;
    state.arriving = nullptr;
}
static void order_waited(Thread& thread, void* barrier) {
    if (checked_of(*thread.block) == nullptr) return;
    auto& state = thread.block->memory_barriers[barrier];
    if (state.complete != nullptr) learn(thread, *state.complete);
}

// ---- accesses ------------------------------------------------------------------------

enum class Access { read, write, product };

static Epoch epoch_of(const Thread& thread) {
    Epoch epoch;
    epoch.launch = launch_of(*thread.block) & 255;
    epoch.waited = thread.waited || thread.known->waited;
    epoch.by_copy = 0;
    epoch.block = thread.block->index & 0xfffff;
    epoch.thread = thread.index;
    epoch.clock = thread.clock & 0xffffff;
    return epoch;
}

static bool is_before(const Epoch& epoch, const Thread& thread, const Epoch& now) {
    if (epoch.launch < now.launch) return now.waited;
    if (epoch.launch > now.launch) return epoch.waited;
    if (epoch.block != now.block) {
        auto found = thread.known->of_block.find((unsigned)epoch.block);
        return found != thread.known->of_block.end() && found->second->knows((unsigned)epoch.thread, epoch.clock);
    }
    return epoch.thread == now.thread || thread.known->knows((unsigned)epoch.thread, epoch.clock);
}

static bool is_before(const Epoch& epoch, const Thread& thread, const Epoch& now, uint64_t& last) {
    if (epoch.clock == 0) return true;
    // Most cells of an access are of one.
    uint64_t bits;
    memcpy(&bits, &epoch, sizeof bits);
    if (bits == last) return true;
    const bool before = is_before(epoch, thread, now);
    if (before) last = bits;
    return before;
}
[[noreturn]] static void fail_for(const Thread& thread, const std::string& text);

[[noreturn]] static void report(const Thread& thread, uintptr_t at, const char* does, const Epoch& other, const char* did, const Epoch& now) {
    std::string who = "thread " + std::to_string((unsigned)other.thread);
    if (other.launch != now.launch) {
        who += " of a kernel that is " + std::string(other.launch < now.launch ? "before" : "after") + " it";
    } else if (other.block != now.block) {
        who += " of block " + std::to_string((unsigned)other.block);
    }
    const bool kernels = other.launch != now.launch;
    fail_for(thread, std::string(does) + " " + name_of_place(*thread.block, at) + ", which " + who + " " + did +
                         (kernels ? ", without wait_for_earlier_kernels() between them" : ", and nothing orders the two"));
}

// Two threads may write the same: what a write leaves is seen when its thread does anything else.
static void check_write_in_doubt(Thread& thread) {
    WriteInDoubt& doubt = thread.block->write_in_doubt;
    if (doubt.bytes == 0) return;
    const bool changed = memcmp((const void*)doubt.at, doubt.before, doubt.bytes) != 0;
    doubt.bytes = 0;
    if (changed) report(thread, doubt.at, "writes", doubt.other, "wrote", doubt.now);
}

static void check_cell(Thread& thread, Cell& cell, uintptr_t at, bool writes, const Epoch& now, uint64_t& last) {
    const char* does = writes ? "writes" : "reads";
    if (!is_before(cell.write, thread, now, last)) {
        if (!writes) report(thread, at, does, cell.write, "wrote", now);
        WriteInDoubt& doubt = thread.block->write_in_doubt;
        if (doubt.bytes == 0) doubt.at = at, doubt.other = cell.write, doubt.now = now;
        if (doubt.bytes + 2 <= sizeof doubt.before && doubt.at + doubt.bytes == at) {
            memcpy(doubt.before + doubt.bytes, (const void*)at, 2);
            doubt.bytes += 2;
        }
    }
    if (writes) {
        for (const Epoch& read : {cell.read, cell.read_of_other_warp, cell.read_of_other_lane}) {
            if (!is_before(read, thread, now, last)) report(thread, at, does, read, "read", now);
        }
        cell = Cell();
        cell.write = now;
        return;
    }
    if (cell.read.clock != 0 && (cell.read.thread != now.thread || cell.read.block != now.block || cell.read.launch != now.launch)) {
        const bool same_warp = cell.read.thread / 32 == now.thread / 32 && cell.read.block == now.block && cell.read.launch == now.launch;
        (same_warp ? cell.read_of_other_lane : cell.read_of_other_warp) = cell.read;
    }
    cell.read = now;
}

// An access of a thread; those of a product are reads by tensor cores.
static void access(Thread& thread, const void* pointer, size_t bytes, Access kind, size_t alignment, bool by_copy = false) {
    Checked* checked = checked_of(*thread.block);
    if (checked == nullptr || bytes == 0) return;
    check_write_in_doubt(thread);
    const uintptr_t at = (uintptr_t)pointer;
    // Its own stack, and what it is told of itself, are most of all.
    if (at - (uintptr_t)&thread < sizeof thread) return;
    if (at - (uintptr_t)thread.block->stacks[thread.index / 32].low(thread.index % 32) < stack_bytes) return;
    const uintptr_t shared = (uintptr_t)thread.shared;
    Cell* cells = nullptr;
    const bool is_shared = at >= shared && at < (uintptr_t)thread.block->shared.end();
    if (is_shared) {
        if (at + bytes > shared + thread.shared_bytes) fail_for(thread, "accesses " + name_of_place(*thread.block, at));
        cells = thread.block->shared_cells.data();
    } else {
        const auto* allocation = checked->cells.find(at);
        if (allocation == nullptr) return;
        if (at + bytes > allocation->first + allocation->second.bytes) fail_for(thread, "accesses " + name_of_place(*thread.block, at));
    }
    if (at % alignment != 0) fail_for(thread, "accesses " + std::to_string(bytes) + " bytes at an address that is not a multiple of them, " + name_of_place(*thread.block, at));
    // Single bytes share what is remembered of them.
    if (bytes == 1) return;
    if (!checked->cells.atomics.empty() && checked->cells.atomics.count(at & ~(uintptr_t)3) != 0) return;
    Epoch now = epoch_of(thread);
    now.by_copy = by_copy;
    Cell* next = nullptr;
    uint64_t last = 0;
    for (uintptr_t byte = at & ~(uintptr_t)1; byte < at + bytes; byte += 2) {
        if (is_shared) next = &cells[(byte - shared) / 2];
        else if (next == nullptr || (byte & 4095) == 0) next = checked->cells.cells_of_last(byte);
        else ++next;
        Cell& cell = *next;
        if (kind == Access::product) {
            const Epoch& write = cell.write;
            if (write.clock != 0 && !write.by_copy && thread.block->threads[write.thread].fenced < write.clock) {
                fail_for(thread, "a product reads " + name_of_place(*thread.block, byte) + ", which thread " + std::to_string((unsigned)write.thread) +
                                     " wrote without fence_shared_for_tensor_cores() after it");
            }
        }
        check_cell(thread, cell, byte, kind == Access::write, now, last);
    }
}

// The host's part of a product: what it writes, at a time that all later kernels wait for.
static void access_product(Checked& checked, unsigned launch, const Product& product) {
    Epoch now = {};
    now.launch = launch & 255;
    now.waited = 1;
    now.clock = 1;
    const size_t bytes = product.is_f32 ? 4 : 2;
    for (uint64_t row = 0; row < product.rows; ++row) {
        const uintptr_t begin = (uintptr_t)product.y + row * product.y_stride * bytes;
        for (uintptr_t byte = begin; byte < begin + product.outputs * bytes; byte += 2) {
            if (checked.cells.find(byte) == nullptr) return;
            Cell* cell = checked.cells.cells_of_last(byte);
            *cell = Cell();
            cell->write = now;
        }
    }
}

}  // namespace software

// ---- what the compiler has instrumented code call ----------------------------------------

extern "C" {
// Each is called with an address, before the access.
#define SOFTWARE_HOOK(size)                                                                                                     \
    SOFTWARE_EXPORT void __tsan_read##size(const void* at) {                                                                    \
        if (software::current) software::access(*static_cast<software::Thread*>(software::current), at, size, software::Access::read, size); \
    }                                                                                                                           \
    SOFTWARE_EXPORT void __tsan_write##size(const void* at) {                                                                   \
        if (software::current) software::access(*static_cast<software::Thread*>(software::current), at, size, software::Access::write, size); \
    }                                                                                                                           \
    SOFTWARE_EXPORT void __tsan_unaligned_read##size(const void* at) {                                                          \
        if (software::current) software::access(*static_cast<software::Thread*>(software::current), at, size, software::Access::read, 1); \
    }                                                                                                                           \
    SOFTWARE_EXPORT void __tsan_unaligned_write##size(const void* at) {                                                         \
        if (software::current) software::access(*static_cast<software::Thread*>(software::current), at, size, software::Access::write, 1); \
    }
SOFTWARE_HOOK(1)
SOFTWARE_HOOK(2)
SOFTWARE_HOOK(4)
SOFTWARE_HOOK(8)
SOFTWARE_HOOK(16)
SOFTWARE_EXPORT void __tsan_read_range(const void* at, unsigned long bytes) {
    if (software::current) software::access(*static_cast<software::Thread*>(software::current), at, bytes, software::Access::read, 1);
}
SOFTWARE_EXPORT void __tsan_write_range(const void* at, unsigned long bytes) {
    if (software::current) software::access(*static_cast<software::Thread*>(software::current), at, bytes, software::Access::write, 1);
}
SOFTWARE_EXPORT void __tsan_init() {}
SOFTWARE_EXPORT void __tsan_func_entry(const void*) {}
SOFTWARE_EXPORT void __tsan_func_exit() {}
}
