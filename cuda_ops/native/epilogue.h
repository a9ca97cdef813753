// y = clamp(gain * act(x * scale + noise * strength + bias)): what follows a convolution, row by row.
//
// A row is a run of memory of one picture: pixels of C channels each when channels come last, else pixels of one
// channel. Loops are plain, written so that the compiler turns them into vector instructions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "activations.h"
#include "lanes.h"

namespace mattface {

// R is the exact type. scale and bias hold a value per channel (scale one such run per sample when samples > 1).
template <typename R>
struct Epilogue {
  Act act = Act::linear;
  R alpha = 0, gain = 1, clamp = std::numeric_limits<R>::infinity();
  std::vector<R> scale, bias;
  int64_t scale_stride = 0;        // values between one sample's scales and the next one's
  const R* noise = nullptr;        // one value per pixel
  int64_t noise_stride = 0;        // values between one sample's noise and the next one's
  R strength = 0;
};

template <Act A, typename R>
MATTFACE_BOTH R finished(R v, R alpha, R gain, R clamp) {
  v = activate<A>(v, alpha) * gain;
  v = v < -clamp ? -clamp : v;  // comparisons are false for NaN, which therefore stays
  return v > clamp ? clamp : v;
}

// The same for V, which is R or a vector of R.
template <Act A, typename V, typename R>
inline V finished_lanes(V t, R alpha, R gain, R clamp) {
  V v;
  if constexpr (std::is_same_v<V, R>) {
    return finished<A>(t, alpha, gain, clamp);
  } else if constexpr (A == Act::linear) {
    v = t * gain;
  } else if constexpr (A == Act::relu) {
    v = (t < 0 ? V{} : t) * gain;
  } else if constexpr (A == Act::lrelu) {
    v = (t < 0 ? t * alpha : t) * gain;
  } else {
    R each[Lanes<R>::count];
    std::memcpy(each, &t, sizeof t);
    for (R& one : each) one = activate<A>(one, alpha) * gain;
    std::memcpy(&v, each, sizeof v);
  }
  const V most = V{} + clamp;
  v = v < -most ? -most : v;
  return v > most ? most : v;
}

constexpr int64_t kChunk = 64;  // pixels that stay in the first cache while their channels are finished block by block

// Channels [c, c + lanes of V) of `pixels` pixels of C channels each.
template <Act A, typename V, typename S, typename T, typename R>
inline void finish_block(const S* src, T* dst, int64_t pixels, int64_t C, int64_t c, const Epilogue<R>& e,
                         const R* scale, const R* noise) {
  const V factor = load<V>(scale + c), bias = load<V>(e.bias.data() + c);
  const R alpha = e.alpha, gain = e.gain, clamp = e.clamp, strength = e.strength;
  src += c, dst += c;
  if (noise)
    for (int64_t p = 0; p < pixels; ++p, src += C, dst += C)
      store(finished_lanes<A>(load<V>(src) * factor + (bias + noise[p] * strength), alpha, gain, clamp), dst);
  else
    for (int64_t p = 0; p < pixels; ++p, src += C, dst += C)
      store(finished_lanes<A>(load<V>(src) * factor + bias, alpha, gain, clamp), dst);
}

// `pixels` pixels of C channels each, channels next to each other.
template <Act A, typename S, typename T, typename R>
void finish_pixels(const S* src, T* dst, int64_t pixels, int64_t C, const Epilogue<R>& e, const R* scale,
                   const R* noise) {
  constexpr int64_t lanes = Lanes<R>::count;
  for (int64_t p = 0; p < pixels; p += kChunk, src += kChunk * C, dst += kChunk * C) {
    const int64_t n = std::min(kChunk, pixels - p);
    const R* grain = noise ? noise + p : nullptr;
    int64_t c = 0;
    for (; c + lanes <= C; c += lanes)
      finish_block<A, typename Lanes<R>::type>(src, dst, n, C, c, e, scale, grain);
    for (; c < C; ++c) finish_block<A, R>(src, dst, n, C, c, e, scale, grain);
  }
}

// `n` pixels of one channel.
template <Act A, typename S, typename T, typename R>
void finish_plane(const S* src, T* dst, int64_t n, const Epilogue<R>& e, R scale, R bias, const R* noise) {
  using V = typename Lanes<R>::type;
  const R alpha = e.alpha, gain = e.gain, clamp = e.clamp, strength = e.strength;
  auto run = [&](auto zero, int64_t i) {
    using W = decltype(zero);
    const W shift = noise ? load<W>(noise + i) * strength + bias : W{} + bias;
    store(finished_lanes<A>(load<W>(src + i) * scale + shift, alpha, gain, clamp), dst + i);
  };
  int64_t i = 0;
  for (; i + Lanes<R>::count <= n; i += Lanes<R>::count) run(V{}, i);
  for (; i < n; ++i) run(R(0), i);
}

// Where a row lies: its sample, its first channel and pixel, and how many channels each of its pixels holds.
struct Row {
  int64_t sample, channel, pixel, pixels, channels;
};

template <Act A, typename S, typename T, typename R>
void finish_as(const S* src, T* dst, const Row& row, const Epilogue<R>& e) {
  const R* scale = e.scale.data() + row.sample * e.scale_stride;
  const R* noise = e.noise ? e.noise + row.sample * e.noise_stride + row.pixel : nullptr;
  if (row.channels > 1)
    finish_pixels<A>(src, dst, row.pixels, row.channels, e, scale, noise);
  else
    finish_plane<A>(src, dst, row.pixels, e, scale[row.channel], e.bias[row.channel], noise);
}

template <typename S, typename T, typename R>
void finish(const S* src, T* dst, const Row& row, const Epilogue<R>& e) {
  switch (e.act) {
#define MATTFACE_CASE(name) \
  case Act::name: return finish_as<Act::name>(src, dst, row, e);
    MATTFACE_FOR_EVERY_ACT(MATTFACE_CASE)
#undef MATTFACE_CASE
  }
}

}  // namespace mattface
