// The spline convolution, its gradient and the gradient of its gradient.
//
//   out[i, m3] = Σ_edges Σ_paths R_p(r) Σ_m1 t_p[m1, m3] x[j, m1],  t_p[m1, m3] = Σ_m2 CG Y[m2]
//
// for vectors of channels: R_p, x and out have a channel index, t_p has not. Edges are taken in
// chunks: first the couplings t_p and the spline weights of the chunk, with one lane an edge; then
// path by path, and one or two vectors of channels after another, the sums over the chunk's edges,
// with one lane a channel. So a receiver's sums stay in registers, and in the nearest cache the part
// of the coefficients and of the features that is in use.
#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "paths.h"

namespace tesseral {
namespace TESSERAL_ISA {

// One convolution's paths and sizes.
template <class T> struct Plan {
  static constexpr int W = width<T>;
  const tesseral_convolution& c;
  std::vector<Path<T>> paths;  // by l2, as the coefficients are
  std::vector<Path<T>> steps;  // blocks of their channels; those that read the same features follow each other
  long couplings = 0, in_row = 0, m_edge, out_row = 0, table_row = 0;  // lengths of rows

  explicit Plan(const tesseral_convolution& convolution) : c(convolution), m_edge((c.l_edge + 1) * (c.l_edge + 1)) {
    if (c.paths)
      for (int p = 0; p < c.n_paths; p++) add(c.paths[3 * p], c.paths[3 * p + 1], c.paths[3 * p + 2]);
    else
      for (int l2 = 0; l2 <= c.l_edge; l2++)
        for (int l1 = 0; l1 <= c.l_in; l1++)
          for (int l3 = std::abs(l1 - l2); l3 <= l1 + l2 && l3 <= c.l_out; l3 += 2) add(l1, l2, l3);
    place();
    for (int l1 = 0; l1 <= c.l_in; l1++)
      for (long channel = 0; channel < channels_in(l1); channel += 2 * W)
        for (Path<T> step : paths) {
          if (step.run->l1 != l1) continue;
          step.table += channel, step.in += channel, step.out += channel;
          step.channels = std::min<long>(2 * W, step.channels - channel);
          steps.push_back(step);
        }
  }

  int splines() const { return c.pieces ? c.splines : c.intervals; }  // rows of coefficients
  long table_size() const { return splines() * table_row; }

 private:
  long channels_in(int l) const { return c.paths ? c.channels_in[l] : c.channels; }

  void add(int l1, int l2, int l3) {
    const auto* run = path_functions<T>(l1, l2, l3);
    paths.push_back({run, 1, couplings, table_row, 0, 0, channels_in(l1), 0, channels_in(l1)});
    couplings += run->pairs * W;
    table_row += channels_in(l1);
  }

  // Where degrees stand in rows; paths to a degree side by side, or, without a list, summed.
  void place() {
    std::vector<long> start(c.l_in + 1), width_of(c.l_out + 1, c.paths ? 0 : c.channels), ways(c.l_out + 1, 0);
    for (int l = 0; l <= c.l_in; l++) start[l] = in_row, in_row += (2 * l + 1) * channels_in(l);
    for (auto& path : paths) {
      const int l3 = path.run->l3;
      path.in = start[path.run->l1];
      if (c.paths) path.out = width_of[l3], width_of[l3] += path.channels;
      ways[l3]++;
    }
    std::vector<long> end(c.l_out + 1);
    for (int l = 0; l <= c.l_out; l++) end[l] = out_row, out_row += (2 * l + 1) * width_of[l];
    for (auto& path : paths) {
      const int l3 = path.run->l3;
      path.out += end[l3], path.out_stride = width_of[l3];
      if (!c.paths) path.scale = T(1 / std::sqrt(double(ways[l3])));
    }
  }
};

template <class T>
Chunk<T>::Chunk(const Plan<T>& plan, bool second)
    : couplings(vectors * plan.couplings),
      by_couplings(second ? vectors * plan.couplings : 0),
      gradient_size((1 + plan.m_edge) * W),
      gradient(capacity * gradient_size) {
  for (int e = 0; e < capacity; e++) lane[e] = (e / W) * plan.couplings + e % W;
}

// The four splines of an edge; beyond the cutoff all is zero.
template <class T> void set_splines(const Plan<T>& plan, double radius, Splines<T>& s) {
  const tesseral_convolution& c = plan.c;
  const int last = c.intervals - 1;
  const double per_width = c.intervals / c.cutoff, t = radius * per_width;
  const bool inside = radius < c.cutoff;
  const int left = inside ? std::min(int(t), last) : last;
  const double f = inside ? t - left : 1.0, g = 1.0 - f;
  const double one = inside ? 1.0 : 0.0, per = one * per_width, per2 = per * per_width;
  double value[4], slope[4], bend[4];
  if (c.pieces)
    for (int k = 0; k < 4; k++) {
      const double* a = c.pieces + (left * 4 + k) * 4;
      value[k] = a[0] + f * (a[1] + f * (a[2] + f * a[3]));
      slope[k] = a[1] + f * (2 * a[2] + f * 3 * a[3]);
      bend[k] = 2 * a[2] + 6 * f * a[3];
    }
  else {
    constexpr double sixth = 1.0 / 6;
    const double v[4] = {g * g * g, (3 * f - 6) * f * f + 4, (3 * g - 6) * g * g + 4, f * f * f};
    const double d[4] = {-3 * g * g, (9 * f - 12) * f, (12 - 9 * g) * g, 3 * f * f};
    const double dd[4] = {6 * g, 18 * f - 12, 18 * g - 12, 6 * f};
    for (int k = 0; k < 4; k++) value[k] = sixth * v[k], slope[k] = sixth * d[k], bend[k] = sixth * dd[k];
  }
  // The last three functions are dropped, so that all vanishes at the cutoff.
  const int first = c.pieces ? int(c.first[left]) : left, end = plan.splines();
  for (int k = 0; k < 4; k++) {
    const bool kept = first + k < end;
    s.row[k] = std::min(first + k, end - 1) * plan.table_row;
    s.value[k] = kept ? T(value[k] * one) : T(0);
    s.slope[k] = kept ? T(slope[k] * per) : T(0);
    s.bend[k] = kept ? T(bend[k] * per2) : T(0);
  }
}

// The couplings of edges begin … begin + count - 1 from harmonics y.
template <class T> void couple(const Plan<T>& plan, const T* y, int64_t begin, int count, T* t) {
  constexpr int W = width<T>;
  T lanes[(TESSERAL_L_MAX + 1) * (TESSERAL_L_MAX + 1) * W];
  for (int first = 0; first < count; first += W, t += plan.couplings) {
    const int n = std::min(W, count - first);
    if (n < W) std::memset(lanes, 0, plan.m_edge * W * sizeof(T));
    for (int lane = 0; lane < n; lane++)
      for (long m = 0; m < plan.m_edge; m++) lanes[m * W + lane] = y[(begin + first + lane) * plan.m_edge + m];
    for (const auto& path : plan.paths)
      path.run->couple(lanes + path.run->l2 * path.run->l2 * W, path.scale, t + path.coupling);
  }
}

// Calls body() for edges begin … end - 1, one chunk after another. Rows of receivers count from the
// first one. If harmonics are given, adds the gradients by them and the radii that the body leaves.
template <class T, class Body>
void for_chunks(const Plan<T>& plan, Chunk<T>& chunk, int64_t begin, int64_t end, int64_t first_receiver, T* harmonics,
                double* radii, Body body) {
  const tesseral_convolution& c = plan.c;
  chunk.wanted = harmonics != nullptr;
  for (; begin < end; begin += chunk.count) {
    chunk.count = int(std::min<int64_t>(chunk.capacity, end - begin));
    for (int e = 0; e < chunk.count; e++) {
      chunk.from[e] = c.senders[begin + e] * plan.in_row;
      chunk.to[e] = (c.receivers[begin + e] - first_receiver) * plan.out_row;
      set_splines(plan, c.radii[begin + e], chunk.splines[e]);
    }
    couple(plan, static_cast<const T*>(c.harmonics), begin, chunk.count, chunk.couplings.data());
    if (harmonics) std::memset(chunk.gradient.data(), 0, chunk.count * chunk.gradient_size * sizeof(T));
    body(begin);
    if (!harmonics) continue;
    for (int e = 0; e < chunk.count; e++) {
      const T* sums = chunk.gradient_of(e);
      radii[begin + e] += sum<T>(load(sums));
      for (long m = 0; m < plan.m_edge; m++)
        harmonics[(begin + e) * plan.m_edge + m] += sum<T>(load(sums + (1 + m) * width<T>));
    }
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
  const T *x = static_cast<const T*>(plan.c.features), *table = static_cast<const T*>(plan.c.coefficients);
  for_chunks<T>(plan, chunk, begin, end, first_receiver, nullptr, nullptr, [&](int64_t) {
    for (const auto& step : plan.steps) step.run->forward(chunk, step, table, x, out);
  });
}

// Adds the gradients of edges [begin, end): those of features, of harmonics and radii, and of
// coefficients, where they are not null. `grad` starts with the row of `first_receiver`. Edges may
// have any order; several threads must not share rows of `features`.
template <class T>
void pull_edges(const Plan<T>& plan, Chunk<T>& chunk, int64_t begin, int64_t end, int64_t first_receiver,
                const T* grad, T* features, T* harmonics, double* radii, T* coefficients) {
  const T *x = static_cast<const T*>(plan.c.features), *table = static_cast<const T*>(plan.c.coefficients);
  for_chunks<T>(plan, chunk, begin, end, first_receiver, harmonics, radii, [&](int64_t) {
    for (const auto& step : plan.steps) step.run->backward(chunk, step, table, x, grad, features, coefficients);
  });
}

template <class T> void convolve(const tesseral_convolution* convolution, void* out) {
  const Plan<T> plan(*convolution);
  const Groups receivers(convolution->receivers, convolution->edges, convolution->owned, true);
  parallel(convolution->threads, [&](int thread, int threads) {
    const auto [begin, end] = receivers.share(thread, threads);
    T* rows = static_cast<T*>(out) + begin * plan.out_row;
    std::memset(rows, 0, (end - begin) * plan.out_row * sizeof(T));
    Chunk<T> chunk(plan, false);
    convolve_edges(plan, chunk, receivers.first[begin], receivers.first[end], begin, rows);
  });
}

// Arrays that each thread sums for itself, and their sum. Nothing if `out` is null.
template <class T> struct ThreadSums {
  T* out;
  const int64_t size;
  std::vector<Lines<T>> parts;  // of all threads but the first

  ThreadSums(T* sum, int64_t n, int threads) : out(sum), size(n) {
    for (int t = 1; out && t < threads; t++) parts.emplace_back(size);
    slices([&](int64_t begin, int64_t end) {
      for (int t = 0; t <= int(parts.size()); t++) std::memset(of(t) + begin, 0, (end - begin) * sizeof(T));
    });
  }
  T* of(int thread) { return !out || thread == 0 ? out : parts[thread - 1].data(); }
  void add_up() {
    slices([&](int64_t begin, int64_t end) {
      for (auto& part : parts)
        for (int64_t i = begin; i < end; i++) out[i] += part.data()[i];
    });
  }

 private:
  template <class Body> void slices(Body body) {
    if (!out) return;
    parallel(int(parts.size()) + 1, [&](int thread, int threads) {
      const auto [begin, end] = share(size, thread, threads);
      body(begin, end);
    });
  }
};

template <class T> void clear(const Plan<T>& plan, T* harmonics, double* radii) {
  if (!harmonics) return;
  std::memset(harmonics, 0, plan.c.edges * plan.m_edge * sizeof(T));
  std::memset(radii, 0, plan.c.edges * sizeof(double));
}

template <class T>
void convolve_backward(const tesseral_convolution* convolution, const void* grad, void* features, void* harmonics_,
                       double* radii, void* coefficients) {
  const Plan<T> plan(*convolution);
  const tesseral_convolution& c = plan.c;
  T* harmonics = static_cast<T*>(harmonics_);
  ThreadSums<T> rows(static_cast<T*>(features), c.atoms * plan.in_row, c.threads);
  ThreadSums<T> tables(static_cast<T*>(coefficients), plan.table_size(), c.threads);
  clear(plan, harmonics, radii);
  parallel(c.threads, [&](int thread, int threads) {
    const auto [begin, end] = share(c.edges, thread, threads);
    Chunk<T> chunk(plan, false);
    pull_edges(plan, chunk, begin, end, 0, static_cast<const T*>(grad), rows.of(thread), harmonics, radii,
               tables.of(thread));
  });
  rows.add_up();
  tables.add_up();
}

template <class T>
void convolve_twice(const tesseral_convolution* convolution, const void* grad, const void* by_features,
                    const void* by_harmonics, const double* by_radii, const void* by_coefficients, void* out_,
                    void* features, void* harmonics_, double* radii, void* coefficients) {
  const Plan<T> plan(*convolution);
  const tesseral_convolution& c = plan.c;
  const Twice<T> in = {static_cast<const T*>(c.features), static_cast<const T*>(by_features),
                       static_cast<const T*>(c.coefficients), static_cast<const T*>(by_coefficients)};
  const T* g = static_cast<const T*>(grad);
  T *out = static_cast<T*>(out_), *harmonics = static_cast<T*>(harmonics_);
  const Groups receivers(c.receivers, c.edges, c.owned, true);
  ThreadSums<T> rows(static_cast<T*>(features), c.atoms * plan.in_row, c.threads);
  ThreadSums<T> tables(static_cast<T*>(coefficients), plan.table_size(), c.threads);
  clear(plan, harmonics, radii);
  parallel(c.threads, [&](int thread, int threads) {
    const auto [begin, end] = receivers.share(thread, threads);
    std::memset(out + begin * plan.out_row, 0, (end - begin) * plan.out_row * sizeof(T));
    Chunk<T> chunk(plan, true);
    for_chunks<T>(plan, chunk, receivers.first[begin], receivers.first[end], 0, harmonics, radii, [&](int64_t first) {
      couple(plan, static_cast<const T*>(by_harmonics), first, chunk.count, chunk.by_couplings.data());
      for (int e = 0; e < chunk.count; e++) chunk.by_radius[e] = T(by_radii[first + e]);
      for (const auto& step : plan.steps) {
        step.run->tangent(chunk, step, in, out);
        step.run->twice(chunk, step, in, g, rows.of(thread), tables.of(thread));
      }
    });
  });
  rows.add_up();
  tables.add_up();
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
