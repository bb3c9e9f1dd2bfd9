// Time that passes: an exchange between GPUs where there is only one.

struct DelayArguments {
    u64 nanoseconds;
};

// One warp. The clock ticks coarsely, so the wait is right to about a microsecond.
KERNEL(delay, 32, 1, DelayArguments) {
    wait_for_earlier_kernels();
    u64 begin = clock_ns();
    while (clock_ns() - begin < args.nanoseconds) {
    }
}
