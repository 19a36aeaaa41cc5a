#include "isa_table.h"

namespace inpaint {
namespace INPAINT_ISA {

const IsaTable& isa_table();

const IsaTable& isa_table() {
  static const IsaTable table = {
      &nearest_patch<float>,
      &nearest_patch<double>,
      &refine_patch<float>,
      &refine_patch<double>,
      &gather_positions<uint16_t>,
      &gather_positions<float>,
      &gather_positions<double>,
      &scatter_positions<float>,
      &scatter_positions<double>,
  };
  return table;
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
