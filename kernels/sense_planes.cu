// sense_rows_forward_c32, sense_columns_c32, sense_rows_adjoint_c32: the normal operator of SENSE for any mask over a plane.
// sense_diagonal_f32, cg_begin_c32, cg_start_f64, cg_step_c32, cg_direction_c32: conjugate gradients around it, without the host.
//
// door      recon::sense, masks over two axes   reference  recon/sense (conjugate gradients)
// in        csm c32 [n_planes][n_coils][n2][n1], p c32 [n_planes][n2][n1]: DC and the origin in the middle
//           weights f32 [n2][n1]: how often each point was measured, over n1 * n2; DC first
//           twiddles, radices, count as fft.cu      limits f32 [n_planes]: where to stop, as a fraction of the preconditioned start
//           inverse f32 [n_planes][n2][n1]: of the diagonal
// out       work c32 [n_planes][n_coils][n2][n1]     q c32 as p = (normal + lambda) p
//           parts f64 [n_planes][gridDim.x]: sums of a block      rho f64 [max_iterations + 1][n_planes]
// launch    rows_forward  grid (ceil(n2 / count), n_coils, n_planes)    columns  grid (ceil(n1 / count), n_coils, n_planes)
//           rows_adjoint  grid (ceil(n2 / count), 1, n_planes)
//           cg_*, diagonal  grid (at most 256, 1, n_planes)             block (256)   shared 48 KiB (rows, columns), 2 KiB (cg)
// requires  n1 1 to 2048, n2 1 to 3072 with factors up to 7; in rows_adjoint count * n1 at most 2048; sizes below 2^31
// tolerance 2e-5 relative to the reference (f32 vectors, f64 inner products)
// emulated  yes
//
// An iteration is forward, columns, adjoint, step, direction: ten lines of a graph that runs without the host. A plane that
// has arrived stands still in what is left of it.
#include "common.cuh"
#include "fft.cuh"

namespace {
// Samples of one thread of the adjoint: more would leave room for fewer blocks.
constexpr int ADJOINT_OWN = 8;
}

