// As much of XLA's header as ffi.cc uses, on plain arrays: the kernel is tested without JAX.
//
// The pool has real threads, or none that ever comes in time.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

namespace xla::ffi {

enum DataType { F32, F64, PRED };

template <typename T>
class Span {
 public:
  Span() = default;
  Span(T* data, size_t size) : data_(data), size_(size) {}
  T* begin() const { return data_; }
  T* end() const { return data_ + size_; }
  size_t size() const { return size_; }
  T& operator[](size_t k) const { return k < size_ ? data_[k] : (std::abort(), data_[0]); }
  T& back() const { return (*this)[size_ - 1]; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

struct AnyBuffer {
  DataType type;
  void* data;
  size_t bytes;
  Span<const int64_t> dims;
  DataType element_type() const { return type; }
  void* untyped_data() const { return data; }
  size_t size_bytes() const { return bytes; }
  Span<const int64_t> dimensions() const { return dims; }
};

template <typename T>
struct Found {
  T held;
  T value() const { return held; }
};

struct RemainingArgs {
  Span<const AnyBuffer> buffers;
  size_t size() const { return buffers.size(); }
  template <typename Buffer>
  Found<Buffer> get(size_t k) const { return {buffers[k]}; }
};

struct RemainingRets {
  Span<const AnyBuffer> buffers;
  size_t size() const { return buffers.size(); }
  template <typename Buffer>
  Found<const Buffer*> get(size_t k) const { return {&buffers[k]}; }
};

enum class ErrorCode { kOk, kInvalidArgument, kResourceExhausted };

struct Error {
  ErrorCode code = ErrorCode::kOk;
  Error() = default;
  Error(ErrorCode code_, const char*) : code(code_) {}
  static Error Success() { return {}; }
  static Error InvalidArgument(const char* message) { return {ErrorCode::kInvalidArgument, message}; }
};

// What a pool runs its tasks on. A task may run after the call that it belongs to, here at the
// latest when this goes out of scope.
struct Workers {
  enum Kind { kThreads, kAtOnce, kLate };  // in a thread each; inside Schedule; after the call
  Kind kind;
  int64_t count;
  std::vector<std::thread> threads = {};
  std::atomic<size_t> begun{0};
  std::vector<std::function<void()>> late = {};

  void schedule(std::function<void()> task) {
    if (kind == kLate) return late.push_back(std::move(task));
    if (kind == kAtOnce) return task();
    // The thread is there before the caller goes on, so that both take part. No more is promised:
    // what one writes is not thereby seen by the other.
    threads.emplace_back([this, task = std::move(task)] {
      begun.fetch_add(1, std::memory_order_relaxed);
      task();
    });
    while (begun.load(std::memory_order_relaxed) < threads.size()) std::this_thread::yield();
  }

  ~Workers() {
    for (auto& thread : threads) thread.join();
    for (auto& task : late) task();
  }
};

class ThreadPool {
 public:
  explicit ThreadPool(Workers& workers) : workers_(&workers) {}
  int64_t num_threads() const { return workers_->count; }
  void Schedule(std::function<void()> task) { workers_->schedule(std::move(task)); }

 private:
  Workers* workers_;
};

}  // namespace xla::ffi

// The function itself; how XLA finds its arguments is left out.
#define XLA_FFI_DEFINE_HANDLER_SYMBOL(name, function, binding) const auto name = function
