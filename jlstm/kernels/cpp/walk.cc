// The walk through a chunk of steps: compiled once for each instruction set.
//
// A part is some rows, that is sequences, and some units of them. A step of it is one product for all
// rows, then the gates row by row. A part that has all units is walked through all steps by one
// thread, with nothing to wait for; where units are shared out, every step needs h (backward: dz)
// of all units, and so the step before of all parts. The equations are those of
// jlstm/equations.py, d<name> being the cotangent of <name>.
//
// Nothing here may be shared with what is compiled for another instruction set: everything stands
// in an unnamed namespace, and there are no templates of the standard library.

#include "tile.h"

namespace {

using jlstm::Array;
using jlstm::Backward;
using jlstm::Columns;
using jlstm::Forward;
using jlstm::kLine;
using jlstm::lines;
using jlstm::Part;
using jlstm::Sizes;

// Row j of a part: sequence b of member e.
struct Place {
  int64_t e, b;
};

Place place(const Part& part, int64_t j) { return {part.members[j / part.batch], j % part.batch}; }

template <typename T>
void copy(const T* from, T* to, int64_t n) {
  std::memcpy(to, from, n * sizeof(T));
}

// Copies line by line, the lines in `to` being so many numbers apart.
template <typename T>
void copy_lines(const T* from, T* to, int64_t n, int64_t apart) {
  for (; n >= kLine<T>; n -= kLine<T>, from += kLine<T>, to += apart) copy(from, to, kLine<T>);
  copy(from, to, n);
}

template <typename T>
void zero(T* to, int64_t n) {
  std::memset(to, 0, n * sizeof(T));
}

// Where the gates of a step are kept; nullptr where they are not.
template <typename T>
struct Gates {
  T *i, *f, *g, *o;
};

// From unit u on.
template <typename T>
Gates<T> gates_at(const Array<T>& i_f, const Array<T>& g, const Array<T>& o,
                  int64_t e, int64_t t, int64_t b, int64_t hidden, int64_t u) {
  if (!i_f) return {nullptr, nullptr, nullptr, nullptr};
  return {i_f.at(e, t, b) + u, i_f.at(e, t, b) + hidden + u, g.at(e, t, b) + u, o.at(e, t, b) + u};
}

// z and c' to h and c, equations (1) to (6). z has these units of each gate.
template <typename T>
void gates_forward(const T* z, const T* c_prev, int64_t units, T* h, T* c, T* kept_c,
                   Gates<T> kept) {
  for (int64_t u = 0; u < units; u += Vector<T>::kSize) {
    const int64_t n = units - u;
    const V<T> i = sigmoid<T>(load(z + u));
    const V<T> f = sigmoid<T>(load(z + units + u));
    const V<T> g = tanh<T>(load(z + 2 * units + u));
    const V<T> o = sigmoid<T>(load(z + 3 * units + u));
    const V<T> c_new = f * load(c_prev + u, n) + i * g;
    store(c + u, c_new, n);
    store(h + u, o * tanh<T>(c_new), n);
    if (kept_c) store(kept_c + u, c_new, n);
    if (kept.i) {
      store(kept.i + u, i, n);
      store(kept.f + u, f, n);
      store(kept.g + u, g, n);
      store(kept.o + u, o, n);
    }
  }
}

// The cotangents of h and c to those of z and c': one step of back-propagation through time.
template <typename T>
void gates_backward(Gates<const T> kept, const T* c_prev, const T* c, const T* dh, const T* dh_own,
                    int64_t units, T* dc, Gates<T> dz) {
  for (int64_t u = 0; u < units; u += Vector<T>::kSize) {
    const int64_t n = units - u;
    const V<T> i = load(kept.i + u, n), f = load(kept.f + u, n);
    const V<T> g = load(kept.g + u, n), o = load(kept.o + u, n);
    const V<T> tanh_c = tanh<T>(load(c + u, n));
    const V<T> d_h = load(dh + u, n) + load(dh_own + u, n);
    const V<T> d_c = load(dc + u, n) + d_h * o * (1 - tanh_c * tanh_c);
    store(dz.i + u, d_c * g * i * (1 - i), n);
    store(dz.f + u, d_c * load(c_prev + u, n) * f * (1 - f), n);
    store(dz.g + u, d_c * i * (1 - g * g), n);
    store(dz.o + u, d_h * tanh_c * o * (1 - o), n);
    store(dc + u, d_c * f, n);
  }
}

// Numbers for z of a row (or dh, which is shorter): the last gate is read past its end.
template <typename T>
int64_t row_size(int64_t units) {
  return padded<T>(4 * units) + Vector<T>::kSize;
}

// For some rows: besides, what is known of each in a step.
template <typename T>
int64_t scratch_size(int64_t rows, int64_t units) {
  const int64_t row = sizeof(Row<T>) + sizeof(int64_t) + sizeof(const T*);
  return rows * (row_size<T>(units) + row / sizeof(T));
}

// The carry of a row stands where it is given back: c in last_c, h among hs.
template <typename T>
void forward_step(const Forward<T>& d, const Part& part, int64_t s, T* scratch) {
  const auto [time, inputs, hidden, reverse] = d.sizes;
  const int64_t unit = part.unit, units = part.units, count = part.end - part.begin;
  const int64_t t = reverse ? time - 1 - s : s, before = reverse ? t + 1 : t - 1;
  const int64_t wide = row_size<T>(units);
  auto* row = reinterpret_cast<Row<T>*>(scratch + count * wide);
  auto* c_prev = reinterpret_cast<const T**>(row + count);
  auto* which = reinterpret_cast<int64_t*>(c_prev + count);

  int64_t active = 0;
  for (int64_t j = part.begin; j < part.end; ++j) {
    const auto [e, b] = place(part, j);
    T* c_own = d.last_c.at(e, b) + unit;
    if (s == 0) copy(d.c.at(e, b) + unit, c_own, units);
    const T* h = s == 0 ? d.h.at(e, b) : d.hs.at(e, before, b);
    if (s == time) {
      copy(h + unit, d.last_h.at(e, b) + unit, units);
      continue;
    }
    const T* c = c_own;
    if (d.valid && !*d.valid.at(e, t, b)) {  // padding keeps the carry
      copy(h + unit, d.hs.at(e, t, b) + unit, units);
      if (d.cs) copy(c, d.cs.at(e, t, b) + unit, units);
      const auto kept = gates_at(d.i_f, d.g, d.o, e, t, b, hidden, unit);
      if (kept.i) zero(kept.i, units), zero(kept.f, units), zero(kept.g, units), zero(kept.o, units);
      continue;
    }
    if (d.keep && !*d.keep.at(e, t, b)) h = d.reset_h.at(e, b), c = d.reset_c.at(e, b) + unit;
    T* z = scratch + active * wide;
    const T* start = d.z ? d.z.at(e, t, b) : d.b ? d.b.at(e, 0) : nullptr;
    if (start && units < hidden) {
      for (int64_t gate = 0; gate < 4; ++gate) copy(start + gate * hidden + unit, z + gate * units, units);
      start = z;
    }
    row[active] = {inputs ? d.xs.at(e, t, b) : nullptr, h, start, z};
    c_prev[active] = c;
    which[active++] = j;
  }
  product(row, active, inputs, hidden, d.packed, 4 * units);
  for (int64_t k = 0; k < active; ++k) {
    const auto [e, b] = place(part, which[k]);
    gates_forward<T>(row[k].out, c_prev[k], units, d.hs.at(e, t, b) + unit, d.last_c.at(e, b) + unit,
                     d.cs ? d.cs.at(e, t, b) + unit : nullptr,
                     gates_at(d.i_f, d.g, d.o, e, t, b, hidden, unit));
  }
}

// The cotangents of the carry stand where they are given back. A step begins with the product of dz
// that the step before has left.
template <typename T>
void backward_step(const Backward<T>& d, const Part& part, int64_t s, T* scratch) {
  const auto [time, inputs, hidden, reverse] = d.sizes;
  const int64_t unit = part.unit, units = part.units;
  const bool first_of_block = s == d.block.begin;
  const int64_t t = reverse ? s : time - 1 - s, last = reverse ? t - 1 : t + 1;
  auto* row = reinterpret_cast<Row<T>*>(scratch);

  for (int64_t j = part.begin; s == 0 && j < part.end; ++j) {
    const auto [e, b] = place(part, j);
    copy(d.dh.at(e, b) + unit, d.out_dh.at(e, b) + unit, units);
    copy(d.dc.at(e, b) + unit, d.out_dc.at(e, b) + unit, units);
    if (d.out_reset_dh) {  // with no steps there is no keep
      copy(d.reset_dh.at(e, b) + unit, d.out_reset_dh.at(e, b) + unit, units);
      copy(d.reset_dc.at(e, b) + unit, d.out_reset_dc.at(e, b) + unit, units);
    }
  }
  if (!first_of_block) {
    int64_t active = 0;
    for (int64_t j = part.begin; j < part.end; ++j) {
      const auto [e, b] = place(part, j);
      if (d.valid && !*d.valid.at(e, last, b)) continue;
      row[active++] = {nullptr, d.dz.at(e, last, b), nullptr, d.out_dh.at(e, b) + unit};
    }
    product(row, active, int64_t{0}, 4 * hidden, d.packed, units);
  }
  for (int64_t j = part.begin; j < part.end; ++j) {
    const auto [e, b] = place(part, j);
    T *dh = d.out_dh.at(e, b) + unit, *dc = d.out_dc.at(e, b) + unit;
    if (!first_of_block && d.keep && !*d.keep.at(e, last, b)) {
      T *sum_h = d.out_reset_dh.at(e, b) + unit, *sum_c = d.out_reset_dc.at(e, b) + unit;
      for (int64_t u = 0; u < units; ++u) sum_h[u] += dh[u], sum_c[u] += dc[u];
      zero(dh, units);
      zero(dc, units);
    }
    if (s == d.block.end) continue;
    const bool first = s == time - 1, reset = d.keep && !*d.keep.at(e, t, b);
    const int64_t from = reverse ? t + 1 : t - 1;
    const T* h_prev = reset ? d.reset_h.at(e, b) : first ? d.h.at(e, b) : d.hs.at(e, from, b);
    const T* c_prev = reset ? d.reset_c.at(e, b) : first ? d.c.at(e, b) : d.cs.at(e, from, b);
    T* known = d.known.at(e, t, b);
    if (unit == 0 && inputs) copy_lines(d.xs.at(e, t, b), known, inputs, d.apart);
    copy_lines(h_prev + unit, known + (lines<T>(inputs) + unit / kLine<T>) * d.apart, units, d.apart);
    T* own = d.dz.at(e, t, b) + unit;
    const Gates<T> dz = {own, own + hidden, own + 2 * hidden, own + 3 * hidden};
    const T* dh_own = d.dhs.at(e, t, b) + unit;
    if (d.valid && !*d.valid.at(e, t, b)) {
      for (int64_t u = 0; u < units; ++u) dh[u] += dh_own[u];
      zero(dz.i, units), zero(dz.f, units), zero(dz.g, units), zero(dz.o, units);
      continue;
    }
    gates_backward<T>(gates_at(d.i_f, d.g, d.o, e, t, b, hidden, unit), c_prev + unit,
                      d.cs.at(e, t, b) + unit, dh, dh_own, units, dc, dz);
  }
}

// [dW; dU] = Σ [x, h']ᵀ·dz, db = Σ dz, over the steps of all sequences, in order. So many at a time
// as make up for reading and writing all of dW and dU.
constexpr int64_t kSum = 512;

template <typename T>
int64_t weights_size(int64_t rows) {
  return kSum * kPanel<T> + rows * (sizeof(Row<T>) / sizeof(T));
}

template <typename T>
void weights(const Backward<T>& d, int64_t e, int64_t batch, int64_t panel, int64_t first,
             int64_t last, T* scratch) {
  const int64_t inputs = d.sizes.inputs, hidden = d.sizes.hidden, columns = 4 * hidden;
  const int64_t begin = panel * kPanel<T>, rest = columns - begin;
  const int64_t real = rest < kPanel<T> ? rest : kPanel<T>, wide = padded<T>(real);
  const auto [block_begin, block_end, t] = d.block;
  const int64_t count = (block_end - block_begin) * batch;
  const bool anew = block_begin == 0;
  auto* row = reinterpret_cast<Row<T>*>(scratch + kSum * kPanel<T>);
  T* db = d.db && first == 0 ? d.db.at(e, 0) + begin : nullptr;

  for (int64_t f = first; f < last; ++f) {
    T* out = f < inputs ? d.dw.at(e, f) : d.du.at(e, f - inputs);
    row[f - first] = {nullptr, nullptr, anew ? nullptr : out, out};
    if (anew && count == 0) zero(out + begin, real);
  }
  if (db && anew) zero(db, real);
  for (int64_t k = 0; k < count; k += kSum) {
    const int64_t many = count - k < kSum ? count - k : kSum;
    pack(static_cast<const T*>(nullptr), 0, d.dz.at(e, t, 0) + k * columns, many, {1, columns, 0, columns},
         panel, scratch);
    for (int64_t f = first; f < last; ++f) {
      const int64_t at = f < inputs ? f : lines<T>(inputs) * kLine<T> + f - inputs;
      row[f - first].h = d.known.at(e, t, 0) + at / kLine<T> * d.apart + k * kLine<T> + at % kLine<T>;
    }
    product_with(row, last - first, int64_t{0}, many, kLine<T>, scratch, begin, columns);
    for (int64_t f = first; f < last; ++f) row[f - first].start = row[f - first].out;
    if (!db) continue;
    for (int64_t v = 0; v < wide; v += Vector<T>::kSize) {
      V<T> all{};
      for (int64_t j = 0; j < many; ++j) all += load<T>(scratch + j * wide + v);
      store<T>(db + v, load<T>(db + v, real - v) + all, real - v);
    }
  }
}

template <typename T>
void multiply(Array<const T> from, Array<const T> start, Array<T> to, const T* packed, int64_t e,
              int64_t t, int64_t first, int64_t last, T* scratch) {
  auto* row = reinterpret_cast<Row<T>*>(scratch);
  const int64_t batch = to.count;
  for (int64_t k = first; k < last; ++k) {
    row[k - first] = {nullptr, from.at(e, t + k / batch, k % batch), start ? start.at(e, 0) : nullptr,
                      to.at(e, t + k / batch, k % batch)};
  }
  product(row, last - first, int64_t{0}, from.row, packed, to.row);
}

template <typename T, typename Data, void (*step)(const Data&, const Part&, int64_t, T*)>
void walk(const Data& data, const Part& part, int64_t first, int64_t last, T* scratch) {
  for (int64_t s = first; s < last; ++s) step(data, part, s, scratch);
}

template <typename T, V<T> (*function)(V<T>)>
void elementwise(const T* x, T* y, int64_t n) {
  for (int64_t k = 0; k < n; k += Vector<T>::kSize) store(y + k, function(load(x + k, n - k)), n - k);
}

template <typename T>
int64_t packed_size(int64_t rows, const Columns& columns) {
  return rows * padded<T>(columns.gates * columns.units);
}

template <typename T>
constexpr jlstm::Walks<T> walks() {
  return {kPanel<T>,
          packed_size<T>,
          scratch_size<T>,
          pack<T>,
          walk<T, Forward<T>, forward_step<T>>,
          walk<T, Backward<T>, backward_step<T>>,
          weights_size<T>,
          weights<T>,
          multiply<T>,
          elementwise<T, sigmoid<T>>,
          elementwise<T, tanh<T>>,
          multiply_adds<T>};
}

}  // namespace

#define JLSTM_TEXT_(name) #name
#define JLSTM_TEXT(name) JLSTM_TEXT_(name)

namespace jlstm {

extern const Level JLSTM_LEVEL;
const Level JLSTM_LEVEL = {JLSTM_TEXT(JLSTM_LEVEL), walks<float>(), walks<double>()};

}  // namespace jlstm
