// grappa_difference_c32: of some lines, what was measured less what the pattern's neighbours predict.
// grappa_spread_c32: those lines times the conjugate low-resolution images, which is a convolution along y.
// add_product_c32: out += factor * in.
//
// door      recon::grappa, image space, beside the pattern      reference  recon/grappa/fold.rs: combine_beside
// in        hybrid     c32 [n_coils][n_lines][n_x]: measured lines, transformed along the readout
//           predictors c32 [n_predictors][coil_in][coil_out][n_x]: minus the weights
//           measured   i32 [n_diff]: the line itself, or -1          starts i32 [n_diff + 1]: its first term
//           predictor, source i32 [n_terms]: predictor and line of each term
//           conjugate  c32 [n_rows][n_coils][n_x]                    shifts i32 [n_diff]: frequency of row 0 of each line, 0 to n_y - 1
// out       difference c32 [n_diff][n_coils][n_x]                    spectrum c32 [n_y][n_x], DC first
//           out        c32 [n], which is read too
// launch    difference grid (ceil(n_x / 128), n_coils, n_diff)       spread grid (ceil(n_x / 128), n_y)
//           add grid (ceil(n / 128))   block (128)   shared 0
// requires  n_rows at most n_y; n_diff, n_coils, n_y below 65,536; sizes below 2^31
// tolerance 1e-6 relative to the reference (sums in f32, in the order of terms and coils, fused)
// emulated  yes
#include "common.cuh"

KERNEL THREADS(128) grappa_difference_c32(IN(float2) hybrid, IN(float2) predictors, IN(int) measured, IN(int) starts, IN(int) predictor, IN(int) source, OUT(float2) difference, int n_coils, int n_lines, int n_x) {
    const int x = blockIdx.x * 128 + threadIdx.x, coil = blockIdx.y, at = blockIdx.z;
    if (x >= n_x) return;
    const int own = measured[at];
    float2 sum = make_float2(0.0f, 0.0f);
    if (own >= 0) sum = hybrid[((size_t)coil * n_lines + own) * n_x + x];
    for (int term = starts[at]; term < starts[at + 1]; term++) {
        const size_t weight = ((size_t)predictor[term] * n_coils * n_coils + coil) * n_x + x;
        const size_t line = (size_t)source[term] * n_x + x;
#pragma unroll 4
        for (int c = 0; c < n_coils; c++)
            sum = c_fma(predictors[weight + (size_t)c * n_coils * n_x], hybrid[line + (size_t)c * n_lines * n_x], sum);
    }
    difference[((size_t)at * n_coils + coil) * n_x + x] = sum;
}

KERNEL THREADS(128) grappa_spread_c32(IN(float2) difference, IN(float2) conjugate, IN(int) shifts, OUT(float2) spectrum, int n_coils, int n_diff, int n_rows, int n_y, int n_x) {
    const int x = blockIdx.x * 128 + threadIdx.x, frequency = blockIdx.y;
    if (x >= n_x) return;
    float2 sum = make_float2(0.0f, 0.0f);
    for (int at = 0; at < n_diff; at++) {
        const int row = frequency >= shifts[at] ? frequency - shifts[at] : frequency - shifts[at] + n_y;
        if (row >= n_rows) continue;
#pragma unroll 4
        for (int c = 0; c < n_coils; c++)
            sum = c_fma(conjugate[((size_t)row * n_coils + c) * n_x + x], difference[((size_t)at * n_coils + c) * n_x + x], sum);
    }
    spectrum[(size_t)frequency * n_x + x] = sum;
}

KERNEL THREADS(128) add_product_c32(IN(float2) factor, IN(float2) in, OUT(float2) out, int n) {
    const int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= n) return;
    const float2 sum = out[i];
    out[i] = c_fma(factor[i], in[i], sum);
}
