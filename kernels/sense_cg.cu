// sense_cg_lines_c32: the whole of conjugate gradients for masks along one axis, some columns per block, in one launch.
//
// door      recon::sense, masks along pe1       reference  recon/sense (conjugate gradients)
// in        csm      c32 [n_coils][n][n_x]      lines c32 [n_coils][n_lines][n_x]: measured, transformed along the readout
//           line_of  i32 [n]: the line measured at each phase encoding (DC at n / 2), or -1
//           weights  f32 [n]: how often each was measured, 0 where it was not
//           limits   f32 [n_x]: where each column stops, as a fraction of its preconditioned start; 0: never early
//           most     i32 [n_x]: iterations of each column at most
//           twiddles, radices as fft.cu           count columns of a block: 1, 2, 4 or 8, count * n at most 3072
//           lambda   absolute: the relative weight times the mean of `weights`     mean_weight of `weights`
// out       out c32 [n][n_x]: voxels            iterations i32 [n_x]
//           residuals f32 [n_x]: preconditioned, as a fraction of the start
// launch    grid (ceil(n_x / count))   block (256)   shared 48 KiB, static
// requires  lambda above 0; n_coils * n * n_x below 2^31
// tolerance 2e-4 relative to the reference, both solved to 1e-6 (f32 vectors, f64 inner products)
// emulated  yes
//
// Vectors live in registers; the maps are read twice an iteration, from L2 where they fit. Preconditioned by the diagonal.
#include "common.cuh"
#include "fft.cuh"

namespace {
// Samples of one thread.
constexpr int CG_OWN = FFT_HALF / FFT_BLOCK;
}

// Sums over the threads of each column (threadIdx.x modulo count), in an order that does not depend on anything. `room` is
// free before and after.
DEVICE double sum_of_column(OUT(double) room, double v, int count) {
    room[threadIdx.x] = v;
    __syncthreads(); // all parts are here
    for (int half = FFT_BLOCK / 2; half >= count; half /= 2) {
        if ((int)threadIdx.x < half) {
            const double a = room[threadIdx.x], b = room[threadIdx.x + half];
            room[threadIdx.x] = a + b;
        }
        __syncthreads(); // this level is summed
    }
    const double sum = room[threadIdx.x % count];
    __syncthreads(); // all have read
    return sum;
}

