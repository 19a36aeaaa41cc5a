// Vectors of the widest register of the instruction set a file is compiled for.
//
// Kernel files are compiled once for each instruction set, with INPAINT_ISA naming it; everything
// they define lives in namespace inpaint::INPAINT_ISA so that the copies never meet in the linker.
//
// INPAINT_AVX512_SHAPED: vectors and tiles of AVX-512 in instructions of AVX2, which the compiler
// splits the vectors into. It is slow and only for tests: what depends on the width of vectors is
// tested on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

// For what the vector extensions cannot express.
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef INPAINT_ISA
#define INPAINT_ISA baseline
#endif

// After the parameters of a lambda whose arrays are to stay in registers: one that the compiler
// calls, because it is used twice, takes them through memory.
#define INPAINT_INLINED __attribute__((always_inline))

namespace inpaint {
namespace INPAINT_ISA {

#if defined(__AVX512F__) || defined(INPAINT_AVX512_SHAPED)
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
  // As it lies in memory: no alignment beyond T's, and it aliases T alone, so that a store does not
  // make the compiler read every pointer and size again.
  typedef T Unaligned __attribute__((vector_size(kVectorBytes), aligned(alignof(T))));
  static constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(T));
};

template <class T>
using Vector = typename Simd<T>::Vector;

template <class T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename Simd<T>::Unaligned*>(from);
}

template <class T>
inline void store(T* to, Vector<T> v) {
  *reinterpret_cast<typename Simd<T>::Unaligned*>(to) = v;
}

// Past the caches, where so many vectors side by side, one right after the other, are whole lines;
// `to` is aligned as a vector is. Other threads see it after their next fence only.
template <int VECTORS>
constexpr bool kStreams = kVectorBytes >= 32 && VECTORS * kVectorBytes % 64 == 0;

inline void stream(float* to, Vector<float> v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, (__m512)v);
#elif defined(INPAINT_AVX512_SHAPED)
  float lanes[Simd<float>::kWidth];
  store(lanes, v);
  _mm256_stream_ps(to, _mm256_loadu_ps(lanes));
  _mm256_stream_ps(to + 8, _mm256_loadu_ps(lanes + 8));
#elif defined(__AVX2__)
  _mm256_stream_ps(to, (__m256)v);
#else
  store(to, v);
#endif
}

inline void stream_fence() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

template <class T>
inline Vector<T> broadcast(T x) {
  return x - Vector<T>{};
}

