// What a convolution costs: amounts of work, which are counted, times the picoseconds that one
// takes, which are measured. All that the choice of an algorithm knows of a machine stands here.
#pragma once

#include <array>
#include <string>

namespace inpaint {

// The kinds of work.
enum Term {
  kDirect,           // a multiply-add of direct sums
  kTiled,            // one in tiles, whose inputs stay in an L2 of 1 MiB
  kTiledDeep,        // the same of 512 channels or more, whose inputs leave it
  kTiledStaged,      // the same where one product after the other takes many tiles
  kTransformIn,      // of each product of a tile the transform of a channel
  kTransformOut,     // and of a filter
  kTransformStaged,  // of either where the products are staged
  kTransformThin,    // of a part of a tile whose few channels are brought together first
  kPacked,           // a float of the packed weights, which is read
  kPacking,          // one that is packed for one call alone, besides
  // Of the sums that are a weight's gradient:
  kOuter,           // a multiply-add of direct sums
  kOuterThin,       // one where taps of few channels lie side by side
  kOuterTiled,      // one in tiles
  kOuterWrite,      // a weight on its way to memory
  kOuterSum,        // one of the sums of tiles, likewise
  kTransformOuter,  // of each product of a tile the transform of a channel or filter
  kTerms
};
constexpr const char* kTermNames[kTerms] = {"direct",
                                            "tiled",
                                            "tiled_deep",
                                            "tiled_staged",
                                            "transform_in",
                                            "transform_out",
                                            "transform_staged",
                                            "transform_thin",
                                            "packed",
                                            "packing",
                                            "outer",
                                            "outer_thin",
                                            "outer_tiled",
                                            "outer_write",
                                            "outer_sum",
                                            "transform_outer"};

using Costs = std::array<double, kTerms>;  // picoseconds of one
using Work = std::array<double, kTerms>;   // how many

double cost_of(const Work& work, const Costs& costs);

// The table, for the name of an instruction set.
Costs measured_costs(const std::string& instruction_set);

}  // namespace inpaint
