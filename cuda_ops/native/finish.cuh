// y = clamp(gain * act(x * scale + noise * strength + bias)) on a GPU, for both layouts of pictures.
#pragma once

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "launch.cuh"

namespace mattface {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::ScalarType;

// The type a result is computed in.
template <typename T>
using Exact = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Values of any floating type in the GPU's memory: parameters and taps, which no kernel is compiled for.
struct Loose {
  const void* data = nullptr;
  ScalarType type = ScalarType::Float;
};

// N values from index i on, zeros beyond `left`; `otherwise` where there are none.
template <int N, typename R>
MATTFACE_BOTH void numbers(const Loose& t, int64_t i, int left, R otherwise, R (&v)[N]) {
  if (!t.data) {
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] = otherwise;
    return;
  }
  switch (t.type) {
    case ScalarType::Double: return fetch(static_cast<const double*>(t.data) + i, 0, left, v);
    case ScalarType::BFloat16: return fetch(static_cast<const BFloat16*>(t.data) + i, 0, left, v);
    case ScalarType::Half: return fetch(static_cast<const Half*>(t.data) + i, 0, left, v);
    default: return fetch(static_cast<const float*>(t.data) + i, 0, left, v);
  }
}

template <typename R>
MATTFACE_BOTH R number(const Loose& t, int64_t i, R otherwise) {
  R v[1];
  numbers(t, i, 1, otherwise, v);
  return v[0];
}

template <typename R>
struct Finish {
  bool on = false;  // false: nothing is to be done
  Act act = Act::linear;
  R alpha = 0, gain = 1, clamp = std::numeric_limits<R>::infinity();
  Loose scale, strength, bias;  // scale and bias: a value per channel, scale one such run per sample
  int64_t scale_stride = 0;     // values between one sample's scales and the next one's
  const R* noise = nullptr;     // a value per pixel
  int64_t noise_stride = 0;     // values between one sample's noise and the next one's

  // Where the slope changes at zero and nowhere else; these cost nothing beside memory.
  MATTFACE_BOTH bool curved() const { return act != Act::linear && act != Act::relu && act != Act::lrelu; }

  // Parameters of N channels of a sample.
  template <int N>
  MATTFACE_BOTH void channels(int64_t sample, int64_t channel, int left, R (&factor)[N], R (&offset)[N]) const {
    numbers(scale, sample * scale_stride + channel, left, R(1), factor);
    numbers(bias, channel, left, R(0), offset);
  }
  MATTFACE_BOTH const R* grain(int64_t sample) const { return noise ? noise + sample * noise_stride : nullptr; }
  MATTFACE_BOTH R level() const { return noise ? number(strength, 0, R(1)) : R(0); }

  // Of N values x * scale + noise * strength + bias.
  template <bool Curved, int N>
  MATTFACE_BOTH void apply(R (&v)[N]) const {
    if constexpr (Curved) {
      switch (act) {
#define MATTFACE_CASE(name)                                                    \
  case Act::name:                                                              \
    for (int i = 0; i < N; ++i) v[i] = activate<Act::name>(v[i], alpha);       \
    break;
        MATTFACE_FOR_EVERY_ACT(MATTFACE_CASE)
#undef MATTFACE_CASE
      }
    } else {
      const R slope = act == Act::linear ? R(1) : alpha;
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] = v[i] < 0 ? (act == Act::relu ? R(0) : v[i] * slope) : v[i];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      R t = v[i] * gain;
      t = t < -clamp ? -clamp : t;  // comparisons are false for NaN, which therefore stays
      v[i] = t > clamp ? clamp : t;
    }
  }
};

// Rows of `pixels` values of one channel: a block takes kSpan values of a row. x may be y.
template <typename T, bool Curved>
struct FinishPlanes {
  using R = Exact<T>;
  using Shared = Nothing;
  static constexpr int kThreads = 256, kWide = 16 / sizeof(T), kSteps = Curved ? 1 : 4;
  static constexpr int kSpan = kThreads * kWide * kSteps;

  T* y;
  const T* x;
  int64_t rows, channels, pixels;
  Finish<R> e;

