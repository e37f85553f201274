#include "core/session.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/active_runs.h"
#include "core/json.h"
#include "core/link_entries.h"
#include "core/link_features.h"
#include "core/link_maxima.h"
#include "core/link_planes.h"
#include "core/link_signs.h"
#include "core/machine.h"
#include "core/prepared.h"
#include "core/step_context.h"
#include "core/thread_pool.h"
#include "kernels/kernel_table.h"

namespace lutc {

/// The memory of one run in flight; kept for the next.
struct RunState {
  std::shared_ptr<const Prepared> prepared;  ///< whose locations `views` has
  AlignedBuffer arena;
  std::vector<TensorView> views;
  std::vector<AlignedBuffer> unwanted;  ///< by output: where it goes when the caller does not want it
};

namespace {

constexpr size_t kMaxListed = 20;

/// While a model is loaded the caller has given nothing but the file: what an operator calls an invalid argument is the
/// file's fault.
Status of_artifact(const Status& status) {
  return status.code() == ErrorCode::kInvalidArgument ? Status(ErrorCode::kCorrupt, status.message()) : status;
}

std::string dims_text(const Port& port) {
  const std::string text = port_text(port);
  return text.substr(text.rfind('['));
}

std::string list_ports(const std::vector<Port>& ports) {
  std::string text;
  for (const Port& port : ports) text += (text.empty() ? "" : ", ") + port_text(port);
  return text;
}

}  // namespace

Session::~Session() = default;

Result<std::unique_ptr<Session>> Session::open(const std::string& path, const SessionOptions& options) {
  Result<std::unique_ptr<Artifact>> artifact =
      Artifact::open(path, options.map ? FileMap::Mode::kMap : FileMap::Mode::kCopy);
  if (!artifact.is_ok()) return artifact.status();
  Result<std::unique_ptr<Session>> session = build(std::move(artifact.value()), options);
  if (!session.is_ok()) return Status(session.status().code(), in_quotes(path) + ": " + session.status().message());
  return session;
}

Result<std::unique_ptr<Session>> Session::from_memory(const void* data, size_t bytes, const SessionOptions& options) {
  Result<std::unique_ptr<Artifact>> artifact = Artifact::from_memory(data, bytes);
  if (!artifact.is_ok()) return artifact.status();
  return build(std::move(artifact.value()), options);
}

Result<std::unique_ptr<Session>> Session::build(std::unique_ptr<Artifact> artifact, const SessionOptions& options) {
  if (options.threads < 0)
    return Status(ErrorCode::kInvalidArgument,
                  "threads must be 0 (all) or more, not " + std::to_string(options.threads));
  std::unique_ptr<Session> session(new Session);
  session->options_ = options;
  if (options.memory_limit == 0) session->options_.memory_limit = granted_memory();
  session->options_.cached_shapes = std::max(1, options.cached_shapes);
  const Result<const kernels::KernelTable*> table =
      options.isa.empty() ? kernels::default_table() : kernels::table_named(options.isa);
  if (!table.is_ok()) return table.status();
  session->kernels_ = table.value();
  const int granted = ThreadPool::shared().threads();
  session->threads_ = options.threads == 0 ? granted : std::min(options.threads, granted);

  session->artifact_ = std::move(artifact);
  Result<Plan> plan = read_plan(session->artifact_->metadata("lutc.plan"), *session->artifact_);
  if (!plan.is_ok()) return plan.status();
  session->plan_ = std::move(plan.value());
  link_maxima(&session->plan_);
  link_signs(&session->plan_);
  link_features(&session->plan_, session->kernels_->isa);
  link_planes(&session->plan_, session->kernels_->isa);
  LUTC_RETURN_IF_ERROR(link_tables(&session->plan_, session->kernels_->isa));
  auto tables = ExpandedTables::make(session->plan_, *session->artifact_, session->kernels_->isa, session->threads_,
                                     session->options_.memory_limit);
  if (!tables.is_ok()) return tables.status();
  session->tables_ = std::move(tables.value());
  link_entries(&session->plan_, session->tables_.get(), session->kernels_->isa);
  LUTC_RETURN_IF_ERROR(session->build_steps());
  return session;
}

Status Session::build_steps() {
  const OpRegistry& registry = OpRegistry::instance();
  std::string unsupported;
  size_t failures = 0;
  for (const PlanStep& step : plan_.steps) {
    if (registry.find(step.op) != nullptr || ++failures > kMaxListed) continue;
    unsupported += "\n  step " + in_quotes(step.name) + ": unknown operator " + in_quotes(step.op);
  }
  if (failures != 0)
    return {ErrorCode::kUnsupported, std::to_string(failures) + " step(s) this runtime cannot execute:" + unsupported +
                                         (failures > kMaxListed ? "\n  and more" : "")};

  known_.resize(plan_.values.size());
  for (size_t v = 0; v < plan_.values.size(); ++v) {
    known_[v].dtype = plan_.values[v].dtype;
    if (plan_.values[v].constant) known_[v] = plan_.values[v].view;
  }
  for (size_t i = 0; i < plan_.init.size(); ++i) known_[plan_.init[i].outputs[0]] = tables_->table(i);
  if (tables_ != nullptr) folded_bytes_ = tables_->bytes();
  defs_.resize(plan_.steps.size());
  totals_.resize(plan_.steps.size());
  BuildContext build = {kernels_};
  TableLink no_table, *last_table = &no_table;
  build.last_table = &last_table;
  for (const PlanStep& step : plan_.steps) {
    const bool lookups = step.op == "lut_linear" || step.op == "lut_conv";
    const int table = lookups && step.inputs.size() > 1 ? step.inputs[1] : -1;
    if (table >= 0 && known_[table].data != nullptr) build.table_bytes += static_cast<int64_t>(known_[table].bytes());
  }
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const PlanStep& step = plan_.steps[i];
    StepDef& def = defs_[i];
    def.op = step.op;
    def.name = step.name;
    def.attrs = step.attrs;
    for (const int v : step.inputs) {
      StepDef::Input input;
      input.present = v >= 0;
      if (v >= 0) {
        input.constant = known_[v].data != nullptr;
        input.tensor = known_[v];
      }
      def.inputs.push_back(input);
    }
    for (const int v : step.outputs) def.outputs.push_back(plan_.values[v].dtype);
    Result<std::unique_ptr<Op>> op = registry.find(step.op)(def, build);
    if (!op.is_ok()) return of_artifact(op.status());
    ops_.push_back(std::move(op.value()));

    // What follows from constants alone is computed once, here, so that later factories see constants (and pack them as
    // weights).
    const bool constant = std::all_of(step.inputs.begin(), step.inputs.end(),
                                      [this](int v) { return v < 0 || known_[v].data != nullptr; });
    if (!constant) continue;
    StepInference inference(step, def, known_, options_.memory_limit, threads_);
    LUTC_RETURN_IF_ERROR(of_artifact(inference.infer(*ops_.back())));
    LUTC_RETURN_IF_ERROR(
        run_now(*ops_.back(), def, step, inference, known_, options_.memory_limit, threads_, &folded_, &folded_bytes_));
  }
  return Status::ok();
}

