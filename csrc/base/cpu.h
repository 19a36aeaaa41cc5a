// Instruction sets of this machine and the one in use; everything compiled once, for the baseline.
#pragma once

#include <string>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#define INPAINT_X86 1
#elif !defined(INPAINT_ONLY)
#define INPAINT_ONLY baseline
#endif

// INPAINT_EACH_ISA(declarations): repeats them in the namespace of every instruction set built.
// INPAINT_PICK(function): the address of its copy for the instruction set in use.
// INPAINT_ONLY: the one set that this build holds, see native_set in setup.py.
// INPAINT_TEST_BUILD: with avx512_shaped, see base/simd.h.
#if defined(INPAINT_ONLY)
#define INPAINT_EACH_ISA(...) \
  namespace INPAINT_ONLY {    \
  __VA_ARGS__                 \
  }
#define INPAINT_PICK(...) (&INPAINT_ONLY::__VA_ARGS__)
#else
#if defined(INPAINT_TEST_BUILD)
#define INPAINT_SHAPED_NAMESPACE(...) \
  namespace avx512_shaped {           \
  __VA_ARGS__                         \
  }
#define INPAINT_SHAPED_COPY(...) , &avx512_shaped::__VA_ARGS__
#else
#define INPAINT_SHAPED_NAMESPACE(...)
#define INPAINT_SHAPED_COPY(...)
#endif
#define INPAINT_EACH_ISA(...) \
  namespace baseline {        \
  __VA_ARGS__                 \
  }                           \
  namespace avx2 {            \
  __VA_ARGS__                 \
  }                           \
  namespace avx512 {          \
  __VA_ARGS__                 \
  }                           \
  INPAINT_SHAPED_NAMESPACE(__VA_ARGS__)
#define INPAINT_PICK(...)                 \
  ::inpaint::pick(&baseline::__VA_ARGS__, \
                  &avx2::__VA_ARGS__,     \
                  &avx512::__VA_ARGS__ INPAINT_SHAPED_COPY(__VA_ARGS__))
#endif

namespace inpaint {

enum class Isa { kBaseline, kAvx2, kAvx512Shaped, kAvx512 };

// Names of the instruction sets that this binary holds and this machine runs, weakest first; the
// build for one set alone may hold none.
std::vector<std::string> instruction_sets();

// Names of those that this binary holds, whatever this machine runs.
std::vector<std::string> built_sets();

// The one in use: the fastest, until set_instruction_set picks another.
Isa instruction_set();
std::string instruction_set_name();

// Throws std::invalid_argument if the machine or the binary lacks it.
void set_instruction_set(const std::string& name);

template <class Function>
Function* pick(Function* baseline,
               Function* avx2,
               Function* avx512,
               Function* avx512_shaped = nullptr) {
  switch (instruction_set()) {
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx512Shaped:
      return avx512_shaped;
    case Isa::kAvx2:
      return avx2;
    case Isa::kBaseline:
      break;
  }
  return baseline;
}

}  // namespace inpaint
