// A model in TorchScript, layer by layer, so that features can be exchanged between processes.
//
// The gradient is passed explicitly from layer to layer, with autograd inside each layer. Gradients
// of ghosts are added to their owners in between.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/script.h>

#include "engine.h"

namespace tesseral {
namespace {

using torch::Tensor;

// Sum of two gradients, either of which may be missing.
Tensor sum(const Tensor& a, const Tensor& b) { return !a.defined() ? b : b.defined() ? a + b : a; }

// Cuts the autograd graph: returns the same values as new leaves.
Tensor start(const Tensor& values) { return values.detach().requires_grad_(true); }

class TorchScript : public Engine {
 public:
  explicit TorchScript(const std::string& model) : module_(torch::jit::load(model, torch::kCPU)) {
    module_.eval();
    potential_ = module_.attr("potential").toModule();
    layers_ = module_.attr("n_layers").toInt();
  }

  void compute(const tesseral_graph& g) override {
    if (g.threads != at::get_num_threads()) at::set_num_threads(g.threads);
    const auto whole = torch::TensorOptions().dtype(torch::kInt64), real = torch::TensorOptions().dtype(torch::kFloat64);
    const auto integers = [&](const int64_t* data, int64_t size) {
      return torch::from_blob(const_cast<int64_t*>(data), {size}, whole);
    };
    const Tensor species = integers(g.species, g.atoms);
    const Tensor senders = integers(g.senders, g.edges), receivers = integers(g.receivers, g.edges);
    const Tensor vectors = start(torch::from_blob(const_cast<double*>(g.vectors), {g.edges, 3}, real));

    const auto begun = potential_.get_method("begin")({species, vectors, senders, receivers, g.owned}).toTuple()->elements();
    const Tensor harmonics = begun[1].toTensor(), radii = begun[2].toTensor(), base = begun[3].toTensor();
    const Tensor edge_harmonics = start(harmonics), edge_radii = start(radii);
    std::vector<Tensor> in{start(begun[0].toTensor())}, out, energies;
    Tensor total = base.detach();
    for (int64_t k = 0; k < layers_; k++) {
      const auto done = potential_.get_method("layer")({k, in[k], species, edge_harmonics, edge_radii, senders, receivers, g.owned})
                            .toTuple()->elements();
      out.push_back(done[0].toTensor());
      energies.push_back(done[1].toTensor());
      total = total + energies[k].detach();
      if (k + 1 < layers_) in.push_back(with_ghosts(out[k].detach(), g));
    }
    Tensor by_harmonics, by_radii, by_out;
    for (int64_t k = layers_ - 1; k >= 0; k--) {
      std::vector<Tensor> ends{energies[k].sum()}, given{torch::ones({}, real)};
      if (by_out.defined()) ends.push_back(out[k]), given.push_back(by_out);
      const auto slopes = torch::autograd::grad(ends, {edge_harmonics, edge_radii, in[k]}, given, false, false, true);
      by_harmonics = sum(by_harmonics, slopes[0]), by_radii = sum(by_radii, slopes[1]);
      if (k > 0) by_out = to_owners(slopes[2].defined() ? slopes[2] : torch::zeros_like(in[k]), g);
    }
    std::vector<Tensor> ends, given;
    const auto add = [&](const Tensor& end, const Tensor& slope) {
      if (end.requires_grad() && slope.defined()) ends.push_back(end), given.push_back(slope);
    };
    add(base, torch::ones_like(base)), add(harmonics, by_harmonics), add(radii, by_radii);
    Tensor gradient = torch::zeros({g.edges, 3}, real);
    if (g.edges > 0) {
      const Tensor found = torch::autograd::grad(ends, {vectors}, given, false, false, true)[0];
      if (found.defined()) gradient = found.contiguous();
    }
    write(g, total.contiguous().data_ptr<double>(), gradient.data_ptr<double>());
  }

 private:
  torch::jit::Module module_, potential_;
  int64_t layers_ = 0;

  static int64_t row_bytes(const Tensor& rows) { return rows.size(1) * rows.size(2) * rows.element_size(); }

  static Tensor with_ghosts(const Tensor& own, const tesseral_graph& g) {
    Tensor rows = torch::zeros({g.atoms, own.size(1), own.size(2)}, own.options());
    rows.narrow(0, 0, g.owned).copy_(own);
    if (g.exchange) g.exchange->spread(g.exchange->context, rows.data_ptr(), row_bytes(rows));
    return rows.requires_grad_(true);
  }

  static Tensor to_owners(const Tensor& slopes, const tesseral_graph& g) {
    Tensor rows = slopes.contiguous();
    if (g.exchange) g.exchange->gather(g.exchange->context, rows.data_ptr(), row_bytes(rows));
    return rows.narrow(0, 0, g.owned);
  }

  // The gradient of an edge acts on its sender and, with opposite sign, on its receiver.
  static void write(const tesseral_graph& g, const double* energies, const double* gradient) {
    std::copy(energies, energies + g.owned, g.energies);
    std::fill(g.forces, g.forces + 3 * g.atoms, 0.0);
    std::fill(g.virials, g.virials + 9 * g.owned, 0.0);
    for (int64_t e = 0; e < g.edges; e++) {
      const int64_t j = g.senders[e], i = g.receivers[e];
      for (int a = 0; a < 3; a++) {
        g.forces[3 * j + a] += gradient[3 * e + a];
        g.forces[3 * i + a] -= gradient[3 * e + a];
        for (int b = 0; b < 3; b++) g.virials[9 * i + 3 * a + b] -= g.vectors[3 * e + a] * gradient[3 * e + b];
      }
    }
  }
};

}  // namespace
}  // namespace tesseral

extern "C" __attribute__((visibility("default"))) tesseral::Engine* tesseral_torch_open(const char* model, char* message,
                                                                                        int size) {
  try {
    return new tesseral::TorchScript(model);
  } catch (const std::exception& error) {
    std::snprintf(message, size, "%s", error.what());
    return nullptr;
  }
}