const char* Session::isa() const { return kernels_->name; }

Result<int> Session::find_input(const std::string& name) const {
  std::string call;
  for (size_t i = 0; i < plan_.inputs.size(); ++i) {
    if (plan_.inputs[i].name == name) return static_cast<int>(i);
    call += (call.empty() ? "" : ", ") + in_quotes(plan_.inputs[i].name) + ": ...";
  }
  return Status(ErrorCode::kInvalidArgument, "there is no input " + in_quotes(name) + "; the inputs are " +
                                                 list_ports(plan_.inputs) + ". Try run(None, {" + call + "})");
}

Result<int> Session::find_output(const std::string& name) const {
  for (size_t i = 0; i < plan_.outputs.size(); ++i)
    if (plan_.outputs[i].name == name) return static_cast<int>(i);
  return Status(ErrorCode::kInvalidArgument,
                "there is no output " + in_quotes(name) + "; the outputs are " + list_ports(plan_.outputs));
}

Status Session::check_inputs(const TensorView* inputs) const {
  for (size_t i = 0; i < plan_.inputs.size(); ++i) {
    const Port& port = plan_.inputs[i];
    const auto fail = [&](const std::string& why) {
      const std::string given = dtype_name(inputs[i].dtype) + inputs[i].shape.to_string();
      return Status(ErrorCode::kInvalidArgument, "input " + port_text(port) + " was given " + given + ": " + why);
    };
    if (inputs[i].dtype != port.dtype) return fail(std::string("it must be ") + dtype_name(port.dtype));
    if (inputs[i].shape.rank != static_cast<int>(port.shape.size()))
      return fail("it must have rank " + std::to_string(port.shape.size()) + ", as " + dims_text(port));
    for (int d = 0; d < inputs[i].shape.rank; ++d)
      if (port.shape[d].symbol.empty() && port.shape[d].size != inputs[i].shape[d])
        return fail("dimension " + std::to_string(d) + " must be " + std::to_string(port.shape[d].size));
    const Result<int64_t> elements = checked_elements(inputs[i].shape);
    if (!elements.is_ok()) return fail(elements.status().message());
  }
  // Symbols: the first input that has one sets its size. Few inputs, few dims: no map is worth it, and none allocates.
  for (size_t i = 0; i < plan_.inputs.size(); ++i) {
    for (size_t d = 0; d < plan_.inputs[i].shape.size(); ++d) {
      const std::string& symbol = plan_.inputs[i].shape[d].symbol;
      if (symbol.empty()) continue;
      for (size_t j = 0; j <= i; ++j) {
        for (size_t e = 0; e < plan_.inputs[j].shape.size(); ++e) {
          if (plan_.inputs[j].shape[e].symbol != symbol || inputs[j].shape[e] == inputs[i].shape[d]) continue;
          return {ErrorCode::kInvalidArgument,
                  "dimension " + in_quotes(symbol) + " is " + std::to_string(inputs[j].shape[e]) + " in input " +
                      port_text(plan_.inputs[j]) + " but " + std::to_string(inputs[i].shape[d]) + " in input " +
                      port_text(plan_.inputs[i])};
        }
      }
    }
  }
  return Status::ok();
}

