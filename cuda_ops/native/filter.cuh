// upfirdn2d on a GPU. Output o of an axis is the sum over taps k of f[k] * stuffed[o * down - before + k], where stuffed
// has x[i] at i * up and zeros elsewhere; only the taps that meet a sample are visited (polyphase).
//
// Three kernels: 4x4 taps with up or down 2 or neither on planes (through shared memory) and on channels-last pictures
// (16 bytes of channels at a time), and one for everything else.
#pragma once

#include "finish.cuh"

namespace mattface {

struct Axis {
  int64_t in, out, up, down, before;
};

// rows x cols taps, or the outer product of one row; none is the single tap 1.
struct Taps {
  Loose f;
  int64_t rows = 1, cols = 1;
  bool outer = false, flip = false;
  double gain = 1;

  // The factor of stuffed[... + ky][... + kx]; a convolution turns the filter around.
  template <typename R>
  MATTFACE_BOTH R at(int64_t ky, int64_t kx) const {
    const int64_t i = flip ? ky : rows - 1 - ky, j = flip ? kx : cols - 1 - kx;
    if (outer) return number(f, i, R(1)) * number(f, j, R(1));
    return number(f, i * cols + j, R(1));
  }
};

// S is the type of x, T that of y. y is dense, channels last or not; x has any strides (sample, channel, row, column).
template <typename S, typename T>
struct Resampling {
  using R = Exact<T>;
  T* y;
  const S* x;
  int64_t stride[4];
  int64_t samples, channels;
  Axis v, h;
  Taps taps;
  bool last;  // channels of y come last
  bool add;   // to y
  Finish<R> e;
};

constexpr int kTaps = 4;

// Outputs of one thread or block along an axis, N of them, and the samples they need. The first output is chosen such
// that tap 0 meets a sample, so that all other taps' samples are known when the kernel is compiled.
template <int UP, int DOWN>
MATTFACE_BOTH constexpr int needed(int N) {
  return ((N - 1) * DOWN + kTaps - 1) / UP + 1;
}
template <int UP>
MATTFACE_BOTH int shift(const Axis& a) {
  return UP == 1 ? 0 : static_cast<int>(a.before & 1);
}
// First sample of an output that `shift` has moved; the division leaves no rest.
template <int UP, int DOWN>
MATTFACE_BOTH int64_t sample(const Axis& a, int64_t o) {
  return (o * DOWN - a.before) / UP;
}

template <typename T, int UP, int DOWN>
struct FilterPlanes {
  using R = Exact<T>;
  static constexpr int kAcross = 16, kThreads = 128;                 // threads beside each other, threads
  static constexpr int NX = 4, NY = DOWN == 2 ? 2 : 4;               // outputs of a thread
  static constexpr int TW = NX * kAcross, TH = NY * kThreads / kAcross;  // outputs of a block
  static constexpr int IW = needed<UP, DOWN>(TW), IH = needed<UP, DOWN>(TH), CX = needed<UP, DOWN>(NX),
                       CY = needed<UP, DOWN>(NY);                    // samples of a block and of a thread
  static constexpr int kWide = UP == 2 || sizeof(R) == 8 ? 2 : 4, kReads = (CX + kWide - 1) / kWide;
  static constexpr int kPitch = ((TW - NX) * DOWN / UP + kReads * kWide + 3) / 4 * 4;
  static_assert(kPitch >= IW && (NX * DOWN / UP) % kWide == 0, "vectors of samples fit into a line");
  struct Shared {
    alignas(16) R x[IH * kPitch];
    R taps[kTaps * kTaps];
  };

  Resampling<T, T> a;
  int64_t tiles_x, tiles_y;

  explicit FilterPlanes(const Resampling<T, T>& a)
      : a(a), tiles_x(up_to(a.h.out + shift<UP>(a.h), TW)), tiles_y(up_to(a.v.out + shift<UP>(a.v), TH)) {}
  int64_t blocks() const { return a.samples * a.channels * tiles_y * tiles_x; }

  struct Place {
    int64_t sample, channel, oy, ox;  // first outputs; may be -1
  };
  MATTFACE_BOTH Place place(int64_t block) const {
    const Division column = divide(block, tiles_x), row = divide(column.quotient, tiles_y);
    const Division plane = divide(row.quotient, a.channels);
    return {plane.quotient, plane.remainder, row.remainder * TH - shift<UP>(a.v),
            column.remainder * TW - shift<UP>(a.h)};
  }

