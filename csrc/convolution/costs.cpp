#include "convolution/costs.h"

#include <stdexcept>

namespace inpaint {
namespace {

struct Row {
  const char* instruction_set;
  Costs costs;
};

// clang-format off
// Picoseconds on one core of an AMD EPYC (Zen 4, family 25, model 17), fitted in each set to the
// times of all candidates on layers like those of benchmarks/cases/conv_layers.py, with weights
// that stay and weights that change; then moved, most by less than 15 %, to where the choices lose least
// against the fastest candidate: 1 % where a choice is free, see kGainBeyond. What matters is how
// the kinds of work compare.
const Row kTable[] = {
  //              direct  tiled  deep  staged   in   out  staged  thin  packed  packing   outer  thin  tiled  write  sum  transform
  {"baseline",    {{  70,   59,    60,    70,  450, 1030,    300, 1000,    195,     975,     60,   67,   58,   840, 860,   480}}},
  {"avx2",        {{  23, 22.4,  22.4,    22,  285,  268,    610, 1100,    119,     357,   21.7,   29,   24,   490, 340,   260}}},
  {"avx512",      {{22.3,   20,  21.8,  16.3,  230,  200,    785,  740,     76,     228,     21,   29,   23,   425, 300,   200}}},
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
