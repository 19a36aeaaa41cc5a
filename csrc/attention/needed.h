// What the wanted pixels of the result of contextual attention need.
//
// Backwards: a pixel lies in one block of the result; a block is pasted from the up to 2 x 2
// queries whose patches cover it; the fuse step adds scores of up to nine queries; a score sums
// products of 3 x 3 queries with 3 x 3 keys. All keys stay candidates. Traffic: a byte a cell.
#pragma once

#include <algorithm>
#include <vector>

#include "attention/contextual_attention.h"

namespace inpaint {
namespace INPAINT_ISA {

// Which cells of a grid count.
class CellMap {
 public:
  CellMap(int64_t rows, int64_t columns, bool all)
      : rows(rows), columns(columns), in_(rows * columns, all) {}

  // False outside the grid.
  bool at(int64_t y, int64_t x) const {
    return y >= 0 && y < rows && x >= 0 && x < columns && in_[y * columns + x];
  }
  void add(int64_t y, int64_t x) { in_[y * columns + x] = 1; }

  int64_t count() const { return std::count(in_.begin(), in_.end(), 1); }
  bool all() const { return count() == rows * columns; }

  // Columns in which any cell counts.
  std::vector<uint8_t> any_in_column() const {
    std::vector<uint8_t> any(columns, 0);
    for (int64_t i = 0; i < rows * columns; ++i) any[i % columns] |= in_[i];
    return any;
  }

  const int64_t rows, columns;

 private:
  std::vector<uint8_t> in_;
};

// Blocks of the result of sample n that hold a wanted pixel.
template <class T>
CellMap wanted_blocks(const ContextualAttentionArgs<T>& args, int64_t n) {
  const uint8_t* const wanted = args.wanted.data;
  CellMap blocks(args.query_rows() + 1, args.query_columns() + 1, !wanted);
  if (!wanted) return blocks;
  const uint8_t* row = wanted + n * args.wanted.stride_n;
  const int64_t before = args.rate / 2;
  for (int64_t y = 0; y < args.fg_height; ++y, row += args.fg_width)
    for (int64_t x = 0; x < args.fg_width; ++x)
      if (row[x]) blocks.add((y + before) / args.rate, (x + before) / args.rate);
  return blocks;
}

// Moves the query (y, x) of an h x w grid, flattened column by column, by t, and flattened row by
// row, by s; row by row first in the adjoint. Returns whether there is such a query.
inline bool fuse_shift(
    int64_t h, int64_t w, int64_t t, int64_t s, bool adjoint, int64_t& y, int64_t& x) {
  const auto along_column = [&] {
    const int64_t i = x * h + y + t;
    y = i % h;
    x = i / h;
    return i >= 0 && i < h * w;
  };
  const auto along_row = [&] {
    const int64_t i = y * w + x + s;
    y = i / w;
    x = i % w;
    return i >= 0 && i < h * w;
  };
  return adjoint ? along_row() && along_column() : along_column() && along_row();
}

// Queries in the columns [begin, end) whose attention is pasted into wanted blocks.
inline CellMap needed_queries(const CellMap& blocks, int64_t begin, int64_t end) {
  CellMap queries(blocks.rows - 1, blocks.columns - 1, false);
  for (int64_t y = 0; y < queries.rows; ++y)
    for (int64_t x = begin; x < end; ++x)
      if (blocks.at(y, x) || blocks.at(y, x + 1) || blocks.at(y + 1, x) || blocks.at(y + 1, x + 1))
        queries.add(y, x);
  return queries;
}

// Queries whose scores, before the fuse step if there is one, `queries` need.
inline CellMap needed_scores(const CellMap& queries, bool fuse) {
  if (!fuse) return queries;
  CellMap scores(queries.rows, queries.columns, false);
  for (int64_t y = 0; y < queries.rows; ++y) {
    for (int64_t x = 0; x < queries.columns; ++x) {
      if (!queries.at(y, x)) continue;
      for (int64_t t = -1; t <= 1; ++t) {
        for (int64_t s = -1; s <= 1; ++s) {
          int64_t ny = y, nx = x;
          if (fuse_shift(queries.rows, queries.columns, t, s, false, ny, nx)) scores.add(ny, nx);
        }
      }
    }
  }
  return scores;
}

// What is computed of one row of queries: products of pixels, and their sums along x.
struct ProductRow {
  // Columns [begin, end), and how many of `pixels` lie before the first pixel that they sum. With
  // `scored`, the sums complete scores that are needed, those of the row before.
  struct Run {
    int64_t begin, end, first;
    bool scored;
  };

