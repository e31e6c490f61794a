// The native kernel's own test, without JAX: all of its source, called as XLA would call it.
//
// ffi.cc is included with a header of the same name as XLA's, which stands beside this file: its
// buffers are plain arrays of exactly their size, its pool has threads of its own. So packing,
// slices of rows, ensembles and the way that tasks are shared out are tested under the sanitizers
// too. JLSTM_NATIVE_LEVEL names the instruction set, as in the library.
//
// Writes a line for each failure; the exit status is 1 if there was one.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>

#include "../../jlstm/kernels/cpp/ffi.cc"

// After so many allocations more there is no memory, in whatever thread; never for a negative number.
std::atomic<int64_t> allocations_left{-1};

// The kernel's memory is not 0 at the beginning: numbers that were not written are NaN.
// (Inlined, GCC 12 takes what is allocated for `data` itself, and warns.)
__attribute__((noinline)) void* operator new(size_t bytes, std::align_val_t align) {
  void* data = nullptr;
  if (allocations_left.load() >= 0 && allocations_left.fetch_sub(1) <= 0) {
    allocations_left.store(0);
    throw std::bad_alloc();
  }
  if (posix_memalign(&data, size_t(align), bytes) != 0) std::abort();
  return std::memset(data, 0xff, bytes);
}
__attribute__((noinline)) void operator delete(void* data, std::align_val_t) noexcept { std::free(data); }

namespace {

namespace ffi = xla::ffi;
using Dims = std::vector<int64_t>;
using Kind = ffi::Workers::Kind;

int failures = 0;

template <typename... Args>
void fail(const char* format, Args... args) {
  ++failures;
  std::printf(format, args...);
}

template <typename T>
constexpr const char* kType = sizeof(T) == 4 ? "float" : "double";

std::mt19937_64 random_bits;
int64_t below(int64_t n) { return int64_t(random_bits() % n); }
double uniform(double low, double high) { return low + (high - low) * double(random_bits() >> 11) * 0x1p-53; }

// An operand or a result: [*lead, *own], lead being the ensemble's axes; no numbers if it is absent.
template <typename T>
struct Operand {
  Dims lead, dims;
  int64_t size = 1, own = 1;
  std::unique_ptr<T[]> data;

