// Vectors of the widest register of the instruction set a file is compiled for.
//
// Kernel files are compiled once for each instruction set, with INPAINT_ISA naming it; everything
// they define lives in namespace inpaint::INPAINT_ISA so that the copies never meet in the linker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifndef INPAINT_ISA
#define INPAINT_ISA baseline
#endif

namespace inpaint {
namespace INPAINT_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr bool kManyRegisters = true;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr bool kManyRegisters = false;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr bool kManyRegisters = true;
#else
constexpr int kVectorBytes = 16;
constexpr bool kManyRegisters = false;
#endif

template <class T>
struct Simd {
  typedef T Vector __attribute__((vector_size(kVectorBytes)));
  static constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(T));
};

template <class T>
using Vector = typename Simd<T>::Vector;

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

template <class T>
inline void store(T* to, Vector<T> v) {
  std::memcpy(to, &v, sizeof(v));
}

template <class T>
inline Vector<T> broadcast(T x) {
  return x - Vector<T>{};
}

// The larger of each pair; the second where the first is NaN, so that NaN never wins.
template <class T>
inline Vector<T> max_or_second(Vector<T> a, Vector<T> b) {
  return a > b ? a : b;
}

template <class T>
inline T horizontal_max(Vector<T> v) {
  T lanes[Simd<T>::kWidth];
  std::memcpy(lanes, &v, sizeof(v));
  T best = lanes[0];
  for (int i = 1; i < Simd<T>::kWidth; ++i) best = lanes[i] > best ? lanes[i] : best;
  return best;
}

inline int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }
inline int64_t ceil_div(int64_t x, int64_t unit) { return (x + unit - 1) / unit; }

}  // namespace INPAINT_ISA
}  // namespace inpaint
