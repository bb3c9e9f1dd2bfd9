// The device's memory, and what is said when a kernel goes astray in it.
#pragma once

#include <map>
#include <mutex>

#include "block.hpp"

namespace software {

struct Allocation {
    GuardedPages pages;
    uint64_t bytes;
};

// All that is allocated, by address: of all devices of the process.
struct Allocations {
    std::mutex lock;
    std::map<uintptr_t, Allocation> by_address;
};
inline Allocations& allocations() {
    static Allocations* all = new Allocations;
    return *all;
}

static std::string name_of(const Launch& launch, unsigned block);

// Says where a kernel was when it touched what is not its, and ends the process.
static struct sigaction handler_before[2];
static void say_and_end(int signal_number, siginfo_t* information, void* context) {
    if (current == nullptr) {
        // Not a kernel: what was there before has to do with it.
        const struct sigaction& before = handler_before[signal_number == SIGBUS];
        if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(signal_number, information, context);
        if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
            signal(signal_number, SIG_DFL);
            raise(signal_number);
            return;
        }
        return before.sa_handler(signal_number);
    }
    const Thread* thread = static_cast<const Thread*>(current);
    const uintptr_t address = (uintptr_t)information->si_addr;
    std::string text = "the software device: " + name_of(*thread->block->launch, thread->block->index) + ", thread " +
                       std::to_string(thread->index) + " went astray";
    char where[512];
    const uintptr_t shared = (uintptr_t)thread->shared;
    const uintptr_t stack = (uintptr_t)thread->block->stacks[thread->index / 32].low(thread->index % 32);
    if (address == 0) {
        snprintf(where, sizeof where, ": address 0, or one that is not aligned");
    } else if (address >= stack && address < stack + GuardedPages::page()) {
        snprintf(where, sizeof where, ": its stack of %zu bytes is too small for what it has in registers", stack_bytes);
    } else if (address + 65536 > shared && address < (uintptr_t)thread->block->shared.end() + 65536) {
        snprintf(where, sizeof where, ": byte %lld of its %u bytes of shared memory", (long long)(address - shared), thread->shared_bytes);
    } else {
        snprintf(where, sizeof where, ": address %p, and no memory is allocated near it", (void*)address);
        Allocations& all = allocations();
        if (all.lock.try_lock()) {
            auto after = all.by_address.upper_bound(address);
            if (after != all.by_address.begin()) {
                auto before = std::prev(after);
                snprintf(where, sizeof where, ": address %p, byte %llu of an allocation of %llu bytes at %p", (void*)address,
                         (unsigned long long)(address - before->first), (unsigned long long)before->second.bytes, (void*)before->first);
            }
            if (after != all.by_address.end() && after->first - address < 65536) {
                snprintf(where, sizeof where, ": address %p, %llu bytes before an allocation of %llu bytes at %p", (void*)address,
                         (unsigned long long)(after->first - address), (unsigned long long)after->second.bytes, (void*)after->first);
            }
            all.lock.unlock();
        }
    }
    text += where;
    text += "\n";
    ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    (void)written;
    signal(SIGABRT, SIG_DFL);
    abort();
}

// Once: the handlers, which run on a stack of their own.
inline void handle_signals() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = say_and_end;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        sigaction(SIGSEGV, &action, &handler_before[0]);
        sigaction(SIGBUS, &action, &handler_before[1]);
    });
    // Of each thread of the system. Never given back: a thread may fail until its end.
    static thread_local bool has_stack = false;
    if (has_stack) return;
    has_stack = true;
    stack_t stack = {};
    stack.ss_size = 128 * 1024;
    stack.ss_sp = mmap(nullptr, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack.ss_sp != MAP_FAILED) sigaltstack(&stack, nullptr);
}

}  // namespace software

// Memory of so many bytes, all 0xff, that ends within 256 bytes of a page that no one may touch.
// Its address, a multiple of 256, or zero.
extern "C" SOFTWARE_EXPORT uint64_t foresail_software_allocate(uint64_t bytes) {
    using namespace software;
    const uint64_t rounded = (bytes + 255) / 256 * 256;
    Allocation allocation = {{}, bytes};
    if (!allocation.pages.map(rounded == 0 ? 256 : rounded)) return 0;
    memset(allocation.pages.begin(), 0xff, allocation.pages.bytes);
    const uintptr_t at = (uintptr_t)(allocation.pages.end() - (rounded == 0 ? 256 : rounded));
    Allocations& all = allocations();
    std::lock_guard<std::mutex> guard(all.lock);
    all.by_address.emplace(at, allocation);
    return at;
}

// Whether the bytes between an allocation's end and the page after it are as they were.
extern "C" SOFTWARE_EXPORT int foresail_software_is_intact(uint64_t at) {
    using namespace software;
    Allocations& all = allocations();
    std::lock_guard<std::mutex> guard(all.lock);
    auto found = all.by_address.find(at);
    if (found == all.by_address.end()) return 0;
    const unsigned char* end = found->second.pages.end();
    for (const unsigned char* byte = (const unsigned char*)at + found->second.bytes; byte < end; ++byte) {
        if (*byte != 0xff) return 0;
    }
    return 1;
}

extern "C" SOFTWARE_EXPORT void foresail_software_free(uint64_t at) {
    using namespace software;
    Allocations& all = allocations();
    std::lock_guard<std::mutex> guard(all.lock);
    auto found = all.by_address.find(at);
    if (found == all.by_address.end()) return;
    found->second.pages.unmap();
    all.by_address.erase(found);
}
