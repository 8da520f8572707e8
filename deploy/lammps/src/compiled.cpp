// A model on the compiled kernels. The bytes of potentials/engine/weights_bytes.py are used as its weights in place.
#include <cstring>

#include "engine.h"

namespace tesseral {
namespace {

// Memory aligned to a cache line.
class Block {
 public:
  void resize(size_t size) {
    if (size + 64 <= data_.size()) return;
    data_.clear();  // the old content need not be copied
    data_.resize(size + size / 8 + 64);
  }
  char* start() { return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(data_.data()) + 63) / 64 * 64); }
  size_t size() const { return data_.size(); }

 private:
  std::vector<char> data_;
};

class Compiled : public Engine {
 public:
  explicit Compiled(const std::string& image) {
    int64_t head[5];  // version, size of a number, place of the potential, of the pointers, their number
    if (image.size() < 48 || image.compare(0, 8, "tesseral") != 0) throw std::runtime_error("its weights cannot be read");
    std::memcpy(head, image.data() + 8, sizeof head);
    if (head[0] != TESSERAL_VERSION) throw std::runtime_error("its weights have another version: export it again, or rebuild the plugin");
    weights_.resize(image.size());
    char* start = weights_.start();
    std::memcpy(start, image.data(), image.size());
    const int64_t* pointers = reinterpret_cast<const int64_t*>(start + head[3]);
    for (int64_t n = 0; n < head[4]; n++) {
      char*& pointer = *reinterpret_cast<char**>(start + pointers[n]);
      pointer = start + reinterpret_cast<intptr_t>(pointer);
    }
    potential_ = reinterpret_cast<const tesseral_potential*>(start + head[2]);
    for (int isa = TESSERAL_AVX512; isa >= TESSERAL_BASELINE && !kernels_; isa--)
      kernels_ = head[1] == 4 ? tesseral_kernels_float(isa) : tesseral_kernels_double(isa);
    if (!kernels_) throw std::runtime_error("there are no kernels for this processor");
  }

  void compute(const tesseral_graph& graph) override {
    scratch_.resize(kernels_->workspace(potential_, graph.atoms, graph.edges));
    kernels_->evaluate(potential_, &graph, scratch_.start());
  }

  bool knows_uncertainty() const override { return potential_->uncertainty != nullptr; }

  double bytes() const override { return double(weights_.size() + scratch_.size()); }

 private:
  Block weights_, scratch_;
  const tesseral_potential* potential_ = nullptr;
  const tesseral_kernels* kernels_ = nullptr;
};

}  // namespace

std::unique_ptr<Engine> compiled_engine(const std::string& image) { return std::make_unique<Compiled>(image); }

}  // namespace tesseral
