// Search for neighbours by cell lists, as data/csrc/cell_list.cpp does it, in many systems at once, each with
// its own cell. One thread an atom that receives, twice: to count its edges, and to write them.
#pragma once
#include "lanes.h"

namespace tesseral {

TESSERAL_DEVICE int remainder_of(int value, int bins) {
  const int left = value % bins;
  return left < 0 ? left + bins : left;
}

// Wraps atoms into the cells of their systems, in periodic directions.
//
//   system: of each atom; inverses: (systems, 3, 3) 1/Å; periodic: (systems, 3).
TESSERAL_KERNEL wrap_atoms(int atoms, const int* system, const double* inverses, const int* periodic,
                           const double* positions, double* fractions, double* wraps) {
  for (int i = first_thread(); i < atoms; i += number_of_threads()) {
    const double *const inverse = inverses + system[i] * 9ll, *const at = positions + i * 3ll;
    for (int k = 0; k < 3; k++) {
      const double fraction = at[0] * inverse[k] + at[1] * inverse[3 + k] + at[2] * inverse[6 + k];
      const double wrap = periodic[system[i] * 3ll + k] ? floor(fraction) : 0.0;
      fractions[i * 3ll + k] = fraction - wrap, wraps[i * 3ll + k] = wrap;
    }
  }
}

// Cells of systems and their bins.
//
//   box: (systems, 3, 3) Å; axes: (systems, 3, 3), by direction the number of bins, how many on each side
//   are within the cutoff, and whether it is periodic; base: first bin of each system.
struct Grids {
  const int* system;
  const double* box;
  const int* axes;
  const int* base;
};

// Bins of atoms, and positions in the cells; low and scale: (systems, 3), beginning of the bins, and bins in
// one unit of fractions.
TESSERAL_KERNEL bin_atoms(int atoms, const int* system, const double* box, const int* axes, const int* base,
                          const double* low, const double* scale, const double* fractions, double* inside, int* home,
                          int* bin) {
  for (int i = first_thread(); i < atoms; i += number_of_threads()) {
    const long long g = system[i];
    const double *const own = box + g * 9, *const at = fractions + i * 3ll;
    int place = 0;
    for (int k = 0; k < 3; k++) {
      const int bins = axes[g * 9 + k * 3], n = int((at[k] - low[g * 3 + k]) * scale[g * 3 + k]);
      const int kept = n < 0 ? 0 : n < bins ? n : bins - 1;
      home[i * 3ll + k] = kept;
      place = place * bins + kept;
      inside[i * 3ll + k] = at[0] * own[k] + at[1] * own[3 + k] + at[2] * own[6 + k];
    }
    bin[i] = base[g] + place;
  }
}

// Calls f(sender, shifts of the sender) for the edges that an atom receives.
//
//   inside: positions in the cells; home: (atoms, 3) bins; begins: of the atoms of each bin in `sorted`.
template <class F>
TESSERAL_DEVICE void each_neighbor(int i, const Grids& grids, double cutoff, const double* inside, const int* home,
                                   const int* begins, const int* sorted, F&& f) {
  const long long g = grids.system[i];
  const double* const box = grids.box + g * 9;
  const int *const axes = grids.axes + g * 9, *const own = begins + grids.base[g];
  const double x = inside[i * 3ll], y = inside[i * 3ll + 1], z = inside[i * 3ll + 2];
  int from[3], to[3], bins[3];
  for (int k = 0; k < 3; k++) {
    bins[k] = axes[k * 3];
    from[k] = home[i * 3ll + k] - axes[k * 3 + 1], to[k] = home[i * 3ll + k] + axes[k * 3 + 1];
    if (axes[k * 3 + 2]) continue;
    from[k] = from[k] > 0 ? from[k] : 0;
    to[k] = to[k] < bins[k] ? to[k] : bins[k] - 1;
  }
  for (int a = from[0]; a <= to[0]; a++)
    for (int b = from[1]; b <= to[1]; b++)
      for (int c = from[2]; c <= to[2]; c++) {
        const int p = remainder_of(a, bins[0]), q = remainder_of(b, bins[1]), r = remainder_of(c, bins[2]);
        const int s = (a - p) / bins[0], t = (b - q) / bins[1], u = (c - r) / bins[2];
        const int bin = (p * bins[1] + q) * bins[2] + r;
        // The shift is added last, so that an edge and its reverse have exactly opposite vectors.
        const double tx = s * box[0] + t * box[3] + u * box[6], ty = s * box[1] + t * box[4] + u * box[7];
        const double tz = s * box[2] + t * box[5] + u * box[8];
        for (int k = own[bin]; k < own[bin + 1]; k++) {
          const int j = sorted[k];
          const double dx = (inside[j * 3ll] - x) + tx, dy = (inside[j * 3ll + 1] - y) + ty;
          const double dz = (inside[j * 3ll + 2] - z) + tz;
          if (dx * dx + dy * dy + dz * dz >= cutoff * cutoff) continue;
          if (i == j && s == 0 && t == 0 && u == 0) continue;
          f(j, s, t, u);
        }
      }
}

// Threads take the atoms in the order of their bins, so that neighbouring threads read the same bins.
TESSERAL_KERNEL count_neighbors(int atoms, const int* system, const double* box, const int* axes, const int* base,
                                double cutoff, const double* inside, const int* home, const int* begins,
                                const int* sorted, int* counts) {
  const Grids grids = {system, box, axes, base};
  for (int n = first_thread(); n < atoms; n += number_of_threads()) {
    int count = 0;
    const int i = sorted[n];
    each_neighbor(i, grids, cutoff, inside, home, begins, sorted, [&](int, int, int, int) { count++; });
    counts[i] = count;
  }
}

// first: of the edges of each atom; wraps: (atoms, 3) translations that move the atoms into the cell.
TESSERAL_KERNEL write_neighbors(int atoms, const int* system, const double* box, const int* axes, const int* base,
                                double cutoff, const double* inside, const int* home, const int* begins,
                                const int* sorted, const long long* first, const double* wraps, long long* senders,
                                long long* receivers, double* shifts) {
  const Grids grids = {system, box, axes, base};
  for (int n = first_thread(); n < atoms; n += number_of_threads()) {
    const int i = sorted[n];
    long long e = first[i];
    each_neighbor(i, grids, cutoff, inside, home, begins, sorted, [&](int j, int s, int t, int u) {
      senders[e] = j, receivers[e] = i;
      shifts[e * 3] = -s - wraps[i * 3ll] + wraps[j * 3ll];
      shifts[e * 3 + 1] = -t - wraps[i * 3ll + 1] + wraps[j * 3ll + 1];
      shifts[e * 3 + 2] = -u - wraps[i * 3ll + 2] + wraps[j * 3ll + 2];
      e++;
    });
  }
}

}  // namespace tesseral
