// The threads of a block as fibres of one CPU thread, switched at barriers, in an order that the caller chooses.
#include "emu.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <ucontext.h>
#include <vector>

namespace emu {

thread_local Here here;

// Tables that build.rs writes.
extern const Kernel *const all_kernels;
extern const size_t n_kernels;

namespace {

constexpr size_t warp_size = 32;
constexpr size_t stack_bytes = 64 << 10;
constexpr size_t shared_limit = 48 << 10;
constexpr uint64_t canary = 0x5ca1ab1e0ddba11ull;
constexpr int many = -2;

enum class State { ready, at_barrier, at_warp_barrier, done };

struct Site {
    const char *file = "";
    int line = 0;
    bool operator==(const Site &o) const { return line == o.line && std::strcmp(file, o.file) == 0; }
};

std::string name_of(const Site &s) {
    const char *slash = std::strrchr(s.file, '/');
    return std::string(slash ? slash + 1 : s.file) + ":" + std::to_string(s.line);
}

std::string name_of(const uint3 &v) {
    return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

struct Fibre {
    ucontext_t context;
    State state;
    Site site;
    bool is_memory_barrier;
    unsigned n_shuffles;
};

struct Warp {
    unsigned round = 0;
    // Shuffles alternate between two sets: a lane may be one ahead of its neighbours.
    unsigned char slots[2][warp_size][16];
};

struct Area {
    Site site;
    std::vector<unsigned char> bytes;
    std::vector<Word> words;
};

struct Launch {
    ucontext_t home;
    std::vector<Fibre> fibres;
    std::vector<Warp> warps;
    std::vector<std::unique_ptr<Area>> areas;
    std::unique_ptr<unsigned char[]> stacks;
    size_t cur = 0;
    unsigned round = 0;
    std::string fault;
    Call call = nullptr;
    const Arg *args = nullptr;
    size_t n_args = 0;

    size_t size() const { return fibres.size(); }
    uint3 thread(size_t i) const {
        const dim3 &b = here.block_dim;
        return {unsigned(i % b.x), unsigned(i / b.x % b.y), unsigned(i / b.x / b.y)};
    }
};

thread_local Launch *now = nullptr;

// Returns when the scheduler takes this thread up again.
void wait(State state, Site site, bool is_memory_barrier) {
    Fibre &f = now->fibres[now->cur];
    f.state = state;
    f.site = site;
    f.is_memory_barrier = is_memory_barrier;
    swapcontext(&f.context, &now->home);
}

void fault(const std::string &text) { throw Fault{text}; }

void enter() {
    Launch &l = *now;
    std::string text;
    try {
        l.call(l.args, l.n_args);
    } catch (const Fault &f) {
        text = f.text;
    } catch (const std::exception &e) {
        text = e.what();
    }
    if (!text.empty() && l.fault.empty())
        l.fault = text + " by thread " + name_of(here.thread) + " of block " + name_of(here.block);
    l.fibres[l.cur].state = State::done;
    // Never comes back. Left by a jump and not by a return, so that the last switch is like the others.
    for (;;) swapcontext(&l.fibres[l.cur].context, &l.home);
}

uint64_t next(uint64_t &state) {
    uint64_t z = (state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

struct Order {
    uint32_t kind; // 0 forward, 1 reverse, 2 shuffled
    uint64_t state;

    void fill(std::vector<size_t> &order, size_t n) {
        order.resize(n);
        std::iota(order.begin(), order.end(), size_t(0));
        if (kind == 1) std::reverse(order.begin(), order.end());
        if (kind == 2)
            for (size_t i = n; i > 1; i--) std::swap(order[i - 1], order[next(state) % i]);
    }
};

// All threads of the range wait in `state` at one place.
bool are_together(const Launch &l, size_t from, size_t to, State state) {
    for (size_t i = from; i < to; i++)
        if (l.fibres[i].state != state || !(l.fibres[i].site == l.fibres[from].site)) return false;
    return true;
}

void release(Launch &l, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) l.fibres[i].state = State::ready;
}

// Where the threads of a block stand that cannot go on together.
std::string divergence(const Launch &l) {
    std::vector<std::pair<std::string, std::vector<size_t>>> groups;
    for (size_t i = 0; i < l.size(); i++) {
        const Fibre &f = l.fibres[i];
        std::string where = f.state == State::done ? "have ended"
            : f.state == State::at_barrier         ? "wait at " + name_of(f.site)
                                                   : "wait in their warp at " + name_of(f.site);
        auto g = std::find_if(groups.begin(), groups.end(), [&](auto &g) { return g.first == where; });
        if (g == groups.end()) groups.push_back({where, {i}}); else g->second.push_back(i);
    }
    std::string text = "divergent barrier in block " + name_of(here.block) + ":";
    const char *comma = " ";
    for (auto &[where, who] : groups) {
        text += comma + std::to_string(who.size()) + (who.size() == 1 ? " thread (" : " threads (first ")
            + name_of(l.thread(who[0])) + ") " + where;
        comma = ", ";
    }
    return text;
}

void run_block(Launch &l, Order &order) {
    std::vector<size_t> turn;
    const size_t n = l.size();
    l.round = 1;
    for (Warp &w : l.warps) w.round = 1;
    // Poisoned anew: nothing of the last block is left.
    l.areas.clear();
    for (size_t i = 0; i < n; i++) {
        Fibre &f = l.fibres[i];
        f.state = State::ready;
        f.n_shuffles = 0;
        unsigned char *stack = l.stacks.get() + i * stack_bytes;
        std::memcpy(stack, &canary, sizeof canary);
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = stack + sizeof canary * 2;
        f.context.uc_stack.ss_size = stack_bytes - sizeof canary * 2;
        f.context.uc_link = nullptr;
        makecontext(&f.context, enter, 0);
    }
    for (;;) {
        order.fill(turn, n);
        for (size_t i : turn) {
            if (l.fibres[i].state != State::ready) continue;
            l.cur = i;
            here.thread = l.thread(i);
            swapcontext(&l.home, &l.fibres[i].context);
            if (std::memcmp(l.stacks.get() + i * stack_bytes, &canary, sizeof canary) != 0)
                l.fault = "stack overflow of a thread: more than 64 KiB of local variables";
            if (!l.fault.empty()) return;
        }
        if (are_together(l, 0, n, State::at_barrier)) {
            release(l, 0, n);
            l.round++;
            continue;
        }
        bool goes_on = false;
        for (size_t w = 0; w < l.warps.size(); w++) {
            size_t from = w * warp_size, to = std::min(n, from + warp_size);
            if (!are_together(l, from, to, State::at_warp_barrier)) continue;
            if (l.fibres[from].is_memory_barrier) l.warps[w].round++;
            release(l, from, to);
            goes_on = true;
        }
        if (goes_on) continue;
        for (const Fibre &f : l.fibres)
            if (f.state != State::done) {
                l.fault = divergence(l);
                return;
            }
        return;
    }
}

} // namespace

int lane() { return static_cast<int>(now->cur % warp_size); }

void barrier(const char *file, int line) { wait(State::at_barrier, {file, line}, true); }

void warp_barrier(unsigned mask, const char *file, int line, bool is_memory_barrier) {
    size_t from = now->cur / warp_size * warp_size, there = std::min(warp_size, now->size() - from);
    unsigned all = there == warp_size ? 0xffffffffu : (1u << there) - 1;
    if ((mask & all) != all)
        fault("mask that leaves out lanes of the warp at " + name_of(Site{file, line}) + ": not emulated, use 0xffffffff;");
    wait(State::at_warp_barrier, {file, line}, is_memory_barrier);
}

void shuffle(unsigned mask, const void *in, void *out, size_t bytes, int source, const char *file, int line) {
    Fibre &f = now->fibres[now->cur];
    Warp &w = now->warps[now->cur / warp_size];
    auto &slots = w.slots[f.n_shuffles++ % 2];
    size_t from = now->cur / warp_size * warp_size;
    std::memcpy(slots[now->cur - from], in, bytes);
    warp_barrier(mask, file, line, false);
    // A lane outside the warp gives the own value, as the hardware does.
    if (source < 0 || source >= static_cast<int>(warp_size)) return;
    if (from + source >= now->size()) fault("shuffle from lane " + std::to_string(source) + ", which has no thread, at " + name_of(Site{file, line}));
    std::memcpy(out, slots[source], bytes);
}

Block shared_block(size_t bytes, const char *file, int line) {
    Site site{file, line};
    size_t total = bytes;
    for (auto &a : now->areas) {
        if (a->site == site) return {a->bytes.data(), a->words.data()};
        total += a->bytes.size();
    }
    if (total > shared_limit) fault("static shared memory of " + std::to_string(total) + " bytes at " + name_of(site) + ", 49152 are allowed,");
    // 0xff is a NaN of every float type.
    now->areas.push_back(std::make_unique<Area>(Area{site, std::vector<unsigned char>(bytes, 0xff), std::vector<Word>((bytes + 3) / 4)}));
    Area &a = *now->areas.back();
    return {a.bytes.data(), a.words.data()};
}

void out_of_bounds(Access access, const char *what, int number, ptrdiff_t byte, size_t size, size_t bytes) {
    std::string which = number < 0 ? what : std::string(what) + " " + std::to_string(number);
    ptrdiff_t s = static_cast<ptrdiff_t>(size);
    ptrdiff_t at = byte < 0 ? -((-byte + s - 1) / s) : byte / s;
    throw Fault{std::string("out-of-bounds ") + (access == Access::read ? "read" : "write") + " of element " + std::to_string(at) + " of "
        + std::to_string(bytes / size) + " (" + std::to_string(size) + " bytes each) of " + which};
}

void misaligned(const char *what, int number, ptrdiff_t byte, size_t size) {
    throw Fault{"misaligned access of " + std::to_string(size) + " bytes at byte " + std::to_string(byte) + " of " + what
        + (number < 0 ? "" : " " + std::to_string(number))};
}

void note_shared(Word *words, size_t bytes, Access access, const char *) {
    const int me = static_cast<int>(now->cur), my_warp = me / static_cast<int>(warp_size);
    const unsigned round = now->round, warp_round = now->warps[my_warp].round;
    for (size_t i = 0; i < bytes / 4; i++) {
        Word &w = words[i];
        if (access == Access::read && !w.is_written) throw Fault{"read of uninitialised shared memory"};
        bool is_past = w.write_round < round || w.writer == me
            || (w.writer / static_cast<int>(warp_size) == my_warp && w.write_warp_round < warp_round)
            || (access == Access::atomic && w.is_atomic);
        if (w.is_written && !is_past) {
            std::string other = name_of(now->thread(static_cast<size_t>(w.writer)));
            throw Fault{std::string(access == Access::read ? "read" : "write") + " of shared memory that thread " + other
                + " wrote since the last barrier (a missing barrier)"};
        }
        if (access == Access::read) {
            bool is_first = w.read_round != round || w.reader == -1;
            w.reader = is_first || w.reader == me ? me : many;
            w.reader_warp = is_first || w.reader_warp == my_warp ? my_warp : many;
            w.read_round = round;
            w.read_warp_round = warp_round;
            continue;
        }
        bool is_read = w.reader != -1 && w.read_round == round && w.reader != me
            && !(w.reader_warp == my_warp && w.read_warp_round < warp_round);
        if (is_read) throw Fault{"write of shared memory that another thread read since the last barrier (a missing barrier)"};
        w.is_written = true;
        w.is_atomic = access == Access::atomic;
        w.writer = me;
        w.write_round = round;
        w.write_warp_round = warp_round;
    }
}

void wrong_argument(int number, const char *needed, const Arg &found) {
    static const char *const names[] = {"a read-only buffer", "a writable buffer", "an i32", "an f32"};
    throw Fault{"argument " + std::to_string(number) + " is " + names[found.kind & 3] + ", the kernel needs " + needed + ", seen"};
}

void wrong_count(size_t needed, size_t found) {
    throw Fault{std::to_string(found) + " arguments, the kernel needs " + std::to_string(needed) + ", seen"};
}

} // namespace emu

extern "C" size_t emu_kernel_count() { return emu::n_kernels; }

extern "C" const emu::Kernel *emu_kernels() { return emu::all_kernels; }

// 0, or 1 and the text of the fault, cut to `capacity`, ended with a zero byte.
extern "C" int emu_launch(size_t kernel, const uint32_t grid[3], const uint32_t block[3], const emu::Arg *args, size_t n_args,
                          uint32_t order_kind, uint64_t seed, char *text, size_t capacity) {
    using namespace emu;
    auto say = [&](const std::string &s) {
        size_t n = std::min(capacity - 1, s.size());
        std::memcpy(text, s.data(), n);
        text[n] = 0;
        return 1;
    };
    try {
        uint64_t n = uint64_t(block[0]) * block[1] * block[2], blocks = uint64_t(grid[0]) * grid[1] * grid[2];
        if (kernel >= n_kernels) return say("no such kernel");
        if (n == 0 || n > 1024 || block[2] > 64) return say("a block of " + std::to_string(n) + " threads: 1 to 1024 are possible, 64 along z");
        if (blocks == 0 || grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535)
            return say("a grid of " + std::to_string(grid[0]) + " x " + std::to_string(grid[1]) + " x " + std::to_string(grid[2])
                       + " blocks: 1 to 2147483647 x 65535 x 65535 are possible");
        Launch l;
        l.fibres.resize(n);
        l.warps.resize((n + warp_size - 1) / warp_size);
        l.stacks.reset(new unsigned char[n * stack_bytes]); // not touched before it is used
        l.call = all_kernels[kernel].call;
        l.args = args;
        l.n_args = n_args;
        here.block_dim = {block[0], block[1], block[2]};
        here.grid_dim = {grid[0], grid[1], grid[2]};
        now = &l;
        Order order{order_kind, seed};
        std::vector<size_t> turn;
        order.fill(turn, blocks);
        for (size_t b : turn) {
            here.block = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / grid[0] / grid[1])};
            run_block(l, order);
            if (!l.fault.empty()) break;
        }
        now = nullptr;
        return l.fault.empty() ? 0 : say(std::string(all_kernels[kernel].name) + ": " + l.fault);
    } catch (const std::exception &e) {
        now = nullptr;
        return say(std::string("the emulator failed: ") + e.what());
    }
}
