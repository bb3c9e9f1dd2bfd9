// Prefill attention: chunks of prompts over their own tokens and what is before them in the paged KV cache.
//
//   a = softmax(q Kᵀ / sqrt(head_dim)) V   (Vaswani et al. 2017, equation 1), causal, over the last `window` tokens if there is one
//
// As FlashAttention-2 does it (Dao 2023): a block has TILE_ROWS queries of one KV head, walks over the keys 64 at a
// time, and keeps the softmax so far in registers. The queries of a group's heads are rows of the same tile, token
// after token ([token][head of the group]): a tile spans few tokens, so little of it is masked, and short chunks fill it.
// Blocks are a list of items, the longest first, so that none begins late. Where there are fewer tiles than
// multiprocessors, as of a short question after a long document, a tile's keys are split into ranges, each of which leaves
// (o, m, l) in the workspace; the block that comes last adds them up, in their order.
//
// Bound by tensor cores through mma.sync, about 600 TFLOP/s of an H200's 990: a warp has 32 rows, so that each fragment
// of K and V that it reads from shared memory feeds two products (with 16, reading would take longer than
// multiplying). Keys and values come one tile ahead, 32 KB, while 8 MFLOP are computed with those before them.
// Expected: 300 to 350 TFLOP/s at head_dim 128, as FlashAttention-2 has on an H100; 0.5 ms for 8192 tokens of a layer of Llama-3-8B.
//
// Constants: HEAD_DIM, PADDED, GROUP (query heads a KV head), KV_HEADS, BLOCK_SIZE, TILE_ROWS (64, or 128 up to heads of 128).

constexpr u32 WARPS = 4;
constexpr u32 THREADS = 32 * WARPS;
constexpr u32 KEYS = 64;
constexpr u32 FRAGMENTS = TILE_ROWS / (16 * WARPS);  // of 16 rows, that a warp has
// Keys whose scores a warp has at once: as many as leave room for wide heads' sums in the registers of a thread.
constexpr u32 CHUNK = FRAGMENTS * PADDED > 192 ? 32 : 64;
constexpr u32 STEPS = PADDED / 16;
constexpr u32 UNITS = PADDED / 8;
constexpr u32 QUERY_HEADS = GROUP * KV_HEADS;
constexpr u32 ROW_BYTES = tile_row_bytes<UNITS>();
constexpr u32 KEY_BYTES = KEYS * ROW_BYTES;
constexpr u32 QUERY_BYTES = TILE_ROWS * ROW_BYTES;
constexpr u32 OWN_BYTES = QUERY_BYTES / WARPS;  // of the queries of a warp

struct Item {
    u32 sequence;  // of the tables
    u32 kv_head;
    u32 tile;   // its first row: row i is token i / GROUP of the chunk, head i % GROUP of the group
    u32 first;  // the chunk's first row of q and a
    u32 len;    // its tokens
    u32 past;   // tokens before it
    u32 range;  // which range of its keys, and, from bit 16 on, how many ranges there are
    u32 partial;  // where in the workspace the first of them is, and where their counter is
};

// What a range leaves in the workspace: o [TILE_ROWS][PADDED], then m and l [TILE_ROWS][2].
constexpr u32 PARTIAL_FLOATS = TILE_ROWS * (PADDED + 2);

struct PrefillArguments {
    const bf16* q;      // [rows][QUERY_HEADS][PADDED]
    const bf16* cache;  // [block][k|v][KV_HEADS][BLOCK_SIZE][PADDED], the chunks' own tokens included
    const u32* tables;  // [sequences][table_stride]
    const Item* items;
    bf16* a;  // [rows][a_stride]
    float* partials;
    u32* counters;  // zeros before and after
    u32 table_stride;
    u32 a_stride;
    u32 window;   // 0: none
    float scale;  // log2(e) / sqrt(HEAD_DIM)
};

// What a block computes.
struct Work {
    u32 rows;         // of the tile that exist
    u32 first_token;  // positions of its first and last rows
    u32 last_token;
    u32 keys_begin;  // a multiple of KEYS
    u32 keys_end;
    const bf16* q;  // of the chunk's first token, the group's first head
    bf16* a;
    const u32* table;
    const bf16* keys;  // of the KV head, in block 0
};

