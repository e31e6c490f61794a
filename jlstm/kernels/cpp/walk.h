// What the walk through a chunk is given; who calls it, and for which instruction set, is in ffi.cc.
#pragma once

#include <cstdint>

#define JLSTM_INLINE inline __attribute__((always_inline))

namespace jlstm {

// An array [ensemble, time, batch, ·] or [ensemble, batch, ·], dense but for the ensemble, which may
// share it; data is nullptr where there is none.
template <typename T>
struct Array {
  T* data = nullptr;
  const int64_t* member = nullptr;  // where each member of the ensemble starts
  int64_t step = 0, row = 0;        // how far apart steps and rows are
  int64_t count = 0;                // rows
  // Always inlined: of a function that is not, the linker keeps one copy for all instruction sets.
  JLSTM_INLINE T* at(int64_t e, int64_t t, int64_t b) const { return data + (member[e] + t * step + b * row); }
  JLSTM_INLINE T* at(int64_t e, int64_t b) const { return data + (member[e] + b * row); }
  JLSTM_INLINE explicit operator bool() const { return data != nullptr; }
};

// Numbers in a line of a cache.
template <typename T>
constexpr int64_t kLine = 64 / sizeof(T);

// Lines that n numbers take.
template <typename T>
constexpr JLSTM_INLINE int64_t lines(int64_t n) {
  return (n + kLine<T> - 1) / kLine<T>;
}

// Columns of a matrix [·, gates · hidden]: those of some units, for every gate.
struct Columns {
  int64_t gates, hidden, unit, units;  // the first unit, and how many
};

// What is walked together: some rows, each a sequence, of members that have the same weights; of
// each row some units.
struct Part {
  const int64_t* members;
  int64_t batch, begin, end;  // row j is sequence j % batch of member members[j / batch]
  int64_t unit, units;        // the first unit, and how many
};

struct Sizes {
  int64_t time, inputs, hidden;  // inputs is 0 where there is no x
  bool reverse;
};

// Steps from begin to end in the order of the walk; in time the earliest of them is t.
struct Block {
  int64_t begin, end, t;
};

template <typename T>
struct Forward {
  Sizes sizes;      // inputs is 0 where z has x·W
  Block block;
  const T* packed;  // [W; U], or U alone: the columns of the part's units
  Array<const T> xs, z, b, h, c, reset_h, reset_c;
  Array<const bool> valid, keep;
  Array<T> hs, cs, i_f, g, o, last_h, last_c;
};

// A block of steps is walked through first; then dz of all of them gives the cotangents of the
// weights and of xs. In known, x and h' of a row each begin a line; the first lines of all rows stand
// one after another, `apart` numbers later the second ones: so [x, h']ᵀ is read from front to back.
template <typename T>
struct Backward {
  Sizes sizes;
  Block block;
  const T* packed;  // Uᵀ, likewise
  Array<const T> xs, i_f, g, o, hs, cs, h, c, reset_h, reset_c, dhs, dh, dc, reset_dh, reset_dc;
  Array<const bool> valid, keep;
  Array<T> out_dh, out_dc, out_reset_dh, out_reset_dc, dxs, dw, du, db;
  Array<T> dz, known;  // of the block
  int64_t apart;
};

// The functions for one instruction set and dtype.
template <typename T>
struct Walks {
  int64_t panel;  // columns of a panel
  // Numbers in a packed matrix, and in what a part needs besides.
  int64_t (*packed_size)(int64_t rows, const Columns&);
  int64_t (*scratch_size)(int64_t rows, int64_t units);
  void (*pack)(const T* above, int64_t above_rows, const T* below, int64_t below_rows,
               const Columns&, int64_t panel, T* packed);
  // Steps first … last − 1 of the part, in the order of the walk. There is one more than there are
  // steps, forward of all, backward of the block: what is left after the last step is done there.
  void (*forward)(const Forward<T>&, const Part&, int64_t first, int64_t last, T* scratch);
  void (*backward)(const Backward<T>&, const Part&, int64_t first, int64_t last, T* scratch);
  // What the block adds to one panel of the cotangents of [W; U] of a member, in rows first …
  // last − 1, and with the first row to that of b.
  int64_t (*weights_size)(int64_t rows);
  void (*weights)(const Backward<T>&, int64_t member, int64_t batch, int64_t panel, int64_t first,
                  int64_t last, T* scratch);
  // to = from·packed + start for steps first … last − 1 of a member, a step being one of one sequence,
  // those at time t the first.
  void (*multiply)(Array<const T> from, Array<const T> start, Array<T> to, const T* packed,
                   int64_t member, int64_t t, int64_t first, int64_t last, T* scratch);
  void (*sigmoid)(const T* x, T* y, int64_t n);
  void (*tanh)(const T* x, T* y, int64_t n);
  int64_t (*multiply_adds)(int64_t count);
};

struct Level {
  const char* name;
  Walks<float> f32;
  Walks<double> f64;
};

}  // namespace jlstm
