// A model on a GPU: the launches of the Python engine, which the exported file has as a plan
// (potentials/engine/gpu/plan.py), repeated through the CUDA driver. The driver is opened when a model
// is loaded, so that neither the plugin nor the machine needs CUDA's toolkit.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <new>
#include <sstream>

#include "engine.h"

namespace tesseral {
namespace {

typedef unsigned long long Pointer;  // CUdeviceptr

// The functions of the driver that are used, with its own names.
struct Driver {
  int (*cuInit)(unsigned);
  int (*cuDeviceGetCount)(int*);
  int (*cuDeviceGet)(int*, int);
  int (*cuDeviceGetName)(char*, int, int);
  int (*cuDeviceGetAttribute)(int*, int, int);
  int (*cuDevicePrimaryCtxRetain)(void**, int);
  int (*cuDevicePrimaryCtxRelease)(int);
  int (*cuCtxSetCurrent)(void*);
  int (*cuModuleLoadData)(void**, const void*);
  int (*cuModuleUnload)(void*);
  int (*cuModuleGetFunction)(void**, void*, const char*);
  int (*cuMemAlloc)(Pointer*, size_t);
  int (*cuMemFree)(Pointer);
  int (*cuMemGetInfo)(size_t*, size_t*);
  int (*cuMemcpyHtoD)(Pointer, const void*, size_t);
  int (*cuMemcpyDtoH)(void*, Pointer, size_t);
  int (*cuMemsetD8)(Pointer, unsigned char, size_t);
  int (*cuLaunchKernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
  int (*cuGetErrorString)(int, const char**);

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
      throw std::runtime_error("there is no CUDA driver (libcuda.so.1) here: leave out the keyword gpu, or use a machine "
                               "with a GPU of NVIDIA");
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      if (!function) throw std::runtime_error(std::string("the CUDA driver has no ") + name + ": update it");
    };
    find(cuInit, "cuInit"), find(cuDeviceGetCount, "cuDeviceGetCount"), find(cuDeviceGet, "cuDeviceGet");
    find(cuDeviceGetName, "cuDeviceGetName"), find(cuDeviceGetAttribute, "cuDeviceGetAttribute");
    find(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
    find(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2"), find(cuCtxSetCurrent, "cuCtxSetCurrent");
    find(cuModuleLoadData, "cuModuleLoadData"), find(cuModuleUnload, "cuModuleUnload");
    find(cuModuleGetFunction, "cuModuleGetFunction"), find(cuMemAlloc, "cuMemAlloc_v2"), find(cuMemFree, "cuMemFree_v2");
    find(cuMemGetInfo, "cuMemGetInfo_v2"), find(cuMemcpyHtoD, "cuMemcpyHtoD_v2"), find(cuMemcpyDtoH, "cuMemcpyDtoH_v2");
    find(cuMemsetD8, "cuMemsetD8_v2"), find(cuLaunchKernel, "cuLaunchKernel"), find(cuGetErrorString, "cuGetErrorString");
  }

  void check(int code) const {
    if (!code) return;
    const char* text = nullptr;
    cuGetErrorString(code, &text);
    throw std::runtime_error("the CUDA driver reports error " + std::to_string(code) + ", " + (text ? text : "unknown"));
  }
};

constexpr int out_of_memory = 2, not_for_this_card = 209, invalid_ptx = 218, newer_ptx = 222;  // errors of the driver
constexpr int capability_major = 75, capability_minor = 76;                                     // attributes of a card

constexpr char damaged[] = "its plan for GPUs is damaged: export it again";

// The slots that have a name; NAMES in plan.py.
enum Slot {
  weights, species, vectors, counts, senders, receivers, first, sent, order, energies, forces, virials, uncertainties
};

// Numbers on which the sizes of arrays depend; places are those of atoms and their images.
struct Room {
  int64_t atoms, edges, places;
};

// Memory on the GPU that grows: `fixed` bytes, and more for each atom, edge and place.
struct Memory {
  size_t fixed = 0, per_atom = 0, per_edge = 0, per_place = 0, size = 0;
  Pointer start = 0;
  size_t needed(const Room& room) const {
    return fixed + room.atoms * per_atom + room.edges * per_edge + room.places * per_place;
  }
};

union Value {
  Pointer pointer;
  int whole;
  double real;
};

struct Argument {
  int slot = -1;  // of a pointer
  Value value{};  // or its offset
};

struct Step {
  enum Kind { launch, spread, clear, gather } kind;
  void* function = nullptr;
  bool by_edges = false;
  int lanes = 0, slot = 0;
  int64_t row = 0;  // bytes, of an exchange
  std::vector<Argument> arguments;
};

class Gpu : public Engine {
 public:
  Gpu(const GpuFiles& files, int place) : place_(place) {
    if (files.plan.empty() || files.kernels.empty())
      throw std::runtime_error("it has no kernels for GPUs: export it again with train-potential export --gpu");
    open_device(files);
    read_plan(files.plan);
    try {
      reserve(memory_[weights], {});
    } catch (const std::bad_alloc&) {
      throw std::runtime_error("there is no memory left on the GPU, which other programs may use");
    }
    if (files.weights.size() != memory_[weights].fixed) throw std::runtime_error("its weights for GPUs are truncated");
    to_device(weights, files.weights.data(), files.weights.size());
  }

