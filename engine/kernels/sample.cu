// The likeliest token of each row, and the changes that requests make to logits before that.
//
// `scan` finds the largest logit and whether all are numbers: a block a chunk of 4096 logits,
// the last block of a row puts the chunks' answers together. That is all of greedy sampling:
// 1 row of 128k logits is 32 blocks, 4 loads of 16 bytes in flight a thread, bound by latency (about
// 4 us); 256 rows are 131 MB, 31 us at 4.3 TB/s. `adjust` applies bans, biases and penalties to a
// copy that the first scan makes; then a second scan looks at that.

// Puts together what the chunks of a row found.
DEVICE void finish_scan(const SamplingArguments& args, const RowParameters& row, u32 index) {
    const Partial* partials = args.scratch.partials + (u64)index * CHUNKS_MAX;
    u64 best = 0;
    u64 first_bad = 0;
    for (u32 chunk = lane_index(); chunk < args.chunks; chunk += 32) {
        u64 other = load_fresh(&partials[chunk].best);
        best = other > best ? other : best;
        u64 bad = ~(u64)load_fresh(&partials[chunk].first_bad) & 0xffffffffu;
        first_bad = bad > first_bad ? bad : first_bad;
    }
    best = warp_max(best);
    first_bad = warp_max(first_bad);
    if (lane_index() != 0) return;
    RowState& state = args.scratch.states[index];
    Outcome& outcome = args.outcomes[index];
    float largest = logit_of((u32)(best >> 32));
    u32 status = STATUS_CHOSEN;
    if (largest == minus_infinity()) status = STATUS_NOTHING_LEFT;
    if (first_bad != 0) status = STATUS_NOT_FINITE;
    u32 chosen = row.kind == KIND_SCORED ? row.token : token_of(best);
    outcome.token = first_bad != 0 ? ~(u32)first_bad : status == STATUS_NOTHING_LEFT ? 0 : chosen;
    outcome.status = status;
    outcome.rank = 0;
    outcome.top_count = 0;
    state.largest = largest;
    if (args.pass == 0) state.model_largest = largest;
}

// Where this thread's four neighbours are, the i-th time.
DEVICE u32 first_token(u32 i) { return blockIdx.x * CHUNK + (i * THREADS + threadIdx.x) * 4; }

// The likeliest of a thread's logits, and the first that is none.
DEVICE u64 best_of_thread(const float (&values)[4][4], u32& first_bad) {
    float largest = minus_infinity();
    u32 token = first_token(0);
    bool sound = true;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            bool larger = values[i][j] > largest;
            largest = larger ? values[i][j] : largest;
            token = larger ? first_token(i) + j : token;
            sound = sound && values[i][j] < __uint_as_float(0x7f800000u);
        }
    }
    first_bad = ~0u;
    if (!sound) {
#pragma unroll
        for (u32 i = 0; i < 16; ++i) {
            bool first = first_bad == ~0u && !(values[i / 4][i % 4] < __uint_as_float(0x7f800000u));
            first_bad = first ? first_token(i / 4) + i % 4 : first_bad;
        }
    }
    return key_of(largest, token);
}

// Pass 0 is of the model's logits, and copies those that will be changed; pass 1 of the changed ones.
KERNEL(scan, THREADS, 5, SamplingArguments) {
    u32* flag = (u32*)shared_memory();
    u64* room = (u64*)(shared_memory() + 16);
    u32 index = blockIdx.y, chunk = blockIdx.x;
    wait_for_earlier_kernels();
    let_next_kernel_begin();
    const RowParameters& row = args.parameters[index];
    const float* logits = args.logits + (u64)index * args.logits_stride;
    if (args.pass == 1) {
        if (row.kind == KIND_NONE || row.adjusted_slot == NO_SLOT || args.outcomes[index].status != STATUS_CHOSEN) return;
        logits = chosen_from(args, row, index);
    }
    float values[4][4];
#pragma unroll
    for (u32 i = 0; i < 4; ++i) load_logits(values[i], logits, first_token(i), args.tokens);
    // The parameters come at the same time as the logits.
    u32 kind = row.kind, slot = row.adjusted_slot;
    if (kind == KIND_NONE) return;
    u32 first_bad;
    u64 best = best_of_thread(values, first_bad);
    if (args.pass == 0 && slot != NO_SLOT) {
        float* copy = args.scratch.adjusted + (u64)slot * args.logits_stride;
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            if (first_token(i) >= args.tokens) continue;
            store_16(copy + first_token(i), uint4{__float_as_uint(values[i][0]), __float_as_uint(values[i][1]),
                                                  __float_as_uint(values[i][2]), __float_as_uint(values[i][3])});
        }
    }
    best = warp_max(best);
    u64 bad = warp_max((u64)~first_bad);
    if (lane_index() == 0) {
        room[warp_index()] = best;
        room[WARPS + warp_index()] = bad;
    }
    sync_block();
    if (threadIdx.x == 0) {
#pragma unroll
        for (u32 warp = 1; warp < WARPS; ++warp) {
            best = room[warp] > best ? room[warp] : best;
            bad = room[WARPS + warp] > bad ? room[WARPS + warp] : bad;
        }
        Partial* partial = args.scratch.partials + (u64)index * CHUNKS_MAX + chunk;
        partial->best = best;
        partial->first_bad = ~(u32)bad;
    }
    if (!is_last_block(&args.scratch.states[index], args.chunks, flag)) return;
    if (warp_index() == 0) finish_scan(args, row, index);
}

