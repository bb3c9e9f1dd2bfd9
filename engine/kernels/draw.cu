// Draws a token from each row at a temperature: min-p, top-k and top-p, then the inverse of the
// cumulative distribution, over tokens in the order of their numbers, at the row's random number.
//
// All three filters keep the likeliest tokens down to some key (a logit and a token). `weigh`
// computes all weights, a block a chunk. Without top-k and top-p their sums are all that is needed,
// and the row's last block draws. With them it finds the bin of weights in which the bar is; then
// `filter` looks at all tokens again, adds up those that are kept for certain, and lists those
// in that bin; its last block finds the bar among them, one digit of the key after the other, and draws.
//
// Sums are of integers, so that the token is that of engine/src/sampling whatever the order.
// Bound by arithmetic: about 70 instructions a logit for each of the two (an exact division and
// exponential), so 256 rows of 128k logits take 80 us each, 1 row about 8 us (latency).

struct DrawShared {
    u64 room[WARPS];
    u64 masses[CHUNKS_MAX];
    u64 found_before;
    u32 found, flag;
};

// Finds the thread in whose part of the running sum `target` is; there is one. In all threads:
// the thread, and the sum before it.
DEVICE u32 find_thread(DrawShared& shared, u64 value, u64 target, u64& before) {
    u64 sum_before = block_sum_before(value, shared.room);
    if (sum_before <= target && target - sum_before < value) {
        shared.found = threadIdx.x;
        shared.found_before = sum_before;
    }
    sync_block();
    before = shared.found_before;
    u32 found = shared.found;
    sync_block();
    return found;
}

// What a row keeps: tokens from a key on, of at least so much weight.
struct Keeper {
    u64 key_least;
    float largest, temperature, min_p;
};

// The weight of a token that is kept; zero of others.
DEVICE float kept_weight(const Keeper& keeper, float logit, u32 token) {
    if (key_of(logit, token) < keeper.key_least) return 0.0f;
    float weight = weight_of(logit, keeper.largest, keeper.temperature);
    return weight >= keeper.min_p ? weight : 0.0f;
}

// What this thread's 16 neighbours of a chunk keep.
DEVICE u64 kept_by_thread(const Keeper& keeper, const float* logits, u32 chunk, u32 tokens) {
    u64 sum = 0;
    visit_16(logits, chunk * CHUNK + threadIdx.x * 16, 4, tokens,
             [&](float logit, u32 token, u32) { sum += ticks(kept_weight(keeper, logit, token)); });
    return sum;
}

// The token at which the running sum of what is kept passes the row's random share of it all.
// `shared.masses` are those of the chunks.
DEVICE void draw(DrawShared& shared, const SamplingArguments& args, const RowParameters& row, const Keeper& keeper,
                 const float* logits, u32 index) {
    u64 mass = threadIdx.x < args.chunks ? shared.masses[threadIdx.x] : 0;
    u64 total = block_sum(mass, shared.room);
    // A sum of integers is beyond a number exactly if it is beyond its integer part.
    u64 target = (u64)__dmul_rn(uniform(row.seed, row.place), (double)total);
    u64 before;
    u32 chunk = find_thread(shared, mass, target, before);
    target -= before;
    u32 thread = find_thread(shared, kept_by_thread(keeper, logits, chunk, args.tokens), target, before);
    if (threadIdx.x != thread) return;
    u64 left = target - before;
    u32 token = chunk * CHUNK + thread * 16;
    for (;; ++token) {
        u64 kept = ticks(kept_weight(keeper, logits[token], token));
        if (left < kept) break;
        left -= kept;
    }
    args.outcomes[index].token = token;
}

DEVICE Keeper keeper_of(const RowParameters& row, const RowState& state) {
    return Keeper{0, state.largest, row.temperature, row.min_p};
}

// ---- all weights --------------------------------------------------------------------

// The bins of a chunk: counts, or masses in two halves.
struct WeighShared : DrawShared {
    u32 low[BINS], high[BINS];
};

constexpr u32 BINS_A_THREAD = (BINS + THREADS - 1) / THREADS;

