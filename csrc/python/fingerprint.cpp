// Fingerprints of weights, by address: nothing keeps a hold on a tensor.
#include "base/fingerprint.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <random>
#include <utility>
#include <vector>

#include "python/arrays.h"

namespace inpaint {
namespace {

// Of this process.
uint64_t key(int number) {
  static const std::array<uint64_t, 2> keys = [] {
    std::random_device random;
    std::array<uint64_t, 2> drawn;
    for (uint64_t& one : drawn) one = (uint64_t(random()) << 32 | random()) | 1;
    return drawn;
  }();
  return keys[size_t(number)];
}

// How a weight lies in memory, whatever the order of its axes: made once, asked at every call.
class WeightMemory {
 public:
  // Strides in elements of `size` bytes.
  WeightMemory(const std::vector<int64_t>& shape,
               const std::vector<int64_t>& strides,
               int64_t size) {
    require(shape.size() == strides.size() && size >= 1, "weight");
    using Axis = std::array<int64_t, 2>;  // stride, size
    std::vector<Axis> axes;
    args_.run = size;
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      require(shape[axis] >= 0 && strides[axis] >= 0, "weight");
      if (shape[axis] == 0) args_.run = 0;
      if (shape[axis] > 1 && strides[axis] > 0) axes.push_back({strides[axis] * size, shape[axis]});
    }
    std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a[0] > b[0]; });
    while (!axes.empty() && axes.back()[0] == args_.run) {
      args_.run *= axes.back()[1];
      axes.pop_back();
    }
    for (const auto& [stride, count] : axes) {
      args_.strides.push_back(stride);
      args_.sizes.push_back(count);
      bytes_ *= count;
    }
    bytes_ *= args_.run;
  }

  uint64_t fingerprint(uintptr_t address, int threads) const {
    require(threads >= 1, "threads");
    FingerprintArgs args = args_;
    args.data = reinterpret_cast<const unsigned char*>(address);
    args.threads = threads;
    for (int i = 0; i < 2; ++i) args.keys[i] = key(i);
    auto* function = INPAINT_PICK(fingerprint);
    // Giving the lock back costs as much as a small weight.
    if (bytes_ < 65536) return function(args);
    py::gil_scoped_release release;
    return function(args);
  }

 private:
  FingerprintArgs args_ = {};
  int64_t bytes_ = 1;
};

}  // namespace

void bind_fingerprint(py::module_& m) {
  py::class_<WeightMemory>(m, "WeightMemory")
      .def(py::init<const std::vector<int64_t>&, const std::vector<int64_t>&, int64_t>(),
           py::arg("shape"),
           py::arg("strides"),
           py::arg("size"))
      .def("fingerprint", &WeightMemory::fingerprint, py::arg("address"), py::arg("threads"));
}

}  // namespace inpaint
