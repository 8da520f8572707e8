// Reads an exported model without PyTorch: a zip archive whose relevant members are not compressed.
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#include "engine.h"

namespace tesseral {
namespace {

template <class T> T number(const std::string& bytes, size_t at) {
  T value;
  if (at + sizeof(T) > bytes.size()) throw std::runtime_error("it is truncated");
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

// Content of the member whose name ends with `name`; empty if there is none. Layout: PKWARE's
// APPNOTE.TXT, 4.3; little-endian, like every machine that LAMMPS plugins run on.
std::string member(const std::string& archive, const std::string& name) {
  size_t end = archive.rfind("PK\5\6");
  if (archive.compare(0, 4, "PK\3\4") != 0 || end == std::string::npos)
    throw std::runtime_error("it is not a TorchScript archive, or it is truncated");
  const int members = number<uint16_t>(archive, end + 10);
  size_t at = number<uint32_t>(archive, end + 16);
  for (int n = 0; n < members; n++) {
    const auto packing = number<uint16_t>(archive, at + 10), length = number<uint16_t>(archive, at + 28);
    const auto size = number<uint32_t>(archive, at + 24), local = number<uint32_t>(archive, at + 42);
    const std::string own = archive.substr(at + 46, length);
    if (own.size() >= name.size() && own.compare(own.size() - name.size(), name.size(), name) == 0) {
      const size_t start = size_t(local) + 30 + number<uint16_t>(archive, local + 26) + number<uint16_t>(archive, local + 28);
      if (packing != 0 || start + size > archive.size()) throw std::runtime_error(name + " in it cannot be read");
      return archive.substr(start, size);
    }
    at += 46 + length + number<uint16_t>(archive, at + 30) + number<uint16_t>(archive, at + 32);
  }
  return "";
}

// Reads "key value" or throws.
template <class T> T entry(std::istream& lines, const std::string& key) {
  std::string found;
  T value;
  if (!(lines >> found) || found != key || !(lines >> value)) throw std::runtime_error("its contract has no " + key);
  return value;
}

}  // namespace

ModelFile::ModelFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("it cannot be opened");
  const std::string archive((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const std::string contract = member(archive, "/extra/tesseral_contract.txt");
  if (contract.empty()) throw std::runtime_error("it has no contract: create it with train-potential export");
  std::istringstream lines(contract);
  if (entry<int>(lines, "tesseral") != 1) throw std::runtime_error("its format is newer than this plugin: update tesseral and rebuild the plugin");
  std::string line, element;
  std::getline(lines, line);
  std::getline(lines, line);
  std::istringstream names(line);
  names >> element;  // the key
  while (names >> element) elements.push_back(element);
  cutoff = entry<double>(lines, "cutoff");
  layers = entry<int>(lines, "layers");
  single = entry<std::string>(lines, "dtype") == "float32";
  probe.resize(entry<int>(lines, "atoms"));
  for (ProbeAtom& a : probe) {
    lines >> a.species >> a.position[0] >> a.position[1] >> a.position[2] >> a.energy;
    lines >> a.force[0] >> a.force[1] >> a.force[2] >> a.allowed;
  }
  if (!lines || elements.empty()) throw std::runtime_error("its contract is truncated");
  weights = member(archive, "/extra/tesseral_weights.bin");
  gpu.plan = member(archive, "/extra/tesseral_gpu.txt");
  gpu.kernels = member(archive, "/extra/tesseral_gpu.ptx");
  gpu.weights = member(archive, "/extra/tesseral_gpu.bin");
}

double ModelFile::deviation(Engine& engine) const {
  const size_t n = probe.size();
  std::vector<int64_t> species, senders, receivers;
  std::vector<double> vectors, energies(n), forces(3 * n), virials(9 * n);
  for (size_t i = 0; i < n; i++) {
    species.push_back(probe[i].species);
    for (size_t j = 0; j < n; j++) {
      double v[3], squared = 0;
      for (int a = 0; a < 3; a++) v[a] = probe[i].position[a] - probe[j].position[a], squared += v[a] * v[a];
      if (i == j || squared >= cutoff * cutoff) continue;
      senders.push_back(j), receivers.push_back(i);
      vectors.insert(vectors.end(), v, v + 3);
    }
  }
  engine.compute({species.data(), vectors.data(), senders.data(), receivers.data(), int64_t(n),
                  int64_t(senders.size()), 1, energies.data(), forces.data(), virials.data(), int64_t(n), nullptr, nullptr});
  double worst = 0;
  for (size_t i = 0; i < n; i++) {
    double off = 0;
    for (int a = 0; a < 3; a++) off += std::pow(forces[3 * i + a] - probe[i].force[a], 2);
    const double ratio = std::max(std::sqrt(off), std::abs(energies[i] - probe[i].energy)) / probe[i].allowed;
    worst = ratio <= worst ? worst : ratio;  // keeps a NaN
  }
  return worst;
}

}  // namespace tesseral