  MATTFACE_BOTH void load(int64_t block, int thread, Shared& s) const {
    const Place at = place(block);
    if (thread < kTaps * kTaps)
      s.taps[thread] = a.taps.template at<R>(thread / kTaps, thread % kTaps) * R(a.taps.gain);
    const int64_t top = sample<UP, DOWN>(a.v, at.oy), left = sample<UP, DOWN>(a.h, at.ox);
    const int row_begin = held(-top, IH), row_end = held(a.v.in - top, IH);
    const int begin = held(-left, IW), end = held(a.h.in - left, IW);
    const int64_t base = at.sample * a.stride[0] + at.channel * a.stride[1] + top * a.stride[2] + left * a.stride[3];
#pragma unroll 4
    for (int i = thread; i < IH * IW; i += kThreads) {
      const int row = i / IW, column = i % IW;
      const bool inside = row >= row_begin && row < row_end && column >= begin && column < end;
      s.x[row * kPitch + column] = inside ? R(a.x[base + row * a.stride[2] + column * a.stride[3]]) : R(0);
    }
  }

  MATTFACE_BOTH void compute(int64_t block, int thread, const Shared& s) const {
    const int tx = thread % kAcross, ty = thread / kAcross;
    const R* from = s.x + ty * NY * DOWN / UP * kPitch + tx * NX * DOWN / UP;
    R sum[NY][NX] = {};
#pragma unroll
    for (int r = 0; r < CY; ++r) {
      R v[kReads][kWide];
#pragma unroll
      for (int i = 0; i < kReads; ++i) fetch(from + r * kPitch + i * kWide, 0, kWide, v[i]);
#pragma unroll
      for (int p = 0; p < NY; ++p) {
        const int ky = r * UP - p * DOWN;
        if (ky < 0 || ky >= kTaps) continue;
#pragma unroll
        for (int q = 0; q < NX; ++q)
#pragma unroll
          for (int c = 0; c < CX; ++c) {
            const int kx = c * UP - q * DOWN;
            if (kx >= 0 && kx < kTaps) sum[p][q] += s.taps[ky * kTaps + kx] * v[c / kWide][c % kWide];
          }
      }
    }
    store(place(block), tx * NX, ty * NY, sum);
  }

  MATTFACE_BOTH void store(const Place& at, int x, int y, R (&sum)[NY][NX]) const {
    const int64_t ox = at.ox + x, first_oy = at.oy + y;
    const int first = held(-ox, NX), last = held(a.h.out - ox, NX);
    if (first >= last) return;
    const R* grain = a.e.grain(at.sample);
    const R level = a.e.level();
    R factor[1], offset[1];
    if (a.e.on) a.e.channels(at.sample, at.channel, 1, factor, offset);
#pragma unroll
    for (int p = 0; p < NY; ++p) {
      const int64_t oy = first_oy + p, pixel = oy * a.h.out + ox;
      if (oy < 0 || oy >= a.v.out) continue;
      T* to = a.y + (at.sample * a.channels + at.channel) * a.v.out * a.h.out + pixel;
      if (a.add) {
        R old[NX];
        fetch(to, first, last, old);
#pragma unroll
        for (int q = 0; q < NX; ++q) sum[p][q] += old[q];
      }
      if (a.e.on) {
        R noise[NX] = {};
        if (grain) fetch(grain + pixel, first, last, noise);
#pragma unroll
        for (int q = 0; q < NX; ++q) sum[p][q] = sum[p][q] * factor[0] + (noise[q] * level + offset[0]);
        a.e.template apply<false>(sum[p]);
      }
      put(to, first, last, sum[p]);
    }
  }
};

// x and y have channels last, in whole vectors of 16 bytes.
template <typename T, int UP, int DOWN>
struct FilterPixels {
  using R = Exact<T>;
  static constexpr int kThreads = 256, kWide = 16 / sizeof(T), kMostLanes = 8;
  static constexpr int NX = kWide > 4 ? 2 : 4, NY = 2;  // outputs of a thread, which it sums in registers
  static constexpr int CX = needed<UP, DOWN>(NX), CY = needed<UP, DOWN>(NY);
  struct Shared {
    R taps[kTaps * kTaps];
  };

