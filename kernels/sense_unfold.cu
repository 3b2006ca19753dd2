// sense_unfold_r1 ... r8: unfolds R voxels that fold onto each other: (S^H S + lambda) x = sqrt(R) S^H folded.
// sense_gfactor_r1 ... r8: noise and g-factor of the same, from the maps alone.
//
// door      recon::sense, exact lattices        reference  recon/sense (direct unfolding)
// in        folded  c32 [n_coils][n_rows][n_pe1][n_x]  unitary transforms of the lattice's lines alone, DC first, turned
//                   by the phase of their lines (sense/lattice.rs: line_phase)
//           csm     c32 [n_coils][n_plane][n_x]        members i32 [R][n_rows]: index in the plane (pe2, pe1) of the
//                   first voxel of each row of each member; rows run along pe1
//           phase   c32 [n_plane]: factor of each voxel on the way out (voxel_phase)
//           lambda  relative to the mean diagonal of the normal operator, as sense.lambda, for lines measured once
// out       out c32 [n_plane][n_x];  std, gfactor f32 [n_plane][n_x], as SenseImage
// launch    grid (ceil(n_rows * n_pe1 * n_x / 128))   block (128)   shared 0
// requires  lambda 1e-6 and more; R 1 to 8; one set of maps; n_rows * n_pe1 * n_x and n_plane below 2^31, R * n_rows too
// tolerance 5e-5 relative to the reference at lambda 1e-3 (Cholesky in f32; its error grows as 1 / lambda)
// emulated  yes
//
// A group is a thread, its Hermitian matrix lies in registers: every loop over R is unrolled. Reads the maps once.
#include "common.cuh"

// Lower triangle without the diagonal, packed; i > j.
DEVICE constexpr int below(int i, int j) { return i * (i - 1) / 2 + j; }

template <int R> struct Hermitian {
    float diagonal[R];
    float2 lower[R * (R - 1) / 2 + 1]; // one too many: R = 1 has none
};

// Of every thread: its group, and where the group's voxels are.
struct Group { int row, y, x; bool is_inside; };

DEVICE Group group(int n_rows, int n_pe1, int n_x) {
    const unsigned i = blockIdx.x * 128u + threadIdx.x, row = i / (unsigned)n_x;
    Group g;
    g.x = (int)(i - row * (unsigned)n_x);
    g.row = (int)(row / (unsigned)n_pe1);
    g.y = (int)(row - g.row * (unsigned)n_pe1);
    g.is_inside = g.row < n_rows;
    return g;
}

template <int R> DEVICE void add_normal(Hermitian<R> &normal, const float2 (&s)[R]) {
#pragma unroll
    for (int i = 0; i < R; i++) {
        normal.diagonal[i] = c_norm(s[i], normal.diagonal[i]);
#pragma unroll
        for (int j = 0; j < i; j++) normal.lower[below(i, j)] = c_conj_fma(s[i], s[j], normal.lower[below(i, j)]);
    }
}

template <int R> DEVICE void clear(Hermitian<R> &m) {
#pragma unroll
    for (int i = 0; i < R; i++) m.diagonal[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < R * (R - 1) / 2 + 1; i++) m.lower[i] = make_float2(0.0f, 0.0f);
}

// Of m + lambda: the lower factor in place, one over its diagonal. No pivot can be less than lambda but by rounding.
template <int R> DEVICE void factorise(Hermitian<R> &m, float lambda) {
#pragma unroll
    for (int j = 0; j < R; j++) {
        float pivot = m.diagonal[j] + lambda;
#pragma unroll
        for (int k = 0; k < j; k++) {
            const float2 l = m.lower[below(j, k)];
            pivot = fmaf(-l.x, l.x, fmaf(-l.y, l.y, pivot));
        }
        const float inverse = 1.0f / sqrtf(max(pivot, lambda));
        m.diagonal[j] = inverse;
#pragma unroll
        for (int i = j + 1; i < R; i++) {
            float2 v = m.lower[below(i, j)];
#pragma unroll
            for (int k = 0; k < j; k++) {
                // v - L_ik conj(L_jk)
                const float2 l = m.lower[below(i, k)];
                v = c_conj_fma(m.lower[below(j, k)], make_float2(-l.x, -l.y), v);
            }
            m.lower[below(i, j)] = make_float2(v.x * inverse, v.y * inverse);
        }
    }
}

// L L^H x = b in place; entries of b before `from` are zero.
template <int R> DEVICE void solve(const Hermitian<R> &factor, float2 (&b)[R], int from) {
#pragma unroll
    for (int i = 0; i < R; i++) {
        float2 v = b[i];
#pragma unroll
        for (int k = 0; k < i; k++)
            if (k >= from) v = c_fma(factor.lower[below(i, k)], make_float2(-b[k].x, -b[k].y), v);
        b[i] = make_float2(v.x * factor.diagonal[i], v.y * factor.diagonal[i]);
    }
#pragma unroll
    for (int i = R - 1; i >= 0; i--) {
        float2 v = b[i];
#pragma unroll
        for (int k = i + 1; k < R; k++) v = c_conj_fma(factor.lower[below(k, i)], make_float2(-b[k].x, -b[k].y), v);
        b[i] = make_float2(v.x * factor.diagonal[i], v.y * factor.diagonal[i]);
    }
}

