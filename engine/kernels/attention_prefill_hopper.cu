// Prefill attention on Hopper: what attention_prefill.cu computes, with the tensor cores' own pace.
//
// As FlashAttention-3 does it (Shah et al. 2024): a warpgroup copies, two multiply. Each of the two has 64 of the tile's
// 128 rows, which are the query heads of a group, token after token. It asks for the scores of the next 128 keys
// before it asks for the weighted values of these, so that it takes powers of the ones while the tensor cores are at
// the others. The two ask by turns, so that one takes powers while the other's products are done.
//
//    copying:      K0  K1 V0  K2 V1  …                      two tiles of keys and two of values in shared memory
//    multiplying:  Q K0 | powers 0 | Q K1, P0 V0 | powers 1 | Q K2, P1 V1 | powers 2 | …
//             and:    Q K0 | powers 0 |            Q K1, P0 V0 | powers 1 | Q K2, P1 V1 | …
//
// Keys and values are in blocks of the paged cache, so they come by 16-byte copies, which the copying threads lay out
// in the 128-byte swizzle that wgmma reads (tiles of [64 columns][128 rows]); they wait for them and make them visible to the
// tensor cores before they say so.
//
// Bound by tensor cores: 8.4 MFLOP a tile, 1.1 us at an H200's 990 TFLOP/s, in which each warpgroup takes 8192 powers:
// 0.6 us of its multiprocessor's special function units. Expected 500 to 600 TFLOP/s from 4096 tokens on (FlashAttention-3
// on an H100: 521 at 2k, 579 at 4k, 602 at 8k); 0.3 ms for 8192 tokens of a layer of Llama-3-8B.
//
// Constants: HEAD_DIM (64 or 128), GROUP (query heads a KV head), KV_HEADS, BLOCK_SIZE (at least 16).

constexpr u32 THREADS = 384;
constexpr u32 TILE_ROWS = 128;
constexpr u32 KEYS = 128;
constexpr u32 STEPS = HEAD_DIM / 16;
constexpr u32 UNITS = HEAD_DIM / 8;
constexpr u32 PANEL_BYTES = 128 * 128;  // 64 columns of 128 rows
constexpr u32 TILE_BYTES = HEAD_DIM / 64 * PANEL_BYTES;
constexpr u32 QUERY_HEADS = GROUP * KV_HEADS;

struct Item {
    u32 sequence;  // of the tables
    u32 kv_head;
    u32 tile;   // its first row: row i is token i / GROUP of the chunk, head i % GROUP of the group
    u32 first;  // the chunk's first row of q and a
    u32 len;    // its tokens
    u32 past;   // tokens before it
    u32 unused[2];  // ranges of keys: there is one
};

struct PrefillArguments {
    const bf16* q;      // [rows][QUERY_HEADS][HEAD_DIM]
    const bf16* cache;  // [block][k|v][KV_HEADS][BLOCK_SIZE][HEAD_DIM], the chunks' own tokens included
    const u32* tables;  // [sequences][table_stride]
    const Item* items;
    bf16* a;  // [rows][a_stride]
    u32 table_stride;
    u32 a_stride;
    u32 window;   // 0: none
    float scale;  // log2(e) / sqrt(HEAD_DIM)
};

// Which rows and keys a block has.
struct Work {
    u32 rows;         // of the tile that exist
    u32 first_token;  // positions of its first and last rows
    u32 last_token;
    u32 keys_begin;  // a multiple of KEYS
    u32 keys_end;
};

DEVICE Work work_of(const PrefillArguments& args, const Item& item) {
    Work work;
    work.rows = min(item.len * GROUP - item.tile, TILE_ROWS);
    work.first_token = item.past + item.tile / GROUP;
    work.last_token = item.past + (item.tile + work.rows - 1) / GROUP;
    const u32 visible = args.window != 0 && work.first_token >= args.window ? work.first_token + 1 - args.window : 0;
    work.keys_begin = visible / KEYS * KEYS;
    work.keys_end = work.last_token + 1;
    return work;
}

