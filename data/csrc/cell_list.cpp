// Neighbours of atoms by a cell list, in the order in which the potentials read them.
//
// Atoms are sorted into bins of about half the cutoff. For each atom, the sender, the bins within the
// cutoff are searched for receivers. Senders come in order, so that sorting the edges by receiver, while
// keeping their order, also sorts the senders of each receiver. This is one pass over the edges.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

#define TESSERAL_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Found {
  int32_t receiver;
  int16_t shift[3];
};

struct CellList {
  int64_t atoms = 0;
  std::vector<double> wraps;   // (atoms, 3): lattice translations that move the atoms into the cell
  std::vector<int64_t> ends;   // (atoms): end of the edges of each sender
  std::vector<Found> edges;
};

// One direction of the box: its bins, and how many of them on each side are within the cutoff.
struct Axis {
  bool periodic;
  int64_t bins, reach;
  double low, extent;  // range of the fractional coordinates
};

int64_t remainder(int64_t value, int64_t bins) {
  const int64_t left = value % bins;
  return left < 0 ? left + bins : left;
}

class Search {
 public:
  // Arguments are those of tesseral_cell_list.
  Search(const double* positions, int64_t atoms, const double* box, const double* inverse, const uint8_t* periodic,
         double cutoff, CellList& list)
      : atoms_(atoms), box_(box), cutoff_(cutoff), list_(list) {
    list.atoms = atoms;
    list.wraps.assign(atoms * 3, 0.0);
    list.ends.resize(atoms);
    std::vector<double> fractions(atoms * 3);
    wrap(positions, inverse, periodic, fractions);
    choose_bins(inverse, periodic, fractions);
    sort_into_bins(fractions);
  }

  void run() {
    const double most = cutoff_ * cutoff_;
    list_.edges.reserve(atoms_ * 32);
    int64_t fullest = 0;
    for (size_t b = 0; b + 1 < first_.size(); b++) fullest = std::max(fullest, first_[b + 1] - first_[b]);
    std::vector<int32_t> near(fullest);
    for (int64_t j = 0; j < atoms_; j++) {
      const double x = inside_[j * 3], y = inside_[j * 3 + 1], z = inside_[j * 3 + 2];
      int64_t range[3][2];
      for (int k = 0; k < 3; k++) {
        range[k][0] = home_[j * 3 + k] - axis_[k].reach, range[k][1] = home_[j * 3 + k] + axis_[k].reach;
        if (!axis_[k].periodic) {
          range[k][0] = std::max<int64_t>(range[k][0], 0);
          range[k][1] = std::min(range[k][1], axis_[k].bins - 1);
        }
      }
      for (int64_t a = range[0][0]; a <= range[0][1]; a++) {
        const int64_t row = remainder(a, axis_[0].bins) * axis_[1].bins;
        const int64_t s = floor_divide(a, axis_[0].bins);
        for (int64_t b = range[1][0]; b <= range[1][1]; b++) {
          const int64_t column = (row + remainder(b, axis_[1].bins)) * axis_[2].bins;
          const int64_t t = floor_divide(b, axis_[1].bins);
          // Bins of one row without a boundary between them are contiguous.
          for (int64_t c = range[2][0]; c <= range[2][1];) {
            const int64_t u = floor_divide(c, axis_[2].bins), from = c - u * axis_[2].bins;
            const int64_t to = std::min(axis_[2].bins - 1, range[2][1] - u * axis_[2].bins);
            c += to - from + 1;
            const int64_t begin = first_[column + from], end = first_[column + to + 1];
            if (begin == end) continue;
            if (int64_t(near.size()) < end - begin) near.resize(end - begin);
            // The shift is added last, so that an edge and its reverse have exactly opposite vectors.
            const double tx = s * box_[0] + t * box_[3] + u * box_[6];
            const double ty = s * box_[1] + t * box_[4] + u * box_[7];
            const double tz = s * box_[2] + t * box_[5] + u * box_[8];
            int64_t count = 0;
            for (int64_t k = begin; k < end; k++) {
              const double dx = (x_[k] - x) + tx, dy = (y_[k] - y) + ty, dz = (z_[k] - z) + tz;
              near[count] = int32_t(k);
              count += dx * dx + dy * dy + dz * dz < most;
            }
            for (int64_t n = 0; n < count; n++) {
              const int32_t i = sorted_[near[n]];
              if (i == j && s == 0 && t == 0 && u == 0) continue;
              list_.edges.push_back({i, {int16_t(s), int16_t(t), int16_t(u)}});
            }
          }
        }
      }
      list_.ends[j] = int64_t(list_.edges.size());
    }
  }

 private:
  static int64_t floor_divide(int64_t value, int64_t bins) { return (value - remainder(value, bins)) / bins; }

  // Fractional coordinates of the atoms in the cell; in other than periodic directions as they are.
  void wrap(const double* positions, const double* inverse, const uint8_t* periodic, std::vector<double>& fractions) {
    inside_.resize(atoms_ * 3);
    for (int64_t i = 0; i < atoms_; i++) {
      const double* r = positions + i * 3;
      for (int k = 0; k < 3; k++) {
        const double f = r[0] * inverse[k] + r[1] * inverse[3 + k] + r[2] * inverse[6 + k];
        list_.wraps[i * 3 + k] = periodic[k] ? std::floor(f) : 0.0;
        fractions[i * 3 + k] = f - list_.wraps[i * 3 + k];
      }
      for (int a = 0; a < 3; a++)
        inside_[i * 3 + a] = fractions[i * 3] * box_[a] + fractions[i * 3 + 1] * box_[3 + a] +
                             fractions[i * 3 + 2] * box_[6 + a];
    }
  }

