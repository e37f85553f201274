// Lookups that leave their outputs in a stage: the rows that come out are those of sums finished at once, whole tiles
// and parts of panels, in buffers of the promised sizes (for sanitizers).
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/lookup.h"

namespace {

using lutc::kernels::FinishBlock;
using lutc::kernels::LookupBlock;
using lutc::kernels::LookupKernels;
using lutc::kernels::StagedTile;

constexpr int kEntries = 16, kUnit = 64;  // bytes of four codebooks: of a column's tables, and of a panel's codes

struct Layer {
  const LookupKernels& k;
  int64_t rows, units, panels, panel_bytes;
  int gain_limit;
  bool relu;
  int64_t columns;
  std::vector<uint8_t> codes, table;
  std::vector<float> scale, bias, residual;

  Layer(const LookupKernels& kernels, int64_t m, int64_t u, int gains, bool with_relu, bool with_residual, int tiles)
      : k(kernels), rows(m), units(u), gain_limit(gains), relu(with_relu), columns(tiles * kernels.stage_columns) {
    std::mt19937 random(static_cast<unsigned>(m + 1000 * u + gains));
    panels = (rows + 15) / 16;
    const int64_t start = gains > 0 ? kUnit : 0;
    panel_bytes = start + units * unit_bytes();
    codes.resize(static_cast<size_t>(panels * panel_bytes));
    for (int64_t p = 0; p < panels; ++p) {
      uint8_t* panel = codes.data() + p * panel_bytes;
      int32_t sums[16] = {};
      for (int64_t at = 0; at < units * kUnit; ++at) {
        uint8_t* unit = panel + start + at / kUnit * unit_bytes();
        const int64_t byte = at % kUnit;
        unit[byte] = static_cast<uint8_t>(random() % kEntries + byte % 4 * kEntries);
        if (gains == 0) continue;
        const int gain = static_cast<int>(random() % static_cast<unsigned>(2 * gains + 1)) - gains;
        unit[kUnit + byte] = static_cast<uint8_t>(gain);
        sums[byte / 4] -= 128 * gain;
      }
      if (gains > 0) std::memcpy(panel, sums, sizeof sums);
    }
    table.resize(static_cast<size_t>(columns * units * kUnit));
    for (uint8_t& entry : table) entry = static_cast<uint8_t>(random() % 255 + 1);
    scale.resize(static_cast<size_t>(columns));
    bias.resize(static_cast<size_t>(columns));
    for (float& s : scale) s = static_cast<float>(random() % 1000) * 1e-4f;
    for (float& b : bias) b = static_cast<float>(random() % 1000) - 500.0f;
    if (with_residual) residual.resize(static_cast<size_t>(rows * columns));
    for (float& r : residual) r = static_cast<float>(random() % 1000) * 0.1f;
  }
  int64_t unit_bytes() const { return gain_limit > 0 ? 2 * kUnit : kUnit; }

  LookupBlock block(int64_t column, const int64_t* tap) const {
    LookupBlock b;
    b.panels = static_cast<int>(panels);
    b.columns = k.stage_columns;
    b.entries = kEntries;
    b.gain_limit = gain_limit;
    b.units = units;
    b.codebooks = 4 * units;
    b.starts = codes.data();
    b.codes = codes.data() + (gain_limit > 0 ? kUnit : 0);
    b.gains = b.codes + kUnit;
    b.code_panel_step = b.gain_panel_step = b.start_panel_step = panel_bytes;
    b.code_unit_step = b.gain_unit_step = unit_bytes();
    b.of_rows = true;
    b.taps = tap;
    b.tap_count = 1;
    b.table = table.data() + column * units * kUnit;
    b.table_unit_step = kUnit * k.block_columns;
    return b;
  }

  std::vector<float> at_once() const {
    const int64_t tap = 0;
    std::vector<float> y(static_cast<size_t>(rows * columns));
    std::vector<int32_t> acc(static_cast<size_t>(16 * panels * k.stage_columns));
    for (int64_t column = 0; column < columns; column += k.stage_columns) {
      LookupBlock b = block(column, &tap);
      b.acc = acc.data();
      b.acc_stride = 16 * panels;
      k.lookup(b);
      FinishBlock f;
      f.acc = acc.data();
      f.acc_stride = b.acc_stride;
      f.rows = rows;
      f.columns = k.stage_columns;
      f.scale = scale.data() + column;
      f.bias = bias.data() + column;
      f.relu = relu;
      f.residual = residual.empty() ? nullptr : residual.data() + column;
      f.y = y.data() + column;
      f.y_stride = columns;
      k.finish_rows(f);
    }
    return y;
  }

  /// in_place: the residual lies where the outputs go, as a plan may have it.
  std::vector<float> staged(int64_t every, bool in_place) const {
    const int64_t tap = 0;
    std::vector<float> y(static_cast<size_t>(rows * columns));
    if (in_place) y = residual;
    const float* added = in_place ? y.data() : residual.empty() ? nullptr : residual.data();
    std::vector<float> stages[2];
    for (auto& stage : stages) stage.resize(static_cast<size_t>(16 * panels * k.stage_columns));
    StagedTile before;
    for (int64_t column = 0, turn = 0; column < columns; column += k.stage_columns, turn ^= 1) {
      LookupBlock b = block(column, &tap);
      b.stage = stages[turn].data();
      b.scale = scale.data() + column;
      b.bias = bias.data() + column;
      b.relu = relu;
      b.pending = &before;
      b.pending_every = every;
      k.lookup(b);
      k.unstage(&before);
      before = {b.stage, rows, 0, added != nullptr ? added + column : nullptr, y.data() + column, columns};
    }
    k.unstage(&before);
    return y;
  }
};

void compare(const LookupKernels& k) {
  for (int64_t rows : {1, 15, 16, 17, 37, 64, 100, 128, 130, 256}) {
    for (int64_t units : {1, 2, 7, 24}) {
      for (int form = 0; form < 8; ++form) {
        const Layer layer(k, rows, units, form % 2 ? 15 : 0, form / 2 % 2, form / 4, 3);
        const std::vector<float> expected = layer.at_once();
        for (int64_t every : {1, 5}) {
          for (bool in_place : {false, true}) {
            if (in_place && layer.residual.empty()) continue;
            const std::vector<float> found = layer.staged(every, in_place);
            CHECK(std::memcmp(found.data(), expected.data(), expected.size() * sizeof(float)) == 0);
          }
        }
      }
    }
  }
}

}  // namespace

int main() {
  for (lutc::kernels::Isa isa : lutc::kernels::available_isas()) {
    const LookupKernels* kernels = lutc::kernels::lookup_kernels(isa);
    if (kernels->stage_columns > 0) compare(*kernels);
  }
  return lutc_test::result();
}