template <int R>
DEVICE void unfold(IN(float2) folded, IN(float2) csm, IN(int) members, IN(float2) phase, OUT(float2) out, int n_coils, int n_rows, int n_pe1, int n_x, int n_plane, float lambda) {
    const Group g = group(n_rows, n_pe1, n_x);
    if (!g.is_inside) return;
    const size_t n_folded = (size_t)n_rows * n_pe1 * n_x, n_voxels = (size_t)n_plane * n_x;
    const size_t from = ((size_t)g.row * n_pe1 + g.y) * n_x + g.x;
    int place[R];
#pragma unroll
    for (int i = 0; i < R; i++) place[i] = members[i * n_rows + g.row] + g.y;
    Hermitian<R> normal;
    clear<R>(normal);
    float2 b[R];
#pragma unroll
    for (int i = 0; i < R; i++) b[i] = make_float2(0.0f, 0.0f);
#pragma unroll 2
    for (int c = 0; c < n_coils; c++) {
        const float2 a = folded[c * n_folded + from];
        float2 s[R];
#pragma unroll
        for (int i = 0; i < R; i++) s[i] = csm[c * n_voxels + (size_t)place[i] * n_x + g.x];
        add_normal<R>(normal, s);
#pragma unroll
        for (int i = 0; i < R; i++) b[i] = c_conj_fma(s[i], a, b[i]);
    }
    factorise<R>(normal, lambda);
    solve<R>(normal, b, 0);
    const float scale = sqrtf((float)R);
#pragma unroll
    for (int i = 0; i < R; i++) {
        const float2 v = c_mul(phase[place[i]], b[i]);
        out[(size_t)place[i] * n_x + g.x] = make_float2(v.x * scale, v.y * scale);
    }
}

template <int R>
DEVICE void gfactor_of(IN(float2) csm, IN(int) members, OUT(float) std, OUT(float) gfactor, int n_coils, int n_rows, int n_pe1, int n_x, int n_plane, float lambda) {
    const Group g = group(n_rows, n_pe1, n_x);
    if (!g.is_inside) return;
    const size_t n_voxels = (size_t)n_plane * n_x;
    int place[R];
#pragma unroll
    for (int i = 0; i < R; i++) place[i] = members[i * n_rows + g.row] + g.y;
    Hermitian<R> normal;
    clear<R>(normal);
#pragma unroll 2
    for (int c = 0; c < n_coils; c++) {
        float2 s[R];
#pragma unroll
        for (int i = 0; i < R; i++) s[i] = csm[c * n_voxels + (size_t)place[i] * n_x + g.x];
        add_normal<R>(normal, s);
    }
    Hermitian<R> factor = normal;
    factorise<R>(factor, lambda);
#pragma unroll
    for (int j = 0; j < R; j++) {
        // A column of the inverse; then v^H N v, the variance of the voxel before the factor R.
        float2 v[R];
#pragma unroll
        for (int i = 0; i < R; i++) v[i] = make_float2(i == j ? 1.0f : 0.0f, 0.0f);
        solve<R>(factor, v, j);
        float variance = 0.0f;
#pragma unroll
        for (int i = 0; i < R; i++) {
            variance = fmaf(normal.diagonal[i], c_norm(v[i], 0.0f), variance);
#pragma unroll
            for (int k = 0; k < i; k++) {
                const float2 w = c_mul(normal.lower[below(i, k)], v[k]);
                variance = fmaf(2.0f * v[i].x, w.x, fmaf(2.0f * v[i].y, w.y, variance));
            }
        }
        variance = max(variance, 0.0f);
        const size_t at = (size_t)place[j] * n_x + g.x;
        std[at] = sqrtf((float)R * variance);
        gfactor[at] = sqrtf(variance * normal.diagonal[j]);
    }
}

#define KERNEL_UNFOLD(name, R) \
    KERNEL THREADS(128) name(IN(float2) folded, IN(float2) csm, IN(int) members, IN(float2) phase, OUT(float2) out, int n_coils, int n_rows, int n_pe1, int n_x, int n_plane, float lambda) { \
        unfold<R>(folded, csm, members, phase, out, n_coils, n_rows, n_pe1, n_x, n_plane, lambda); \
    }

#define KERNEL_GFACTOR(name, R) \
    KERNEL THREADS(128) name(IN(float2) csm, IN(int) members, OUT(float) std, OUT(float) gfactor, int n_coils, int n_rows, int n_pe1, int n_x, int n_plane, float lambda) { \
        gfactor_of<R>(csm, members, std, gfactor, n_coils, n_rows, n_pe1, n_x, n_plane, lambda); \
    }

KERNEL_UNFOLD(sense_unfold_r1, 1)
KERNEL_UNFOLD(sense_unfold_r2, 2)
KERNEL_UNFOLD(sense_unfold_r3, 3)
KERNEL_UNFOLD(sense_unfold_r4, 4)
KERNEL_UNFOLD(sense_unfold_r5, 5)
KERNEL_UNFOLD(sense_unfold_r6, 6)
KERNEL_UNFOLD(sense_unfold_r7, 7)
KERNEL_UNFOLD(sense_unfold_r8, 8)
KERNEL_GFACTOR(sense_gfactor_r1, 1)
KERNEL_GFACTOR(sense_gfactor_r2, 2)
KERNEL_GFACTOR(sense_gfactor_r3, 3)
KERNEL_GFACTOR(sense_gfactor_r4, 4)
KERNEL_GFACTOR(sense_gfactor_r5, 5)
KERNEL_GFACTOR(sense_gfactor_r6, 6)
KERNEL_GFACTOR(sense_gfactor_r7, 7)
KERNEL_GFACTOR(sense_gfactor_r8, 8)
