// CUDA kernels and their registration as MATTFACE_NAMESPACE::NAME, through torch's stable interface. The same ops as in
// cpu.cpp; parameters are read on the GPU, so that nothing waits and CUDA graphs can record every call. Compiled as C++
// this runs on CPU tensors, for tests.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/macros.h>
#define MATTFACE_DEVICE CUDA
#else
#define MATTFACE_DEVICE CPU
#endif

#include "filter.cuh"
#include "finish.cuh"

using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
using Ints = std::vector<int64_t>;

namespace mattface {
namespace {

// Makes y's device the current one; its current stream takes the kernels.
class Turn {
 public:
#ifdef __CUDACC__
  explicit Turn(const Tensor& y) : guard_(y.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(y.get_device_index(), &stream));
    queue = static_cast<Queue>(stream);
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;

 public:
#else
  explicit Turn(const Tensor&) {}
#endif
  Queue queue{};
};

void check_place(const Tensor& y, const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.is_cuda() == y.is_cuda() && t.get_device_index() == y.get_device_index(), "expected ", name,
                  " on the device of x; move it there");
}

Loose loose(const Tensor& y, const MaybeTensor& t, const char* name) {
  if (!t) return {};
  check_place(y, *t, name);
  return {t->const_data_ptr(), t->scalar_type()};
}

template <typename F>
void for_type(ScalarType type, F&& run) {
  switch (type) {
    case ScalarType::Float: return run(float());
    case ScalarType::Double: return run(double());
    case ScalarType::BFloat16: return run(BFloat16());
    case ScalarType::Half: return run(Half());
    default: STD_TORCH_CHECK(false, "expected float64, float32, bfloat16 or float16");
  }
}

// scale, bias and strength are contiguous; noise is contiguous and of the exact type.
template <typename R>
Finish<R> finish(const Tensor& y, const MaybeTensor& scale, const MaybeTensor& noise, const MaybeTensor& strength,
                 const MaybeTensor& bias, int64_t channels, int64_t pixels, int64_t act, double alpha, double gain,
                 double clamp) {
  Finish<R> e;
  e.on = true;
  e.act = static_cast<Act>(act);
  e.alpha = R(alpha), e.gain = R(gain);
  if (clamp >= 0) e.clamp = R(clamp);
  e.scale = loose(y, scale, "scale"), e.strength = loose(y, strength, "strength"), e.bias = loose(y, bias, "bias");
  e.scale_stride = scale && scale->numel() > channels ? channels : 0;
  if (noise) {
    check_place(y, *noise, "noise");
    e.noise = static_cast<const R*>(noise->const_data_ptr());
    e.noise_stride = noise->numel() > pixels ? pixels : 0;
  }
  return e;
}

template <bool Curved, typename T>
void finish_as(T* y, const T* x, int64_t samples, int64_t channels, int64_t pixels, bool last,
               const Finish<Exact<T>>& e, Queue queue) {
  if (last && channels > 1) {
    const FinishPixels<T, Curved> kernel{y, x, samples, channels, pixels, e};
    launch(kernel, kernel.blocks(), queue);
  } else {
    const FinishPlanes<T, Curved> kernel{y, x, samples * channels, channels, pixels, e};
    launch(kernel, kernel.blocks(), queue);
  }
}

// y and x share one dense layout: samples x channels x pixels, or samples x pixels x channels when channels are last.
template <typename T>
void finish_all(T* y, const T* x, int64_t samples, int64_t channels, int64_t pixels, bool last,
                const Finish<Exact<T>>& e, Queue queue) {
  if (e.curved())
    finish_as<true>(y, x, samples, channels, pixels, last, e, queue);
  else
    finish_as<false>(y, x, samples, channels, pixels, last, e, queue);
}

void epilogue_(Tensor y, Tensor x, MaybeTensor scale, MaybeTensor noise, MaybeTensor strength, MaybeTensor bias,
               int64_t samples, int64_t channels, int64_t pixels, bool last, int64_t act, double alpha, double gain,
               double clamp) {
  if (y.numel() == 0) return;
  check_place(y, x, "every tensor");
  const Turn turn(y);
  for_type(y.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto e =
        finish<Exact<T>>(y, scale, noise, strength, bias, channels, pixels, act, alpha, gain, clamp);
    finish_all(static_cast<T*>(y.mutable_data_ptr()), static_cast<const T*>(x.const_data_ptr()), samples, channels,
               pixels, last, e, turn.queue);
  });
}

template <int UP, int DOWN, typename T>
void filter_four(const Resampling<T, T>& a, Queue queue) {
  if (FilterPixels<T, UP, DOWN>::fits(a)) {
    const FilterPixels<T, UP, DOWN> kernel(a);
    launch(kernel, kernel.blocks(), queue);
  } else if (!a.last) {
    const FilterPlanes<T, UP, DOWN> kernel(a);
    launch(kernel, kernel.blocks(), queue);
  } else {
    const FilterAny<T, T> kernel{a};
    launch(kernel, kernel.blocks(), queue);
  }
}

constexpr int64_t kLongestOuter = 8;  // a longer 1-D filter is applied axis by axis

