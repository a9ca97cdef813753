// Depth-wise 3x3 convolution of modulated pictures whose channels are last, with an inverse Haar transform before it
// when one is asked for: neither the modulated nor the transformed picture is ever stored.
//
// Of four bands a, b, c, d of a pixel the transform makes 1/2 [[a + b + c + d, a + b - c - d], [a - b + c - d,
// a - b - c + d]].
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lanes.h"

namespace mattface {

constexpr int64_t kRowValues = 1 << 14;  // of one expanded row: three of them fit the second cache
constexpr int64_t kBandRows = 32;        // rows of a task

template <typename T>
struct Depthwise {
  using R = typename Exact<T>::type;
  using V = typename Lanes<R>::type;

  const T* x;           // (height, width) pixels of C channels, or (height / 2, width / 2) of 4 C in bands
  T* y;                 // (height, width, C), dense
  int64_t row, pixel;   // values from one row or pixel of x to the next
  int64_t height, width, C;
  const R* kernel;      // (9, C)
  const R* factors;     // (C) of x; or (4, C) of its bands, the halves of the transform included
  bool wavelet;

  static int64_t tile(int64_t width, int64_t C) {
    return std::min(width, std::max<int64_t>(16, kRowValues / C / 2 * 2));
  }

  // Rows [top, bottom) and pixels [left, right) of y. `ring` holds 3 (tile + 2) C values.
  void run(int64_t top, int64_t bottom, int64_t left, int64_t right, R* ring) const {
    const int64_t slot = (right - left + 2) * C;
    auto at = [&](int64_t i) { return ring + (i + 3) % 3 * slot; };
    expand(top - 1, left - 1, right + 1, at(top - 1));
    expand(top, left - 1, right + 1, at(top));
    for (int64_t o = top; o < bottom; ++o) {
      expand(o + 1, left - 1, right + 1, at(o + 1));
      const R* rows[3] = {at(o - 1), at(o), at(o + 1)};
      T* to = y + (o * width + left) * C;
      int64_t c = 0;
      for (; c + Lanes<R>::count <= C; c += Lanes<R>::count) convolve<V>(rows, right - left, c, to);
      for (; c < C; ++c) convolve<R>(rows, right - left, c, to);
    }
  }

 private:
  template <typename W>
  void convolve(const R* const (&rows)[3], int64_t count, int64_t c, T* to) const {
    W k[9];
    for (int t = 0; t < 9; ++t) k[t] = load<W>(kernel + t * C + c);
    const R *a = rows[0] + c, *b = rows[1] + c, *d = rows[2] + c;
    const int64_t n = C;
    to += c;
    for (int64_t p = 0; p < count; ++p, a += n, b += n, d += n, to += n) {
      W sum = load<W>(a) * k[0] + load<W>(a + n) * k[1] + load<W>(a + 2 * n) * k[2];
      W more = load<W>(b) * k[3] + load<W>(b + n) * k[4] + load<W>(b + 2 * n) * k[5];
      sum += load<W>(d) * k[6] + load<W>(d + n) * k[7] + load<W>(d + 2 * n) * k[8];
      store(sum + more, to);
    }
  }

  // Pixels [left, right) of row i, modulated and transformed, zeros beyond the picture.
  void expand(int64_t i, int64_t left, int64_t right, R* to) const {
    const int64_t begin = std::max<int64_t>(0, left), end = std::min(width, right);
    if (i < 0 || i >= height) return std::fill(to, to + (right - left) * C, R(0));
    std::fill(to, to + (begin - left) * C, R(0));
    std::fill(to + (end - left) * C, to + (right - left) * C, R(0));
    to += (begin - left) * C;
    if (!wavelet) {
      const T* from = x + i * row + begin * pixel;
      for (int64_t p = begin; p < end; ++p, from += pixel, to += C) {
        int64_t c = 0;
        for (; c + Lanes<R>::count <= C; c += Lanes<R>::count) store(load<V>(from + c) * load<V>(factors + c), to + c);
        for (; c < C; ++c) to[c] = R(from[c]) * factors[c];
      }
      return;
    }
    const R sign = i % 2 ? R(-1) : R(1);
    for (int64_t p = begin; p < end; ++p, to += C) {
      const T* from = x + i / 2 * row + p / 2 * pixel;
      const R other = p % 2 ? R(-1) : R(1);
      int64_t c = 0;
      for (; c + Lanes<R>::count <= C; c += Lanes<R>::count) transform<V>(from, c, sign, other, to);
      for (; c < C; ++c) transform<R>(from, c, sign, other, to);
    }
  }

  template <typename W>
  void transform(const T* from, int64_t c, R sign, R other, R* to) const {
    const W a = load<W>(from + c) * load<W>(factors + c), b = load<W>(from + C + c) * load<W>(factors + C + c);
    const W d = load<W>(from + 2 * C + c) * load<W>(factors + 2 * C + c);
    const W e = load<W>(from + 3 * C + c) * load<W>(factors + 3 * C + c);
    store(a + sign * b + other * (d + sign * e), to + c);
  }
};

}  // namespace mattface
