// What whole potentials share: blocks of atoms, memory, energies from scalars.
#pragma once
#include <cmath>

#include "kernels.h"
#include "nodes.h"

namespace tesseral {
namespace TESSERAL_ISA {

constexpr int64_t atoms_per_block = 16;

inline long components(int l) { return long(l + 1) * (l + 1); }

// Calls body(first atom, number) for blocks of atoms.
template <class Body> void each_block(int64_t begin, int64_t end, Body body) {
  for (int64_t i = begin; i < end; i += atoms_per_block) body(i, std::min(atoms_per_block, end - i));
}

// Pieces of one block of memory, each on its own cache lines.
class Arena {
 public:
  explicit Arena(void* start) : start_(static_cast<char*>(start)) {}
  template <class T> T* take(int64_t n) {
    T* piece = reinterpret_cast<T*>(start_ + used_);
    used_ += (n * int64_t(sizeof(T)) + 63) / 64 * 64;
    return start_ ? piece : nullptr;
  }
  int64_t used() const { return used_; }

 private:
  char* start_;
  int64_t used_ = 0;
};

// Adds to the energies of atoms [i, i + n) what is read from their scalars, the first `channels` of
// rows of length `row`, and gives its gradient by the scalars, which is known as soon as they are.
//
//   features: of atom i and on; readout: (n, channels), the gradient; hidden: (n, channels), scratch.
template <class T>
void read_out(const tesseral_readout& weights, const tesseral_potential& p, const tesseral_graph& g, const T* features,
              long row, long channels, int64_t i, int64_t n, T* hidden, T* readout) {
  const T *direct = static_cast<const T*>(weights.linear), *last = static_cast<const T*>(weights.output);
  const T *shift = static_cast<const T*>(weights.shift);
  const T* scalars[atoms_per_block];
  T *inner[atoms_per_block], *results[atoms_per_block];
  for (int64_t a = 0; a < n; a++)
    scalars[a] = features + a * row, inner[a] = hidden + a * channels, results[a] = readout + a * channels;
  if (weights.hidden)
    times_matrix<T, false>(scalars, inner, n, static_cast<const T*>(weights.hidden), channels, channels);
  for (int64_t a = 0; a < n; a++) {
    const double unit = p.energy_scale[g.species[i + a]];
    const T scale = T(unit);
    Vector<T> energy = {};
    for (long c = 0; c < channels; c += width<T>) {
      energy += load(direct + c) * load(scalars[a] + c);
      store(results[a] + c, scale * load(direct + c));
    }
    for (long c = 0; weights.hidden && c < channels; c += width<T>) {
      const Vector<T> h = load(inner[a] + c) + load(shift + c), gate = sigmoid<T>(h), out = load(last + c);
      energy += out * h * gate;
      store(inner[a] + c, scale * out * gate * (T(1) + h * (T(1) - gate)));
    }
    g.energies[i + a] += unit * (double(sum<T>(energy)) + weights.constant);
  }
  if (weights.hidden)
    times_matrix<T, true>(inner, results, n, static_cast<const T*>(weights.hidden_t), channels, channels);
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
