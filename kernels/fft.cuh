// Fourier transforms of a few lines side by side in shared memory.
//
// Stockham's passes: each reads one half of the memory and writes the other, in natural order at both ends; the first reads
// and the last writes wherever its caller likes, most often the card's memory. The plan comes from the host (device::cuda::FftPlan): n is at most FFT_HALF and has no prime factor above 7.
#pragma once

// Samples in one half; both are 48 KiB, what every card has without being asked.
constexpr int FFT_HALF = 3072;
constexpr int FFT_BLOCK = 256;

// `count` lines of n samples; sample i of line l lies at i * step + l * pitch. Either step or pitch is 1.
struct Lines { int n, count, step, pitch; };

DEVICE int place_of(Lines l, int line, int at) { return at * l.step + line * l.pitch; }

// i / d by 1 / d in floating point: exact for i and d up to FFT_HALF, since quotients are half a step off whole numbers.
DEVICE int over(int i, float inverse) { return (int)(((float)i + 0.5f) * inverse); }

// From the place of a sample, DC or the origin first, to where it is with that at `centre`.
DEVICE int to_centre(int place, int centre, int n) { return place + centre < n ? place + centre : place + centre - n; }

DEVICE float2 c_add(float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); }
DEVICE float2 c_sub(float2 a, float2 b) { return make_float2(a.x - b.x, a.y - b.y); }
// -i v for sign 1 (forward), i v for sign -1.
DEVICE float2 turned(float2 v, float sign) { return make_float2(sign * v.y, -sign * v.x); }

// Odd R, mirrored terms together; c and s are the cosines and sines of 2 pi k / R. Unrolled, they are constants.
template <int R> DEVICE void odd_dft(float2 (&v)[R], float sign, const float (&c)[R], const float (&s)[R]) {
    constexpr int H = R / 2;
    float2 sum[H], difference[H], out[R];
    out[0] = v[0];
#pragma unroll
    for (int m = 0; m < H; m++) {
        sum[m] = c_add(v[m + 1], v[R - 1 - m]);
        difference[m] = c_sub(v[m + 1], v[R - 1 - m]);
        out[0] = c_add(out[0], sum[m]);
    }
#pragma unroll
    for (int q = 1; q <= H; q++) {
        float2 even = v[0], odd = make_float2(0.0f, 0.0f);
#pragma unroll
        for (int m = 0; m < H; m++) {
            const int k = q * (m + 1) % R;
            even = make_float2(fmaf(c[k], sum[m].x, even.x), fmaf(c[k], sum[m].y, even.y));
            odd = make_float2(fmaf(s[k], difference[m].x, odd.x), fmaf(s[k], difference[m].y, odd.y));
        }
        odd = turned(odd, sign);
        out[q] = c_add(even, odd);
        out[R - q] = c_sub(even, odd);
    }
#pragma unroll
    for (int q = 0; q < R; q++) v[q] = out[q];
}

// v[q] = sum over m of v[m] exp(-sign 2 pi i q m / R).
template <int R> struct Dft;

template <> struct Dft<3> {
    DEVICE void run(float2 (&v)[3], float sign) {
        const float c[3] = {1.0f, -0.5f, -0.5f}, s[3] = {0.0f, 0.86602540378443865f, -0.86602540378443865f};
        odd_dft<3>(v, sign, c, s);
    }
};

template <> struct Dft<5> {
    DEVICE void run(float2 (&v)[5], float sign) {
        const float c[5] = {1.0f, 0.30901699437494742f, -0.80901699437494742f, -0.80901699437494742f, 0.30901699437494742f};
        const float s[5] = {0.0f, 0.95105651629515357f, 0.58778525229247313f, -0.58778525229247313f, -0.95105651629515357f};
        odd_dft<5>(v, sign, c, s);
    }
};

template <> struct Dft<7> {
    DEVICE void run(float2 (&v)[7], float sign) {
        const float c[7] = {1.0f, 0.62348980185873353f, -0.22252093395631440f, -0.90096886790241913f,
                            -0.90096886790241913f, -0.22252093395631440f, 0.62348980185873353f};
        const float s[7] = {0.0f, 0.78183148246802981f, 0.97492791218182361f, 0.43388373911755812f,
                            -0.43388373911755812f, -0.97492791218182361f, -0.78183148246802981f};
        odd_dft<7>(v, sign, c, s);
    }
};

template <> struct Dft<2> {
    DEVICE void run(float2 (&v)[2], float) {
        const float2 a = v[0];
        v[0] = c_add(a, v[1]);
        v[1] = c_sub(a, v[1]);
    }
};

template <> struct Dft<4> {
    DEVICE void run(float2 (&v)[4], float sign) {
        const float2 a = c_add(v[0], v[2]), b = c_sub(v[0], v[2]), c = c_add(v[1], v[3]), d = turned(c_sub(v[1], v[3]), sign);
        v[0] = c_add(a, c);
        v[1] = c_add(b, d);
        v[2] = c_sub(a, c);
        v[3] = c_sub(b, d);
    }
};

