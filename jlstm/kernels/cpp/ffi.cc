// The walk as XLA calls it: buffers in, buffers out, rows shared out over XLA's own threads.
//
// An operand with no numbers in it stands for one that is not there. Leading axes that an operand
// has beyond its own are those of an ensemble (jax.vmap puts them there), each of full size or 1.

#ifdef __x86_64__
#include <cpuid.h>
#endif
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
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

// Runs task(part, stage) for all parts of one stage after the other, those of the pool's threads that
// are free helping. False if memory ran out.
//
// A part of a stage is taken by whoever comes first; a thread takes the part that it had in the
// stage before if it can, whose numbers are in its cache. A stage begins when the one before is
// done: a thread waits for parts that have been begun, never for one to be begun, as the caller, who
// takes part, may be alone. A helper that the system has taken off its core would hold up every
// stage: if one is waited for much longer than a part takes, the helpers leave.
template <typename Task>
bool run(ffi::ThreadPool& pool, int64_t parts, int64_t stages, const Task& task) {
  using Clock = std::chrono::steady_clock;
  struct State {
    int64_t parts, stages;
    const Task* task;
    std::vector<std::atomic<int64_t>> taken;  // of each part, up to which stage
    std::atomic<int64_t> done{0};
    std::atomic<bool> failed{false}, alone{false};

    State(int64_t parts_, int64_t stages_, const Task* task_)
        : parts(parts_), stages(stages_), task(task_), taken(parts_) {}

    void wait(int64_t tasks, Clock::duration patience) {
      const auto begin = Clock::now();
      for (int64_t spin = 1; done.load() < tasks; ++spin) {
        if (spin % 1024 != 0) continue;
        if (Clock::now() - begin > patience) alone.store(true);
        std::this_thread::yield();
      }
    }

    void work(int64_t mine, bool helper) {
      auto patience = Clock::duration::max();
      for (int64_t stage = 0; stage < stages; ++stage) {
        const int64_t first = mine;
        for (int64_t k = 0; k < parts; ++k) {
          const int64_t part = (first + k) % parts;
          int64_t before = stage;
          if (taken[part].load() != stage || (helper && alone.load())) continue;
          if (!taken[part].compare_exchange_strong(before, stage + 1)) continue;
          mine = part;
          if (stage > 0) wait(stage * parts, patience);
          const auto begin = Clock::now();
          try {
            if (!failed.load()) (*task)(part, stage);  // which the caller keeps alive until all are done
          } catch (const std::bad_alloc&) {
            failed.store(true);
          }
          patience = 4 * (Clock::now() - begin) + std::chrono::microseconds(100);
          done.fetch_add(1);
        }
      }
    }
  };
  const auto state = std::make_shared<State>(parts, stages, &task);
  const int64_t workers = std::min(std::max<int64_t>(1, pool.num_threads()), parts);
  try {
    for (int64_t k = 1; k < workers; ++k) {
      pool.Schedule([state, first = k * parts / workers] { state->work(first, true); });
    }
  } catch (const std::bad_alloc&) {  // fewer will do
  }
  state->work(0, false);
  state->wait(parts * stages, Clock::duration::max());
  return !state->failed.load();
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

// Units are shared out in whole vectors of each dtype.
constexpr int64_t kUnits = 16;

// Whether threads share out the units of all rows, and not the rows: they then read a part each of a
// packed matrix, but wait for each other in every step. Measured on two cores with 2 MiB of cache:
// it pays where a thread would have no row, if a step is at least some 2¹⁵ multiply-adds, and where
// the matrix takes half a megabyte and a thread would have but two rows. The four megabytes of a
// hidden size of 512, which are more than a core's cache, pay up to 32 rows for each.
bool by_units(int64_t threads, int64_t rows, int64_t numbers, int64_t bytes) {
  if (threads == 1) return false;
  if (rows < threads) return rows * numbers >= 1 << 15;
  return rows <= threads * (bytes > 1 << 21 ? 32 : bytes > 1 << 19 ? 2 : 0);
}

// Some members, how they are shared out, and their matrices.
template <typename T>
struct Shares {
  struct Matrix {  // or the columns of it that a part needs
    const std::vector<int64_t>* members;
    Columns columns;
    T* packed;
  };
  std::vector<const std::vector<int64_t>*> groups;  // of members that have the same weights
  std::vector<Matrix> matrices;
  std::vector<std::pair<Part, int64_t>> parts;  // with the matrix of each
  bool staged = false;                          // one step of all parts after the other
};

// The matrices [above; below] of these members, packed; shares.matrices says where.
template <typename T>
bool pack_all(ffi::ThreadPool& pool, const std::vector<typename Shares<T>::Matrix>& matrices, Array<const T> above,
              Array<const T> below) {
  const Walks<T>& walks = jlstm::walks<T>();
  const int64_t above_rows = above ? above.count : 0, rows = above_rows + below.count;
  // Packing a panel is little work: one task for each thread.
  const int64_t threads = std::max<int64_t>(1, pool.num_threads()), count = matrices.size();
  const int64_t shares = rows * below.row < (1 << 15) ? 1 : (threads + count - 1) / count;
  return run(pool, count * shares, 1, [&](int64_t task, int64_t) {
    const auto& [members, columns, place] = matrices[task / shares];
    const int64_t e = members->front(), share = task % shares;
    const int64_t panels = (columns.gates * columns.units + walks.panel - 1) / walks.panel;
    for (int64_t p = share * panels / shares; p < (share + 1) * panels / shares; ++p) {
      walks.pack(above ? above.at(e, 0, 0) : nullptr, above_rows, below.at(e, 0, 0), below.count, columns, p,
                 place + p * walks.panel * rows);
    }
  });
}

// Steps first … last − 1 of all parts. False if memory ran out.
template <typename T, typename Data>
bool walk_parts(ffi::ThreadPool& pool, const Data& data, const Shares<T>& shares, int64_t first, int64_t last,
                void (*walk)(const Data&, const Part&, int64_t first, int64_t last, T* scratch)) {
  const Walks<T>& walks = jlstm::walks<T>();
  const auto& parts = shares.parts;
  const auto size = [&](int64_t p) {
    return walks.scratch_size(parts[p].first.end - parts[p].first.begin, parts[p].first.units);
  };
  const auto one = [&](int64_t p, int64_t begin, int64_t end, T* scratch) {
    const auto& [part, matrix] = parts[p];
    Data own = data;
    own.packed = shares.matrices[matrix].packed;
    walk(own, part, begin, end, scratch);
  };
  const int64_t many = parts.size();
  if (!shares.staged) {
    return run(pool, many, 1, [&](int64_t p, int64_t) {
      const Scratch<T> scratch(size(p));
      one(p, first, last, scratch.data);
    });
  }
  int64_t each = 0;
  for (int64_t p = 0; p < many; ++p) each = std::max(each, size(p));
  each = (each + kLine<T> - 1) / kLine<T> * kLine<T>;  // no line of a cache belongs to two
  const Scratch<T> scratch(many * each);
  return run(pool, many, last - first, [&](int64_t p, int64_t stage) {
    one(p, first + stage, first + stage + 1, scratch.data + p * each);
  });
}

// Calls body(shares, most) for all members, most being the largest number that have the same matrices.
// These are one batch; of the others as many are packed at a time as there are threads, so that
// memory for packed matrices is bounded. False if memory ran out.
template <typename T, typename Body>
bool for_all(ffi::ThreadPool& pool, Call& call, int64_t hidden, int64_t batch, Array<const T> above,
             Array<const T> below, int64_t gates, Array<const T> other, const Body& body) {
  const auto start = [](const Array<const T>& a, int64_t e) { return a ? a.member[e] : 0; };
  std::map<std::array<int64_t, 3>, std::vector<int64_t>> same;
  for (int64_t e = 0; e < call.members(); ++e) same[{start(above, e), start(below, e), start(other, e)}].push_back(e);
  std::vector<std::vector<int64_t>> groups;
  size_t largest = 0;
  for (auto& [_, members] : same) {
    largest = std::max(largest, members.size());
    groups.push_back(std::move(members));
  }

  const Walks<T>& walks = jlstm::walks<T>();
  const int64_t threads = std::max<int64_t>(1, pool.num_threads()), all = groups.size();
  const int64_t matrix_rows = (above ? above.count : 0) + below.count;
  const int64_t packed_size = walks.packed_size(matrix_rows, {gates, hidden, 0, hidden});
  const Scratch<T> packed(packed_size * std::min(threads, all));

  for (int64_t first = 0; first < all; first += threads) {
    const int64_t count = std::min(threads, all - first);
    Shares<T> shares;
    for (int64_t k = 0; k < count; ++k) shares.groups.push_back(&groups[first + k]);
    const int64_t rows = groups[first].size() * batch;
    shares.staged = all == 1 && by_units(threads, rows, packed_size, packed_size * sizeof(T));
    if (shares.staged) {
      const int64_t blocks = (hidden + kUnits - 1) / kUnits, many = std::min(threads, blocks);
      for (int64_t p = 0; p < many; ++p) {
        const int64_t unit = p * blocks / many * kUnits, end = std::min(hidden, (p + 1) * blocks / many * kUnits);
        T* place = packed.data + (p == 0 ? 0 : walks.packed_size(matrix_rows, {gates, hidden, 0, unit}));
        shares.matrices.push_back({&groups[0], {gates, hidden, unit, end - unit}, place});
        shares.parts.push_back({{groups[0].data(), batch, 0, rows, unit, end - unit}, p});
      }
    } else {
      // Rows for each thread, but no more in one part than what is known of a step, z above all,
      // takes 256 KiB.
      const int64_t most = std::max<int64_t>(24, (1 << 18) / (walks.scratch_size(1, hidden) * sizeof(T)));
      for (int64_t k = 0; k < count; ++k) {
        const auto& members = *shares.groups[k];
        shares.matrices.push_back({&members, {gates, hidden, 0, hidden}, packed.data + k * packed_size});
        const int64_t rows = members.size() * batch;
        int64_t many = std::max((threads + count - 1) / count, (rows + most - 1) / most);
        many = std::max<int64_t>(1, std::min(many, rows));
        for (int64_t p = 0; p < many; ++p) {
          shares.parts.push_back({{members.data(), batch, p * rows / many, (p + 1) * rows / many, 0, hidden}, k});
        }
      }
    }
    if (!pack_all<T>(pool, shares.matrices, above, below) || !body(shares, int64_t(largest))) return false;
  }
  return true;
}

// Another matrix of the same members: whole, one for each group.
template <typename T>
class Other {
 public:
  Other(const Shares<T>& shares, Array<const T> matrix)
      : shares_(shares),
        matrix_(matrix),
        columns_{1, matrix.row, 0, matrix.row},
        size_(walks<T>().packed_size(matrix.count, columns_)),
        packed_(size_ * shares.groups.size()) {}

  // False if memory ran out.
  bool pack(ffi::ThreadPool& pool) const {
    std::vector<typename Shares<T>::Matrix> matrices;
    for (size_t k = 0; k < shares_.groups.size(); ++k) {
      matrices.push_back({shares_.groups[k], columns_, packed_.data + k * size_});
    }
    return !matrix_ || pack_all<T>(pool, matrices, {}, matrix_);
  }

  const T* of(int64_t group) const { return packed_.data + group * size_; }

 private:
  const Shares<T>& shares_;
  Array<const T> matrix_;
  Columns columns_;
  int64_t size_;
  Scratch<T> packed_;
};

struct Member {
  int64_t e, group;
};

template <typename T>
std::vector<Member> members_of(const Shares<T>& shares) {
  std::vector<Member> members;
  for (size_t k = 0; k < shares.groups.size(); ++k) {
    for (const int64_t e : *shares.groups[k]) members.push_back({e, int64_t(k)});
  }
  return members;
}

// Room for the rows of one block after the other; a member has so many numbers.
template <typename T>
class Room {
 public:
  Room(const Call& call, const std::vector<Member>& members, int64_t size, int64_t batch, int64_t row)
      : numbers_(members.size() * size), starts_(call.members()), places_(call.members()), batch_(batch), row_(row) {
    for (size_t k = 0; k < members.size(); ++k) starts_[members[k].e] = k * size;
  }

  // As an array of all steps, of which it has those of the block.
  Array<T> of(const Block& block) {
    for (size_t e = 0; e < starts_.size(); ++e) places_[e] = starts_[e] - block.t * batch_ * row_;
    return {numbers_.data, places_.data(), batch_ * row_, row_, batch_};
  }

 private:
  Scratch<T> numbers_;
  std::vector<int64_t> starts_, places_;
  int64_t batch_, row_;
};

template <typename T>
Array<const T> read_only(const Array<T>& a) {
  return {a.data, a.member, a.step, a.row, a.count};
}

// Steps in a block: as many as take 2 MiB, with so many numbers for each row, but at least as many as
// make up for reading and writing matrices of which only a part is in a cache. The order of sums
// depends on it, and so it must not depend on the number of threads.
template <typename T>
int64_t block_size(int64_t time, int64_t rows, int64_t numbers) {
  const int64_t many = std::max<int64_t>(512, (1 << 21) / (numbers * sizeof(T)));
  return std::max<int64_t>(1, std::min(time, many / std::max<int64_t>(1, rows)));
}

// Calls body for one block of so many steps after the other, until it gives false; there is one if
// there are no steps.
template <typename Body>
bool for_blocks(int64_t time, int64_t steps, bool from_the_end, const Body& body) {
  for (int64_t begin = 0; begin == 0 || begin < time; begin += steps) {
    const int64_t end = std::min(time, begin + steps);
    if (!body(Block{begin, end, from_the_end ? time - end : begin})) return false;
  }
  return true;
}

// Rows of [dW; dU], of dx or of x·W in one task.
constexpr int64_t kTask = 96;

int64_t tasks_of(int64_t rows) { return (rows + kTask - 1) / kTask; }

// One of so many tasks of to = from·packed + start, for the steps of a block.
template <typename T>
void multiply(Array<const T> from, Array<const T> start, Array<T> to, const T* packed, int64_t e, const Block& block,
              int64_t task, int64_t tasks) {
  const Walks<T>& walks = jlstm::walks<T>();
  const int64_t rows = (block.end - block.begin) * to.count;
  const int64_t first = task * rows / tasks, last = (task + 1) * rows / tasks;
  const Scratch<T> scratch(walks.scratch_size(last - first, 0));
  walks.multiply(from, start, to, packed, e, block.t, first, last, scratch.data);
}

template <typename T>
bool forward(ffi::ThreadPool& pool, Call& call, Sizes sizes, int64_t batch, bool stepwise) {
  Forward<T> d{};
  const auto w = call.arg<T>(2), u = call.arg<T>(2);
  d.b = call.arg<T>(1);
  d.xs = call.arg<T>(3), d.h = call.arg<T>(2), d.c = call.arg<T>(2);
  d.reset_h = call.arg<T>(2), d.reset_c = call.arg<T>(2);
  d.valid = call.arg<bool>(3), d.keep = call.arg<bool>(3);
  d.last_h = call.ret<T>(2), d.last_c = call.ret<T>(2);
  d.hs = call.ret<T>(3), d.cs = call.ret<T>(3);
  d.i_f = call.ret<T>(3), d.g = call.ret<T>(3), d.o = call.ret<T>(3);
  if (batch == 0) return true;
  const Walks<T>& walks = jlstm::walks<T>();
  const int64_t time = sizes.time, columns = 4 * sizes.hidden;
  const bool before = w && !stepwise && time > 0;
  sizes.inputs = w && !before ? w.count : 0;
  d.sizes = sizes;
  const Array<const T> none;
  return for_all<T>(pool, call, sizes.hidden, batch, before ? none : w, u, 4, before ? w : none,
                    [&](const Shares<T>& shares, int64_t most) {
    if (!before) return walk_parts<T>(pool, d, shares, 0, time + 1, walks.forward);
    const Other<T> packed_w(shares, w);
    if (!packed_w.pack(pool)) return false;
    const auto members = members_of(shares);
    const int64_t steps = block_size<T>(time, most * batch, columns), tasks = tasks_of(steps * batch);
    Room<T> room(call, members, steps * batch * columns, batch, columns);
    return for_blocks(time, steps, sizes.reverse, [&](const Block& block) {
      Forward<T> own = d;
      const Array<T> z = room.of(block);
      own.z = read_only(z);
      return run(pool, members.size() * tasks, 1, [&](int64_t task, int64_t) {
        const auto [e, group] = members[task / tasks];
        multiply<T>(d.xs, d.b, z, packed_w.of(group), e, block, task % tasks, tasks);
      }) && walk_parts<T>(pool, own, shares, block.begin, block.end + (block.end == time), walks.forward);
    });
  });
}

// The cotangents of the weights and of xs from dz of a block.
template <typename T>
bool gradients(ffi::ThreadPool& pool, const Backward<T>& d, const std::vector<Member>& members,
               const Other<T>& packed_w, int64_t batch) {
  const Walks<T>& walks = jlstm::walks<T>();
  const int64_t rows = d.sizes.inputs + d.sizes.hidden, panels = (4 * d.sizes.hidden + walks.panel - 1) / walks.panel;
  const int64_t row_tasks = panels < 4 * pool.num_threads() ? tasks_of(rows) : 1;
  const int64_t step_tasks = d.dxs ? tasks_of((d.block.end - d.block.begin) * batch) : 0;
  const int64_t each = row_tasks * panels + step_tasks;
  return run(pool, members.size() * each, 1, [&](int64_t task, int64_t) {
    const auto [e, group] = members[task / each];
    const int64_t k = task % each, p = k / row_tasks, r = k % row_tasks;
    if (p >= panels) {
      return multiply<T>(read_only(d.dz), {}, d.dxs, packed_w.of(group), e, d.block, k - row_tasks * panels, step_tasks);
    }
    const int64_t first = r * rows / row_tasks, last = (r + 1) * rows / row_tasks;
    const Scratch<T> scratch(walks.weights_size(last - first));
    walks.weights(d, e, batch, p, first, last, scratch.data);
  });
}

template <typename T>
bool backward(ffi::ThreadPool& pool, Call& call, Sizes sizes, int64_t batch) {
  Backward<T> d{};
  const auto w_t = call.arg<T>(2), u_t = call.arg<T>(2);
  d.xs = call.arg<T>(3), d.i_f = call.arg<T>(3), d.g = call.arg<T>(3), d.o = call.arg<T>(3);
  d.hs = call.arg<T>(3), d.cs = call.arg<T>(3), d.h = call.arg<T>(2), d.c = call.arg<T>(2);
  d.reset_h = call.arg<T>(2), d.reset_c = call.arg<T>(2), d.dhs = call.arg<T>(3);
  d.dh = call.arg<T>(2), d.dc = call.arg<T>(2);
  d.reset_dh = call.arg<T>(2), d.reset_dc = call.arg<T>(2);
  d.valid = call.arg<bool>(3), d.keep = call.arg<bool>(3);
  d.out_dh = call.ret<T>(2), d.out_dc = call.ret<T>(2);
  d.out_reset_dh = call.ret<T>(2), d.out_reset_dc = call.ret<T>(2);
  d.dxs = call.ret<T>(3), d.dw = call.ret<T>(2), d.du = call.ret<T>(2), d.db = call.ret<T>(1);
  sizes.inputs = w_t ? w_t.row : 0;
  d.sizes = sizes;
  const auto lines = [](int64_t n) { return (n + kLine<T> - 1) / kLine<T>; };
  const int64_t columns = 4 * sizes.hidden, known_lines = lines(sizes.inputs) + lines(sizes.hidden);
  return for_all<T>(pool, call, sizes.hidden, batch, {}, u_t, 1, w_t, [&](const Shares<T>& shares, int64_t most) {
    const Other<T> packed_w(shares, w_t);
    if (!packed_w.pack(pool)) return false;
    const auto members = members_of(shares);
    const int64_t steps = block_size<T>(sizes.time, most * batch, columns + known_lines * kLine<T>);
    Backward<T> own = d;
    // An odd number of lines: a power of two apart, they would share a few places in the cache.
    own.apart = (steps * batch | 1) * kLine<T>;
    Room<T> dz(call, members, steps * batch * columns, batch, columns);
    Room<T> known(call, members, known_lines * own.apart, batch, kLine<T>);
    return for_blocks(sizes.time, steps, !sizes.reverse, [&](const Block& block) {
      own.block = block, own.dz = dz.of(block), own.known = known.of(block);
      return (batch == 0 || walk_parts<T>(pool, own, shares, block.begin, block.end + 1, jlstm::walks<T>().backward)) &&
             gradients<T>(pool, own, members, packed_w, batch);
    });
  });
}

// Both ways: the first result is [ensemble, batch, hidden], of the dtype of all.
template <auto in_float, auto in_double, size_t operands, size_t results, typename... Choices>
ffi::Error dispatch(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
                    int64_t time, bool reverse, Choices... choices) {
  if (args.size() != operands || rets.size() != results) {
    return ffi::Error::InvalidArgument("jlstm: this call was made by another version");
  }
  const ffi::AnyBuffer first = *rets.get<ffi::AnyBuffer>(0).value();
  const auto dims = first.dimensions();
  const size_t lead = dims.size() - 2;
  try {
    Call call(args, rets, lead);
    const Sizes sizes{time, 0, dims[lead + 1], reverse};
    if (call.members() == 0) return ffi::Error::Success();
    const bool done = (first.element_type() == ffi::F32 ? in_float : in_double)(pool, call, sizes, dims[lead], choices...);
    if (done) return ffi::Error::Success();
  } catch (const std::bad_alloc&) {
  }
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "jlstm: out of memory");
}

#define JLSTM_BINDING                                                                \
  ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attr<int64_t>("time").Attr<bool>( \
      "reverse")

}  // namespace

#pragma GCC visibility push(default)
// The number in a name changes with what a call hands over: an exported program holds the name.
XLA_FFI_DEFINE_HANDLER_SYMBOL(jlstm_forward_1, (dispatch<forward<float>, forward<double>, 10, 7, bool>),
                              JLSTM_BINDING.Attr<bool>("stepwise"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jlstm_backward_1, (dispatch<backward<float>, backward<double>, 19, 8>), JLSTM_BINDING);
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

// For benchmarks: the most multiply-adds that a thread can do.
JLSTM_EXPORT int64_t jlstm_multiply_adds_f32(int64_t count) { return jlstm::level().f32.multiply_adds(count); }
