// CPU kernels and their registration as mattface_native::NAME, through torch's stable interface, on torch's own threads.
// The callers in _native.py have checked every argument and made the result.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <optional>
#include <type_traits>

#include "depthwise.h"
#include "epilogue.h"
#include "resample.h"
#include "upconv.h"

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
using Ints = std::vector<int64_t>;

namespace mattface {
namespace {

constexpr int64_t kGrain = 16384;     // values a thread should have at least
constexpr int64_t kLine = 8192;       // values of a line that is filtered at once; some lines fit the second cache
constexpr int64_t kHuge = 4 << 20;    // bytes from which fresh memory is worth large pages

// Fresh memory costs a fault per page when it is first written; large pages make that cheap.
void prefer_large_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = 2 << 20;
  if (bytes < kHuge) return;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // advice: may be refused
#endif
}

template <typename R>
R number(const Tensor& t, int64_t i) {
  const void* data = t.const_data_ptr();
  switch (t.scalar_type()) {
    case ScalarType::Double: return R(static_cast<const double*>(data)[i]);
    case ScalarType::BFloat16: return R(float(static_cast<const torch::headeronly::BFloat16*>(data)[i]));
    case ScalarType::Half: return R(float(static_cast<const torch::headeronly::Half*>(data)[i]));
    default: return R(static_cast<const float*>(data)[i]);
  }
}

template <typename R>
std::vector<R> numbers(const MaybeTensor& t, int64_t count, R otherwise) {
  std::vector<R> out(count, otherwise);
  if (t)
    for (int64_t i = 0; i < count; ++i) out[i] = number<R>(*t, i);
  return out;
}

// scale, bias and strength are contiguous; noise is contiguous and of the exact type.
template <typename R>
Epilogue<R> epilogue(const MaybeTensor& scale, const MaybeTensor& noise, const MaybeTensor& strength,
                     const MaybeTensor& bias, int64_t channels, int64_t pixels, int64_t act, double alpha, double gain,
                     double clamp) {
  Epilogue<R> e;
  e.act = static_cast<Act>(act);
  e.alpha = R(alpha), e.gain = R(gain);
  if (clamp >= 0) e.clamp = R(clamp);
  e.bias = numbers<R>(bias, channels, R(0));
  e.scale = numbers<R>(scale, scale ? scale->numel() : channels, R(1));
  e.scale_stride = scale && scale->numel() > channels ? channels : 0;
  if (noise) {
    e.noise = static_cast<const R*>(noise->const_data_ptr());
    e.noise_stride = noise->numel() > pixels ? pixels : 0;
    e.strength = strength ? number<R>(*strength, 0) : R(1);
  }
  return e;
}

// y and x share one dense layout: samples x channels x pixels, or samples x pixels x channels when channels are last.
template <typename T>
void finish_all(const Tensor& y, const Tensor& x, int64_t samples, int64_t channels, int64_t pixels, bool last,
                const Epilogue<typename Exact<T>::type>& e) {
  T* to = static_cast<T*>(y.mutable_data_ptr());
  const T* from = static_cast<const T*>(x.const_data_ptr());
  prefer_large_pages(to, y.numel() * sizeof(T));
  const int64_t width = last && channels > 1 ? channels : 1;  // values of a pixel
  const int64_t rows = samples * (width > 1 ? 1 : channels);
  torch::stable::parallel_for(0, rows * pixels, std::max<int64_t>(1, kGrain / width), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t row = begin / pixels, pixel = begin % pixels;
      const int64_t count = std::min(end - begin, pixels - pixel);
      const int64_t sample = width > 1 ? row : row / channels;
      const Row where{sample, width > 1 ? 0 : row % channels, pixel, count, width};
      finish(from + begin * width, to + begin * width, where, e);
      begin += count;
    }
  });
}

