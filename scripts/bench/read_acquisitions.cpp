// libismrmrd beside our readers: every acquisition, every sample summed. See read_acquisitions.sh.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <ismrmrd/dataset.h>
#include <ismrmrd/ismrmrd.h>
#include <string>

static double peak_mib() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.rfind("VmHWM:", 0) == 0) return std::stod(line.substr(6)) / 1024;
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    auto start = std::chrono::steady_clock::now();
    ISMRMRD::Dataset dataset(argv[1], "dataset", false);
    ISMRMRD::Acquisition acquisition;
    double total = 0, bytes = 0;
    for (uint32_t i = 0, n = dataset.getNumberOfAcquisitions(); i < n; i++) {
        dataset.readAcquisition(i, acquisition);
        const float *data = reinterpret_cast<const float *>(acquisition.getDataPtr());
        size_t len = 2 * acquisition.getNumberOfDataElements();
        float lanes[16] = {0};
        for (size_t k = 0; k + 16 <= len; k += 16)
            for (size_t j = 0; j < 16; j++) lanes[j] += data[k + j];
        for (float lane : lanes) total += lane;
        bytes += 4.0 * len;
    }
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::printf("%-8s %7.3f s  %8.0f MB/s  peak %6.0f MiB  sum %.17g\n", "C++", seconds, bytes / seconds / 1e6, peak_mib(), total);
}