// The sum of v over the block, in an order that does not depend on anything.
DEVICE double sum_of_block(OUT(double) room, double v) {
    room[threadIdx.x] = v;
    __syncthreads(); // all parts are here
    for (int half = FFT_BLOCK / 2; half >= 1; half /= 2) {
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

DEVICE double sum_of_parts(OUT(double) room, IN(double) parts, int n_parts) {
    double v = 0.0;
    for (int i = threadIdx.x; i < n_parts; i += FFT_BLOCK) v += parts[(size_t)blockIdx.z * n_parts + i];
    return sum_of_block(room, v);
}

KERNEL THREADS_4(FFT_BLOCK) sense_rows_forward_c32(IN(float2) csm, IN(float2) p, IN(float2) twiddles, OUT(float2) work, int n2, int n1, int radices, int count) {
    SHARED(float2, memory, 2 * FFT_HALF);
    const int row = blockIdx.x * count;
    const Lines l = {n1, min(count, n2 - row), 1, n1};
    const size_t plane = (size_t)n2 * n1, from = (size_t)row * n1;
    const size_t image = blockIdx.z * plane + from, coil = ((size_t)blockIdx.z * gridDim.y + blockIdx.y) * plane + from;
    fft(memory, 0, l, radices, twiddles, 1.0f,
        [&](int line, int at) {
            const int i = line * n1 + to_centre(at, n1 / 2, n1);
            return c_mul(csm[coil + i], p[image + i]);
        },
        [&](int line, int at, float2 v) { work[coil + line * n1 + at] = v; }); // DC first along pe1
}

// Forward, weighted, and back, in one visit.
KERNEL THREADS_4(FFT_BLOCK) sense_columns_c32(OUT(float2) work, IN(float) weights, IN(float2) twiddles, int n2, int n1, int radices, int count) {
    SHARED(float2, memory, 2 * FFT_HALF);
    const int x = blockIdx.x * count, some = min(count, n1 - x);
    const Lines l = {n2, some, some, 1};
    const size_t from = ((size_t)blockIdx.z * gridDim.y + blockIdx.y) * n2 * n1 + x;
    const int half = half_after(radices, 0);
    OUT(float2) spectrum = memory + half * FFT_HALF;
    fft(memory, 0, l, radices, twiddles, 1.0f,
        [&](int line, int at) {
            const float2 v = work[from + (size_t)to_centre(at, n2 / 2, n2) * n1 + line];
            return v;
        },
        [&](int line, int at, float2 v) {
            const float w = weights[(size_t)at * n1 + x + line];
            spectrum[place_of(l, line, at)] = make_float2(v.x * w, v.y * w);
        });
    __syncthreads(); // the spectrum is weighted
    fft(memory, 1 - half, l, radices, twiddles, -1.0f,
        [&](int line, int at) {
            const float2 v = spectrum[place_of(l, line, at)];
            return v;
        },
        [&](int line, int at, float2 v) { work[from + (size_t)to_centre(at, n2 / 2, n2) * n1 + line] = v; });
}

KERNEL THREADS_4(FFT_BLOCK) sense_rows_adjoint_c32(IN(float2) work, IN(float2) csm, IN(float2) p, IN(float2) twiddles, OUT(float2) q, OUT(double) parts, int n_coils, int n2, int n1, int radices, int count, float lambda) {
    SHARED(float2, memory, 2 * FFT_HALF);
    const int row = blockIdx.x * count;
    const Lines l = {n1, min(count, n2 - row), 1, n1};
    const int plane = n2 * n1, image = (int)blockIdx.z * plane + row * n1;
    float2 sum[ADJOINT_OWN];
#pragma unroll
    for (int i = 0; i < ADJOINT_OWN; i++) sum[i] = make_float2(0.0f, 0.0f);
    int half = 0;
    for (int c = 0; c < n_coils; c++) {
        const int coil = ((int)blockIdx.z * n_coils + c) * plane + row * n1;
        const int first = half;
        half = half_after(radices, first);
        OUT(float2) result = memory + half * FFT_HALF;
        fft(memory, first, l, radices, twiddles, -1.0f,
            [&](int line, int at) {
                const float2 v = work[coil + line * n1 + at];
                return v;
            },
            [&](int line, int at, float2 v) { result[line * n1 + to_centre(at, n1 / 2, n1)] = v; });
        __syncthreads(); // the rows are here
#pragma unroll
        for (int i = 0; i < ADJOINT_OWN; i++) {
            const int at = threadIdx.x + i * FFT_BLOCK;
            if (at >= n1 * l.count) break;
            sum[i] = c_conj_fma(csm[coil + at], result[at], sum[i]);
        }
        half = 1 - half; // the next coil begins in the other half, while this one is being read
    }
    // The sum's room is the first samples of `memory`, and each thread writes there what it alone has read.
    double part = 0.0;
#pragma unroll
    for (int i = 0; i < ADJOINT_OWN; i++) {
        const int at = threadIdx.x + i * FFT_BLOCK;
        if (at >= n1 * l.count) break;
        const float2 v = p[image + at];
        const float2 w = make_float2(fmaf(lambda, v.x, sum[i].x), fmaf(lambda, v.y, sum[i].y));
        q[image + at] = w;
        part += (double)v.x * w.x + (double)v.y * w.y;
    }
    const double of_block = sum_of_block(as<double>(memory), part);
    if (threadIdx.x == 0) parts[(size_t)blockIdx.z * gridDim.x + blockIdx.x] = of_block;
}

// inverse f32 [n_planes][n] of mean_weight sum |csm|^2 + lambda.
KERNEL THREADS(FFT_BLOCK) sense_diagonal_f32(IN(float2) csm, OUT(float) inverse, int n_coils, int n, float mean_weight, float lambda) {
    for (int i = blockIdx.x * FFT_BLOCK + threadIdx.x; i < n; i += gridDim.x * FFT_BLOCK) {
        float density = 0.0f;
        for (int c = 0; c < n_coils; c++) density = c_norm(csm[((size_t)blockIdx.z * n_coils + c) * n + i], density);
        inverse[(size_t)blockIdx.z * n + i] = 1.0f / fmaf(mean_weight, density, lambda);
    }
}

// x = 0, p = z = inverse r, and the parts of r z.
KERNEL THREADS(FFT_BLOCK) cg_begin_c32(IN(float2) r, IN(float) inverse, OUT(float2) x, OUT(float2) p, OUT(double) parts, int n) {
    SHARED(double, room, FFT_BLOCK);
    double part = 0.0;
    for (int i = blockIdx.x * FFT_BLOCK + threadIdx.x; i < n; i += gridDim.x * FFT_BLOCK) {
        const size_t at = (size_t)blockIdx.z * n + i;
        const float2 v = r[at];
        const float2 z = make_float2(inverse[at] * v.x, inverse[at] * v.y);
        x[at] = make_float2(0.0f, 0.0f);
        p[at] = z;
        part += (double)v.x * z.x + (double)v.y * z.y;
    }
    const double of_block = sum_of_block(room, part);
    if (threadIdx.x == 0) parts[(size_t)blockIdx.z * gridDim.x + blockIdx.x] = of_block;
}

// x += alpha p, r -= alpha q, and the parts of r z.
KERNEL THREADS(FFT_BLOCK) cg_step_c32(IN(float2) p, IN(float2) q, IN(float) inverse, IN(double) of_curvature, IN(double) rho, IN(float) limits, OUT(float2) x, OUT(float2) r, OUT(double) parts, int n, int n_curvature, int iteration) {
    SHARED(double, room, FFT_BLOCK);
    const double curvature = sum_of_parts(room, of_curvature, n_curvature);
    const double now = rho[(size_t)iteration * gridDim.z + blockIdx.z], limit = limits[blockIdx.z], goal = rho[blockIdx.z] * limit * limit;
    const float alpha = now > goal && curvature > 0.0 ? (float)(now / curvature) : 0.0f;
    double part = 0.0;
    for (int i = blockIdx.x * FFT_BLOCK + threadIdx.x; i < n; i += gridDim.x * FFT_BLOCK) {
        const size_t at = (size_t)blockIdx.z * n + i;
        const float2 d = p[at], w = q[at], old_x = x[at], old_r = r[at];
        const float2 v = make_float2(fmaf(-alpha, w.x, old_r.x), fmaf(-alpha, w.y, old_r.y));
        x[at] = make_float2(fmaf(alpha, d.x, old_x.x), fmaf(alpha, d.y, old_x.y));
        r[at] = v;
        part += inverse[at] * ((double)v.x * v.x + (double)v.y * v.y);
    }
    if (curvature <= 0.0) part = 0.0; // rounding has ended it: nothing more to gain along p
    const double of_block = sum_of_block(room, part);
    if (threadIdx.x == 0) parts[(size_t)blockIdx.z * gridDim.x + blockIdx.x] = of_block;
}

// rho[0], from the parts of cg_begin_c32; grid (1, 1, n_planes).
KERNEL THREADS(FFT_BLOCK) cg_start_f64(IN(double) parts, OUT(double) rho, int n_parts) {
    SHARED(double, room, FFT_BLOCK);
    const double sum = sum_of_parts(room, parts, n_parts);
    if (threadIdx.x == 0) rho[blockIdx.z] = sum;
}

// p = z + beta p, and rho[iteration + 1].
KERNEL THREADS(FFT_BLOCK) cg_direction_c32(IN(float2) r, IN(float) inverse, IN(double) of_next, IN(float) limits, OUT(double) rho, OUT(float2) p, int n, int n_next, int iteration) {
    SHARED(double, room, FFT_BLOCK);
    const double next = sum_of_parts(room, of_next, n_next);
    const double now = rho[(size_t)iteration * gridDim.z + blockIdx.z], limit = limits[blockIdx.z], goal = rho[blockIdx.z] * limit * limit;
    const bool is_alive = now > goal;
    const float beta = is_alive ? (float)(next / now) : 0.0f;
    for (int i = blockIdx.x * FFT_BLOCK + threadIdx.x; is_alive && i < n; i += gridDim.x * FFT_BLOCK) {
        const size_t at = (size_t)blockIdx.z * n + i;
        const float2 v = r[at], old = p[at];
        p[at] = make_float2(fmaf(inverse[at], v.x, beta * old.x), fmaf(inverse[at], v.y, beta * old.y));
    }
    if (threadIdx.x == 0 && blockIdx.x == 0) rho[(size_t)(iteration + 1) * gridDim.z + blockIdx.z] = is_alive ? next : now;
}
