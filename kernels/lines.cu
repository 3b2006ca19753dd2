// gather_columns_c32: some columns. add_scaled_c32: out += scale in, a scale for each column.
// sort_lines_c32: lines to their places, each with a factor.  turn_lines_c32: the slowest of two axes becomes the fastest.
// column_energy_f64, column_limits_f32: how much signal each place along the readout has, and where to stop there.
//
// door      recon::sense                        reference  recon/sense/solver.rs
// in        in c32 [n_coils][n_lines][n_x]      line_of i32 [n_places]: the line of each place, or -1    factor c32 [n_places]
//           turn: in c32 [n_rows][n_x], rows of whatever axes      column i32 [n_out], below n_x    scale f32 [n_x]
//           tolerance of the mean column
// out       sort: out c32 [n_coils][n_places][n_x], zero where no line belongs
//           turn: out c32 [n_x][n_rows]                            gather: out c32 [n_rows][n_out]    add: out c32 [n_rows][n_x]
//           sums f64 [gridDim.y][n_x]: of squares of in c32 [n_rows][n_x] over some rows, and over all: energy f64 [n_x]
//           limits f32 [n_x], at least `tolerance`
// launch    sort: grid (ceil(n_places * n_x / 256), n_coils)   turn: grid (ceil(n_rows / 32), ceil(n_x / 32))
//           gather, add: grid (n_rows, ceil(columns of out / 256))
//           energy: grid (ceil(n_x / 32), n_sums)   limits: grid (1)   block (256)   shared 8 KiB, static
// requires  n_x / 32 below 65,536; sizes below 2^31
// tolerance 1e-6 relative to the reference
// emulated  yes
#include "common.cuh"

KERNEL THREADS(256) sort_lines_c32(IN(float2) in, IN(int) line_of, IN(float2) factor, OUT(float2) out, int n_lines, int n_places, int n_x) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n_places * n_x) return;
    const int place = i / n_x, x = i - place * n_x, line = line_of[place];
    float2 v = make_float2(0.0f, 0.0f);
    if (line >= 0) v = c_mul(factor[place], in[((size_t)blockIdx.y * n_lines + line) * n_x + x]);
    out[(size_t)blockIdx.y * n_places * n_x + i] = v;
}

KERNEL THREADS(256) gather_columns_c32(IN(float2) in, IN(int) column, OUT(float2) out, int n_x, int n_out) {
    const int at = blockIdx.y * 256 + threadIdx.x;
    if (at >= n_out) return;
    const float2 v = in[(size_t)blockIdx.x * n_x + column[at]];
    out[(size_t)blockIdx.x * n_out + at] = v;
}

KERNEL THREADS(256) add_scaled_c32(IN(float2) in, IN(float) scale, OUT(float2) out, int n_x) {
    const int x = blockIdx.y * 256 + threadIdx.x;
    if (x >= n_x) return;
    const size_t at = (size_t)blockIdx.x * n_x + x;
    const float2 v = in[at], sum = out[at];
    out[at] = make_float2(fmaf(scale[x], v.x, sum.x), fmaf(scale[x], v.y, sum.y));
}

// Tiles of 32 x 32 through shared memory, whose rows are one longer so that its columns lie in different banks.
KERNEL THREADS(256) turn_lines_c32(IN(float2) in, OUT(float2) out, int n_rows, int n_x) {
    SHARED(float2, tile, 32 * 33);
    const int low = threadIdx.x % 32, high = threadIdx.x / 32, row0 = blockIdx.x * 32, x0 = blockIdx.y * 32;
#pragma unroll
    for (int i = 0; i < 32; i += 8) {
        const int row = row0 + high + i, x = x0 + low;
        if (row < n_rows && x < n_x) tile[(high + i) * 33 + low] = in[(size_t)row * n_x + x];
    }
    __syncthreads(); // the tile is here
#pragma unroll
    for (int i = 0; i < 32; i += 8) {
        const int row = row0 + low, x = x0 + high + i;
        if (row < n_rows && x < n_x) out[(size_t)x * n_rows + row] = tile[low * 33 + high + i];
    }
}

KERNEL THREADS(256) column_energy_f64(IN(float2) in, OUT(double) sums, int n_rows, int n_x) {
    SHARED(double, parts, 256);
    const int low = threadIdx.x % 32, high = threadIdx.x / 32, x = blockIdx.x * 32 + low;
    double sum = 0.0;
    for (int row = blockIdx.y * 8 + high; row < n_rows && x < n_x; row += gridDim.y * 8) {
        const float2 v = in[(size_t)row * n_x + x];
        sum += (double)v.x * v.x + (double)v.y * v.y;
    }
    parts[threadIdx.x] = sum;
    __syncthreads(); // all parts are here
    if (high > 0 || x >= n_x) return;
#pragma unroll
    for (int i = 1; i < 8; i++) sum += parts[i * 32 + low];
    sums[(size_t)blockIdx.y * n_x + x] = sum;
}

KERNEL THREADS(256) column_limits_f32(IN(double) sums, OUT(double) energy, OUT(float) limits, int n_sums, int n_x, float tolerance) {
    SHARED(double, parts, 256);
    double sum = 0.0;
    for (int x = threadIdx.x; x < n_x; x += 256) {
        double of_column = 0.0;
        for (int i = 0; i < n_sums; i++) of_column += sums[(size_t)i * n_x + x];
        energy[x] = of_column;
        sum += of_column;
    }
    parts[threadIdx.x] = sum;
    __syncthreads(); // all parts are here
    for (int half = 128; half >= 1; half /= 2) {
        if ((int)threadIdx.x < half) {
            const double a = parts[threadIdx.x], b = parts[threadIdx.x + half];
            parts[threadIdx.x] = a + b;
        }
        __syncthreads(); // this level is summed
    }
    const double mean = parts[0] / n_x;
    for (int x = threadIdx.x; x < n_x; x += 256) {
        const double e = energy[x];
        // A column without signal has nothing to iterate for.
        limits[x] = tolerance * (e > 0.0 ? max(1.0f, (float)sqrt(mean / e)) : 1.0f);
    }
}
