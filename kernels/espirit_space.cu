// The signal space of ESPIRiT's calibration matrix, by products of Hermitian matrices alone (recon/csm/space.rs says how):
// espirit_windows_c32: the matrix, a row for each place of the window.  hermitian_product_c32: scale alpha a^H b + beta 1.
// row_dots_f64: of the rows of two matrices.  trace_scale_f32: the scale of the next product.
// espirit_taps_c32: coefficients of the matrix function of the projector (1 - sign) / 2.
//
// door      recon::csm (espirit)                reference  recon/csm/espirit.rs: eigenvectors of the same matrix
// in        samples c32 [n_coils][d2][d1][d0]   a, b c32 [k][n], with a^H b Hermitian    scale f32 [1]
//           row_dots: a, b c32 [n][n]           trace_scale: m c32 [n][n], dots f64 [n]
//           sign c32 [n][n], n = n_coils w2 w1 w0
// out       matrix c32 [n_windows][n]           product c32 [n][n], Hermitian to the bit
//           dots f64 [n]: the real part of a^H b along each row
//           scale f32 [1]: factor trace / sum of dots; without dots (is_power) 1 / trace^2
//           taps c32 [(2 w2 - 1) (2 w1 - 1) (2 w0 - 1)][n_pairs]
// launch    windows: grid (n_windows, ceil(n / 256))    product: grid (t (t + 1) / 2), t = ceil(n / 32)
//           row_dots: grid (n)    trace_scale: grid (1)    block (256)    taps: grid (taps, ceil(n_pairs / 128)), block (128)
//           shared 32 KiB, static
// requires  n to 16384; sizes below 2^31
// tolerance 1e-6 relative to the reference (sums of 32 terms, then of those)
// emulated  yes
#include "common.cuh"

namespace {
constexpr int SPACE_TILE = 32;
constexpr int SPACE_TILE_SIZE = SPACE_TILE * SPACE_TILE;
}

KERNEL THREADS(256) espirit_windows_c32(IN(float2) samples, OUT(float2) matrix, int n, int d2, int d1, int d0, int w2, int w1, int w0) {
    const int i = blockIdx.y * 256 + threadIdx.x;
    if (i >= n) return;
    const int n1 = d1 - w1 + 1, n0 = d0 - w0 + 1;
    const int p2 = blockIdx.x / (n1 * n0), p1 = blockIdx.x / n0 % n1, p0 = blockIdx.x % n0;
    const int coil = i / (w2 * w1 * w0), z = i / (w1 * w0) % w2, y = i / w0 % w1, x = i % w0;
    const float2 v = samples[((size_t)(coil * d2 + p2 + z) * d1 + p1 + y) * d0 + p0 + x];
    matrix[(size_t)blockIdx.x * n + i] = v;
}

// Rows k0 to k0 + 31 of 32 columns from `column` on, four of them to a thread; zero beyond the end.
DEVICE void load_rows(IN(float2) in, int k0, int column, int k, int n, float2 (&v)[4]) {
    const int at = column + threadIdx.x % SPACE_TILE;
#pragma unroll
    for (int p = 0; p < 4; p++) {
        const int row = k0 + threadIdx.x / SPACE_TILE + 8 * p;
        v[p] = make_float2(0.0f, 0.0f);
        if (row < k && at < n) v[p] = in[(size_t)row * n + at];
    }
}

DEVICE void keep_rows(OUT(float2) tile, const float2 (&v)[4]) {
#pragma unroll
    for (int p = 0; p < 4; p++) tile[threadIdx.x + 256 * p] = v[p];
}

