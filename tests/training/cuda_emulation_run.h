// Include after the text: `emulate` launches it. Shared and scratch memory are filled with NaN (bytes 0xFF) before every block.
// Returns 0; 1 where some threads of a block wait for others that do not come; 2 where memory beyond its own was written.

char shared[1 << 18] __attribute__((aligned(64)));

namespace emulation {
static char* const* pointers;
static const long long* steps;
static char* scratch;
static void entry() {
  run(pointers, steps, scratch);
  state[current] = DONE;
  swapcontext(&fibres[current], &scheduler);
}

static uint64_t generator;
static int random_below(int n) {
  generator = generator * 6364136223846793005ull + 1442695040888963407ull;
  return (int)((generator >> 33) % (uint64_t)n);
}

static void resume(int thread) {
  current = threadIdx.x = thread;
  swapcontext(&scheduler, &fibres[thread]);
}

static bool all(int first, int many, State at) {
  for (int k = first; k < first + many; k++) if (state[k] != at) return false;
  return true;
}

static int block(int order) {
  for (int k = 0; k < THREADS; k++) {
    state[k] = READY;
    parity[k] = 0;
    getcontext(&fibres[k]);
    fibres[k].uc_stack.ss_sp = stacks[k];
    fibres[k].uc_stack.ss_size = STACK;
    fibres[k].uc_link = &scheduler;
    makecontext(&fibres[k], entry, 0);
  }
  int places[THREADS];
  for (int k = 0; k < THREADS; k++) places[k] = order == 1 ? THREADS - 1 - k : k;
  for (;;) {
    bool ran = false;
    if (order == 2)
      for (int k = THREADS - 1; k > 0; k--) { const int j = random_below(k + 1), p = places[k]; places[k] = places[j]; places[j] = p; }
    for (int k = 0; k < THREADS; k++) {
      const int thread = places[k], warp = thread / WARP * WARP;
      if (state[thread] != READY) continue;
      resume(thread);
      ran = true;
      if (state[thread] == AT_WARP && all(warp, WARP, AT_WARP)) {
        for (int j = warp; j < warp + WARP; j++) state[j] = READY;
        if (order != 2) k = (order == 1 ? THREADS - warp - WARP : warp) - 1;  // the same warp goes on before others
      }
    }
    if (all(0, THREADS, DONE)) return 0;
    if (all(0, THREADS, AT_BLOCK)) { for (int k = 0; k < THREADS; k++) state[k] = READY; continue; }
    if (!ran) return 1;
  }
}
}  // namespace emulation

extern "C" int emulate(char* const* pointers, const long long* steps, long long count, char* scratch, long long scratch_bytes,
                       long long shared_bytes, int order, long long seed) {
  using namespace emulation;
  emulation::pointers = pointers;
  emulation::steps = steps;
  emulation::scratch = scratch;
  generator = (uint64_t)seed;
  for (long long k = 0; k < count; k++) {
    blockIdx.x = (int)k;
    memset(shared, 0xFF, sizeof shared);
    memset(scratch + k * scratch_bytes, 0xFF, (size_t)scratch_bytes + 64);
    if (block(order)) return 1;
    for (size_t j = (size_t)shared_bytes; j < sizeof shared; j++) if (shared[j] != (char)0xFF) return 2;
    for (int j = 0; j < 64; j++) if (scratch[(k + 1) * scratch_bytes + j] != (char)0xFF) return 2;
  }
  return 0;
}
