// How a kernel runs: on a GPU, or on the CPU one block and one thread after another. The latter is for tests: it shows
// that the arithmetic is right where there is no GPU (compile cuda.cu as C++).
//
// A kernel is a struct of its arguments with kThreads, a type Shared, and two functions, load(block, thread, shared) and
// compute(block, thread, shared). Between the two all threads of a block wait for each other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "activations.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#endif

namespace mattface {

struct Nothing {};  // of a kernel without shared memory

#ifdef __CUDACC__
using Queue = cudaStream_t;

// At least 512 threads of a multiprocessor at a time: enough reads under way, and 128 registers each.
template <typename K>
__global__ void __launch_bounds__(K::kThreads, 512 / K::kThreads) run(const __grid_constant__ K kernel, const int64_t blocks) {
  __shared__ typename K::Shared shared;
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    kernel.load(block, static_cast<int>(threadIdx.x), shared);
    if constexpr (!std::is_same_v<typename K::Shared, Nothing>) __syncthreads();
    kernel.compute(block, static_cast<int>(threadIdx.x), shared);
    if constexpr (!std::is_same_v<typename K::Shared, Nothing>) __syncthreads();  // before the next block's load
  }
}
#else
struct Queue {};
#endif

template <typename K>
void launch(const K& kernel, int64_t blocks, Queue queue) {
  if (blocks <= 0) return;
#ifdef __CUDACC__
  const auto grid = static_cast<unsigned>(std::min<int64_t>(blocks, std::numeric_limits<int32_t>::max()));
  run<K><<<grid, K::kThreads, 0, queue>>>(kernel, blocks);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
#else
  auto shared = typename K::Shared();
  for (int64_t block = 0; block < blocks; ++block) {
    std::memset(static_cast<void*>(&shared), 0xff, sizeof shared);  // NaN: what was never loaded must not be used
    for (int thread = 0; thread < K::kThreads; ++thread) kernel.load(block, thread, shared);
    for (int thread = 0; thread < K::kThreads; ++thread) kernel.compute(block, thread, shared);
  }
#endif
}

struct Division {
  int64_t quotient, remainder;
};

// Of numbers that are not negative; 64-bit division is slow on a GPU and rarely needed.
MATTFACE_BOTH Division divide(int64_t a, int64_t b) {
  if ((a | b) >> 32 == 0) {
    const uint32_t n = static_cast<uint32_t>(a), d = static_cast<uint32_t>(b);
    return {n / d, n % d};
  }
  return {a / b, a % b};
}

MATTFACE_BOTH int64_t up_to(int64_t a, int64_t b) { return divide(a + b - 1, b).quotient; }

// `value` held in [0, limit], as a short number.
MATTFACE_BOTH int held(int64_t value, int limit) {
  return value < 0 ? 0 : value > limit ? limit : static_cast<int>(value);
}

template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Vec {
  T v[N];
};

template <typename T, int N>
MATTFACE_BOTH bool aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % alignof(Vec<T, N>) == 0;
}

// v[first] ... v[last - 1] from the same places at p, in the exact type R, the others zero. In one or two accesses where
// that is possible.
template <int N, typename T, typename R>
MATTFACE_BOTH void fetch(const T* p, int first, int last, R (&v)[N]) {
  if (first <= 0 && last >= N && aligned<T, N>(p)) {
    const auto wide = *reinterpret_cast<const Vec<T, N>*>(p);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = R(wide.v[i]);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = i >= first && i < last ? R(p[i]) : R(0);
  }
}

// One or two stores of a whole vector. The compiler takes plain ones apart when another branch stores single values.
template <typename T, int N>
MATTFACE_BOTH void put_all(T* p, const Vec<T, N>& wide) {
#ifdef __CUDA_ARCH__
  using Word = std::conditional_t<sizeof wide % 16 == 0, uint4, uint2>;
  static_assert(sizeof wide % sizeof(Word) == 0, "whole words");
  Word words[sizeof wide / sizeof(Word)];
  memcpy(words, &wide, sizeof wide);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof wide / sizeof(Word)); ++i) __stwb(reinterpret_cast<Word*>(p) + i, words[i]);
#else
  *reinterpret_cast<Vec<T, N>*>(p) = wide;
#endif
}

// Writes v[first] ... v[last - 1] to p[first] ... p[last - 1].
template <int N, typename T, typename R>
MATTFACE_BOTH void put(T* p, int first, int last, const R (&v)[N]) {
  if (first <= 0 && last >= N && aligned<T, N>(p)) {
    Vec<T, N> wide;
#pragma unroll
    for (int i = 0; i < N; ++i) wide.v[i] = T(v[i]);
    put_all(p, wide);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (i >= first && i < last) p[i] = T(v[i]);
  }
}

}  // namespace mattface
