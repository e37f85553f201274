#include "core/prepared.h"

#include <limits>

#include "core/checked.h"
#include "core/memory_planner.h"
#include "core/step_context.h"

namespace lutc {
namespace {

/// Results up to this size are worked out while preparing if their inputs are known; larger ones (a mask filled by
/// `expand`) are cheaper to compute again than to keep for every combination of shapes.
constexpr uint64_t kMaxFoldedBytes = uint64_t{1} << 20;
constexpr int kForever = std::numeric_limits<int>::max();

/// A piece of memory that holds one value at a time: a value, its views, and whatever is written over it in place.
struct Root {
  uint64_t bytes = 0;
  int first = 0;         ///< step that writes it first
  int last = 0;          ///< step that reads it last
  int output = -1;       ///< model output whose buffer it is, else it lies in the arena
  int merged_into = -1;  ///< written over another root's memory
  int taken_at = -1;     ///< step whose output took this memory over
};

}  // namespace

/// Builds one Prepared; its members are the stages' common state.
class Preparation {
 public:
  Preparation(const Session& session, const TensorView* inputs) : s_(session), result_(new Prepared), p_(*result_) {
    const size_t n = s_.plan_.values.size();
    p_.views_ = s_.known_;
    p_.locations_.resize(n);
    for (size_t v = 0; v < n; ++v)
      if (p_.views_[v].data != nullptr) p_.locations_[v].kind = Location::Kind::kKnown;
    for (size_t i = 0; i < s_.plan_.inputs.size(); ++i) {
      const int v = s_.plan_.inputs[i].value;
      p_.views_[v] = {inputs[i].dtype, inputs[i].shape, nullptr};
      p_.locations_[v] = {Location::Kind::kInput, static_cast<int>(i), 0};
      p_.input_shapes_.push_back(inputs[i].shape);
    }
    for (const Port& port : s_.plan_.outputs) p_.output_values_.push_back(port.value);
  }

  Result<std::shared_ptr<const Prepared>> run() {
    LUTC_RETURN_IF_ERROR(infer_and_fold());
    drop_unneeded();
    assign_roots();
    write_in_place();
    bind_outputs();
    LUTC_RETURN_IF_ERROR(place());
    return std::shared_ptr<const Prepared>(std::move(result_));
  }

 private:
  /// What is left to do for a step once it has been inferred.
  struct Pending {
    int step;
    bool runs;  ///< false: all its outputs are views
    uint64_t scratch;
    std::vector<int> aliases;  ///< by output
    std::vector<StepInference::Overwrite> overwrites;
  };

  Status infer_and_fold() {
    for (size_t i = 0; i < s_.plan_.steps.size(); ++i) {
      const PlanStep& step = s_.plan_.steps[i];
      if (s_.known_[step.outputs[0]].data != nullptr) continue;  // folded when the model was loaded
      StepInference inference(step, s_.defs_[i], p_.views_, s_.options_.memory_limit, s_.threads_);
      LUTC_RETURN_IF_ERROR(inference.infer(*s_.ops_[i]));
      uint64_t bytes = 0;
      for (const int v : step.outputs) bytes += p_.views_[v].bytes();
      if ((bytes <= kMaxFoldedBytes || inference.all_aliased()) && inputs_known(step, p_.views_)) {
        LUTC_RETURN_IF_ERROR(run_now(*s_.ops_[i], s_.defs_[i], step, inference, p_.views_, s_.options_.memory_limit,
                                     s_.threads_, &p_.folded_, &folded_bytes_));
        for (const int v : step.outputs) p_.locations_[v].kind = Location::Kind::kKnown;
        continue;
      }
      Pending pending = {
          static_cast<int>(i), !inference.all_aliased(), inference.scratch(), {}, inference.overwrites()};
      for (size_t o = 0; o < step.outputs.size(); ++o)
        pending.aliases.push_back(inference.alias_of(static_cast<int>(o)));
      pending_.push_back(std::move(pending));
    }
    return Status::ok();
  }

  void drop_unneeded() {
    std::vector<bool> needed(p_.views_.size());
    for (const int v : p_.output_values_) needed[v] = true;
    std::vector<Pending> kept;
    for (auto it = pending_.rbegin(); it != pending_.rend(); ++it) {
      const PlanStep& step = s_.plan_.steps[it->step];
      bool wanted = false;
      for (const int v : step.outputs) wanted = wanted || needed[v];
      if (!wanted) continue;
      for (const int v : step.inputs)
        if (v >= 0) needed[v] = true;
      kept.push_back(std::move(*it));
    }
    pending_.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
  }

  /// Gives every computed value its memory, shared with what it is a view of, and finds how long each is needed.
  void assign_roots() {
    root_of_.assign(p_.views_.size(), -1);
    for (const Pending& pending : pending_) {
      const PlanStep& step = s_.plan_.steps[pending.step];
      for (const int v : step.inputs)
        if (v >= 0 && root_of_[v] >= 0) roots_[root_of_[v]].last = pending.step;
      for (size_t o = 0; o < step.outputs.size(); ++o) {
        const int v = step.outputs[o];
        if (pending.aliases[o] >= 0) {
          const int source = step.inputs[pending.aliases[o]];
          p_.locations_[v] = p_.locations_[source];
          p_.views_[v].data = p_.views_[source].data;  // of something known
          root_of_[v] = root_of_[source];
        } else {
          p_.locations_[v].kind = Location::Kind::kArena;
          root_of_[v] = static_cast<int>(roots_.size());
          Root root;
          root.bytes = p_.views_[v].bytes();
          root.first = root.last = pending.step;
          roots_.push_back(root);
        }
      }
    }
    for (const int v : p_.output_values_)
      if (root_of_[v] >= 0) roots_[root_of_[v]].last = kForever;
  }

