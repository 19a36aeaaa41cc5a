// The least bent surface through known pixels, by Chebyshev iteration.
//
// Algebra: minimises the sum of squared second differences, along x, along y and twice the mixed
// one, plus tension times the sum of squared first differences, over the free pixels. A difference
// counts where all its pixels are inside. Half the gradient at a free pixel is a row of 13
// coefficients, the pixels at most two steps away. One step: direction = -gradient + beta
// direction, surface += alpha direction (Saad, "Iterative Methods for Sparse Linear Systems",
// algorithm 12.1). All gradients of a step are taken before the surface changes, so the result does
// not depend on the threads.
//
// Tiling: blocks of free pixels, whose coefficients are formed once.
//
// Traffic: 52 bytes of coefficients a free pixel and step, for all channels; the surface stays in
// the second-level cache. Pixels that are not free cost nothing.
#include "matching/bent_surface.h"

#include <algorithm>
#include <vector>

#include "base/parallel.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

constexpr int64_t kReach = 2, kSide = 2 * kReach + 1;
constexpr int kTerms = 13;
constexpr int64_t kBlock = 1024;

class Surface {
 public:
  explicit Surface(const BentSurfaceArgs& args)
      : a_(args), ld_(args.width + 2 * kReach), plane_((args.height + 2 * kReach) * ld_) {
    int count = 0;
    for (int64_t y = -kReach; y <= kReach; ++y)
      for (int64_t x = -kReach; x <= kReach; ++x)
        if (std::abs(y) + std::abs(x) <= kReach) {
          places_[count] = (y + kReach) * kSide + x + kReach;
          offsets_[count++] = y * ld_ + x;
        }
    for (int64_t i = 0; i < a_.height * a_.width; ++i)
      if (a_.free[i]) pixels_.push_back(i);
    coefficients_.resize(pixels_.size() * kTerms);
    direction_.assign(pixels_.size() * size_t(a_.channels), 0.0f);
    padded_.assign(size_t(a_.channels * plane_), 0.0f);
  }

  void run() {
    for (int64_t c = 0; c < a_.channels; ++c)
      for (int64_t y = 0; y < a_.height; ++y)
        std::copy_n(a_.surface + (c * a_.height + y) * a_.width,
                    a_.width,
                    padded_.data() + c * plane_ + (y + kReach) * ld_ + kReach);
    each_block([&](int64_t i) { form_row(i); });
    const float centre = (a_.high + a_.low) / 2, half = (a_.high - a_.low) / 2;
    float alpha = 0;
    for (int64_t step = 0; step < a_.steps; ++step) {
      const float ratio = half * alpha / 2;
      const float beta = step == 0 ? 0 : ratio * ratio * (step == 1 ? 2 : 1);
      alpha = step == 0 ? 1 / centre : 1 / (centre - beta / alpha);
      each_block([&](int64_t i) { turn(i, beta); });
      each_block([&](int64_t i) { move(i, alpha); });
    }
    each_block([&](int64_t i) {
      for (int64_t c = 0; c < a_.channels; ++c)
        a_.surface[c * a_.height * a_.width + pixels_[size_t(i)]] = padded_[size_t(at(i, c))];
    });
  }

 private:
  template <class Body>
  void each_block(const Body& body) const {
    const int64_t count = int64_t(pixels_.size());
    // Below this waking a second thread costs more than it saves.
    const int threads = count < 16 * kBlock ? 1 : a_.threads;
    parallel_tasks(ceil_div(count, kBlock), threads, [&](int64_t block) {
      for (int64_t i = block * kBlock; i < std::min(count, (block + 1) * kBlock); ++i) body(i);
    });
  }

  // Place of a free pixel in the padded surface.
  int64_t at(int64_t i, int64_t c) const {
    const int64_t y = pixels_[size_t(i)] / a_.width, x = pixels_[size_t(i)] % a_.width;
    return c * plane_ + (y + kReach) * ld_ + x + kReach;
  }

  bool inside(int64_t y, int64_t x) const {
    return y >= 0 && y < a_.height && x >= 0 && x < a_.width && a_.inside[y * a_.width + x];
  }

  void form_row(int64_t i) {
    const int64_t y = pixels_[size_t(i)] / a_.width, x = pixels_[size_t(i)] % a_.width;
    float row[kSide * kSide] = {};
    const auto add = [&](int64_t dy, int64_t dx, float value) {
      row[(dy + kReach) * kSide + dx + kReach] += value;
    };
    for (int axis = 0; axis < 2; ++axis) {
      const int64_t uy = axis, ux = 1 - axis;  // unit step
      for (int64_t d = -1; d <= 1; ++d) {      // second difference around pixel + d
        if (!(inside(y + (d - 1) * uy, x + (d - 1) * ux) && inside(y + d * uy, x + d * ux) &&
              inside(y + (d + 1) * uy, x + (d + 1) * ux)))
          continue;
        const float own = d == 0 ? -2.0f : 1.0f;
        add((d - 1) * uy, (d - 1) * ux, own);
        add(d * uy, d * ux, -2 * own);
        add((d + 1) * uy, (d + 1) * ux, own);
      }
      for (int64_t d = -1; d <= 1; d += 2) {  // first difference
        if (!inside(y + d * uy, x + d * ux)) continue;
        add(0, 0, a_.tension);
        add(d * uy, d * ux, -a_.tension);
      }
    }
    for (int64_t dy = -1; dy <= 1; dy += 2) {  // mixed differences of the four cells
      for (int64_t dx = -1; dx <= 1; dx += 2) {
        if (!(inside(y, x + dx) && inside(y + dy, x) && inside(y + dy, x + dx))) continue;
        add(0, 0, 2);
        add(dy, dx, 2);
        add(0, dx, -2);
        add(dy, 0, -2);
      }
    }
    for (int t = 0; t < kTerms; ++t) coefficients_[size_t(i * kTerms + t)] = row[places_[t]];
  }

  void turn(int64_t i, float beta) {
    const float* row = coefficients_.data() + i * kTerms;
    for (int64_t c = 0; c < a_.channels; ++c) {
      const float* u = padded_.data() + at(i, c);
      float gradient = 0;
      for (int t = 0; t < kTerms; ++t) gradient += row[t] * u[offsets_[t]];
      float& direction = direction_[size_t(i * a_.channels + c)];
      direction = beta * direction - gradient;
    }
  }

  void move(int64_t i, float alpha) {
    for (int64_t c = 0; c < a_.channels; ++c)
      padded_[size_t(at(i, c))] += alpha * direction_[size_t(i * a_.channels + c)];
  }

  const BentSurfaceArgs& a_;
  const int64_t ld_, plane_;
  int64_t places_[kTerms], offsets_[kTerms];
  std::vector<int64_t> pixels_;
  std::vector<float> coefficients_, direction_, padded_;
};

}  // namespace

void bent_surface(const BentSurfaceArgs& args) { Surface(args).run(); }

}  // namespace INPAINT_ISA
}  // namespace inpaint
