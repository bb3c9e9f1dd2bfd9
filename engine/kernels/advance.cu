// From one decode step to the next without the host: the tokens that were sampled become
// the inputs, everything else moves on by one place.
//
// One block, some rows a thread: a microsecond or two, bound by latency.

struct AdvanceArguments {
    const Outcome* outcomes;
    RowParameters* parameters;
    u32* lists;
    u32* tokens;
    i32* positions;
    u32* slots;
    const u32* tables;
    u64* ring;              // [ring_steps][rows]: token, and status above it
    Outcome* outcome_ring;  // the same with all that is known; or none
    u32* step;
    u32 rows, table_stride;
    u32 block_shift, ring_steps;
};

enum : u32 { ADVANCE_THREADS = 256 };

// Where the token at a position is kept in the cache. A sequence that ends here may have no block for it.
DEVICE u32 slot_of(const u32* table, u32 table_stride, u32 position, u32 block_shift) {
    u32 block = position >> block_shift;
    if (block >= table_stride) return 0;
    return (table[block] << block_shift) + (position & ((1u << block_shift) - 1));
}

KERNEL(advance, ADVANCE_THREADS, 1, AdvanceArguments) {
    wait_for_earlier_kernels();
    u32 step = *args.step;
    u64 told = (u64)(step % args.ring_steps) * args.rows;
    for (u32 row = threadIdx.x; row < args.rows; row += ADVANCE_THREADS) {
        i32 position = args.positions[row];
        // A row of padding has no sequence.
        if (position < 0) continue;
        u32 status = args.outcomes[row].status;
        // Of a row that failed, the host has the status: it goes on with any token at all.
        u32 token = status == STATUS_CHOSEN ? args.outcomes[row].token : 0;
        args.ring[told + row] = (u64)status << 32 | args.outcomes[row].token;
        if (args.outcome_ring != nullptr) args.outcome_ring[told + row] = args.outcomes[row];
        RowParameters& parameters = args.parameters[row];
        if (parameters.place < parameters.generated_room) {
            args.lists[parameters.generated_first + parameters.place] = token;
        }
        parameters.place += 1;
        args.tokens[row] = token;
        args.positions[row] = position + 1;
        const u32* table = args.tables + (u64)row * args.table_stride;
        args.slots[row] = slot_of(table, args.table_stride, (u32)position + 1, args.block_shift);
    }
    sync_block();
    if (threadIdx.x == 0) *args.step = step + 1;
}
