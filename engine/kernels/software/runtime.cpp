// The software device: runs launches, block by block and thread by thread.
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include <memory>
#include <mutex>

#include "block.hpp"
#include "matrices.hpp"
#include "memory.hpp"

#include "checker.hpp"

namespace software {

__thread ThreadView* current SOFTWARE_TLS = nullptr;

// Blocks whose stacks and shared memory can be used again, of this thread of the system.
struct Spare {
    std::vector<std::unique_ptr<Block>> blocks;
};
static thread_local Spare spare;

struct Launch {
    const Request* request;
    unsigned index;    // in its chain
    Checked* checked;  // or null
    std::vector<unsigned> order;  // of blocks
    size_t begun = 0;             // blocks of it
    std::vector<std::unique_ptr<Block>> resident;
    Context main;
    uint64_t random_state;
    bool earlier_done = false;
    bool any_waited = false;
    bool failed = false;
    bool block_ended = false;
    unsigned spins = 0;  // since a thread last did anything else
    std::string error;
    alignas(16) unsigned char arguments[4096 + 64];

    Launch(const Request& of, unsigned index_in_chain, Checked* checked_or_null)
        : request(&of), index(index_in_chain), checked(checked_or_null), random_state(of.seed * 0x9e3779b97f4a7c15ull + 0x1234567ull) {
        const size_t blocks = (size_t)of.blocks[0] * of.blocks[1] * of.blocks[2];
        order.resize(blocks);
        for (size_t i = 0; i < blocks; ++i) order[i] = (unsigned)i;
        for (size_t i = blocks; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
        memcpy(arguments, of.arguments, of.kernel->argument_bytes);
    }
    // SplitMix64.
    uint64_t random() {
        uint64_t z = random_state += 0x9e3779b97f4a7c15ull;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        return z ^ z >> 31;
    }
    Checked* checked_or_null() const { return checked; }
    unsigned request_shared_bytes() const { return request->shared_bytes; }
    bool copies_late() const { return (request->seed & 1) == 0; }
    // Blocks that run interleaved: one or three.
    size_t resident_max() const { return (request->seed & 2) == 0 ? 1 : 3; }
    Index3 place_of(unsigned block) const {
        return {block % request->blocks[0], block / request->blocks[0] % request->blocks[1],
                block / request->blocks[0] / request->blocks[1]};
    }
};

static Checked* checked_of(const Block& block) { return block.launch->checked; }
static unsigned launch_of(const Block& block) { return block.launch->index; }

static Thread* running() { return static_cast<Thread*>(current); }

static std::string name_of(const Launch& launch, unsigned block) {
    const Index3 at = launch.place_of(block);
    return "kernel " + std::string(launch.request->kernel->name) + ", block (" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " +
           std::to_string(at.z) + ")";
}

// ---- which thread is next ---------------------------------------------------------

// A bit of a mask that has some, from a random place on.
static unsigned any_bit(uint32_t mask, unsigned random) {
    const unsigned from = random & 31;
    const uint32_t turned = from == 0 ? mask : mask >> from | mask << (32 - from);
    return (unsigned)(__builtin_ctz(turned) + from) & 31;
}

// One that can run, mostly of the warp of the last one, since its stacks are in the cache.
static Thread* pick(Launch& launch, Thread* last) {
    const uint64_t random = launch.random();
    Block* block = nullptr;
    unsigned warp = 0;
    if (last != nullptr && (random >> 40 & 15) != 0 && last->block->warps[last->index / 32].runnable != 0) {
        block = last->block;
        warp = last->index / 32;
    } else {
        const size_t count = launch.resident.size();
        const size_t from = count > 1 ? (size_t)(random >> 44) % count : 0;
        for (size_t i = 0; i < count && block == nullptr; ++i) {
            Block* other = launch.resident[(from + i) % count].get();
            if (other->runnable_warps != 0) block = other;
        }
        if (block == nullptr) return nullptr;
        warp = any_bit(block->runnable_warps, (unsigned)(random >> 20));
    }
    Warp& of = block->warps[warp];
    const unsigned lane = any_bit(of.runnable, (unsigned)random);
    of.runnable &= ~(1u << lane);
    if (of.runnable == 0) block->runnable_warps &= ~(1u << warp);
    return &block->threads[warp * 32 + lane];
}

// Goes on with another thread, or with the launch if none can run. The caller has said what it waits for.
static void suspend(Thread* thread) {
    Launch& launch = *thread->block->launch;
    if (launch.checked != nullptr && !launch.failed) check_write_in_doubt(*thread);
    Thread* next = launch.block_ended || launch.failed ? nullptr : pick(launch, thread);
    if (next != thread) {
        current = next;
        switch_context(thread->context, next != nullptr ? next->context : launch.main);
    }
    thread->wait = Wait::nothing;
}

static void wait_for(Thread* thread, Wait wait, unsigned detail) {
    thread->wait = wait;
    thread->wait_detail = detail;
    thread->block->launch->spins = 0;
    suspend(thread);
}

void fail(const char* format, ...) {
    Thread* thread = running();
    Launch& launch = *thread->block->launch;
    char text[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    launch.error = name_of(launch, thread->block->index) + ", thread " + std::to_string(thread->index) + ": " + text;
    launch.failed = true;
    suspend(thread);
    abort();
}

static void fail_for(const Thread& thread, const std::string& text) {
    Launch& launch = *thread.block->launch;
    launch.error = name_of(launch, thread.block->index) + ", thread " + std::to_string(thread.index) + " " + text;
    launch.failed = true;
    suspend(running());
    abort();
}

static std::string name_of_place(const Block& block, uintptr_t at) {
    const uintptr_t shared = (uintptr_t)block.shared_at;
    char text[200];
    if (at >= shared && at < (uintptr_t)block.shared.end()) {
        snprintf(text, sizeof text, "byte %zu of %u bytes of shared memory", (size_t)(at - shared), block.launch->request->shared_bytes);
        return text;
    }
    const auto* allocation = block.launch->checked->cells.find(at);
    if (allocation == nullptr) return "an unknown place";
    snprintf(text, sizeof text, "byte %zu of an allocation of %zu bytes at %p", (size_t)(at - allocation->first),
             (size_t)allocation->second.bytes, (void*)allocation->first);
    return text;
}

static void barrier_progress(Block& block, unsigned id) {
    Barrier& barrier = block.barriers[id];
    const unsigned expected = barrier.threads == 0 ? block.live : barrier.threads;
    if (barrier.arrived == 0 || barrier.arrived < expected) return;
    barrier.arrived = 0;
    if (block.launch->checked != nullptr) {
        order(block, block.participants[id]);
        block.participants[id].clear();
    }
    block.release(Wait::barrier, id);
}

static void thread_main() {
    {
        Thread* thread = running();
        thread->block->launch->request->kernel->thread(thread->block->launch->arguments);
    }
    Thread* thread = running();
    Block& block = *thread->block;
    thread->wait = Wait::ended;
    block.launch->spins = 0;
    block.live -= 1;
    if (block.launch->checked != nullptr) {
        thread->arrives_only = true;
        block.participants[0].push_back(thread->index);
    }
    // Threads that have ended do not count at the barrier of all.
    if (block.live == 0) block.launch->block_ended = true;
    else if (block.barriers[0].arrived > 0) barrier_progress(block, 0);
    suspend(thread);
    abort();
}

// ---- waiting, as words do ----------------------------------------------------------

void collective(Kind kind, void* operand, Execute execute) {
    Thread* thread = running();
    Warp& warp = thread->block->warps[thread->index / 32];
    const unsigned lane = thread->index % 32;
    if (warp.arrived == 0) {
        warp.kind = kind;
    } else if (warp.kind != kind) {
        const uint32_t arrived = warp.arrived;
        fail("comes to %s, while lanes %s of its warp wait at %s", name_of(kind),
             ranges(32, [&](unsigned other) { return (arrived >> other & 1) != 0; }).c_str(), name_of(warp.kind));
    }
    warp.operands[lane] = operand;
    warp.arrived |= 1u << lane;
    if (warp.arrived != 0xffffffffu) {
        wait_for(thread, Wait::collective, (unsigned)kind);
        return;
    }
    if (execute != nullptr) execute(warp.operands);
    if (kind == Kind::sync_warp || kind == Kind::warpgroup_wait) order_warp(nullptr);
    warp.arrived = 0;
    thread->block->runnable_warps |= 1u << thread->index / 32;
    warp.runnable = 0xffffffffu;
    // Any of them may be the first to go on.
    suspend(thread);
}

void barrier(unsigned id, unsigned threads, bool waits) {
    Thread* thread = running();
    Block& block = *thread->block;
    if (id > 15) fail("comes to barrier %u, and there are 16", id);
    if (threads % 32 != 0) fail("comes to barrier %u of %u threads, which are no warps", id, threads);
    if (threads > block.threads_count) fail("comes to barrier %u of %u threads, and the block has %u", id, threads, block.threads_count);
    Barrier& barrier = block.barriers[id];
    if (barrier.arrived == 0) {
        barrier.threads = threads;
    } else if (barrier.threads != threads) {
        fail("comes to barrier %u as one of %u threads, and others came as one of %u", id, threads, barrier.threads);
    }
    barrier.arrived += 1;
    if (block.launch->checked != nullptr) {
        thread->arrives_only = !waits;
        block.participants[id].push_back(thread->index);
    }
    if (waits) {
        thread->wait = Wait::barrier;
        thread->wait_detail = id;
    }
    block.launch->spins = 0;
    barrier_progress(block, id);
    if (waits) suspend(thread);
}

void wait_for_earlier() {
    Thread* thread = running();
    thread->block->launch->any_waited = true;
    if (!thread->block->launch->earlier_done) wait_for(thread, Wait::earlier_kernels, 0);
    thread->waited = true;
}

void maybe_yield() {
    Thread* thread = running();
    if (thread->block->launch->random() & 1) return;
    thread->block->make_runnable(thread->index);
    suspend(thread);
}

void spin() {
    Thread* thread = running();
    thread->block->launch->spins += 1;
    thread->block->make_runnable(thread->index);
    // When no one else moves, the launch decides whether more blocks begin.
    if (thread->block->launch->spins > 100000) {
        thread->wait = Wait::nothing;
        current = nullptr;
        switch_context(thread->context, thread->block->launch->main);
        return;
    }
    suspend(thread);
}

uint64_t now_ns() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000ull + (uint64_t)time.tv_nsec;
}

// ---- asynchronous copies -------------------------------------------------------------

static void do_copy(Copy& copy) {
    if (copy.done) return;
    copy.done = true;
    if (copy.valid) memcpy(copy.to, copy.from, copy.bytes);
    else memset(copy.to, 0, copy.bytes);
}

// For the checker it is a write from here until it is waited for.
void copy_async(void* to, const void* from, unsigned bytes, bool valid) {
    Thread* thread = running();
    Copy copy = {to, from, bytes, valid, false};
    access(*thread, to, bytes, Access::write, 16);
    if (valid) access(*thread, from, bytes, Access::read, 16);
    if (!thread->block->launch->copies_late()) do_copy(copy);
    thread->copies.push_back(copy);
}

void copy_async_commit() {
    Thread* thread = running();
    thread->group_ends.push_back(thread->copies.size());
}

void copy_async_wait(unsigned pending) {
    Thread* thread = running();
    if (thread->group_ends.size() <= pending) return;
    const size_t groups = thread->group_ends.size() - pending;
    const size_t copies = thread->group_ends[groups - 1];
    for (size_t i = 0; i < copies; ++i) {
        do_copy(thread->copies[i]);
        access(*thread, thread->copies[i].to, thread->copies[i].bytes, Access::write, 16);
    }
    thread->copies.erase(thread->copies.begin(), thread->copies.begin() + (ptrdiff_t)copies);
    thread->group_ends.erase(thread->group_ends.begin(), thread->group_ends.begin() + (ptrdiff_t)groups);
    for (size_t& end : thread->group_ends) end -= copies;
}

void reads(const void* at, size_t bytes) { access(*running(), at, bytes, Access::read, 1); }

void accesses_atomically(void* at) {
    maybe_yield();
    order_atomic(*running(), (uintptr_t)at);
}

void fence() {
    maybe_yield();
    order_fence(*running());
}

void fence_for_tensor_cores() {
    Thread* thread = running();
    thread->fenced = thread->clock;
    thread->clock += 1;
}

void check_shared(const void* at, size_t bytes, size_t alignment, const char* what) {
    const ThreadView* thread = current;
    const uintptr_t offset = (uintptr_t)at - (uintptr_t)thread->shared;
    if (offset > thread->shared_bytes || offset + bytes > thread->shared_bytes) {
        fail("%s of %zu bytes at %p, which is not in the %u bytes of shared memory at %p", what, bytes, at, thread->shared_bytes,
             (void*)thread->shared);
    }
    if (offset % alignment != 0) fail("%s at %zu of shared memory, which is not a multiple of %zu", what, (size_t)offset, alignment);
}

}  // namespace software

#include "hopper.hpp"

namespace software {

// ---- blocks ----------------------------------------------------------------------------

static bool begin_block(Launch& launch) {
    std::unique_ptr<Block> block;
    if (spare.blocks.empty()) {
        block.reset(new Block);
    } else {
        block = std::move(spare.blocks.back());
        spare.blocks.pop_back();
    }
    const Request& request = *launch.request;
    const unsigned warps = request.threads / 32;
    block->launch = &launch;
    block->index = launch.order[launch.begun++];
    block->threads_count = block->live = request.threads;
    block->runnable_warps = 0;
    memset(block->barriers, 0, sizeof block->barriers);
    while (block->stacks.size() < warps) {
        WarpStacks stacks;
        if (!stacks.map()) return false;
        block->stacks.push_back(stacks);
    }
    // Its start is a multiple of 1024, and its end as near to the page that no one may touch as that allows.
    const size_t shared_bytes = ((size_t)request.shared_bytes + 1023) / 1024 * 1024;
    if (block->shared.mapping == nullptr || block->shared.bytes < shared_bytes) {
        block->shared.unmap();
        if (!block->shared.map(shared_bytes < 65536 ? 65536 : shared_bytes)) return false;
    }
    block->shared_at = block->shared.end() - shared_bytes;
    memset(block->shared_at, 0xff, shared_bytes);
    if (block->threads.size() < request.threads) block->threads.resize(request.threads);
    if (block->warps.size() < warps) block->warps.resize(warps);
    for (unsigned warp = 0; warp < warps; ++warp) block->warps[warp].reset();
    block->bulk_copies.clear();
    for (unsigned index = 0; index < request.threads; ++index) {
        Thread& thread = block->threads[index];
        thread.thread_index = {index, 0, 0};
        thread.block_index = launch.place_of(block->index);
        thread.block_dimensions = {request.threads, 1, 1};
        thread.grid_dimensions = {request.blocks[0], request.blocks[1], request.blocks[2]};
        thread.shared = block->shared_at;
        thread.shared_bytes = request.shared_bytes;
        thread.index = index;
        thread.block = block.get();
        thread.copies.clear();
        thread.group_ends.clear();
        thread.waited = thread.arrives_only = false;
        thread.clock = 1;
        prepare(thread.context, block->stacks[index / 32].low(index % 32) + GuardedPages::page(), block->stacks[index / 32].high(index % 32),
                thread_main);
        block->make_runnable(index);
    }
    if (launch.checked != nullptr) begin_checking(*block);
    launch.resident.push_back(std::move(block));
    return true;
}

// Puts away the blocks that have ended; the rest of their shared memory's last KiB must be as it was.
static void end_blocks(Launch& launch) {
    for (size_t i = 0; i < launch.resident.size();) {
        Block& block = *launch.resident[i];
        if (block.live > 0) {
            ++i;
            continue;
        }
        for (unsigned char* at = block.shared_at + launch.request->shared_bytes; at < block.shared.end(); ++at) {
            if (*at == 0xff) continue;
            launch.failed = true;
            launch.error = name_of(launch, block.index) + " wrote after its " + std::to_string(launch.request->shared_bytes) +
                           " bytes of shared memory, at " + std::to_string(at - block.shared_at);
            break;
        }
        check_all_arrived(launch, block);
        spare.blocks.push_back(std::move(launch.resident[i]));
        launch.resident.erase(launch.resident.begin() + (ptrdiff_t)i);
    }
    launch.block_ended = false;
}

static void give_up(Launch& launch, std::string why) {
    launch.failed = true;
    launch.error = std::move(why);
}

// Runs until all blocks that may begin have ended, or wait for earlier kernels.
static void run(Launch& launch, size_t blocks_max, size_t resident_max) {
    while (!launch.failed) {
        while (launch.begun < blocks_max && launch.resident.size() < resident_max) {
            if (!begin_block(launch)) return give_up(launch, "no memory for the stacks of a block");
        }
        if (launch.resident.empty()) return;
        Thread* next = pick(launch, nullptr);
        if (next != nullptr) {
            current = next;
            switch_context(launch.main, next->context);
            current = nullptr;
            if (launch.failed) return;
            end_blocks(launch);
            if (launch.spins > 100000) {
                // Blocks that wait for others: those have to be there.
                if (launch.begun < blocks_max) resident_max = launch.resident.size() + 1;
                else if (launch.earlier_done || launch.spins > 1000000) {
                    std::string text = name_of(launch, launch.resident[0]->index) + " waits for memory to change, and nothing else runs:";
                    return give_up(launch, text + describe_waits(*launch.resident[0]));
                }
                if (launch.begun < blocks_max) launch.spins = 0;
            }
            continue;
        }
        if (deliver_a_bulk_copy(launch)) continue;
        bool waits_for_earlier = false;
        for (const auto& block : launch.resident) {
            if (block->waits(Wait::earlier_kernels)) {
                waits_for_earlier = true;
                continue;
            }
            return give_up(launch, name_of(launch, block->index) + " is stuck:" + describe_waits(*block));
        }
        if (waits_for_earlier) return;
    }
}

static void begin_early(Launch& launch) {
    // Two, of random places: enough to see what comes before the wait.
    const size_t blocks = launch.order.size() < 2 ? launch.order.size() : 2;
    run(launch, blocks, blocks);
}

static void complete(Launch& launch) {
    launch.earlier_done = true;
    for (const auto& block : launch.resident) block->release(Wait::earlier_kernels, 0);
    const size_t resident = launch.resident.size();
    run(launch, launch.order.size(), resident > launch.resident_max() ? resident : launch.resident_max());
    if (!launch.failed && launch.request->overlaps && !launch.any_waited && !launch.order.empty()) {
        give_up(launch, "kernel " + std::string(launch.request->kernel->name) +
                            " overlaps what is before it, and no thread of it called wait_for_earlier_kernels()");
    }
}

}  // namespace software

using namespace software;

// Runs a chain of launches and products. As on a GPU, the part of a kernel before it waits for
// earlier ones may run before those: here it does, for up to two kernels ahead.
// Zero, or what went wrong is in `error`. If it checks, accesses that nothing orders are wrong.
extern "C" SOFTWARE_EXPORT int foresail_software_run(const Request* requests, uint64_t count, int checks, char* error, uint64_t error_bytes) {
    handle_signals();
    std::unique_ptr<Checked> checked;
    if (checks != 0) {
        checked.reset(new Checked);
        checked->cells.look();
    }
    std::vector<std::unique_ptr<Launch>> launches(count);
    for (uint64_t i = 0; i < count; ++i) {
        if (requests[i].kernel == nullptr && requests[i].product == nullptr) continue;
        for (uint64_t j = i; j < count && j < i + 3; ++j) {
            if (requests[j].kernel == nullptr || (j > i && !requests[j].overlaps)) {
                if (j > i) break;
                continue;
            }
            if (launches[j] != nullptr) continue;
            launches[j].reset(new Launch(requests[j], (unsigned)j, checked.get()));
            if (j > i) begin_early(*launches[j]);
        }
        if (requests[i].kernel != nullptr) {
            complete(*launches[i]);
        } else {
            multiply(*requests[i].product);
            if (checked != nullptr) access_product(*checked, (unsigned)i, *requests[i].product);
        }
        for (uint64_t j = i; j < count && j < i + 3; ++j) {
            if (launches[j] == nullptr || !launches[j]->failed) continue;
            snprintf(error, error_bytes, "%s", launches[j]->error.c_str());
            return 1;
        }
        launches[i].reset();
    }
    return 0;
}