template <typename F>
void for_type(ScalarType type, F&& run) {
  switch (type) {
    case ScalarType::Float: return run(float());
    case ScalarType::Double: return run(double());
    case ScalarType::BFloat16: return run(torch::headeronly::BFloat16());
    case ScalarType::Half: return run(torch::headeronly::Half());
    default: STD_TORCH_CHECK(false, "expected float64, float32, bfloat16 or float16");
  }
}

void epilogue_(Tensor y, Tensor x, MaybeTensor scale, MaybeTensor noise, MaybeTensor strength, MaybeTensor bias,
               int64_t samples, int64_t channels, int64_t pixels, bool last, int64_t act, double alpha, double gain,
               double clamp) {
  for_type(y.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using R = typename Exact<T>::type;
    const auto e = epilogue<R>(scale, noise, strength, bias, channels, pixels, act, alpha, gain, clamp);
    finish_all<T>(y, x, samples, channels, pixels, last, e);
  });
}

// One call of upfirdn2d. Pixels hold `width` values: all channels when they are last, else one.
template <typename T>
class Resampler {
  using R = typename Exact<T>::type;

 public:
  Resampler(const Tensor& y, const Tensor& x, const MaybeTensor& f, const Ints& up, const Ints& down, const Ints& pad,
            bool flip, double gain)
      : y_(static_cast<T*>(y.mutable_data_ptr())), x_(static_cast<const T*>(x.const_data_ptr())) {
    channels = x.size(1), samples = x.size(0);
    width = y.stride(1) == 1 && channels > 1 ? channels : 1;
    for (int i = 0; i < 4; ++i) stride_[i] = x.stride(i);
    prefer_large_pages(y_, y.numel() * sizeof(T));
    const int64_t KH = f ? f->size(0) : 1, KW = f ? f->size(f->dim() - 1) : 1;
    std::vector<R> column(KH), row(KW);
    std::vector<double> taps(f && f->dim() == 1 ? KH : KH * KW, 1.0);
    if (f)
      for (size_t i = 0; i < taps.size(); ++i) taps[flip ? i : taps.size() - 1 - i] = number<double>(*f, i);
    if (f && f->dim() == 1)
      for (int64_t i = 0; i < KH; ++i) column[i] = R(taps[i]), row[i] = R(taps[i] * gain);
    else {
      for (double& tap : taps) tap *= gain;
      separable_ = split(taps, KH, KW, column, row);
    }
    auto across = [&](const std::vector<R>& w) {
      return Axis<R>(x.size(3), y.size(3), up[0], down[0], pad[0], w);
    };
    vertical_.emplace_back(x.size(2), y.size(2), up[1], down[1], pad[2], column);
    if (separable_)
      horizontal_.push_back(across(row));
    else
      for (int64_t k = 0; k < KH; ++k)
        horizontal_.push_back(across({taps.begin() + k * KW, taps.begin() + (k + 1) * KW}));
  }