Result<std::shared_ptr<const Prepared>> Session::prepare(const TensorView* inputs) const {
  LUTC_RETURN_IF_ERROR(check_inputs(inputs));
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto it = prepared_.begin(); it != prepared_.end(); ++it) {
    if (!(*it)->matches(inputs)) continue;
    prepared_.splice(prepared_.begin(), prepared_, it);
    return prepared_.front();
  }
  LUTC_RETURN_IF_ERROR(artifact_->still_intact());
  Result<std::shared_ptr<const Prepared>> made = Prepared::make(*this, inputs);
  if (!made.is_ok()) return made;
  prepared_.push_front(made.value());
  if (prepared_.size() > static_cast<size_t>(options_.cached_shapes)) prepared_.pop_back();
  return made;
}

std::unique_ptr<RunState> Session::acquire_state(const Prepared& prepared) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (idle_.empty()) return std::make_unique<RunState>();
  const auto same =
      std::find_if(idle_.begin(), idle_.end(), [&](const auto& state) { return state->prepared.get() == &prepared; });
  std::swap(same == idle_.end() ? idle_.back() : *same, idle_.back());
  std::unique_ptr<RunState> state = std::move(idle_.back());
  idle_.pop_back();
  return state;
}

Status Session::run(const Prepared& prepared, const TensorView* inputs, const TensorView* outputs) const {
  LUTC_RETURN_IF_ERROR(artifact_->still_intact());
  for (size_t i = 0; i < plan_.inputs.size(); ++i) {
    if (inputs[i].shape != prepared.views()[plan_.inputs[i].value].shape || inputs[i].dtype != plan_.inputs[i].dtype)
      return {ErrorCode::kInvalidArgument, "input " + port_text(plan_.inputs[i]) + " changed between prepare and run"};
    const bool needs_data = inputs[i].shape.elements() != 0;
    if ((needs_data && inputs[i].data == nullptr) ||
        reinterpret_cast<uintptr_t>(inputs[i].data) % dtype_size(inputs[i].dtype) != 0)
      return {ErrorCode::kInvalidArgument,
              "input " + port_text(plan_.inputs[i]) + ": its data is null or not aligned to its elements"};
  }
  for (size_t o = 0; o < plan_.outputs.size(); ++o)
    if (reinterpret_cast<uintptr_t>(outputs[o].data) % dtype_size(plan_.outputs[o].dtype) != 0)
      return {ErrorCode::kInvalidArgument,
              "output " + port_text(plan_.outputs[o]) + ": its memory is not aligned to its elements"};

  std::unique_ptr<RunState> state = acquire_state(prepared);
  Status status = [&] {
    if (state->prepared.get() != &prepared) {
      state->prepared.reset();
      if (state->arena.size() < prepared.arena_bytes() || state->arena.data() == nullptr)
        if (!state->arena.allocate(prepared.arena_bytes()))
          return Status(ErrorCode::kOutOfMemory,
                        "no memory for " + std::to_string(prepared.arena_bytes()) + " bytes of intermediate results");
      state->views = prepared.views();
      for (size_t v = 0; v < state->views.size(); ++v)
        if (prepared.locations()[v].kind == Location::Kind::kArena)
          state->views[v].data = static_cast<char*>(state->arena.data()) + prepared.locations()[v].offset;
      state->unwanted.resize(plan_.outputs.size());
      state->prepared = prepared.shared_from_this();
    }
    for (const Prepared::External& external : prepared.externals()) {
      void* data = nullptr;
      if (external.kind == Location::Kind::kInput) {
        data = inputs[external.index].data;
        // A tensor without elements may come without memory; no operator should have to care.
        if (data == nullptr) data = state->arena.data();
      } else {
        data = outputs[external.index].data;
        if (data == nullptr) {
          AlignedBuffer& spare = state->unwanted[external.index];
          const size_t bytes = prepared.output(external.index).bytes();
          if ((spare.data() == nullptr || spare.size() < bytes) && !spare.allocate(bytes))
            return Status(ErrorCode::kOutOfMemory,
                          "no memory for an unwanted output of " + std::to_string(bytes) + " bytes");
          data = spare.data();
        }
      }
      state->views[external.value].data = data;
    }
    LUTC_RETURN_IF_ERROR(run_steps(prepared, *state));
    for (const auto& [output, value] : prepared.copies()) {
      const size_t bytes = state->views[value].bytes();
      if (outputs[output].data != nullptr && bytes != 0)
        std::memcpy(outputs[output].data, state->views[value].data, bytes);
    }
    return Status::ok();
  }();
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(state));
  return status;
}

