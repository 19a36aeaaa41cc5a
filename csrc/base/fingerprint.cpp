// Fingerprint of a weight's bytes, at the speed of reading them.
//
// Lanes of 64 bits take every eighth byte group of a stripe in turn:
//   h = (rotate(h, 27) ^ word) * keys[0],  h = (h ^ h >> 32) * keys[1].
// Each step can be undone, so another value of one word always gives another h, and the order of
// the words counts. The keys are odd numbers that each process draws, so no edit can be made for
// them: a change of several words goes unseen with probability 2^-64, of the top bit of a word and
// just what it becomes in the next word of its lane with 2^-31 at worst. Blocks of kBlock bytes are
// hashed apart, so the result does not depend on the number of threads; it does depend on the
// instruction set. Traffic: the weight, once.
#include "base/fingerprint.h"

#include <algorithm>
#include <cstring>

#include "base/parallel.h"

namespace inpaint {
namespace INPAINT_ISA {
namespace {

typedef Vector<uint64_t> Words;
constexpr int kVectors = kVectorBytes == 64 ? 4 : 8;
constexpr int64_t kStripe = kVectors * kVectorBytes;
constexpr int64_t kBlock = int64_t(1) << 17;
constexpr uint64_t kOdd = 0x9e3779b97f4a7c15u;

struct Lanes {
  Words h[kVectors];
  const uint64_t* keys;

  explicit Lanes(const uint64_t* odd) : keys(odd) {
    uint64_t lanes[kStripe / 8];
    for (uint64_t i = 0; i < kStripe / 8; ++i) lanes[i] = (i + 1) * kOdd;
    std::memcpy(h, lanes, sizeof lanes);
  }

  // The bytes of a run, its last stripe filled up with zeros.
  void add(const unsigned char* from, int64_t bytes) {
    Words local[kVectors];
    std::copy_n(h, kVectors, local);
    int64_t i = 0;
    for (; i + kStripe <= bytes; i += kStripe) step(local, from + i);
    if (i < bytes) {
      unsigned char last[kStripe] = {};
      std::memcpy(last, from + i, size_t(bytes - i));
      step(local, last);
    }
    std::copy_n(local, kVectors, h);
  }

  uint64_t total() const {
    uint64_t sum = kOdd;
    for (const Words& words : h)
      for (int l = 0; l < Simd<uint64_t>::kWidth; ++l) sum = joined(sum, words[l]);
    return sum;
  }

  static uint64_t joined(uint64_t a, uint64_t b) {
    a = ((a << 27 | a >> 37) ^ b) * kOdd;
    return a ^ a >> 29;
  }

 private:
  inline void step(Words* h, const unsigned char* from) const {
    for (int v = 0; v < kVectors; ++v) {
      Words word;
      std::memcpy(&word, from + v * kVectorBytes, sizeof word);
      h[v] = ((h[v] << 27 | h[v] >> 37) ^ word) * keys[0];
      h[v] = (h[v] ^ h[v] >> 32) * keys[1];
    }
  }
};

int64_t offset_of(const FingerprintArgs& args, int64_t run) {
  int64_t offset = 0;
  for (size_t axis = args.sizes.size(); axis-- > 0; run /= args.sizes[axis])
    offset += run % args.sizes[axis] * args.strides[axis];
  return offset;
}

}  // namespace

uint64_t fingerprint(const FingerprintArgs& args) {
  int64_t runs = 1;
  for (const int64_t size : args.sizes) runs *= size;
  if (runs * args.run == 0) return 0;
  // Blocks are parts of a run, or several whole runs.
  const int64_t parts = ceil_div(args.run, kBlock);
  const int64_t together = std::max<int64_t>(1, kBlock / args.run);
  const int64_t blocks = ceil_div(runs, together) * parts;
  const auto block = [&](int64_t number) {
    Lanes lanes(args.keys);
    const int64_t first = number / parts * together, begin = number % parts * kBlock;
    const int64_t bytes = std::min(kBlock, args.run - begin);
    for (int64_t run = first; run < std::min(runs, first + together); ++run)
      lanes.add(args.data + offset_of(args, run) + begin, bytes);
    return lanes.total();
  };
  if (blocks == 1) return block(0);
  Buffer<uint64_t> totals(blocks);
  parallel_tasks(blocks, args.threads, [&](int64_t number) { totals[number] = block(number); });
  uint64_t sum = 0;
  for (int64_t i = 0; i < blocks; ++i) sum = Lanes::joined(sum, totals[i]);
  return sum;
}

}  // namespace INPAINT_ISA
}  // namespace inpaint
