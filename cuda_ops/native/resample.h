// upfirdn2d row by row: output o of an axis is the sum over taps k of f[k] * stuffed[o * down - before + k], where
// stuffed has x[i] at i * up and zeros elsewhere. Only the taps that meet a sample are visited (polyphase).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace mattface {

// dst = sum of weights[t] * rows[t], n values.
template <int N, typename R>
inline void combine_fixed(const R* const* rows, const R* weights, R* __restrict dst, int64_t n) {
  const R* r[N];
  R w[N];
  for (int t = 0; t < N; ++t) r[t] = rows[t], w[t] = weights[t];
  for (int64_t j = 0; j < n; ++j) {
    R sum = w[0] * r[0][j];
#pragma GCC unroll 4
    for (int t = 1; t < N; ++t) sum += w[t] * r[t][j];
    dst[j] = sum;
  }
}

template <typename R>
inline void combine(const R* const* rows, const R* weights, int64_t count, R* __restrict dst, int64_t n) {
  switch (count) {
    case 0: std::fill(dst, dst + n, R(0)); return;
    case 1: return combine_fixed<1>(rows, weights, dst, n);
    case 2: return combine_fixed<2>(rows, weights, dst, n);
    case 3: return combine_fixed<3>(rows, weights, dst, n);
    case 4: return combine_fixed<4>(rows, weights, dst, n);
  }
  combine_fixed<4>(rows, weights, dst, n);
  for (int64_t t = 4; t < count; ++t) {
    const R *row = rows[t], w = weights[t];
    for (int64_t j = 0; j < n; ++j) dst[j] += w * row[j];
  }
}

// One axis: sizes, factors, and the taps of every phase.
template <typename R>
struct Axis {
  int64_t in, out, up, down, before;
  std::vector<std::vector<R>> phases;  // phases[k0] = taps k0, k0 + up, k0 + 2 up, ...

  Axis(int64_t in, int64_t out, int64_t up, int64_t down, int64_t before, const std::vector<R>& taps)
      : in(in), out(out), up(up), down(down), before(before), phases(up) {
    for (size_t k = 0; k < taps.size(); ++k) phases[k % up].push_back(taps[k]);
  }

  int64_t first_tap(int64_t o) const {
    const int64_t r = (before - o * down) % up;
    return r < 0 ? r + up : r;
  }
  // First sample that output o sees; may lie outside [0, in).
  int64_t first(int64_t o) const { return (o * down - before + first_tap(o)) / up; }
  const std::vector<R>& taps(int64_t o) const { return phases[first_tap(o)]; }
  int64_t most() const { return static_cast<int64_t>(phases[0].size()); }
};

// Filters one line: outputs [from, to) of E values each; line begins with sample axis.first(from).
template <typename R>
void filter_line(const Axis<R>& axis, const R* line, int64_t from, int64_t to, int64_t E, R* dst,
                 std::vector<const R*>& rows, std::vector<R>& spare) {
  const int64_t start = axis.first(from), up = axis.up;
  rows.resize(axis.most());
  auto point = [&](int64_t o, int64_t count) {
    const R* at = line + (axis.first(o) - start) * E;
    for (int64_t t = 0; t < count; ++t) rows[t] = at + t * E;
  };
  if (axis.down == 1 && (up == 1 || E < 8)) {  // outputs of one phase are one run
    for (int64_t q = 0; q < up && from + q < to; ++q) {
      const auto& taps = axis.taps(from + q);
      const int64_t n = (to - from - q + up - 1) / up;
      point(from + q, taps.size());
      R* run = up == 1 ? dst : spare.data() + q * ((to - from) / up + 1) * E;
      combine(rows.data(), taps.data(), taps.size(), run, n * E);
      if (up == 1) return;
      if (E == 1 && up == 2) {
        if (q == 0) continue;
        const R *even = spare.data(), *odd = run;
        for (int64_t m = 0; m < n; ++m) dst[2 * m] = even[m], dst[2 * m + 1] = odd[m];
        if ((to - from) % 2) dst[to - from - 1] = even[n];
      } else {
        for (int64_t m = 0; m < n; ++m)
          for (int64_t c = 0; c < E; ++c) dst[(m * up + q) * E + c] = run[m * E + c];
      }
    }
    if (E == 1 && up == 2 && to - from == 1) dst[0] = spare[0];
    return;
  }
  if (E == 1 && up == 1 && axis.down == 2 && axis.most() == 4) {
    const auto& w = axis.phases[0];
    for (int64_t o = 0; o < to - from; ++o)
      dst[o] = w[0] * line[2 * o] + w[1] * line[2 * o + 1] + w[2] * line[2 * o + 2] + w[3] * line[2 * o + 3];
    return;
  }
  for (int64_t o = from; o < to; ++o, dst += E) {
    const auto& taps = axis.taps(o);
    if (E == 1) {
      const R* at = line + (axis.first(o) - start);
      R sum = 0;
      for (size_t t = 0; t < taps.size(); ++t) sum += taps[t] * at[t];
      *dst = sum;
    } else {
      point(o, taps.size());
      combine(rows.data(), taps.data(), taps.size(), dst, E);
    }
  }
}

// Column and row whose outer product is the filter, if there are such (to within rounding of the exact type).
template <typename R>
bool split(const std::vector<double>& f, int64_t KH, int64_t KW, std::vector<R>& column, std::vector<R>& row) {
  int64_t best = 0;
  for (int64_t i = 0; i < KH * KW; ++i)
    if (std::abs(f[i]) > std::abs(f[best])) best = i;
  const double top = f[best];
  if (!(std::abs(top) > 0)) return false;
  const double bound = std::abs(top) * (sizeof(R) == 4 ? 1.2e-7 : 1e-15);
  for (int64_t y = 0; y < KH; ++y)
    for (int64_t x = 0; x < KW; ++x)
      if (!(std::abs(f[y * KW + x] - f[y * KW + best % KW] * f[best / KW * KW + x] / top) <= bound)) return false;
  for (int64_t y = 0; y < KH; ++y) column[y] = R(f[y * KW + best % KW] / top);
  for (int64_t x = 0; x < KW; ++x) row[x] = R(f[best / KW * KW + x]);
  return true;
}

}  // namespace mattface
