// Threads and scratch memory.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace tesseral {
namespace TESSERAL_ISA {

// Calls body(thread, threads) on each of the threads that OpenMP grants.
template <class Body> void parallel(int threads, Body body) {
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    body(omp_get_thread_num(), omp_get_num_threads());
    return;
  }
#endif
  body(0, 1);
}

// The part [begin, end) of n items that a thread takes.
inline std::pair<int64_t, int64_t> share(int64_t n, int thread, int threads) {
  return {n * thread / threads, n * (thread + 1) / threads};
}

// An array that starts at a cache line.
template <class T> class Lines {
 public:
  explicit Lines(long size) : data_(nullptr) {
    if (size == 0) return;
    const size_t bytes = (size * sizeof(T) + 63) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (!data_) throw std::bad_alloc();
  }
  Lines(Lines&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Lines(const Lines&) = delete;
  Lines& operator=(Lines&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~Lines() { std::free(data_); }
  T* data() { return data_; }
  const T* data() const { return data_; }

 private:
  T* data_;
};

}  // namespace TESSERAL_ISA
}  // namespace tesseral
