// y = clamp(gain * act(x * scale + noise * strength + bias)): what follows a convolution, row by row.
//
// A row is a run of memory of one picture: pixels of C channels each when channels come last, else pixels of one
// channel. Loops are plain, written so that the compiler turns them into vector instructions.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "activations.h"

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

// `pixels` pixels of C channels each, channels next to each other.
template <Act A, typename S, typename T, typename R>
void finish_pixels(const S* src, T* dst, int64_t pixels, int64_t C, const Epilogue<R>& e, const R* scale,
                   const R* noise) {
  const R alpha = e.alpha, gain = e.gain, clamp = e.clamp;
  const R* bias = e.bias.data();
  constexpr int64_t block = 16;
  const int64_t whole = C / block * block;
  for (int64_t p = 0; p < pixels; ++p, src += C, dst += C) {
    const R grain = noise ? noise[p] * e.strength : R(0);
    for (int64_t c = 0; c < whole; c += block)
      for (int64_t i = c; i < c + block; ++i)
        dst[i] = T(finished<A>(R(src[i]) * scale[i] + (bias[i] + grain), alpha, gain, clamp));
    for (int64_t i = whole; i < C; ++i)
      dst[i] = T(finished<A>(R(src[i]) * scale[i] + (bias[i] + grain), alpha, gain, clamp));
  }
}

// `n` pixels of one channel.
template <Act A, typename S, typename T, typename R>
void finish_plane(const S* src, T* dst, int64_t n, const Epilogue<R>& e, R scale, R bias, const R* noise) {
  const R alpha = e.alpha, gain = e.gain, clamp = e.clamp, strength = e.strength;
  if (noise)
    for (int64_t i = 0; i < n; ++i)
      dst[i] = T(finished<A>(R(src[i]) * scale + (noise[i] * strength + bias), alpha, gain, clamp));
  else
    for (int64_t i = 0; i < n; ++i) dst[i] = T(finished<A>(R(src[i]) * scale + bias, alpha, gain, clamp));
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
