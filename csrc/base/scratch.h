// release_scratch: what threads keep for their next calls goes back to the system.
#pragma once

#include "base/cpu.h"

namespace inpaint {

INPAINT_EACH_ISA(void release_scratch(int threads);)

}  // namespace inpaint
