// LoRA adapters: y += scale * B (A x), each row with the adapter in its slot, or none.
//
// Constants: RANK, the largest rank there is room for (16, 32, 48 or 64); SHRINK_TILES and EXPAND_TILES, how
// many tiles of 16 rows a block has.
//
// `shrink` computes t = A x: a block has some rows, one target, and a part of the columns; its warps divide
// those, and the ranks. `expand` adds the parts in order and computes y += scale * B t, 32 outputs
// a warp. A tile's rows may have different adapters: they are gone through one after the other, over all rows of the
// tile, and only those rows take the result that have it. So rows of one adapter, wherever they are in the
// tile, share its weights, and products with rows of other adapters, which cost nothing that is not
// there anyway, are dropped.
//
// Both operands go from memory straight to the registers of `mma`, 16 (8) bytes a lane: the order of k is free as
// long as both have the same, so a lane's k are neighbours (see `mma` in prelude.cuh).
//
// Bound by the adapters' bytes at decode: rank 16 on all projections of Llama-3-8B is 84 MB, 20 us
// of a step for each adapter in use, plus 2 launches a projection. At prefill, by reading and writing y.

// What an adapter adds to one target of a projection; `down` is null if nothing.
struct AdapterPart {
    const bf16* down;  // A: [rank][x_stride]
    const bf16* up;    // B: [outputs][rank]
    u32 rank;          // a multiple of 16, the last of them zeros
    float scale;
};
static_assert(sizeof(AdapterPart) == 24, "as in Rust");

struct ShrinkArguments {
    const bf16* x;
    const AdapterPart* adapters;  // [slots][parts]
    const i32* slots;             // [rows], -1 for none
    float* between;               // [splits][rows][parts][RANK]
    u32 rows, x_stride;
    u32 parts, splits;
};

// A target's outputs in a row of y.
struct OutputPart {
    u32 first, outputs;
    u32 interleaved;  // 8 of them, then 8 of another
    u32 blocks;       // of 256 outputs
};

struct ExpandArguments {
    const float* between;
    const AdapterPart* adapters;
    const i32* slots;
    bf16* y;
    u32 rows, y_stride;
    u32 parts, splits;
    OutputPart outputs[3];
};

enum : u32 { THREADS = 256, WARPS = 8 };
enum : u32 {
    RANK_WARPS = RANK > 32 ? 2 : 1,        // warps that divide the ranks
    COLUMN_WARPS = WARPS / RANK_WARPS,     // warps that divide the columns
    RANK_TILES = RANK / RANK_WARPS / 8,    // tiles of 8 ranks a warp has
    SHRINK_ROWS = 16 * SHRINK_TILES,
    SUM_STRIDE = RANK + 8,                 // of sums in shared memory: rows are 8 banks apart
    EXPAND_ROWS = 16 * EXPAND_TILES,
    BETWEEN_STRIDE = RANK / 16 % 2 ? RANK : RANK + 16,  // likewise, of bf16
};

// The rows of a tile that are still to be done. All warps have the same.
struct Pending {
    i32 slots[2];  // of rows lane and lane + 32
    u64 rows;      // a bit each
};

// A bit for each of a tile's rows.
DEVICE u64 rows_with(const Pending& pending, i32 slot) {
    u32 low = ballot(pending.slots[0] == slot);
    return (u64)ballot(pending.slots[1] == slot) << 32 | low;
}

DEVICE Pending pending_of(const i32* slots, u32 first, u32 count, u32 rows) {
    Pending pending;
#pragma unroll
    for (u32 i = 0; i < 2; ++i) {
        u32 row = lane_index() + 32 * i;
        pending.slots[i] = row < count && first + row < rows ? slots[first + row] : -1;
    }
    pending.rows = ~rows_with(pending, -1);
    return pending;
}

// Takes the rows of one adapter out: its slot, and which rows; -1 if none is left.
DEVICE i32 take_adapter(Pending& pending, u64& taken) {
    if (pending.rows == 0) return -1;
    u32 row = (u32)__ffsll((i64)pending.rows) - 1;
    i32 slot = shuffle(row < 32 ? pending.slots[0] : pending.slots[1], row % 32);
    taken = rows_with(pending, slot);
    pending.rows &= ~taken;
    return slot;
}
DEVICE bool has_row(u64 taken, u32 row) { return taken >> row & 1; }
DEVICE bool has_tile(u64 taken, u32 tile) { return (taken >> tile * 16 & 0xffff) != 0; }

// ---- t = A x ------------------------------------------------------------------