// A block has a tile of the lower triangle, a thread two by two of its elements; the upper triangle is written with it.
KERNEL THREADS(256) hermitian_product_c32(IN(float2) a, IN(float2) b, IN(float) scale, OUT(float2) out, int n, int k, float alpha, float beta) {
    SHARED(float2, left, 2 * SPACE_TILE_SIZE);
    SHARED(float2, right, 2 * SPACE_TILE_SIZE);
    const int tile = blockIdx.x;
    int row = (int)((sqrtf(8.0f * (float)tile + 1.0f) - 1.0f) * 0.5f);
    while (row * (row + 1) / 2 > tile) row--;
    while ((row + 1) * (row + 2) / 2 <= tile) row++;
    const int i0 = row * SPACE_TILE, j0 = (tile - row * (row + 1) / 2) * SPACE_TILE;
    const int high = threadIdx.x / 16, low = threadIdx.x % 16;
    float2 sum[2][2], next_left[4], next_right[4];
#pragma unroll
    for (int p = 0; p < 4; p++) sum[p / 2][p % 2] = make_float2(0.0f, 0.0f);
    load_rows(a, 0, i0, k, n, next_left);
    load_rows(b, 0, j0, k, n, next_right);
    int half = 0;
    for (int k0 = 0; k0 < k; k0 += SPACE_TILE) {
        keep_rows(left + half * SPACE_TILE_SIZE, next_left);
        keep_rows(right + half * SPACE_TILE_SIZE, next_right);
        __syncthreads(); // the tiles are here, and nobody reads the other half any more
        load_rows(a, k0 + SPACE_TILE, i0, k, n, next_left);
        load_rows(b, k0 + SPACE_TILE, j0, k, n, next_right);
        float2 part[2][2];
#pragma unroll
        for (int p = 0; p < 4; p++) part[p / 2][p % 2] = make_float2(0.0f, 0.0f);
#pragma unroll 8
        for (int t = 0; t < SPACE_TILE; t++) {
            const int from = half * SPACE_TILE_SIZE + t * SPACE_TILE;
            const float4 u = as<float4>(left)[from / 2 + high], v = as<float4>(right)[from / 2 + low];
            part[0][0] = c_conj_fma(first(u), first(v), part[0][0]);
            part[0][1] = c_conj_fma(first(u), second(v), part[0][1]);
            part[1][0] = c_conj_fma(second(u), first(v), part[1][0]);
            part[1][1] = c_conj_fma(second(u), second(v), part[1][1]);
        }
#pragma unroll
        for (int p = 0; p < 4; p++) {
            const float2 s = sum[p / 2][p % 2], q = part[p / 2][p % 2];
            sum[p / 2][p % 2] = make_float2(s.x + q.x, s.y + q.y);
        }
        half = 1 - half;
    }
    const float factor = alpha * scale[0];
#pragma unroll
    for (int p = 0; p < 4; p++) {
        const int i = i0 + 2 * high + p / 2, j = j0 + 2 * low + p % 2;
        if (i >= n || j > i) continue;
        float2 v = make_float2(factor * sum[p / 2][p % 2].x, factor * sum[p / 2][p % 2].y);
        if (i == j) v = make_float2(v.x + beta, 0.0f);
        out[(size_t)i * n + j] = v;
        if (i != j) out[(size_t)j * n + i] = make_float2(v.x, -v.y);
    }
}

// The sum of v over a block of 256, in an order that does not depend on anything.
DEVICE double sum_of_256(OUT(double) room, double v) {
    room[threadIdx.x] = v;
    __syncthreads(); // all parts are here
    for (int half = 128; half >= 1; half /= 2) {
        if ((int)threadIdx.x < half) {
            const double a = room[threadIdx.x], b = room[threadIdx.x + half];
            room[threadIdx.x] = a + b;
        }
        __syncthreads(); // this level is summed
    }
    const double sum = room[0];
    __syncthreads(); // all have read
    return sum;
}

KERNEL THREADS(256) row_dots_f64(IN(float2) a, IN(float2) b, OUT(double) dots, int n) {
    SHARED(double, room, 256);
    double part = 0.0;
    for (int j = threadIdx.x; j < n; j += 256) {
        const float2 u = a[(size_t)blockIdx.x * n + j], v = b[(size_t)blockIdx.x * n + j];
        part += (double)u.x * v.x + (double)u.y * v.y;
    }
    const double sum = sum_of_256(room, part);
    if (threadIdx.x == 0) dots[blockIdx.x] = sum;
}

KERNEL THREADS(256) trace_scale_f32(IN(float2) m, IN(double) dots, OUT(float) scale, int n, int is_power, float factor) {
    SHARED(double, room, 256);
    double of_trace = 0.0, of_dots = 0.0;
    for (int i = threadIdx.x; i < n; i += 256) {
        const float2 v = m[(size_t)i * n + i];
        of_trace += v.x;
        if (!is_power) of_dots += dots[i];
    }
    const double trace = sum_of_256(room, of_trace), sum = sum_of_256(room, of_dots);
    if (threadIdx.x == 0) scale[0] = (float)(is_power ? 1.0 / (trace * trace) : factor * trace / sum);
}

KERNEL THREADS(128) espirit_taps_c32(IN(float2) sign, OUT(float2) taps, int n_coils, int n_pairs, int w2, int w1, int w0) {
    const int pair = blockIdx.y * 128 + threadIdx.x, size = w2 * w1 * w0, n = n_coils * size;
    if (pair >= n_pairs) return;
    const int t0 = blockIdx.x % (2 * w0 - 1), t1 = blockIdx.x / (2 * w0 - 1) % (2 * w1 - 1), t2 = blockIdx.x / ((2 * w0 - 1) * (2 * w1 - 1));
    // Lower triangle by columns.
    int j = 0, i = pair;
    while (j < n_coils && i >= n_coils - j) {
        i -= n_coils - j;
        j++;
    }
    i += j;
    float2 sum = make_float2(0.0f, 0.0f);
    for (int at = 0; at < size && j < n_coils; at++) {
        const int z = at / (w1 * w0) + t2 - (w2 - 1), y = at / w0 % w1 + t1 - (w1 - 1), x = at % w0 + t0 - (w0 - 1);
        if (z < 0 || z >= w2 || y < 0 || y >= w1 || x < 0 || x >= w0) continue;
        const int row = j * size + at, column = i * size + (z * w1 + y) * w0 + x;
        const float2 v = sign[(size_t)row * n + column];
        sum = make_float2(sum.x - v.x + (row == column ? 1.0f : 0.0f), sum.y - v.y);
    }
    const float half = 0.5f / (float)size;
    taps[(size_t)blockIdx.x * n_pairs + pair] = make_float2(half * sum.x, half * sum.y);
}
