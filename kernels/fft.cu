// fft_rows_c32: transforms along the last axis.  fft_columns_c32: along the one before it.
//
// door      num::fft                            reference  num::fft::Fft, fft2
// in        in c32 rows: [n_rows][n]; columns: [n_batch][n][n_x]    twiddles c32 [n]: exp(-2 pi i k / n)
//           radices of the passes, four bits each (device::cuda::FftPlan)
//           count   rows: rows of a block; columns: neighbouring columns of a block; count * n at most 3072
//           centre  n / 2: DC in the middle on both sides; 0: DC first
//           sign    1 forward, exp(-2 pi i), -1 inverse     scale of the result: 1 / sqrt(n) is unitary
// out       out c32 as `in`, another buffer
// launch    rows: grid (ceil(n_rows / count))   columns: grid (ceil(n_x / count), n_batch)   block (256)   shared 48 KiB, static
// requires  n 1 to 3072 with factors up to 7; sizes below 2^31
// tolerance 5e-7 relative to the reference
// emulated  yes
#include "common.cuh"
#include "fft.cuh"

KERNEL THREADS_4(FFT_BLOCK) fft_rows_c32(IN(float2) in, OUT(float2) out, IN(float2) twiddles, int n, int n_rows, int radices, int count, int centre, float sign, float scale) {
    SHARED(float2, memory, 2 * FFT_HALF);
    const int row = blockIdx.x * count;
    const Lines l = {n, min(count, n_rows - row), 1, n};
    const size_t from = (size_t)row * n;
    fft(memory, 0, l, radices, twiddles, sign,
        [&](int line, int at) {
            const float2 v = in[from + line * n + to_centre(at, centre, n)];
            return v;
        },
        [&](int line, int at, float2 v) { out[from + line * n + to_centre(at, centre, n)] = make_float2(v.x * scale, v.y * scale); });
}

KERNEL THREADS_4(FFT_BLOCK) fft_columns_c32(IN(float2) in, OUT(float2) out, IN(float2) twiddles, int n, int n_x, int radices, int count, int centre, float sign, float scale) {
    SHARED(float2, memory, 2 * FFT_HALF);
    const int x = blockIdx.x * count, some = min(count, n_x - x);
    const Lines l = {n, some, some, 1};
    const size_t from = (size_t)blockIdx.y * n * n_x + x;
    fft(memory, 0, l, radices, twiddles, sign,
        [&](int line, int at) {
            const float2 v = in[from + (size_t)to_centre(at, centre, n) * n_x + line];
            return v;
        },
        [&](int line, int at, float2 v) { out[from + (size_t)to_centre(at, centre, n) * n_x + line] = make_float2(v.x * scale, v.y * scale); });
}