// The sums of this warp's columns: of 16 rows a tile, 8 ranks a tile.
DEVICE void multiply_columns(float (&sums)[SHRINK_TILES][RANK_TILES][4], const ShrinkArguments& args, const AdapterPart& part,
                             u64 taken, u32 first_row, u32 unit_first, u32 unit_end) {
    u32 group = lane_index() / 4, column = lane_index() % 4 * 8;
    u32 first_rank = warp_index() % RANK_WARPS * RANK_TILES * 8;
#pragma unroll(SHRINK_TILES == 1 ? 2 : 1)
    for (u32 unit = unit_first + warp_index() / RANK_WARPS; unit < unit_end; unit += COLUMN_WARPS) {
        uint4 weights[RANK_TILES];
#pragma unroll
        for (u32 n = 0; n < RANK_TILES; ++n) {
            u32 rank = first_rank + n * 8;
            const bf16* from = part.down + (u64)(rank + group) * args.x_stride + unit * 32 + column;
            weights[n] = rank < part.rank ? load_16(from) : uint4{0, 0, 0, 0};
        }
#pragma unroll
        for (u32 m = 0; m < SHRINK_TILES; ++m) {
            if (!has_tile(taken, m)) continue;
            u32 row = first_row + m * 16 + group;
            // Rows beyond the last are read from it, and dropped.
            u32 upper = row < args.rows ? row : args.rows - 1, lower = row + 8 < args.rows ? row + 8 : args.rows - 1;
            uint4 x = load_16(args.x + (u64)upper * args.x_stride + unit * 32 + column);
            uint4 x8 = load_16(args.x + (u64)lower * args.x_stride + unit * 32 + column);
            u32 first_half[4] = {x.x, x8.x, x.y, x8.y}, second_half[4] = {x.z, x8.z, x.w, x8.w};
#pragma unroll
            for (u32 n = 0; n < RANK_TILES; ++n) {
                mma(sums[m][n], first_half, weights[n].x, weights[n].y);
                mma(sums[m][n], second_half, weights[n].z, weights[n].w);
            }
        }
    }
}

// Adds up what the warps of the block have, in order, and writes the rows of this adapter.
DEVICE void write_between(const float (&sums)[SHRINK_TILES][RANK_TILES][4], const ShrinkArguments& args, u64 taken,
                          u32 first_row) {
    float* shared = (float*)shared_memory();
    u32 group = lane_index() / 4, pair = lane_index() % 4 * 2;
    u32 first_rank = warp_index() % RANK_WARPS * RANK_TILES * 8;
    float* own = shared + warp_index() / RANK_WARPS * SHRINK_ROWS * SUM_STRIDE + first_rank + pair;
    sync_block();
#pragma unroll
    for (u32 m = 0; m < SHRINK_TILES; ++m) {
#pragma unroll
        for (u32 n = 0; n < RANK_TILES; ++n) {
            float* at = own + (m * 16 + group) * SUM_STRIDE + n * 8;
            *(float2*)at = float2{sums[m][n][0], sums[m][n][1]};
            *(float2*)(at + 8 * SUM_STRIDE) = float2{sums[m][n][2], sums[m][n][3]};
        }
    }
    sync_block();
    for (u32 place = threadIdx.x; place < SHRINK_ROWS * RANK / 4; place += THREADS) {
        u32 row = place / (RANK / 4), rank = place % (RANK / 4) * 4;
        if (!has_row(taken, row)) continue;
        float4 sum = *(const float4*)(shared + row * SUM_STRIDE + rank);
#pragma unroll
        for (u32 warp = 1; warp < COLUMN_WARPS; ++warp) {
            float4 more = *(const float4*)(shared + (warp * SHRINK_ROWS + row) * SUM_STRIDE + rank);
            sum.x += more.x;
            sum.y += more.y;
            sum.z += more.z;
            sum.w += more.w;
        }
        u64 at = ((u64)blockIdx.x * args.rows + first_row + row) * args.parts + blockIdx.z;
        *(float4*)(args.between + at * RANK + rank) = sum;
    }
}

KERNEL(shrink, THREADS, 1, ShrinkArguments) {
    u32 first_row = blockIdx.y * SHRINK_ROWS;
    u32 units = args.x_stride / 32;
    u32 unit_first = (u32)((u64)units * blockIdx.x / args.splits);
    u32 unit_end = (u32)((u64)units * (blockIdx.x + 1) / args.splits);
    wait_for_earlier_kernels();
    let_next_kernel_begin();
    Pending pending = pending_of(args.slots, first_row, SHRINK_ROWS, args.rows);
    u64 taken;
    for (i32 slot = take_adapter(pending, taken); slot >= 0; slot = take_adapter(pending, taken)) {
        AdapterPart part = args.adapters[(u32)slot * args.parts + blockIdx.z];
        if (part.down == nullptr) continue;
        float sums[SHRINK_TILES][RANK_TILES][4] = {};
        multiply_columns(sums, args, part, taken, first_row, unit_first, unit_end);
        write_between(sums, args, taken, first_row);
    }
}

// ---- y += scale * B t ----------------------------------------------------------