  // Adds to y instead of replacing it when `add`; applies `e` unless null.
  void run(bool add, const Epilogue<R>* e) {
    const auto &v = vertical_[0], &h = horizontal_[0];
    const int64_t planes = samples * (width > 1 ? 1 : channels);
    const int64_t tile = std::min(h.out, std::max<int64_t>(16, kLine / width));
    const int64_t tiles = (h.out + tile - 1) / tile;
    const int64_t wanted = std::max<int64_t>(1, 8 * torch::stable::get_num_threads() / (planes * tiles));
    const int64_t height = std::max<int64_t>(16, (v.out + wanted - 1) / wanted), bands = (v.out + height - 1) / height;
    const int64_t work = height * tile * width;
    torch::stable::parallel_for(
        0, planes * bands * tiles, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end) {
          Scratch scratch(*this, tile);
          for (int64_t task = begin; task < end; ++task) {
            const int64_t top = task / tiles % bands * height, left = task % tiles * tile;
            const Part part{task / (tiles * bands), top, std::min(v.out, top + height), left,
                            std::min(h.out, left + tile)};
            band(part, scratch, add, e);
          }
        });
  }

  int64_t samples, channels, width;

 private:
  struct Part {
    int64_t plane, top, bottom, left, right;
  };
  // What a thread needs beside its part of y: a line of x, filtered lines, a finished row, lists of rows.
  struct Scratch {
    std::vector<R> line, ring, row, spare, sum;
    std::vector<const R*> rows, ringed;
    int64_t slot, slots;
    Scratch(const Resampler& r, int64_t tile) : slot(tile * r.width), slots(r.vertical_[0].most()) {
      const auto& h = r.horizontal_[0];
      const int64_t seen = (tile * h.down) / h.up + h.most() + 2;
      line.resize(seen * r.width), ring.resize(slot * slots), row.resize(slot);
      spare.resize(slot + 2 * h.up * r.width), ringed.resize(slots);
      if (!r.separable_) sum.resize(slot);
    }
  };

  // Samples [low, low + count) of row i in the exact type, zeros outside; x itself where that needs no change.
  const R* load(const Part& part, int64_t i, int64_t low, int64_t count, std::vector<R>& line) const {
    const bool last = width > 1;
    const int64_t in = horizontal_[0].in, E = width, step = stride_[3];
    const T* row = x_ + i * stride_[2];
    row += last ? part.plane * stride_[0] : part.plane / channels * stride_[0] + part.plane % channels * stride_[1];
    const bool dense = last ? stride_[1] == 1 && step == E : step == 1;
    if constexpr (std::is_same_v<T, R>)
      if (dense && low >= 0 && low + count <= in) return row + low * E;
    const int64_t begin = std::clamp<int64_t>(-low, 0, count), end = std::clamp<int64_t>(in - low, begin, count);
    R* to = line.data();
    std::fill(to, to + begin * E, R(0));
    std::fill(to + end * E, to + count * E, R(0));
    if (dense)
      convert<R>(row + (low + begin) * E, to + begin * E, (end - begin) * E);
    else
      for (int64_t j = begin; j < end; ++j)
        for (int64_t c = 0; c < E; ++c) to[j * E + c] = R(row[(low + j) * step + c * stride_[1]]);
    return to;
  }

  void filter(const Axis<R>& h, const Part& part, int64_t i, Scratch& s, R* to) const {
    const int64_t low = h.first(part.left), right = h.first(part.right - 1);
    const int64_t count = right + static_cast<int64_t>(h.taps(part.right - 1).size()) - low;
    filter_line(h, load(part, i, low, count, s.line), part.left, part.right, width, to, s.rows, s.spare);
  }

  void band(const Part& part, Scratch& s, bool add, const Epilogue<R>* e) const {
    const auto& v = vertical_[0];
    const int64_t n = (part.right - part.left) * width;
    int64_t next = 0;
    for (int64_t o = part.top; o < part.bottom; ++o) {
      const int64_t tap = v.first_tap(o), first = v.first(o), count = v.phases[tap].size();
      const int64_t begin = std::clamp<int64_t>(-first, 0, count);
      const int64_t end = std::clamp<int64_t>(v.in - first, begin, count);
      T* out = y_ + ((part.plane * v.out + o) * horizontal_[0].out + part.left) * width;
      R* to = s.row.data();
      if constexpr (std::is_same_v<T, R>)
        if (!add) to = out;
      if (separable_) {
        for (int64_t i = std::max(next, first + begin); i < first + end; ++i) {
          filter(horizontal_[0], part, i, s, s.ring.data() + i % s.slots * s.slot);
          next = i + 1;
        }
        for (int64_t t = begin; t < end; ++t) s.ringed[t - begin] = s.ring.data() + (first + t) % s.slots * s.slot;
        combine(s.ringed.data(), v.phases[tap].data() + begin, end - begin, to, n);
      } else {
        std::fill(to, to + n, R(0));
        for (int64_t t = begin; t < end; ++t) {
          filter(horizontal_[tap + t * v.up], part, first + t, s, s.sum.data());
          for (int64_t j = 0; j < n; ++j) to[j] += s.sum[j];
        }
      }
      store(part, o, to, out, n, add, e);
    }
  }

  void store(const Part& part, int64_t o, const R* row, T* out, int64_t n, bool add, const Epilogue<R>* e) const {
    if (e) {
      const bool last = width > 1;
      const Row where{last ? part.plane : part.plane / channels, last ? 0 : part.plane % channels,
                      o * horizontal_[0].out + part.left, part.right - part.left, width};
      finish(row, out, where, *e);
    } else if (add) {
      for (int64_t j = 0; j < n; ++j) out[j] = T(R(out[j]) + row[j]);
    } else if constexpr (!std::is_same_v<T, R>) {
      convert<R>(row, out, n);
    }
  }

  T* y_;
  const T* x_;
  int64_t stride_[4];
  bool separable_ = true;
  std::vector<Axis<R>> vertical_, horizontal_;  // one horizontal axis per filter row when the filter is not separable
};

