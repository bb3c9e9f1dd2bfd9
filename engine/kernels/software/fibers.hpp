// Fibers: stacks, and going from one to another.
#pragma once

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if !defined(__x86_64__)
#define SOFTWARE_UCONTEXT
#endif
#if defined(SOFTWARE_UCONTEXT)
#include <ucontext.h>
#endif

namespace software {

// Pages of memory with one before and one after that no one may touch.
struct GuardedPages {
    unsigned char* mapping = nullptr;
    size_t mapped_bytes = 0;
    size_t bytes = 0;

    static size_t page() {
        static const size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
        return bytes;
    }
    // At least so many bytes; false if the system has none.
    bool map(size_t wanted) {
        bytes = (wanted + page() - 1) / page() * page();
        mapped_bytes = bytes + 2 * page();
        void* at = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) return false;
        mapping = (unsigned char*)at;
        return mprotect(mapping, page(), PROT_NONE) == 0 && mprotect(end(), page(), PROT_NONE) == 0;
    }
    void unmap() {
        if (mapping != nullptr) munmap(mapping, mapped_bytes);
        mapping = nullptr;
        bytes = 0;
    }
    unsigned char* begin() const { return mapping + page(); }
    unsigned char* end() const { return mapping + page() + bytes; }
};

constexpr size_t stack_bytes = 64 * 1024;

// The stacks of the 32 lanes of a warp, each with a page below it that no one may touch.
struct WarpStacks {
    unsigned char* mapping = nullptr;

    bool map() {
        void* at = mmap(nullptr, 32 * stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) return false;
        mapping = (unsigned char*)at;
        for (int lane = 0; lane < 32; ++lane) {
            if (mprotect(low(lane), GuardedPages::page(), PROT_NONE) != 0) return false;
        }
        return true;
    }
    void unmap() {
        if (mapping != nullptr) munmap(mapping, 32 * stack_bytes);
        mapping = nullptr;
    }
    unsigned char* low(unsigned lane) const { return mapping + lane * stack_bytes; }
    // Stacks do not all begin at the same place of a page: they would share a few lines of the cache.
    unsigned char* high(unsigned lane) const { return low(lane) + stack_bytes - (lane % 16) * 192; }
};

#if defined(SOFTWARE_UCONTEXT)

struct Context {
    ucontext_t context;
};
inline void prepare(Context& to, unsigned char* low, unsigned char* high, void (*entry)()) {
    getcontext(&to.context);
    to.context.uc_stack.ss_sp = low;
    to.context.uc_stack.ss_size = (size_t)(high - low);
    to.context.uc_link = nullptr;
    makecontext(&to.context, entry, 0);
}
inline void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }

#else

struct Context {
    void* stack_pointer;
};
// Saves what a callee has to keep on this stack, and takes it from the other (System V ABI, AMD64
// supplement, section 3.2.1). The control words of floating point are never changed.
extern "C" void foresail_software_switch(void** from, void* to);
asm(R"(
.text
.globl foresail_software_switch
.hidden foresail_software_switch
.type foresail_software_switch, @function
foresail_software_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size foresail_software_switch, .-foresail_software_switch
)");
inline void prepare(Context& to, unsigned char*, unsigned char* high, void (*entry)()) {
    // As if `entry` had been called: 8 bytes past a multiple of 16 when it begins.
    void** top = (void**)((uintptr_t)high & ~(uintptr_t)15);
    *--top = nullptr;
    *--top = (void*)entry;
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    to.stack_pointer = top;
}
inline void switch_context(Context& from, Context& to) { foresail_software_switch(&from.stack_pointer, to.stack_pointer); }

#endif

}  // namespace software
