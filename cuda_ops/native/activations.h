// Activations of one value. On the CPU their exponential and logarithm are polynomials, which vectorise; the error is a
// few units in the last place of max(1, |result|).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#ifdef __CUDACC__
#define MATTFACE_BOTH __host__ __device__ __forceinline__
#else
#define MATTFACE_BOTH inline __attribute__((always_inline))  // a call that stays keeps a loop from vectorising
#endif

namespace mattface {

// The order is that of ACTIVATIONS in _bias_act.py.
enum class Act : int64_t { linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish };

#define MATTFACE_FOR_EVERY_ACT(X) \
  X(linear) X(relu) X(lrelu) X(tanh) X(sigmoid) X(elu) X(selu) X(softplus) X(swish)

#ifdef __CUDA_ARCH__
MATTFACE_BOTH float exponential(float x) { return expf(x); }
MATTFACE_BOTH double exponential(double x) { return exp(x); }
MATTFACE_BOTH float log_one_plus(float x) { return log1pf(x); }
MATTFACE_BOTH double log_one_plus(double x) { return log1p(x); }
#else
// 2^k from the exponent field; |k| is at most 126 (float) or 1022 (double).
MATTFACE_BOTH float power_of_two(float k) {
  const int32_t bits = (static_cast<int32_t>(k) + 127) << 23;
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}
MATTFACE_BOTH double power_of_two(double k) {
  const int64_t bits = (static_cast<int64_t>(k) + 1023) << 52;
  double out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

// exp(x) = 2^k exp(r), |r| <= ln(2) / 2, Taylor's series for exp(r); x is held where the result is a normal number,
// and what lies above is infinite.
template <typename R>
MATTFACE_BOTH R exponential(R x) {
  constexpr bool single = sizeof(R) == 4;
  constexpr R most = single ? R(87) : R(708);
  constexpr R high = single ? R(0.693359375) : R(0.693145751953125);
  constexpr R low = single ? R(-2.12194440054690583e-4) : R(1.42860682030941723e-6);
  const R held = x >= -most ? (x > most ? most : x) : -most;  // NaN too: it comes back below
  constexpr R shift = single ? R(12582912) : R(6755399441055744);  // adding 1.5 * 2^mantissa rounds to whole numbers
  const R k = (held * R(1.44269504088896341) + shift) - shift;
  const R r = (held - k * high) - k * low;
  R sum = R(1);
  constexpr int terms = single ? 7 : 13;
#pragma GCC unroll 16
  for (int n = terms; n >= 1; --n) sum = R(1) + sum * r * R(1.0 / n);
  const R beyond = x > most ? std::numeric_limits<R>::infinity() : R(1);
  return x != x ? x : sum * power_of_two(k) * beyond;
}

// log(1 + u) = 2 artanh(z), z = u / (2 + u), for u in [0, 1].
template <typename R>
MATTFACE_BOTH R log_one_plus(R u) {
  const R z = u / (R(2) + u), square = z * z;
  constexpr int terms = sizeof(R) == 4 ? 7 : 17;
  R sum = R(0);
#pragma GCC unroll 18
  for (int n = terms; n >= 0; --n) sum = sum * square + R(1.0 / (2 * n + 1));
  return R(2) * z * sum;
}
#endif

template <Act A, typename R>
MATTFACE_BOTH R activate(R t, R alpha) {
  if constexpr (A == Act::relu) return t < 0 ? R(0) : t;
  if constexpr (A == Act::lrelu) return t < 0 ? t * alpha : t;
  if constexpr (A == Act::sigmoid) return R(1) / (R(1) + exponential(-t));
  if constexpr (A == Act::swish) return t / (R(1) + exponential(-t));
  if constexpr (A == Act::tanh) return R(1) - R(2) / (exponential(t + t) + R(1));
  if constexpr (A == Act::elu) return t < 0 ? exponential(t) - R(1) : t;
  if constexpr (A == Act::selu) {
    const R low = R(1.6732632423543772) * (exponential(t) - R(1));
    return R(1.0507009873554805) * (t < 0 ? low : t);
  }
  if constexpr (A == Act::softplus) {
    const R size = t < 0 ? -t : t;
    return (t < 0 ? R(0) : t) + log_one_plus(exponential(-size));
  }
  return t;
}

}  // namespace mattface
