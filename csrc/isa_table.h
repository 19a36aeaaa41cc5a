// Entry points of one instruction set. A new kernel adds one line here and one in isa_table.cpp.
#pragma once

#include "nearest_patch.h"
#include "refine_patch.h"
#include "shift_connection.h"

namespace inpaint {

struct IsaTable {
  void (*nearest_patch_f32)(const NearestPatchArgs<float>&);
  void (*nearest_patch_f64)(const NearestPatchArgs<double>&);
  void (*refine_patch_f32)(const RefinePatchArgs<float>&);
  void (*refine_patch_f64)(const RefinePatchArgs<double>&);
  void (*gather_positions_u16)(const PositionsArgs<uint16_t>&);
  void (*gather_positions_f32)(const PositionsArgs<float>&);
  void (*gather_positions_f64)(const PositionsArgs<double>&);
  void (*scatter_positions_f32)(const PositionsArgs<float>&);
  void (*scatter_positions_f64)(const PositionsArgs<double>&);
};

namespace baseline {
const IsaTable& isa_table();
}
#if defined(INPAINT_X86)
namespace avx2 {
const IsaTable& isa_table();
}
namespace avx512 {
const IsaTable& isa_table();
}
#endif

}  // namespace inpaint
