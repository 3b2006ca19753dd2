// What every kernel is written with. Under nvcc and NVRTC these are raw pointers and plain CUDA; under the emulator
// (kernels/emu, which defines CAUDA_EMULATED) pointers know their bounds, and shared memory its writers.
//
// Elements of spans are read and written whole: `float2 v = in[i]; out[i] = v;`, never `out[i].x = ...`. There, a read
// and a write look different to the emulator.
#pragma once

#ifndef CAUDA_EMULATED

#define KERNEL extern "C" __global__ void
#define DEVICE static __device__ __forceinline__
// At most so many threads in a block: the register budget follows from it.
#define THREADS(n) __launch_bounds__(n)
// And so that four blocks of 256 fit a multiprocessor (64 registers), or one is enough.
#define THREADS_4(n) __launch_bounds__(n, 4)
#define THREADS_1(n) __launch_bounds__(n, 1)
#define IN(T) const T *__restrict__
#define OUT(T) T *__restrict__
// n elements of shared memory; n is a constant.
#define SHARED(T, name, n) __shared__ __align__(16) T name[n]

// The same memory as another type: as<float4>(in). The address must be a multiple of the type's size.
template <class V, class T> DEVICE const V *as(const T *p) { return reinterpret_cast<const V *>(p); }
template <class V, class T> DEVICE V *as(T *p) { return reinterpret_cast<V *>(p); }

#endif

// Complex numbers are float2; float4 is two neighbouring ones.
DEVICE float2 c_fma(float2 a, float2 b, float2 sum) {
    sum.x = fmaf(a.x, b.x, fmaf(-a.y, b.y, sum.x));
    sum.y = fmaf(a.x, b.y, fmaf(a.y, b.x, sum.y));
    return sum;
}

// sum + conj(a) b
DEVICE float2 c_conj_fma(float2 a, float2 b, float2 sum) {
    sum.x = fmaf(a.x, b.x, fmaf(a.y, b.y, sum.x));
    sum.y = fmaf(a.x, b.y, fmaf(-a.y, b.x, sum.y));
    return sum;
}

DEVICE float2 c_mul(float2 a, float2 b) { return c_fma(a, b, make_float2(0.0f, 0.0f)); }

DEVICE float c_norm(float2 a, float sum) { return fmaf(a.x, a.x, fmaf(a.y, a.y, sum)); }

DEVICE float2 first(float4 v) { return make_float2(v.x, v.y); }
DEVICE float2 second(float4 v) { return make_float2(v.z, v.w); }
DEVICE float4 both(float2 a, float2 b) { return make_float4(a.x, a.y, b.x, b.y); }

// The pair of samples from `at` on, which is even, of a row of `n` that begins at `row`. With `is_even` (row and n are
// even) one load of 16 bytes; else one by one, and zero beyond the end.
DEVICE float4 load_pair(IN(float2) in, size_t row, int at, int n, bool is_even) {
    if (is_even) return as<float4>(in)[(row + at) / 2];
    float2 a = in[row + at];
    float2 b = make_float2(0.0f, 0.0f);
    if (at + 1 < n) b = in[row + at + 1];
    return both(a, b);
}

DEVICE void store_pair(OUT(float2) out, size_t row, int at, int n, bool is_even, float4 v) {
    if (is_even) {
        as<float4>(out)[(row + at) / 2] = v;
        return;
    }
    out[row + at] = first(v);
    if (at + 1 < n) out[row + at + 1] = second(v);
}
