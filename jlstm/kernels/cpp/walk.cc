// The walk through a chunk of steps: compiled once for each instruction set.
//
// Some rows, that is sequences, are walked through all steps by one thread, with nothing to wait
// for: a step is one product for all rows, then the gates row by row. The equations are those of
// jlstm/equations.py, d<name> being the cotangent of <name>.
//
// Nothing here may be shared with what is compiled for another instruction set: everything stands
// in an unnamed namespace, and there are no templates of the standard library.

#include "walk.h"

#include "tile.h"

namespace {

using jlstm::Backward;
using jlstm::Forward;
using jlstm::Rows;
using jlstm::Sizes;

// A step of one row: where its carry comes from, and which row it is.
struct Place {
  int64_t e, b;
};

Place place(const Rows& rows, int64_t j) { return {rows.members[j / rows.batch], j % rows.batch}; }

template <typename T>
void copy(const T* from, T* to, int64_t n) {
  std::memcpy(to, from, n * sizeof(T));
}

template <typename T>
void zero(T* to, int64_t n) {
  std::memset(to, 0, n * sizeof(T));
}

// Where the gates of a step are kept; nullptr where they are not.
template <typename T>
struct Gates {
  T *i_f, *g, *o;
};

// z and c' to h and c, equations (1) to (6).
template <typename T>
void gates_forward(const T* z, const T* c_prev, int64_t hidden, T* h, T* c, T* kept_c,
                   Gates<T> kept) {
  for (int64_t u = 0; u < hidden; u += Vector<T>::kSize) {
    const int64_t n = hidden - u;
    const V<T> i = sigmoid<T>(load(z + u));
    const V<T> f = sigmoid<T>(load(z + hidden + u));
    const V<T> g = tanh<T>(load(z + 2 * hidden + u));
    const V<T> o = sigmoid<T>(load(z + 3 * hidden + u));
    const V<T> c_new = f * load(c_prev + u, n) + i * g;
    store(c + u, c_new, n);
    store(h + u, o * tanh<T>(c_new), n);
    if (kept_c) store(kept_c + u, c_new, n);
    if (kept.i_f) {
      store(kept.i_f + u, i, n);
      store(kept.i_f + hidden + u, f, n);
      store(kept.g + u, g, n);
      store(kept.o + u, o, n);
    }
  }
}

// The cotangents of h and c to those of z and c': one step of back-propagation through time.
template <typename T>
void gates_backward(Gates<const T> kept, const T* c_prev, const T* c, const T* dh, const T* dh_own,
                    int64_t hidden, T* dc, T* dz) {
  for (int64_t u = 0; u < hidden; u += Vector<T>::kSize) {
    const int64_t n = hidden - u;
    const V<T> i = load(kept.i_f + u, n), f = load(kept.i_f + hidden + u, n);
    const V<T> g = load(kept.g + u, n), o = load(kept.o + u, n);
    const V<T> tanh_c = tanh<T>(load(c + u, n));
    const V<T> d_h = load(dh + u, n) + load(dh_own + u, n);
    const V<T> d_c = load(dc + u, n) + d_h * o * (1 - tanh_c * tanh_c);
    store(dz + u, d_c * g * i * (1 - i), n);
    store(dz + hidden + u, d_c * load(c_prev + u, n) * f * (1 - f), n);
    store(dz + 2 * hidden + u, d_c * i * (1 - g * g), n);
    store(dz + 3 * hidden + u, d_h * tanh_c * o * (1 - o), n);
    store(dc + u, d_c * f, n);
  }
}

template <typename T>
Gates<T> gates_at(const jlstm::Array<T>& i_f, const jlstm::Array<T>& g, const jlstm::Array<T>& o,
                  int64_t e, int64_t t, int64_t b) {
  if (!i_f) return {nullptr, nullptr, nullptr};
  return {i_f.at(e, t, b), g.at(e, t, b), o.at(e, t, b)};
}

// Numbers for z of a row (or dh, which is shorter): the last gate is read past its end.
template <typename T>
int64_t row_size(int64_t hidden) {
  return padded<T>(4 * hidden) + Vector<T>::kSize;
}

// For some rows: besides, what is known of each in a step.
template <typename T>
int64_t scratch_size(const Sizes& sizes, int64_t rows) {
  const int64_t row = sizeof(Row<T>) + sizeof(int64_t) + sizeof(const T*);
  return rows * (row_size<T>(sizes.hidden) + row / sizeof(T));
}

// The carry of a row stands where it is given back: c in last_c, h among hs.
template <typename T>
void forward(const Forward<T>& d, const Rows& rows, T* scratch) {
  const int64_t time = d.sizes.time, hidden = d.sizes.hidden, count = rows.end - rows.begin;
  const int64_t wide = row_size<T>(hidden);
  auto* row = reinterpret_cast<Row<T>*>(scratch + count * wide);
  auto* c_prev = reinterpret_cast<const T**>(row + count);
  auto* which = reinterpret_cast<int64_t*>(c_prev + count);

  for (int64_t j = rows.begin; j < rows.end; ++j) {
    const auto [e, b] = place(rows, j);
    copy(d.c.at(e, b), d.last_c.at(e, b), hidden);
  }
  for (int64_t s = 0; s < time; ++s) {
    const int64_t t = d.sizes.reverse ? time - 1 - s : s;
    int64_t active = 0;
    for (int64_t j = rows.begin; j < rows.end; ++j) {
      const auto [e, b] = place(rows, j);
      const T* h = s == 0 ? d.h.at(e, b) : d.hs.at(e, d.sizes.reverse ? t + 1 : t - 1, b);
      const T* c = d.last_c.at(e, b);
      if (d.valid && !*d.valid.at(e, t, b)) {  // padding keeps the carry
        copy(h, d.hs.at(e, t, b), hidden);
        if (d.cs) copy(c, d.cs.at(e, t, b), hidden);
        const auto kept = gates_at(d.i_f, d.g, d.o, e, t, b);
        if (kept.i_f) zero(kept.i_f, 2 * hidden), zero(kept.g, hidden), zero(kept.o, hidden);
        continue;
      }
      if (d.keep && !*d.keep.at(e, t, b)) h = d.reset_h.at(e, b), c = d.reset_c.at(e, b);
      const T* x = d.sizes.inputs ? d.xs.at(e, t, b) : nullptr;
      const T* start = d.z ? d.z.at(e, t, b) : d.b ? d.b.at(e, 0) : nullptr;
      row[active] = {x, h, start, scratch + active * wide};
      c_prev[active] = c;
      which[active++] = j;
    }
    product(row, active, d.sizes.inputs, hidden, d.packed, 4 * hidden);
    for (int64_t k = 0; k < active; ++k) {
      const auto [e, b] = place(rows, which[k]);
      gates_forward<T>(row[k].out, c_prev[k], hidden, d.hs.at(e, t, b), d.last_c.at(e, b),
                       d.cs ? d.cs.at(e, t, b) : nullptr, gates_at(d.i_f, d.g, d.o, e, t, b));
    }
  }
  for (int64_t j = rows.begin; j < rows.end; ++j) {
    const auto [e, b] = place(rows, j);
    const T* h = time == 0 ? d.h.at(e, b) : d.hs.at(e, d.sizes.reverse ? 0 : time - 1, b);
    copy(h, d.last_h.at(e, b), hidden);
  }
}

// The cotangents of the carry stand where they are given back, but dh, which is written in whole
// vectors, in scratch.
template <typename T>
void backward(const Backward<T>& d, const Rows& rows, T* scratch) {
  const int64_t time = d.sizes.time, hidden = d.sizes.hidden, count = rows.end - rows.begin;
  const int64_t wide = padded<T>(hidden);
  auto* row = reinterpret_cast<Row<T>*>(scratch + count * row_size<T>(hidden));

  for (int64_t j = rows.begin; j < rows.end; ++j) {
    const auto [e, b] = place(rows, j);
    copy(d.dh.at(e, b), scratch + (j - rows.begin) * wide, hidden);
    copy(d.dc.at(e, b), d.out_dc.at(e, b), hidden);
    if (d.out_reset_dh) {  // with no steps there is no keep
      copy(d.reset_dh.at(e, b), d.out_reset_dh.at(e, b), hidden);
      copy(d.reset_dc.at(e, b), d.out_reset_dc.at(e, b), hidden);
    }
  }
  for (int64_t s = 0; s < time; ++s) {
    const int64_t t = d.sizes.reverse ? s : time - 1 - s;
    int64_t active = 0;
    for (int64_t j = rows.begin; j < rows.end; ++j) {
      const auto [e, b] = place(rows, j);
      T* dh = scratch + (j - rows.begin) * wide;
      T* dz = d.dz.at(e, t, b);
      if (d.valid && !*d.valid.at(e, t, b)) {
        for (int64_t u = 0; u < hidden; ++u) dh[u] += d.dhs.at(e, t, b)[u];
        zero(dz, 4 * hidden);
        continue;
      }
      gates_backward<T>(gates_at(d.i_f, d.g, d.o, e, t, b), d.c_prev.at(e, t, b), d.c.at(e, t, b),
                        dh, d.dhs.at(e, t, b), hidden, d.out_dc.at(e, b), dz);
      row[active++] = {nullptr, dz, nullptr, dh};
    }
    product(row, active, int64_t{0}, 4 * hidden, d.packed, hidden);
    if (!d.keep) continue;
    for (int64_t j = rows.begin; j < rows.end; ++j) {
      const auto [e, b] = place(rows, j);
      if (*d.keep.at(e, t, b)) continue;
      T *dh = scratch + (j - rows.begin) * wide, *dc = d.out_dc.at(e, b);
      T *sum_h = d.out_reset_dh.at(e, b), *sum_c = d.out_reset_dc.at(e, b);
      for (int64_t u = 0; u < hidden; ++u) sum_h[u] += dh[u], sum_c[u] += dc[u];
      zero(dh, hidden);
      zero(dc, hidden);
    }
  }
  for (int64_t j = rows.begin; j < rows.end; ++j) {
    const auto [e, b] = place(rows, j);
    copy(scratch + (j - rows.begin) * wide, d.out_dh.at(e, b), hidden);
  }
}

template <typename T, V<T> (*function)(V<T>)>
void elementwise(const T* x, T* y, int64_t n) {
  for (int64_t k = 0; k < n; k += Vector<T>::kSize) store(y + k, function(load(x + k, n - k)), n - k);
}

template <typename T>
int64_t packed_size(int64_t rows, int64_t columns) {
  return rows * padded<T>(columns);
}

template <typename T>
constexpr jlstm::Walks<T> walks() {
  return {kPanel<T>,  packed_size<T>, scratch_size<T>,              pack<T>,
          forward<T>, backward<T>,    elementwise<T, sigmoid<T>>, elementwise<T, tanh<T>>};
}

}  // namespace

#define JLSTM_TEXT_(name) #name
#define JLSTM_TEXT(name) JLSTM_TEXT_(name)

namespace jlstm {

extern const Level JLSTM_LEVEL;
const Level JLSTM_LEVEL = {JLSTM_TEXT(JLSTM_LEVEL), walks<float>(), walks<double>()};

}  // namespace jlstm