  int64_t blocks() const { return rows * up_to(pixels, kSpan); }
  MATTFACE_BOTH void load(int64_t, int, Shared&) const {}

  MATTFACE_BOTH void compute(int64_t block, int thread, Shared&) const {
    const Division place = divide(block, up_to(pixels, kSpan));
    const Division row = divide(place.quotient, channels);
    const int64_t begin = place.remainder * kSpan, base = place.quotient * pixels + begin;
    const int count = held(pixels - begin, kSpan);
    const R* grain = e.grain(row.quotient);
    const R level = e.level();
    R factor[1], offset[1], v[kSteps][kWide];
    e.channels(row.quotient, row.remainder, 1, factor, offset);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {  // all reads before the first write keep more of them under way
      const int at = (s * kThreads + thread) * kWide;
      if (at < count) fetch(x + base + at, 0, count - at, v[s]);
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int at = (s * kThreads + thread) * kWide;
      if (at >= count) return;
      R noise[kWide] = {};
      if (grain) fetch(grain + begin + at, 0, count - at, noise);
#pragma unroll
      for (int i = 0; i < kWide; ++i) v[s][i] = v[s][i] * factor[0] + (noise[i] * level + offset[0]);
      e.template apply<Curved>(v[s]);
      put(y + base + at, 0, count - at, v[s]);
    }
  }
};

// Channels are next to each other: a thread keeps its channels and walks over pixels. x may be y.
template <typename T, bool Curved>
struct FinishPixels {
  using R = Exact<T>;
  using Shared = Nothing;
  static constexpr int kThreads = 256, kWide = 16 / sizeof(T), kSteps = Curved ? 1 : 4, kRounds = Curved ? 8 : 2;

  T* y;
  const T* x;
  int64_t samples, channels, pixels;
  Finish<R> e;

  MATTFACE_BOTH int64_t chunks() const { return up_to(channels, kWide); }
  MATTFACE_BOTH int64_t groups() const { return up_to(chunks(), kThreads); }
  MATTFACE_BOTH int lanes() const { return held(chunks(), kThreads); }  // threads beside each other on a pixel
  MATTFACE_BOTH int abreast() const { return kThreads / lanes(); }      // pixels at a time
  MATTFACE_BOTH int span() const { return abreast() * kSteps * kRounds; }
  int64_t blocks() const { return samples * groups() * up_to(pixels, span()); }
  MATTFACE_BOTH void load(int64_t, int, Shared&) const {}

  MATTFACE_BOTH void compute(int64_t block, int thread, Shared&) const {
    const Division part = divide(block, up_to(pixels, span())), place = divide(part.quotient, groups());
    const int64_t sample = place.quotient, channel = (place.remainder * kThreads + thread % lanes()) * kWide;
    const int mine = thread / lanes();
    if (mine >= abreast() || channel >= channels) return;
    const int left = held(channels - channel, kWide);
    const int64_t begin = part.remainder * span(), base = (sample * pixels + begin) * channels + channel;
    const int count = held(pixels - begin, span());
    const R *all = e.grain(sample), *grain = all ? all + begin : nullptr;
    const R level = e.level();
    R factor[kWide], offset[kWide];
    e.channels(sample, channel, left, factor, offset);
    for (int p = mine; p < count; p += abreast() * kSteps) pass(base, p, count, left, grain, level, factor, offset);
  }

  // Pixels p, p + abreast, ... of the block, kSteps of them.
  MATTFACE_BOTH void pass(int64_t base, int p, int count, int left, const R* grain, R level, const R (&factor)[kWide],
                          const R (&offset)[kWide]) const {
    R v[kSteps][kWide];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int at = p + s * abreast();
      if (at < count) fetch(x + base + at * channels, 0, left, v[s]);
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int at = p + s * abreast();
      if (at >= count) return;
      const R noise = grain ? grain[at] * level : R(0);
#pragma unroll
      for (int i = 0; i < kWide; ++i) v[s][i] = v[s][i] * factor[i] + (offset[i] + noise);
      e.template apply<Curved>(v[s]);
      put(y + base + at * channels, 0, left, v[s]);
    }
  }
};

}  // namespace mattface