  int find(int root) const {
    while (roots_[root].merged_into >= 0) root = roots_[root].merged_into;
    return root;
  }

  /// Lets outputs take over the memory of inputs that die with the step, where the operator allows it and nothing else
  /// of the step reads that memory.
  void write_in_place() {
    for (const Pending& pending : pending_) {
      if (!pending.runs) continue;
      const PlanStep& step = s_.plan_.steps[pending.step];
      for (const auto& [output, input] : pending.overwrites) {
        if (pending.aliases[output] >= 0 || root_of_[step.inputs[input]] < 0) continue;
        const int own = root_of_[step.outputs[output]];
        const int target = find(root_of_[step.inputs[input]]);
        Root& root = roots_[target];
        if (roots_[own].merged_into >= 0 || root.last != pending.step || root.taken_at == pending.step ||
            root.bytes != roots_[own].bytes)
          continue;
        if (read_elsewhere(step, input, target)) continue;
        roots_[own].merged_into = target;
        root.last = roots_[own].last;
        root.taken_at = pending.step;
      }
    }
  }

  bool read_elsewhere(const PlanStep& step, int input, int root) const {
    for (size_t i = 0; i < step.inputs.size(); ++i) {
      const int v = step.inputs[i];
      if (static_cast<int>(i) != input && v >= 0 && root_of_[v] >= 0 && find(root_of_[v]) == root) return true;
    }
    return false;
  }

  /// Lets steps write straight to the caller's memory; what is an input, a constant or another output already is copied
  /// at the end.
  void bind_outputs() {
    for (size_t o = 0; o < p_.output_values_.size(); ++o) {
      const int v = p_.output_values_[o];
      Root* root = root_of_[v] >= 0 ? &roots_[find(root_of_[v])] : nullptr;
      if (root != nullptr && root->output < 0) {
        root->output = static_cast<int>(o);
      } else {
        p_.copies_.emplace_back(static_cast<int>(o), v);
      }
    }
  }

  Status place() {
    std::vector<BufferLife> buffers;
    std::vector<int> buffer_of(roots_.size(), -1);
    for (size_t r = 0; r < roots_.size(); ++r) {
      if (roots_[r].merged_into >= 0 || roots_[r].output >= 0) continue;
      buffer_of[r] = static_cast<int>(buffers.size());
      buffers.push_back({roots_[r].bytes, roots_[r].first, roots_[r].last});
    }
    std::vector<int> scratch_of(pending_.size(), -1);
    for (size_t i = 0; i < pending_.size(); ++i) {
      if (!pending_[i].runs || pending_[i].scratch == 0) continue;
      scratch_of[i] = static_cast<int>(buffers.size());
      buffers.push_back({pending_[i].scratch, pending_[i].step, pending_[i].step});
    }
    ArenaPlan arena;
    uint64_t total = 0;
    bool fits = plan_arena(buffers, &arena) && checked_add(arena.bytes, folded_bytes_, &total);
    for (const int v : p_.output_values_) fits = fits && checked_add<uint64_t>(total, p_.views_[v].bytes(), &total);
    if (!fits || total > s_.options_.memory_limit)
      return {ErrorCode::kOutOfMemory,
              "these input shapes need " + (fits ? std::to_string(total) : std::string("too many")) +
                  " bytes for intermediate results, past the memory limit of " +
                  std::to_string(s_.options_.memory_limit) + "; use a smaller batch or a higher limit"};
    p_.arena_bytes_ = arena.bytes;

    for (size_t v = 0; v < root_of_.size(); ++v) {
      Location& location = p_.locations_[v];
      if (root_of_[v] >= 0) {
        const int r = find(root_of_[v]);
        if (roots_[r].output >= 0) {
          location = {Location::Kind::kOutput, roots_[r].output, 0};
        } else {
          location = {Location::Kind::kArena, 0, arena.offsets[buffer_of[r]]};
        }
      }
      if (location.kind == Location::Kind::kInput || location.kind == Location::Kind::kOutput)
        p_.externals_.push_back({static_cast<int>(v), location.kind, location.index});
    }
    for (size_t i = 0; i < pending_.size(); ++i) {
      if (!pending_[i].runs) continue;
      const PlanStep& step = s_.plan_.steps[pending_[i].step];
      LiveStep live;
      live.step = pending_[i].step;
      live.scratch = scratch_of[i] >= 0 ? arena.offsets[scratch_of[i]] : 0;
      for (const int v : step.inputs)
        if (v >= 0) live.bytes += p_.views_[v].bytes();
      for (const int v : step.outputs) live.bytes += p_.views_[v].bytes();
      p_.steps_.push_back(live);
    }
    return Status::ok();
  }

  const Session& s_;
  std::shared_ptr<Prepared> result_;
  Prepared& p_;
  uint64_t folded_bytes_ = 0;
  std::vector<Pending> pending_;
  std::vector<int> root_of_;  ///< by value, -1: not computed by a run
  std::vector<Root> roots_;
};

Result<std::shared_ptr<const Prepared>> Prepared::make(const Session& session, const TensorView* inputs) {
  return Preparation(session, inputs).run();
}

bool Prepared::matches(const TensorView* inputs) const {
  for (size_t i = 0; i < input_shapes_.size(); ++i)
    if (input_shapes_[i] != inputs[i].shape) return false;
  return true;
}

TensorView Prepared::output(int i) const {
  const TensorView& view = views_[output_values_[i]];
  return {view.dtype, view.shape, nullptr};
}

}  // namespace lutc