  void choose_bins(const double* inverse, const uint8_t* periodic, const std::vector<double>& fractions) {
    double heights[3];
    for (int k = 0; k < 3; k++) {
      // Columns of the inverse are normal to the faces, and as long as 1 / (distance of the faces).
      const double a = inverse[k], b = inverse[3 + k], c = inverse[6 + k];
      double low = 0, high = 1;
      if (!periodic[k]) {
        low = INFINITY, high = -INFINITY;
        for (int64_t i = 0; i < atoms_; i++) {
          low = std::min(low, fractions[i * 3 + k]);
          high = std::max(high, fractions[i * 3 + k]);
        }
      }
      heights[k] = (high - low) / std::sqrt(a * a + b * b + c * c);
      axis_[k] = {bool(periodic[k]), 1, 0, low, high - low};
    }
    // Half the cutoff, or more where that would be far more bins than atoms.
    const double limit = 4.0 * atoms_ + 64;
    for (double width = 0.5 * cutoff_;; width *= 1.3) {
      double total = 1;
      for (int k = 0; k < 3; k++) total *= std::max(1.0, std::floor(heights[k] / width));
      if (total > limit) continue;
      for (int k = 0; k < 3; k++) {
        axis_[k].bins = int64_t(std::max(1.0, std::floor(heights[k] / width)));
        const double size = heights[k] / axis_[k].bins;
        // A little more, because a coordinate may be rounded into the next bin.
        axis_[k].reach = size > 0 ? int64_t(std::ceil(cutoff_ * (1 + 1e-9) / size)) : 0;
        if (!periodic[k]) axis_[k].reach = std::min(axis_[k].reach, axis_[k].bins);
      }
      return;
    }
  }

  void sort_into_bins(const std::vector<double>& fractions) {
    const int64_t total = axis_[0].bins * axis_[1].bins * axis_[2].bins;
    std::vector<int64_t> bin(atoms_);
    home_.resize(atoms_ * 3), sorted_.resize(atoms_), first_.assign(total + 1, 0);
    for (int64_t i = 0; i < atoms_; i++) {
      for (int k = 0; k < 3; k++) {
        const Axis& axis = axis_[k];
        const double place = axis.extent > 0 ? (fractions[i * 3 + k] - axis.low) / axis.extent * axis.bins : 0.0;
        home_[i * 3 + k] = std::clamp<int64_t>(int64_t(place), 0, axis.bins - 1);
      }
      bin[i] = (home_[i * 3] * axis_[1].bins + home_[i * 3 + 1]) * axis_[2].bins + home_[i * 3 + 2];
      first_[bin[i] + 1]++;
    }
    for (int64_t b = 0; b < total; b++) first_[b + 1] += first_[b];
    std::vector<int64_t> next(first_.begin(), first_.end() - 1);
    x_.resize(atoms_), y_.resize(atoms_), z_.resize(atoms_);
    for (int64_t i = 0; i < atoms_; i++) {
      const int64_t k = next[bin[i]]++;
      sorted_[k] = int32_t(i);
      x_[k] = inside_[i * 3], y_[k] = inside_[i * 3 + 1], z_[k] = inside_[i * 3 + 2];
    }
  }

  const int64_t atoms_;
  const double* box_;
  const double cutoff_;
  CellList& list_;
  Axis axis_[3];
  std::vector<double> inside_, x_, y_, z_;  // positions in the cell: by atom; by bin
  std::vector<int64_t> home_, first_;       // (atoms, 3) bins of the atoms; first atom of each bin
  std::vector<int32_t> sorted_;             // (atoms) by bin
};

}  // namespace

// Finds all edges. Returns their number, or -1 if there is no memory for them; then nothing is kept.
//
//   positions: (atoms, 3) Å; box: (3, 3) Å, rows are vectors; inverse: of the box; periodic: (3,);
//   kept: receives the list, which tesseral_cell_list_take frees.
TESSERAL_EXPORT int64_t tesseral_cell_list(const double* positions, int64_t atoms, const double* box,
                                           const double* inverse, const uint8_t* periodic, double cutoff,
                                           void** kept) {
  *kept = nullptr;
  CellList* list = nullptr;
  try {
    list = new CellList;
    Search(positions, atoms, box, inverse, periodic, cutoff, *list).run();
  } catch (const std::bad_alloc&) {
    delete list;
    return -1;
  }
  *kept = list;
  return int64_t(list->edges.size());
}

// Writes the edges, sorted by receiver, then by sender, and frees the list.
//
//   senders, receivers: (edges); shifts: (edges, 3); next: (atoms), scratch.
TESSERAL_EXPORT void tesseral_cell_list_take(void* kept, int64_t* senders, int64_t* receivers, double* shifts,
                                             int64_t* next) {
  CellList* list = static_cast<CellList*>(kept);
  std::fill(next, next + list->atoms, 0);
  for (const Found& edge : list->edges) next[edge.receiver]++;
  int64_t before = 0;
  for (int64_t i = 0; i < list->atoms; i++) {
    const int64_t own = next[i];
    next[i] = before;
    before += own;
  }
  int64_t e = 0;
  for (int64_t j = 0; j < list->atoms; j++)
    for (; e < list->ends[j]; e++) {
      const Found& edge = list->edges[e];
      const int64_t place = next[edge.receiver]++;
      senders[place] = j;
      receivers[place] = edge.receiver;
      for (int k = 0; k < 3; k++)
        shifts[place * 3 + k] = edge.shift[k] - list->wraps[int64_t(edge.receiver) * 3 + k] + list->wraps[j * 3 + k];
    }
  delete list;
}