  Resampling<T, T> a;
  int lanes, across, down;  // threads of a block along channels, columns and rows
  int64_t groups, tiles_x, tiles_y;

  static bool fits(const Resampling<T, T>& a) {
    bool whole = a.last && a.stride[1] == 1 && a.channels % kWide == 0 && aligned<T, kWide>(a.x);
    for (int i : {0, 2, 3}) whole = whole && a.stride[i] % kWide == 0;
    return whole && aligned<T, kWide>(a.y);
  }

  explicit FilterPixels(const Resampling<T, T>& a) : a(a) {
    const int64_t chunks = a.channels / kWide;
    lanes = held(chunks, kMostLanes);
    groups = up_to(chunks, lanes);
    const int places = kThreads / lanes;
    across = places >= 128 ? 16 : places >= 64 ? 8 : 4;
    down = places / across;
    tiles_x = up_to(a.h.out + shift<UP>(a.h), across * NX);
    tiles_y = up_to(a.v.out + shift<UP>(a.v), down * NY);
  }
  int64_t blocks() const { return a.samples * tiles_y * tiles_x * groups; }

  MATTFACE_BOTH void load(int64_t, int thread, Shared& s) const {
    if (thread < kTaps * kTaps)
      s.taps[thread] = a.taps.template at<R>(thread / kTaps, thread % kTaps) * R(a.taps.gain);
  }

  MATTFACE_BOTH void compute(int64_t block, int thread, const Shared& s) const {
    const Division group = divide(block, groups), column = divide(group.quotient, tiles_x);
    const Division row = divide(column.quotient, tiles_y);
    const int mine = thread / lanes;
    const int64_t channel = (group.remainder * lanes + thread % lanes) * kWide;
    if (mine >= across * down || channel >= a.channels) return;
    const int64_t oy = (row.remainder * down + mine / across) * NY - shift<UP>(a.v);
    const int64_t ox = (column.remainder * across + mine % across) * NX - shift<UP>(a.h);
    if (oy >= a.v.out || ox >= a.h.out) return;
    R sum[NY][NX][kWide] = {};
    gather(row.quotient, channel, sample<UP, DOWN>(a.v, oy), sample<UP, DOWN>(a.h, ox), s, sum);
    store(row.quotient, channel, oy, ox, sum);
  }

  // Samples from (top, left) on, each read once and given to every output that sees it; a line's reads come first.
  MATTFACE_BOTH void gather(int64_t n, int64_t channel, int64_t top, int64_t left, const Shared& s,
                            R (&sum)[NY][NX][kWide]) const {
    using Wide = Vec<T, kWide>;
    const T* base = a.x + n * a.stride[0] + channel + top * a.stride[2] + left * a.stride[3];
    const int begin = held(-left, CX), end = held(a.h.in - left, CX);
#pragma unroll 1  // all lines' reads at once would not fit into registers
    for (int r = held(-top, CY); r < held(a.v.in - top, CY); ++r) {
      Wide line[CX];
#pragma unroll
      for (int c = 0; c < CX; ++c) {
        const T* at = base + r * a.stride[2] + c * a.stride[3];
        line[c] = c >= begin && c < end ? *reinterpret_cast<const Wide*>(at) : Wide{};
      }
#pragma unroll
      for (int p = 0; p < NY; ++p) {
        const int ky = r * UP - p * DOWN;
        if (ky < 0 || ky >= kTaps) continue;
#pragma unroll
        for (int c = 0; c < CX; ++c)
#pragma unroll
          for (int q = 0; q < NX; ++q) {
            const int kx = c * UP - q * DOWN;
            if (kx < 0 || kx >= kTaps) continue;
            const R tap = s.taps[ky * kTaps + kx];
#pragma unroll
            for (int i = 0; i < kWide; ++i) sum[p][q][i] += tap * R(line[c].v[i]);
          }
      }
    }
  }

