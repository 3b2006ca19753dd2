// CUDA's words for a C++ compiler: what `common.cuh` and the kernels see instead of nvcc's headers.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#define CAUDA_EMULATED
#define __global__
#define __device__
#define __forceinline__ inline
#define KERNEL static void
#define DEVICE [[maybe_unused]] static inline
#define THREADS(n)
#define THREADS_4(n)
#define THREADS_1(n)
#define IN(T) emu::Span<const T>
#define OUT(T) emu::Span<T>
#define SHARED(T, name, n) emu::Span<T> name = emu::shared<T>(n, __FILE__, __LINE__)

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }

namespace emu {

// Thrown in a thread of a kernel; ends the launch and becomes the error text of Rust.
struct Fault { std::string text; };

struct Here { uint3 thread, block; dim3 block_dim, grid_dim; };
extern thread_local Here here;

// Who touched four bytes of shared memory last, and when.
struct Word {
    bool is_written = false;
    bool is_atomic = false;
    int writer = -1;
    unsigned write_round = 0, write_warp_round = 0;
    // Readers since the last write: one, or many (-2), all of one warp or not (-2).
    int reader = -1, reader_warp = -1;
    unsigned read_round = 0, read_warp_round = 0;
};

enum class Access { read, write, atomic };

[[noreturn]] void out_of_bounds(Access access, const char *what, int number, ptrdiff_t byte, size_t size, size_t bytes);
[[noreturn]] void misaligned(const char *what, int number, ptrdiff_t byte, size_t size);
void note_shared(Word *words, size_t bytes, Access access, const char *what);

template <class T> class Ref;

// A pointer that knows the allocation it points into.
template <class T> class Span {
  public:
    using Plain = std::remove_const_t<T>;
    static_assert(std::is_trivially_copyable_v<Plain> && sizeof(Plain) % 4 == 0);

    Span(unsigned char *base, size_t bytes, ptrdiff_t at, Word *words, const char *what, int number)
        : base(base), bytes(bytes), at(at), words(words), what(what), number(number) {}
    // To const, as pointers do.
    template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
    Span(const Span<U> &o) : Span(o.base, o.bytes, o.at, o.words, o.what, o.number) {}

    template <class I> auto operator[](I i) const {
        Span there = *this + static_cast<ptrdiff_t>(i);
        if constexpr (std::is_const_v<T>) return there.load(); else return Ref<T>(there);
    }
    auto operator*() const { return (*this)[0]; }
    Span operator+(ptrdiff_t n) const { return {base, bytes, at + n * (ptrdiff_t)sizeof(T), words, what, number}; }
    Span operator-(ptrdiff_t n) const { return *this + -n; }
    Span &operator+=(ptrdiff_t n) { return *this = *this + n; }

    Plain load() const {
        Plain v;
        std::memcpy(&v, reach(Access::read), sizeof v);
        return v;
    }
    void store(const Plain &v) const { std::memcpy(reach(Access::write), &v, sizeof v); }
    Plain add(const Plain &v) const {
        unsigned char *p = reach(Access::atomic);
        Plain old;
        std::memcpy(&old, p, sizeof old);
        Plain sum = old + v;
        std::memcpy(p, &sum, sizeof sum);
        return old;
    }

    unsigned char *base;
    size_t bytes;
    ptrdiff_t at; // bytes from `base`; may lie outside until it is used, as a pointer may
    Word *words;  // of shared memory, else null
    const char *what;
    int number;

  private:
    // Device allocations are aligned to 256 bytes, so that the offset decides.
    unsigned char *reach(Access access) const {
        if (at < 0 || static_cast<size_t>(at) + sizeof(T) > bytes) out_of_bounds(access, what, number, at, sizeof(T), bytes);
        if (static_cast<size_t>(at) % alignment() != 0) misaligned(what, number, at, sizeof(T));
        if (words) note_shared(words + at / 4, sizeof(T), access, what);
        return base + at;
    }
    // float2 is aligned to 8 on the device.
    static constexpr size_t alignment() { return std::is_same_v<Plain, float2> ? 8 : alignof(Plain); }
};

// An element that is read by conversion and written by assignment.
template <class T> class Ref {
  public:
    explicit Ref(Span<T> there) : there(there) {}
    Ref(const Ref &) = default;
    operator T() const { return there.load(); }
    const Ref &operator=(const T &v) const { there.store(v); return *this; }
    const Ref &operator=(const Ref &o) const { return *this = static_cast<T>(o); }
    const Ref &operator+=(const T &v) const { return *this = static_cast<T>(*this) + v; }
    const Ref &operator*=(const T &v) const { return *this = static_cast<T>(*this) * v; }
    Span<T> operator&() const { return there; }

  private:
    Span<T> there;
};

// Shared memory of the block: the same for every thread that passes this place.
struct Block { unsigned char *base; Word *words; };
Block shared_block(size_t bytes, const char *file, int line);

template <class T> Span<T> shared(size_t n, const char *file, int line) {
    Block b = shared_block(n * sizeof(T), file, line);
    return {b.base, n * sizeof(T), 0, b.words, "shared memory", -1};
}

void barrier(const char *file, int line);
void warp_barrier(unsigned mask, const char *file, int line, bool is_memory_barrier);
// Gives `in` to the warp and takes `out` from the lane that `source` of this lane names, if there is one.
void shuffle(unsigned mask, const void *in, void *out, size_t bytes, int source, const char *file, int line);
int lane();

template <class T> T shuffled(unsigned mask, T v, int source, const char *file, int line) {
    T out = v;
    shuffle(mask, &v, &out, sizeof v, source, file, line);
    return out;
}

// What Rust hands over for one parameter; `bits` of a buffer: where in it the pointer points, in bytes.
struct Arg { uint32_t kind; uint32_t pad; unsigned char *bytes; uint64_t n_bytes; uint64_t bits; };
enum Kind : uint32_t { read_only = 0, writable = 1, i32 = 2, f32 = 3 };

[[noreturn]] void wrong_argument(int number, const char *needed, const Arg &found);
[[noreturn]] void wrong_count(size_t needed, size_t found);

template <class A> struct Take;
template <class T> struct Take<Span<T>> {
    static Span<T> from(const Arg &a, int number) {
        if (std::is_const_v<T> ? a.kind > writable : a.kind != writable)
            wrong_argument(number, std::is_const_v<T> ? "a buffer" : "a writable buffer", a);
        return {a.bytes, static_cast<size_t>(a.n_bytes), static_cast<ptrdiff_t>(a.bits), nullptr, "argument", number};
    }
    static constexpr char letter = std::is_const_v<T> ? 'r' : 'w';
};
template <> struct Take<int> {
    static constexpr char letter = 'i';
    static int from(const Arg &a, int number) {
        if (a.kind != i32) wrong_argument(number, "an i32", a);
        return static_cast<int32_t>(a.bits);
    }
};
template <> struct Take<float> {
    static constexpr char letter = 'f';
    static float from(const Arg &a, int number) {
        if (a.kind != f32) wrong_argument(number, "an f32", a);
        float v;
        uint32_t bits = static_cast<uint32_t>(a.bits);
        std::memcpy(&v, &bits, 4);
        return v;
    }
};

// One thread's call with the arguments of the launch.
using Call = void (*)(const Arg *, size_t);
template <auto f> struct Of;
template <class... P, void (*f)(P...)> struct Of<f> {
    // A letter for each parameter: r, w for buffers, i, f for numbers.
    static constexpr char params[] = {Take<P>::letter..., '\0'};
    static void call(const Arg *args, size_t n) {
        if (n != sizeof...(P)) wrong_count(sizeof...(P), n);
        run(args, std::index_sequence_for<P...>());
    }
    template <size_t... i> static void run(const Arg *args, std::index_sequence<i...>) {
        f(Take<P>::from(args[i], static_cast<int>(i))...);
    }
};
// `source`, `digest`: of the file that holds it (src/digest.rs); `threads`: what THREADS says, else 0.
struct Kernel { const char *name; const char *source; const char *params; Call call; uint64_t digest; uint64_t threads; };

} // namespace emu

