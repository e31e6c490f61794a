// The walk as XLA calls it: buffers in, buffers out, rows shared out over XLA's own threads.
//
// An operand with no numbers in it stands for one that is not there. Leading axes that an operand
// has beyond its own are those of an ensemble (jax.vmap puts them there), each of full size or 1.

#ifdef __x86_64__
#include <cpuid.h>
#endif
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "walk.h"
#include "xla/ffi/api/ffi.h"

namespace jlstm {

extern const Level baseline;
#ifdef __x86_64__
extern const Level avx2, avx512;
#endif

namespace {

namespace ffi = xla::ffi;

// The best instruction set that this machine has, or the one that JLSTM_NATIVE_LEVEL names, if it
// has that.
const Level& find_level() {
  std::vector<const Level*> levels;
#ifdef __x86_64__
  // Asked of processor and system themselves: where Zig compiles, __builtin_cpu_supports says no.
  unsigned eax, ebx, ecx, edx, features = 0, kept = 0;
  __cpuid(1, eax, ebx, ecx, edx);
  const bool fma = ecx >> 12 & 1;
  if (ecx >> 27 & 1) __asm__ volatile("xgetbv" : "=a"(kept), "=d"(edx) : "c"(0));
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) features = ebx;
  const auto has = [&](unsigned bits, unsigned registers) {
    return fma && (features & bits) == bits && (kept & registers) == registers;
  };
  if (has(1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, 0xe6)) levels.push_back(&avx512);  // F DQ BW VL
  if (has(1u << 5, 0x6)) levels.push_back(&avx2);
#endif
  levels.push_back(&baseline);
  const char* wanted = std::getenv("JLSTM_NATIVE_LEVEL");
  for (const Level* level : levels) {
    if (wanted != nullptr && std::string(wanted) == level->name) return *level;
  }
  return *levels.front();
}

const Level& level() {
  static const Level& found = find_level();
  return found;
}

template <typename T>
const Walks<T>& walks() {
  if constexpr (sizeof(T) == 4) {
    return level().f32;
  } else {
    return level().f64;
  }
}

// Runs task(0) … task(count − 1), those of the pool's threads that are free helping.
//
// Tasks are taken from a counter. The caller takes part, and waits at last for tasks that have been
// begun, never for a thread to begin one: it may be alone.
template <typename Task>
void run(ffi::ThreadPool& pool, int64_t count, const Task& task) {
  struct State {
    std::atomic<int64_t> next{0}, done{0};
    int64_t count;
    const Task* task;
    void work() {
      for (int64_t k; (k = next.fetch_add(1)) < count;) {
        (*task)(k);  // which the caller keeps alive until all are done
        done.fetch_add(1);
      }
    }
  };
  auto state = std::make_shared<State>();
  state->count = count;
  state->task = &task;
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  for (int64_t k = 0; k < helpers; ++k) pool.Schedule([state] { state->work(); });
  state->work();
  for (int spin = 0; state->done.load() < count; ++spin) {
    if (spin > 1000) std::this_thread::yield();
  }
}

// Memory for numbers of any kind, not initialised.
template <typename T>
struct Scratch {
  T* data;
  explicit Scratch(int64_t n)
      : data(static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{64}))) {}
  ~Scratch() { ::operator delete(data, std::align_val_t{64}); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

// Asks for huge pages where a large buffer is written for the first time: a page fault for every
// 4 KiB can take as long as the arithmetic.
void ask_for_huge_pages(void* data, size_t bytes) {
  constexpr uintptr_t kHuge = uintptr_t{1} << 21;
  const auto begin = (reinterpret_cast<uintptr_t>(data) + kHuge - 1) & ~(kHuge - 1);
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(kHuge - 1);
#ifdef MADV_HUGEPAGE
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// The operands of one call.
class Call {
 public:
  Call(ffi::RemainingArgs args, ffi::RemainingRets rets, size_t lead)
      : args_(args), rets_(rets), lead_(first(rets.get<ffi::AnyBuffer>(0).value()->dimensions(), lead)) {
    for (const int64_t n : lead_) members_ *= n;
  }

  int64_t members() const { return members_; }

  // The next operand, and the next result; rank is that of its own axes.
  template <typename T>
  Array<const T> arg(size_t rank) {
    const auto buffer = args_.get<ffi::AnyBuffer>(arg_++).value();
    return view<const T>(static_cast<const T*>(buffer.untyped_data()), buffer.dimensions(), rank);
  }

  template <typename T>
  Array<T> ret(size_t rank) {
    const ffi::AnyBuffer buffer = *rets_.get<ffi::AnyBuffer>(ret_++).value();
    ask_for_huge_pages(buffer.untyped_data(), buffer.size_bytes());
    return view<T>(static_cast<T*>(buffer.untyped_data()), buffer.dimensions(), rank);
  }

 private:
  using Dimensions = ffi::Span<const int64_t>;

  static Dimensions first(Dimensions dims, size_t n) { return Dimensions(dims.begin(), n); }

  template <typename T>
  Array<T> view(T* data, Dimensions dims, size_t rank) {
    int64_t count = 1;
    for (const int64_t n : dims) count *= n;
    if (count == 0) return {};
    const auto own = Dimensions(dims.begin() + dims.size() - rank, rank);
    int64_t size = 1;
    for (const int64_t n : own) size *= n;
    Array<T> array;
    array.data = data;
    array.member = starts(first(dims, dims.size() - rank), size);
    array.row = own.back();
    array.count = rank > 1 ? own[rank - 2] : 1;
    array.step = array.row * array.count;
    return array;
  }

  // Where each member of the ensemble starts in an operand with these leading axes.
  const int64_t* starts(Dimensions lead, int64_t size) {
    starts_.emplace_back(members_, 0);
    for (int64_t e = 0; e < members_; ++e) {
      int64_t rest = e, stride = size;
      for (size_t axis = lead.size(); axis-- > 0;) {
        if (lead[axis] != 1) starts_.back()[e] += rest % lead_[axis] * stride;
        rest /= lead_[axis];
        stride *= lead[axis];
      }
    }
    return starts_.back().data();
  }

  ffi::RemainingArgs args_;
  ffi::RemainingRets rets_;
  Dimensions lead_;
  int64_t members_ = 1;
  size_t arg_ = 0, ret_ = 0;
  std::vector<std::vector<int64_t>> starts_;
};

// Walks all members. Those with the same matrices are one batch; of the others as many are packed
// at a time as there are threads, so that memory for packed matrices is bounded.
template <typename T, typename Data>
void walk_all(ffi::ThreadPool& pool, Call& call, Data& data, int64_t batch, Array<const T> above,
              int64_t above_rows, Array<const T> below, int64_t below_rows, int64_t columns,
              void (*walk)(const Data&, const Rows&, T* scratch)) {
  const auto start = [](const Array<const T>& a, int64_t e) { return a ? a.member[e] : 0; };
  std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> same;
  for (int64_t e = 0; e < call.members(); ++e) same[{start(above, e), start(below, e)}].push_back(e);
  std::vector<std::vector<int64_t>> groups;
  for (auto& [_, members] : same) groups.push_back(std::move(members));

  const Walks<T>& walks = jlstm::walks<T>();
  const int64_t threads = std::max<int64_t>(1, pool.num_threads()), all = groups.size();
  const int64_t packed_size = walks.packed_size(above_rows + below_rows, columns);
  const int64_t panels = (columns + walks.panel - 1) / walks.panel;
  const Scratch<T> packed(packed_size * std::min(threads, all));

  for (int64_t first = 0; first < all; first += threads) {
    const int64_t count = std::min(threads, all - first);
    // Packing a panel is little work: one task for each thread and group.
    const int64_t parts = std::min(panels, packed_size < (1 << 15) ? 1 : (threads + count - 1) / count);
    run(pool, count * parts, [&](int64_t task) {
      const int64_t k = task / parts, part = task % parts, e = groups[first + k][0];
      for (int64_t p = part * panels / parts; p < (part + 1) * panels / parts; ++p) {
        walks.pack(above ? above.at(e, 0, 0) : nullptr, above ? above_rows : 0, below.at(e, 0, 0),
                   below_rows, columns, p, packed.data + k * packed_size);
      }
    });

    // A slice for each thread, but no more rows in one than what is known of a step, z above all,
    // takes 256 KiB.
    struct Slice {
      int64_t group, begin, end;
    };
    std::vector<Slice> slices;
    const int64_t most = std::max<int64_t>(24, (1 << 18) / (4 * data.sizes.hidden * sizeof(T)));
    for (int64_t k = 0; k < count; ++k) {
      const int64_t rows = groups[first + k].size() * batch;
      int64_t parts = std::max((threads + count - 1) / count, (rows + most - 1) / most);
      parts = std::max<int64_t>(1, std::min(parts, rows));
      for (int64_t p = 0; p < parts; ++p) slices.push_back({k, p * rows / parts, (p + 1) * rows / parts});
    }
    run(pool, slices.size(), [&](int64_t s) {
      const auto [k, begin, end] = slices[s];
      const Scratch<T> scratch(walks.scratch_size(data.sizes, end - begin));
      Data own = data;
      own.packed = packed.data + k * packed_size;
      walk(own, {groups[first + k].data(), batch, begin, end}, scratch.data);
    });
  }
}

template <typename T>
void forward(ffi::ThreadPool& pool, Call& call, Sizes sizes, int64_t batch) {
  Forward<T> d{};
  const auto w = call.arg<T>(2), u = call.arg<T>(2);
  d.b = call.arg<T>(1);
  d.xs = call.arg<T>(3), d.z = call.arg<T>(3);
  d.h = call.arg<T>(2), d.c = call.arg<T>(2);
  d.reset_h = call.arg<T>(2), d.reset_c = call.arg<T>(2);
  d.valid = call.arg<bool>(3), d.keep = call.arg<bool>(3);
  d.last_h = call.ret<T>(2), d.last_c = call.ret<T>(2);
  d.hs = call.ret<T>(3), d.cs = call.ret<T>(3);
  d.i_f = call.ret<T>(3), d.g = call.ret<T>(3), d.o = call.ret<T>(3);
  sizes.inputs = w ? w.count : 0;
  d.sizes = sizes;
  if (batch == 0) return;
  walk_all<T>(pool, call, d, batch, w, sizes.inputs, u, sizes.hidden, 4 * sizes.hidden, walks<T>().forward);
}

template <typename T>
void backward(ffi::ThreadPool& pool, Call& call, Sizes sizes, int64_t batch) {
  Backward<T> d{};
  const auto u_t = call.arg<T>(2);
  d.i_f = call.arg<T>(3), d.g = call.arg<T>(3), d.o = call.arg<T>(3);
  d.c_prev = call.arg<T>(3), d.c = call.arg<T>(3), d.dhs = call.arg<T>(3);
  d.dh = call.arg<T>(2), d.dc = call.arg<T>(2);
  d.reset_dh = call.arg<T>(2), d.reset_dc = call.arg<T>(2);
  d.valid = call.arg<bool>(3), d.keep = call.arg<bool>(3);
  d.out_dh = call.ret<T>(2), d.out_dc = call.ret<T>(2);
  d.out_reset_dh = call.ret<T>(2), d.out_reset_dc = call.ret<T>(2);
  d.dz = call.ret<T>(3);
  d.sizes = sizes;
  if (batch == 0) return;
  walk_all<T>(pool, call, d, batch, Array<const T>{}, 0, u_t, 4 * sizes.hidden, sizes.hidden,
              walks<T>().backward);
}

// Both ways: the first result is [ensemble, batch, hidden], of the dtype of all.
template <auto in_float, auto in_double>
ffi::Error dispatch(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                    int64_t time, bool reverse) {
  const ffi::AnyBuffer first = *rets.get<ffi::AnyBuffer>(0).value();
  const auto dims = first.dimensions();
  const size_t lead = dims.size() - 2;
  Call call(args, rets, lead);
  const Sizes sizes{time, 0, dims[lead + 1], reverse};
  if (call.members() == 0) return ffi::Error::Success();
  (first.element_type() == ffi::F32 ? in_float : in_double)(pool, call, sizes, dims[lead]);
  return ffi::Error::Success();
}

#define JLSTM_BINDING                                                                \
  ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<int64_t>("time").Attr<bool>( \
      "reverse")

}  // namespace

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(jlstm_forward, (dispatch<forward<float>, forward<double>>), JLSTM_BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(jlstm_backward, (dispatch<backward<float>, backward<double>>), JLSTM_BINDING);
#pragma GCC visibility pop

}  // namespace jlstm

#define JLSTM_EXPORT extern "C" __attribute__((visibility("default")))

// The instruction set in use.
JLSTM_EXPORT const char* jlstm_level() { return jlstm::level().name; }

// The two functions alone, for tests of their accuracy.
JLSTM_EXPORT void jlstm_sigmoid_f32(const float* x, float* y, int64_t n) { jlstm::level().f32.sigmoid(x, y, n); }
JLSTM_EXPORT void jlstm_sigmoid_f64(const double* x, double* y, int64_t n) { jlstm::level().f64.sigmoid(x, y, n); }
JLSTM_EXPORT void jlstm_tanh_f32(const float* x, float* y, int64_t n) { jlstm::level().f32.tanh(x, y, n); }
JLSTM_EXPORT void jlstm_tanh_f64(const double* x, double* y, int64_t n) { jlstm::level().f64.tanh(x, y, n); }
