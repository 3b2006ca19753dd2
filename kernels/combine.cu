// combine_csm_c32: coil images to one image, weighted by their sensitivities, and the gain of its noise.
// combine_rss_c32: coil images to the root of their sum of squares.
//
// door      recon::combine                      reference  recon/run.rs: weighted_sum, root_sum_of_squares
// in        images c32 [n_coils][n]             csm c32 [n_coils][n], n = voxels
// out       out c32 [n] = sum conj(csm) images  gain f32 [n] = sqrt(sum |csm|^2): noise per component for whitened coils
//           magnitude f32 [n]
// launch    grid (ceil(n / 512))   block (256)   shared 0
// requires  any sizes of 1 and more; n below 2^30
// tolerance 1e-6 relative to the reference (sums over coils in f32, in the order of coils, fused)
// emulated  yes
//
// Every byte is read once, 16 at a time: two voxels per thread.
#include "common.cuh"

DEVICE void store_reals(OUT(float) out, int at, int n, float a, float b) {
    // Two floats at an even place: 8 bytes, whatever n is.
    if (at + 1 < n) as<float2>(out)[at / 2] = make_float2(a, b);
    else out[at] = a;
}

KERNEL THREADS(256) combine_csm_c32(IN(float2) images, IN(float2) csm, OUT(float2) out, OUT(float) gain, int n_coils, int n) {
    const int at = 2 * (blockIdx.x * 256 + threadIdx.x);
    if (at >= n) return;
    const bool is_even = n % 2 == 0;
    float2 a = make_float2(0.0f, 0.0f), b = a;
    float power_a = 0.0f, power_b = 0.0f;
#pragma unroll 4
    for (int c = 0; c < n_coils; c++) {
        const float4 m = load_pair(images, (size_t)c * n, at, n, is_even);
        const float4 s = load_pair(csm, (size_t)c * n, at, n, is_even);
        a = c_conj_fma(first(s), first(m), a);
        b = c_conj_fma(second(s), second(m), b);
        power_a = c_norm(first(s), power_a);
        power_b = c_norm(second(s), power_b);
    }
    store_pair(out, 0, at, n, is_even, both(a, b));
    store_reals(gain, at, n, sqrtf(power_a), sqrtf(power_b));
}

KERNEL THREADS(256) combine_rss_c32(IN(float2) images, OUT(float) magnitude, int n_coils, int n) {
    const int at = 2 * (blockIdx.x * 256 + threadIdx.x);
    if (at >= n) return;
    const bool is_even = n % 2 == 0;
    float a = 0.0f, b = 0.0f;
#pragma unroll 4
    for (int c = 0; c < n_coils; c++) {
        const float4 m = load_pair(images, (size_t)c * n, at, n, is_even);
        a = c_norm(first(m), a);
        b = c_norm(second(m), b);
    }
    store_reals(magnitude, at, n, sqrtf(a), sqrtf(b));
}