// t of the block's rows, the parts added in order, rounded to bf16.
DEVICE void load_between(bf16* shared, const ExpandArguments& args, u32 first_row, u32 part) {
    for (u32 place = threadIdx.x; place < EXPAND_ROWS * RANK / 4; place += THREADS) {
        u32 row = place / (RANK / 4), rank = place % (RANK / 4) * 4;
        if (first_row + row >= args.rows) continue;
        float4 sum = float4{0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 4
        for (u32 split = 0; split < args.splits; ++split) {
            u64 at = ((u64)split * args.rows + first_row + row) * args.parts + part;
            float4 more = *(const float4*)(args.between + at * RANK + rank);
            sum.x += more.x;
            sum.y += more.y;
            sum.z += more.z;
            sum.w += more.w;
        }
        *(uint2*)(shared + row * BETWEEN_STRIDE + rank) = uint2{pack(sum.x, sum.y), pack(sum.z, sum.w)};
    }
    sync_block();
}

// Where an output of a part is in a row of y.
DEVICE u32 place_of(const OutputPart& part, u32 output) {
    return part.first + (part.interleaved ? output / 8 * 16 + output % 8 : output);
}

DEVICE u32 added(u32 pair, float scale, float low, float high) {
    return pack(low_half(pair) + scale * low, high_half(pair) + scale * high);
}

// Adds 8 neighbouring outputs of a row.
DEVICE void add_outputs(bf16* row, const OutputPart& part, u32 output, float scale, const float (&sums)[8]) {
    if (output >= part.outputs) return;
    bf16* at = row + place_of(part, output);
    if (output + 8 <= part.outputs && part.first % 8 == 0) {
        uint4 y = load_16(at);
        store_16(at, uint4{added(y.x, scale, sums[0], sums[1]), added(y.y, scale, sums[2], sums[3]),
                           added(y.z, scale, sums[4], sums[5]), added(y.w, scale, sums[6], sums[7])});
        return;
    }
    // Outputs that are not aligned are not interleaved either, or the last.
#pragma unroll
    for (u32 i = 0; i < 8; ++i) {
        if (output + i < part.outputs) at[i] = to_bf16(to_float(at[i]) + scale * sums[i]);
    }
}

KERNEL(expand, THREADS, 2, ExpandArguments) {
    bf16* shared = (bf16*)shared_memory();
    u32 first_row = blockIdx.y * EXPAND_ROWS;
    u32 group = lane_index() / 4, quad = lane_index() % 4;
    u32 block = blockIdx.x, index = 0;
    while (block >= args.outputs[index].blocks) block -= args.outputs[index++].blocks;
    const OutputPart outputs = args.outputs[index];
    u32 first_output = (block * WARPS + warp_index()) * 32;
    wait_for_earlier_kernels();
    let_next_kernel_begin();
    Pending pending = pending_of(args.slots, first_row, EXPAND_ROWS, args.rows);
    if (pending.rows == 0) return;
    load_between(shared, args, first_row, index);

    u64 taken;
    for (i32 slot = take_adapter(pending, taken); slot >= 0; slot = take_adapter(pending, taken)) {
        AdapterPart part = args.adapters[(u32)slot * args.parts + index];
        if (part.down == nullptr) continue;
        float sums[EXPAND_TILES][4][4] = {};
#pragma unroll
        for (u32 step = 0; step < RANK / 16; ++step) {
            if (step * 16 >= part.rank) break;
            uint2 weights[4];
            // Column 2 q + e of tile i is output 8 q + 2 i + e, so that a lane gets 8 neighbours from 4 tiles.
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                u32 output = first_output + group / 2 * 8 + 2 * i + group % 2;
                const bf16* from = part.up + (u64)output * part.rank + step * 16 + quad * 4;
                weights[i] = output < outputs.outputs ? *(const uint2*)from : uint2{0, 0};
            }
#pragma unroll
            for (u32 m = 0; m < EXPAND_TILES; ++m) {
                const bf16* from = shared + (m * 16 + group) * BETWEEN_STRIDE + step * 16 + quad * 4;
                uint2 upper = *(const uint2*)from, lower = *(const uint2*)(from + 8 * BETWEEN_STRIDE);
                u32 rows[4] = {upper.x, lower.x, upper.y, lower.y};
#pragma unroll
                for (u32 i = 0; i < 4; ++i) mma(sums[m][i], rows, weights[i].x, weights[i].y);
            }
        }
#pragma unroll
        for (u32 m = 0; m < EXPAND_TILES; ++m) {
#pragma unroll
            for (u32 half = 0; half < 2; ++half) {
                u32 row = m * 16 + half * 8 + group;
                if (!has_row(taken, row)) continue;
                float eight[8];
#pragma unroll
                for (u32 i = 0; i < 8; ++i) eight[i] = sums[m][i / 2][half * 2 + i % 2];
                bf16* y = args.y + (u64)(first_row + row) * args.y_stride;
                add_outputs(y, outputs, first_output + quad * 8, part.scale, eight);
            }
        }
    }
}
