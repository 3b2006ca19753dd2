// Deliberately wrong kernels, and right ones beside them: what the emulator must catch, and what it must let pass.
//
// All: one block of 64 threads over 64 floats, unless the test says otherwise.

#include "common.cuh"

// Right: reverses 64 values through shared memory.
KERNEL faulty_none(IN(float) in, OUT(float) out) {
    SHARED(float, tile, 64);
    int t = threadIdx.x;
    tile[t] = in[64 * blockIdx.x + t];
    __syncthreads();
    out[64 * blockIdx.x + t] = tile[63 - t];
}

KERNEL faulty_removed_barrier(IN(float) in, OUT(float) out) {
    SHARED(float, tile, 64);
    int t = threadIdx.x;
    tile[t] = in[t];
    out[t] = tile[63 - t];
}

// The barrier after the reads is missing: the next turn of the loop overwrites what a slow thread has yet to read.
KERNEL faulty_removed_second_barrier(IN(float) in, OUT(float) out) {
    SHARED(float, tile, 64);
    int t = threadIdx.x;
    float sum = 0.0f;
    for (int turn = 0; turn < 3; turn++) {
        tile[t] = in[t] + (float)turn;
        __syncthreads();
        sum += tile[63 - t];
    }
    out[t] = sum;
}

// Through global memory, of which the emulator keeps no account: schedules differ.
KERNEL faulty_removed_global_barrier(IN(float) in, OUT(float) scratch, OUT(float) out) {
    int t = threadIdx.x;
    scratch[t] = in[t];
    float v = scratch[63 - t];
    out[t] = v;
}

KERNEL faulty_divergent_barrier(IN(float) in, OUT(float) out) {
    int t = threadIdx.x;
    float v = in[t];
    if (t < 3) {
        __syncthreads();
    }
    out[t] = v;
}

// As many barriers for every thread, but not the same ones.
KERNEL faulty_two_barriers(IN(float) in, OUT(float) out) {
    int t = threadIdx.x;
    if (t < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    float v = in[t];
    out[t] = v;
}

KERNEL faulty_early_exit(IN(float) in, OUT(float) out, int n) {
    int t = threadIdx.x;
    if (t >= n) return;
    float v = in[t];
    __syncthreads();
    out[t] = v;
}

KERNEL faulty_read_outside(IN(float) in, OUT(float) out) {
    int t = threadIdx.x;
    out[t] = in[t + 1];
}

KERNEL faulty_read_before(IN(float) in, OUT(float) out) {
    int t = threadIdx.x;
    out[t] = in[t - 1];
}

KERNEL faulty_write_outside(IN(float) in, OUT(float) out) {
    int t = threadIdx.x;
    float v = in[t];
    out[t + 1] = v;
}

KERNEL faulty_shared_outside(IN(float) in, OUT(float) out) {
    SHARED(float, tile, 63);
    int t = threadIdx.x;
    tile[t] = in[t];
    __syncthreads();
    out[t] = tile[t];
}

KERNEL faulty_uninitialised(IN(float) in, OUT(float) out) {
    SHARED(float, tile, 64);
    int t = threadIdx.x;
    if (t > 0) tile[t] = in[64 * blockIdx.x + t];
    __syncthreads();
    out[64 * blockIdx.x + t] = tile[63 - t];
}

// 16 bytes at once from an address that is a multiple of 4.
KERNEL faulty_misaligned(IN(float) in, OUT(float) out) {
    int t = threadIdx.x;
    if (t < 15) {
        float4 v = as<float4>(in + 1)[t];
        as<float4>(out)[t] = v;
    }
}

// Right: sums of a warp by shuffles, of the block by atomics in shared memory.
KERNEL faulty_none_reduction(IN(float) in, OUT(float) out, float scale) {
    SHARED(float, sum, 1);
    int t = threadIdx.x;
    if (t == 0) sum[0] = 0.0f;
    __syncthreads();
    float v = in[t] * scale;
    for (int by = 16; by > 0; by /= 2) v += __shfl_down_sync(0xffffffffu, v, by);
    if (t % 32 == 0) atomicAdd(&sum[0], v);
    __syncthreads();
    if (t == 0) atomicAdd(&out[0], (float)sum[0]);
}

// Right: neighbours of a warp exchange through shared memory with a barrier of the warp alone.
KERNEL faulty_none_warp(IN(float) in, OUT(float) out) {
    SHARED(float, tile, 64);
    int t = threadIdx.x;
    tile[t] = in[t];
    __syncwarp();
    float v = tile[t ^ 1];
    __syncwarp();
    tile[t] = v + __shfl_xor_sync(0xffffffffu, v, 3) + __shfl_sync(0xffffffffu, v, 5);
    out[t] = tile[t];
}

// Half a warp alone in a shuffle.
KERNEL faulty_divergent_shuffle(IN(float) in, OUT(float) out) {
    int t = threadIdx.x;
    float v = in[t];
    if (t % 32 < 16) v += __shfl_down_sync(0xffffffffu, v, 1);
    __syncthreads();
    out[t] = v;
}
