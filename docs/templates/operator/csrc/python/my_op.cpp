// The binding: what guards memory, and no rule of the operator's own. Declare bind_my_op beside the
// others in python/arrays.h and call it in python/module.cpp; a family has one such file.
#include "my_family/my_op.h"

#include "python/arrays.h"

namespace inpaint {
namespace {

void call_my_op(
    const Array<float>& x, const Array<float>& weight, double factor, Array<float> y, int threads) {
  require(x.ndim() == 4 && x.is_packed() && threads >= 1, "x must be packed (N, C, H, W)");
  require(weight.is_packed() && weight.size() == x.shape(1), "weight must be packed and fit");
  MyOpArgs a;
  a.batch = x.shape(0);
  a.channels = x.shape(1);
  a.pixels = x.shape(2) * x.shape(3);
  a.x = x.data();
  a.weight = weight.data();
  a.y = output<float>(y, x.size());
  a.factor = static_cast<float>(factor);
  a.threads = threads;
  // The copy for the instruction set in use; Python runs on meanwhile.
  auto* kernel = INPAINT_PICK(my_op);
  py::gil_scoped_release release;
  kernel(a);
}

}  // namespace

void bind_my_op(py::module_& m) {
  m.def("my_op",
        &call_my_op,
        py::arg("x").noconvert(),
        py::arg("weight").noconvert(),
        py::arg("factor"),
        py::arg("y").noconvert(),
        py::arg("threads"));
}

}  // namespace inpaint
