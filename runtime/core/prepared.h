// Everything about a model that depends on its input shapes: the shape of every value, what is known already, where the
// rest lies.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/op.h"
#include "core/session.h"

namespace lutc {

/// Where a value's bytes are during a run.
struct Location {
  enum class Kind : uint8_t { kNone, kKnown, kInput, kArena, kOutput };
  Kind kind = Kind::kNone;
  int index = 0;        ///< of the input or output
  uint64_t offset = 0;  ///< in the arena
};

/// A step that a run executes.
struct LiveStep {
  int step = 0;
  uint64_t scratch = 0;  ///< offset in the arena
  uint64_t bytes = 0;    ///< read and written, for the profile
};

class Prepared : public std::enable_shared_from_this<Prepared> {
 public:
  /// `inputs` have been checked against the model's declaration. Infers every step, runs those whose inputs are all
  /// known, drops those nobody needs, and plans the arena.
  static Result<std::shared_ptr<const Prepared>> make(const Session& session, const TensorView* inputs);

  bool matches(const TensorView* inputs) const;

  /// Dtype and shape of model output i; data is null.
  TensorView output(int i) const;
  uint64_t arena_bytes() const { return arena_bytes_; }
  const std::vector<LiveStep>& steps() const { return steps_; }

  struct External {
    int value = 0;
    Location::Kind kind = Location::Kind::kInput;
    int index = 0;
  };
  /// By value: dtype and shape; data where it is known already.
  const std::vector<TensorView>& views() const { return views_; }
  const std::vector<Location>& locations() const { return locations_; }
  /// Values that lie in the caller's memory.
  const std::vector<External>& externals() const { return externals_; }
  /// Model outputs that no step can write in place: (output, value) to be copied after the last step.
  const std::vector<std::pair<int, int>>& copies() const { return copies_; }

 private:
  friend class Preparation;
  Prepared() = default;

  std::vector<Shape> input_shapes_;
  std::vector<int> output_values_;
  std::vector<TensorView> views_;
  std::vector<Location> locations_;
  std::vector<External> externals_;
  std::vector<LiveStep> steps_;
  std::vector<std::pair<int, int>> copies_;
  std::vector<AlignedBuffer> folded_;
  uint64_t arena_bytes_ = 0;
};

}  // namespace lutc
