// Runs CUDA text on a CPU, to test it without a device: each thread of a block is a fibre, which runs until its next barrier or
// shuffle. `order` chooses which fibre runs next: 0 the lowest thread number, 1 the highest, 2 a random one. A text whose results
// depend on it lacks a barrier. Include before the text; `emulate` is at the end, in cuda_emulation_run.h.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>

#define __global__
#define __device__
#define __shared__
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

namespace emulation {
constexpr int THREADS = EMULATED_THREADS, WARP = 32, STACK = 1 << 17;
enum State { READY, AT_WARP, AT_BLOCK, DONE };
static ucontext_t scheduler, fibres[THREADS];
static char stacks[THREADS][STACK] __attribute__((aligned(64)));
static State state[THREADS];
static uint64_t exchanged[2][THREADS];
static int parity[THREADS], current;
static void wait(State at) {
  const int me = current;
  state[me] = at;
  swapcontext(&fibres[me], &scheduler);
}
}  // namespace emulation

struct Place { int x; };
static Place threadIdx, blockIdx;
static void __syncthreads() { emulation::wait(emulation::AT_BLOCK); }
template <class T> static T __shfl_xor_sync(unsigned, T value, int distance) {
  const int me = emulation::current, side = emulation::parity[me] ^= 1;
  memcpy(&emulation::exchanged[side][me], &value, sizeof value);
  emulation::wait(emulation::AT_WARP);
  T other;
  memcpy(&other, &emulation::exchanged[side][me ^ distance], sizeof other);
  return other;
}
