// A product of some rows with a matrix: out = Σ_k a[k]·B[k] + start, tile by tile.
//
// The matrix is packed once: its columns in panels as wide as a tile, each panel row after row,
// [columns/kPanel][rows][kPanel], so that a tile reads it from front to back. A tile is up to kRows
// rows times kVectors vectors of columns. Its sums stay in registers: with 16 registers 3·4 of
// them, 3 for numbers of a and 1 for the panel; with 32, 6·4, 4 for the panel and 1 for a. For
// each row of the panel that is 12 (24) multiply-adds and 7 (10) loads, so that arithmetic and not
// the cache is the limit.
//
// A sum runs over k in order, whatever tile its row is in: results do not depend on how rows are
// shared out.
#pragma once

#include "functions.h"
#include "walk.h"

namespace {

constexpr int kVectors = 4;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 6;
#else
constexpr int kRows = 3;
#endif

template <typename T>
constexpr int64_t kPanel = kVectors* Vector<T>::kSize;

// Columns of a packed matrix, those added at the end being 0.
template <typename T>
constexpr int64_t padded(int64_t columns) {
  constexpr int64_t n = Vector<T>::kSize;
  return (columns + n - 1) / n * n;
}

// Packs one panel of the matrix [above; below], of which either may have no rows. The last one may be
// narrower.
template <typename T>
void pack(const T* above, int64_t above_rows, const T* below, int64_t below_rows,
          const jlstm::Columns& columns, int64_t panel, T* out) {
  const auto [gates, hidden, unit, units] = columns;
  const int64_t count = gates * units, first = panel * kPanel<T>, rows = above_rows + below_rows;
  const int64_t wide = padded<T>(count) - first < kPanel<T> ? padded<T>(count) - first : kPanel<T>;
  const int64_t last = count < first + wide ? count : first + wide;
  for (int64_t k = 0; k < rows; ++k) {
    const T* row = (k < above_rows ? above + k * gates * hidden : below + (k - above_rows) * gates * hidden) + unit;
    for (int64_t column = first; column < last;) {  // gate by gate
      const int64_t gate = column / units, u = column % units;
      const int64_t n = units - u < last - column ? units - u : last - column;
      std::memcpy(out, row + gate * hidden + u, n * sizeof(T));
      out += n, column += n;
    }
    for (int64_t column = last; column < first + wide; ++column) *out++ = 0;
  }
}

// One row of a product: [x, h] times the packed matrix, added to start.
template <typename T>
struct Row {
  const T* x;
  const T* h;
  const T* start;  // nullptr for 0
  T* out;
};

template <typename T, int rows, int vectors>
void tile(const Row<T>* row, int64_t inputs, int64_t hidden, int64_t step, const T* panel,
          int64_t first, int64_t columns) {
  constexpr int n = Vector<T>::kSize;
  V<T> sum[rows][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[r][v] = V<T>{};
  }
  const T* a[rows];
  const auto add = [&](int64_t count) {
    for (int64_t k = 0; k < count * step; k += step, panel += vectors * n) {
      if constexpr (kRows == 3) {  // few registers: one vector of the panel at a time
        V<T> factor[rows];
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) factor[r] = every<T>(a[r][k]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          const V<T> b = load<T>(panel + v * n);
#pragma GCC unroll 8
          for (int r = 0; r < rows; ++r) sum[r][v] += factor[r] * b;
        }
      } else {
        V<T> b[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) b[v] = load<T>(panel + v * n);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) {
          const V<T> factor = every<T>(a[r][k]);
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v) sum[r][v] += factor * b[v];
        }
      }
    }
  };
  for (int r = 0; r < rows; ++r) a[r] = row[r].x;
  add(inputs);
  for (int r = 0; r < rows; ++r) a[r] = row[r].h;
  add(hidden);
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const int64_t at = first + v * n;
      if (row[r].start) sum[r][v] += load<T>(row[r].start + at, columns - at);
      store<T>(row[r].out + at, sum[r][v], columns - at);
    }
  }
}

// The tile of this many rows and vectors.
template <typename T, int rows = kRows, int vectors = kVectors>
void any_tile(int64_t r, int64_t v, const Row<T>* row, int64_t inputs, int64_t hidden, int64_t step,
              const T* panel, int64_t first, int64_t columns) {
  if constexpr (rows > 1) {
    if (r < rows) {
      return any_tile<T, rows - 1, vectors>(r, v, row, inputs, hidden, step, panel, first, columns);
    }
  }
  if constexpr (vectors > 1) {
    if (v < vectors) {
      return any_tile<T, rows, vectors - 1>(r, v, row, inputs, hidden, step, panel, first, columns);
    }
  }
  tile<T, rows, vectors>(row, inputs, hidden, step, panel, first, columns);
}

// All rows times one panel, from column first on. The numbers of a row of [x, h] are step apart: 1,
// or in a product with a transposed matrix the length of its rows.
template <typename T>
void product_with(const Row<T>* row, int64_t rows, int64_t inputs, int64_t hidden, int64_t step,
                  const T* panel, int64_t first, int64_t columns) {
  const int64_t wide = padded<T>(columns) - first, groups = (rows + kRows - 1) / kRows;
  const int64_t vectors = wide < kPanel<T> ? wide / Vector<T>::kSize : kVectors;
  for (int64_t group = 0; group < groups; ++group) {  // of nearly the same size
    const int64_t begin = group * rows / groups, end = (group + 1) * rows / groups;
    any_tile<T>(end - begin, vectors, row + begin, inputs, hidden, step, panel, first, columns);
  }
}

// All rows times all panels. Panels go outside, so that each is read from the cache's next level
// once for all rows.
template <typename T>
void product(const Row<T>* row, int64_t rows, int64_t inputs, int64_t hidden, const T* packed,
             int64_t columns) {
  for (int64_t first = 0; first < columns; first += kPanel<T>) {
    product_with(row, rows, inputs, hidden, 1, packed + first * (inputs + hidden), first, columns);
  }
}

// count times as many multiply-adds as a full tile does for a row of its panel, all in registers:
// what the machine can do at most. Gives their number.
template <typename T>
int64_t multiply_adds(int64_t count) {
  V<T> sum[kRows * kVectors], factor = every(T(0.999)), term = every(T(1e-3));
  for (V<T>& s : sum) s = term;
  for (int64_t k = 0; k < count; ++k) {
#pragma GCC unroll 24
    for (V<T>& s : sum) s = s * factor + term;
  }
  V<T> all{};
  for (const V<T>& s : sum) all += s;
  volatile T kept = all[0];  // so that it is computed
  (void)kept;
  return count * kRows * kPanel<T>;
}

}  // namespace
