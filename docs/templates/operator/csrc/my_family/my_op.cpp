// State here: the formula, how the work is cut, and the traffic. For example:
//
// A task is one plane (sample and channel): planes depend on the image alone, so that any number of
// threads gives equal bits. Traffic: x once, y once.
//
// This file is compiled once for each instruction set, with INPAINT_ISA as its name: vectors come
// from base/simd.h, never from intrinsics where its extensions do.
#include "my_family/my_op.h"

#include "base/parallel.h"
#include "base/simd.h"

namespace inpaint {
namespace INPAINT_ISA {

void my_op(const MyOpArgs& a) {
  constexpr int64_t kWidth = Simd<float>::kWidth;
  parallel_tasks(a.batch * a.channels, a.threads, [&](int64_t task) {
    const float* x = a.x + task * a.pixels;
    float* y = a.y + task * a.pixels;
    const float scale = a.weight[task % a.channels] * a.factor;
    const Vector<float> scales = broadcast(scale);
    int64_t i = 0;
    for (; i + kWidth <= a.pixels; i += kWidth) store(y + i, load(x + i) * scales);
    for (; i < a.pixels; ++i) y[i] = x[i] * scale;
  });
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
