// Decode attention: one query token a sequence, over its keys and values in the paged KV cache.
//
//   a = softmax(q Kᵀ / sqrt(head_dim)) V   (Vaswani et al. 2017, equation 1), each group of query heads over its KV head
//
// Split over tokens ("flash decoding", Dao et al. 2023): a work list says which items (a token range of
// one KV head of one sequence) each block does, so that all blocks have the same number of 64-token tiles, whatever the
// contexts are. A range that is not all of its sequence leaves (o, m, l) in the workspace; the block that
// comes last adds its ranges up, in their order, so that the sum is the same in each run.
//
// A group's query heads are the 16 rows of a product (more heads are more items). The four warps of a block have 16
// tokens each of a tile, a pipeline of copies of their own, and a softmax of their own: they meet only at the end of
// an item, and while they do, the next item's keys are already on their way.
//
// Bound by memory: of 8 KV heads of 128, 4096 bytes a token, 0.93 us per 1k tokens of a sequence at 4.4 TB/s, plus
// latency: about 2 us to begin, 1 us to add up, 0.5 us an item. Per 8 KB of keys and values a warp issues about
// 32 mma, 24 ldmatrix, 16 copies and 100 others: 8 warps of a multiprocessor do that in a fourth of the time that
// memory takes. STAGES - 1 of them are in flight per warp: 128 KB a multiprocessor, where 4.8 TB/s need about 40.
//
// Constants: HEAD_DIM, PADDED, GROUP (query heads a KV head), KV_HEADS, BLOCK_SIZE, STAGES.

constexpr u32 WARPS = 4;
constexpr u32 THREADS = 32 * WARPS;
constexpr u32 TOKENS = 16;               // that a warp has of a tile
constexpr u32 TILE = WARPS * TOKENS;     // tokens: what ranges are cut into
constexpr u32 ROWS = GROUP < 16 ? GROUP : 16;
constexpr u32 PARTS = (GROUP + 15) / 16;  // items that a group's heads take
constexpr bool BOTH_HALVES = ROWS > 8;    // of the rows of a fragment
constexpr u32 STEPS = PADDED / 16;
constexpr u32 UNITS = PADDED / 8;
constexpr u32 QUERY_HEADS = GROUP * KV_HEADS;

constexpr u32 MATRIX_BYTES = TOKENS * tile_row_bytes<UNITS>();
constexpr u32 STAGE_BYTES = 2 * MATRIX_BYTES;
constexpr u32 PIPELINE_BYTES = WARPS * STAGES * STAGE_BYTES;
// A warp's sums, on their way to the others: rows apart so that fragments are written without bank conflicts.
constexpr u32 SUM_STRIDE = PADDED + 8;
constexpr u32 SUMS_BYTES = WARPS * ROWS * SUM_STRIDE * 4;
// What an item leaves in the workspace: o [ROWS][PADDED], then m and l [ROWS][2].
constexpr u32 PARTIAL_FLOATS = ROWS * PADDED + (2 * ROWS + 3) / 4 * 4;

constexpr u32 NO_END = 0xffffffffu;

struct Item {
    u32 row;       // of q and a
    u32 sequence;  // of the tables and positions
    u32 unit;      // KV head * PARTS + part of its group
    u32 first;     // a multiple of TILE
    u32 end;       // NO_END: up to where the sequence is
    u32 range;     // which of the sequence's ranges this is
    u32 ranges;
    u32 partial;   // where in the workspace the first of them is
};

struct DecodeArguments {
    const bf16* q;         // [rows][QUERY_HEADS][PADDED]
    const bf16* cache;     // [block][k|v][KV_HEADS][BLOCK_SIZE][PADDED]
    const u32* tables;     // [sequences][table_stride]
    const i32* positions;  // [sequences]
    const u32* work;       // where each block's items begin, [blocks + 1] padded to 4; items
    bf16* a;               // [rows][a_stride]
    float* partials;
    u32* counters;  // [rows][KV_HEADS * PARTS], zeros before and after
    u32 table_stride;
    u32 a_stride;
    u32 window;   // 0: none
    float scale;  // log2(e) / sqrt(HEAD_DIM)
};

