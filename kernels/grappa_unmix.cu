// grappa_unmix_c32: folded coil images times unmixing weights, summed over coils: the combined, unfolded image.
//
// door      recon::grappa::fold                 reference  recon/grappa/fold.rs: unfold_known, the lattice's part
// in        folded  c32 [n_coils][n_rows][n_x]  transforms of the lattice's lines alone, DC first
//           weights c32 [n_coils][n_folds * n_rows][n_x]      turn c32 [n_folds * n_rows]: phase of each row
// out       out c32 [n_folds * n_rows][n_x] = turn[y] sum_c weights[c][y][x] folded[c][y % n_rows][x]
// launch    grid (ceil(n_rows * ceil(n_x / 2) / 128), 1, ceil(n_folds / 4))   block (128)   shared 0
// requires  any sizes of 1 and more; n_rows * n_x below 2^31
// tolerance 1e-6 relative to the reference (sums over coils in f32, in the order of coils, fused)
// emulated  yes
//
// The image is tiled with the folded one along pe1: a thread makes four of the voxels that fold onto each other, and
// reads their folded value once. The weights are nearly all of the traffic.
#include "common.cuh"

namespace {
constexpr int UNMIX_FOLDS = 4;
}

KERNEL THREADS(128) grappa_unmix_c32(IN(float2) folded, IN(float2) weights, IN(float2) turn, OUT(float2) out, int n_coils, int n_folds, int n_rows, int n_x) {
    const int n_pairs = (n_x + 1) / 2;
    const unsigned i = blockIdx.x * 128u + threadIdx.x;
    const int row = (int)(i / (unsigned)n_pairs), x = 2 * (int)(i % (unsigned)n_pairs);
    if (row >= n_rows) return;
    const int fold0 = blockIdx.z * UNMIX_FOLDS, some = min(UNMIX_FOLDS, n_folds - fold0);
    const bool is_even = n_x % 2 == 0;
    const size_t n_y = (size_t)n_folds * n_rows;
    float2 a[UNMIX_FOLDS], b[UNMIX_FOLDS];
#pragma unroll
    for (int f = 0; f < UNMIX_FOLDS; f++) a[f] = b[f] = make_float2(0.0f, 0.0f);
#pragma unroll 2
    for (int c = 0; c < n_coils; c++) {
        const float4 v = load_pair(folded, ((size_t)c * n_rows + row) * n_x, x, n_x, is_even);
#pragma unroll
        for (int f = 0; f < UNMIX_FOLDS; f++) {
            if (f >= some) break;
            const size_t y = (size_t)(fold0 + f) * n_rows + row;
            const float4 u = load_pair(weights, (c * n_y + y) * n_x, x, n_x, is_even);
            a[f] = c_fma(first(u), first(v), a[f]);
            b[f] = c_fma(second(u), second(v), b[f]);
        }
    }
#pragma unroll
    for (int f = 0; f < UNMIX_FOLDS; f++) {
        if (f >= some) break;
        const size_t y = (size_t)(fold0 + f) * n_rows + row;
        const float2 t = turn[y];
        store_pair(out, y * n_x, x, n_x, is_even, both(c_mul(t, a[f]), c_mul(t, b[f])));
    }
}
