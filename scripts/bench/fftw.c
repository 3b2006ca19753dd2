/* FFTW's batched 2D transform: `fftw BATCH NY NX THREADS MEASURE|PATIENT` plans once, then runs once per line read on
 * stdin ("run") and prints the seconds. In place, complex64, no shifts: less work than a centred unitary transform. */
#include <complex.h>
#include <fftw3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
int main(int argc, char **argv) {
    if (argc < 6) return 2;
    int batch = atoi(argv[1]), n[2] = {atoi(argv[2]), atoi(argv[3])};
    fftwf_init_threads();
    fftwf_plan_with_nthreads(atoi(argv[4]));
    size_t plane = (size_t)n[0] * n[1];
    fftwf_complex *x = fftwf_malloc(sizeof(*x) * plane * batch);
    fftwf_plan p = fftwf_plan_many_dft(2, n, batch, x, NULL, 1, plane, x, NULL, 1, plane, FFTW_FORWARD, strcmp(argv[5], "PATIENT") ? FFTW_MEASURE : FFTW_PATIENT);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        for (size_t i = 0; i < plane * batch; i++) x[i] = (float)(i % 97) - 48.f + I * ((float)(i % 89) - 44.f);
        double t = now();
        fftwf_execute(p);
        printf("{\"seconds\": %.9f}\n", now() - t);
        fflush(stdout);
    }
    return 0;
}
