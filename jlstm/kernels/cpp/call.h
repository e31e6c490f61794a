// Memory, and the operands and results of a call, which XLA hands over.
//
// An operand with no numbers in it stands for one that is not there. Leading axes that an operand
// has beyond its own are those of an ensemble (jax.vmap puts them there), each of full size or 1.
#pragma once

#include <sys/mman.h>

#include <new>
#include <vector>

#include "walk.h"
#include "xla/ffi/api/ffi.h"

namespace jlstm {
namespace {

namespace ffi = xla::ffi;

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
// 4 KiB can take as long as the arithmetic. Those that are huge only in part are asked for as well,
// since XLA has one piece of memory for all buffers of a program, some of 1 or 2 MiB each.
void ask_for_huge_pages(void* data, size_t bytes) {
  constexpr uintptr_t kHuge = uintptr_t{1} << 21;
  const auto begin = reinterpret_cast<uintptr_t>(data) & ~(kHuge - 1);
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes + kHuge - 1) & ~(kHuge - 1);
#ifdef MADV_HUGEPAGE
  if (bytes >= kHuge / 2) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
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

}  // namespace
}  // namespace jlstm
