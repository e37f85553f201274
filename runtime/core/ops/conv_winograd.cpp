#include "core/ops/conv_winograd.h"

#include "core/checked.h"

namespace lutc::ops {

using kernels::DenseKernels;
using kernels::Tiling;

namespace {

constexpr int64_t kProducts = 16;  ///< of a tile
constexpr int64_t kLine = 16;      ///< floats of a cache line

/// G g G' of one 3 x 3 kernel; result p goes to u[p * stride].
void transform_kernel(const float* g, float* u, int64_t stride) {
  double rows[4][3];
  for (int j = 0; j < 3; ++j) {
    const double a = g[j], b = g[3 + j], c = g[6 + j];
    rows[0][j] = a;
    rows[1][j] = (a + b + c) / 2;
    rows[2][j] = (a - b + c) / 2;
    rows[3][j] = c;
  }
  for (int i = 0; i < 4; ++i) {
    const double a = rows[i][0], b = rows[i][1], c = rows[i][2];
    const double out[4] = {a, (a + b + c) / 2, (a - b + c) / 2, c};
    for (int j = 0; j < 4; ++j) u[(4 * i + j) * stride] = static_cast<float>(out[j]);
  }
}

/// From one product's matrix to the next, with room for a vector behind: an odd number of cache lines, since a tile's
/// 16 values are written and read together, and lines a power of two apart would meet in one set of the cache.
int64_t product_stride(int64_t tiles, int64_t channels) {
  return ((tiles * channels + 2 * kLine - 1) / kLine | 1) * kLine;
}

}  // namespace

/// Of a thread: the transformed input of a chunk and the products that become its output.
struct WinogradConv::Scratch {
  int64_t* offsets;
  float *input, *products;
  Scratch(const WinogradConv& conv, Pieces* pieces) : offsets(pieces->ints(conv.shape_.group_inputs)) {
    const int64_t tiles = conv.chunk_rows_ * conv.tile_columns_;  // no more than output pixels
    input = pieces->floats(floats(tiles, conv.shape_.group_inputs));
    products = pieces->floats(floats(tiles, conv.part_));
  }
  /// Of all 16 products, each a matrix of channels x tiles.
  static int64_t floats(int64_t tiles, int64_t channels) {
    int64_t n = 0;
    const bool fits =
        checked_mul(tiles, channels, &n) && checked_add(n, int64_t{3 * kLine}, &n) && checked_mul(n, kProducts, &n);
    return fits ? n : -1;
  }
};

bool WinogradConv::suits(const Window& window, int64_t group_inputs, int64_t group_outputs) {
  for (int d = 0; d < 2; ++d) {
    if (window.kernel[d] != 3 || window.strides[d] != 1 || window.dilations[d] != 1) return false;
  }
  return group_inputs >= 8 && group_outputs >= 8;
}

bool WinogradConv::suits(const ConvShape& shape) {
  return suits(shape.window, shape.group_inputs, shape.group_outputs) && shape.g.out[0] >= 4 && shape.g.out[1] >= 4;
}

WinogradConv::WinogradConv(const ConvShape& shape, const DenseKernels& dense, int threads)
    : shape_(shape), dense_(dense), block_(DirectConv::block_rows(dense, shape.group_outputs)) {
  constexpr int64_t kChunkFloats = 128 * 1024, kLeastTiles = 64;
  tile_rows_ = (shape.g.out[0] + 1) / 2;
  tile_columns_ = (shape.g.out[1] + 1) / 2;
  const int64_t images = shape.batch * shape.groups, channels = shape.group_inputs + shape.group_outputs;
  const int64_t tiles = std::max(kLeastTiles, kChunkFloats / (kProducts * channels));
  chunk_rows_ = std::min(tile_rows_, std::max<int64_t>(1, tiles / tile_columns_));
  part_ = shape.group_outputs;
  if (threads > 1 && images < threads && images > 0) {
    const int64_t shares = (threads + images - 1) / images;
    if (tile_rows_ * tile_columns_ >= 2 * dense.lanes * shares && tile_rows_ >= shares) {
      chunk_rows_ = std::min(chunk_rows_, (tile_rows_ + shares - 1) / shares);
    } else {
      const int64_t blocks = (shape.group_outputs + block_ - 1) / block_;
      part_ = (blocks + shares - 1) / shares * block_;
    }
  }
  chunks_ = (tile_rows_ + chunk_rows_ - 1) / chunk_rows_;
  chunk_rows_ = (tile_rows_ + chunks_ - 1) / chunks_;
  chunks_ = (tile_rows_ + chunk_rows_ - 1) / chunk_rows_;
  parts_ = (shape.group_outputs + part_ - 1) / part_;
  Pieces pieces;
  Scratch(*this, &pieces);
  thread_bytes_ = pieces.bytes();
  if (thread_bytes_ < 0 || !checked_mul(thread_bytes_, int64_t{threads}, &bytes_)) bytes_ = -1;
}

void WinogradConv::pack(const DenseKernels& dense, const float* w, int64_t outputs, int64_t groups,
                        int64_t group_inputs, float* packed) {
  const int64_t group_outputs = outputs / groups, matrix = group_outputs * group_inputs;
  const int64_t block = DirectConv::block_rows(dense, group_outputs);
  std::vector<float> transformed(static_cast<size_t>(kProducts * matrix));
  for (int64_t g = 0; g < groups; ++g, w += 9 * matrix) {
    for (int64_t i = 0; i < matrix; ++i) transform_kernel(w + 9 * i, transformed.data() + i, matrix);
    for (int64_t p = 0; p < kProducts; ++p, packed += matrix)
      dense.pack_direct(transformed.data() + p * matrix, group_outputs, group_inputs, block, packed);
  }
}

Tiling WinogradConv::tiling(int64_t chunk) const {
  const int64_t first = chunk * chunk_rows_;
  return {shape_.g.in[0],   shape_.g.in[1], shape_.g.pads[0],
          shape_.g.pads[1], first,          std::min(chunk_rows_, tile_rows_ - first),
          tile_columns_};
}

void WinogradConv::run(RunContext& ctx, const ConvOperands& operands, int threads) const {
  const ConvShape& s = shape_;
  char* memory = static_cast<char*>(ctx.scratch());
  ctx.pool().parallel_for(
      s.batch * s.groups * chunks_ * parts_, 1, threads, [&](int64_t begin, int64_t end, int worker) {
        Pieces pieces(memory + worker * thread_bytes_);
        const Scratch mine(*this, &pieces);
        int64_t held = -1;
        for (int64_t unit = begin; unit < end; ++unit) {
          const int64_t part = unit % parts_, chunk = unit / parts_ % chunks_, image = unit / parts_ / chunks_;
          const Tiling tiles = tiling(chunk);
          const int64_t count = tiles.rows * tiles.columns, input = product_stride(count, s.group_inputs);
          if (unit / parts_ != held) {
            const float* x = operands.x + image * s.group_inputs * s.in_pixels;
            for (int64_t c = 0; c < s.group_inputs; ++c) {
              mine.offsets[c] = c * count;
              dense_.winograd_input(x + c * s.in_pixels, tiles, mine.input + c * count, input);
            }
            held = unit / parts_;
          }
          const int64_t output = part * part_, outputs = std::min(part_, s.group_outputs - output);
          const int64_t product = product_stride(count, outputs);
          const int64_t group = image % s.groups, matrix = s.group_outputs * s.group_inputs;
          const float* w = operands.packed + group * kProducts * matrix + output * s.group_inputs;
          for (int64_t p = 0; p < kProducts; ++p) {
            dense_.direct(mine.input + p * input, mine.offsets, s.group_inputs, w + p * matrix, outputs, block_, count,
                          mine.products + p * product, count, kernels::Epilogue());
          }
          for (int64_t n = 0; n < outputs; ++n) {
            const int64_t offset = (image * s.group_outputs + output + n) * s.out_pixels;
            dense_.winograd_output(mine.products + n * count, product, tiles, operands.y + offset, s.g.out[0],
                                   s.g.out[1], operands.epilogue(s, group * s.group_outputs + output + n, offset));
          }
        }
      });
}

}  // namespace lutc::ops