// Shared memory: tiles of queries, of keys (2), of values (2); then barriers.
constexpr u32 KEYS_AT = TILE_BYTES;
constexpr u32 VALUES_AT = 3 * TILE_BYTES;
constexpr u32 BARRIERS_AT = 5 * TILE_BYTES;

// What is there, and, of keys and values, whose place is free again; tile after tile by turns.
DEVICE u64* barrier(u32 index) { return (u64*)(shared_memory() + BARRIERS_AT) + index; }
DEVICE u64* queries_came() { return barrier(0); }
DEVICE u64* keys_came(u32 tile) { return barrier(1 + tile % 2); }
DEVICE u64* values_came(u32 tile) { return barrier(3 + tile % 2); }
DEVICE u64* keys_done(u32 tile) { return barrier(5 + tile % 2); }
DEVICE u64* values_done(u32 tile) { return barrier(7 + tile % 2); }
DEVICE void wait_for_tile(u64* barrier, u32 tile) { barrier_wait(barrier, tile / 2 % 2); }
// That what had the place before is done; of the first two tiles, nothing had.
DEVICE void wait_for_place(u64* barrier, u32 tile) { barrier_wait(barrier, tile / 2 % 2 ^ 1); }

DEVICE void make_barriers() {
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < 5; i++) barrier_init(barrier(i), 128);    // copying threads
        for (u32 i = 5; i < 9; i++) barrier_init(barrier(i), 8);      // multiplying warps
        fence_barriers_made();
    }
    sync_block();
}

// Where 16 bytes of a row of a tile are.
DEVICE u32 place(u32 row, u32 unit) { return unit / 8 * PANEL_BYTES + tile_offset<8>(row, unit % 8); }

// ---- copying ----------------------------------------------------------------

DEVICE void copy_queries(const PrefillArguments& args, const Item& item, u32 rows) {
    const bf16* q = args.q + ((u64)item.first * QUERY_HEADS + item.kv_head * GROUP) * HEAD_DIM;
#pragma unroll 2
    for (u32 round = 0; round < TILE_ROWS * UNITS / 128; round++) {
        const u32 i = round * 128 + threadIdx.x, row = i / UNITS, unit = i % UNITS;
        const u32 packed = item.tile + (row < rows ? row : 0);
        const bf16* from = q + ((u64)(packed / GROUP) * QUERY_HEADS + packed % GROUP) * HEAD_DIM + unit * 8;
        copy_async_16(shared_memory() + place(row, unit), from, row < rows);
    }
    copy_async_commit();
}

// Begins to copy 128 keys, or values, from token `first` on; zeros from `keys_end` on. `pages` are their head's, of block 0.
DEVICE void copy_tile(u32 tile_at, const bf16* pages, const u32* table, u32 first, u32 keys_end) {
    constexpr u32 BLOCK_VALUES = 2 * KV_HEADS * BLOCK_SIZE * HEAD_DIM;
    constexpr u32 STRETCH = BLOCK_SIZE < KEYS ? BLOCK_SIZE : KEYS;  // tokens that follow each other in memory
    const u32 thread = opaque(threadIdx.x);
#pragma unroll 1
    for (u32 begin = 0; begin < KEYS; begin += STRETCH) {
        const u32 token = first + begin;
        const u32 block = token < keys_end ? table[token / BLOCK_SIZE] : 0;
        const bf16* from = pages + (u64)block * BLOCK_VALUES + token % BLOCK_SIZE * HEAD_DIM;
#pragma unroll 8
        for (u32 round = 0; round < STRETCH * UNITS / 128; round++) {
            const u32 i = round * 128 + thread, row = begin + i / UNITS;
            copy_async_16(shared_memory() + tile_at + place(row, i % UNITS), from + 8 * i, first + row < keys_end);
        }
    }
    copy_async_commit();
}