void upfirdn2d_(Tensor y, Tensor x, MaybeTensor f, Ints up, Ints down, Ints pad, bool flip, double gain, bool add) {
  for_type(y.scalar_type(), [&](auto zero) {
    Resampler<decltype(zero)>(y, x, f, up, down, pad, flip, gain).run(add, nullptr);
  });
}

void upfirdn2d_epilogue_(Tensor y, Tensor x, MaybeTensor f, Ints up, Ints down, Ints pad, bool flip, double gain,
                         MaybeTensor scale, MaybeTensor noise, MaybeTensor strength, MaybeTensor bias, int64_t act,
                         double alpha, double act_gain, double clamp) {
  for_type(y.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using R = typename Exact<T>::type;
    const int64_t pixels = y.size(2) * y.size(3);
    const auto e = epilogue<R>(scale, noise, strength, bias, y.size(1), pixels, act, alpha, act_gain, clamp);
    Resampler<T>(y, x, f, up, down, pad, flip, gain).run(false, &e);
  });
}

// Input rows [first, first + rows) of one sample of an up-convolution, whose columns are (rows * width, 9 * O). A row is
// finished when the next one is there, so its results come with the next call, the last row's with its own.
void upconv_rows_(Tensor y, MaybeTensor before, Tensor columns, int64_t sample, int64_t first, Tensor f, double f_gain,
                  MaybeTensor scale, MaybeTensor noise, MaybeTensor strength, MaybeTensor bias, int64_t act,
                  double alpha, double gain, double clamp) {
  for_type(y.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using R = typename Exact<T>::type;
    const int64_t O = y.size(1), height = y.size(2) / 2, width = y.size(3) / 2, line = width * 9 * O;
    const int64_t rows = columns.numel() / line, kept = before ? before->numel() / line : 0;
    R g_y[kTaps], g_x[kTaps];
    for (int k = 0; k < kTaps; ++k) g_y[k] = number<R>(f, kTaps - 1 - k), g_x[k] = R(g_y[k] * f_gain);
    const auto e = epilogue<R>(scale, noise, strength, bias, O, 4 * height * width, act, alpha, gain, clamp);
    const T* here = static_cast<const T*>(columns.const_data_ptr());
    const T* earlier = before ? static_cast<const T*>(before->const_data_ptr()) + (kept - 2) * line : nullptr;
    auto at = [&](int64_t row) -> const T* {  // null beyond the picture
      if (row < 0 || row >= height) return nullptr;
      return row >= first ? here + (row - first) * line : earlier + (row - first + 2) * line;
    };
    T* to = static_cast<T*>(y.mutable_data_ptr()) + sample * 4 * height * width * O;
    if (first == 0) prefer_large_pages(to, 4 * height * width * O * sizeof(T));
    const int64_t low = std::max<int64_t>(0, first - 1), high = first + rows - (first + rows < height ? 1 : 0);
    const int64_t spans = (width + kSpan - 1) / kSpan;
    const std::vector<T> zeros(9 * O, T(0));
    torch::stable::parallel_for(0, (high - low) * spans, 1, [&](int64_t begin, int64_t end) {
      std::vector<R> room;
      for (int64_t task = begin; task < end; ++task) {
        const int64_t row = low + task / spans, from = task % spans * kSpan;
        const T *above = at(row - 1), *below = at(row + 1);
        const ThreeRows<T> three{above ? above : zeros.data(), at(row), below ? below : zeros.data(),
                                 above ? 9 * O : 0, below ? 9 * O : 0, width, O};
        finish_two_rows(three, row, from, std::min(width, from + kSpan), g_y, g_x, e, sample, to, room);
      }
    });
  });
}

