// Vectors of the exact type, and the ways from and to the types that tensors are stored in.
#pragma once

#include <torch/headeronly/util/BFloat16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace mattface {

// The type a result is computed in: double for double, float for everything else.
template <typename T>
struct Exact {
  using type = float;
};
template <>
struct Exact<double> {
  using type = double;
};

// 64 bytes of the exact type, which the compiler maps to whatever registers there are.
template <typename R>
struct Lanes {
  static constexpr int count = 64 / sizeof(R);
  typedef R type __attribute__((vector_size(64)));
};

typedef uint16_t Halves __attribute__((vector_size(32)));
typedef uint32_t Bits __attribute__((vector_size(64)));

template <typename V, typename T>
inline V load(const T* from) {
  if constexpr (std::is_arithmetic_v<V>) {
    return V(*from);
  } else if constexpr (sizeof(T) == sizeof(V{}[0])) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
  } else if constexpr (std::is_same_v<T, torch::headeronly::BFloat16>) {  // the upper half of a float
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return reinterpret_cast<V>(__builtin_convertvector(halves, Bits) << 16);
  } else {
    float wide[sizeof(V) / sizeof(float)];
    for (size_t l = 0; l < sizeof(V) / sizeof(float); ++l) wide[l] = float(from[l]);
    V v;
    std::memcpy(&v, wide, sizeof v);
    return v;
  }
}

template <typename V, typename T>
inline void store(V v, T* to) {
  if constexpr (std::is_arithmetic_v<V>) {
    *to = T(v);
  } else if constexpr (sizeof(T) == sizeof(V{}[0])) {
    std::memcpy(to, &v, sizeof v);
  } else if constexpr (std::is_same_v<T, torch::headeronly::BFloat16>) {  // to nearest, ties to even; NaN stays one
    const Bits bits = reinterpret_cast<Bits>(v);
    const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Halves halves = __builtin_convertvector(v == v ? rounded : (bits >> 16) | 0x40u, Halves);
    std::memcpy(to, &halves, sizeof halves);
  } else {
    for (size_t l = 0; l < sizeof(V) / sizeof(float); ++l) to[l] = T(v[l]);
  }
}

// n values from one type to another.
template <typename R, typename S, typename T>
inline void convert(const S* from, T* to, int64_t n) {
  using V = typename Lanes<R>::type;
  int64_t j = 0;
  for (; j + Lanes<R>::count <= n; j += Lanes<R>::count) store(load<V>(from + j), to + j);
  for (; j < n; ++j) to[j] = T(R(from[j]));
}

}  // namespace mattface
