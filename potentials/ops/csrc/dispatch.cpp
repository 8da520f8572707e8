// Chooses among the instruction sets that were compiled and that this processor has.
#include "kernels.h"

extern "C" {
extern const tesseral_kernels tesseral_baseline_float, tesseral_baseline_double;
#ifdef TESSERAL_X86
extern const tesseral_kernels tesseral_avx2_float, tesseral_avx2_double;
extern const tesseral_kernels tesseral_avx512_float, tesseral_avx512_double;
#endif

static bool runs(int isa) {
#ifdef TESSERAL_X86
  if (isa == TESSERAL_AVX512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && runs(TESSERAL_AVX2);
  if (isa == TESSERAL_AVX2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#endif
  return isa == TESSERAL_BASELINE;
}

#ifdef TESSERAL_X86
#define TESSERAL_CHOICE(type) \
  {&tesseral_baseline_##type, &tesseral_avx2_##type, &tesseral_avx512_##type}
#else
#define TESSERAL_CHOICE(type) {&tesseral_baseline_##type, nullptr, nullptr}
#endif

__attribute__((visibility("default"))) int tesseral_version(void) { return TESSERAL_VERSION; }

__attribute__((visibility("default"))) const tesseral_kernels* tesseral_kernels_float(int isa) {
  static const tesseral_kernels* const table[] = TESSERAL_CHOICE(float);
  return isa >= 0 && isa <= TESSERAL_AVX512 && runs(isa) ? table[isa] : nullptr;
}

__attribute__((visibility("default"))) const tesseral_kernels* tesseral_kernels_double(int isa) {
  static const tesseral_kernels* const table[] = TESSERAL_CHOICE(double);
  return isa >= 0 && isa <= TESSERAL_AVX512 && runs(isa) ? table[isa] : nullptr;
}
}
