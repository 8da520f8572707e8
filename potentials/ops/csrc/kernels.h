// The C interface of the fused kernels: one struct of function pointers for each instruction set.
// No PyTorch, no Python; arrays are contiguous, in the layouts of docs/understand/kernels.md.
#pragma once
#include <stdint.h>

#define TESSERAL_VERSION 7  // of the structs below; potentials/ops/compiled.py has the same number

#ifdef __cplusplus
extern "C" {
#endif

// A convolution's inputs. T is float or double, as the kernel says. Numbers of channels fill whole
// cache lines of 64 bytes. Without a list of paths, all paths of natural parity are used, sorted
// by l2, l1, l3; their sum to degree l3 is divided by the square root of their number. With a list,
// paths are kept separate: rows of atoms contain the degrees in order, (2 l + 1, C_l), and in rows of
// the result C_l3 is the sum of C_l1 over the paths to l3, next to each other in the order of the list.
typedef struct {
  const void* features;      // T (atoms, (l_in + 1)^2, channels), or (atoms, sum of (2 l + 1) C_l)
  const void* harmonics;     // T (edges, (l_edge + 1)^2)
  const double* radii;       // (edges) in Å
  const void* coefficients;  // T (splines, paths, channels), or (splines, sum of C_l1 over paths)
  const int64_t* senders;    // (edges)
  const int64_t* receivers;  // (edges), sorted, below `owned`
  int64_t atoms, edges;
  int32_t l_in, l_edge, l_out, channels, intervals, threads;  // `channels` without a list only
  double cutoff;               // Å
  int64_t owned;               // number of receiving atoms, which are the first ones
  const int32_t* paths;        // (n_paths, 3): l1, l2, l3; or null
  const int32_t* channels_in;  // (l_in + 1): C_l; or null
  int32_t n_paths;
  // The four nonzero splines of an interval as polynomials of the position in it, 0 to 1, and the row
  // of coefficients of the first (spline_pieces in potentials/blocks/radial.py). If null: uniform cubic
  // B-splines, as many as intervals.
  int32_t splines;         // rows of coefficients, with `pieces` only
  const double* pieces;    // (intervals, 4, 4): interval, spline, power
  const int64_t* first;    // (intervals)
} tesseral_convolution;

// Weights of a potential. All are T unless said otherwise, contiguous, with channel numbers padded by
// zeros to a multiple of the vector width; `_t` are transposed matrices for the backward pass.

// An energy from the scalars of one layer: a linear map, and a network of one hidden layer unless
// `hidden` is null.
typedef struct {
  const void *linear, *output, *shift;  // (channels)
  const void *hidden, *hidden_t;        // (channels, channels)
  double constant;
  const void *by_scalars, *by_hidden;   // (channels, rank): factors of the distances, or null
} tesseral_readout;

typedef struct {
  const void *enter, *second;      // (l_in + 1, channels, grid_channels)
  const void *enter_t, *second_t;
  const void *leave, *leave_t;     // (l_out + 1, grid_channels, channels)
  const void* bias;                // (species, grid_channels)
  int32_t l_in, l_out;
} tesseral_facet_mixing;

typedef struct {
  // (intervals + 4, sum over l3, l1 of min(l1, l3) + 1, channels): radial functions in the frames of
  // edges for each l3, l1 and |m|, see aligned.h; the last four rows are zero
  const void* coefficients;
  const void *message, *message_t;     // (l_max + 1, channels, channels)
  const void *skip, *skip_t;           // (l_in + 1, channels, channels)
  const tesseral_readout* readout;
  const tesseral_facet_mixing* mixing;
  int32_t mixings, l_in;
} tesseral_facet_layer;

// Layers as in potentials/architectures/facet.py.
typedef struct {
  const tesseral_facet_layer* layer;
  const void* embedding;  // (species, channels)
  int32_t l_max, channels, grid_channels;
} tesseral_facet;

// Matrices for flat rows are concatenated by degree, (C_l, C'_l).
typedef struct {
  const void* coefficients;               // (splines, sum of C_l1 over paths)
  const int32_t* paths;                   // (n_paths, 3): l1, l2, l3
  const int32_t *channels_in, *channels_message, *channels_field;  // by degree
  const void *enter, *enter_t, *keep, *keep_t;  // null in the first layer
  const void *leave, *leave_t;
  const void *enter_bias, *leave_bias;  // for scalars, or null
  const void* norm;                     // (sum of channels_field): factors of the field's norm, or null
  const tesseral_readout* readout;      // or null
  int32_t n_paths, l_in, l_out;
  int32_t keep_species;  // 1 if `keep` has one set of matrices per element, concatenated
} tesseral_nequip_layer;

// Layers as in potentials/architectures/nequip.py.
typedef struct {
  const tesseral_nequip_layer* layer;
  const void* first_sent;   // (species, C_0): features sent by atoms in the first layer
  const void* first_field;  // (species, scalars of the field): their self-connection in it
  const double* pieces;     // of the convolutions, like `first` and `splines`
  const int64_t* first;
  int32_t splines, silu_gates;
} tesseral_nequip;

// Expected force errors from distances of features (potentials/blocks/uncertainty.py).
typedef struct {
  const void* center;  // (species, landmarks, rank)
  double forces, exponent, reach;
  int32_t rank;       // padded
  int32_t landmarks;  // of each element
} tesseral_uncertainty;

// The parts shared by all potentials, and the layers of one architecture; the other is null.
typedef struct {
  const tesseral_facet* facet;
  const tesseral_nequip* nequip;
  const double* reference_energies;  // (species) eV
  const double* energy_scale;        // (species) eV
  const double* binding_energies;    // (species) eV, or null
  // Of pairs of elements, (species, species), or null: Z Z' e² in eV Å and the inverse screening
  // length in 1/Å of the nuclear repulsion; the sum of the covalent radii in Å, where it is switched
  // off (potentials/blocks/zbl.py); the inner radii in Å (potentials/blocks/short_range.py).
  const double *zbl_charge, *zbl_screening, *zbl_reach, *inner_radii;
  int32_t layers, l_edge, intervals, species;
  double cutoff;  // Å
  const tesseral_uncertainty* uncertainty;  // or null
} tesseral_potential;

// Communication if other processes own a part of the atoms: exchange of the rows of ghosts.
// Called once for each layer except the first, also by processes without atoms.
typedef struct {
  // Set the rows of the ghosts, [owned, atoms) of `rows`, to those of their owners.
  void (*spread)(void* context, void* rows, int64_t row_bytes);
  // Add the rows of the ghosts to those of their owners; rows hold float or double.
  void (*gather)(void* context, void* rows, int64_t row_bytes);
  void* context;
} tesseral_exchange;

// Atoms and edges, and the place for the results. Atoms [0, owned) have an energy and receive
// edges; the others, ghosts, only send.
typedef struct {
  const int64_t* species;    // (atoms)
  const double* vectors;     // (edges, 3) Å, sender to receiver
  const int64_t* senders;    // (edges)
  const int64_t* receivers;  // (edges), sorted
  int64_t atoms, edges;
  int32_t threads;
  double* energies;  // (owned) eV
  double* forces;    // (atoms, 3) eV/Å
  double* virials;   // (owned, 3, 3) eV, of the edges that an atom receives
  int64_t owned;
  const tesseral_exchange* exchange;  // null where all atoms are owned
  double* uncertainties;  // (owned) eV/Å, or null; set if the potential knows them
} tesseral_graph;

// Kernels for one instruction set and one T. Outputs need not be set before.
typedef struct {
  // out: T (owned, (l_out + 1)^2, channels), or (owned, sum of (2 l3 + 1) C_l3)
  void (*convolve)(const tesseral_convolution*, void* out);
  // From the gradient of `out` those of features, of harmonics and radii (double) unless both are
  // null, and of coefficients unless null.
  void (*convolve_backward)(const tesseral_convolution*, const void* grad, void* features,
                            void* harmonics, double* radii, void* coefficients);
  // From the gradients of the outputs of convolve_backward those of its inputs: of `grad` and the
  // four of the convolution. `by_coefficients` may be null, and so may results as above.
  void (*convolve_twice)(const tesseral_convolution*, const void* grad, const void* by_features,
                         const void* by_harmonics, const double* by_radii,
                         const void* by_coefficients, void* out, void* features, void* harmonics,
                         double* radii, void* coefficients);
  // (edges, 3) to harmonics T (edges, (l_max + 1)^2) and radii.
  void (*harmonics)(const double* vectors, int64_t edges, int32_t l_max, int32_t threads,
                    void* harmonics, double* radii);
  void (*harmonics_backward)(const double* vectors, int64_t edges, int32_t l_max, int32_t threads,
                             const void* harmonics, const double* radii, double* out);
  // From the gradient `by_vectors` of the output of harmonics_backward those of its inputs.
  void (*harmonics_twice)(const double* vectors, int64_t edges, int32_t l_max, int32_t threads,
                          const void* harmonics, const double* radii, const double* by_vectors,
                          void* out_harmonics, double* out_radii, double* out_vectors);
  // x (atoms, (l_max + 1)^2, c_in) times weight (l_max + 1, c_in, c_out); c_out padded.
  void (*degree_linear)(const void* x, const void* weight, int64_t atoms, int32_t l_max,
                        int32_t c_in, int32_t c_out, int32_t threads, void* out);
  // x (atoms, M, c_in) and g (atoms, M, c_out) to (l_max + 1, c_in, c_out); c_out padded.
  void (*degree_outer)(const void* x, const void* g, int64_t atoms, int32_t l_max, int32_t c_in,
                       int32_t c_out, int32_t threads, void* out);
  // a (atoms, (l_a + 1)^2, channels) times b (atoms, (l_b + 1)^2, channels), as functions on the
  // sphere, to degree l_out; channels padded.
  void (*sphere_product)(const void* a, const void* b, int64_t atoms, int32_t l_a, int32_t l_b,
                         int32_t l_out, int32_t channels, int32_t threads, void* out);
  // Bytes of scratch memory that `evaluate` needs.
  int64_t (*workspace)(const tesseral_potential*, int64_t atoms, int64_t edges);
  void (*evaluate)(const tesseral_potential*, const tesseral_graph*, void* workspace);
  // Vectors of the edges that are shorter than the cutoff, and those edges, in order. Shifts are
  // whole translations of the receiver by the rows of its structure's cell. Returns their number
  // and, in `closest`, the index of the shortest edge of all (-1 if there is none).
  int64_t (*near_edges)(const double* positions, const double* cells, const int64_t* structure,
                        const int64_t* senders, const int64_t* receivers, const double* shifts,
                        int64_t edges, double cutoff, int64_t* near_senders,
                        int64_t* near_receivers, double* vectors, int64_t* closest);
} tesseral_kernels;

// Instruction sets from the least to the most; the table is null where the library or the
// processor lacks one.
enum { TESSERAL_BASELINE = 0, TESSERAL_AVX2 = 1, TESSERAL_AVX512 = 2 };
int tesseral_version(void);
const tesseral_kernels* tesseral_kernels_float(int isa);
const tesseral_kernels* tesseral_kernels_double(int isa);

#ifdef __cplusplus
}
#endif
