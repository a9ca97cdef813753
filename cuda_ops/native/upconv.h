// What follows the matrix product of a 3x3 up-convolution: its columns are laid out as a picture of twice the size,
// filtered, and finished, without that picture ever being stored.
//
// With c[i][j][ky][kx] = x[i][j] . w[ky][kx], the transposed convolution of stride 2 is t[2 i + ky][2 j + kx] += c.
// Along one axis therefore t[2 m] = c[m][0] + c[m - 1][2] and t[2 m + 1] = c[m][1]. A filter g of four taps after one
// sample of padding gives the results 2 m and 2 m + 1 from t[2 m - 1 .. 2 m + 3]. Both axes alike.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "epilogue.h"
#include "lanes.h"

namespace mattface {

constexpr int kTaps = 4;    // of the filter along one axis
constexpr int kSide = 3;    // of the convolution
constexpr int kSpan = 32;   // input pixels whose results are made before they are finished

// The two results of one axis from t[2 m - 1], t[2 m], ... t[2 m + 3].
template <typename V, typename R>
inline void two(const R* g, V odd_before, V even, V odd, V even_after, V odd_after, V& first, V& second) {
  first = g[0] * odd_before + g[1] * even + g[2] * odd + g[3] * even_after;
  second = g[0] * even + g[1] * odd + g[2] * even_after + g[3] * odd_after;
}

// Columns of three neighbouring input rows, (width, 9, O) each. Beyond the picture a row is 9 O zeros without a step.
template <typename T>
struct ThreeRows {
  const T *before, *here, *after;
  int64_t before_step, after_step;  // values from one pixel to the next
  int64_t width, O;
};

// Vertical results of one input pixel: what both output rows see of it, for each kx.
template <typename V, typename T, typename R>
inline void vertical(const ThreeRows<T>& rows, int64_t j, int64_t o, const R* g, V (&upper)[kSide], V (&lower)[kSide]) {
  const int64_t line = kSide * rows.O;
  const T *before = rows.before + j * rows.before_step + o, *here = rows.here + j * kSide * line + o,
          *after = rows.after + j * rows.after_step + o;
#pragma GCC unroll 3
  for (int kx = 0; kx < kSide; ++kx, before += rows.O, here += rows.O, after += rows.O) {
    const V odd_before = load<V>(before + line), even = load<V>(here) + load<V>(before + 2 * line);
    const V odd = load<V>(here + line), even_after = load<V>(after) + load<V>(here + 2 * line);
    two(g, odd_before, even, odd, even_after, load<V>(after + line), upper[kx], lower[kx]);
  }
}

// Output pixels [2 from, 2 to) of both rows, V-many channels from o on, into upper and lower: (2 (to - from), O) each.
template <typename V, typename T, typename R>
void span(const ThreeRows<T>& rows, int64_t from, int64_t to, int64_t o, const R* g_y, const R* g_x, R* upper,
          R* lower) {
  const V zero{};
  V u[kSide], l[kSide], spill_u = zero, spill_l = zero, odd_u = zero, odd_l = zero;
  V even_u, even_l, first, second;
  const R gy[kTaps] = {g_y[0], g_y[1], g_y[2], g_y[3]}, gx[kTaps] = {g_x[0], g_x[1], g_x[2], g_x[3]};
  if (from > 0) {
    vertical(rows, from - 1, o, gy, u, l);
    spill_u = u[2], spill_l = l[2], odd_u = u[1], odd_l = l[1];
  }
  vertical(rows, from, o, gy, u, l);
  even_u = u[0] + spill_u, even_l = l[0] + spill_l;
  for (int64_t j = from; j < to; ++j) {
    V next_u[kSide] = {zero, zero, zero}, next_l[kSide] = {zero, zero, zero};
    if (j + 1 < rows.width) vertical(rows, j + 1, o, gy, next_u, next_l);
    const V after_u = next_u[0] + u[2], after_l = next_l[0] + l[2];
    const int64_t at = 2 * (j - from) * rows.O + o;
    two(gx, odd_u, even_u, u[1], after_u, next_u[1], first, second);
    std::memcpy(upper + at, &first, sizeof first), std::memcpy(upper + at + rows.O, &second, sizeof second);
    two(gx, odd_l, even_l, l[1], after_l, next_l[1], first, second);
    std::memcpy(lower + at, &first, sizeof first), std::memcpy(lower + at + rows.O, &second, sizeof second);
    odd_u = u[1], odd_l = l[1], even_u = after_u, even_l = after_l;
    for (int kx = 0; kx < kSide; ++kx) u[kx] = next_u[kx], l[kx] = next_l[kx];
  }
}

// Both output rows of one input row, pixels [2 from, 2 to), finished into y: (2 H, 2 W, O) of one sample.
template <typename T, typename R>
void finish_two_rows(const ThreeRows<T>& rows, int64_t row, int64_t from, int64_t to, const R* g_y, const R* g_x,
                     const Epilogue<R>& e, int64_t sample, T* y, std::vector<R>& room) {
  using V = typename Lanes<R>::type;
  const int64_t O = rows.O, n = 2 * (to - from), wide = O / Lanes<R>::count * Lanes<R>::count;
  room.resize(2 * n * O);
  R *upper = room.data(), *lower = upper + n * O;
  for (int64_t o = 0; o < wide; o += Lanes<R>::count) span<V>(rows, from, to, o, g_y, g_x, upper, lower);
  for (int64_t o = wide; o < O; ++o) span<R>(rows, from, to, o, g_y, g_x, upper, lower);
  for (int64_t side = 0; side < 2; ++side) {
    const int64_t pixel = (2 * row + side) * 2 * rows.width + 2 * from;
    finish(side ? lower : upper, y + pixel * O, Row{sample, 0, pixel, n, O}, e);
  }
}

}  // namespace mattface