// All but the last `pending` groups have come: says so, once the tensor cores see them.
template <int pending> DEVICE void announce(u64* barrier) {
    copy_async_wait<pending>();
    fence_shared_for_tensor_cores();
    barrier_arrive(barrier);
}

DEVICE void copy_all(const PrefillArguments& args, const Item& item, const Work& work) {
    const u32* table = args.tables + (u64)item.sequence * args.table_stride;
    const bf16* keys = args.cache + (u64)item.kv_head * (BLOCK_SIZE * HEAD_DIM);
    const bf16* values = keys + KV_HEADS * BLOCK_SIZE * HEAD_DIM;
    const u32 tiles = (work.keys_end - work.keys_begin + KEYS - 1) / KEYS;
    copy_queries(args, item, work.rows);
    copy_tile(KEYS_AT, keys, table, work.keys_begin, work.keys_end);
    announce<1>(queries_came());
    announce<0>(keys_came(0));
    for (u32 tile = 0; tile < tiles; tile++) {
        const u32 first = work.keys_begin + tile * KEYS, next = tile + 1;
        if (next < tiles) {
            wait_for_place(keys_done(next), next);
            copy_tile(KEYS_AT + next % 2 * TILE_BYTES, keys, table, first + KEYS, work.keys_end);
        } else {
            copy_async_commit();
        }
        wait_for_place(values_done(tile), tile);
        copy_tile(VALUES_AT + tile % 2 * TILE_BYTES, values, table, first, work.keys_end);
        if (next < tiles) announce<1>(keys_came(next));
        announce<0>(values_came(tile));
    }
}

// ---- multiplying ------------------------------------------------------------

// Of a thread's two rows, lane / 4 and lane / 4 + 8 of its warp's 16: the largest score so far, and this
// lane's part of the sum of powers.
struct Sums {
    float largest[2];
    float powers[2];
};

typedef float Scores[KEYS / 2];
typedef float Outputs[HEAD_DIM / 2];
typedef u32 Powers[KEYS / 16][4];

// A warpgroup's queries; a tile of keys; a tile of values.
struct Tiles {
    u64 queries;
    u64 keys;
    u64 values;
};

// Descriptors of the first tiles. In addresses of descriptors, 16 bytes are 1.
DEVICE Tiles tiles_of(u32 warpgroup) {
    u8* shared = shared_memory();
    return {matrix_descriptor(shared + warpgroup * (64 * 128), 0, 1024), matrix_descriptor(shared + KEYS_AT, 0, 1024),
            matrix_descriptor(shared + VALUES_AT, PANEL_BYTES, 1024)};
}

// Begins S = Q Kᵀ.
DEVICE void begin_scores(Scores& s, const Tiles& tiles, u32 tile) {
    const u64 keys = tiles.keys + tile % 2 * (TILE_BYTES / 16);
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        const u32 column = step / 4 * (PANEL_BYTES / 16) + step % 4 * 2;
        warpgroup_multiply<KEYS, false>(s, tiles.queries + column, keys + column, step > 0);
    }
    warpgroup_commit();
}

// Begins O += P V.
DEVICE void begin_outputs(Outputs& o, const Powers& p, const Tiles& tiles, u32 tile) {
    const u64 values = tiles.values + tile % 2 * (TILE_BYTES / 16);
#pragma unroll
    for (u32 step = 0; step < KEYS / 16; step++)
        warpgroup_multiply<HEAD_DIM, true>(o, p[step], values + step * (16 * 128 / 16), true);
    warpgroup_commit();
}

// The two warpgroups ask for products by turns, the first one first.
constexpr u32 TAKING_TURNS = 256;
DEVICE void wait_for_turn(u32 warpgroup) { sync_threads(1 + warpgroup, TAKING_TURNS); }
DEVICE void give_turn_to(u32 warpgroup) { arrive_threads(1 + warpgroup, TAKING_TURNS); }

