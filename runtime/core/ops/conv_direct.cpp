#include "core/ops/conv_direct.h"

#include <numeric>

#include "core/checked.h"

namespace lutc::ops {

using kernels::DenseKernels;
using kernels::Epilogue;

Epilogue ConvOperands::epilogue(const ConvShape& shape, int64_t channel, int64_t offset) const {
  Epilogue e;
  if (bias != nullptr) e.row_bias = bias + channel;
  if (residual != nullptr) e.residual = residual + offset;
  e.residual_stride = shape.out_pixels;
  e.activation = activation;
  e.activation_after_residual = activation_after_residual;
  return e;
}

/// Shared by the threads: where each term reads, the packed weights; then a chunk's copy for each thread.
struct DirectConv::Scratch {
  int64_t* offsets;
  float* weights = nullptr;
  float* planes = nullptr;
  Scratch(const DirectConv& conv, Pieces* shared, Pieces* own) : offsets(shared->ints(conv.shape_.depth)) {
    if (!conv.weights_packed_) weights = shared->floats(conv.shape_.outputs * conv.shape_.depth);
    if (!conv.in_place_) {
      int64_t floats = 0;
      const bool fits = checked_mul(conv.plane_floats(conv.chunk_rows_), conv.shape_.group_inputs, &floats) &&
                        checked_add(floats, int64_t{conv.dense_.lanes}, &floats);
      planes = own->floats(fits ? floats : -1);
    }
  }
};

DirectConv::DirectConv(const ConvShape& shape, const DenseKernels& dense, bool weights_packed, int threads)
    : shape_(shape), dense_(dense), weights_packed_(weights_packed), block_(block_rows(dense, shape.group_outputs)) {
  plan_expansion();
  cut(threads);
  Pieces shared, own;
  Scratch(*this, &shared, &own);
  thread_bytes_ = own.bytes();
  bytes_ = -1;
  int64_t all = 0;
  if (thread_bytes_ >= 0 && shared.bytes() >= 0 && checked_mul(thread_bytes_, int64_t{threads}, &all) &&
      checked_add(all, shared.bytes(), &all))
    bytes_ = all;
}

int64_t DirectConv::block_rows(const DenseKernels& dense, int64_t group_outputs) {
  const int64_t blocks = (group_outputs + dense.direct_rows - 1) / dense.direct_rows;
  return (group_outputs + blocks - 1) / blocks;
}

void DirectConv::pack(const DenseKernels& dense, const float* w, int64_t outputs, int64_t groups, int64_t depth,
                      float* packed) {
  const int64_t group_outputs = outputs / groups;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t offset = g * group_outputs * depth;
    dense.pack_direct(w + offset, group_outputs, depth, block_rows(dense, group_outputs), packed + offset);
  }
}

void DirectConv::plan_expansion() {
  const Geometry& g = shape_.g;
  // A row of pixels is taken for a column: taps along it then need no copies of their own.
  const bool upright = g.in[0] == 1 && shape_.window.kernel[0] == 1 && g.pads[0] + g.pads[2] == 0;
  const int down = upright ? 1 : 0, across = upright ? 0 : 1;
  const Window& window = shape_.window;
  const int64_t stride = window.strides[down], dilation = window.dilations[down];
  how_.in_height = g.in[down];
  how_.in_width = g.in[across];
  how_.columns = window.kernel[across];
  how_.column_stride = window.strides[across];
  how_.column_dilation = window.dilations[across];
  how_.left = g.pads[across];
  how_.phases = std::min(window.kernel[down], stride / std::gcd(stride, dilation));
  how_.row_stride = stride;
  how_.row_dilation = dilation;
  how_.top = g.pads[down];
  how_.out_width = width_ = g.out[across];
  rows_ = g.out[down];

  const bool unpadded = g.pads[0] + g.pads[1] + g.pads[2] + g.pads[3] == 0;
  in_place_ = shape_.taps == 1 && window.strides[0] == 1 && window.strides[1] == 1 && unpadded &&
              shape_.out_pixels >= dense_.lanes;
  if (in_place_) {
    rows_ = shape_.out_pixels;
    width_ = 1;
  }
}

/// Floats of one channel's copy for so many output rows, or -1.
int64_t DirectConv::plane_floats(int64_t rows) const {
  const int64_t halo = (shape_.taps / how_.columns - 1) * how_.row_dilation / how_.row_stride;
  int64_t floats = 0;
  const bool fits = checked_add(rows, halo, &floats) && checked_mul(floats, how_.out_width, &floats) &&
                    checked_mul(floats, how_.phases, &floats) && checked_mul(floats, how_.columns, &floats);
  return fits ? floats : -1;
}

