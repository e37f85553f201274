#pragma once

#include "core/expanded_tables.h"
#include "core/plan.h"
#include "kernels/kernel_table.h"

namespace lutc {

/// Tells a lut_encode and the lookups that read its codes how large the entries of their tables are, where kernels make
/// use of it (the attribute `entry_limit`; one in the file counts nothing). The tables are read, never trusted: sums of
/// larger entries would not fit. `tables`: of the init steps, may be null.
void link_entries(Plan* plan, const ExpandedTables* tables, kernels::Isa isa);

}  // namespace lutc
