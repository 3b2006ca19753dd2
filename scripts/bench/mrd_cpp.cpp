// The reference C++ library (libismrmrd) at its own game: `mrd_cpp write FILE N COILS SAMPLES` makes a file,
// `mrd_cpp read FILE` reads every acquisition one by one, as its interface asks, and prints seconds and a checksum.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ismrmrd/dataset.h>
#include <ismrmrd/ismrmrd.h>
int main(int argc, char **argv) {
    if (argc > 5 && !strcmp(argv[1], "write")) {
        const unsigned n = atoi(argv[3]), coils = atoi(argv[4]), samples = atoi(argv[5]);
        ISMRMRD::Dataset d(argv[2], "dataset", true);
        char xml[2048];
        snprintf(xml, sizeof xml,
                 "<?xml version=\"1.0\"?><ismrmrdHeader xmlns=\"http://www.ismrm.org/ISMRMRD\"><experimentalConditions>"
                 "<H1resonanceFrequency_Hz>127740000</H1resonanceFrequency_Hz></experimentalConditions><encoding><encodedSpace>"
                 "<matrixSize><x>%u</x><y>250</y><z>1</z></matrixSize><fieldOfView_mm><x>500</x><y>250</y><z>5</z></fieldOfView_mm>"
                 "</encodedSpace><reconSpace><matrixSize><x>%u</x><y>250</y><z>1</z></matrixSize><fieldOfView_mm><x>250</x><y>250</y>"
                 "<z>5</z></fieldOfView_mm></reconSpace><encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>249</maximum>"
                 "<center>125</center></kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>",
                 samples, samples / 2);
        d.writeHeader(xml);
        ISMRMRD::Acquisition a(samples, coils);
        for (unsigned i = 0; i < n; i++) {
            a.scan_counter() = i;
            a.center_sample() = samples / 2;
            a.sample_time_us() = 5;
            a.idx().kspace_encode_step_1 = i % 250;
            a.idx().repetition = i / 250;
            unsigned s = i * 2654435761u + 1;
            for (size_t k = 0; k < a.getNumberOfDataElements(); k++) {
                s = s * 1664525u + 1013904223u;
                a.getDataPtr()[k] = {float(int(s >> 16) - 32768), float(int(s & 65535) - 32768)};
            }
            d.appendAcquisition(a);
        }
        return 0;
    }
    if (argc > 2 && !strcmp(argv[1], "read")) {
        const auto t0 = std::chrono::steady_clock::now();
        ISMRMRD::Dataset d(argv[2], "dataset", false);
        std::string xml;
        d.readHeader(xml);
        const unsigned n = d.getNumberOfAcquisitions();
        ISMRMRD::Acquisition a;
        double sum = 0;
        size_t elements = 0;
        for (unsigned i = 0; i < n; i++) {
            d.readAcquisition(i, a);
            elements += a.getNumberOfDataElements();
            sum += a.getDataPtr()[0].real();
        }
        const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count();
        printf("{\"seconds\": %.6f, \"acquisitions\": %u, \"elements\": %zu, \"sum\": %.1f}\n", s, n, elements, sum);
        return 0;
    }
    return 2;
}