// The bin of the bar: where top-k has its tokens, or top-p its mass. Of top-k all tokens from the
// heaviest on are candidates, of top-p alone those in the bin.
DEVICE void find_bins(DrawShared& shared, const SamplingArguments& args, const RowParameters& row, u32 index) {
    const u64* bins = args.scratch.bins + (u64)index * args.chunks * BINS;
    u64 values[BINS_A_THREAD] = {};
    // Unrolled, so that many loads are on their way at a time.
#pragma unroll 8
    for (u32 chunk = 0; chunk < args.chunks; ++chunk) {
#pragma unroll
        for (u32 i = 0; i < BINS_A_THREAD; ++i) {
            u32 bin = threadIdx.x * BINS_A_THREAD + i;
            if (bin < BINS) values[i] += load_fresh(&bins[(u64)chunk * BINS + bin]);
        }
    }
    u64 sum = 0;
#pragma unroll
    for (u32 i = 0; i < BINS_A_THREAD; ++i) sum += values[i];
    u64 total = block_sum(sum, shared.room);
    RowState& state = args.scratch.states[index];
    bool top_k = has_top_k(row, args.tokens);
    u64 needed = top_k ? row.top_k : (u64)ceil(__dmul_rn((double)total, (double)row.top_p));
    if (needed > total) {
        // Fewer tokens are possible than top-k leaves: all are candidates.
        if (threadIdx.x == 0) {
            state.bin_first = 0;
            state.bin_last = BINS - 1;
        }
        return;
    }
    u64 before;
    if (find_thread(shared, sum, needed - 1, before) != threadIdx.x) return;
    u32 bin = threadIdx.x * BINS_A_THREAD;
    for (u32 i = 0; i + 1 < BINS_A_THREAD && before + values[i] < needed; ++i, ++bin) before += values[i];
    state.bin_first = top_k ? 0 : bin;
    state.bin_last = bin;
    state.needed_ticks = needed - before;
}

KERNEL(weigh, THREADS, 4, SamplingArguments) {
    WeighShared& shared = *(WeighShared*)shared_memory();
    u32 index = blockIdx.y, chunk = blockIdx.x;
    wait_for_earlier_kernels();
    let_next_kernel_begin();
    const RowParameters row = args.parameters[index];
    if (!is_drawn(row, args.outcomes[index])) return;
    RowState& state = args.scratch.states[index];
    const float* logits = chosen_from(args, row, index);
    Keeper keeper = keeper_of(row, state);
    bool top_k = has_top_k(row, args.tokens);

    if (!has_filter(row, args.tokens)) {
        u64 mass = block_sum(kept_by_thread(keeper, logits, chunk, args.tokens), shared.room);
        u64* masses = args.scratch.masses + (u64)index * CHUNKS_MAX;
        if (threadIdx.x == 0) masses[chunk] = mass;
        if (!is_last_block(&state, args.chunks, &shared.flag)) return;
        if (threadIdx.x < args.chunks) shared.masses[threadIdx.x] = load_fresh(&masses[threadIdx.x]);
        sync_block();
        draw(shared, args, row, keeper, logits, index);
        return;
    }

    for (u32 bin = threadIdx.x; bin < BINS; bin += THREADS) {
        shared.low[bin] = 0;
        shared.high[bin] = 0;
    }
    sync_block();
    // Top-k counts tokens whether or not min-p leaves them; a weight of zero is never drawn.
    if (top_k) keeper.min_p = 0.0f;
    visit_16(logits, chunk * CHUNK + threadIdx.x * 4, THREADS * 4, args.tokens, [&](float logit, u32 token, u32) {
        float kept = kept_weight(keeper, logit, token);
        if (kept == 0.0f) return;
        u32 bin = bin_of(kept);
        atomic_add_shared(&shared.low[bin], top_k ? 1 : ticks_low(ticks(kept)));
        if (!top_k) atomic_add_shared(&shared.high[bin], ticks_high(ticks(kept)));
    });
    sync_block();
    u64* told = args.scratch.bins + ((u64)index * args.chunks + chunk) * BINS;
    for (u32 bin = threadIdx.x; bin < BINS; bin += THREADS) told[bin] = ticks_from(shared.low[bin], shared.high[bin]);
    if (!is_last_block(&state, args.chunks, &shared.flag)) return;
    find_bins(shared, args, row, index);
}

// ---- the bar ---------------------------------------------------------------------------

constexpr u32 DIGITS = 256;

struct FilterShared : DrawShared {
    u32 counts[DIGITS], low[DIGITS], high[DIGITS];
    u64 keys[LIST_MAX];
    float weights[LIST_MAX];
};

// The tokens among which the bar is: listed in shared memory, or, where there are too many, all tokens
// of the row whose weight is in the bins.
struct Candidates {
    const float* logits;
    u32 count, tokens;
    u32 bin_first, bin_last;
    bool listed;
};

DEVICE u32 places(const Candidates& candidates) { return candidates.listed ? candidates.count : candidates.tokens; }

// The key of the candidate at a place, and its weight; zero if there is none.
DEVICE u64 candidate_at(const FilterShared& shared, const Candidates& candidates, const Keeper& keeper, u32 place, float& weight) {
    if (candidates.listed) {
        weight = shared.weights[place];
        return shared.keys[place];
    }
    weight = weight_of(candidates.logits[place], keeper.largest, keeper.temperature);
    bool inside = weight > 0.0f && bin_of(weight) >= candidates.bin_first && bin_of(weight) <= candidates.bin_last;
    return inside ? key_of(candidates.logits[place], place) : 0;
}

