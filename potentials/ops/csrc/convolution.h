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
#include <cstring>
#include <vector>

#include "kernels.h"
#include "plan.h"

namespace tesseral {
namespace TESSERAL_ISA {

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
      if (plan.known) recall_splines(plan, plan.known[begin + e], chunk.splines[e]);
      else set_splines(plan, c.radii[begin + e], chunk.splines[e]);
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
      for (const auto& step : plan.steps)
        step.run->twice(chunk, step, in, g, out, rows.of(thread), tables.of(thread));
    });
  });
  rows.add_up();
  tables.add_up();
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
