// Elementary functions of whole vectors.
#pragma once

#include <cmath>
#include <limits>

#include "base/simd.h"

namespace inpaint {
namespace INPAINT_ISA {

template <class T>
struct ExpTerms;

// Domain outside which the result is 0 or infinity: within it 2^k and the result are normal.
// ln 2 in two parts, the first short enough that its product with any k is exact.
template <>
struct ExpTerms<float> {
  using Int = int32_t;
  static constexpr float kLowest = -87.3f, kHighest = 88.7f;
  static constexpr float kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr int kMantissaBits = 23, kBias = 127, kTerms = 7;
};

template <>
struct ExpTerms<double> {
  using Int = int64_t;
  static constexpr double kLowest = -708.3, kHighest = 709.7;
  static constexpr double kLog2High = 0.693145751953125, kLog2Low = 1.42860682030941723212e-6;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kMantissaBits = 52, kBias = 1023, kTerms = 13;
};

// exp(x) within about 2 units in the last place. Results that would not be normal numbers are 0 or
// infinity; NaN stays NaN. (Taylor's series to degree kTerms on |f| <= ln 2 / 2.)
template <class T>
inline __attribute__((always_inline)) Vector<T> exp(Vector<T> x) {
  using Terms = ExpTerms<T>;
  using Int = typename Terms::Int;
  typedef Int IntVector __attribute__((vector_size(kVectorBytes)));
  const Vector<T> inside = x < Terms::kLowest    ? broadcast(Terms::kLowest)
                           : x > Terms::kHighest ? broadcast(Terms::kHighest)
                                                 : x;
  const Vector<T> shifted = multiply_add(inside, T(1.4426950408889634), broadcast(Terms::kRound));
  const Vector<T> k = shifted - Terms::kRound;
  const Vector<T> f = subtract_product(inside - k * Terms::kLog2High, k, Terms::kLog2Low);
  T factorial[Terms::kTerms + 1] = {1};
#pragma GCC unroll 16
  for (int i = 1; i <= Terms::kTerms; ++i) factorial[i] = factorial[i - 1] * T(i);
  Vector<T> sum = broadcast(T(1) / factorial[Terms::kTerms]);
#pragma GCC unroll 16
  for (int i = Terms::kTerms - 1; i >= 0; --i)
    sum = multiply_add(sum, f, broadcast(T(1) / factorial[i]));
  // The low bits of `shifted` hold k. 2^k in two steps: k = 128 alone has no exponent.
  const IntVector bits = (IntVector)shifted - (IntVector)broadcast(Terms::kRound);
  const IntVector half = bits >> 1;
  const Vector<T> a = (Vector<T>)((half + Terms::kBias) << Terms::kMantissaBits);
  const Vector<T> b = (Vector<T>)((bits - half + Terms::kBias) << Terms::kMantissaBits);
  const Vector<T> result = sum * a * b;
  return x < Terms::kLowest    ? Vector<T>{}
         : x > Terms::kHighest ? broadcast(std::numeric_limits<T>::infinity())
                               : result;
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
