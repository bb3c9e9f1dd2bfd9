// Log-probabilities in the model's own distribution, for rows that ask for them: the sum of all weights,
// how many tokens are at least as likely as the chosen one, and the likeliest few.
//
// A block a chunk; its likeliest tokens are found one after the other, a maximum over the block each. The
// row's last block does the same with what the chunks found. 20 tokens of 128k logits take about
// 15 us, whatever the number of rows up to a few: bound by latency. The host takes the logarithm.

constexpr u32 ROUND_KEYS = (CHUNKS_MAX * TOP_MAX + THREADS - 1) / THREADS;

struct LogprobsShared {
    u64 room[WARPS];
    u64 sums[WARPS];
    u32 flag;
};

// The largest over the block, in all threads. `parity` alternates, so that one barrier is enough.
DEVICE u64 block_max(LogprobsShared& shared, u64 value, u32 parity) {
    u64* room = parity ? shared.room : shared.sums;
    value = warp_max(value);
    if (lane_index() == 0) room[warp_index()] = value;
    sync_block();
    u64 largest = room[0];
#pragma unroll
    for (u32 warp = 1; warp < WARPS; ++warp) largest = room[warp] > largest ? room[warp] : largest;
    return largest;
}

// The `count` largest of the block's keys, the largest first, given to `tell` by one thread; all keys differ
// but zeros, which are none.
template <u32 keys_a_thread, typename Tell>
DEVICE void largest_first(LogprobsShared& shared, u64 (&keys)[keys_a_thread], u32 count, Tell tell) {
    sync_block();
    for (u32 rank = 0; rank < count; ++rank) {
        u64 largest = 0;
#pragma unroll
        for (u32 i = 0; i < keys_a_thread; ++i) largest = keys[i] > largest ? keys[i] : largest;
        u64 key = block_max(shared, largest, rank & 1);
        if (threadIdx.x == 0) tell(rank, key);
        if (key == 0 || largest != key) continue;
#pragma unroll
        for (u32 i = 0; i < keys_a_thread; ++i) keys[i] = keys[i] == key ? 0 : keys[i];
    }
}

// A token that is impossible is none of the likeliest.
DEVICE u64 possible_key(float logit, u32 token) { return logit > minus_infinity() ? key_of(logit, token) : 0; }

DEVICE void finish_logprobs(LogprobsShared& shared, const SamplingArguments& args, const RowParameters& row, u32 index) {
    u32 top_count = row.logprobs - 1;
    const u64* masses = args.scratch.masses + (u64)index * CHUNKS_MAX;
    const Partial* partials = args.scratch.partials + (u64)index * CHUNKS_MAX;
    bool has_chunk = threadIdx.x < args.chunks;
    u64 total = block_sum(has_chunk ? load_fresh(&masses[threadIdx.x]) : 0, shared.room);
    u64 rank = block_sum(has_chunk ? load_fresh(&partials[threadIdx.x].best) : 0, shared.room);
    Outcome& outcome = args.outcomes[index];
    if (threadIdx.x == 0) {
        outcome.rank = (u32)rank;
        outcome.total_ticks = total;
        outcome.largest = args.scratch.states[index].model_largest;
        outcome.logit = args.logits[(u64)index * args.logits_stride + outcome.token];
        outcome.top_count = top_count;
    }
    u64 keys[ROUND_KEYS];
    const u64* top = args.scratch.top + (u64)index * CHUNKS_MAX * TOP_MAX;
#pragma unroll
    for (u32 i = 0; i < ROUND_KEYS; ++i) {
        u32 place = i * THREADS + threadIdx.x;
        bool told = place < args.chunks * TOP_MAX && place % TOP_MAX < top_count;
        keys[i] = told ? load_fresh(&top[place]) : 0;
    }
    largest_first(shared, keys, top_count, [&](u32 place, u64 key) {
        if (key != 0) outcome.top[place] = TopToken{token_of(key), logit_of((u32)(key >> 32))};
        if (key == 0 && place < outcome.top_count) outcome.top_count = place;
    });
}

KERNEL(logprobs, THREADS, 4, SamplingArguments) {
    LogprobsShared& shared = *(LogprobsShared*)shared_memory();
    u32 index = blockIdx.y, chunk = blockIdx.x;
    wait_for_earlier_kernels();
    let_next_kernel_begin();
    const RowParameters row = args.parameters[index];
    if (row.kind == KIND_NONE || row.logprobs == 0 || args.outcomes[index].status != STATUS_CHOSEN) return;
    const float* logits = args.logits + (u64)index * args.logits_stride;
    float largest = args.scratch.states[index].model_largest;
    float chosen = logits[args.outcomes[index].token];
    u64 keys[16];
    u64 mass = 0, rank = 0;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        u32 first = chunk * CHUNK + (i * THREADS + threadIdx.x) * 4;
        float values[4];
        load_logits(values, logits, first, args.tokens);
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            mass += ticks(weight(__fsub_rn(values[j], largest)));
            rank += values[j] >= chosen && first + j < args.tokens;
            keys[i * 4 + j] = possible_key(values[j], first + j);
        }
    }
    mass = block_sum(mass, shared.room);
    rank = block_sum(rank, shared.room);
    if (threadIdx.x == 0) {
        args.scratch.masses[(u64)index * CHUNKS_MAX + chunk] = mass;
        args.scratch.partials[(u64)index * CHUNKS_MAX + chunk].best = rank;
    }
    u64* told = args.scratch.top + ((u64)index * CHUNKS_MAX + chunk) * TOP_MAX;
    largest_first(shared, keys, row.logprobs - 1, [&](u32 place, u64 key) { told[place] = key; });
    if (!is_last_block(&args.scratch.states[index], args.chunks, &shared.flag)) return;
    finish_logprobs(shared, args, row, index);
}
