#include "core/expanded_tables.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <string>

#include "core/checked.h"
#include "core/expand_step.h"
#include "core/thread_pool.h"

namespace lutc {
namespace {

constexpr uint64_t kAlignment = AlignedBuffer::kAlignment;

StepDef definition(const Plan& plan, const PlanStep& step) {
  StepDef def;
  def.op = step.op;
  def.name = step.name;
  def.attrs = step.attrs;
  for (const int v : step.inputs) def.inputs.push_back({true, true, plan.values[v].view});
  return def;
}

/// Tables of mapped files, as long as a session uses them.
class Shared {
 public:
  using Tables = std::shared_ptr<const ExpandedTables>;

  static Shared& instance() {
    static Shared* shared = new Shared;
    return *shared;
  }
  Tables find(const std::string& key) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto it = tables_.find(key);
    return it == tables_.end() ? nullptr : it->second.lock();
  }
  /// The tables to use: those given, or another thread's that came first.
  Tables keep(const std::string& key, const Tables& made) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = tables_.begin(); it != tables_.end();) it = it->second.expired() ? tables_.erase(it) : ++it;
    std::weak_ptr<const ExpandedTables>& place = tables_[key];
    if (const Tables first = place.lock()) return first;
    place = made;
    return made;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<const ExpandedTables>> tables_;
};

void make_all(kernels::Isa isa, const std::vector<ExpandStep>& steps, const std::vector<TensorView>& tables,
              int threads) {
  std::vector<int64_t> first = {0};  // piece of each table among all
  for (const ExpandStep& step : steps) first.push_back(first.back() + kernels::expand_pieces(step.factors));
  ThreadPool::shared().parallel_for(first.back(), 1, threads, [&](int64_t begin, int64_t end, int) {
    size_t i = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1;
    for (; begin < end; ++i) {
      const int64_t stop = std::min(end, first[i + 1]);
      kernels::expand(isa, steps[i].layout, steps[i].factors, begin - first[i], stop - first[i],
                      tables[i].as_mut<uint8_t>());
      begin = stop;
    }
  });
}

}  // namespace

Status link_tables(Plan* plan, kernels::Isa isa) {
  if (plan->init.empty()) return Status::ok();
  std::vector<const PlanStep*> maker(plan->values.size());
  for (const PlanStep& step : plan->init) maker[step.outputs[0]] = &step;
  // Readers first, while the init steps still say what they were written with.
  const std::string best = kernels::layout_name(kernels::layouts_for(isa).front());
  const auto stays = [&](const PlanStep& step) {
    return step.attrs.get_string("layout", "") == "ckn" && plan->values[step.inputs[1]].view.shape.rank == 2;
  };
  for (PlanStep& step : plan->steps) {
    if (step.inputs.size() < 2 || step.inputs[1] < 0 || maker[step.inputs[1]] == nullptr) continue;
    const PlanStep& from = *maker[step.inputs[1]];
    if (step.attrs.get_string("layout", "ckn") != from.attrs.get_string("layout", ""))
      return {ErrorCode::kCorrupt, "plan: step '" + step.name + "' and the init step '" + from.name +
                                       "' that makes its table name different layouts"};
    if (!stays(from)) step.attrs.set("layout", best);
  }
  for (PlanStep& step : plan->init) {
    kernels::TableLayout known;
    const std::string layout = step.attrs.get_string("layout", "");
    if (!kernels::parse_layout(layout, &known))
      return {ErrorCode::kUnsupported,
              "init step '" + step.name + "': table layout '" + layout + "' is unknown to this runtime"};
    if (stays(step)) continue;
    step.attrs.set("layout", best);
    plan->values[step.outputs[0]].dtype = DType::kU8;
  }
  return Status::ok();
}

Result<std::shared_ptr<const ExpandedTables>> ExpandedTables::make(const Plan& plan, const Artifact& artifact,
                                                                   kernels::Isa isa, int threads,
                                                                   uint64_t memory_limit) {
  if (plan.init.empty()) return std::shared_ptr<const ExpandedTables>();
  std::vector<ExpandStep> steps;
  std::vector<uint64_t> offsets;
  uint64_t total = 0;
  for (const PlanStep& step : plan.init) {
    Result<ExpandStep> checked = ExpandStep::make(definition(plan, step));
    if (!checked.is_ok()) return checked.status();
    const ExpandStep& made = checked.value();
    const DType dtype = made.layout == kernels::TableLayout::kCkn ? DType::kI8 : DType::kU8;
    if (plan.values[step.outputs[0]].dtype != dtype)
      return Status(ErrorCode::kCorrupt, "init step '" + step.name + "': its table must be " + dtype_name(dtype));
    if (!kernels::can_expand(isa, made.layout, made.factors.shape))
      return Status(ErrorCode::kUnsupported, "init step '" + step.name + "': no kernel makes tables of this layout");
    offsets.push_back(total);
    if (!checked_add(total, made.bytes, &total) || !checked_align(total, kAlignment, &total) || total > memory_limit)
      return Status(ErrorCode::kOutOfMemory, "init step '" + step.name +
                                                 "': the model's tables would pass the memory limit of " +
                                                 std::to_string(memory_limit) + " bytes");
    steps.push_back(made);
  }

  const std::string file = artifact.identity();
  const std::string key = file + ":" + kernels::isa_name(isa);
  if (!file.empty())
    if (Shared::Tables found = Shared::instance().find(key)) return found;
  std::shared_ptr<ExpandedTables> made(new ExpandedTables);
  if (!made->memory_.allocate(total))
    return Status(ErrorCode::kOutOfMemory, "no memory for " + std::to_string(total) + " bytes of tables");
  made->bytes_ = total;
  for (size_t i = 0; i < steps.size(); ++i) {
    TensorView view;
    const bool canonical = steps[i].layout == kernels::TableLayout::kCkn;
    view.dtype = canonical ? DType::kI8 : DType::kU8;
    view.shape = {static_cast<int64_t>(steps[i].bytes)};
    view.data = static_cast<uint8_t*>(made->memory_.data()) + offsets[i];
    made->tables_.push_back(view);
  }
  make_all(isa, steps, made->tables_, threads);
  if (file.empty()) return std::shared_ptr<const ExpandedTables>(made);
  return Shared::instance().keep(key, made);
}

}  // namespace lutc