// Places that are looked at before 32-bit sums of halves of ticks could overflow.
constexpr u32 STRIP = 16384;

// The key of the candidate at a place, if it counts.
template <bool by_mass>
DEVICE u64 candidate(const FilterShared& shared, const Candidates& candidates, const Keeper& keeper, u64 key_least, u32 place,
                     float& weight) {
    u64 key = candidate_at(shared, candidates, keeper, place, weight);
    return key < key_least || (by_mass && weight < keeper.min_p) ? 0 : key;
}

// The key down to which candidates (from `key_least` on, and with at least min_p) have to be taken, the
// likeliest first, until they are `needed`: so many, or of so much weight. One digit of
// eight bits after the other, from the top, until the digits found are those of one token.
template <bool by_mass>
DEVICE u64 bar(FilterShared& shared, const Candidates& candidates, const Keeper& keeper, u64 key_least, u64 needed) {
    u64 digits = 0;
    u32 shift = 64;
    for (u32 same = 0; same != 1;) {
        shift -= 8;
        u64 found = 0;
        u32 found_count = 0;
        for (u32 strip = 0; strip < places(candidates); strip += STRIP) {
            shared.counts[threadIdx.x] = 0;
            shared.low[threadIdx.x] = 0;
            shared.high[threadIdx.x] = 0;
            sync_block();
            u32 end = strip + STRIP < places(candidates) ? strip + STRIP : places(candidates);
            for (u32 place = strip + threadIdx.x; place < end; place += THREADS) {
                float weight;
                u64 key = candidate<by_mass>(shared, candidates, keeper, key_least, place, weight);
                if (key == 0 || (shift < 56 && key >> (shift + 8) != digits)) continue;
                // The largest digit comes first.
                u32 place_of_digit = 255 - ((u32)(key >> shift) & 255);
                atomic_add_shared(&shared.counts[place_of_digit], 1);
                if (!by_mass) continue;
                atomic_add_shared(&shared.low[place_of_digit], ticks_low(ticks(weight)));
                atomic_add_shared(&shared.high[place_of_digit], ticks_high(ticks(weight)));
            }
            sync_block();
            u32 count = shared.counts[threadIdx.x];
            found += by_mass ? ticks_from(shared.low[threadIdx.x], shared.high[threadIdx.x]) : count;
            found_count += count;
            sync_block();
        }
        u64 before;
        u32 place_of_digit = find_thread(shared, found, needed - 1, before);
        needed -= before;
        digits = digits << 8 | (255 - place_of_digit);
        same = (u32)block_sum(threadIdx.x == place_of_digit ? found_count : 0, shared.room);
    }
    // Others that are not among these candidates may have the same digits: the bar is the token itself.
    for (u32 place = threadIdx.x; place < places(candidates); place += THREADS) {
        float weight;
        u64 key = candidate<by_mass>(shared, candidates, keeper, key_least, place, weight);
        if (key != 0 && key >> shift == digits) shared.found_before = key;
    }
    sync_block();
    u64 found = shared.found_before;
    sync_block();
    return found;
}

// The mass of the candidates that a row keeps.
DEVICE u64 kept_mass(FilterShared& shared, const Candidates& candidates, const Keeper& keeper) {
    u64 mass = 0;
    for (u32 place = threadIdx.x; place < places(candidates); place += THREADS) {
        float weight;
        u64 key = candidate_at(shared, candidates, keeper, place, weight);
        if (key != 0 && key >= keeper.key_least && weight >= keeper.min_p) mass += ticks(weight);
    }
    return block_sum(mass, shared.room);
}

// Adds what is kept of the candidates to the masses of their chunks.
DEVICE void add_kept(FilterShared& shared, const SamplingArguments& args, const Candidates& candidates, const Keeper& keeper) {
    if (!candidates.listed) {
        for (u32 chunk = 0; chunk < args.chunks; ++chunk) {
            u64 mass = block_sum(kept_by_thread(keeper, candidates.logits, chunk, args.tokens), shared.room);
            if (threadIdx.x == 0) shared.masses[chunk] = mass;
        }
        sync_block();
        return;
    }
    if (threadIdx.x < CHUNKS_MAX) {
        shared.low[threadIdx.x] = 0;
        shared.high[threadIdx.x] = 0;
    }
    sync_block();
    for (u32 place = threadIdx.x; place < candidates.count; place += THREADS) {
        u64 key = shared.keys[place];
        float weight = shared.weights[place];
        if (key < keeper.key_least || weight < keeper.min_p) continue;
        atomic_add_shared(&shared.low[token_of(key) / CHUNK], ticks_low(ticks(weight)));
        atomic_add_shared(&shared.high[token_of(key) / CHUNK], ticks_high(ticks(weight)));
    }
    sync_block();
    if (threadIdx.x < args.chunks) shared.masses[threadIdx.x] += ticks_from(shared.low[threadIdx.x], shared.high[threadIdx.x]);
    sync_block();
}

