// A 64-bit fingerprint of the bytes of a weight: whether they are the ones a packed form was made
// of.
#pragma once

#include <cstdint>
#include <vector>

#include "base/cpu.h"

namespace inpaint {

// Memory as runs of adjacent bytes: run i starts at the sum of `strides` times the digits of i in
// the mixed radix `sizes`, last axis fastest.
struct FingerprintArgs {
  const unsigned char* data;
  int64_t run;                   // bytes
  std::vector<int64_t> sizes;    // of the axes outside a run
  std::vector<int64_t> strides;  // bytes
  uint64_t keys[2];              // odd
  int threads;
};

INPAINT_EACH_ISA(uint64_t fingerprint(const FingerprintArgs& args);)

}  // namespace inpaint
