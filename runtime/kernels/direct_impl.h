// Convolution as an implicit product: lanes are output positions, which read the (expanded) image in place. Part of
// dense_impl.h.
#pragma once

namespace lutc::kernels {
namespace {

/// The sums of kRows outputs at kVectors vectors of positions.
template <int kRows, int kVectors>
LUTC_INLINE void accumulate(const float* const (&x)[kVectors], const int64_t* __restrict offsets, int64_t terms,
                            const float* __restrict w, Block<kRows, kVectors>& block) {
  Float acc[kRows][kVectors];
#pragma GCC unroll 32
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) acc[r][v] = block.acc[r][v];
  for (int64_t t = 0; t < terms; ++t, w += kRows) {
    Float pixels[kVectors];
    const int64_t offset = offsets[t];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) pixels[v] = V::load(x[v] + offset);
#pragma GCC unroll 32
    for (int r = 0; r < kRows; ++r) {
      const Float weight = V::set1(w[r]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) acc[r][v] = V::fma(weight, pixels[v], acc[r][v]);
    }
  }
#pragma GCC unroll 32
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) block.acc[r][v] = acc[r][v];
}

/// What one call of `direct` has in common for all its blocks.
struct DirectCall {
  const float* x;
  const int64_t* offsets;
  int64_t terms, positions;
  float* y;
  int64_t ldy;
  const Epilogue& epilogue;
};

/// Outputs [row, row + kRows) at the vectors [first, first + kVectors) of positions. The last vector moves back to end
/// where the positions end: some of its lanes are computed twice, none needs a mask.
template <int kRows, int kVectors>
void direct_block(const DirectCall& call, const float* w, int64_t row, int64_t first) {
  const Epilogue& e = call.epilogue;
  const bool masked = call.positions < W;
  const float* x[kVectors];
  int64_t places[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    places[v] = masked ? 0 : min_of((first + v) * W, call.positions - W);
    x[v] = call.x + places[v];
  }
  Block<kRows, kVectors> block;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const Float start = e.row_bias == nullptr ? V::zero() : V::set1(e.row_bias[row + r]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) block.acc[r][v] = start;
  }
  accumulate<kRows, kVectors>(x, call.offsets, call.terms, w, block);
  const bool residual_first =
      e.residual != nullptr && (e.activation_after_residual || e.activation == Activation::kNone);
  const bool relu = e.activation == Activation::kRelu && (e.residual == nullptr || residual_first);
  const Float floor = V::set1(relu ? 0.0f : -kInfinity);
  float* y = call.y + row * call.ldy;
  const float* residual = e.residual + row * e.residual_stride;
  // Every index of the block is a constant, or it would have to lie in memory.
  if (kVectors == 1 && masked) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r, y += call.ldy, residual += e.residual_stride) {
      Float sum = block.acc[r][0];
      if (residual_first) sum = V::add(sum, V::load_n(residual, call.positions));
      V::store_n(y, V::max(floor, sum), call.positions);
    }
  } else if (residual_first) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r, y += call.ldy, residual += e.residual_stride)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v)
        V::store(y + places[v], V::max(floor, V::add(block.acc[r][v], V::load(residual + places[v]))));
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r, y += call.ldy)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) V::store(y + places[v], V::max(floor, block.acc[r][v]));
  }
  if (e.activation == Activation::kNone || relu) return;
  // The last vector may overlap the one before it: activate what is new.
  const int64_t begin = masked ? 0 : first * W;
  const Tile done{call.y + row * call.ldy + begin, call.ldy, min_of(kVectors * W, call.positions - begin), true, true};
  activate_tile(kMaths, done, kRows, e,
                residual_first || e.residual == nullptr ? nullptr : e.residual + row * e.residual_stride + begin);
}

using DirectFunction = void (*)(const DirectCall&, const float*, int64_t, int64_t);

template <int kRows>
DirectFunction direct_function(int64_t vectors) {
  static constexpr DirectFunction kTable[] = {
      nullptr,
      direct_block<kRows, 1>,
      direct_block<kRows, 2>,
      direct_block < kRows,
      kDirectVectors >= 3 ? 3 : 1 >
      , direct_block < kRows, kDirectVectors >= 4 ? 4 : 1 >,
  };
  return kTable[vectors];
}

DirectFunction direct_function(int64_t rows, int64_t vectors) {
  static_assert(kDirectRows <= 6 && kDirectVectors <= 4, "the tables end there");
  switch (rows) {
    case 1:
      return direct_function<1>(vectors);
    case 2:
      return direct_function<2>(vectors);
    case 3:
      return direct_function<3>(vectors);
    case 4:
      return direct_function<4>(vectors);
    case 5:
      return direct_function<kDirectRows >= 5 ? 5 : 1>(vectors);
    default:
      return direct_function<kDirectRows >= 6 ? 6 : 1>(vectors);
  }
}

