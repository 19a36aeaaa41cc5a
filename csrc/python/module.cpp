// Python module: names only. The other files of this folder bind a family each; they are compiled
// as one with this file, since the headers of pybind11 take longer than all of them.
#include <pybind11/pybind11.h>

#include <string>

#include "base/cpu.h"
#include "base/fma_peak.h"
#include "base/scratch.h"
#include "python/arrays.h"
#include "python/attention.cpp"
#include "python/conv_call.cpp"
#include "python/conv_calls.cpp"
#include "python/convolution.cpp"
#include "python/epilogue.cpp"
#include "python/fingerprint.cpp"
#include "python/images.cpp"
#include "python/mask_planes.cpp"
#include "python/matching.cpp"
#include "python/norm.cpp"
#include "python/shift_connection.cpp"
#include "python/tensor.cpp"
#include "python/watchers.cpp"

PYBIND11_MODULE(_C, m) {
  namespace py = pybind11;
  using namespace inpaint;
  m.doc() =
      "CPU kernels of inpaint_ops over tensors in the CPU's memory; called through inpaint_ops.ops "
      "only";
  if (instruction_sets().empty()) {
    std::string message = "it was built for";
    for (const std::string& name : built_sets()) message += " " + name;
    message += " alone, which this machine lacks: build it again here";
    throw py::import_error(message);
  }
  find_torch();
#ifdef _OPENMP
  m.attr("openmp") = true;
#else
  m.attr("openmp") = false;
#endif
  m.def("instruction_sets", &instruction_sets);
  m.def("instruction_set", &instruction_set_name);
  m.def("set_instruction_set", &set_instruction_set, py::arg("name"));
  m.def(
      "fma_peak",
      [](double seconds, int threads) { return INPAINT_PICK(fma_peak)(seconds, threads); },
      py::arg("seconds"),
      py::arg("threads"),
      py::call_guard<py::gil_scoped_release>());
  m.def(
      "release_scratch",
      [](int threads) { INPAINT_PICK(release_scratch)(threads); },
      py::arg("threads"),
      py::call_guard<py::gil_scoped_release>());
  bind_attention(m);
  bind_convolution(m);
  bind_conv_calls(m);
  bind_epilogue(m);
  bind_fingerprint(m);
  bind_images(m);
  bind_instance_norm(m);
  bind_mask_planes(m);
  bind_matching(m);
  bind_shift_connection(m);
  bind_watchers(m);
}
