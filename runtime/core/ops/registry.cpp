// The operators this runtime executes. One line per file of core/ops/, in alphabetical order.
#include "core/op.h"

namespace lutc {

// Declarations: one `void register_<file>(OpRegistry&);` per file.
void register_attention(OpRegistry&);
void register_binary(OpRegistry&);
void register_cast(OpRegistry&);
void register_concat_split(OpRegistry&);
void register_cum_sum(OpRegistry&);
void register_dense_conv(OpRegistry&);
void register_dense_conv_transpose(OpRegistry&);
void register_dense_matmul(OpRegistry&);
void register_dense_norm(OpRegistry&);
void register_dense_pool(OpRegistry&);
void register_fill(OpRegistry&);
void register_gather(OpRegistry&);
void register_int8_conv(OpRegistry&);
void register_int8_linear(OpRegistry&);
void register_lut_conv(OpRegistry&);
void register_lut_encode(OpRegistry&);
void register_lut_linear(OpRegistry&);
void register_pad(OpRegistry&);
void register_reduce(OpRegistry&);
void register_resize(OpRegistry&);
void register_rotary_embedding(OpRegistry&);
void register_scatter(OpRegistry&);
void register_select(OpRegistry&);
void register_slice(OpRegistry&);
void register_top_k(OpRegistry&);
void register_transpose(OpRegistry&);
void register_unary(OpRegistry&);
void register_views(OpRegistry&);

namespace {

OpRegistry make_registry() {
  OpRegistry registry;
  register_attention(registry);
  register_binary(registry);
  register_cast(registry);
  register_concat_split(registry);
  register_cum_sum(registry);
  register_dense_conv(registry);
  register_dense_conv_transpose(registry);
  register_dense_matmul(registry);
  register_dense_norm(registry);
  register_dense_pool(registry);
  register_fill(registry);
  register_gather(registry);
  register_int8_conv(registry);
  register_int8_linear(registry);
  register_lut_conv(registry);
  register_lut_encode(registry);
  register_lut_linear(registry);
  register_pad(registry);
  register_reduce(registry);
  register_resize(registry);
  register_rotary_embedding(registry);
  register_scatter(registry);
  register_select(registry);
  register_slice(registry);
  register_top_k(registry);
  register_transpose(registry);
  register_unary(registry);
  register_views(registry);
  return registry;
}

}  // namespace

const OpRegistry& OpRegistry::instance() {
  static const OpRegistry registry = make_registry();
  return registry;
}

}  // namespace lutc
