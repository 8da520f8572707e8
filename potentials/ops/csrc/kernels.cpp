// The kernels for one instruction set and one type; compiled once for each, with
// TESSERAL_ISA (a name) and TESSERAL_TYPE (float or double) given on the command line.
#include "convolution.h"
#include "edges.h"
#include "evaluate.h"
#include "nodes.h"

#define TESSERAL_JOIN_(a, b, c) a##b##_##c
#define TESSERAL_JOIN(a, b, c) TESSERAL_JOIN_(a, b, c)

extern "C" const tesseral_kernels TESSERAL_JOIN(tesseral_, TESSERAL_ISA, TESSERAL_TYPE);

using namespace tesseral::TESSERAL_ISA;
typedef TESSERAL_TYPE Real;

const tesseral_kernels TESSERAL_JOIN(tesseral_, TESSERAL_ISA, TESSERAL_TYPE) = {
    convolve<Real>,           convolve_backward<Real>, convolve_twice<Real>,
    harmonics<Real>,          harmonics_backward<Real>, harmonics_twice<Real>,
    degree_linear<Real>,      degree_outer<Real>,      sphere_product<Real>,
    workspace<Real>,          evaluate<Real>,          near_edges,
};