  Operand(Dims lead_, const Dims& own_dims) : lead(std::move(lead_)), dims(lead) {
    dims.insert(dims.end(), own_dims.begin(), own_dims.end());
    for (const int64_t n : own_dims) own *= n;
    for (const int64_t n : dims) size *= n;
    data.reset(new T[size]);
    std::memset(static_cast<void*>(data.get()), 0xff, size * sizeof(T));
  }
  explicit operator bool() const { return size > 0; }
  ffi::AnyBuffer buffer() const {
    const auto type = sizeof(T) == 1 ? ffi::PRED : sizeof(T) == 4 ? ffi::F32 : ffi::F64;
    return {type, data.get(), size * sizeof(T), {dims.data(), dims.size()}};
  }
  // What member e of an ensemble with these axes has of it.
  const T* of(const Dims& full, int64_t e) const {
    int64_t place = 0, rest = e, members = 1;
    for (const int64_t n : full) members *= n;
    for (size_t axis = 0; axis < full.size(); ++axis) {
      members /= full[axis];
      place = place * lead[axis] + (lead[axis] == 1 ? 0 : rest / members);
      rest %= members;
    }
    return data.get() + place * own;
  }
};

struct Shape {
  Dims lead;
  int64_t time, batch, inputs, hidden;
  bool stepwise, bias, lengths, resets, reverse, saved, cs;
  int64_t members() const {
    int64_t product = 1;
    for (const int64_t n : lead) product *= n;
    return product;
  }
};

Shape random_shape() {
  Shape s{};
  for (int64_t axes = below(3); axes > 0; --axes) s.lead.push_back(1 + below(3));
  s.time = below(7), s.batch = below(16) ? 1 + below(9) : below(40);
  s.inputs = below(8) ? below(41) : 0, s.hidden = below(3) ? 1 + below(20) : 1 + below(70);
  s.stepwise = below(2), s.bias = below(4), s.lengths = below(2), s.resets = below(2), s.reverse = below(2);
  s.saved = below(2), s.cs = s.saved || below(2);
  return s;
}

// Random numbers; each axis of the ensemble is shared or not. Absent, it is an empty array.
template <typename T>
Operand<T> numbers(const Shape& s, bool present, const Dims& own, double low, double high) {
  Dims lead = s.lead;
  for (int64_t& n : lead) n = below(2) ? n : 1;
  Operand<T> operand = present ? Operand<T>(lead, own) : Operand<T>({}, {0});
  for (int64_t k = 0; k < operand.size; ++k) operand.data[k] = T(uniform(low, high));
  return operand;
}

// valid and keep. A step of padding is never reset: Python sees to that.
std::vector<Operand<bool>> masks(const Shape& s) {
  Dims lead = s.lead;
  for (int64_t& n : lead) n = below(2) ? n : 1;
  std::vector<Operand<bool>> both;
  for (const bool present : {s.lengths, s.resets}) {
    both.push_back(present ? Operand<bool>(lead, {s.time, s.batch, 1}) : Operand<bool>({}, {0}));
    for (int64_t k = 0; k < both.back().size; ++k) both.back().data[k] = below(3) > 0;
  }
  for (int64_t k = 0; s.lengths && k < both[1].size; ++k) both[1].data[k] |= !both[0].data[k];
  return both;
}

// Calls the kernel with one thread, then with other ways to share out the work. The first results
// must be what is expected, the others the same to the last bit. A result without axes is not asked
// for.
//
// float's tolerance is 60 times its unit of rounding, double's 200 times (relative, for numbers
// above 1): sums have up to 4·70 terms, a rounding error for each, and up to 6 steps pass them on.
// Cotangents of weights have a term for each step of each sequence: beyond 1000, in proportion.
template <typename T, typename Call>
void compare(const char* way, const Shape& s, const std::vector<const char*>& names, const std::vector<Dims>& dims,
             const std::vector<std::vector<double>>& expected, const Call& call) {
  const double terms = std::max(1.0, double(s.time * s.batch) / 1000);
  const double tolerance = terms * (sizeof(T) == 4 ? 60 * 0x1p-24 : 200 * 0x1p-53);
  const int64_t rows = s.members() * s.batch;
  const auto report = [&](size_t k, const char* what, int64_t at, double got, double want) {
    fail("%s %s time=%d batch=%d inputs=%d hidden=%d members=%d stepwise=%d b=%d valid=%d keep=%d reverse=%d: "
         "%s[%d] %s: %.17g, not %.17g\n",
         way, kType<T>, int(s.time), int(s.batch), int(s.inputs), int(s.hidden), int(s.members()), s.stepwise, s.bias,
         s.lengths, s.resets, s.reverse, names[k], int(at), what, got, want);
  };
  std::vector<Operand<T>> first;
  const std::pair<Kind, int64_t> pools[] = {
      {Kind::kLate, 1}, {Kind::kThreads, 2 + below(4)}, {Kind::kAtOnce, 1 + rows}, {Kind::kLate, 2 + below(8)}};
  for (const auto& [kind, threads] : pools) {
    ffi::Workers workers{kind, threads};
    std::vector<Operand<T>> results;
    std::vector<ffi::AnyBuffer> buffers;
    for (size_t k = 0; k < dims.size(); ++k) {
      results.emplace_back(dims[k].empty() ? Dims{} : s.lead, dims[k].empty() ? Dims{0} : dims[k]);
      buffers.push_back(results.back().buffer());
    }
    call(ffi::ThreadPool(workers), ffi::RemainingRets{{buffers.data(), buffers.size()}});
    for (size_t k = 0; k < dims.size(); ++k) {
      for (int64_t at = 0; at < results[k].size; ++at) {
        const double got = results[k].data[at], want = first.empty() ? expected[k][at] : double(first[k].data[at]);
        const double allowed = first.empty() ? tolerance * std::max(1.0, std::abs(want)) : 0;
        if (std::abs(got - want) <= allowed) continue;  // not if one is NaN
        return report(k, first.empty() ? "is wrong" : "depends on the slices", at, got, want);
      }
    }
    if (first.empty()) first = std::move(results);
  }
}

double plain_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

template <typename T>
void test_forward(const Shape& s) {
  const int64_t time = s.time, batch = s.batch, hidden = s.hidden, members = s.members();
  const double scale = 2 / std::sqrt(double(s.inputs + hidden));
  const auto w = numbers<T>(s, s.inputs > 0, {s.inputs, 4 * hidden}, -scale, scale);
  const auto u = numbers<T>(s, true, {hidden, 4 * hidden}, -scale, scale);
  const auto bias = numbers<T>(s, s.bias, {4 * hidden}, -1, 1);
  const auto xs = numbers<T>(s, s.inputs > 0, {time, batch, s.inputs}, -2, 2);
  const auto h0 = numbers<T>(s, true, {batch, hidden}, -1, 1), c0 = numbers<T>(s, true, {batch, hidden}, -2, 2);
  const auto reset_h = numbers<T>(s, s.resets, {batch, hidden}, -1, 1);
  const auto reset_c = numbers<T>(s, s.resets, {batch, hidden}, -2, 2);
  const auto mask = masks(s);

  const size_t state = members * batch * hidden, many = state * time;
  std::vector<double> last_h(state), last_c(state), hs(many), cs(many), i_f(2 * many), gs(many), os(many);
  for (int64_t e = 0; e < members; ++e) {
    for (int64_t row = 0; row < batch; ++row) {
      const T *h_first = h0.of(s.lead, e) + row * hidden, *c_first = c0.of(s.lead, e) + row * hidden;
      std::vector<double> h(h_first, h_first + hidden), c(c_first, c_first + hidden);
      for (int64_t step = 0; step < time; ++step) {
        const int64_t t = s.reverse ? time - 1 - step : step, tb = t * batch + row;
        const size_t at = ((e * time + t) * batch + row) * hidden;
        const bool valid = !s.lengths || mask[0].of(s.lead, e)[tb];
        if (s.resets && !mask[1].of(s.lead, e)[tb]) {
          for (int64_t n = 0; n < hidden; ++n) h[n] = reset_h.of(s.lead, e)[row * hidden + n];
          for (int64_t n = 0; n < hidden; ++n) c[n] = reset_c.of(s.lead, e)[row * hidden + n];
        }
        const std::vector<double> before = h;
        for (int64_t n = 0; valid && n < hidden; ++n) {
          double z[4];
          for (int64_t gate = 0; gate < 4; ++gate) {
            const int64_t column = gate * hidden + n;
            z[gate] = s.bias ? bias.of(s.lead, e)[column] : 0;
            for (int64_t k = 0; k < s.inputs; ++k) {
              z[gate] += double(xs.of(s.lead, e)[tb * s.inputs + k]) * w.of(s.lead, e)[k * 4 * hidden + column];
            }
            for (int64_t k = 0; k < hidden; ++k) z[gate] += before[k] * u.of(s.lead, e)[k * 4 * hidden + column];
          }
          const double i = plain_sigmoid(z[0]), f = plain_sigmoid(z[1]), g = std::tanh(z[2]), o = plain_sigmoid(z[3]);
          c[n] = f * c[n] + i * g;
          h[n] = o * std::tanh(c[n]);
          i_f[2 * at + n] = i, i_f[2 * at + hidden + n] = f, gs[at + n] = g, os[at + n] = o;
        }
        for (int64_t n = 0; n < hidden; ++n) hs[at + n] = h[n], cs[at + n] = c[n];
      }
      for (int64_t n = 0; n < hidden; ++n) {
        last_h[(e * batch + row) * hidden + n] = h[n], last_c[(e * batch + row) * hidden + n] = c[n];
      }
    }
  }
  const Dims one{batch, hidden}, all{time, batch, hidden};
  const Dims gate = s.saved ? all : Dims{}, two = s.saved ? Dims{time, batch, 2 * hidden} : Dims{};
  const std::vector<ffi::AnyBuffer> args{w.buffer(),  u.buffer(),       bias.buffer(),    xs.buffer(),      h0.buffer(),
                                         c0.buffer(), reset_h.buffer(), reset_c.buffer(), mask[0].buffer(), mask[1].buffer()};
  compare<T>("forward", s, {"last_h", "last_c", "hs", "cs", "i_f", "g", "o"},
             {one, one, all, s.cs ? all : Dims{}, two, gate, gate},
             {last_h, last_c, hs, cs, i_f, gs, os}, [&](ffi::ThreadPool pool, ffi::RemainingRets rets) {
               jlstm::jlstm_forward_2(pool, {{args.data(), args.size()}}, rets, time, s.reverse, s.stepwise);
             });
}

// The gates and c are any numbers: that they come from a forward pass does not matter here.
template <typename T>
void test_backward(const Shape& s) {
  const int64_t time = s.time, batch = s.batch, inputs = s.inputs, hidden = s.hidden, members = s.members();
  const double scale = 2 / std::sqrt(double(4 * hidden));
  const Dims one{batch, hidden}, all{time, batch, hidden};
  const auto w_t = numbers<T>(s, inputs > 0, {4 * hidden, inputs}, -scale, scale);
  const auto u_t = numbers<T>(s, true, {4 * hidden, hidden}, -scale, scale);
  const auto xs = numbers<T>(s, inputs > 0, {time, batch, inputs}, -2, 2);
  const auto i_f = numbers<T>(s, true, {time, batch, 2 * hidden}, 0, 1);
  const auto gs = numbers<T>(s, true, all, -1, 1), os = numbers<T>(s, true, all, 0, 1);
  const auto hs = numbers<T>(s, true, all, -1, 1), cs = numbers<T>(s, true, all, -2, 2);
  const auto h_first = numbers<T>(s, true, one, -1, 1), c_first = numbers<T>(s, true, one, -2, 2);
  const auto reset_h = numbers<T>(s, s.resets, one, -1, 1), reset_c = numbers<T>(s, s.resets, one, -2, 2);
  const auto dhs = numbers<T>(s, true, all, -1, 1);
  const auto dh_last = numbers<T>(s, true, one, -1, 1), dc_last = numbers<T>(s, true, one, -1, 1);
  const auto dh_so_far = numbers<T>(s, s.resets, one, -1, 1), dc_so_far = numbers<T>(s, s.resets, one, -1, 1);
  const auto mask = masks(s);

  const size_t state = members * batch * hidden;
  std::vector<double> out_dh(state), out_dc(state), reset_dh(state), reset_dc(state);
  std::vector<double> dxs(members * time * batch * inputs), dw(members * inputs * 4 * hidden);
  std::vector<double> du(members * hidden * 4 * hidden), db(members * 4 * hidden);
  for (int64_t e = 0; e < members; ++e) {
    for (int64_t row = 0; row < batch; ++row) {
      const auto part = [&](const Operand<T>& a, int64_t n) { return double(a.of(s.lead, e)[row * hidden + n]); };
      std::vector<double> dh(hidden), dc(hidden), sum_h(hidden), sum_c(hidden), zero(hidden);
      for (int64_t n = 0; n < hidden; ++n) {
        dh[n] = part(dh_last, n), dc[n] = part(dc_last, n);
        if (s.resets) sum_h[n] = part(dh_so_far, n), sum_c[n] = part(dc_so_far, n);
      }
      for (int64_t step = time; step-- > 0;) {
        const int64_t t = s.reverse ? time - 1 - step : step, tb = t * batch + row;
        std::vector<double> dz(4 * hidden), h_prev(hidden), c_prev(hidden);
        const int64_t before = s.reverse ? t + 1 : t - 1;
        const bool reset = s.resets && !mask[1].of(s.lead, e)[tb];
        for (int64_t n = 0; n < hidden; ++n) {
          const int64_t own = row * hidden + n, at = before * batch * hidden + own;
          h_prev[n] = reset ? reset_h.of(s.lead, e)[own] : step == 0 ? h_first.of(s.lead, e)[own] : hs.of(s.lead, e)[at];
          c_prev[n] = reset ? reset_c.of(s.lead, e)[own] : step == 0 ? c_first.of(s.lead, e)[own] : cs.of(s.lead, e)[at];
        }
        for (int64_t n = 0; n < hidden; ++n) dh[n] += dhs.of(s.lead, e)[tb * hidden + n];
        if (s.lengths && !mask[0].of(s.lead, e)[tb]) continue;
        for (int64_t n = 0; n < hidden; ++n) {
          const int64_t at = tb * hidden + n;
          const double i = i_f.of(s.lead, e)[2 * tb * hidden + n], f = i_f.of(s.lead, e)[(2 * tb + 1) * hidden + n];
          const double g = gs.of(s.lead, e)[at], o = os.of(s.lead, e)[at], out = std::tanh(cs.of(s.lead, e)[at]);
          dc[n] += dh[n] * o * (1 - out * out);
          dz[n] = dc[n] * g * (i - i * i);
          dz[hidden + n] = dc[n] * c_prev[n] * (f - f * f);
          dz[2 * hidden + n] = dc[n] * i * (1 - g * g);
          dz[3 * hidden + n] = dh[n] * out * (o - o * o);
          dc[n] *= f;
        }
        dh = zero;
        for (int64_t k = 0; k < 4 * hidden; ++k) {
          for (int64_t n = 0; n < hidden; ++n) dh[n] += dz[k] * u_t.of(s.lead, e)[k * hidden + n];
        }
        for (int64_t k = 0; k < 4 * hidden; ++k) {
          db[e * 4 * hidden + k] += dz[k];
          for (int64_t n = 0; n < hidden; ++n) du[(e * hidden + n) * 4 * hidden + k] += h_prev[n] * dz[k];
          for (int64_t n = 0; n < inputs; ++n) {
            dw[(e * inputs + n) * 4 * hidden + k] += xs.of(s.lead, e)[tb * inputs + n] * dz[k];
            dxs[((e * time + t) * batch + row) * inputs + n] += dz[k] * w_t.of(s.lead, e)[k * inputs + n];
          }
        }
        if (!reset) continue;
        for (int64_t n = 0; n < hidden; ++n) sum_h[n] += dh[n], sum_c[n] += dc[n];
        dh = dc = zero;
      }
      for (int64_t n = 0; n < hidden; ++n) {
        const size_t at = (e * batch + row) * hidden + n;
        out_dh[at] = dh[n], out_dc[at] = dc[n], reset_dh[at] = sum_h[n], reset_dc[at] = sum_c[n];
      }
    }
  }
  const Dims reset = s.resets ? one : Dims{}, dx = inputs ? Dims{time, batch, inputs} : Dims{};
  const Dims w = inputs ? Dims{inputs, 4 * hidden} : Dims{}, b = s.bias ? Dims{4 * hidden} : Dims{};
  const std::vector<ffi::AnyBuffer> args{
      w_t.buffer(),     u_t.buffer(),       xs.buffer(),        i_f.buffer(),       gs.buffer(),
      os.buffer(),      hs.buffer(),        cs.buffer(),        h_first.buffer(),   c_first.buffer(),
      reset_h.buffer(), reset_c.buffer(),   dhs.buffer(),       dh_last.buffer(),   dc_last.buffer(),
      dh_so_far.buffer(), dc_so_far.buffer(), mask[0].buffer(), mask[1].buffer()};
  compare<T>("backward", s, {"dh", "dc", "reset_dh", "reset_dc", "dxs", "dw", "du", "db"},
             {one, one, reset, reset, dx, w, {hidden, 4 * hidden}, b},
             {out_dh, out_dc, reset_dh, reset_dc, dxs, dw, du, db}, [&](ffi::ThreadPool pool, ffi::RemainingRets rets) {
               jlstm::jlstm_backward_2(pool, {{args.data(), args.size()}}, rets, time, s.reverse);
             });
}

// Where memory runs out, and where a call hands over something else, an error is given back.
void test_errors() {
  const Shape s{{3}, 4, 6, 5, 7, false, true, false, false, false, false, false};
  const Dims one{s.batch, s.hidden}, all{s.time, s.batch, s.hidden}, two{s.time, s.batch, 2 * s.hidden};
  const Dims x{s.time, s.batch, s.inputs}, w{s.inputs, 4 * s.hidden}, u{s.hidden, 4 * s.hidden}, b{4 * s.hidden};
  std::vector<Operand<float>> kept;
  const auto buffers = [&](const std::vector<Dims>& dims) {  // no axes: it is absent
    std::vector<ffi::AnyBuffer> made;
    for (const Dims& own : dims) {
      kept.push_back(own.empty() ? Operand<float>({}, {0}) : Operand<float>(s.lead, own));
      for (int64_t k = 0; k < kept.back().size; ++k) kept.back().data[k] = 0.5f;
      made.push_back(kept.back().buffer());
    }
    return made;
  };
  const std::vector<ffi::AnyBuffer> forward_args = buffers({w, u, b, x, one, one, {}, {}, {}, {}});
  const std::vector<ffi::AnyBuffer> forward_rets = buffers({one, one, all, {}, {}, {}, {}});
  const std::vector<ffi::AnyBuffer> backward_args = buffers({{4 * s.hidden, s.inputs}, {4 * s.hidden, s.hidden}, x, two,
                                                             all, all, all, all, one, one, {}, {}, all, one, one, {}, {},
                                                             {}, {}});
  const std::vector<ffi::AnyBuffer> backward_rets = buffers({one, one, {}, {}, x, w, u, b});
  const auto call = [&](int way, Kind kind, bool whole) {
    ffi::Workers workers{kind, 3};
    const ffi::ThreadPool pool(workers);
    const auto& args = way < 2 ? forward_args : backward_args;
    const auto& rets = way < 2 ? forward_rets : backward_rets;
    const ffi::RemainingArgs given{{args.data(), args.size() - !whole}};
    const ffi::RemainingRets asked{{rets.data(), rets.size()}};
    if (way < 2) return jlstm::jlstm_forward_2(pool, given, asked, s.time, s.reverse, way == 1).code;
    return jlstm::jlstm_backward_2(pool, given, asked, s.time, s.reverse).code;
  };
  for (const int way : {0, 1, 2}) {
    for (const Kind kind : {Kind::kThreads, Kind::kAtOnce, Kind::kLate}) {
      int64_t left = 0;
      for (; left < 1000; ++left) {
        allocations_left.store(left);
        const auto code = call(way, kind, true);
        allocations_left.store(-1);
        if (code == ffi::ErrorCode::kOk) break;
        if (code != ffi::ErrorCode::kResourceExhausted) fail("no memory for allocation %d: another error\n", int(left));
      }
      if (left < 2 || left == 1000) fail("memory for %d allocations is enough\n", int(left));
    }
    if (call(way, Kind::kLate, false) != ffi::ErrorCode::kInvalidArgument) fail("an operand is missing\n");
  }
}

long double exact_sigmoid(long double x) {
  return x > 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}
long double exact_tanh(long double x) { return std::tanh(x); }

// A function against one of long double, in units in the last place. Numbers are taken from the
// range where it is neither 0 nor 1, from near 0, and from all that there are.
template <typename T>
void test_function(const char* name, void (*function)(const T*, T*, int64_t), long double (*exact)(long double),
                   int64_t count) {
  using Limits = std::numeric_limits<T>;
  const T inf = Limits::infinity(), tiny = Limits::denorm_min(), least = Limits::min(), most = Limits::max();
  std::vector<T> x{0,     -T(0), inf,   -inf, Limits::quiet_NaN(), tiny, -tiny, least,
                   -least, most, -most, -80, -100, 80, 100};
  const double range = sizeof(T) == 4 ? 105 : 747;
  while (int64_t(x.size()) < count) {
    x.push_back(T(uniform(-range, range)));
    x.push_back(T(uniform(-20, 20)));
    x.push_back(T(uniform(-1, 1)));
    const uint64_t bits = random_bits();
    std::memcpy(&x.emplace_back(), &bits, sizeof(T));
  }
  std::vector<T> y(x.size());
  function(x.data(), y.data(), x.size());
  for (size_t k = 0; k < x.size(); ++k) {
    const long double want = exact(x[k]);
    const int exponent = want == 0 ? Limits::min_exponent : std::max(std::ilogb(want) + 1, Limits::min_exponent);
    const long double ulps = (y[k] - want) / std::ldexp(1.0L, exponent - Limits::digits);
    if (std::isnan(want) ? !std::isnan(y[k]) : !(std::abs(ulps) <= 4)) {
      return fail("%s %s(%.17g) is %.17g, not %.17g: %g ulps\n", kType<T>, name, double(x[k]), double(y[k]),
                  double(want), double(ulps));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const char* wanted = std::getenv("JLSTM_NATIVE_LEVEL");
  if (wanted != nullptr && std::string(wanted) != jlstm_level()) {
    std::printf("skipped: this machine has no %s\n", wanted);
    return 0;
  }
  const int64_t cases = argc > 1 ? std::atoi(argv[1]) : 150;
  for (int64_t k = 0; k < cases; ++k) {
    random_bits.seed(k);
    const Shape shape = random_shape();
    test_forward<float>(shape), test_forward<double>(shape);
    test_backward<float>(shape), test_backward<double>(shape);
  }
  random_bits.seed(0);
  // More rows than one slice takes, and results large enough for huge pages.
  const Shape large{{}, 4, 480, 0, 70, false, false, true, true, false, true, true};
  test_forward<double>(large), test_backward<double>(large);
  // Units shared out: a single row, and a matrix beyond a core's cache.
  const Shape single{{}, 9, 1, 30, 90, true, true, true, true, true, true, true};
  test_forward<float>(single), test_backward<float>(single);
  // Several blocks of steps, each with units shared out.
  const Shape long_one{{}, 1500, 1, 5, 92, true, true, true, true, false, true, true};
  const Shape long_two{{}, 1500, 1, 5, 92, false, true, true, true, true, false, true};
  test_backward<double>(long_one), test_backward<double>(long_two);
  test_forward<double>(long_two), test_forward<float>(long_two);
  // The same of three members of an ensemble, whose weights may be the same.
  for (const bool reverse : {false, true}) {
    const Shape own{{3}, 1000, 7, 5, 22, false, true, false, true, reverse, true, true};
    test_backward<double>(own), test_forward<double>(own);
  }
  const Shape none{{2}, 5, 0, 3, 4, true, true, true, true, false, true, true};
  test_forward<float>(none), test_backward<float>(none);
  const Shape wide{{}, 3, 7, 0, 270, false, false, true, true, false, true, true};
  test_forward<double>(wide), test_backward<double>(wide);
  test_errors();
  for (const int64_t count : {17, 1000 * int(cases)}) {
    test_function("sigmoid", jlstm_sigmoid_f32, exact_sigmoid, count);
    test_function("sigmoid", jlstm_sigmoid_f64, exact_sigmoid, count);
    test_function("tanh", jlstm_tanh_f32, exact_tanh, count);
    test_function("tanh", jlstm_tanh_f64, exact_tanh, count);
  }
  std::printf("%s: %d failures in %d random cases\n", jlstm_level(), failures, int(cases));
  return failures > 0;
}