  MATTFACE_BOTH void store(int64_t n, int64_t channel, int64_t oy, int64_t ox, R (&sum)[NY][NX][kWide]) const {
    const R* grain = a.e.grain(n);
    const R level = a.e.level();
    R factor[kWide], offset[kWide];
    if (a.e.on) a.e.channels(n, channel, kWide, factor, offset);
#pragma unroll
    for (int p = 0; p < NY; ++p)
#pragma unroll
      for (int q = 0; q < NX; ++q) {
        if (oy + p < 0 || oy + p >= a.v.out || ox + q < 0 || ox + q >= a.h.out) continue;
        const int64_t pixel = (oy + p) * a.h.out + ox + q;
        T* to = a.y + (n * a.v.out * a.h.out + pixel) * a.channels + channel;
        R(&v)[kWide] = sum[p][q];
        if (a.add) {
          R old[kWide];
          fetch(to, 0, kWide, old);
#pragma unroll
          for (int i = 0; i < kWide; ++i) v[i] += old[i];
        }
        if (a.e.on) {
          const R noise = grain ? grain[pixel] * level : R(0);
#pragma unroll
          for (int i = 0; i < kWide; ++i) v[i] = v[i] * factor[i] + (offset[i] + noise);
          a.e.template apply<false>(v);
        }
        Vec<T, kWide> wide;
#pragma unroll
        for (int i = 0; i < kWide; ++i) wide.v[i] = T(v[i]);
        put_all(to, wide);
      }
  }
};

// Any filter, factors and layout: one output per thread.
template <typename S, typename T>
struct FilterAny {
  using R = Exact<T>;
  using Shared = Nothing;
  static constexpr int kThreads = 256;

  Resampling<S, T> a;

  int64_t total() const { return a.samples * a.channels * a.v.out * a.h.out; }
  int64_t blocks() const { return up_to(total(), kThreads); }
  MATTFACE_BOTH void load(int64_t, int, Shared&) const {}

  struct Meeting {
    int64_t sample, tap;  // the first tap of output o that meets a sample, and that sample
  };
  MATTFACE_BOTH static Meeting meeting(const Axis& axis, int64_t o) {
    const int64_t at = o * axis.down - axis.before;
    if (at >= 0) {
      const int64_t i = up_to(at, axis.up);
      return {i, i * axis.up - at};
    }
    const Division d = divide(-at, axis.up);
    return {-d.quotient, d.remainder};
  }

  MATTFACE_BOTH R sum(int64_t n, int64_t channel, int64_t oy, int64_t ox) const {
    const Meeting v = meeting(a.v, oy), h = meeting(a.h, ox);
    const S* plane = a.x + n * a.stride[0] + channel * a.stride[1];
    R total = 0;
    for (int64_t ky = v.tap, i = v.sample; ky < a.taps.rows && i < a.v.in; ky += a.v.up, ++i) {
      if (i < 0) continue;
      const S* line = plane + i * a.stride[2];
      for (int64_t kx = h.tap, j = h.sample; kx < a.taps.cols && j < a.h.in; kx += a.h.up, ++j)
        if (j >= 0) total += a.taps.template at<R>(ky, kx) * R(line[j * a.stride[3]]);
    }
    return total * R(a.taps.gain);
  }

  MATTFACE_BOTH void compute(int64_t block, int thread, Shared&) const {
    const int64_t index = block * kThreads + thread;
    if (index >= a.samples * a.channels * a.v.out * a.h.out) return;
    const Division inner = divide(index, a.last ? a.channels : a.h.out);
    const Division middle = divide(inner.quotient, a.last ? a.h.out : a.v.out);
    const Division outer = divide(middle.quotient, a.last ? a.v.out : a.channels);
    const int64_t channel = a.last ? inner.remainder : outer.remainder;
    const int64_t oy = a.last ? outer.remainder : middle.remainder, ox = a.last ? middle.remainder : inner.remainder;
    R v[1] = {sum(outer.quotient, channel, oy, ox)};
    if (a.add) v[0] += R(a.y[index]);
    if (a.e.on) {
      R factor[1], offset[1];
      a.e.channels(outer.quotient, channel, 1, factor, offset);
      const R* grain = a.e.grain(outer.quotient);
      const R noise = grain ? grain[oy * a.h.out + ox] * a.e.level() : R(0);
      v[0] = v[0] * factor[0] + (offset[0] + noise);
      a.e.template apply<false>(v);
    }
    a.y[index] = T(v[0]);
  }
};

}  // namespace mattface
