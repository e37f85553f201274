#include "core/ops/code_planes.h"

#include <algorithm>
#include <cstring>

#include "core/checked.h"

namespace lutc::ops {
namespace {

constexpr int64_t kMaxPositions = int64_t{1} << 34;
constexpr int64_t kMaxTaps = 1 << 16;
constexpr int64_t kMaxStep = 1 << 20;

bool read_list(const Attributes& attrs, const char* name, std::vector<int64_t> fallback, size_t size, int64_t low,
               std::vector<int64_t>* out) {
  *out = attrs.get_ints(name, fallback);
  const auto outside = [low](int64_t v) { return v < low || v > kMaxStep; };
  return out->size() == size && std::none_of(out->begin(), out->end(), outside);
}

int64_t aligned(int64_t n) { return (n + 63) / 64 * 64; }

/// A few bytes: calls of memcpy and memset would take longer than the moves.
void copy_short(uint8_t* to, const uint8_t* from, int64_t bytes) {
  for (; bytes >= 16; bytes -= 16, to += 16, from += 16) std::memcpy(to, from, 16);
  for (; bytes >= 4; bytes -= 4, to += 4, from += 4) std::memcpy(to, from, 4);
  for (; bytes > 0; --bytes) *to++ = *from++;
}

void clear_short(uint8_t* to, int64_t bytes) {
  const uint32_t zero = 0;
  for (; bytes >= 4; bytes -= 4, to += 4) std::memcpy(to, &zero, 4);
  for (; bytes > 0; --bytes) *to++ = 0;
}

void fill_words(uint8_t* to, uint32_t word, int64_t bytes) {
  const uint32_t words[4] = {word, word, word, word};
  for (; bytes >= 16; bytes -= 16, to += 16) std::memcpy(to, words, 16);
  copy_short(to, reinterpret_cast<const uint8_t*>(words), bytes);
}

template <int kBytes>
void copy_panels(const uint8_t* from, int64_t step, int64_t count, uint8_t* to) {
  for (; count > 0; --count, from += step, to += kBytes) std::memcpy(to, from, kBytes);
}

/// Elements of consecutive pixels from `pixel` on.
void copy_line(const uint8_t* panels, int64_t panel_bytes, int64_t rows, int64_t element, int64_t pixel, int64_t count,
               uint8_t* to) {
  const int shift = __builtin_ctzll(static_cast<uint64_t>(rows));  // a power of two: divisions would take longer
  const uint8_t* panel = panels + (pixel >> shift) * panel_bytes;
  const int64_t lane = pixel & (rows - 1), head = lane == 0 ? 0 : std::min(rows - lane, count);
  if (head > 0) {
    copy_short(to, panel + lane * element, head * element);
    to += head * element;
    panel += panel_bytes;
  }
  const int64_t whole = (count - head) >> shift, bytes = rows * element;
  if (bytes == 64) {
    copy_panels<64>(panel, panel_bytes, whole, to);
  } else if (bytes == 32) {
    copy_panels<32>(panel, panel_bytes, whole, to);
  } else {
    for (int64_t i = 0; i < whole; ++i) copy_short(to + i * bytes, panel + i * panel_bytes, bytes);
  }
  copy_short(to + whole * bytes, panel + whole * panel_bytes, (count - head - whole * rows) * element);
}

/// Elements of every stride-th pixel from `pixel` on.
template <int kElement>
void copy_strided(const uint8_t* panels, int64_t panel_bytes, int64_t rows, int64_t pixel, int64_t stride,
                  int64_t count, uint8_t* to) {
  const uint8_t* panel = panels + pixel / rows * panel_bytes;
  int64_t lane = pixel % rows;
  for (int64_t i = 0; i < count; ++i, to += kElement) {
    std::memcpy(to, panel + lane * kElement, kElement);
    for (lane += stride; lane >= rows; lane -= rows) panel += panel_bytes;
  }
}

/// to[i] = the sum of term(t)[i] over `count` terms.
template <class Term>
void add_up(int64_t count, int64_t n, int32_t* to, const Term& term) {
  int64_t t = 1;
  if (count >= 3) {
    const int32_t *a = term(0), *b = term(1), *c = term(2);
    for (int64_t i = 0; i < n; ++i) to[i] = a[i] + b[i] + c[i];
    t = 3;
  } else {
    std::memcpy(to, term(0), static_cast<size_t>(n) * 4);
  }
  for (; t < count; ++t) {
    const int32_t* a = term(t);
    for (int64_t i = 0; i < n; ++i) to[i] += a[i];
  }
}

}  // namespace

bool CodeWindow::read(const Attributes& attrs) {
  return read_list(attrs, "kernel_shape", {}, 2, 1, &kernel) && kernel[0] * kernel[1] <= kMaxTaps &&
         read_list(attrs, "strides", {1, 1}, 2, 1, &strides) &&
         read_list(attrs, "dilations", {1, 1}, 2, 1, &dilations) && read_list(attrs, "pads", {0, 0, 0, 0}, 4, 0, &pads);
}

void CodePlanes::init(const CodesGeometry& stored, const kernels::TableShape& shape, CodeWindow window) {
  const kernels::LookupKernels* k = stored.kernels;
  stored_ = stored;
  // The plain form runs as gains of 0 (padding) and 1.
  group_ = CodesGeometry(k, shape.codebooks, std::max<int64_t>(stored.gain_limit, 1), stored.entry_limit);
  window_ = std::move(window);
  groups_ = shape.groups;
  entries_ = shape.entries;
  constant_ = stored.gain_limit == 0 && groups_ == 1;
  takes_steps_ = k->sum_gains != nullptr || k->window_starts != nullptr;
  if (k->window_starts != nullptr) {
    start_planes_ = (tap_count() * group_.units + group_.window_units - 1) / group_.window_units;
  } else if (!takes_steps_ && k->start_element > 0) {
    start_planes_ = group_.start_bytes / (int64_t{1} * k->start_element * k->panel_rows);
  }
  list_streams();
}

/// The panels are those of the codes value, or what regroup() makes of them.
void CodePlanes::list_streams() {
  const kernels::LookupKernels* k = stored_.kernels;
  const CodesGeometry& panels = groups_ == 1 ? stored_ : group_;
  const int64_t windows = group_.window_units;
  for (int64_t u = 0; u < group_.units; ++u) {
    const int64_t unit = panels.start_bytes + u * panels.unit_bytes();
    for (int64_t h = 0; h < k->code_planes; ++h)
      streams_.push_back({unit + h * k->panel_rows * k->code_bytes, 0, k->code_bytes, 0, u * k->code_planes + h});
    if (!constant_) streams_.push_back({unit + panels.code_unit_bytes, 0, k->gain_bytes, 1, u});
  }
  if (constant_) streams_.push_back({-1, 0x01010101, k->gain_bytes, 1, 0});
  for (int64_t s = 0; s < start_planes_ && !takes_steps_; ++s) {
    const int64_t start = -128 * k->unit * std::min(windows, group_.units - s * windows);
    if (!constant_) {
      streams_.push_back({s * k->panel_rows * k->start_element, 0, k->start_element, 2, s});
    } else {  // 16 bits, which wrap as the kernels' sums do
      streams_.push_back({-1, (static_cast<uint32_t>(start) & 0xffff) * 0x10001, k->start_element, 2, s});
    }
  }
}

const char* CodePlanes::extent(const Shape& codes, CodeExtent* e) const {
  const CodeWindow& w = window_;
  e->batch = codes[0];
  e->height = codes[1];
  e->width = codes[2];
  if (e->height > (int64_t{1} << 30) || e->width > (int64_t{1} << 30)) return "the image is too large";
  const int64_t height = e->height + w.pads[0] + w.pads[2], width = e->width + w.pads[1] + w.pads[3];
  const int64_t reach_y = w.dilations[0] * (w.kernel[0] - 1) + 1, reach_x = w.dilations[1] * (w.kernel[1] - 1) + 1;
  if (height < reach_y || width < reach_x) return "the padded image is smaller than the kernel";
  e->out_height = (height - reach_y) / w.strides[0] + 1;
  e->out_width = (width - reach_x) / w.strides[1] + 1;
  e->plane_rows = (height + w.strides[0] - 1) / w.strides[0];
  e->plane_width = (width + w.strides[1] - 1) / w.strides[1];
  e->dense = takes_steps_ && phases() == 1 && e->out_width == e->width;
  if (e->dense) e->plane_width = e->width;
  // In a dense plane taps reach before the image and behind it as if it had its borders.
  e->front = e->dense ? (w.pads[0] * e->width + w.pads[1] + 15) / 16 * 16 : 0;
  int64_t n = 0;
  if (!checked_mul(phases(), e->plane_rows, &n) || !checked_mul(n, e->plane_width, &n) || n > kMaxPositions ||
      e->height * e->width > kMaxPositions || e->front > kMaxPositions)
    return "the image is too large";
  const int64_t slack = int64_t{1} * group_.kernels->block_panels * group_.kernels->panel_rows;
  if (e->dense) {
    // A copy of the gains is written displaced, in whole panels.
    const int64_t reach = std::max(w.pads[1], w.pads[3]) + 16;
    e->gain_front = (std::max(w.pads[0] * e->width, reach) + 15) / 16 * 16;
    e->gain_copy = (e->gain_front + n - w.pads[0] * e->width + reach + 31) / 32 * 32;
    n += e->front - w.pads[0] * e->width + w.pads[3];
  }
  e->length = (n + slack + 31) / 32 * 32;
  e->gain_length = e->length;
  if (e->dense) {
    if (!checked_mul(w.kernel[1], e->gain_copy, &n) || n > kMaxPositions) return "the image is too large";
    e->gain_length = n + slack;
  }
  return nullptr;
}

int64_t CodePlanes::code_bytes(const CodeExtent& e) const {
  return group_.units * group_.kernels->code_planes * group_.kernels->code_bytes * e.length;
}

int64_t CodePlanes::gain_bytes(const CodeExtent& e) const {
  return (constant_ ? 1 : group_.units) * group_.kernels->gain_bytes * e.gain_length;
}

int64_t CodePlanes::start_bytes(const CodeExtent& e) const {
  return group_.kernels->sum_gains != nullptr ? 4 * e.length : start_planes_ * group_.kernels->start_element * e.length;
}

int64_t CodePlanes::regrouped_bytes(const CodeExtent& e) const {
  return groups_ == 1 ? 0 : group_.panels(e.height * e.width) * group_.panel_bytes;
}

/// Taps and steps, codes, gains, starts, sums on the way to them, panels of a group.
int64_t CodePlanes::bytes(const CodeExtent& e) const {
  return aligned(8 * tap_count() * (1 + 2 * group_.units)) + aligned(code_bytes(e)) + aligned(gain_bytes(e)) +
         2 * aligned(start_bytes(e)) + aligned(regrouped_bytes(e));
}

int64_t CodePlanes::place(const CodeExtent& e, int64_t y, int64_t x) const {
  const int64_t down = window_.strides[0], across = window_.strides[1];
  return ((y % down * across + x % across) * e.plane_rows + y / down) * e.plane_width + x / across;
}

CodePlanes::Columns CodePlanes::columns(int64_t shift, int64_t stride, int64_t width, int64_t plane_width) {
  Columns c;
  c.low = std::min(plane_width, shift >= 0 ? 0 : (-shift + stride - 1) / stride);
  c.high = shift >= width ? c.low : std::max(c.low, std::min(plane_width, (width - 1 - shift) / stride + 1));
  c.pixel = c.low * stride + shift;
  return c;
}

CodePlanes::Columns CodePlanes::columns_of_tap(const CodeExtent& e, int64_t v) const {
  return columns(shift_of_tap(v), 1, e.width, e.width);
}

void CodePlanes::list_taps(const CodeExtent& e, const Planes& p) const {
  const kernels::LookupKernels* k = group_.kernels;
  const int64_t units = group_.units, gain_unit = gain_unit_step(e);
  int64_t* tap = p.taps;
  int64_t *codes = p.steps, *gains = codes + tap_count() * units;
  for (int64_t u = 0; u < window_.kernel[0]; ++u) {
    const int64_t y = u * window_.dilations[0];
    for (int64_t v = 0; v < window_.kernel[1]; ++v, ++tap) {
      const int64_t down = (y - window_.pads[0]) * e.width;
      *tap = e.dense ? e.front + down + shift_of_tap(v) : place(e, y, v * window_.dilations[1]);
      if (p.steps == nullptr) continue;
      const int64_t gain = e.dense ? v * e.gain_copy + e.gain_front + down : *tap;
      for (int64_t i = 0; i < units; ++i) {
        *codes++ = (*tap + i * k->code_planes * e.length) * k->code_bytes;
        *gains++ = gain * k->gain_bytes + i * gain_unit;
      }
    }
  }
}

CodePlanes::Planes CodePlanes::carve(const CodeExtent& e, uint8_t* scratch) const {
  Planes p;
  p.taps = reinterpret_cast<int64_t*>(scratch);
  p.steps = takes_steps_ ? p.taps + tap_count() : nullptr;
  p.codes = scratch + aligned(8 * tap_count() * (1 + 2 * group_.units));
  p.gains = p.codes + aligned(code_bytes(e));
  p.starts = p.gains + aligned(gain_bytes(e));
  list_taps(e, p);
  return p;
}

CodePlanes::Planes CodePlanes::spread(const CodeExtent& e, const uint8_t* panels, int64_t group,
                                      uint8_t* scratch) const {
  const kernels::LookupKernels* k = group_.kernels;
  const Planes p = carve(e, scratch);
  if (groups_ > 1) {
    uint8_t* regrouped = p.starts + 2 * aligned(start_bytes(e));
    regroup(e, panels, group, regrouped);
    panels = regrouped;
  }
  const int64_t panel_bytes = groups_ == 1 ? stored_.panel_bytes : group_.panel_bytes;
  uint8_t* const planes[3] = {p.codes, p.gains, p.starts};
  for (const Stream& s : streams_) {
    uint8_t* to = planes[s.kind] + s.plane * (s.kind == 1 ? e.gain_length : e.length) * s.element;
    if (!e.dense) {
      fill_bordered(e, s, panels, to);
    } else if (s.kind == 1) {
      fill_dense_gains(e, s, panels, to);
    } else if (s.from >= 0) {
      copy_line(panels + s.from, panel_bytes, k->panel_rows, s.element, 0, e.height * e.width,
                to + e.front * s.element);
    }
  }
  if (takes_steps_) sum_gains(e, p);
  return p;
}

int64_t CodePlanes::written_bytes(const CodeExtent& e) const {
  return aligned(code_bytes(e)) + (constant_ ? 0 : aligned(gain_bytes(e)));
}

int64_t CodePlanes::writer_bytes(const CodeExtent& e) const {
  return aligned(window_.kernel[1] * (8 + 2 * std::min(e.width, group_.panels(e.height * e.width))));
}

kernels::PixelPlanes CodePlanes::writer(const CodeExtent& e, uint8_t* image, uint8_t* scratch) const {
  const int64_t lanes = group_.kernels->panel_rows, copies = window_.kernel[1], pixels = e.height * e.width;
  const int lane_bits = __builtin_ctzll(static_cast<uint64_t>(lanes));  // a power of two: divisions would take longer
  kernels::PixelPlanes p;
  p.codes = image + e.front * group_.kernels->code_bytes;
  p.code_unit_step = e.length * group_.kernels->code_bytes;
  if (constant_) return p;
  p.gains = image + aligned(code_bytes(e)) + e.gain_front * 4;
  p.gain_unit_step = gain_unit_step(e);
  p.copies = copies;
  // Panels begin anew in a row after width / gcd(width, lanes) of them; no image has more than it has.
  int64_t period = e.width;
  for (int64_t n = lanes; n > 1 && period % 2 == 0; n /= 2) period /= 2;
  p.period = std::min(period, group_.panels(pixels));
  int64_t* copy = reinterpret_cast<int64_t*>(scratch);
  uint16_t* inside = reinterpret_cast<uint16_t*>(copy + copies);
  p.copy = copy;
  p.inside = inside;
  std::memset(inside, 0xff, static_cast<size_t>(2 * p.period * copies));
  for (int64_t v = 0; v < copies; ++v) {
    const int64_t shift = shift_of_tap(v);
    copy[v] = (v * e.gain_copy - shift) * 4;
    // Pixel x lies at x - shift, where that is in the same row.
    const int64_t low = std::max<int64_t>(shift, 0), high = std::max<int64_t>(0, std::min(e.width, e.width + shift));
    const auto outside = [&](int64_t i, int64_t end) {
      for (end = std::min(end, p.period * lanes); i < end; ++i)
        inside[(i >> lane_bits) * copies + v] &= static_cast<uint16_t>(~(1u << (i & (lanes - 1))));
    };
    for (int64_t row = 0; row < p.period * lanes; row += e.width) {
      outside(row, row + std::min(low, e.width));
      outside(row + high, row + e.width);
    }
    const int64_t first = -window_.pads[0] * e.width, last = pixels + window_.pads[2] * e.width;
    const int64_t begin = std::min(pixels, std::max<int64_t>(-shift, 0));
    const int64_t end = std::max<int64_t>(0, pixels - low);
    for (int64_t u = 0; u < group_.units; ++u) {
      uint8_t* to = p.gains + u * p.gain_unit_step + v * e.gain_copy * 4;
      std::memset(to + 4 * first, 0, static_cast<size_t>(4 * (begin - first)));
      std::memset(to + 4 * end, 0, static_cast<size_t>(4 * (last - end)));
    }
  }
  return p;
}

CodePlanes::Planes CodePlanes::take(const CodeExtent& e, const uint8_t* image, uint8_t* scratch) const {
  Planes p = carve(e, scratch);
  p.codes = const_cast<uint8_t*>(image);
  if (constant_) {
    fill_dense_gains(e, streams_.back(), nullptr, p.gains);
  } else {
    p.gains = p.codes + aligned(code_bytes(e));
  }
  sum_gains(e, p);
  return p;
}

/// A copy for every column of the kernel: as it meets them, from the first padded row on.
void CodePlanes::fill_dense_gains(const CodeExtent& e, const Stream& s, const uint8_t* panels, uint8_t* to) const {
  const int64_t panel_bytes = groups_ == 1 ? stored_.panel_bytes : group_.panel_bytes;
  const int64_t line = e.width * s.element, above = window_.pads[0] * line, image = e.height * line;
  const int64_t below = window_.pads[2] * line, copy = e.gain_copy * s.element, pixels = e.height * e.width;
  const auto from_panels = [&](const Columns& c, uint8_t* row) {
    copy_line(panels + s.from, panel_bytes, stored_.kernels->panel_rows, s.element, c.pixel, c.high - c.low,
              row + c.low * s.element);
  };
  // The copy that is not displaced, if there is one, is all that the others need.
  const bool centred = s.from >= 0 && window_.pads[1] % window_.dilations[1] == 0;
  const int64_t centre = centred ? window_.pads[1] / window_.dilations[1] : -1;
  to += e.gain_front * s.element;
  uint8_t* const straight = to + centre * copy;
  if (centred) from_panels({0, pixels, 0}, straight);
  for (int64_t v = 0; v < window_.kernel[1]; ++v, to += copy) {
    uint8_t* first = to;
    std::memset(first - above, 0, static_cast<size_t>(above));
    const Columns c = columns_of_tap(e, v);
    // Rows follow each other in the image as in the copy; what wraps round is cleared.
    const Columns all = columns(shift_of_tap(v), 1, pixels, pixels);
    if (s.from < 0) {
      std::memset(first, 1, static_cast<size_t>(image));
    } else if (!centred) {
      from_panels(all, first);
    } else if (v != centre) {
      std::memcpy(first + all.low * s.element, straight + all.pixel * s.element,
                  static_cast<size_t>((all.high - all.low) * s.element));
    }
    const int64_t left = c.low * s.element, right = line - c.high * s.element;
    if (left > 0) {
      for (uint8_t* row = first; row < first + image; row += line) clear_short(row, left);
    }
    if (right > 0) {
      for (uint8_t* row = first + line - right; row < first + image; row += line) clear_short(row, right);
    }
    std::memset(first + image, 0, static_cast<size_t>(below));
  }
}

void CodePlanes::fill_bordered(const CodeExtent& e, const Stream& s, const uint8_t* panels, uint8_t* to) const {
  const int64_t rows = stored_.kernels->panel_rows, across = window_.strides[1];
  const int64_t panel_bytes = groups_ == 1 ? stored_.panel_bytes : group_.panel_bytes;
  std::memset(to, 0, static_cast<size_t>(e.length * s.element));
  const uint8_t* from = panels + s.from;
  for (int64_t phase = 0; phase < phases(); ++phase) {
    const int64_t down = window_.strides[0], top = window_.pads[0];
    const Columns c = columns(phase % across - window_.pads[1], across, e.width, e.plane_width);
    const Columns lines = columns(phase / across - top, down, e.height, e.plane_rows);
    const int64_t count = c.high - c.low;
    uint8_t* row = to + ((phase * e.plane_rows + lines.low) * e.plane_width + c.low) * s.element;
    int64_t pixel = lines.pixel * e.width + c.pixel;
    for (int64_t i = lines.low; i < lines.high && count > 0; ++i) {
      if (s.from < 0) {
        fill_words(row, s.word, count * s.element);
      } else if (across == 1) {
        copy_line(from, panel_bytes, rows, s.element, pixel, count, row);
      } else if (s.element == 4) {
        copy_strided<4>(from, panel_bytes, rows, pixel, across, count, row);
      } else if (s.element == 2) {
        copy_strided<2>(from, panel_bytes, rows, pixel, across, count, row);
      } else {
        copy_strided<1>(from, panel_bytes, rows, pixel, across, count, row);
      }
      row += e.plane_width * s.element;
      pixel += down * e.width;
    }
  }
}

/// Panels as an encode of this group alone would write them: groups need not begin where units do.
void CodePlanes::regroup(const CodeExtent& e, const uint8_t* panels, int64_t group, uint8_t* regrouped) const {
  const kernels::LookupKernels* k = group_.kernels;
  const int64_t unit = k->unit, rows = k->panel_rows, pixels = e.height * e.width;
  const int64_t window = group_.window_units;
  for (int64_t pixel = 0; pixel < group_.panels(pixels) * rows; ++pixel) {
    const uint8_t* panel = panels + pixel / rows * stored_.panel_bytes;
    uint8_t* out = regrouped + pixel / rows * group_.panel_bytes;
    const int64_t lane = pixel % rows;
    int64_t sum = 0;
    for (int64_t u = 0; u < group_.units; ++u) {
      uint8_t* codes = out + group_.start_bytes + u * group_.unit_bytes();
      uint8_t* gains = codes + group_.code_unit_bytes;
      for (int64_t j = 0; j < unit; ++j) {
        const int64_t c = u * unit + j;
        uint8_t code = 0;
        int8_t gain = 0;
        if (c < group_.codebooks && pixel < pixels)
          stored_.extract(panel, lane, entries_, group * group_.codebooks + c, &code, &gain);
        if (k->code_planes > 1) {
          codes[j * rows + lane] = code;
        } else {
          codes[lane * k->code_bytes + j] = static_cast<uint8_t>(code + j * entries_);
        }
        gains[lane * k->gain_bytes + j] = static_cast<uint8_t>(gain);
        sum += gain;
      }
      if (start_planes_ > 0 && !takes_steps_ && ((u + 1) % window == 0 || u + 1 == group_.units)) {
        const uint32_t start = static_cast<uint32_t>(-128 * sum);  // wraps as the kernels' 16-bit sums do
        std::memcpy(out + (u / window * rows + lane) * k->start_element, &start, static_cast<size_t>(k->start_element));
        sum = 0;
      }
    }
  }
}

/// Starts of output positions. In dense planes a row's sums, over columns of the kernel and units, serve every row of
/// the kernel.
void CodePlanes::sum_gains(const CodeExtent& e, const Planes& p) const {
  const kernels::LookupKernels* k = group_.kernels;
  int32_t* starts = reinterpret_cast<int32_t*>(p.starts);
  const int64_t units = group_.units, columns = window_.kernel[1], rows = window_.kernel[0];
  const int64_t* offsets = p.steps + tap_count() * units;  // of a row of the kernel, one after the other
  if (k->window_starts != nullptr)
    return k->window_starts(p.gains, offsets, tap_count() * units, group_.window_units, e.positions(), p.starts,
                            e.length * k->start_element);
  if (!e.dense) return k->sum_gains(p.gains, offsets, tap_count() * units, e.positions(), starts);
  int32_t* across = rows == 1 ? starts : reinterpret_cast<int32_t*>(p.starts + aligned(start_bytes(e)));
  k->sum_gains(p.gains, offsets, columns * units, e.plane_rows * e.width, across);
  if (rows > 1)
    add_up(rows, e.positions(), starts, [&](int64_t u) { return across + u * window_.dilations[0] * e.width; });
}

}  // namespace lutc::ops