// A warp is done with a tile.
DEVICE void release(u64* barrier) {
    if (lane_index() == 0) barrier_arrive(barrier);
}

// Takes keys from `first` on out of rows that are not to see them. `row` is the packed row of this thread's first.
DEVICE void mask(Scores& s, u32 past, u32 row, u32 first, u32 window) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 token = past + (row + 8 * half) / GROUP;
        // Of keys, counted from the tile's first column of this lane: those before `begin` and from `end` on.
        const i32 base = (i32)(first + lane_index() % 4 * 2);
        const i32 end = (i32)token + 1 - base, begin = window != 0 ? end - (i32)window : -0x7fffffff;
#pragma unroll
        for (u32 i = 0; i < KEYS / 4; i++) {
            const i32 key = (i32)(i / 2 * 8 + i % 2);
            if (key >= end || key < begin) s[i / 2 * 4 + 2 * half + i % 2] = minus_infinity();
        }
    }
}

// Scores become powers, with the largest so far taken from all. `shrink` is what makes what was summed before fit.
DEVICE void exponentiate(Scores& s, Sums& sums, float (&shrink)[2], float scale) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        float largest = sums.largest[half];
#pragma unroll
        for (u32 i = 0; i < KEYS / 4; i++) largest = fmaxf(largest, s[i / 2 * 4 + 2 * half + i % 2]);
        largest = fmaxf(largest, shuffle_xor(largest, 1));
        largest = fmaxf(largest, shuffle_xor(largest, 2));
        // A row that sees no key yet has powers of 0, and not of infinity less infinity.
        const float taken = largest == minus_infinity() ? 0 : largest * scale;
        shrink[half] = exp2_fast(sums.largest[half] * scale - taken);
        sums.largest[half] = largest;
        float powers = 0;
#pragma unroll
        for (u32 i = 0; i < KEYS / 4; i++) {
            float& entry = s[i / 2 * 4 + 2 * half + i % 2];
            entry = exp2_fast(entry * scale - taken);
            powers += entry;
        }
        sums.powers[half] = sums.powers[half] * shrink[half] + powers;
    }
}

// The powers of a tile's scores. `row` is the packed row of this thread's first.
DEVICE void take_powers(Scores& s, Sums& sums, float (&shrink)[2], const PrefillArguments& args, u32 past, u32 row,
                        const Work& work, u32 tile) {
    const u32 first = work.keys_begin + tile * KEYS;
    const bool ahead = first + KEYS > work.first_token + 1;
    const bool behind = args.window != 0 && first + args.window < work.last_token + 1;
    if (ahead || behind) mask(s, past, row, first, args.window);
    exponentiate(s, sums, shrink, args.scale);
}

// As the left factor of the next product: a warp's fragments of D, two by two, are those of A.
DEVICE void pack_powers(Powers& p, const Scores& s) {
#pragma unroll
    for (u32 step = 0; step < KEYS / 16; step++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) p[step][i] = pack(s[8 * step + 2 * i], s[8 * step + 2 * i + 1]);
}

// Writes a warp's 16 rows, by way of their places in the queries' tile, which makes accesses wide.
DEVICE void finish(const PrefillArguments& args, const Item& item, u32 rows, u32 own_row, const Sums& sums, const Outputs& o) {
    const u32 lane = lane_index();
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        float powers = sums.powers[half];
        powers += shuffle_xor(powers, 1);
        powers += shuffle_xor(powers, 2);
        const float factor = 1 / powers;
        const u32 row = own_row + lane / 4 + 8 * half;
#pragma unroll
        for (u32 n = 0; n < UNITS; n++)
            *(u32*)(shared_memory() + place(row, n) + lane % 4 * 4) = pack(o[4 * n + 2 * half] * factor, o[4 * n + 2 * half + 1] * factor);
    }
    sync_warp();
    bf16* a = args.a + (u64)item.first * args.a_stride + item.kv_head * GROUP * HEAD_DIM;