  ~Gpu() override {
    for (const Memory& memory : memory_)
      if (memory.start) driver_.cuMemFree(memory.start);
    if (module_) driver_.cuModuleUnload(module_);
    if (context_) driver_.cuDevicePrimaryCtxRelease(device_);
  }

  bool knows_uncertainty() const override { return memory_[uncertainties].per_atom > 0; }
  double bytes() const override { return double(host_.capacity()); }

  bool keeps_edges() const override { return true; }

  void compute(const tesseral_graph& g) override {
    start(g, 0);
    send_edges(g);
    to_device(vectors, g.vectors, g.edges * 24);
    run(g);
  }

  void compute_at(const tesseral_graph& g, const Positions& at) override {
    start(g, at.number);
    if (at.new_edges) {
      send_edges(g);
      send_ints(places(), at.places, g.edges);
    }
    to_device(positions(), at.all, at.number * 24);
    launch(vectors_of_, g);
    run(g);
  }

 private:
  Driver driver_;
  int place_, device_ = 0, block_ = 0;
  void *context_ = nullptr, *module_ = nullptr;
  std::vector<Memory> memory_;  // the slots of the plan, and two more
  std::vector<Step> steps_;
  Step vectors_of_;
  std::vector<int32_t> ints_;
  std::vector<char> host_;

  int places() const { return int(memory_.size()) - 2; }
  int positions() const { return int(memory_.size()) - 1; }

  void start(const tesseral_graph& g, int64_t places) {
    driver_.check(driver_.cuCtxSetCurrent(context_));
    make_room({g.atoms, g.edges, places});
    ints_.assign({int32_t(g.owned), int32_t(g.edges), int32_t(g.atoms)});
    to_device(counts, ints_.data(), 12);
    send_ints(species, g.species, g.atoms);
  }

  void run(const tesseral_graph& g) {
    for (const Step& step : steps_) {
      if (step.kind == Step::launch) launch(step, g);
      else if (g.exchange) exchange(step, g);
    }
    to_host(g.energies, energies, g.owned * 8);
    to_host(g.forces, forces, g.atoms * 24);
    if (g.virials) to_host(g.virials, virials, g.owned * 72);
    if (g.uncertainties) to_host(g.uncertainties, uncertainties, g.owned * 8);
  }