// Rows first, into memory of the exact type in y's layout, then columns.
template <typename T>
void filter_twice(const Tensor& x, const Resampling<T, T>& a, Queue queue) {
  using R = Exact<T>;
  const auto type = std::is_same_v<R, double> ? ScalarType::Double : ScalarType::Float;
  const Ints shape{a.samples, a.channels, a.v.in, a.h.out};
  const Tensor between = torch::stable::new_empty(x, shape, type);
  const int64_t C = a.channels, H = a.v.in, W = a.h.out;
  R* const data = static_cast<R*>(between.mutable_data_ptr());
  Resampling<T, R> rows{data, a.x, {}, a.samples, C, {H, H, 1, 1, 0}, a.h, a.taps, a.last, false, Finish<R>()};
  std::copy(a.stride, a.stride + 4, rows.stride);
  rows.taps.rows = 1, rows.taps.outer = false, rows.taps.gain = 1;
  Resampling<R, T> columns{a.y, data, {C * H * W, H * W, W, 1}, a.samples, C, a.v, {W, W, 1, 1, 0}, a.taps, a.last,
                           a.add, a.e};
  if (a.last) columns.stride[1] = 1, columns.stride[2] = W * C, columns.stride[3] = C;
  columns.taps.cols = 1, columns.taps.outer = false;
  const FilterAny<T, R> across{rows};
  launch(across, across.blocks(), queue);
  const FilterAny<R, T> down{columns};
  launch(down, down.blocks(), queue);
}

template <typename T>
void filter_all(const Tensor& x, const Resampling<T, T>& a, Queue queue) {
  const bool four = a.taps.rows == kTaps && a.taps.cols == kTaps, even = a.v.up == a.h.up && a.v.down == a.h.down;
  if (a.taps.outer && a.taps.rows > kLongestOuter) return filter_twice(x, a, queue);
  if (four && even && a.v.up == 1 && a.v.down == 1) return filter_four<1, 1>(a, queue);
  if (four && even && a.v.up == 2 && a.v.down == 1) return filter_four<2, 1>(a, queue);
  if (four && even && a.v.up == 1 && a.v.down == 2) return filter_four<1, 2>(a, queue);
  const FilterAny<T, T> kernel{a};
  launch(kernel, kernel.blocks(), queue);
}

template <typename T>
Resampling<T, T> resampling(const Tensor& y, const Tensor& x, const MaybeTensor& f, const Ints& up, const Ints& down,
                            const Ints& pad, bool flip, double gain, bool add) {
  Resampling<T, T> a{};
  a.y = static_cast<T*>(y.mutable_data_ptr()), a.x = static_cast<const T*>(x.const_data_ptr());
  for (int i = 0; i < 4; ++i) a.stride[i] = x.stride(i);
  a.samples = x.size(0), a.channels = x.size(1);
  a.v = {x.size(2), y.size(2), up[1], down[1], pad[2]}, a.h = {x.size(3), y.size(3), up[0], down[0], pad[0]};
  a.taps.f = loose(y, f, "f");
  if (f) a.taps.rows = f->size(0), a.taps.cols = f->size(f->dim() - 1), a.taps.outer = f->dim() == 1;
  a.taps.flip = flip, a.taps.gain = gain;
  a.last = y.stride(1) == 1 && a.channels > 1;
  a.add = add;
  return a;
}

void upfirdn2d_(Tensor y, Tensor x, MaybeTensor f, Ints up, Ints down, Ints pad, bool flip, double gain, bool add) {
  if (y.numel() == 0) return;
  check_place(y, x, "every tensor");
  const Turn turn(y);
  for_type(y.scalar_type(), [&](auto zero) {
    filter_all(x, resampling<decltype(zero)>(y, x, f, up, down, pad, flip, gain, add), turn.queue);
  });
}

void upfirdn2d_epilogue_(Tensor y, Tensor x, MaybeTensor f, Ints up, Ints down, Ints pad, bool flip, double gain,
                         MaybeTensor scale, MaybeTensor noise, MaybeTensor strength, MaybeTensor bias, int64_t act,
                         double alpha, double act_gain, double clamp) {
  if (y.numel() == 0) return;
  check_place(y, x, "every tensor");
  const Turn turn(y);
  for_type(y.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t pixels = y.size(2) * y.size(3);
    auto a = resampling<T>(y, x, f, up, down, pad, flip, gain, false);
    const auto e = finish<Exact<T>>(y, scale, noise, strength, bias, a.channels, pixels, act, alpha, act_gain, clamp);
    if (!e.curved()) a.e = e;
    filter_all(x, a, turn.queue);
    if (e.curved()) finish_all<T>(a.y, a.y, a.samples, a.channels, pixels, a.last, e, turn.queue);
  });
}

}  // namespace
}  // namespace mattface

#define MATTFACE_LIBRARY(name) STABLE_TORCH_LIBRARY(name, m)
#define MATTFACE_KERNELS(name, device) STABLE_TORCH_LIBRARY_IMPL(name, device, m)

MATTFACE_LIBRARY(MATTFACE_NAMESPACE) {
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
}

MATTFACE_KERNELS(MATTFACE_NAMESPACE, MATTFACE_DEVICE) {
  m.impl("epilogue_", TORCH_BOX(&mattface::epilogue_));
  m.impl("upfirdn2d_", TORCH_BOX(&mattface::upfirdn2d_));
  m.impl("upfirdn2d_epilogue_", TORCH_BOX(&mattface::upfirdn2d_epilogue_));
}
