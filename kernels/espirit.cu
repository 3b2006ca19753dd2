// espirit_maps_c32: dominant eigenvectors of the matrix function of ESPIRiT, voxel by voxel; one set of maps.
//
// door      recon::csm (espirit)                reference  recon/csm/espirit.rs, every voxel for itself
// in        rows   c32 [n_rows][n_taps][n_pairs]: the matrix function at each row (z, y), left to be summed over taps along x
//           waves  c32 [n_x][n_taps]: exp(2 pi i t x)    gauge c32 [n_coils]: the phase that each voxel is given
// out       maps   c32 [n_coils][n_rows][n_x]
// launch    grid (n_rows, ceil(n_x / 32))   block (256)   shared 46 KiB, static
// requires  n_coils 1 to 17; n_pairs at least n_coils (n_coils + 1) / 2, lower triangle by columns; crop below 1
// tolerance 2e-3 relative to the reference (both stop at a residual of 1e-3 and go on for 3 steps; sums in another order)
// emulated  yes
//
// 32 voxels of a row to a block, a warp for every eighth pair of coils, then for every eighth row of the matrix. The matrix
// function at the rows is a product of matrices: whiten_c32.
#include "common.cuh"

namespace {
constexpr int ESPIRIT_COILS = 17;
constexpr int ESPIRIT_PAIRS = ESPIRIT_COILS * (ESPIRIT_COILS + 1) / 2;
constexpr int ESPIRIT_VOXELS = 32;
constexpr int ESPIRIT_PARTS = 8;
constexpr int ESPIRIT_OWN = (ESPIRIT_COILS + ESPIRIT_PARTS - 1) / ESPIRIT_PARTS; // rows of a thread
constexpr int ESPIRIT_STEPS = 96;
constexpr int ESPIRIT_EXTRA = 3;
}

// Of element (i, j), i >= j.
DEVICE int pair_of(int n, int i, int j) { return j * n - j * (j + 1) / 2 + i; }

// The sum of the voxel's parts; `sums` is free before and after.
DEVICE float2 sum_of_voxel(OUT(float2) sums, float2 part) {
    const int voxel = threadIdx.x % ESPIRIT_VOXELS;
    sums[threadIdx.x] = part;
    __syncthreads(); // all parts are here
    float2 sum = make_float2(0.0f, 0.0f);
    for (int p = 0; p < ESPIRIT_PARTS; p++) {
        const float2 v = sums[p * ESPIRIT_VOXELS + voxel];
        sum = make_float2(sum.x + v.x, sum.y + v.y);
    }
    __syncthreads(); // all have read
    return sum;
}

