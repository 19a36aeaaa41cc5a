#include "base/cpu.h"

#include <atomic>
#include <cstring>
#include <stdexcept>

namespace inpaint {
namespace {

// In the order of Isa.
const char* const kNames[] = {"baseline", "avx2", "avx512_shaped", "avx512"};
constexpr Isa kAll[] = {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512Shaped, Isa::kAvx512};

#if defined(INPAINT_ONLY)
#define INPAINT_NAME(isa) #isa
#define INPAINT_NAME_OF(isa) INPAINT_NAME(isa)
bool is_built(Isa isa) {
  return std::strcmp(kNames[static_cast<int>(isa)], INPAINT_NAME_OF(INPAINT_ONLY)) == 0;
}
#elif defined(INPAINT_TEST_BUILD)
bool is_built(Isa) { return true; }
#else
bool is_built(Isa isa) { return isa != Isa::kAvx512Shaped; }
#endif

bool has_avx2() {
#if defined(INPAINT_X86)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool has_avx512() {
#if defined(INPAINT_X86)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && has_avx2();
#else
  return false;
#endif
}

bool runs(Isa isa) {
#if defined(INPAINT_X86)
  __builtin_cpu_init();
#endif
  if (!is_built(isa)) return false;
  switch (isa) {
    case Isa::kAvx512:
      return has_avx512();
    case Isa::kAvx512Shaped:
    case Isa::kAvx2:
      return has_avx2();
    case Isa::kBaseline:
      return true;
  }
  return false;
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

std::vector<std::string> names_of(bool (*chosen)(Isa)) {
  std::vector<std::string> names;
  for (Isa isa : kAll) {
    if (chosen(isa)) names.push_back(kNames[static_cast<int>(isa)]);
  }
  return names;
}

}  // namespace

std::vector<std::string> instruction_sets() { return names_of(runs); }

std::vector<std::string> built_sets() { return names_of(is_built); }

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