// a b + c, and c - a b: rounded once where the instruction set can, else twice. Files are compiled
// without contraction (setup.py), because the compiler fuses the products of one inlined copy of an
// expression and not those of another, and equal inputs would give unequal bits. So sums of
// products are written with these.
inline __attribute__((always_inline)) Vector<float> multiply_add(Vector<float> a,
                                                                 Vector<float> b,
                                                                 Vector<float> c) {
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(INPAINT_AVX512_SHAPED)
  __m256 halves[2], by[2], sums[2];
  std::memcpy(halves, &a, sizeof a);
  std::memcpy(by, &b, sizeof b);
  std::memcpy(sums, &c, sizeof c);
  for (int i = 0; i < 2; ++i) sums[i] = _mm256_fmadd_ps(halves[i], by[i], sums[i]);
  std::memcpy(&c, sums, sizeof c);
  return c;
#elif defined(__AVX2__)
  return (Vector<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (Vector<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

inline __attribute__((always_inline)) Vector<double> multiply_add(Vector<double> a,
                                                                  Vector<double> b,
                                                                  Vector<double> c) {
#if defined(__AVX512F__)
  return (Vector<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(INPAINT_AVX512_SHAPED)
  __m256d halves[2], by[2], sums[2];
  std::memcpy(halves, &a, sizeof a);
  std::memcpy(by, &b, sizeof b);
  std::memcpy(sums, &c, sizeof c);
  for (int i = 0; i < 2; ++i) sums[i] = _mm256_fmadd_pd(halves[i], by[i], sums[i]);
  std::memcpy(&c, sums, sizeof c);
  return c;
#elif defined(__AVX2__)
  return (Vector<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
  return (Vector<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

inline __attribute__((always_inline)) Vector<float> multiply_add(Vector<float> a,
                                                                 float b,
                                                                 Vector<float> c) {
  return multiply_add(a, broadcast(b), c);
}

inline __attribute__((always_inline)) Vector<double> multiply_add(Vector<double> a,
                                                                  double b,
                                                                  Vector<double> c) {
  return multiply_add(a, broadcast(b), c);
}

template <class V, class S>
inline __attribute__((always_inline)) V subtract_product(V c, V a, S b) {
  return multiply_add(-a, b, c);
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
  for (int half = Simd<T>::kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i)
      lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  return lanes[0];
}

#if defined(__AVX2__)
inline __attribute__((always_inline)) float sum_of_half(__m256 v) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline __attribute__((always_inline)) double sum_of_half(__m256d v) {
  const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
}
#endif

// The sum of the lanes, halves first.
template <class T>
inline __attribute__((always_inline)) T horizontal_sum(Vector<T> v) {
#if defined(__AVX512F__)
  // With a mask: compilers warn of what the plain intrinsics leave undefined.
  const __m256d above = _mm512_maskz_extractf64x4_pd(0xff, (__m512d)v, 1);
  const __m256d below = _mm512_maskz_extractf64x4_pd(0xff, (__m512d)v, 0);
  if constexpr (sizeof(T) == 4) {
    return sum_of_half(_mm256_add_ps(_mm256_castpd_ps(below), _mm256_castpd_ps(above)));
  } else {
    return sum_of_half(_mm256_add_pd(below, above));
  }
#elif defined(__AVX2__) && !defined(INPAINT_AVX512_SHAPED)
  if constexpr (sizeof(T) == 4) {
    return sum_of_half((__m256)v);
  } else {
    return sum_of_half((__m256d)v);
  }
#else
  T lanes[Simd<T>::kWidth];
  std::memcpy(lanes, &v, sizeof(v));
  for (int half = Simd<T>::kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
#endif
}

// Returns whether any lane of a exceeds its lane of b; a NaN exceeds nothing.
template <class T>
inline bool any_greater(Vector<T> a, Vector<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ) != 0;
  } else {
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GT_OQ) != 0;
  }
#elif defined(__AVX2__) && !defined(INPAINT_AVX512_SHAPED)
  const auto hit = a > b;
  return !_mm256_testz_si256((__m256i)hit, (__m256i)hit);
#else
  const auto hit = a > b;
  uint64_t words[kVectorBytes / 8];
  std::memcpy(words, &hit, kVectorBytes);
  uint64_t any = 0;
  for (uint64_t w : words) any |= w;
  return any != 0;
#endif
}

// Bit i tells whether lane i is anything but zero.
template <class T>
inline uint32_t nonzero_lanes(Vector<T> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_cmp_ps_mask((__m512)v, __m512{}, _CMP_NEQ_UQ);
  } else {
    return _mm512_cmp_pd_mask((__m512d)v, __m512d{}, _CMP_NEQ_UQ);
  }
#elif defined(__AVX2__) && !defined(INPAINT_AVX512_SHAPED)
  const auto other = v != Vector<T>{};
  if constexpr (sizeof(T) == 4) {
    return uint32_t(_mm256_movemask_ps((__m256)other));
  } else {
    return uint32_t(_mm256_movemask_pd((__m256d)other));
  }
#else
  uint32_t bits = 0;
  for (int i = 0; i < Simd<T>::kWidth; ++i) bits |= uint32_t(v[i] != T(0)) << i;
  return bits;
#endif
}

inline int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }
inline int64_t ceil_div(int64_t x, int64_t unit) { return (x + unit - 1) / unit; }

}  // namespace INPAINT_ISA
}  // namespace inpaint
