// Interface of the engines that run a model for the pair style: energies, forces and virials of the atoms of one process.
#pragma once
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace tesseral {

// Positions of atoms and their images, from which vectors of edges are computed.
struct Positions {
  const double* all;      // (number, 3) Å; those of the atoms of the graph come first
  int64_t number;
  const int64_t* places;  // (edges) of the senders
  bool new_edges;         // the edges are not those of the last call
};

class Engine {
 public:
  virtual ~Engine() = default;
  // Computes the results of the graph; calls its exchange between layers, if there is one.
  virtual void compute(const tesseral_graph& graph) = 0;
  // Whether the engine keeps edges, also some that are longer than the cutoff, and computes their vectors, which the
  // graph then lacks. It may also lack virials.
  virtual bool keeps_edges() const { return false; }
  virtual void compute_at(const tesseral_graph&, const Positions&) {}
  virtual double bytes() const { return 0; }
  // Whether `compute` sets the uncertainties of the graph.
  virtual bool knows_uncertainty() const { return false; }
};

// The compiled kernels, from the bytes of tesseral_weights.bin (potentials/engine/weights_bytes.py).
std::unique_ptr<Engine> compiled_engine(const std::string& image);

// TorchScript, from tesseral_torch.so next to the plugin; that library is loaded only here.
std::unique_ptr<Engine> torch_engine(const std::string& model);

// What a GPU needs of an exported model: the plan of its launches (potentials/engine/gpu/plan.py), its kernels as
// PTX, and its weights; empty if it was exported without.
struct GpuFiles {
  std::string plan, kernels, weights;
};

// A GPU of this machine: that with the number `place`, counted round.
std::unique_ptr<Engine> gpu_engine(const GpuFiles& files, int place);

// An atom of the probe, with the model's results at export.
struct ProbeAtom {
  int64_t species;
  double position[3], energy, force[3], allowed;
};

// An exported model (deploy/export.py, deploy/contract.py).
struct ModelFile {
  explicit ModelFile(const std::string& path);
  std::vector<std::string> elements;
  double cutoff = 0;  // Å
  int layers = 0;
  bool single = true;  // features are float, not double
  std::vector<ProbeAtom> probe;
  std::string weights;  // for compiled_engine; empty if it cannot run the model
  GpuFiles gpu;
  // Largest deviation of the engine from the probe, relative to the allowed deviation.
  double deviation(Engine& engine) const;
};

}  // namespace tesseral

// Entry point of tesseral_torch.so; on failure it returns null and a message.
extern "C" typedef tesseral::Engine* tesseral_torch_opener(const char* model, char* message, int size);
