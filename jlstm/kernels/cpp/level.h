// The instruction set that is used.
#pragma once

#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <cstdlib>
#include <string>
#include <vector>

#include "walk.h"

namespace jlstm {

extern const Level baseline;
#ifdef __x86_64__
extern const Level avx2, avx512;
#endif

namespace {

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

}  // namespace
}  // namespace jlstm