DEVICE Work work_of(const PrefillArguments& args, const Item& item) {
    const u32 head = item.kv_head * GROUP;
    Work work;
    work.rows = min(item.len * GROUP - item.tile, TILE_ROWS);
    work.first_token = item.past + item.tile / GROUP;
    work.last_token = item.past + (item.tile + work.rows - 1) / GROUP;
    const u32 visible = args.window != 0 && work.first_token >= args.window ? work.first_token + 1 - args.window : 0;
    const u32 begin = visible / KEYS * KEYS, end = work.last_token + 1;
    const u32 tiles = (end - begin + KEYS - 1) / KEYS, range = item.range & 0xffff, ranges = item.range >> 16;
    work.keys_begin = begin + range * tiles / ranges * KEYS;
    work.keys_end = min(begin + (range + 1) * tiles / ranges * KEYS, end);
    work.q = args.q + ((u64)item.first * QUERY_HEADS + head) * PADDED;
    work.a = args.a + (u64)item.first * args.a_stride + head * HEAD_DIM;
    work.table = args.tables + (u64)item.sequence * args.table_stride;
    work.keys = args.cache + (u64)item.kv_head * (BLOCK_SIZE * PADDED);
    return work;
}

DEVICE void copy_queries(u8* queries, const Work& work, u32 tile) {
#pragma unroll 4
    for (u32 round = 0; round < TILE_ROWS * UNITS / THREADS; round++) {
        const u32 i = round * THREADS + threadIdx.x;
        const u32 row = i / UNITS, unit = i % UNITS;
        const bool exists = row < work.rows;
        const u32 packed = exists ? tile + row : tile;
        const bf16* from = work.q + ((u64)(packed / GROUP) * QUERY_HEADS + packed % GROUP) * PADDED + unit * 8;
        copy_async_16(queries + tile_offset<UNITS>(row, unit), from, exists);
    }
}

// Begins to copy 64 keys and values; zeros where there are none. `block` is theirs, where one block has them all.
DEVICE void copy_keys(u8* stage, const Work& work, u32 first, u32 block) {
    constexpr u32 BLOCK_VALUES = 2 * KV_HEADS * BLOCK_SIZE * PADDED;
    const u32 units = min(work.keys_end - first, KEYS) * UNITS, thread = opaque(threadIdx.x);
    const bf16* keys = work.keys + (u64)block * BLOCK_VALUES + first % BLOCK_SIZE * PADDED;
#pragma unroll(BLOCK_SIZE >= KEYS ? 8 : 2)
    for (u32 round = 0; round < KEYS * UNITS / THREADS; round++) {
        const u32 i = round * THREADS + thread;
        const u32 token = i / UNITS, unit = i % UNITS;
        const bf16* from = keys + 8 * i;
        if constexpr (BLOCK_SIZE < KEYS) {
            const u64 its_block = i < units ? work.table[(first + token) / BLOCK_SIZE] : 0;
            from = work.keys + its_block * BLOCK_VALUES + (first + token) % BLOCK_SIZE * PADDED + 8 * unit;
        }
        u8* to = stage + tile_offset<UNITS>(token, unit);
        copy_async_16(to, from, i < units);
        copy_async_16(to + KEY_BYTES, from + KV_HEADS * BLOCK_SIZE * PADDED, i < units);
    }
}

// The block of the keys from `first` on, if there are any.
DEVICE u32 block_of(const Work& work, u32 first) { return first < work.keys_end ? work.table[first / BLOCK_SIZE] : 0; }

// Of each of a lane's rows, lane / 4 and lane / 4 + 8 of each fragment: the largest score so far, this lane's part of
// the sum of powers; and the weighted values.
struct Sums {
    float largest[FRAGMENTS][2];
    float powers[FRAGMENTS][2];
    float o[FRAGMENTS][UNITS][4];
};

typedef float Scores[FRAGMENTS][CHUNK / 8][4];

