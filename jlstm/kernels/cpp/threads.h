// Tasks for XLA's own threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace jlstm {
namespace {

namespace ffi = xla::ffi;

// Tells the processor that this thread waits, so that another one on the same core gets on.
void pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
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
      for (int64_t spin = 1; done.load(std::memory_order_acquire) < tasks; ++spin) {
        pause();
        if (spin % 256 != 0) continue;
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

}  // namespace
}  // namespace jlstm
