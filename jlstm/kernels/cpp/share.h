// How the work of a call is shared out: members of an ensemble in groups of the same weights, their
// rows or units in parts, their steps in blocks.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "call.h"
#include "level.h"
#include "threads.h"

namespace jlstm {
namespace {

// Units are shared out in whole vectors of each dtype.
constexpr int64_t kUnits = 16;

// Whether threads share out the units of all rows, in so many blocks, and not the rows: they then read
// a part each of a packed matrix, but wait for each other in every step. Measured on two cores with
// 2 MiB of cache each: it pays where a thread would have no row, if a step is at least some 2¹⁵
// multiply-adds, and where the matrix takes half a megabyte and a thread would have but two rows. The
// four megabytes of a hidden size of 512, which are more than a core's cache, pay up to 32 rows for
// each. More threads than blocks would have nothing to do.
bool by_units(int64_t threads, int64_t rows, int64_t blocks, int64_t numbers, int64_t bytes) {
  if (threads == 1) return false;
  if (rows < std::min(threads, blocks)) return rows * numbers >= 1 << 15;
  return blocks >= threads && rows <= threads * (bytes > 1 << 21 ? 32 : bytes > 1 << 19 ? 2 : 0);
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
  each = lines<T>(each) * kLine<T>;  // no line of a cache belongs to two
  const Scratch<T> scratch(many * each);
  return run(pool, many, last - first, [&](int64_t p, int64_t stage) {
    one(p, first + stage, first + stage + 1, scratch.data + p * each);
  });
}

// Calls body(shares, most) for all members, most being the largest number that have the same matrices.
// Members that have the same are one batch, a group; as many groups are packed at a time as there
// are threads, so that memory for packed matrices is bounded. False if memory ran out.
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
    const int64_t blocks = (hidden + kUnits - 1) / kUnits;
    shares.staged = all == 1 && by_units(threads, rows, blocks, packed_size, packed_size * sizeof(T));
    if (shares.staged) {
      const int64_t many = std::min(threads, blocks);
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

}  // namespace
}  // namespace jlstm