// The tokens that a warp sees of an item, from the first of its 16-token steps; the steps are TILE apart.
struct Tokens {
    u32 next;
    u32 begin;
    u32 end;
};

DEVICE Item load_item(const DecodeArguments& args, u32 index) {
    const u32* words = args.work + (gridDim.x + 4) / 4 * 4 + 8 * index;
    const uint4 low = load_16(words), high = load_16(words + 4);
    return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
}

DEVICE Tokens tokens_of(const DecodeArguments& args, const Item& item) {
    const i32 position = args.positions[item.sequence];
    if (position < 0) return {0, 0, 0};
    const u32 context = (u32)position + 1;
    const u32 visible = args.window != 0 && context > args.window ? context - args.window : 0;
    Tokens tokens = {item.first, max(item.first, visible), min(item.end, context)};
    if (tokens.begin >= tokens.end) return {0, 0, 0};
    tokens.next += (tokens.begin - item.first) / TILE * TILE + warp_index() * TOKENS;
    if (tokens.next + TOKENS <= tokens.begin) tokens.next += TILE;
    return tokens;
}

// What a warp copies next: it runs ahead of what it computes, from item to item.
struct Loader {
    Item ahead;  // the item after this one, asked for one item ahead
    u32 items;   // how many are not begun
    u32 index;   // of the one after `ahead`
    Tokens tokens;
    const u32* table;
    const bf16* keys;  // of the KV head, in block 0
    u32 block;         // of the next tokens: its number is asked for one step ahead
};

DEVICE void look_up(Loader& loader) {
    const Tokens& tokens = loader.tokens;
    if (tokens.next >= tokens.end) return;
    if constexpr (BLOCK_SIZE >= TOKENS) {
        loader.block = loader.table[tokens.next / BLOCK_SIZE];
    } else {
        const u32 token = tokens.next + lane_index() % TOKENS;
        loader.block = token < tokens.end ? loader.table[token / BLOCK_SIZE] : 0;
    }
}

// Goes on to the next item that has tokens for this warp, if this one has no more.
DEVICE void advance(Loader& loader, const DecodeArguments& args) {
    while (loader.tokens.next >= loader.tokens.end && loader.items > 0) {
        const Item& item = loader.ahead;
        loader.tokens = tokens_of(args, item);
        loader.table = args.tables + (u64)item.sequence * args.table_stride;
        loader.keys = args.cache + (u64)(item.unit / PARTS) * (BLOCK_SIZE * PADDED);
        if (--loader.items > 0) loader.ahead = load_item(args, loader.index++);
    }
    look_up(loader);
}

// Begins to copy the next tokens' keys and values; zeros where the sequence has none.
DEVICE void copy(Loader& loader, const DecodeArguments& args, u8* stage) {
    Tokens& tokens = loader.tokens;
    if (tokens.next < tokens.end) {
        constexpr u32 BLOCK_VALUES = 2 * KV_HEADS * BLOCK_SIZE * PADDED;
        const bf16* first = loader.keys + (u64)loader.block * BLOCK_VALUES + tokens.next % BLOCK_SIZE * PADDED;
#pragma unroll 8
        for (u32 round = 0; round < TOKENS * UNITS / 32; round++) {
            const u32 i = round * 32 + lane_index();
            const u32 place = i / UNITS, unit = i % UNITS, token = tokens.next + place;
            const bf16* from = first + 8 * i;
            if constexpr (BLOCK_SIZE < TOKENS) {
                const u64 its_block = shuffle(loader.block, place);
                from = loader.keys + its_block * BLOCK_VALUES + token % BLOCK_SIZE * PADDED + 8 * unit;
            }
            const bool valid = token >= tokens.begin && token < tokens.end;
            u8* to = stage + tile_offset<UNITS>(place, unit);
            copy_async_16(to, from, valid);
            copy_async_16(to + MATRIX_BYTES, from + KV_HEADS * BLOCK_SIZE * PADDED, valid);
        }
        tokens.next += TILE;
        advance(loader, args);
    }
    copy_async_commit();
}

