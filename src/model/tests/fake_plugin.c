/* The plug-in's five functions without libtorch: cc -shared -fPIC [-DABI=2] [-DSPEECHLESS] [-DHALF] fake_plugin.c
 * The first letter of the "module" says how it behaves: n refuses to load, e fails, l fails with a text that has no end,
 * else output i is filled with i + 1, and all inputs with 99, as a module may that works in place. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef ABI
#define ABI 1
#endif

typedef struct {
    float *data;
    const int64_t *shape;
    uint32_t rank;
    int32_t device;
} Tensor;

static char modules[256];

uint32_t cauda_torch_abi(void) { return ABI; }

#ifdef SPEECHLESS
const char *cauda_torch_describe(void) { return NULL; }
#else
const char *cauda_torch_describe(void) { return "libtorch 0.0.0, of a test"; }
#endif

void *cauda_torch_load(const uint8_t *bytes, size_t n, int32_t device, uint32_t threads, char *error, size_t error_len) {
    if (n > 0 && bytes[0] != 'n' && device == -1 && threads > 0)
        return &modules[bytes[0]];
    strncpy(error, "the fake refuses", error_len - 1);
    return NULL;
}

#ifndef HALF
static void fill(const Tensor *t, float value) {
    int64_t n = 1;
    for (uint32_t i = 0; i < t->rank; i++)
        n *= t->shape[i];
    for (int64_t i = 0; i < n; i++)
        t->data[i] = value;
}

int32_t cauda_torch_run(void *model, const Tensor *in, size_t n_in, const Tensor *out, size_t n_out, void *stream, char *error,
                        size_t error_len) {
    long how = (char *)model - modules;
    if (how == 'l') {
        memset(error, 'x', error_len);
        return 1;
    }
    /* In the order that the test's manifest has: noise, image, gfactor; sigma, denoised. */
    int is_right = n_in == 3 && n_out == 2 && stream == NULL && in[0].rank == 1 && in[1].shape[1] == 6 && in[2].shape[1] == 1 &&
                   out[0].shape[1] == 1 && out[1].shape[1] == 2 && in[0].device == -1 && out[0].device == -1;
    if (how == 'e' || !is_right) {
        strncpy(error, is_right ? "the fake fails" : "the fake is given something else", error_len - 1);
        return 1;
    }
    for (size_t i = 0; i < n_in; i++)
        fill(&in[i], 99);
    for (size_t i = 0; i < n_out; i++)
        fill(&out[i], (float)i + 1);
    return 0;
}
#endif

void cauda_torch_unload(void *model) { (void)model; }
