// Instruction sets of this machine and the one in use; everything compiled once, for the baseline.
#pragma once

#include <string>
#include <vector>

namespace inpaint {

enum class Isa { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };

// Names of the instruction sets that this binary holds and this machine runs, weakest first.
std::vector<std::string> instruction_sets();

// The one in use: the strongest, until set_instruction_set picks another.
Isa instruction_set();
std::string instruction_set_name();

// Throws std::invalid_argument if the machine or the binary lacks it.
void set_instruction_set(const std::string& name);

}  // namespace inpaint
