// Preparation of a convolution: its paths and their positions in rows, the splines of an edge, the
// couplings of some edges.
#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "paths.h"

namespace tesseral {
namespace TESSERAL_ISA {

// The splines of an edge, with the numbers of their rows, which all layers of a potential share.
template <class T> struct EdgeSplines {
  int32_t row[4];
  T value[4], slope[4];
};

// One convolution's paths and sizes.
template <class T> struct Plan {
  static constexpr int W = width<T>;
  const tesseral_convolution& c;
  const EdgeSplines<T>* known;  // (edges), if they have been computed; without `bend`
  std::vector<Path<T>> paths;  // by l2, as the coefficients are
  std::vector<Path<T>> steps;  // blocks of their channels; those that read the same features follow each other
  long couplings = 0, in_row = 0, m_edge, out_row = 0, table_row = 0;  // lengths of rows

  explicit Plan(const tesseral_convolution& convolution, const EdgeSplines<T>* splines = nullptr)
      : c(convolution), known(splines), m_edge((c.l_edge + 1) * (c.l_edge + 1)) {
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

template <class T> TESSERAL_INLINE void recall_splines(const Plan<T>& plan, const EdgeSplines<T>& known, Splines<T>& s) {
  for (int k = 0; k < 4; k++) {
    s.row[k] = known.row[k] * plan.table_row;
    s.value[k] = known.value[k], s.slope[k] = known.slope[k];
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

}  // namespace TESSERAL_ISA
}  // namespace tesseral