// Adds a chunk's tokens that are kept for certain, and lists those in the bins of the bar.
DEVICE void sort_out(FilterShared& shared, const SamplingArguments& args, const Keeper& keeper, const float* logits, u32 chunk,
                     u32 index) {
    RowState& state = args.scratch.states[index];
    u32 bin_first = state.bin_first, bin_last = state.bin_last;
    u64 mass = 0;
    u32 inside = 0;
    u32 listed = 0;
    visit_16(logits, chunk * CHUNK + threadIdx.x * 4, THREADS * 4, args.tokens, [&](float logit, u32 token, u32 place) {
        float kept = kept_weight(keeper, logit, token);
        if (kept == 0.0f) return;
        u32 bin = bin_of(kept);
        if (bin < bin_first) mass += ticks(kept);
        if (bin < bin_first || bin > bin_last) return;
        inside |= 1u << place;
        listed += 1;
    });
    mass = block_sum(mass, shared.room);
    u32 before = (u32)block_sum_before(listed, shared.room);
    if (threadIdx.x == THREADS - 1) shared.found = before + listed > 0 ? atomic_add(&state.candidates, before + listed) : 0;
    if (threadIdx.x == 0) args.scratch.masses[(u64)index * CHUNKS_MAX + chunk] = mass;
    sync_block();
    u32 place = shared.found + before;
    u32* list = args.scratch.candidates + (u64)index * LIST_MAX;
    for (u32 i = 0; i < 16; ++i) {
        if ((inside >> i & 1) == 0) continue;
        u32 token = chunk * CHUNK + (i / 4 * THREADS + threadIdx.x) * 4 + i % 4;
        if (place < LIST_MAX) list[place] = token;
        place += 1;
    }
}

// Brings the list to shared memory, with keys and weights.
DEVICE Candidates gather(FilterShared& shared, const SamplingArguments& args, const Keeper& keeper, const float* logits, u32 index) {
    RowState& state = args.scratch.states[index];
    u32 count = load_fresh(&state.candidates);
    bool listed = count <= LIST_MAX;
    for (u32 place = threadIdx.x; listed && place < count; place += THREADS) {
        u32 token = load_fresh(&args.scratch.candidates[(u64)index * LIST_MAX + place]);
        float logit = logits[token];
        shared.keys[place] = key_of(logit, token);
        shared.weights[place] = weight_of(logit, keeper.largest, keeper.temperature);
    }
    if (threadIdx.x < args.chunks) {
        shared.masses[threadIdx.x] = load_fresh(&args.scratch.masses[(u64)index * CHUNKS_MAX + threadIdx.x]);
    }
    sync_block();
    if (threadIdx.x == 0) state.candidates = 0;
    return Candidates{logits, count, args.tokens, state.bin_first, state.bin_last, listed};
}

KERNEL(filter, THREADS, 2, SamplingArguments) {
    FilterShared& shared = *(FilterShared*)shared_memory();
    u32 index = blockIdx.y, chunk = blockIdx.x;
    wait_for_earlier_kernels();
    let_next_kernel_begin();
    const RowParameters row = args.parameters[index];
    if (!is_drawn(row, args.outcomes[index]) || !has_filter(row, args.tokens)) return;
    RowState& state = args.scratch.states[index];
    const float* logits = chosen_from(args, row, index);
    bool top_k = has_top_k(row, args.tokens);
    Keeper keeper = keeper_of(row, state);
    if (top_k) keeper.min_p = 0.0f;
    sort_out(shared, args, keeper, logits, chunk, index);
    if (!is_last_block(&state, args.chunks, &shared.flag)) return;

    keeper.min_p = row.min_p;
    Candidates candidates = gather(shared, args, keeper, logits, index);
    u64 needed = state.needed_ticks;
    if (top_k) {
        // Fewer are all that are possible; as many are not, and those beyond the bin are to be left out.
        if (candidates.count >= row.top_k) keeper.key_least = bar<false>(shared, candidates, keeper, 0, row.top_k);
        u64 total = kept_mass(shared, candidates, keeper);
        needed = (u64)ceil(__dmul_rn((double)total, (double)row.top_p));
    }
    if (row.top_p < 1.0f) keeper.key_least = bar<true>(shared, candidates, keeper, keeper.key_least, needed);
    add_kept(shared, args, candidates, keeper);
    draw(shared, args, row, keeper, logits, index);
}