// S = Q Kᵀ, of tiles at offsets in shared memory.
DEVICE void score(Scores& s, u32 queries, u32 keys) {
    const u32 lane = lane_index();
    const u32 query = opaque(queries + tile_offset<UNITS>(lane % 16, lane / 16));
    const u32 key = opaque(keys + tile_offset<UNITS>(lane % 8 + lane / 16 * 8, lane / 8 % 2));
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        u32 q[FRAGMENTS][4];
#pragma unroll
        for (u32 m = 0; m < FRAGMENTS; m++)
            load_matrices(q[m], shared_memory() + 16 * m * ROW_BYTES + tile_step<UNITS>(query, step));
#pragma unroll
        for (u32 n = 0; n < CHUNK / 8; n += 2) {
            u32 k[4];
            load_matrices(k, shared_memory() + 8 * n * ROW_BYTES + tile_step<UNITS>(key, step));
#pragma unroll
            for (u32 m = 0; m < FRAGMENTS; m++) {
                mma(s[m][n], q[m], k[0], k[1]);
                mma(s[m][n + 1], q[m], k[2], k[3]);
            }
        }
    }
}

// O += P V
DEVICE void weigh(const Scores& p, Sums& sums, u32 values) {
    const u32 value = opaque(values + tile_offset<UNITS>(lane_index() % 16, lane_index() / 16));
#pragma unroll
    for (u32 n = 0; n < CHUNK / 8; n += 2) {
        u32 fragments[FRAGMENTS][4];
#pragma unroll
        for (u32 m = 0; m < FRAGMENTS; m++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) fragments[m][i] = pack(p[m][n + i / 2][i % 2 * 2], p[m][n + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (u32 step = 0; step < STEPS; step++) {
            u32 v[4];
            load_matrices_transposed(v, shared_memory() + 8 * n * ROW_BYTES + tile_step<UNITS>(value, step));
#pragma unroll
            for (u32 m = 0; m < FRAGMENTS; m++) {
                mma(sums.o[m][2 * step], fragments[m], v[0], v[1]);
                mma(sums.o[m][2 * step + 1], fragments[m], v[2], v[3]);
            }
        }
    }
}

// Takes keys from `first` on out of rows that are not to see them. `row` is the packed row of this lane's first.
DEVICE void mask(Scores& s, u32 past, u32 row, u32 first, u32 window) {
#pragma unroll
    for (u32 m = 0; m < FRAGMENTS; m++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 token = past + (row + 16 * m + 8 * half) / GROUP;
            // Of keys, counted from the tile's first column of this lane: those before `begin` and from `end` on.
            const i32 base = (i32)(first + lane_index() % 4 * 2);
            const i32 end = (i32)token + 1 - base, begin = window != 0 ? end - (i32)window : -0x7fffffff;
#pragma unroll
            for (u32 n = 0; n < CHUNK / 8; n++)
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    const i32 key = (i32)(8 * n + i);
                    if (key >= end || key < begin) s[m][n][2 * half + i] = minus_infinity();
                }
        }
}

// Scores become powers, with the largest so far taken from all; what was summed before is made to fit.
DEVICE void exponentiate(Scores& s, Sums& sums, float scale) {
    float shrink[FRAGMENTS][2];
    bool changed = false;
#pragma unroll
    for (u32 m = 0; m < FRAGMENTS; m++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            float largest = sums.largest[m][half];
#pragma unroll
            for (u32 n = 0; n < CHUNK / 8; n++) largest = fmaxf(largest, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
            largest = fmaxf(largest, shuffle_xor(largest, 1));
            largest = fmaxf(largest, shuffle_xor(largest, 2));
            // A row that sees no key yet has powers of 0, and not of infinity less infinity.
            const float taken = largest == minus_infinity() ? 0 : largest * scale;
            shrink[m][half] = exp2_fast(sums.largest[m][half] * scale - taken);
            changed |= largest > sums.largest[m][half];
            sums.largest[m][half] = largest;
            float powers = 0;
#pragma unroll
            for (u32 n = 0; n < CHUNK / 8; n++)
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    float& entry = s[m][n][2 * half + i];
                    entry = exp2_fast(entry * scale - taken);
                    powers += entry;
                }
            sums.powers[m][half] = sums.powers[m][half] * shrink[m][half] + powers;
        }
    if (ballot(changed) == 0) return;  // As it is for most keys, once many have been seen.
#pragma unroll
    for (u32 m = 0; m < FRAGMENTS; m++)
#pragma unroll
        for (u32 n = 0; n < UNITS; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) sums.o[m][n][i] *= shrink[m][i / 2];
}

DEVICE bf16* output_row(const PrefillArguments& args, const Work& work, u32 packed) {
    return work.a + (u64)(packed / GROUP) * args.a_stride + packed % GROUP * HEAD_DIM;
}

// The sum of a row's powers, of which each of four lanes has a part.
DEVICE float sum_of_powers(float powers) {
    powers += shuffle_xor(powers, 1);
    return powers + shuffle_xor(powers, 2);
}

// Writes a warp's rows, by way of its own rows of the queries' tile where that makes accesses wide.
DEVICE void write(const PrefillArguments& args, const Item& item, const Work& work, Sums& sums, u8* queries) {
    constexpr bool WIDE = HEAD_DIM % 8 == 0;
    const u32 lane = lane_index(), first = warp_index() * 16 * FRAGMENTS;
    sync_warp();
#pragma unroll
    for (u32 m = 0; m < FRAGMENTS; m++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const float factor = 1 / sum_of_powers(sums.powers[m][half]);
            const u32 row = 16 * m + 8 * half + lane / 4;
#pragma unroll
            for (u32 n = 0; n < UNITS; n++) {
                const u32 pair = pack(sums.o[m][n][2 * half] * factor, sums.o[m][n][2 * half + 1] * factor);
                const u32 column = 8 * n + lane % 4 * 2;
                if constexpr (WIDE) {
                    *(u32*)(queries + tile_offset<UNITS>(row, n) + lane % 4 * 4) = pair;
                } else if (first + row < work.rows && column < HEAD_DIM) {
                    *(u32*)(output_row(args, work, item.tile + first + row) + column) = pair;
                }
            }
        }
    if constexpr (WIDE) {
        sync_warp();
        constexpr u32 ROW_UNITS = (HEAD_DIM + 7) / 8;
#pragma unroll 4
        for (u32 i = lane; i < 16 * FRAGMENTS * ROW_UNITS; i += 32) {
            const u32 row = i / ROW_UNITS, unit = i % ROW_UNITS;
            if (first + row >= work.rows) break;
            store_16(output_row(args, work, item.tile + first + row) + unit * 8, load_16(queries + tile_offset<UNITS>(row, unit)));
        }
    }
}

// Leaves a warp's rows in the workspace.
DEVICE void leave(const PrefillArguments& args, const Item& item, const Sums& sums) {
    float* partial = args.partials + (u64)(item.partial + (item.range & 0xffff)) * PARTIAL_FLOATS;
    const u32 lane = lane_index(), first = warp_index() * 16 * FRAGMENTS;
#pragma unroll
    for (u32 m = 0; m < FRAGMENTS; m++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const float powers = sum_of_powers(sums.powers[m][half]);
            const u32 row = first + 16 * m + 8 * half + lane / 4;
            if (lane % 4 == 0) *(float2*)(partial + TILE_ROWS * PADDED + 2 * row) = make_float2(sums.largest[m][half], powers);
#pragma unroll
            for (u32 n = 0; n < UNITS; n++)
                *(float2*)(partial + row * PADDED + 8 * n + lane % 4 * 2) = make_float2(sums.o[m][n][2 * half], sums.o[m][n][2 * half + 1]);
        }
}

// Whether all of a tile's ranges are in the workspace now: so it is for one block, the last. The barriers make one
// thread's fence the whole block's.
DEVICE bool all_have_come(const PrefillArguments& args, const Item& item, u32* flag) {
    sync_block();
    if (threadIdx.x == 0) {
        fence_device();
        const bool last = atomic_add(args.counters + item.partial, 1) + 1 == item.range >> 16;
        if (last) args.counters[item.partial] = 0;
        fence_device();
        *flag = last;
    }
    sync_block();
    return *flag != 0;
}

// Adds a tile's ranges up, four columns a thread, and writes the rows.
DEVICE void combine(const PrefillArguments& args, const Item& item, const Work& work) {
    const u32 ranges = item.range >> 16;
    for (u32 i = threadIdx.x; i < work.rows * (PADDED / 4); i += THREADS) {
        const u32 row = i / (PADDED / 4), column = i % (PADDED / 4) * 4;
        const float* partial = args.partials + (u64)item.partial * PARTIAL_FLOATS;
        float largest = minus_infinity(), powers = 0;
        float4 o = make_float4(0, 0, 0, 0);
#pragma unroll 4
        for (u32 range = 0; range < ranges; range++, partial += PARTIAL_FLOATS) {
            const float2 its = *(const float2*)(partial + TILE_ROWS * PADDED + 2 * row);
            const float4 its_o = *(const float4*)(partial + row * PADDED + column);
            if (its.y == 0) continue;  // A row that sees no key of the range.
            const float both = fmaxf(largest, its.x);
            const float before = exp2_fast((largest - both) * args.scale), after = exp2_fast((its.x - both) * args.scale);
            largest = both;
            powers = powers * before + its.y * after;
            o = make_float4(o.x * before + its_o.x * after, o.y * before + its_o.y * after, o.z * before + its_o.z * after,
                            o.w * before + its_o.w * after);
        }
        if (column >= HEAD_DIM) continue;
        bf16* to = output_row(args, work, item.tile + row) + column;
        const float factor = 1 / powers;
        *(u32*)to = pack(o.x * factor, o.y * factor);
        if (column + 2 < HEAD_DIM) *(u32*)(to + 2) = pack(o.z * factor, o.w * factor);
    }
}

DEVICE void finish(const PrefillArguments& args, Sums& sums) {
    const Item item = args.items[blockIdx.x];  // Read again, which takes no registers until now.
    const Work work = work_of(args, item);
    if (item.range >> 16 == 1) {
        write(args, item, work, sums, shared_memory() + OWN_BYTES * warp_index());
        return;
    }
    leave(args, item, sums);
    if (all_have_come(args, item, (u32*)shared_memory())) combine(args, item, work);
}

KERNEL(attention_prefill, THREADS, 1, PrefillArguments) {
    let_next_kernel_begin();
    const Item item = args.items[blockIdx.x];
    const Work work = work_of(args, item);
    u8* queries = shared_memory();
    u8* stages = queries + QUERY_BYTES;
    const u32 own_row = item.tile + warp_index() * 16 * FRAGMENTS + lane_index() / 4;
    u32 block = block_of(work, work.keys_begin);
    wait_for_earlier_kernels();

    copy_queries(queries, work, item.tile);
    copy_keys(stages, work, work.keys_begin, block);
    copy_async_commit();
    block = block_of(work, work.keys_begin + KEYS);

    Sums sums;
#pragma unroll
    for (u32 m = 0; m < FRAGMENTS; m++) {
        sums.largest[m][0] = sums.largest[m][1] = minus_infinity();
        sums.powers[m][0] = sums.powers[m][1] = 0;
#pragma unroll
        for (u32 n = 0; n < UNITS; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) sums.o[m][n][i] = 0;
    }

    u32 stage = 0;
    for (u32 first = work.keys_begin; first < work.keys_end; first += KEYS) {
        copy_async_wait<0>();
        sync_block();  // The keys are there for all warps, and all are done with those before, which are overwritten now.
        if (first + KEYS < work.keys_end) {
            copy_keys(stages + (stage ^ 1) * (2 * KEY_BYTES), work, first + KEYS, block);
            copy_async_commit();
            block = block_of(work, first + 2 * KEYS);
        }
        const u32 keys = QUERY_BYTES + stage * (2 * KEY_BYTES);
#pragma unroll 1
        for (u32 chunk = 0; chunk < KEYS; chunk += CHUNK) {
            Scores s = {};
            score(s, OWN_BYTES * warp_index(), keys + chunk * ROW_BYTES);
            const u32 begin = first + chunk;
            const bool ahead = begin + CHUNK > work.first_token + 1;
            const bool behind = args.window != 0 && begin + args.window < work.last_token + 1;
            if (ahead || behind) mask(s, item.past, own_row, begin, args.window);
            exponentiate(s, sums, args.scale);
            weigh(s, sums, keys + KEY_BYTES + chunk * ROW_BYTES);
        }
        stage ^= 1;
    }
    copy_async_wait<0>();  // Of a range without keys, what has come is not waited for yet.
    finish(args, sums);
}
