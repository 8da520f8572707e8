// Whole potentials: scratch memory and one step, by architecture.
#pragma once
#include "facet.h"
#include "nequip.h"

namespace tesseral {
namespace TESSERAL_ISA {

template <class T> int64_t workspace(const tesseral_potential* p, int64_t atoms, int64_t edges) {
  Arena arena(nullptr);
  if (p->facet) FacetActivations<T>(*p, atoms, edges, arena);
  else NequipActivations<T>(*p, atoms, atoms, edges, arena);
  return arena.used() + 64;
}

template <class T> void evaluate(const tesseral_potential* p, const tesseral_graph* graph, void* memory) {
  const uintptr_t aligned = (reinterpret_cast<uintptr_t>(memory) + 63) / 64 * 64;
  const Arena arena(reinterpret_cast<void*>(aligned));
  if (p->facet) FacetRun<T>(*p, *graph, arena).run();
  else NequipRun<T>(*p, *graph, arena).run();
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
