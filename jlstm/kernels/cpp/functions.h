// Vectors, and the two functions of the gates on them.
//
// A vector has as many numbers as a register of the instruction set that this is compiled for. All
// arithmetic is the compiler's own on vector types: one source for every instruction set.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

namespace {

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX__)
constexpr int kRegisterBytes = 32;
#else  // SSE2 and NEON
constexpr int kRegisterBytes = 16;
#endif

// What differs between float and double: the integer that has the same bits, and constants.
template <typename T>
struct Format;

template <>
struct Format<float> {
  using Int = int32_t;
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr int kTerms = 7;          // of exp's series: 0.35⁸/8! is 5e-9
  static constexpr float kLeast = -104.0f;  // exp of less rounds to 0
  static constexpr float kMost = 40.0f;     // 2·x from which on tanh(x) rounds to 1
  // ln 2 in two parts; n·kLn2High is exact for |n| < 2⁹.
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
};

template <>
struct Format<double> {
  using Int = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr int kTerms = 13;  // 0.35¹⁴/14! is 4e-18
  static constexpr double kLeast = -746.0, kMost = 80.0;
  static constexpr double kLn2High = 0x1.62e42fefap-1, kLn2Low = 0x1.cf79abc9e3b398p-40;
};

template <typename T>
struct Vector {
  typedef T Type __attribute__((vector_size(kRegisterBytes)));
  typedef typename Format<T>::Int Ints __attribute__((vector_size(kRegisterBytes)));
  static constexpr int kSize = kRegisterBytes / sizeof(T);
};

template <typename T>
using V = typename Vector<T>::Type;

// The first n numbers at p, n being at most a vector's size; the others are 0.
template <typename T>
inline V<T> load(const T* p, int64_t n = Vector<T>::kSize) {
  V<T> v{};
  if (n >= Vector<T>::kSize) {
    std::memcpy(&v, p, sizeof v);
  } else {
    for (int64_t k = 0; k < n; ++k) v[k] = p[k];
  }
  return v;
}

// A vector of x alone. Less 0 it is x, and the compiler knows; x + 0 it would add, as −0 + 0 is 0.
template <typename T>
inline V<T> every(T x) {
  return x - V<T>{};
}

template <typename T>
inline void store(T* p, V<T> v, int64_t n = Vector<T>::kSize) {
  if (n >= Vector<T>::kSize) {
    std::memcpy(p, &v, sizeof v);
  } else {
    for (int64_t k = 0; k < n; ++k) p[k] = v[k];
  }
}

// 1/k!, the coefficients of exp.
template <typename T>
constexpr T inverse_factorial(int k) {
  T product = 1;
  for (int j = 2; j <= k; ++j) product *= j;
  return 1 / product;
}

// exp(x) = 2ⁿ·(1 + p) with n the nearest whole number to x/ln 2, and p = exp(x − n·ln 2) − 1 by its
// series, which near x = 0, where n = 0, keeps all its digits.
template <typename T>
struct Exponential {
  V<T> p;
  typename Vector<T>::Ints n;
};

template <typename T>
inline Exponential<T> exponential(V<T> x) {
  using F = Format<T>;
  using Ints = typename Vector<T>::Ints;
  constexpr T kLog2E = T(1.44269504088896340736);
  // Added to it, a small number is rounded to a whole one, which stands in the lowest bits.
  constexpr T kRound = T(int64_t(3) << (F::kMantissa - 1));
  const V<T> rounded = x * kLog2E + kRound;
  const V<T> n = rounded - kRound;
  const V<T> r = (x - n * F::kLn2High) - n * F::kLn2Low;
  V<T> series = every(inverse_factorial<T>(F::kTerms));
#pragma GCC unroll 16
  for (int k = F::kTerms - 1; k >= 2; --k) series = series * r + inverse_factorial<T>(k);
  const V<T> round = every(kRound);
  return {r * r * series + r, (Ints)rounded - (Ints)round};
}

// 2ⁿ, n within the exponents of normal numbers.
template <typename T>
inline V<T> power_of_two(typename Vector<T>::Ints n) {
  return (V<T>)((n + Format<T>::kBias) << Format<T>::kMantissa);
}

// σ(x) = 1/(1 + e) for x ≥ 0, else e/(1 + e), with e = exp(−|x|): no difference of two numbers, so
// that a nearly shut gate keeps its digits.
template <typename T>
inline V<T> sigmoid(V<T> x) {
  V<T> less = x > 0 ? -x : x;
  less = less < Format<T>::kLeast ? every(Format<T>::kLeast) : less;  // NaN stays
  const auto [p, n] = exponential<T>(less);
  const auto half = n >> 1;  // 2ⁿ in two factors, as it may be too small for a normal number
  const V<T> e = (1 + p) * power_of_two<T>(half) * power_of_two<T>(n - half);
  return (x > 0 ? every(T(1)) : e) / (1 + e);
}

// tanh(x) = sign(x)·m/(m + 2) with m = exp(2·|x|) − 1.
template <typename T>
inline V<T> tanh(V<T> x) {
  V<T> twice = 2 * (x < 0 ? -x : x);
  twice = twice > Format<T>::kMost ? every(Format<T>::kMost) : twice;  // NaN stays
  const auto [p, n] = exponential<T>(twice);
  const V<T> power = power_of_two<T>(n);
  const V<T> m = power * p + (power - 1);
  const V<T> size = m / (m + 2);
  constexpr auto sign = std::numeric_limits<typename Format<T>::Int>::min();
  return (V<T>)((typename Vector<T>::Ints)size | ((typename Vector<T>::Ints)x & sign));  // of −0 too
}

}  // namespace
