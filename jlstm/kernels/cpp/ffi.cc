// The walk as XLA calls it: buffers in, buffers out, forward and backward.

#include <algorithm>
#include <new>
#include <vector>

#include "call.h"
#include "level.h"
#include "share.h"
#include "threads.h"

namespace jlstm {
namespace {

// Tasks that so many rows of [dW; dU], of dx or of x·W are: of 96 rows, or fewer, so that each thread has
// one, but at least 8.
int64_t tasks_of(const ffi::ThreadPool& pool, int64_t rows) {
  return std::max((rows + 95) / 96, std::min<int64_t>(pool.num_threads(), rows / 8));
}

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
    const int64_t steps = block_size<T>(time, most * batch, columns), tasks = tasks_of(pool, steps * batch);
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
  const int64_t row_tasks = panels < 4 * pool.num_threads() ? tasks_of(pool, rows) : 1;
  const int64_t step_tasks = d.dxs ? tasks_of(pool, (d.block.end - d.block.begin) * batch) : 0;
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
  const int64_t columns = 4 * sizes.hidden, known_lines = lines<T>(sizes.inputs) + lines<T>(sizes.hidden);
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
XLA_FFI_DEFINE_HANDLER_SYMBOL(jlstm_forward_2, (dispatch<forward<float>, forward<double>, 10, 7, bool>),
                              JLSTM_BINDING.Attr<bool>("stepwise"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jlstm_backward_2, (dispatch<backward<float>, backward<double>, 19, 8>), JLSTM_BINDING);
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
