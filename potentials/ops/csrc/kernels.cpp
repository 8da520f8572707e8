// The kernels for one instruction set and one type; compiled once for each, with
// TESSERAL_ISA (a name) and TESSERAL_TYPE (float or double) given on the command line.
#include "convolution.h"
#include "edges.h"
#include "facet.h"
#include "nequip.h"
#include "nodes.h"

#define TESSERAL_JOIN_(a, b, c) a##b##_##c
#define TESSERAL_JOIN(a, b, c) TESSERAL_JOIN_(a, b, c)

extern "C" const tesseral_kernels TESSERAL_JOIN(tesseral_, TESSERAL_ISA, TESSERAL_TYPE);

using namespace tesseral::TESSERAL_ISA;
typedef TESSERAL_TYPE Real;

static int64_t workspace(const tesseral_potential* p, int64_t atoms, int64_t edges) {
  Arena arena(nullptr);
  if (p->facet) Kept<Real>(*p, atoms, edges, arena);
  else NequipKept<Real>(*p, atoms, atoms, edges, arena);
  return arena.used() + 64;
}

static void evaluate(const tesseral_potential* p, const tesseral_graph* graph, void* memory) {
  const uintptr_t aligned = (reinterpret_cast<uintptr_t>(memory) + 63) / 64 * 64;
  const Arena arena(reinterpret_cast<void*>(aligned));
  if (p->facet) FacetRun<Real>(*p, *graph, arena).run();
  else NequipRun<Real>(*p, *graph, arena).run();
}

const tesseral_kernels TESSERAL_JOIN(tesseral_, TESSERAL_ISA, TESSERAL_TYPE) = {
    convolve<Real>,           convolve_backward<Real>, convolve_twice<Real>,
    harmonics<Real>,          harmonics_backward<Real>, harmonics_twice<Real>,
    degree_linear<Real>,      degree_outer<Real>,      sphere_product<Real>,
    workspace,                evaluate,                near_edges,
};