KERNEL THREADS_1(FFT_BLOCK) sense_cg_lines_c32(IN(float2) csm, IN(float2) lines, IN(int) line_of, IN(float) weights, IN(float) limits, IN(int) most, IN(float2) twiddles, OUT(float2) out, OUT(int) iterations, OUT(float) residuals, int n_coils, int n, int n_lines, int n_x, int radices, int count, float lambda, float mean_weight) {
    SHARED(float2, memory, 2 * FFT_HALF);
    OUT(double) room = as<double>(memory);
    const int column = threadIdx.x % count, first_row = threadIdx.x / count, rows = FFT_BLOCK / count, centre = n / 2;
    const int x0 = blockIdx.x * count, x = x0 + column;
    const bool is_inside = x < n_x;
    const Lines l = {n, count, count, 1};
    float2 solution[CG_OWN], residual[CG_OWN], direction[CG_OWN], product[CG_OWN];
    float inverse[CG_OWN]; // of the diagonal
#pragma unroll
    for (int i = 0; i < CG_OWN; i++) {
        solution[i] = residual[i] = direction[i] = product[i] = make_float2(0.0f, 0.0f);
        inverse[i] = 0.0f;
    }
    // Row `at` of an image and frequency `at` (DC in the middle) both lie at place (at - centre) modulo n.
    const float to_image = rsqrtf((float)n);
    for (int c = 0; c < n_coils; c++) {
        OUT(float2) image = memory + half_after(radices, 0) * FFT_HALF;
        fft(memory, 0, l, radices, twiddles, -1.0f,
            [&](int column, int place) {
                const int at = to_centre(place, centre, n), line = line_of[at], x = x0 + column;
                if (line < 0 || x >= n_x) return make_float2(0.0f, 0.0f);
                const float2 sample = lines[((size_t)c * n_lines + line) * n_x + x];
                const float w = weights[at] * to_image;
                return make_float2(sample.x * w, sample.y * w);
            },
            [&](int column, int place, float2 v) { image[to_centre(place, centre, n) * count + column] = v; });
        __syncthreads(); // the image is here
#pragma unroll
        for (int i = 0; i < CG_OWN; i++) {
            const int at = first_row + i * rows;
            if (at >= n || !is_inside) break;
            const float2 s = csm[((size_t)c * n + at) * n_x + x];
            const float2 v = image[at * count + column];
            residual[i] = c_conj_fma(s, v, residual[i]);
            inverse[i] = c_norm(s, inverse[i]);
        }
        __syncthreads(); // the image has been read
    }
    double part = 0.0;
#pragma unroll
    for (int i = 0; i < CG_OWN; i++) {
        inverse[i] = 1.0f / fmaf(mean_weight, inverse[i], lambda);
        direction[i] = make_float2(residual[i].x * inverse[i], residual[i].y * inverse[i]);
        part += (double)residual[i].x * direction[i].x + (double)residual[i].y * direction[i].y;
    }
    const double start = sum_of_column(room, part, count);
    const float limit = is_inside ? limits[x] : 0.0f;
    const int own_most = is_inside ? most[x] : 0;
    const double goal = start * limit * limit;
    double rho = start;
    bool is_over = false; // ended by rounding
    int iteration = 0;    // of this column
    for (;;) {
        // Each column once: does any of them go on?
        const double n_alive = sum_of_column(room, (int)threadIdx.x < count && !is_over && rho > goal && iteration < own_most ? 1.0 : 0.0, 1);
        if (n_alive == 0.0) break;
#pragma unroll
        for (int i = 0; i < CG_OWN; i++) product[i] = make_float2(lambda * direction[i].x, lambda * direction[i].y);
        for (int c = 0; c < n_coils; c++) {
#pragma unroll
            for (int i = 0; i < CG_OWN; i++) {
                const int at = first_row + i * rows;
                if (at >= n) break;
                float2 v = make_float2(0.0f, 0.0f);
                if (is_inside) v = c_mul(csm[((size_t)c * n + at) * n_x + x], direction[i]);
                memory[at * count + column] = v;
            }
            __syncthreads(); // the coil's image is here
            const int half = half_after(radices, 1);
            OUT(float2) spectrum = memory + half * FFT_HALF;
            fft(memory, 1, l, radices, twiddles, 1.0f,
                [&](int column, int place) {
                    const float2 v = memory[to_centre(place, centre, n) * count + column];
                    return v;
                },
                [&](int column, int place, float2 v) {
                    const float w = weights[to_centre(place, centre, n)] / (float)n;
                    spectrum[place * count + column] = make_float2(v.x * w, v.y * w);
                });
            __syncthreads(); // the spectrum is weighted
            OUT(float2) image = memory + half_after(radices, 1 - half) * FFT_HALF;
            fft(memory, 1 - half, l, radices, twiddles, -1.0f,
                [&](int column, int place) {
                    const float2 v = spectrum[place * count + column];
                    return v;
                },
                [&](int column, int place, float2 v) { image[to_centre(place, centre, n) * count + column] = v; });
            __syncthreads(); // the coil's product is here
#pragma unroll
            for (int i = 0; i < CG_OWN; i++) {
                const int at = first_row + i * rows;
                if (at >= n || !is_inside) break;
                const float2 s = csm[((size_t)c * n + at) * n_x + x];
                product[i] = c_conj_fma(s, image[at * count + column], product[i]);
            }
            // The image lies where the next coil's is put, and each thread puts what it has read.
        }
        part = 0.0;
#pragma unroll
        for (int i = 0; i < CG_OWN; i++) part += (double)direction[i].x * product[i].x + (double)direction[i].y * product[i].y;
        const double curvature = sum_of_column(room, part, count);
        // A column that has arrived stays where it is, and one where nothing more is to be gained along its direction.
        is_over = is_over || curvature <= 0.0;
        const bool is_alive = rho > goal && iteration < own_most && !is_over;
        const float alpha = is_alive ? (float)(rho / curvature) : 0.0f;
        part = 0.0;
#pragma unroll
        for (int i = 0; i < CG_OWN; i++) {
            solution[i] = make_float2(fmaf(alpha, direction[i].x, solution[i].x), fmaf(alpha, direction[i].y, solution[i].y));
            residual[i] = make_float2(fmaf(-alpha, product[i].x, residual[i].x), fmaf(-alpha, product[i].y, residual[i].y));
            part += inverse[i] * ((double)residual[i].x * residual[i].x + (double)residual[i].y * residual[i].y);
        }
        const double next = sum_of_column(room, part, count);
        if (!is_alive) continue;
        iteration++;
        const float beta = (float)(next / rho);
        rho = next;
#pragma unroll
        for (int i = 0; i < CG_OWN; i++)
            direction[i] = make_float2(fmaf(inverse[i], residual[i].x, beta * direction[i].x), fmaf(inverse[i], residual[i].y, beta * direction[i].y));
    }
#pragma unroll
    for (int i = 0; i < CG_OWN; i++) {
        const int at = first_row + i * rows;
        if (at >= n || !is_inside) break;
        out[(size_t)at * n_x + x] = solution[i];
    }
    if ((int)threadIdx.x < count && is_inside) {
        residuals[x] = start > 0.0 ? (float)sqrt(rho / start) : 0.0f;
        iterations[x] = iteration;
    }
}
