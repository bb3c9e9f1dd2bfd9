// Dummy weights: the formula of engine/src/checkpoint/dummy.rs, bit for bit, in bf16.
//
// A thread makes 8 neighbours, 16 bytes. Some 50 instructions a value, most of them of two 64-bit
// products: 16 GB take some 15 to 25 ms on an H200, where the writes alone would take 4.

struct DummyArguments {
    bf16* to;
    u64 key;
    u64 first;  // the place of the piece's first value in the whole tensor
    u32 rows, columns;
    u32 tensor_columns, stride;
    u32 group_rows, group_step;  // row r goes to group_step * (r / group_rows) + r % group_rows
    float offset;
    u32 through_f16;
};

constexpr u64 INCREMENT = 0x9e3779b97f4a7c15ull;

// The output function of SplitMix64.
DEVICE u64 mix(u64 z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

DEVICE float value_of(u64 state, float offset) {
    u64 z = mix(state);
    u64 pairs = (z & 0x0000ffff0000ffffull) + (z >> 16 & 0x0000ffff0000ffffull);
    i32 sum = (i32)((u32)pairs + (u32)(pairs >> 32));
    return offset + (float)(2 * sum - 262139) * (1.0f / 4194304.0f);
}

// Rounded to IEEE half precision, to nearest even: 11 bits, in steps of 2^-24 at least.
// Adding 3 * 2^22 leaves an integer, and everything else is by powers of two, exact.
DEVICE float rounded_to_f16(float value) {
    constexpr float to_integer = 12582912.0f;
    u32 exponent = __float_as_uint(value) >> 23 & 255;
    exponent = exponent < 127 - 14 ? 127 - 14 : exponent;
    float step = __uint_as_float((exponent - 10) << 23);
    float per_step = __uint_as_float((254 - (exponent - 10)) << 23);
    return __fsub_rn(__fadd_rn(__fmul_rn(value, per_step), to_integer), to_integer) * step;
}

KERNEL(dummy, 256, 4, DummyArguments) {
    u32 groups = (args.columns + 7) / 8;
    u32 index = blockIdx.x * 256 + threadIdx.x;
    u32 row = index / groups;
    wait_for_earlier_kernels();
    if (row >= args.rows) return;
    u32 column = index % groups * 8;
    u64 state = args.key + (args.first + (u64)row * args.tensor_columns + column) * INCREMENT;
    float values[8];
#pragma unroll
    for (u32 i = 0; i < 8; ++i) {
        state += INCREMENT;
        float value = value_of(state, args.offset);
        values[i] = args.through_f16 ? rounded_to_f16(value) : value;
    }
    u32 to_row = args.group_step * (row / args.group_rows) + row % args.group_rows;
    bf16* to = args.to + (u64)to_row * args.stride + column;
    if (column + 8 <= args.columns) {
        store_16(to, uint4{pack(values[0], values[1]), pack(values[2], values[3]), pack(values[4], values[5]),
                           pack(values[6], values[7])});
        return;
    }
#pragma unroll
    for (u32 i = 0; i < 8; ++i) {
        if (column + i < args.columns) to[i] = to_bf16(values[i]);
    }
}
