// The codes of an image as a convolution reads them: a tap is a displacement, an output position i * width + j.
//
// Dense planes, where the output is as wide as the image and the kernels take them: codes as they are in the image, and
// gains once for every column of the kernel, zero where it leaves the image. An encode that knows its convolution
// (link_planes.h) writes them itself, in place of panels. Bordered planes: the image in a border of
// zero gains, one plane a phase of the strides, so that a tap reads consecutive positions; the positions past the end
// of an output row are computed too and dropped.
#pragma once

#include <cstdint>
#include <vector>

#include "core/ops/lut_common.h"

namespace lutc::ops {

/// Attributes of a convolution, vertical before horizontal; pads: top, left, bottom, right.
struct CodeWindow {
  std::vector<int64_t> kernel, strides, dilations, pads;

  /// From the attributes of a lut_conv; false where they are none.
  [[nodiscard]] bool read(const Attributes& attrs);
};

/// Sizes that follow from the image.
struct CodeExtent {
  int64_t batch = 0, height = 0, width = 0, out_height = 0, out_width = 0;
  bool dense = false;
  int64_t plane_rows = 0, plane_width = 0;  ///< of one phase
  int64_t front = 0;                        ///< dense: positions before the image, which taps may reach
  int64_t length = 0;                       ///< positions of a plane: all phases and the slack that whole panels read
  int64_t gain_length = 0;                  ///< likewise of gains
  int64_t gain_front = 0;                   ///< dense: positions before the image in a copy of the gains
  int64_t gain_copy = 0;                    ///< dense: positions from one copy to the next
  /// From the first output to the last.
  int64_t positions() const { return (out_height - 1) * plane_width + out_width; }
};

class CodePlanes {
 public:
  /// Where a lookup finds what spread() wrote.
  struct Planes {
    uint8_t* codes;
    uint8_t* gains;
    uint8_t* starts;  ///< a plane a window, or one of sums over all taps and units
    int64_t* taps;    ///< [tap] displacement in positions
    int64_t* steps;   ///< LookupBlock::steps, null where the kernels take none
  };

  /// `stored`: of the codes value. `shape`: of the table.
  void init(const CodesGeometry& stored, const kernels::TableShape& shape, CodeWindow window);
  /// Sizes for an image [batch, height, width, ...]; what is wrong, or null.
  const char* extent(const Shape& codes, CodeExtent* e) const;

  /// Of one group: always with gains, the plain form has gains of one and zero.
  const CodesGeometry& group() const { return group_; }
  int64_t limit() const { return group_.gain_limit; }
  /// Bytes of gains from one unit to the next.
  int64_t gain_unit_step(const CodeExtent& e) const {
    return constant_ ? 0 : e.gain_length * group_.kernels->gain_bytes;
  }
  int64_t bytes(const CodeExtent& e) const;
  /// `panels`: of the image. `scratch`: 64-byte aligned, bytes(e).
  Planes spread(const CodeExtent& e, const uint8_t* panels, int64_t group, uint8_t* scratch) const;

  // Dense planes of one group that the encode has written.
  /// Bytes of an image's, a multiple of 64.
  int64_t written_bytes(const CodeExtent& e) const;
  /// Where an encode of the image writes; clears what it does not. `scratch`: writer_bytes(e), until it is done.
  kernels::PixelPlanes writer(const CodeExtent& e, uint8_t* image, uint8_t* scratch) const;
  int64_t writer_bytes(const CodeExtent& e) const;
  /// What spread() makes of panels.
  Planes take(const CodeExtent& e, const uint8_t* image, uint8_t* scratch) const;

 private:
  /// A plane: where the panels hold it, or what fills it.
  struct Stream {
    int64_t from;     ///< bytes into a panel, or -1
    uint32_t word;    ///< repeated where there is no source
    int64_t element;  ///< bytes of a position
    int kind;         ///< 0 codes, 1 gains, 2 starts
    int64_t plane;    ///< of that kind
  };
  /// Columns of a plane that hold pixels of the image, [low, high), and the pixel of the first.
  struct Columns {
    int64_t low, high, pixel;
  };

  int64_t tap_count() const { return window_.kernel[0] * window_.kernel[1]; }
  int64_t phases() const { return window_.strides[0] * window_.strides[1]; }
  int64_t code_bytes(const CodeExtent& e) const;
  int64_t gain_bytes(const CodeExtent& e) const;
  int64_t start_bytes(const CodeExtent& e) const;
  int64_t regrouped_bytes(const CodeExtent& e) const;
  void list_streams();
  /// Position of padded pixel (y, x).
  int64_t place(const CodeExtent& e, int64_t y, int64_t x) const;
  /// Column j lies at pixel j * stride + shift.
  static Columns columns(int64_t shift, int64_t stride, int64_t width, int64_t plane_width);
  Columns columns_of_tap(const CodeExtent& e, int64_t v) const;
  /// How far right of its position a tap in column v reads.
  int64_t shift_of_tap(int64_t v) const { return v * window_.dilations[1] - window_.pads[1]; }
  Planes carve(const CodeExtent& e, uint8_t* scratch) const;
  void list_taps(const CodeExtent& e, const Planes& p) const;
  void regroup(const CodeExtent& e, const uint8_t* panels, int64_t group, uint8_t* regrouped) const;
  void fill_bordered(const CodeExtent& e, const Stream& stream, const uint8_t* panels, uint8_t* to) const;
  void fill_dense_gains(const CodeExtent& e, const Stream& stream, const uint8_t* panels, uint8_t* to) const;
  void sum_gains(const CodeExtent& e, const Planes& p) const;

  CodesGeometry stored_, group_;
  CodeWindow window_;
  int64_t groups_ = 1, entries_ = 0, start_planes_ = 0;
  /// The plain form of one group: gains and starts do not depend on the image, and units share their gains.
  bool constant_ = false;
  bool takes_steps_ = false;  ///< the kernels, and with them dense planes
  std::vector<Stream> streams_;
};

}  // namespace lutc::ops