KERNEL THREADS(256) espirit_maps_c32(IN(float2) rows, IN(float2) waves, IN(float2) gauge, OUT(float2) maps, int n_coils, int n_pairs, int n_taps, int n_rows, int n_x, float crop, int is_soft) {
    SHARED(float2, matrix, ESPIRIT_PAIRS * ESPIRIT_VOXELS);
    SHARED(float2, vector, ESPIRIT_COILS * ESPIRIT_VOXELS);
    SHARED(float2, sums, ESPIRIT_PARTS * ESPIRIT_VOXELS);
    const int voxel = threadIdx.x % ESPIRIT_VOXELS, part = threadIdx.x / ESPIRIT_VOXELS;
    const int row = blockIdx.x, x = min((int)blockIdx.y * ESPIRIT_VOXELS + voxel, n_x - 1); // beyond the end: the last again
    const int n = n_coils;
    for (int pair = part; pair < n * (n + 1) / 2; pair += ESPIRIT_PARTS) {
        float2 sum = make_float2(0.0f, 0.0f);
        for (int t = 0; t < n_taps; t++)
            sum = c_fma(rows[((size_t)row * n_taps + t) * n_pairs + pair], waves[(size_t)x * n_taps + t], sum);
        matrix[pair * ESPIRIT_VOXELS + voxel] = sum;
    }
    __syncthreads(); // the matrices are here
    // From the column of the largest diagonal element.
    int best = 0;
    float largest = 0.0f;
    for (int j = 0; j < n; j++) {
        const float2 d = matrix[pair_of(n, j, j) * ESPIRIT_VOXELS + voxel];
        if (j == 0 || d.x > largest) {
            best = j;
            largest = d.x;
        }
    }
    float2 own[ESPIRIT_OWN];
    float power = 0.0f;
#pragma unroll
    for (int k = 0; k < ESPIRIT_OWN; k++) {
        const int i = part + k * ESPIRIT_PARTS;
        own[k] = make_float2(0.0f, 0.0f);
        if (i >= n) continue;
        if (i > best) own[k] = matrix[pair_of(n, i, best) * ESPIRIT_VOXELS + voxel];
        else {
            const float2 v = matrix[pair_of(n, best, i) * ESPIRIT_VOXELS + voxel];
            own[k] = make_float2(v.x, i == best ? 0.0f : -v.y);
        }
        power = c_norm(own[k], power);
    }
    power = sum_of_voxel(sums, make_float2(power, 0.0f)).x;
    const float norm = power > 0.0f ? rsqrtf(power) : 0.0f;
#pragma unroll
    for (int k = 0; k < ESPIRIT_OWN; k++) {
        const int i = part + k * ESPIRIT_PARTS;
        if (i >= n) continue;
        own[k] = make_float2(own[k].x * norm, own[k].y * norm);
        if (power <= 0.0f && i == 0) own[k] = make_float2(1.0f, 0.0f);
        vector[i * ESPIRIT_VOXELS + voxel] = own[k];
    }
    __syncthreads(); // the vectors are here

    // Every voxel of the block goes on until all have arrived; one that has stands still.
    float eigenvalue = 0.0f;
    int last = ESPIRIT_STEPS;
    bool is_done = false;
    for (int step = 1; step <= ESPIRIT_STEPS; step++) {
        float2 next[ESPIRIT_OWN];
        float2 squares = make_float2(0.0f, 0.0f); // |G v|^2 and v^H G v
#pragma unroll
        for (int k = 0; k < ESPIRIT_OWN; k++) {
            const int i = part + k * ESPIRIT_PARTS;
            next[k] = make_float2(0.0f, 0.0f);
            if (i >= n) continue;
            for (int j = 0; j < i; j++)
                next[k] = c_fma(matrix[pair_of(n, i, j) * ESPIRIT_VOXELS + voxel], vector[j * ESPIRIT_VOXELS + voxel], next[k]);
            const float2 d = matrix[pair_of(n, i, i) * ESPIRIT_VOXELS + voxel];
            next[k] = make_float2(fmaf(d.x, own[k].x, next[k].x), fmaf(d.x, own[k].y, next[k].y));
            for (int j = i + 1; j < n; j++)
                next[k] = c_conj_fma(matrix[pair_of(n, j, i) * ESPIRIT_VOXELS + voxel], vector[j * ESPIRIT_VOXELS + voxel], next[k]);
            squares.x = c_norm(next[k], squares.x);
            squares.y = fmaf(own[k].x, next[k].x, fmaf(own[k].y, next[k].y, squares.y));
        }
        squares = sum_of_voxel(sums, squares);
        if (!is_done && squares.x <= 1.17549435e-38f) {
            eigenvalue = 0.0f;
            is_done = true;
        }
        if (!is_done) {
            if (step == last || (step % 4 == 0 && last == ESPIRIT_STEPS)) {
                eigenvalue = squares.y;
                if (squares.x - eigenvalue * eigenvalue < 1e-6f * squares.x) last = min(last, step + ESPIRIT_EXTRA);
            }
            const float scale = rsqrtf(squares.x);
#pragma unroll
            for (int k = 0; k < ESPIRIT_OWN; k++) {
                const int i = part + k * ESPIRIT_PARTS;
                if (i >= n) continue;
                own[k] = make_float2(next[k].x * scale, next[k].y * scale);
                vector[i * ESPIRIT_VOXELS + voxel] = own[k];
            }
            is_done = step >= last;
        }
        // One vote in four steps; it is a barrier for the vectors as well.
        if (step % 4 == 0) {
            sums[threadIdx.x] = make_float2(is_done ? 0.0f : 1.0f, 0.0f);
            __syncthreads(); // the votes are here
            float n_left = 0.0f;
            for (int v = 0; v < ESPIRIT_VOXELS; v++) {
                const float2 vote = sums[v];
                n_left += vote.x;
            }
            __syncthreads(); // all have read
            if (n_left == 0.0f) break;
        } else {
            __syncthreads(); // the vectors are here
        }
    }

    float weight = eigenvalue > crop ? 1.0f : 0.0f;
    if (is_soft) {
        const float at = (sqrtf(max(eigenvalue, 0.0f)) - crop) / (1.0f - crop);
        weight = at <= -1.0f ? 0.0f : at >= 1.0f ? 1.0f : 0.5f * (1.0f + 2.0f * at / (1.0f + at * at));
    }
    float2 projection = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int k = 0; k < ESPIRIT_OWN; k++) {
        const int i = part + k * ESPIRIT_PARTS;
        if (i < n) projection = c_conj_fma(gauge[i], own[k], projection);
    }
    projection = sum_of_voxel(sums, projection);
    const float size = sqrtf(c_norm(projection, 0.0f));
    const float2 turn = size > 0.0f ? make_float2(projection.x / size * weight, -projection.y / size * weight) : make_float2(weight, 0.0f);
    if ((int)blockIdx.y * ESPIRIT_VOXELS + voxel >= n_x) return;
#pragma unroll
    for (int k = 0; k < ESPIRIT_OWN; k++) {
        const int i = part + k * ESPIRIT_PARTS;
        if (i < n) maps[((size_t)i * n_rows + row) * n_x + x] = c_mul(own[k], turn);
    }
}
