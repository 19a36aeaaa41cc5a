// Activations of vectors of float and their derivatives: within a few ulp, NaN stays NaN.
#pragma once

#include "base/activation_codes.h"
#include "base/simd.h"

namespace inpaint {
namespace INPAINT_ISA {

typedef int32_t VectorInt __attribute__((vector_size(kVectorBytes)));

// exp(x) = 2^k * e^f, |f| <= ln(2)/2; returns 2^k and sets p = e^f - 1 (Taylor to f^7, 6e-9): with
// both, exp(x) - 1 has no cancellation, which ELU and tanh need near zero.
inline Vector<float> split_exp(Vector<float> x, Vector<float>& p) {
  const Vector<float> low = broadcast(-87.0f), high = broadcast(88.0f);
  // In this order NaN passes both.
  x = x < low ? low : x;
  x = x > high ? high : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const Vector<float> magic = broadcast(12582912.0f);
  const Vector<float> shifted = multiply_add(x, 1.44269504f, magic);
  const Vector<float> k = shifted - magic;
  // ln 2 in two parts, the first short enough that its product with any k is exact.
  const Vector<float> f = multiply_add(k, 2.12194440e-4f, x - k * 0.693359375f);
  Vector<float> q = broadcast(1.0f / 5040);
  for (const float term : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f})
    q = multiply_add(q, f, broadcast(term));
  p = multiply_add(q * f, f, f);
  const VectorInt bits = ((VectorInt)shifted << 23) + 0x3f800000;
  return (Vector<float>)bits;
}

inline Vector<float> exp_of(Vector<float> x) {
  Vector<float> p;
  const Vector<float> scale = split_exp(x, p);
  return multiply_add(scale, p, scale);
}

inline Vector<float> expm1_of(Vector<float> x) {
  Vector<float> p;
  const Vector<float> scale = split_exp(x, p);
  return multiply_add(scale, p, scale - 1.0f);
}

inline Vector<float> sigmoid_of(Vector<float> x) { return 1.0f / (1.0f + exp_of(-x)); }

inline Vector<float> tanh_of(Vector<float> x) {
  const Vector<float> zero = {};
  const Vector<float> t = expm1_of(x > zero ? -2.0f * x : 2.0f * x);
  const Vector<float> magnitude = -t / (t + 2.0f);
  return x > zero ? magnitude : -magnitude;
}

// A new activation needs its case in each of the functions below.
constexpr bool has_formula(Activation a) { return a <= Activation::kSigmoid; }

template <Activation A>
inline Vector<float> activate(Vector<float> v) {
  static_assert(has_formula(A));
  const Vector<float> zero = {};
  // Comparisons are written so that NaN comes through.
  if constexpr (A == Activation::kRelu) return v < zero ? zero : v;
  if constexpr (A == Activation::kLeakyRelu) return v < zero ? v * kLeakySlope : v;
  if constexpr (A == Activation::kElu) return v > zero ? v : expm1_of(v);
  if constexpr (A == Activation::kSilu) return v * sigmoid_of(v);
  if constexpr (A == Activation::kTanh) return tanh_of(v);
  if constexpr (A == Activation::kSigmoid) return sigmoid_of(v);
  return v;
}

// At the activation's argument v.
template <Activation A>
inline Vector<float> derivative(Vector<float> v) {
  static_assert(has_formula(A));
  const Vector<float> zero = {}, one = broadcast(1.0f);
  if constexpr (A == Activation::kRelu) return v > zero ? one : zero;
  if constexpr (A == Activation::kLeakyRelu) return v > zero ? one : broadcast(kLeakySlope);
  if constexpr (A == Activation::kElu) return v > zero ? one : exp_of(v);
  if constexpr (A == Activation::kSilu) {
    const Vector<float> s = sigmoid_of(v);
    return multiply_add(v * s, one - s, s);
  }
  if constexpr (A == Activation::kTanh) {
    const Vector<float> t = tanh_of(v);
    return subtract_product(one, t, t);
  }
  if constexpr (A == Activation::kSigmoid) {
    const Vector<float> s = sigmoid_of(v);
    return s * (one - s);
  }
  return one;
}

// The same from the activation's result y, where y tells: not for SiLU, which is not monotonic.
template <Activation A>
inline Vector<float> derivative_of_result(Vector<float> y) {
  static_assert(has_formula(A));
  const Vector<float> zero = {}, one = broadcast(1.0f);
  if constexpr (A == Activation::kElu) return y > zero ? one : y + one;
  if constexpr (A == Activation::kTanh) return subtract_product(one, y, y);
  if constexpr (A == Activation::kSigmoid) return y * (one - y);
  return derivative<A>(y);
}

// Calls body.template run<A>() for the activation known at run time.
template <class Body>
inline void with_activation(Activation activation, Body& body) {
  switch (activation) {
    case Activation::kIdentity:
      return body.template run<Activation::kIdentity>();
    case Activation::kRelu:
      return body.template run<Activation::kRelu>();
    case Activation::kLeakyRelu:
      return body.template run<Activation::kLeakyRelu>();
    case Activation::kElu:
      return body.template run<Activation::kElu>();
    case Activation::kSilu:
      return body.template run<Activation::kSilu>();
    case Activation::kTanh:
      return body.template run<Activation::kTanh>();
    case Activation::kSigmoid:
      return body.template run<Activation::kSigmoid>();
  }
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