// The softmax under way: of fragment rows lane / 4 and lane / 4 + 8, the largest score, this lane's part
// of the sum of powers, and the weighted values.
struct Sums {
    float largest[2];
    float powers[2];
    float o[UNITS][4];
};

// Copies an item's queries to shared memory; zeros to the rows that it has none for. All threads of the block come here.
DEVICE void load_queries(u8* queries, const bf16* from, u32 rows) {
    for (u32 i = threadIdx.x; i < 16 * UNITS; i += THREADS) {
        const u32 row = i / UNITS, unit = i % UNITS;
        const uint4 value = row < rows ? load_16(from + row * PADDED + unit * 8) : make_uint4(0, 0, 0, 0);
        store_16(queries + tile_offset<UNITS>(row, unit), value);
    }
    sync_block();
}

// Scores of 16 tokens: two products' chains each, so that they overlap.
DEVICE void score(float (&s)[2][4], const u8* queries, const u8* keys) {
    const u32 query = tile_offset<UNITS>(lane_index() % 16, lane_index() / 16);
    const u32 key = tile_offset<UNITS>(lane_index() % 8 + lane_index() / 16 * 8, lane_index() / 8 % 2);
    float odd[2][4] = {};
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        u32 q[4], k[4];
        load_matrices(q, queries + tile_step<UNITS>(query, step));
        load_matrices(k, keys + tile_step<UNITS>(key, step));
        mma(step % 2 ? odd[0] : s[0], q, k[0], k[1]);
        mma(step % 2 ? odd[1] : s[1], q, k[2], k[3]);
    }
#pragma unroll
    for (u32 n = 0; n < 2; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) s[n][i] += odd[n][i];
}

// Scores become powers, with the largest so far taken from all; what was summed before is made to fit.
DEVICE void exponentiate(float (&s)[2][4], Sums& sums, float scale) {
    float shrink[2] = {1, 1};
    bool changed = false;
#pragma unroll
    for (u32 half = 0; half < (BOTH_HALVES ? 2 : 1); half++) {
        float largest = fmaxf(fmaxf(s[0][2 * half], s[0][2 * half + 1]), fmaxf(s[1][2 * half], s[1][2 * half + 1]));
        largest = fmaxf(largest, shuffle_xor(largest, 1));
        largest = fmaxf(largest, shuffle_xor(largest, 2));
        largest = fmaxf(largest, sums.largest[half]);
        changed |= largest > sums.largest[half];
        shrink[half] = exp2_fast((sums.largest[half] - largest) * scale);
        sums.largest[half] = largest;
        float powers = 0;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float& entry = s[i / 2][2 * half + i % 2];
            entry = exp2_fast(entry * scale - largest * scale);
            powers += entry;
        }
        sums.powers[half] = sums.powers[half] * shrink[half] + powers;
    }
    if (ballot(changed) == 0) return;
#pragma unroll
    for (u32 n = 0; n < UNITS; n++)
#pragma unroll
        for (u32 i = 0; i < (BOTH_HALVES ? 4 : 2); i++) sums.o[n][i] *= shrink[i / 2];
}

// o += P V of 16 tokens.
DEVICE void weigh(const float (&s)[2][4], Sums& sums, const u8* values) {
    const u32 value = tile_offset<UNITS>(lane_index() % 16, lane_index() / 16);
    const u32 p[4] = {pack(s[0][0], s[0][1]), BOTH_HALVES ? pack(s[0][2], s[0][3]) : 0, pack(s[1][0], s[1][1]),
                      BOTH_HALVES ? pack(s[1][2], s[1][3]) : 0};
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        u32 v[4];
        load_matrices_transposed(v, values + tile_step<UNITS>(value, step));
        mma(sums.o[2 * step], p, v[0], v[1]);
        mma(sums.o[2 * step + 1], p, v[2], v[3]);
    }
}