  void open_device(const GpuFiles& files) {
    int count = 0, major = 0, minor = 0;
    if (driver_.cuInit(0) || driver_.cuDeviceGetCount(&count) || !count)
      throw std::runtime_error("the CUDA driver finds no GPU here: leave out the keyword gpu, or check "
                               "CUDA_VISIBLE_DEVICES and nvidia-smi");
    driver_.check(driver_.cuDeviceGet(&device_, place_ % count));
    driver_.check(driver_.cuDeviceGetAttribute(&major, capability_major, device_));
    driver_.check(driver_.cuDeviceGetAttribute(&minor, capability_minor, device_));
    char name[256] = "";
    driver_.cuDeviceGetName(name, sizeof name, device_);
    const std::string capability = std::to_string(major) + "." + std::to_string(minor);
    if (major < 7)
      throw std::runtime_error(std::string("the GPU (") + name + ") has compute capability " + capability +
                               ", and its kernels need 7.0 or more: leave out the keyword gpu");
    driver_.check(driver_.cuDevicePrimaryCtxRetain(&context_, device_));
    driver_.check(driver_.cuCtxSetCurrent(context_));
    const int code = driver_.cuModuleLoadData(&module_, files.kernels.c_str());
    if (code == not_for_this_card)
      throw std::runtime_error(std::string("its kernels are for newer GPUs than this one (") + name +
                               ", compute capability " + capability + "): export it with NVRTC of CUDA 12");
    if (code == invalid_ptx || code == newer_ptx)
      throw std::runtime_error("the CUDA driver here is older than the compiler of its kernels: update the driver, or "
                               "export it with an older NVRTC");
    driver_.check(code);
  }

  void read_plan(const std::string& text) {
    std::istringstream in(text);
    std::string word;
    int version = 0;
    size_t slots = 0, steps = 0;
    in >> word >> version;
    if (word != "tesseral_gpu" || version != 1)
      throw std::runtime_error("its kernels for GPUs have another version: export it again, or rebuild the plugin");
    in >> word >> block_ >> word >> slots;
    if (!in || block_ < 1 || slots <= uncertainties || slots > 10000) throw std::runtime_error(damaged);
    memory_.resize(slots);
    for (Memory& memory : memory_) in >> memory.fixed >> memory.per_atom >> memory.per_edge;
    in >> word >> steps;
    for (size_t n = 0; n < steps && in; n++) steps_.push_back(read_step(in));
    if (!in || steps_.empty()) throw std::runtime_error(damaged);
    memory_.push_back({0, 0, 4});
    memory_.push_back({0, 0, 0, 24});
    const auto at = [](int slot, Pointer offset = 0) { return Argument{slot, {offset}}; };
    vectors_of_.kind = Step::launch, vectors_of_.by_edges = true, vectors_of_.lanes = 1;
    vectors_of_.arguments = {at(counts, 4), at(places()), at(receivers), at(positions()), at(vectors)};
    driver_.check(driver_.cuModuleGetFunction(&vectors_of_.function, module_, "edge_vectors"));
  }

  Step read_step(std::istringstream& in) {
    Step step;
    std::string word, name, by;
    in >> word;
    if (word != "launch") {
      step.kind = word == "spread" ? Step::spread : word == "clear" ? Step::clear : Step::gather;
      in >> step.slot >> step.row;
      if (!in || step.slot < 0 || step.slot >= int(memory_.size())) throw std::runtime_error(damaged);
      return step;
    }
    int count = 0;
    step.kind = Step::launch;
    in >> name >> by >> step.lanes >> count;
    step.by_edges = by == "edges";
    for (int n = 0; n < count && in; n++) {
      Argument argument;
      in >> word;
      if (word == "p") in >> argument.slot >> argument.value.pointer;
      else if (word == "i") in >> argument.value.whole;
      else if (word == "d") in >> argument.value.real;
      if (argument.slot >= int(memory_.size())) throw std::runtime_error(damaged);
      step.arguments.push_back(argument);
    }
    driver_.check(driver_.cuModuleGetFunction(&step.function, module_, name.c_str()));
    return step;
  }

  void reserve(Memory& memory, const Room& room) {
    const size_t needed = memory.needed(room);
    if (needed <= memory.size) return;
    if (memory.start) driver_.check(driver_.cuMemFree(memory.start));
    memory.start = memory.size = 0;
    const size_t size = needed + (needed - memory.fixed) / 8;
    const int code = driver_.cuMemAlloc(&memory.start, size);
    if (code == out_of_memory) throw std::bad_alloc();
    driver_.check(code);
    memory.size = size;
  }

