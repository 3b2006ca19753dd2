// whiten_c32: mixes coils, out = matrix * in. Prewhitening and coil compression.
//
// door      ingest (noise), recon::compress     reference  num::linalg::mix
// in        matrix c32 [n_out][n_in]            in c32 [n_in][n], n = samples of a frame or a batch of readouts
// out       out c32 [n_out][n]; may not be `in`
// launch    grid (ceil(n / 256), ceil(n_out / 16))   block (128)   shared 8 KiB, static
// requires  any sizes of 1 and more; n below 2^30
// tolerance 1e-6 relative to the reference (sums over coils in f32, in the order of coils, fused)
// emulated  yes
//
// A thread keeps 16 outputs of two samples in registers, so that up to 16 outputs read every input once; further
// outputs find it in L2. Memory-bound up to some 24 coils on cards with 20 flop per byte.
#include "common.cuh"

namespace {
constexpr int WHITEN_ROWS = 16;
constexpr int WHITEN_TILE = 64;
constexpr int WHITEN_BLOCK = 128;
}

KERNEL THREADS(WHITEN_BLOCK) whiten_c32(IN(float2) matrix, IN(float2) in, OUT(float2) out, int n_out, int n_in, int n) {
    SHARED(float2, weights, WHITEN_TILE * WHITEN_ROWS); // [n_in of the tile][row]: broadcast, two rows at a time
    const int row0 = blockIdx.y * WHITEN_ROWS;
    const int at = 2 * (blockIdx.x * WHITEN_BLOCK + threadIdx.x);
    const bool is_inside = at < n, is_even = n % 2 == 0;
    float2 a[WHITEN_ROWS], b[WHITEN_ROWS];
#pragma unroll
    for (int r = 0; r < WHITEN_ROWS; r++) a[r] = b[r] = make_float2(0.0f, 0.0f);

    for (int k0 = 0; k0 < n_in; k0 += WHITEN_TILE) {
        const int n_k = min(WHITEN_TILE, n_in - k0);
        __syncthreads(); // the last tile has been read
        for (int i = threadIdx.x; i < n_k * WHITEN_ROWS; i += WHITEN_BLOCK) {
            const int r = i / n_k, k = i % n_k;
            float2 w = make_float2(0.0f, 0.0f);
            if (row0 + r < n_out) w = matrix[(size_t)(row0 + r) * n_in + k0 + k];
            weights[k * WHITEN_ROWS + r] = w;
        }
        __syncthreads(); // this tile is filled
        if (!is_inside) continue;
#pragma unroll 4
        for (int k = 0; k < n_k; k++) {
            const float4 v = load_pair(in, (size_t)(k0 + k) * n, at, n, is_even);
#pragma unroll
            for (int r = 0; r < WHITEN_ROWS; r += 2) {
                const float4 w = as<float4>(weights)[(k * WHITEN_ROWS + r) / 2];
                a[r] = c_fma(first(w), first(v), a[r]);
                b[r] = c_fma(first(w), second(v), b[r]);
                a[r + 1] = c_fma(second(w), first(v), a[r + 1]);
                b[r + 1] = c_fma(second(w), second(v), b[r + 1]);
            }
        }
    }
    if (!is_inside) return;
#pragma unroll
    for (int r = 0; r < WHITEN_ROWS; r++)
        if (row0 + r < n_out) store_pair(out, (size_t)(row0 + r) * n, at, n, is_even, both(a[r], b[r]));
}