/// Chunks of rows whose copy stays in the cache, and pieces enough for the threads.
void DirectConv::cut(int threads) {
  constexpr int64_t kCopyFloats = 96 * 1024, kShallowFloats = 6 * 1024;  // of a copy in L2; of one read only once
  const int64_t lanes = dense_.lanes, images = shape_.batch * shape_.groups;
  const int64_t grain = lanes / std::gcd(lanes, width_);  // rows of whole vectors
  int64_t chunk = rows_;
  const int64_t limit = shape_.group_outputs <= 2 ? kShallowFloats : kCopyFloats;
  const int64_t channel_limit = std::max<int64_t>(1, limit / shape_.group_inputs);
  if (in_place_) {
    chunk = std::min(chunk, channel_limit);
  } else {
    const int64_t none = plane_floats(0), all = plane_floats(rows_);
    if (none < 0 || all < 0 || all > channel_limit)
      chunk = none < 0 || none >= channel_limit ? 1 : (channel_limit - none) / std::max<int64_t>(1, all / rows_);
  }
  part_ = shape_.group_outputs;
  if (threads > 1 && images < threads && images > 0) {
    const int64_t shares = (threads + images - 1) / images;
    if (shape_.out_pixels >= 2 * lanes * shares && rows_ >= shares) {
      chunk = std::min(chunk, (rows_ + shares - 1) / shares);
    } else {
      const int64_t blocks = (shape_.group_outputs + block_ - 1) / block_;
      part_ = (blocks + shares - 1) / shares * block_;
    }
  }
  const int64_t least = (lanes + width_ - 1) / width_;  // rows that fill a vector
  chunk = std::max(chunk, least);
  if (chunk > grain) chunk = (chunk + grain - 1) / grain * grain;
  chunks_ = std::max<int64_t>(1, rows_ / std::min(chunk, rows_));
  chunk_rows_ = (rows_ + chunks_ - 1) / chunks_;
  if (chunk_rows_ > grain) chunk_rows_ = (chunk_rows_ + grain - 1) / grain * grain;
  chunks_ = (rows_ + chunk_rows_ - 1) / chunk_rows_;
  parts_ = (shape_.group_outputs + part_ - 1) / part_;
}

void DirectConv::fill_offsets(int64_t* offsets) const {
  if (in_place_) {
    for (int64_t c = 0; c < shape_.depth; ++c) offsets[c] = c * shape_.in_pixels;
    return;
  }
  const int64_t phase = plane_floats(chunk_rows_) / (how_.columns * how_.phases), column = phase * how_.phases;
  const int64_t plane = column * how_.columns, kh = shape_.taps / how_.columns;
  int64_t* next = offsets;
  for (int64_t u = 0; u < kh; ++u)
    for (int64_t v = 0; v < how_.columns; ++v)
      *next++ = v * column + u % how_.phases * phase + u * how_.row_dilation / how_.row_stride * how_.out_width;
  for (int64_t t = shape_.taps; t < shape_.depth; ++t) offsets[t] = offsets[t - shape_.taps] + plane;
}

void DirectConv::run(RunContext& ctx, const ConvOperands& operands, int threads) const {
  Pieces shared(ctx.scratch()), none;
  const Scratch common(*this, &shared, &none);
  fill_offsets(common.offsets);
  const float* packed = operands.packed;
  if (packed == nullptr) {
    pack(dense_, operands.w, shape_.outputs, shape_.groups, shape_.depth, common.weights);
    packed = common.weights;
  }
  const ConvShape& s = shape_;
  const int64_t chunk_positions = chunk_rows_ * width_,
                phase_rows = in_place_ ? 0 : plane_floats(chunk_rows_) / (how_.columns * how_.phases * how_.out_width);
  char* memory = static_cast<char*>(ctx.scratch()) + shared.bytes();
  ctx.pool().parallel_for(
      s.batch * s.groups * chunks_ * parts_, 1, threads, [&](int64_t begin, int64_t end, int worker) {
        Pieces unused, own(memory + worker * thread_bytes_);
        const Scratch mine(*this, &unused, &own);
        int64_t held = -1;
        for (int64_t unit = begin; unit < end; ++unit) {
          const int64_t part = unit % parts_, chunk = unit / parts_ % chunks_, image = unit / parts_ / chunks_;
          const int64_t first = chunk * chunk_positions, group = image % s.groups;
          const float* x = operands.x + image * s.group_inputs * s.in_pixels;
          if (in_place_) {
            x += first;
          } else {
            if (unit / parts_ != held) {
              kernels::Expansion how = how_;
              how.first_row = chunk * chunk_rows_;
              how.rows = phase_rows;
              dense_.expand(x, s.in_pixels, s.group_inputs, how, mine.planes);
              held = unit / parts_;
            }
            x = mine.planes;
          }
          const int64_t output = part * part_, outputs = std::min(part_, s.group_outputs - output);
          const int64_t channel = group * s.group_outputs + output;
          const int64_t offset = (image * s.group_outputs + output) * s.out_pixels + first;
          dense_.direct(x, common.offsets, s.depth, packed + channel * s.depth, outputs, block_,
                        std::min(chunk_positions, s.out_pixels - first), operands.y + offset, s.out_pixels,
                        operands.epilogue(s, channel, offset));
        }
      });
}

}  // namespace lutc::ops
