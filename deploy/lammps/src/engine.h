// What runs a model for the pair style: energies, forces and virials of the atoms of one process.
#pragma once
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace tesseral {

class Engine {
 public:
  virtual ~Engine() = default;
  // Fills the results of the graph; calls its exchange between layers, if there is one.
  virtual void compute(const tesseral_graph& graph) = 0;
  virtual double bytes() const { return 0; }
};

// The compiled kernels, from the bytes of tesseral_weights.bin (potentials/engine/weights_bytes.py).
std::unique_ptr<Engine> compiled_engine(const std::string& image);

// TorchScript, from tesseral_torch.so beside the plugin; that library is loaded only here.
std::unique_ptr<Engine> torch_engine(const std::string& model);

// An atom of the probe, with what the model said when it was exported.
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
  std::string weights;  // for compiled_engine; empty where it cannot run the model
  // Largest deviation of the engine from the probe, in units of what is allowed.
  double deviation(Engine& engine) const;
};

}  // namespace tesseral

// What tesseral_torch.so offers; on failure null and a message.
extern "C" typedef tesseral::Engine* tesseral_torch_opener(const char* model, char* message, int size);