Status Session::run_steps(const Prepared& prepared, RunState& state) const {
  using Clock = std::chrono::steady_clock;
  bool profiling = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    profiling = profiling_;
  }
  const ActiveRun active;
  StepRun context(state.views, ThreadPool::shared(), threads_);
  for (const LiveStep& live : prepared.steps()) {
    context.bind(plan_.steps[live.step], static_cast<char*>(state.arena.data()) + live.scratch);
    if (!profiling) {
      LUTC_RETURN_IF_ERROR(ops_[live.step]->run(context));
      continue;
    }
    const Clock::time_point start = Clock::now();
    LUTC_RETURN_IF_ERROR(ops_[live.step]->run(context));
    const double microseconds = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    const std::lock_guard<std::mutex> lock(mutex_);
    totals_[live.step].calls += 1;
    totals_[live.step].microseconds += microseconds;
    totals_[live.step].bytes += live.bytes;
    totals_[live.step].prepared = state.prepared;
  }
  return Status::ok();
}

void Session::set_profiling(bool on) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (on) std::fill(totals_.begin(), totals_.end(), StepTotals{});
  profiling_ = on;
}

std::vector<StepProfile> Session::profile() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<StepProfile> profile;
  for (size_t i = 0; i < totals_.size(); ++i) {
    const StepTotals& totals = totals_[i];
    if (totals.calls == 0) continue;
    const PlanStep& step = plan_.steps[i];
    StepProfile entry = {step.name, step.op, totals.calls, totals.microseconds, totals.bytes, {}, {}};
    const auto operand = [&](int v) {
      if (v < 0) return StepProfile::Operand{};
      const TensorView& view = totals.prepared->views()[v];
      return StepProfile::Operand{view.dtype, view.shape, known_[v].data != nullptr, true};
    };
    for (const int v : step.inputs) entry.inputs.push_back(operand(v));
    for (const int v : step.outputs) entry.outputs.push_back(operand(v));
    profile.push_back(std::move(entry));
  }
  return profile;
}

}  // namespace lutc
