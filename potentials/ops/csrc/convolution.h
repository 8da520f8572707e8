// The spline convolution, its gradient and the gradient of its gradient.
//
//   out[i, m3] = Σ_edges Σ_paths R_p(r) Σ_m1 t_p[m1, m3] x[j, m1],  t_p[m1, m3] = Σ_m2 CG Y[m2]
//
// for vectors of channels: R_p, x and out have a channel index, t_p has not. Edges are taken in
// chunks of one vector's length: first the couplings t_p and the spline weights of the chunk, with
// one lane an edge; then edge by edge the sums over paths, with one lane a channel. Sums over the
// edges of an atom stay in that atom's row of the result, in the nearest cache, and each row has
// one thread: receivers' sums go over edges as they come, senders' sums over edges sorted by sender.
#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "paths.h"

namespace tesseral {
namespace TESSERAL_ISA {

// One path in a given convolution: its factor, and where its couplings and coefficients stand.
template <class T> struct Path {
  const PathFunctions<T>* run;
  T scale;
  long coupling, table, in, out;
};

// One convolution's paths and sizes.
template <class T> struct Plan {
  static constexpr int W = width<T>;
  const tesseral_convolution& c;
  std::vector<Path<T>> paths;  // by l2, then l1, then l3, as the coefficients are
  long couplings = 0, m_in, m_edge, m_out, channels;

  explicit Plan(const tesseral_convolution& convolution) : c(convolution) {
    m_in = (c.l_in + 1) * (c.l_in + 1);
    m_edge = (c.l_edge + 1) * (c.l_edge + 1);
    m_out = (c.l_out + 1) * (c.l_out + 1);
    channels = c.channels;
    std::vector<int> ways(c.l_out + 1, 0);
    for (int l2 = 0; l2 <= c.l_edge; l2++)
      for (int l1 = 0; l1 <= c.l_in; l1++)
        for (int l3 = std::abs(l1 - l2); l3 <= l1 + l2 && l3 <= c.l_out; l3 += 2) {
          const auto* run = path_functions<T>(l1, l2, l3);
          paths.push_back({run, 0, couplings, long(paths.size()) * channels, l1 * l1 * channels, l3 * l3 * channels});
          couplings += run->pairs * W;
          ways[l3]++;
        }
    for (auto& path : paths) path.scale = T(1 / std::sqrt(double(ways[path.run->l3])));
  }

  long table_row() const { return long(paths.size()) * channels; }
  long table_size() const { return c.intervals * table_row(); }
};

// Scratch of one thread: couplings and splines of a chunk of edges.
template <class T> struct Chunk {
  static constexpr int W = width<T>;
  const Plan<T>& plan;
  Lines<T> harmonics, couplings, by_couplings;
  Splines<T> splines[W];
  const long row = plan.table_row();

  Chunk(const Plan<T>& p, bool second)
      : plan(p), harmonics(p.m_edge * W), couplings(p.couplings), by_couplings(second ? p.couplings : 0) {}

  // `edge[lane]` names the edges; `count` of the lanes are in use, the others become zero.
  void fill(const int64_t* edge, int count, const T* by_harmonics) {
    couple(static_cast<const T*>(plan.c.harmonics), edge, count, couplings.data());
    if (by_harmonics) couple(by_harmonics, edge, count, by_couplings.data());
    for (int lane = 0; lane < count; lane++) spline(plan.c.radii[edge[lane]], splines[lane]);
  }

 private:
  void couple(const T* y, const int64_t* edge, int count, T* t) {
    T* lanes = harmonics.data();
    if (count < W) std::memset(lanes, 0, plan.m_edge * W * sizeof(T));
    for (int lane = 0; lane < count; lane++)
      for (long m = 0; m < plan.m_edge; m++) lanes[m * W + lane] = y[edge[lane] * plan.m_edge + m];
    for (const auto& path : plan.paths)
      path.run->couple(lanes + path.run->l2 * path.run->l2 * W, path.scale, t + path.coupling);
  }

  // The last three of the K + 3 functions are dropped, so that all vanishes smoothly at the cutoff.
  void spline(double radius, Splines<T>& s) const {
    const int last = plan.c.intervals - 1;
    const double per_width = plan.c.intervals / plan.c.cutoff, t = radius * per_width;
    const bool inside = radius < plan.c.cutoff;
    const int left = inside ? int(t) : last;
    const double f = inside ? t - left : 1.0, g = 1.0 - f;
    const double one = inside ? 1.0 / 6 : 0.0, per = one * per_width, per2 = per * per_width;
    const double value[4] = {g * g * g, (3 * f - 6) * f * f + 4, (3 * g - 6) * g * g + 4, f * f * f};
    const double slope[4] = {-3 * g * g, (9 * f - 12) * f, (12 - 9 * g) * g, 3 * f * f};
    const double bend[4] = {6 * g, 18 * f - 12, 18 * g - 12, 6 * f};
    for (int k = 0; k < 4; k++) {
      s.row[k] = std::min(left + k, last) * row;
      s.value[k] = T(value[k] * one);
      s.slope[k] = T(slope[k] * per);
      s.bend[k] = T(bend[k] * per2);
    }
    for (int k = last - left + 1; k < 4; k++) s.value[k] = s.slope[k] = s.bend[k] = 0;
  }
};

// Calls body(chunk, edges, count) for a thread's edges, chunk by chunk; `order` renumbers them.
template <class T, class Body>
void for_chunks(Chunk<T>& chunk, const int64_t* order, int64_t begin, int64_t end, const T* by_harmonics, Body body) {
  int64_t edges[width<T>];
  for (int64_t e = begin; e < end; e += width<T>) {
    const int count = int(std::min<int64_t>(width<T>, end - e));
    for (int lane = 0; lane < count; lane++) edges[lane] = order ? order[e + lane] : e + lane;
    chunk.fill(edges, count, by_harmonics);
    body(edges, count);
  }
}

// Edges grouped by one of their ends: those of atom i are order[first[i]] … order[first[i + 1] - 1].
struct Groups {
  std::vector<int64_t> first, order;