void direct(const float* x, const int64_t* offsets, int64_t terms, const float* packed, int64_t outputs, int64_t block,
            int64_t positions, float* y, int64_t ldy, const Epilogue& epilogue) {
  const DirectCall call{x, offsets, terms, positions, y, ldy, epilogue};
  const int64_t vectors = ceil_div(positions, W), blocks = ceil_div(vectors, kDirectVectors);
  const auto run = [&](int64_t row, int64_t b) {
    // Even shares: 5 vectors are 3 + 2 rather than 4 + 1.
    const int64_t first = b * vectors / blocks, last = (b + 1) * vectors / blocks;
    direct_function(min_of(block, outputs - row), last - first)(call, packed + row * terms, row, first);
  };
  // The operand that is larger is read once.
  if (outputs * terms > positions * terms) {
    for (int64_t row = 0; row < outputs; row += block)
      for (int64_t b = 0; b < blocks; ++b) run(row, b);
  } else {
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t row = 0; row < outputs; row += block) run(row, b);
  }
}

void pack_direct(const float* w, int64_t outputs, int64_t terms, int64_t block, float* packed) {
  for (int64_t row = 0; row < outputs; row += block) {
    const int64_t rows = min_of(block, outputs - row);
    for (int64_t t = 0; t < terms; ++t)
      for (int64_t r = 0; r < rows; ++r) *packed++ = w[(row + r) * terms + t];
  }
}

// Stores are whole vectors here (masked ones are slow on some CPUs): what lies behind is written later, in order.
LUTC_INLINE void fill_zero(float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += W) V::store(y + i, V::zero());
}
LUTC_INLINE void copy_floats(const float* x, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + W <= n; i += W) V::store(y + i, V::load(x + i));
  if (i < n) V::store(y + i, V::load_n(x + i, n - i));
}

/// What of a phase of a column lies in the image: rows [first, last), and of each row the pixels [low, high).
struct RowRange {
  int64_t first, last, low, high;
};

/// One phase of one column: pixel j of row r is x[(r * row_stride + up) * in_width + j * column_stride + shift].
void expand_rows(const float* x, const Expansion& how, int64_t up, int64_t shift, const RowRange& range, float* y) {
  const int64_t width = how.out_width, n = range.last - range.first;
  if (n <= 0 || range.low >= range.high) return fill_zero(y, how.rows * width);
  fill_zero(y, range.first * width);
  float* row = y + range.first * width;
  const float* from = x + (range.first * how.row_stride + up) * how.in_width + shift;
  if (width == 1) {
    gather_strided(from, how.row_stride * how.in_width, row, n);
  } else if (how.row_stride == 1 && how.column_stride == 1 && how.in_width == width) {
    // Rows follow each other in the image as in the copy; what wraps round a row's end becomes zero.
    copy_floats(from + range.low, row + range.low, (n - 1) * width + range.high - range.low);
    for (int64_t j = 0; j < range.low; ++j)
      for (int64_t r = 0; r < n; ++r) row[r * width + j] = 0.0f;
    for (int64_t j = range.high; j < width; ++j)
      for (int64_t r = 0; r < n; ++r) row[r * width + j] = 0.0f;
  } else {
    const int64_t step = how.row_stride * how.in_width;
    for (int64_t r = 0; r < n; ++r, row += width, from += step) {
      for (int64_t j = 0; j < width; j += W) {
        const int64_t place = j * how.column_stride;
        if (how.column_stride == 2 && j >= range.low && shift + place + 2 * W <= how.in_width) {
          Float even, odd;
          V::deinterleave(V::load(from + place), V::load(from + place + W), &even, &odd);
          V::store(row + j, even);
          continue;
        }
        const int64_t low = range.low > j ? range.low - j : 0, high = min_of(W, range.high - j);
        V::store(row + j, high > low ? load_pixels(from + place, how.column_stride, low, high) : V::zero());
      }
    }
  }
  fill_zero(y + range.last * width, (how.rows - range.last) * width);
}

void expand(const float* x, int64_t channel_stride, int64_t channels, const Expansion& how, float* y) {
  const auto inside = [](int64_t start, int64_t stride, int64_t size, int64_t count, int64_t* first, int64_t* last) {
    *first = min_of(count, start >= 0 ? 0 : (-start + stride - 1) / stride);
    *last = start >= size ? 0 : min_of(count, (size - 1 - start) / stride + 1);
    if (*last < *first) *last = *first;
  };
  for (int64_t c = 0; c < channels; ++c, x += channel_stride) {
    for (int64_t v = 0; v < how.columns; ++v) {
      RowRange range;
      const int64_t shift = v * how.column_dilation - how.left;
      inside(shift, how.column_stride, how.in_width, how.out_width, &range.low, &range.high);
      for (int64_t q = 0; q < how.phases; ++q, y += how.rows * how.out_width) {
        const int64_t up = how.first_row * how.row_stride + q * how.row_dilation % how.row_stride - how.top;
        inside(up, how.row_stride, how.in_height, how.rows, &range.first, &range.last);
        expand_rows(x, how, up, shift, range, y);
      }
    }
  }
}

}  // namespace
}  // namespace lutc::kernels