  void make_room(const Room& room) {
    try {
      for (Memory& memory : memory_) reserve(memory, room);
    } catch (const std::bad_alloc&) {
      double needed = 0, fixed = 0;
      for (Memory& memory : memory_) {
        needed += 1.125 * double(memory.needed(room)), fixed += double(memory.fixed);
        if (&memory == &memory_[weights] || !memory.start) continue;
        driver_.cuMemFree(memory.start);
        memory.start = memory.size = 0;
      }
      size_t free = 0, total = 0;
      driver_.cuMemGetInfo(&free, &total);
      char text[400];
      const double fit = double(room.atoms) * double(free) / std::max(1.0, needed - fixed);
      std::snprintf(text, sizeof text, "%lld atoms with %lld edges on one process need about %.2f GB of the GPU's memory, "
                    "and %.2f GB are free, enough for about %.0f atoms: use more GPUs, with one process for each",
                    (long long)room.atoms, (long long)room.edges, 1e-9 * needed, 1e-9 * double(free), fit);
      throw std::runtime_error(text);
    }
  }

  // Edges, and those of each atom.
  void send_edges(const tesseral_graph& g) {
    send_ints(senders, g.senders, g.edges), send_ints(receivers, g.receivers, g.edges);
    send_ends(first, g.receivers, g);
    const std::vector<int32_t> begins = send_ends(sent, g.senders, g);
    std::vector<int32_t> next = begins;
    ints_.resize(g.edges);
    for (int64_t e = 0; e < g.edges; e++) ints_[next[g.senders[e]]++] = int32_t(e);
    to_device(order, ints_.data(), g.edges * 4);
  }

  void send_ints(int slot, const int64_t* values, int64_t number) {
    ints_.assign(values, values + number);
    to_device(slot, ints_.data(), number * 4);
  }

  // Where the edges of each atom begin if they are sorted by their ends.
  std::vector<int32_t> send_ends(Slot slot, const int64_t* ends, const tesseral_graph& g) {
    std::vector<int32_t> begins(g.atoms + 1, 0);
    for (int64_t e = 0; e < g.edges; e++) begins[ends[e] + 1]++;
    for (int64_t i = 0; i < g.atoms; i++) begins[i + 1] += begins[i];
    to_device(slot, begins.data(), begins.size() * 4);
    return begins;
  }

  void to_device(int slot, const void* from, size_t size, size_t offset = 0) {
    if (size) driver_.check(driver_.cuMemcpyHtoD(memory_[slot].start + offset, from, size));
  }

  void to_host(void* to, int slot, size_t size) {
    if (size) driver_.check(driver_.cuMemcpyDtoH(to, memory_[slot].start, size));
  }

  void launch(const Step& step, const tesseral_graph& g) {
    const int64_t items = step.by_edges ? g.edges : g.atoms;
    if (!items) return;
    std::vector<Value> values(step.arguments.size());
    std::vector<void*> addresses;
    for (size_t n = 0; n < values.size(); n++) {
      const Argument& argument = step.arguments[n];
      values[n] = argument.value;
      if (argument.slot >= 0) values[n].pointer += memory_[argument.slot].start;
      addresses.push_back(&values[n]);
    }
    const auto blocks = unsigned((items * step.lanes + block_ - 1) / block_);
    driver_.check(driver_.cuLaunchKernel(step.function, blocks, 1, 1, block_, 1, 1, 0, nullptr, addresses.data(), nullptr));
  }

  // Rows of ghosts from or to their owners, through the memory of the CPU.
  void exchange(const Step& step, const tesseral_graph& g) {
    const size_t owned = g.owned * step.row, all = g.atoms * step.row;
    if (step.kind == Step::clear) {
      if (all > owned) driver_.check(driver_.cuMemsetD8(memory_[step.slot].start + owned, 0, all - owned));
      return;
    }
    host_.resize(all);
    const bool spreads = step.kind == Step::spread;
    to_host(host_.data(), step.slot, spreads ? owned : all);
    (spreads ? g.exchange->spread : g.exchange->gather)(g.exchange->context, host_.data(), step.row);
    if (spreads) to_device(step.slot, host_.data() + owned, all - owned, owned);
    else to_device(step.slot, host_.data(), owned);
  }
};

}  // namespace

std::unique_ptr<Engine> gpu_engine(const GpuFiles& files, int place) { return std::make_unique<Gpu>(files, place); }

}  // namespace tesseral
