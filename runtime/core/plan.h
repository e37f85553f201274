// The execution plan of an artifact (docs/format.md), read and verified: after read_plan() every index, dtype and order
// is known to be right.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/artifact.h"
#include "core/attributes.h"
#include "core/status.h"
#include "core/tensor.h"

namespace lutc {

/// A declared dimension: a size, or a name whose size is the same wherever it appears in one run.
struct Dim {
  int64_t size = -1;   ///< -1: symbolic
  std::string symbol;  ///< empty when the size is fixed
};

/// An input or output of the model.
struct Port {
  std::string name;
  int value = -1;
  DType dtype = DType::kF32;
  std::vector<Dim> shape;
};

struct PlanValue {
  DType dtype = DType::kF32;
  bool constant = false;
  TensorView view;  ///< of a constant: the artifact's bytes
};

struct PlanStep {
  std::string op;
  std::string name;
  std::vector<int> inputs;  ///< value indexes; -1 is an omitted optional input
  std::vector<int> outputs;
  Attributes attrs;
};

struct Plan {
  std::vector<Port> inputs;
  std::vector<Port> outputs;
  std::vector<PlanValue> values;
  std::vector<PlanStep> init;  ///< run once when the model is loaded: tables made from their factors
  std::vector<PlanStep> steps;
};

/// kCorrupt names the input, output, value or step that breaks the specification. The artifact must outlive the plan.
Result<Plan> read_plan(std::string_view text, const Artifact& artifact);

/// "name: f32[batch, 384]", for messages.
std::string port_text(const Port& port);

}  // namespace lutc