DEVICE void attend(const u8* queries, const Tokens& tokens, Sums& sums, const u8* stage, float scale) {
    float s[2][4] = {};
    score(s, queries, stage);
    if (tokens.next < tokens.begin || tokens.next + TOKENS > tokens.end) {
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            const u32 token = tokens.next + i / 4 * 8 + lane_index() % 4 * 2 + i % 2;
            if (token < tokens.begin || token >= tokens.end) s[i / 4][i % 4] = minus_infinity();
        }
    }
    exponentiate(s, sums, scale);
    weigh(s, sums, stage + MATRIX_BYTES);
}

// Leaves a warp's sums where the others find them.
DEVICE void share(Sums& sums, float* shared_sums, float (*shared_rows)[ROWS][2]) {
    const u32 warp = warp_index();
#pragma unroll
    for (u32 half = 0; half < (BOTH_HALVES ? 2 : 1); half++) {
        float powers = sums.powers[half];
        powers += shuffle_xor(powers, 1);
        powers += shuffle_xor(powers, 2);
        const u32 row = lane_index() / 4 + 8 * half;
        if (row >= ROWS) continue;
        if (lane_index() % 4 == 0) {
            shared_rows[warp][row][0] = sums.largest[half];
            shared_rows[warp][row][1] = powers;
        }
        float* to = shared_sums + (warp * ROWS + row) * SUM_STRIDE + lane_index() % 4 * 2;
#pragma unroll
        for (u32 n = 0; n < UNITS; n++) *(float2*)(to + 8 * n) = make_float2(sums.o[n][2 * half], sums.o[n][2 * half + 1]);
    }
}

// Several softmaxes over parts of the same tokens, added up one by one.
struct Total {
    float largest;
    float powers;
    float4 o;
};

DEVICE Total no_total() { return {minus_infinity(), 0, make_float4(0, 0, 0, 0)}; }

DEVICE void add(Total& total, float its_largest, float its_powers, float4 its_o, float scale) {
    if (its_powers == 0) return;  // Of no tokens: its largest is minus infinity.
    const float both = fmaxf(total.largest, its_largest);
    const float mine = exp2_fast((total.largest - both) * scale), its = exp2_fast((its_largest - both) * scale);
    total.largest = both;
    total.powers = total.powers * mine + its_powers * its;
    total.o.x = total.o.x * mine + its_o.x * its;
    total.o.y = total.o.y * mine + its_o.y * its;
    total.o.z = total.o.z * mine + its_o.z * its;
    total.o.w = total.o.w * mine + its_o.w * its;
}

// Writes four columns of the output of a head.
DEVICE void write(const DecodeArguments& args, const Item& item, u32 row, u32 column, const Total& total) {
    const u32 head = item.unit / PARTS * GROUP + item.unit % PARTS * 16 + row;
    if (column >= HEAD_DIM) return;
    bf16* to = args.a + (u64)item.row * args.a_stride + head * HEAD_DIM + column;
    const float factor = 1 / total.powers;
    *(u32*)to = pack(total.o.x * factor, total.o.y * factor);
    if (column + 2 < HEAD_DIM) *(u32*)(to + 2) = pack(total.o.z * factor, total.o.w * factor);
}

// Whether all ranges of the item's sequence are in the workspace now: so it is for one block, the last. The barriers
// make one thread's fence the whole block's.
DEVICE bool all_have_come(const DecodeArguments& args, const Item& item, u32* flag) {
    sync_block();
    if (threadIdx.x == 0) {
        u32* counter = args.counters + item.row * (KV_HEADS * PARTS) + item.unit;
        fence_device();
        const bool last = atomic_add(counter, 1) + 1 == item.ranges;
        if (last) *counter = 0;
        fence_device();
        *flag = last;
    }
    sync_block();
    return *flag != 0;
}

