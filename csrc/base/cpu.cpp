#include "base/cpu.h"

#include <atomic>
#include <stdexcept>

namespace inpaint {
namespace {

// In the order of Isa.
const char* const kNames[] = {"baseline", "avx2", "avx512_shaped", "avx512"};
constexpr Isa kAll[] = {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512Shaped, Isa::kAvx512};

#if defined(INPAINT_TEST_BUILD)
constexpr bool kHasShaped = true;
#else
constexpr bool kHasShaped = false;
#endif

bool runs(Isa isa) {
#if defined(INPAINT_X86)
  __builtin_cpu_init();
  switch (isa) {
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512Shaped:
      return kHasShaped && runs(Isa::kAvx2);
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kBaseline:
      return true;
  }
  return false;
#else
  return isa == Isa::kBaseline;
#endif
}

// avx512_shaped never: it is slower than avx2.
Isa fastest() {
  if (runs(Isa::kAvx512)) return Isa::kAvx512;
  if (runs(Isa::kAvx2)) return Isa::kAvx2;
  return Isa::kBaseline;
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> isa{fastest()};
  return isa;
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (Isa isa : kAll) {
    if (runs(isa)) names.push_back(kNames[static_cast<int>(isa)]);
  }
  return names;
}

Isa instruction_set() { return current().load(std::memory_order_relaxed); }

std::string instruction_set_name() { return kNames[static_cast<int>(instruction_set())]; }

void set_instruction_set(const std::string& name) {
  for (Isa isa : kAll) {
    if (name == kNames[static_cast<int>(isa)] && runs(isa)) {
      current().store(isa, std::memory_order_relaxed);
      return;
    }
  }
  std::string known;
  for (const std::string& have : instruction_sets()) known += " " + have;
  throw std::invalid_argument("instruction set must be one of" + known + ", got " + name);
}

}  // namespace inpaint
