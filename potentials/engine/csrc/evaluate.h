// Whole potentials: scratch memory and one step, by architecture.
#pragma once
#include "facet.h"
#include "nequip.h"

namespace tesseral {
namespace TESSERAL_ISA {

template <class T> int64_t workspace(const tesseral_potential* p, int64_t atoms, int64_t edges) {
  Arena arena(nullptr);
  arena.take<double>(p->inner_radii ? edges * 3 : 0);
  if (p->facet) FacetActivations<T>(*p, atoms, edges, arena);
  else NequipActivations<T>(*p, atoms, atoms, edges, arena);
  return arena.used() + 64;
}

template <class T> void evaluate(const tesseral_potential* p, const tesseral_graph* graph, void* memory) {
  const uintptr_t aligned = (reinterpret_cast<uintptr_t>(memory) + 63) / 64 * 64;
  Arena arena(reinterpret_cast<void*>(aligned));
  double* vectors = arena.take<double>(p->inner_radii ? graph->edges * 3 : 0);
  tesseral_graph seen = *graph;
  if (p->inner_radii && see_edges(*p, *graph, vectors)) seen.vectors = vectors;
  const Pairs pairs = {*p, seen, graph->vectors};
  if (p->facet) FacetRun<T>(pairs, arena).run();
  else NequipRun<T>(pairs, arena).run();
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