  std::vector<int64_t> pixels;  // columns, ascending; the sums of a column take both neighbours
  std::vector<Run> runs;        // ascending

  // Where `sums` and `scored` are 1 for the columns of the row, and of the scores of the row
  // before.
  static ProductRow of(const std::vector<uint8_t>& sums, const std::vector<uint8_t>& scored) {
    ProductRow row;
    const int64_t width = int64_t(sums.size());
    for (int64_t x = 0; x < width; ++x) {
      const bool near = sums[x] || (x > 0 && sums[x - 1]) || (x + 1 < width && sums[x + 1]);
      if (sums[x] || scored[x]) {
        const bool joins = !row.runs.empty() && row.runs.back().end == x &&
                           row.runs.back().scored == bool(scored[x]);
        // The pixel to the left is the last so far, or the zeros before the first.
        if (!joins) row.runs.push_back({x, x, int64_t(row.pixels.size()), bool(scored[x])});
        row.runs.back().end = x + 1;
      }
      if (near) row.pixels.push_back(x);
    }
    return row;
  }
};

// The rows of an h x w grid of queries, and one more, which completes the scores of the last.
inline std::vector<ProductRow> product_rows(const CellMap& scores) {
  std::vector<ProductRow> rows;
  for (int64_t y = 0; y <= scores.rows; ++y) {
    std::vector<uint8_t> sums(scores.columns, 0), scored(scores.columns, 0);
    for (int64_t x = 0; x < scores.columns; ++x) {
      scored[x] = scores.at(y - 1, x);
      sums[x] = y < scores.rows && (scored[x] || scores.at(y, x) || scores.at(y + 1, x));
    }
    rows.push_back(ProductRow::of(sums, scored));
  }
  return rows;
}

// Columns of query cells that are worked on together: those of [begin, end) that are needed, and
// around them those whose scores the fuse step adds, which wrap around the ends of a row.
class QueryWindow {
 public:
  struct Segment {
    int64_t begin, end, place;  // columns [begin, end), and the place of the first in a strip
  };

  // in: 1 for each column that takes part.
  QueryWindow(int64_t begin, int64_t end, const std::vector<uint8_t>& in)
      : begin(begin), end(end), place_(in.size(), -1) {
    for (int64_t x = 0; x < int64_t(in.size()); ++x) {
      if (!in[x]) continue;
      if (x == 0 || !in[x - 1]) segments.push_back({x, x, columns});
      segments.back().end = x + 1;
      place_[x] = columns++;
    }
  }

  // All of [begin, end) and a halo on both sides.
  QueryWindow(int64_t begin, int64_t end, int64_t width, int64_t halo)
      : QueryWindow(begin, end, around(begin, end, width, halo)) {}

  int64_t place(int64_t x) const { return place_[x]; }

  const int64_t begin, end;
  int64_t columns = 0;
  std::vector<Segment> segments;

 private:
  static std::vector<uint8_t> around(int64_t begin, int64_t end, int64_t width, int64_t halo) {
    std::vector<uint8_t> in(width, 0);
    for (int64_t x = begin - halo; x < end + halo; ++x) in[((x % width) + width) % width] = 1;
    return in;
  }

  std::vector<int64_t> place_;
};

}  // namespace INPAINT_ISA
}  // namespace inpaint