DEVICE void combine(const DecodeArguments& args, const Item& item, u32 rows) {
    for (u32 i = threadIdx.x; i < rows * (PADDED / 4); i += THREADS) {
        const u32 row = i / (PADDED / 4), column = i % (PADDED / 4) * 4;
        const float* partial = args.partials + (u64)item.partial * PARTIAL_FLOATS;
        Total total = no_total();
#pragma unroll 4
        for (u32 range = 0; range < item.ranges; range++, partial += PARTIAL_FLOATS) {
            const float2 its = *(const float2*)(partial + ROWS * PADDED + 2 * row);
            add(total, its.x, its.y, *(const float4*)(partial + row * PADDED + column), args.scale);
        }
        write(args, item, row, column, total);
    }
}

// The end of an item: adds up what the warps have, and what other blocks have if this is the last. The next item's sums
// come after the barrier of its queries.
DEVICE void finish(const DecodeArguments& args, const Item& item, u32 rows, Sums& sums) {
    float* shared_sums = (float*)(shared_memory() + PIPELINE_BYTES + MATRIX_BYTES);
    float(*shared_rows)[ROWS][2] = (float(*)[ROWS][2])(shared_sums + SUMS_BYTES / 4);
    u32* flag = (u32*)(shared_rows + WARPS);
    share(sums, shared_sums, shared_rows);
    sync_block();
    for (u32 i = threadIdx.x; i < rows * (PADDED / 4); i += THREADS) {
        const u32 row = i / (PADDED / 4), column = i % (PADDED / 4) * 4;
        Total total = no_total();
#pragma unroll
        for (u32 warp = 0; warp < WARPS; warp++)
            add(total, shared_rows[warp][row][0], shared_rows[warp][row][1],
                *(const float4*)(shared_sums + (warp * ROWS + row) * SUM_STRIDE + column), args.scale);
        if (item.ranges == 1) {
            write(args, item, row, column, total);
        } else {
            float* partial = args.partials + (u64)(item.partial + item.range) * PARTIAL_FLOATS;
            *(float4*)(partial + row * PADDED + column) = total.o;
            if (column == 0) *(float2*)(partial + ROWS * PADDED + 2 * row) = make_float2(total.largest, total.powers);
        }
    }
    if (item.ranges > 1 && all_have_come(args, item, flag)) combine(args, item, rows);
}

KERNEL(attention_decode, THREADS, 1, DecodeArguments) {
    let_next_kernel_begin();
    // The work list is written by copies only, which no kernel overlaps.
    const u32 begin = args.work[blockIdx.x], end = args.work[blockIdx.x + 1];
    Loader loader = {{}, end - begin, begin + 1, {0, 0, 0}, args.tables, args.cache, 0};
    if (begin < end) loader.ahead = load_item(args, begin);
    wait_for_earlier_kernels();

    u8* pipeline = shared_memory() + warp_index() * (STAGES * STAGE_BYTES);
    u8* queries = shared_memory() + PIPELINE_BYTES;
    advance(loader, args);
    for (u32 stage = 0; stage + 1 < STAGES; stage++) copy(loader, args, pipeline + stage * STAGE_BYTES);

    u32 stage = 0;
    for (u32 index = begin; index < end; index++) {
        const Item item = load_item(args, index);
        Tokens tokens = tokens_of(args, item);
        if (args.positions[item.sequence] < 0) continue;  // Padding: so it is for all of its ranges.
        const u32 part = item.unit % PARTS, rows = min(ROWS, GROUP - part * 16);
        const u32 head = item.unit / PARTS * GROUP + part * 16;
        load_queries(queries, args.q + ((u64)item.row * QUERY_HEADS + head) * PADDED, rows);
        Sums sums = {{minus_infinity(), minus_infinity()}, {0, 0}, {}};
        for (; tokens.next < tokens.end; tokens.next += TILE) {
            copy_async_wait<STAGES - 2>();
            sync_warp();  // The step is there for all lanes, and all are done with the one before it, which is overwritten now.
            copy(loader, args, pipeline + (stage + STAGES - 1) % STAGES * STAGE_BYTES);
            attend(queries, tokens, sums, pipeline + stage * STAGE_BYTES, args.scale);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        finish(args, item, rows, sums);
    }
}