template <> struct Dft<8> {
    DEVICE void run(float2 (&v)[8], float sign) {
        float2 even[4] = {v[0], v[2], v[4], v[6]}, odd[4] = {v[1], v[3], v[5], v[7]};
        Dft<4>::run(even, sign);
        Dft<4>::run(odd, sign);
        const float h = 0.70710678118654752f;
        const float2 i1 = turned(odd[1], sign), i3 = turned(odd[3], sign);
        odd[1] = make_float2(h * (odd[1].x + i1.x), h * (odd[1].y + i1.y));
        odd[2] = turned(odd[2], sign);
        odd[3] = make_float2(h * (i3.x - odd[3].x), h * (i3.y - odd[3].y));
#pragma unroll
        for (int q = 0; q < 4; q++) {
            v[q] = c_add(even[q], odd[q]);
            v[q + 4] = c_sub(even[q], odd[q]);
        }
    }
};

// exp(-2 pi i r m / n) for r below R: powers of two from the table, the others are their products.
template <int R> DEVICE void twiddle(float2 (&v)[R], int m, IN(float2) twiddles, float sign) {
    float2 w[R];
#pragma unroll
    for (int r = 1; r < R; r++) {
        if ((r & (r - 1)) == 0) {
            const float2 of_table = twiddles[r * m];
            w[r] = make_float2(of_table.x, sign * of_table.y);
        } else {
            const int high = r >= 4 ? 4 : 2;
            w[r] = c_mul(w[high], w[r - high]);
        }
        v[r] = c_mul(w[r], v[r]);
    }
}

// One pass of radix R; `done` is the product of the radices before it. `load(line, at)` gives a sample in natural order,
// `store(line, at, v)` takes one.
template <int R, class Load, class Store> DEVICE void fft_pass(Lines l, int done, IN(float2) twiddles, float sign, Load load, Store store) {
    const int apart = l.n / R, turn = apart / done, major = l.pitch == 1 ? l.count : apart;
    const float of_major = 1.0f / (float)major, of_done = 1.0f / (float)done;
    for (int i = threadIdx.x; i < apart * l.count; i += FFT_BLOCK) {
        // Neighbouring threads read neighbouring words.
        const int high = over(i, of_major), low = i - high * major;
        const int j = l.pitch == 1 ? high : low, line = l.pitch == 1 ? low : high;
        const int cycle = over(j, of_done), k = j - cycle * done;
        float2 v[R];
#pragma unroll
        for (int r = 0; r < R; r++) v[r] = load(line, j + r * apart);
        if (done > 1) twiddle<R>(v, k * turn, twiddles, sign);
        Dft<R>::run(v, sign);
#pragma unroll
        for (int r = 0; r < R; r++) store(line, cycle * done * R + k + r * done, v[r]);
    }
}

// The half of `memory` that the last pass does not read, if the first one writes to the half `first` (0 or 1).
DEVICE int half_after(int radices, int first) {
    for (int rest = radices >> 4; rest > 0; rest >>= 4) first = 1 - first;
    return first;
}

// Transforms lines from `load` to `store`, through `memory` (2 x FFT_HALF) of which it writes the half `first` first. All
// have read that half, and written what `load` looks at, at a barrier before; what `store` writes is seen after the next
// one. `store` may write the half_after, and the next transform may begin with it, without a barrier between. Not scaled.
// `radices` are those of the passes, four bits each, the first one lowest; `sign` is 1 forward, -1 inverse; twiddles [n] are
// exp(-2 pi i k / n).
template <class Load, class Store> DEVICE void fft(OUT(float2) memory, int first, Lines l, int radices, IN(float2) twiddles, float sign, Load load, Store store) {
    if (radices == 0) { // n is 1
        for (int line = threadIdx.x; line < l.count; line += FFT_BLOCK) store(line, 0, load(line, 0));
        return;
    }
    int done = 1, half = first;
    for (int rest = radices; rest > 0; rest >>= 4) {
        const int radix = rest & 15;
        const bool is_first = done == 1, is_last = rest >> 4 == 0;
        OUT(float2) from = memory + (1 - half) * FFT_HALF;
        OUT(float2) to = memory + half * FFT_HALF;
        const auto get = [&](int line, int at) {
            if (is_first) return load(line, at);
            const float2 v = from[place_of(l, line, at)];
            return v;
        };
        const auto put = [&](int line, int at, float2 v) {
            if (is_last) store(line, at, v);
            else to[place_of(l, line, at)] = v;
        };
        if (radix == 8) fft_pass<8>(l, done, twiddles, sign, get, put);
        else if (radix == 4) fft_pass<4>(l, done, twiddles, sign, get, put);
        else if (radix == 2) fft_pass<2>(l, done, twiddles, sign, get, put);
        else if (radix == 3) fft_pass<3>(l, done, twiddles, sign, get, put);
        else if (radix == 5) fft_pass<5>(l, done, twiddles, sign, get, put);
        else fft_pass<7>(l, done, twiddles, sign, get, put);
        if (!is_last) __syncthreads(); // this pass is written
        done *= radix;
        half = 1 - half;
    }
}