  Groups(const int64_t* ends, int64_t edges, int64_t atoms, bool sorted) : first(atoms + 1, 0) {
    for (int64_t e = 0; e < edges; e++) first[ends[e] + 1]++;
    for (int64_t j = 0; j < atoms; j++) first[j + 1] += first[j];
    if (sorted) return;  // order stays empty: each edge in its place
    order.resize(edges);
    std::vector<int64_t> next(first.begin(), first.end() - 1);
    for (int64_t e = 0; e < edges; e++) order[next[ends[e]]++] = e;
  }

  // The atoms [begin, end) of a thread, such that all threads have about as many edges.
  std::pair<int64_t, int64_t> share(int thread, int threads) const {
    auto start = [&](int t) {
      if (t == 0) return int64_t(0);
      if (t == threads) return int64_t(first.size()) - 1;
      return int64_t(std::lower_bound(first.begin(), first.end() - 1, first.back() * t / threads) - first.begin());
    };
    return {start(thread), start(thread + 1)};
  }
};

// Adds the convolution of edges [begin, end) to rows of receivers, the first of which is at `out`.
template <class T>
void convolve_edges(const Plan<T>& plan, Chunk<T>& chunk, int64_t begin, int64_t end, int64_t first_receiver, T* out) {
  const tesseral_convolution& c = plan.c;
  const long channels = plan.channels, in = plan.m_in * channels, size = plan.m_out * channels;
  const T *x = static_cast<const T*>(c.features), *table = static_cast<const T*>(c.coefficients);
  for_chunks<T>(chunk, nullptr, begin, end, nullptr, [&](const int64_t* edge, int count) {
    for (int lane = 0; lane < count; lane++) {
      const T* own = x + c.senders[edge[lane]] * in;
      T* row = out + (c.receivers[edge[lane]] - first_receiver) * size;
      for (const auto& p : plan.paths)
        p.run->forward(chunk.couplings.data() + p.coupling + lane, chunk.splines[lane], table + p.table, own + p.in,
                       row + p.out, channels);
    }
  });
}

template <class T> void convolve(const tesseral_convolution* convolution, void* out) {
  const Plan<T> plan(*convolution);
  const long size = plan.m_out * plan.channels;
  const Groups receivers(convolution->receivers, convolution->edges, convolution->atoms, true);
  parallel(convolution->threads, [&](int thread, int threads) {
    const auto [begin, end] = receivers.share(thread, threads);
    T* rows = static_cast<T*>(out) + begin * size;
    std::memset(rows, 0, (end - begin) * size * sizeof(T));
    Chunk<T> chunk(plan, false);
    convolve_edges(plan, chunk, receivers.first[begin], receivers.first[end], begin, rows);
  });
}

// Tables of coefficients that each thread sums for itself, and their sum.
template <class T> struct TableSums {
  std::vector<Lines<T>> parts;
  TableSums(const Plan<T>& plan, bool wanted) {
    for (int t = 0; wanted && t < plan.c.threads; t++) {
      parts.emplace_back(plan.table_size());
      std::memset(parts.back().data(), 0, plan.table_size() * sizeof(T));
    }
  }
  T* of(int thread) { return parts.empty() ? nullptr : parts[thread].data(); }
  void add_up(const Plan<T>& plan, T* out) {
    for (long i = 0; !parts.empty() && i < plan.table_size(); i++) {
      T total = 0;
      for (auto& part : parts) total += part.data()[i];
      out[i] = total;
    }
  }
};

// Runs path_body for each path of an edge and, unless they are null, adds the gradients of its
// harmonics and radius.
template <class T, class Body>
TESSERAL_INLINE void collect(const Plan<T>& plan, int64_t edge, T* harmonics, double* radii, Body path_body) {
  if (!harmonics) {
    for (const auto& path : plan.paths) path_body(path, nullptr);
    return;
  }
  EdgeGradient<T> sums;
  sums.radius = Vector<T>{};
  T* row = harmonics + edge * plan.m_edge;
  auto path = plan.paths.begin();
  for (int l2 = 0; l2 <= plan.c.l_edge; l2++) {
    for (int m = 0; m <= 2 * l2; m++) sums.harmonics[m] = Vector<T>{};
    for (; path != plan.paths.end() && path->run->l2 == l2; ++path) path_body(*path, &sums);
    for (int m = 0; m <= 2 * l2; m++) row[l2 * l2 + m] += sum<T>(sums.harmonics[m]);
  }
  radii[edge] += sum<T>(sums.radius);
}

// Adds the gradients of edges order[begin] … order[end - 1], or begin … end - 1 without an order;
// those of features, of harmonics and radii, and of coefficients where they are not null.
template <class T>
void pull_edges(const Plan<T>& plan, Chunk<T>& chunk, const int64_t* order, int64_t begin, int64_t end, const T* grad,
                T* features, T* harmonics, double* radii, T* coefficients) {
  const tesseral_convolution& c = plan.c;
  const long channels = plan.channels, in = plan.m_in * channels, out = plan.m_out * channels;
  const T *x = static_cast<const T*>(c.features), *table = static_cast<const T*>(c.coefficients);
  for_chunks<T>(chunk, order, begin, end, nullptr, [&](const int64_t* edge, int count) {
    for (int lane = 0; lane < count; lane++) {
      const int64_t e = edge[lane], j = c.senders[e], i = c.receivers[e];
      collect<T>(plan, e, harmonics, radii, [&](const Path<T>& p, EdgeGradient<T>* sums) {
        p.run->backward(chunk.couplings.data() + p.coupling + lane, p.scale, chunk.splines[lane], table + p.table,
                        x + j * in + p.in, grad + i * out + p.out, features ? features + j * in + p.in : nullptr,
                        coefficients ? coefficients + p.table : nullptr, sums, channels);
      });
    }
  });
}

template <class T> void clear(const Plan<T>& plan, T* harmonics, double* radii) {
  if (!harmonics) return;
  std::memset(harmonics, 0, plan.c.edges * plan.m_edge * sizeof(T));
  std::memset(radii, 0, plan.c.edges * sizeof(double));
}

template <class T>
void convolve_backward(const tesseral_convolution* convolution, const void* grad, void* features_, void* harmonics_,
                       double* radii, void* coefficients) {
  const Plan<T> plan(*convolution);
  const tesseral_convolution& c = plan.c;
  const long in = plan.m_in * plan.channels;
  T *features = static_cast<T*>(features_), *harmonics = static_cast<T*>(harmonics_);
  TableSums<T> tables(plan, coefficients != nullptr);
  clear(plan, harmonics, radii);
  const Groups senders(c.senders, c.edges, c.atoms, false);
  parallel(c.threads, [&](int thread, int threads) {
    const auto [begin, end] = senders.share(thread, threads);
    std::memset(features + begin * in, 0, (end - begin) * in * sizeof(T));
    Chunk<T> chunk(plan, false);
    pull_edges(plan, chunk, senders.order.data(), senders.first[begin], senders.first[end], static_cast<const T*>(grad), features,
               harmonics, radii, tables.of(thread));
  });
  tables.add_up(plan, static_cast<T*>(coefficients));
}

template <class T>
void convolve_twice(const tesseral_convolution* convolution, const void* grad_, const void* by_features,
                    const void* by_harmonics, const double* by_radii, const void* by_coefficients, void* out_,
                    void* features_, void* harmonics_, double* radii, void* coefficients) {
  const Plan<T> plan(*convolution);
  const tesseral_convolution& c = plan.c;
  const long channels = plan.channels, in = plan.m_in * channels, out = plan.m_out * channels;
  const T *x = static_cast<const T*>(c.features), *table = static_cast<const T*>(c.coefficients);
  const T *grad = static_cast<const T*>(grad_), *by_x = static_cast<const T*>(by_features);
  const T *by_y = static_cast<const T*>(by_harmonics), *by_table_in = static_cast<const T*>(by_coefficients);
  T *result = static_cast<T*>(out_), *features = static_cast<T*>(features_), *harmonics = static_cast<T*>(harmonics_);
  auto path_input = [&](const Path<T>& p, int64_t e) {
    const long sender = c.senders[e] * in + p.in;
    return Twice<T>{x + sender, by_x + sender, table + p.table,
                    by_table_in ? by_table_in + p.table : nullptr, T(by_radii[e])};
  };
  const Groups receivers(c.receivers, c.edges, c.atoms, true), senders(c.senders, c.edges, c.atoms, false);
  TableSums<T> tables(plan, coefficients != nullptr);
  clear(plan, harmonics, radii);
  parallel(c.threads, [&](int thread, int threads) {
    const auto [begin, end] = receivers.share(thread, threads);
    std::memset(result + begin * out, 0, (end - begin) * out * sizeof(T));
    Chunk<T> chunk(plan, true);
    for_chunks<T>(chunk, nullptr, receivers.first[begin], receivers.first[end], by_y,
                  [&](const int64_t* edge, int count) {
      for (int lane = 0; lane < count; lane++)
        for (const auto& p : plan.paths)
          p.run->tangent(chunk.couplings.data() + p.coupling + lane, chunk.by_couplings.data() + p.coupling + lane,
                         chunk.splines[lane], path_input(p, edge[lane]),
                         result + c.receivers[edge[lane]] * out + p.out, channels);
    });
  });
  parallel(c.threads, [&](int thread, int threads) {
    const auto [begin, end] = senders.share(thread, threads);
    std::memset(features + begin * in, 0, (end - begin) * in * sizeof(T));
    Chunk<T> chunk(plan, true);
    T* by_table = tables.of(thread);
    for_chunks<T>(chunk, senders.order.data(), senders.first[begin], senders.first[end], by_y,
                  [&](const int64_t* edge, int count) {
      for (int lane = 0; lane < count; lane++) {
        const int64_t e = edge[lane];
        collect<T>(plan, e, harmonics, radii, [&](const Path<T>& p, EdgeGradient<T>* sums) {
          p.run->twice(chunk.couplings.data() + p.coupling + lane, chunk.by_couplings.data() + p.coupling + lane,
                       p.scale, chunk.splines[lane], path_input(p, e), grad + c.receivers[e] * out + p.out,
                       features + c.senders[e] * in + p.in, by_table ? by_table + p.table : nullptr, sums, channels);
        });
      }
    });
  });
  tables.add_up(plan, static_cast<T*>(coefficients));
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