template <class V, class T> static inline emu::Span<const V> as(const emu::Span<const T> &p) {
    return {p.base, p.bytes, p.at, p.words, p.what, p.number};
}
template <class V, class T, class = std::enable_if_t<!std::is_const_v<T>>>
static inline emu::Span<V> as(const emu::Span<T> &p) {
    return {p.base, p.bytes, p.at, p.words, p.what, p.number};
}
template <class T> static inline T atomicAdd(const emu::Span<T> &to, std::type_identity_t<T> v) { return to.add(v); }

#define threadIdx (emu::here.thread)
#define blockIdx (emu::here.block)
#define blockDim (emu::here.block_dim)
#define gridDim (emu::here.grid_dim)
#define warpSize 32
#define __syncthreads() emu::barrier(__FILE__, __LINE__)
#define __syncwarp(...) emu::warp_barrier(0xffffffffu __VA_OPT__(&(__VA_ARGS__)), __FILE__, __LINE__, true)
#define __shfl_sync(mask, v, from) emu::shuffled(mask, v, from, __FILE__, __LINE__)
#define __shfl_down_sync(mask, v, by) emu::shuffled(mask, v, emu::lane() + static_cast<int>(by), __FILE__, __LINE__)
#define __shfl_up_sync(mask, v, by) emu::shuffled(mask, v, emu::lane() - static_cast<int>(by), __FILE__, __LINE__)
#define __shfl_xor_sync(mask, v, by) emu::shuffled(mask, v, emu::lane() ^ static_cast<int>(by), __FILE__, __LINE__)