// ---- changes ----------------------------------------------------------------------

constexpr u32 ADJUST_THREADS = 1024;

// A logit that was brought out of the range of numbers is the largest there is.
DEVICE float saturated(float logit) {
    constexpr float largest = 3.402823466e+38f;
    return logit > largest ? largest : logit;
}

// A token may have several biases, which are added one after the other: by the thread of the first.
DEVICE void add_biases(float* logits, const u32* biases, u32 count, u32 tokens) {
    for (u32 i = threadIdx.x; i < count; i += ADJUST_THREADS) {
        u32 token = biases[2 * i];
        bool first = token < tokens;
        for (u32 j = 0; j < i && first; ++j) first = biases[2 * j] != token;
        if (!first) continue;
        float logit = logits[token];
        for (u32 j = i; j < count; ++j) {
            if (biases[2 * j] == token) logit = saturated(__fadd_rn(logit, __uint_as_float(biases[2 * j + 1])));
        }
        logits[token] = logit;
    }
}

// sampling/adjust.rs, `penalise`: operation for operation.
DEVICE float penalised(float logit, const RowParameters& row, u32 generated) {
    float repeated = logit > 0.0f ? __fdiv_rn(logit, row.repetition_penalty) : __fmul_rn(logit, row.repetition_penalty);
    float presence = generated > 0 ? row.presence_penalty : 0.0f;
    float frequency = __fmul_rn(row.frequency_penalty, (float)generated);
    return saturated(__fsub_rn(__fsub_rn(repeated, frequency), presence));
}

// Whoever finds a token's count takes it, and leaves zero for the next step.
DEVICE void penalise(float* logits, u32* occurrences, const RowParameters& row, const u32* list, u32 count, u32 tokens) {
    for (u32 i = threadIdx.x; i < count; i += ADJUST_THREADS) {
        u32 token = list[i];
        if (token >= tokens) continue;
        u32 found = atomic_exchange(&occurrences[token], 0);
        if (found > 0) logits[token] = penalised(logits[token], row, found >> 1);
    }
}

KERNEL(adjust, ADJUST_THREADS, 1, SamplingArguments) {
    u32 index = blockIdx.x;
    wait_for_earlier_kernels();
    const RowParameters row = args.parameters[index];
    if (row.kind == KIND_NONE || row.adjusted_slot == NO_SLOT) return;
    if (args.outcomes[index].status != STATUS_CHOSEN) return;
    float* logits = args.scratch.adjusted + (u64)row.adjusted_slot * args.logits_stride;

    u32 banned = row.place < row.banned_until ? row.banned_count : 0;
    for (u32 i = threadIdx.x; i < banned; i += ADJUST_THREADS) {
        u32 token = args.lists[row.banned_first + i];
        if (token < args.tokens) logits[token] = minus_infinity();
    }
    sync_block();
    add_biases(logits, args.lists + row.biases_first, row.biases_count, args.tokens);
    sync_block();
    bool repeats = row.repetition_penalty != 1.0f;
    if (!repeats && row.presence_penalty == 0.0f && row.frequency_penalty == 0.0f) return;

    // Twice as often as a token was generated, and one more if it is in the prompt.
    u32* occurrences = args.scratch.occurrences + (u64)row.adjusted_slot * args.logits_stride;
    const u32* prompt = args.lists + row.prompt_first;
    const u32* generated = args.lists + row.generated_first;
    u32 prompt_count = repeats ? row.prompt_count : 0;
    u32 generated_count = row.place < row.generated_room ? row.place : row.generated_room;
    for (u32 i = threadIdx.x; i < prompt_count; i += ADJUST_THREADS) {
        if (prompt[i] < args.tokens) occurrences[prompt[i]] = 1;
    }
    sync_block();
    for (u32 i = threadIdx.x; i < generated_count; i += ADJUST_THREADS) {
        if (generated[i] < args.tokens) atomic_add(&occurrences[generated[i]], 2);
    }
    sync_block();
    penalise(logits, occurrences, row, prompt, prompt_count, args.tokens);
    penalise(logits, occurrences, row, generated, generated_count, args.tokens);
}
