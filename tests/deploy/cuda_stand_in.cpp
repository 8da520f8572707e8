// Stand-in for libcuda.so.1: the kernels compiled for the CPU, and the memory of the CPU. A module is the path
// of their library. The environment variables STAND_IN_… make it fail as a driver may.
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

namespace {

std::map<uint64_t, size_t> blocks;
size_t used = 0;

long setting(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atol(text) : otherwise;
}

size_t total() { return size_t(setting("STAND_IN_MEMORY", 1l << 33)); }

// Whether bytes are in one block; a wrong address would otherwise be no error on a CPU.
bool is_allocated(uint64_t start, size_t size) {
  auto block = blocks.upper_bound(start);
  if (block == blocks.begin()) return false;
  --block;
  return start + size <= block->first + block->second;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return setting("STAND_IN_GPUS", 2) ? 0 : 100; }
int cuDeviceGetCount(int* count) { return *count = int(setting("STAND_IN_GPUS", 2)), 0; }
int cuDeviceGet(int* device, int number) { return *device = number, number < setting("STAND_IN_GPUS", 2) ? 0 : 101; }
int cuDeviceGetName(char* name, int, int) { return std::strcpy(name, "Stand-in"), 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const long capability = setting("STAND_IN_CAPABILITY", 90);
  return *value = int(attribute == 75 ? capability / 10 : capability % 10), 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &blocks, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxSetCurrent(void* context) { return context == &blocks ? 0 : 201; }
int cuModuleLoadData(void** module, const void* image) {
  if (const long code = setting("STAND_IN_MODULE", 0)) return int(code);
  *module = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
  return *module ? 0 : 200;
}
int cuModuleUnload(void* module) { return dlclose(module); }
int cuModuleGetFunction(void** function, void* module, const char* name) {
  char packed[200] = "packed_";
  *function = dlsym(module, std::strncat(packed, name, 150));
  return *function ? 0 : 500;
}
int cuMemAlloc_v2(uint64_t* start, size_t size) {
  if (!size || used + size > total()) return size ? 2 : 1;
  void* memory = std::aligned_alloc(256, (size + 255) / 256 * 256);
  std::memset(memory, 0xff, size);  // NaN: nothing may be read before it is written
  *start = reinterpret_cast<uint64_t>(memory);
  blocks[*start] = size, used += size;
  return 0;
}
int cuMemFree_v2(uint64_t start) {
  if (!blocks.count(start)) return 1;
  used -= blocks[start], blocks.erase(start);
  return std::free(reinterpret_cast<void*>(start)), 0;
}
int cuMemGetInfo_v2(size_t* free, size_t* all) { return *all = total(), *free = total() - used, 0; }
int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t size) {
  return is_allocated(to, size) ? std::memcpy(reinterpret_cast<void*>(to), from, size), 0 : 1;
}
int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t size) {
  return is_allocated(from, size) ? std::memcpy(to, reinterpret_cast<void*>(from), size), 0 : 1;
}
int cuMemsetD8_v2(uint64_t to, unsigned char value, size_t size) {
  return is_allocated(to, size) ? std::memset(reinterpret_cast<void*>(to), value, size), 0 : 1;
}
int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned,
                   void*, void** arguments, void**) {
  if (!x || y != 1 || z != 1 || !threads || threads > 1024) return 1;
  return reinterpret_cast<void (*)(void**)>(function)(arguments), 0;
}
int cuGetErrorString(int code, const char** text) { return *text = code == 2 ? "out of memory" : "an error", 0; }
}
