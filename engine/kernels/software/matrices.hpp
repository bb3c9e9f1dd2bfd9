// Matrix instructions of a warp, as the PTX ISA defines their fragments.
#pragma once

#include <string.h>

#include "runtime.hpp"

namespace software {

inline float bf16_float(uint32_t bits) {
    uint32_t word = bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}
inline uint16_t float_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Eight numbers at a time, by whatever instructions the processor has: the same sums in any case.
typedef float Eight __attribute__((vector_size(32)));
#if defined(__x86_64__) && defined(__ELF__) && !defined(__clang__)
#define SOFTWARE_FAST __attribute__((target_clones("avx2", "default")))
#else
#define SOFTWARE_FAST
#endif

// "Matrix Fragments for mma.m16n8k16 with floating point type".
SOFTWARE_FAST void execute_mma(void* const* operands) {
    alignas(32) float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        const MmaOperand* operand = (const MmaOperand*)operands[lane];
        const int row = lane / 4, column = 2 * (lane % 4);
        for (int half = 0; half < 2; ++half) {
            for (int part = 0; part < 4; ++part) {
                a[row + 8 * (part & 1)][column + 8 * (part >> 1) + half] = bf16_float(operand->a[part] >> (16 * half) & 0xffff);
            }
            b[column + half][row] = bf16_float(operand->b[0] >> (16 * half) & 0xffff);
            b[column + 8 + half][row] = bf16_float(operand->b[1] >> (16 * half) & 0xffff);
        }
        memcpy(&d[row][column], operand->d, 8);
        memcpy(&d[row + 8][column], operand->d + 2, 8);
    }
    for (int row = 0; row < 16; ++row) {
        Eight sums = *(const Eight*)d[row];
        for (int k = 0; k < 16; ++k) sums += a[row][k] * *(const Eight*)b[k];
        *(Eight*)d[row] = sums;
    }
    for (int lane = 0; lane < 32; ++lane) {
        const MmaOperand* operand = (const MmaOperand*)operands[lane];
        memcpy(operand->d, &d[lane / 4][2 * (lane % 4)], 8);
        memcpy(operand->d + 2, &d[lane / 4 + 8][2 * (lane % 4)], 8);
    }
}

// "Warp-level matrix load instruction: ldmatrix", .x4: lane i has the address of row i % 8 of matrix i / 8.
void execute_load_matrices(void* const* operands) {
    uint32_t loaded[32][4];
    for (int lane = 0; lane < 32; ++lane) {
        for (int matrix = 0; matrix < 4; ++matrix) {
            const LoadMatricesOperand* of_row = (const LoadMatricesOperand*)operands[8 * matrix + lane / 4];
            memcpy(&loaded[lane][matrix], (const unsigned char*)of_row->row + 4 * (lane % 4), 4);
        }
    }
    for (int lane = 0; lane < 32; ++lane) memcpy(((const LoadMatricesOperand*)operands[lane])->matrices, loaded[lane], 16);
}

void execute_load_matrices_transposed(void* const* operands) {
    uint32_t loaded[32][4];
    for (int lane = 0; lane < 32; ++lane) {
        for (int matrix = 0; matrix < 4; ++matrix) {
            uint16_t pair[2];
            for (int half = 0; half < 2; ++half) {
                const LoadMatricesOperand* of_row = (const LoadMatricesOperand*)operands[8 * matrix + 2 * (lane % 4) + half];
                memcpy(&pair[half], (const unsigned char*)of_row->row + 2 * (lane / 4), 2);
            }
            loaded[lane][matrix] = (uint32_t)pair[1] << 16 | pair[0];
        }
    }
    for (int lane = 0; lane < 32; ++lane) memcpy(((const LoadMatricesOperand*)operands[lane])->matrices, loaded[lane], 16);
}

inline __attribute__((always_inline)) void eight_floats(Eight& floats, const uint16_t* from) {
    typedef uint16_t Halves __attribute__((vector_size(16)));
    typedef uint32_t Words __attribute__((vector_size(32)));
    Halves halves;
    memcpy(&halves, from, sizeof halves);
    Words words = __builtin_convertvector(halves, Words) << 16;
    memcpy(&floats, &words, sizeof floats);
}

// y = x Wᵀ by plain loops: eight sums in f32, one for each k modulo 8, added up at the end.
SOFTWARE_FAST static void multiply(const Product& product) {
    for (uint64_t row = 0; row < product.rows; ++row) {
        const uint16_t* x = product.x + row * product.x_stride;
        for (uint64_t output = 0; output < product.outputs; ++output) {
            const uint16_t* weights = product.weights + output * product.weights_stride;
            Eight sums = {}, of_x, of_weights;
            uint64_t k = 0;
            for (; k + 8 <= product.inputs; k += 8) {
                eight_floats(of_x, x + k);
                eight_floats(of_weights, weights + k);
                sums += of_x * of_weights;
            }
            for (int i = 0; k < product.inputs; ++k, ++i) sums[i] += bf16_float(x[k]) * bf16_float(weights[k]);
            float sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
            const uint64_t at = row * product.y_stride + output;
            if (product.is_f32) {
                float* y = (float*)product.y + at;
                *y = product.adds ? *y + sum : sum;
            } else {
                uint16_t* y = (uint16_t*)product.y + at;
                *y = float_bf16(product.adds ? bf16_float(*y) + sum : sum);
            }
        }
    }
}

}  // namespace software