#pragma unroll 4
    for (u32 round = 0; round < 16 * UNITS / 32; round++) {
        const u32 i = round * 32 + lane, row = own_row + i / UNITS, unit = i % UNITS;
        const u32 packed = item.tile + row;
        if (row < rows)
            store_16(a + (u64)(packed / GROUP) * args.a_stride + packed % GROUP * HEAD_DIM + unit * 8, load_16(shared_memory() + place(row, unit)));
    }
}

DEVICE void multiply_all(const PrefillArguments& args, const Item& item, const Work& work) {
    const u32 own_row = (warp_index() - 4) * 16;
    const u32 own_packed = item.tile + own_row + lane_index() / 4;
    const u32 count = (work.keys_end - work.keys_begin + KEYS - 1) / KEYS;
    const u32 warpgroup = warp_index() / 4 - 1;
    const Tiles tiles = tiles_of(warpgroup);
    Sums sums = {{minus_infinity(), minus_infinity()}, {0, 0}};
    Scores s;
    Powers p;
    Outputs o;
    float shrink[2];

    barrier_wait(queries_came(), 0);
    wait_for_tile(keys_came(0), 0);
    warpgroup_arrive();
    begin_scores(s, tiles, 0);
    warpgroup_wait<0>();
    warpgroup_has(s);
    release(keys_done(0));
    take_powers(s, sums, shrink, args, item.past, own_packed, work, 0);
    pack_powers(p, s);
#pragma unroll
    for (u32 i = 0; i < HEAD_DIM / 2; i++) o[i] = 0;

    if (count > 1) wait_for_tile(keys_came(1), 1);
    if (count > 1 && warpgroup == 1) give_turn_to(0);
#pragma unroll 1
    for (u32 tile = 1; tile < count; tile++) {
        wait_for_tile(values_came(tile - 1), tile - 1);
        wait_for_turn(warpgroup);
        warpgroup_arrive();
        begin_scores(s, tiles, tile);
        begin_outputs(o, p, tiles, tile - 1);
        if (warpgroup == 0 || tile + 1 < count) give_turn_to(warpgroup ^ 1);
        warpgroup_wait<1>();
        warpgroup_has(s);
        release(keys_done(tile));
        take_powers(s, sums, shrink, args, item.past, own_packed, work, tile);
        warpgroup_has(s);
        // A wait like that for the next keys is a loop, across which the assembler moves nothing. Without one here it has the
        // wait for the products first, and powers are taken when the tensor cores have nothing to do.
        if (tile + 1 < count) wait_for_tile(keys_came(tile + 1), tile + 1);
        warpgroup_wait<0>();
        warpgroup_has(o);
        warpgroup_has(p);
        release(values_done(tile - 1));
#pragma unroll
        for (u32 i = 0; i < HEAD_DIM / 2; i++) o[i] *= shrink[i / 2 % 2];
        pack_powers(p, s);
    }
    wait_for_tile(values_came(count - 1), count - 1);
    warpgroup_arrive();
    begin_outputs(o, p, tiles, count - 1);
    warpgroup_wait<0>();
    warpgroup_has(o);
    sync_threads(3 + warpgroup, 128);  // No product reads the queries now, whose place the sums take.
    finish(args, item, work.rows, own_row, sums, o);
}

KERNEL(attention_prefill_hopper, THREADS, 1, PrefillArguments) {
    let_next_kernel_begin();
    const Item item = args.items[blockIdx.x];
    const Work work = work_of(args, item);
    make_barriers();
    wait_for_earlier_kernels();
    if (warp_index() < 4) {
        registers_give_up<40>();
        copy_all(args, item, work);
    } else {
        registers_take<232>();
        multiply_all(args, item, work);
    }
}
