// What tch has no function for: the same bits in every run, and single precision that is single precision.
#include <ATen/Context.h>

// Global in libtorch. False where libtorch refuses.
extern "C" bool cauda_torch_settle() noexcept {
    try {
        auto& context = at::globalContext();
        context.setDeterministicCuDNN(true);
        context.setBenchmarkCuDNN(false);
        // TF32 keeps ten bits of the mantissa.
        context.setAllowTF32CuDNN(false);
        context.setAllowTF32CuBLAS(false);
        return true;
    } catch (...) {
        return false;
    }
}
