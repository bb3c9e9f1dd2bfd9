// What the GPU's memory can do: everything is read, or copied, once. 16 bytes a lane, eight
// of them under way before the first is used; bound by memory alone.

constexpr u32 UNROLL = 8;

struct Arguments {
    const u8* from;
    u8* to;
    u64 units;  // Of 16 bytes; a multiple of UNROLL * blockDim.x.
};

// Leaves in `to` one word a thread that depends on all that it read.
KERNEL(read_all, 256, 4, Arguments) {
    u32 seen = 0;
    const u64 each = (u64)UNROLL * 256;
    for (u64 first = blockIdx.x * each; first < args.units; first += gridDim.x * each) {
        uint4 values[UNROLL];
        for (u32 i = 0; i < UNROLL; ++i) {
            values[i] = load_weights_16(args.from + 16 * (first + i * 256 + threadIdx.x));
        }
        for (u32 i = 0; i < UNROLL; ++i) seen ^= values[i].x ^ values[i].y ^ values[i].z ^ values[i].w;
    }
    ((u32*)args.to)[blockIdx.x * 256 + threadIdx.x] = seen;
}

KERNEL(copy_all, 256, 4, Arguments) {
    const u64 each = (u64)UNROLL * 256;
    for (u64 first = blockIdx.x * each; first < args.units; first += gridDim.x * each) {
        uint4 values[UNROLL];
        for (u32 i = 0; i < UNROLL; ++i) {
            values[i] = load_weights_16(args.from + 16 * (first + i * 256 + threadIdx.x));
        }
        for (u32 i = 0; i < UNROLL; ++i) store_16(args.to + 16 * (first + i * 256 + threadIdx.x), values[i]);
    }
}
