#include "convolution/costs.h"

#include <stdexcept>

namespace inpaint {
namespace {

struct Row {
  const char* instruction_set;
  Costs costs;
};

// clang-format off
// Picoseconds on one core of an AMD EPYC (Zen 4, family 25, model 17). AVX-512: fitted to the times
// of all candidates on the layers of benchmarks/cases/conv_layers.py. The other rows are that one,
// scaled by the times of some of these layers: what matters is how the kinds of work compare. In
// AVX2 the choices were compared with the times of all candidates: transforms of results cost more
// than the scale says. The baseline has the same ratio.
const Row kTable[] = {
  //              direct  tiled  deep  staged   in  out  staged   thin  packed   outer  thin  tiled  write  sum  transform
  {"baseline",    {{  69,   81,  112,    75,  205, 650,  1990,   4000,   200,      60,   67,   58,   840, 860,   480}}},
  {"avx2",        {{20.3, 23.5, 32.5,    22,   68, 217,   620,   1950,   150,    21.7,   29,   24,   490, 340,   260}}},
  {"avx512",      {{18.6,   22, 30.5,    20,   56, 119,   540,   1860,   150,      21,   29,   23,   425, 300,   200}}},
};
// clang-format on

}  // namespace

double cost_of(const Work& work, const Costs& costs) {
  double sum = 0;
  for (int term = 0; term < kTerms; ++term) sum += work[term] * costs[term];
  return sum;
}

Costs measured_costs(const std::string& instruction_set) {
  // The tiles and tasks of AVX-512, in instructions of AVX2: only tests take it.
  const std::string name = instruction_set == "avx512_shaped" ? "avx512" : instruction_set;
  for (const Row& row : kTable)
    if (name == row.instruction_set) return row.costs;
  throw std::invalid_argument("no costs for the instruction set " + instruction_set);
}

}  // namespace inpaint