// kernel is (9, C); factors (B, C), or (B, 4 C) for the bands of a Haar transform: contiguous and of the exact type.
void depthwise_(Tensor y, Tensor x, Tensor kernel, Tensor factors, bool wavelet) {
  for_type(y.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    using R = typename Exact<T>::type;
    const int64_t samples = y.size(0), C = y.size(1), height = y.size(2), width = y.size(3);
    prefer_large_pages(y.mutable_data_ptr(), y.numel() * sizeof(T));
    const int64_t tile = Depthwise<T>::tile(width, C), tiles = (width + tile - 1) / tile;
    const int64_t bands = (height + kBandRows - 1) / kBandRows, each = factors.size(1);
    torch::stable::parallel_for(0, samples * bands * tiles, 1, [&](int64_t begin, int64_t end) {
      std::vector<R> ring(3 * (tile + 2) * C);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t sample = task / (bands * tiles), top = task / tiles % bands * kBandRows;
        const int64_t left = task % tiles * tile;
        const Depthwise<T> one{static_cast<const T*>(x.const_data_ptr()) + sample * x.stride(0),
                               static_cast<T*>(y.mutable_data_ptr()) + sample * height * width * C,
                               x.stride(2), x.stride(3), height, width, C,
                               static_cast<const R*>(kernel.const_data_ptr()),
                               static_cast<const R*>(factors.const_data_ptr()) + sample * each, wavelet};
        one.run(top, std::min(height, top + kBandRows), left, std::min(width, left + tile), ring.data());
      }
    });
  });
}

}  // namespace
}  // namespace mattface

STABLE_TORCH_LIBRARY(mattface_native, m) {
  m.def(
      "epilogue_(Tensor(a!) y, Tensor x, Tensor? scale, Tensor? noise, Tensor? strength, Tensor? bias, int samples, "
      "int channels, int pixels, bool last, int act, float alpha, float gain, float clamp) -> ()");
  m.def(
      "upfirdn2d_(Tensor(a!) y, Tensor x, Tensor? f, int[] up, int[] down, int[] pad, bool flip, float gain, bool add) "
      "-> ()");
  m.def(
      "upfirdn2d_epilogue_(Tensor(a!) y, Tensor x, Tensor? f, int[] up, int[] down, int[] pad, bool flip, float gain, "
      "Tensor? scale, Tensor? noise, Tensor? strength, Tensor? bias, int act, float alpha, float act_gain, "
      "float clamp) -> ()");
  m.def(
      "upconv_rows_(Tensor(a!) y, Tensor? before, Tensor columns, int sample, int first, Tensor f, float f_gain, "
      "Tensor? scale, Tensor? noise, Tensor? strength, Tensor? bias, int act, float alpha, float gain, float clamp) "
      "-> ()");
  m.def("depthwise_(Tensor(a!) y, Tensor x, Tensor kernel, Tensor factors, bool wavelet) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(mattface_native, CPU, m) {
  m.impl("epilogue_", TORCH_BOX(&mattface::epilogue_));
  m.impl("upfirdn2d_", TORCH_BOX(&mattface::upfirdn2d_));
  m.impl("upfirdn2d_epilogue_", TORCH_BOX(&mattface::upfirdn2d_epilogue_));
  m.impl("depthwise_", TORCH_BOX(&mattface::depthwise_));
  m.impl("upconv_rows_", TORCH_BOX(&mattface::upconv_rows_));
}
