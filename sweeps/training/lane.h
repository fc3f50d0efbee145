// Numbers of lane programs: vectors, elementary functions, and Threefry. Included by generated C++ (a vector is several elements
// of one lane) and CUDA (a thread computes single elements). Every function has one sequence of IEEE operations, for vectors and
// single numbers alike, with fused multiply-adds exactly where `fma_` is written: bits do not depend on the instruction set, except
// for the sign of a number that is not a number.
// Largest errors, in units in the last place, against double precision: tests/training/test_lane_program.py.

#ifdef __CUDACC__
typedef int int32_t; typedef unsigned uint32_t; typedef long long int64_t; typedef unsigned long long uint64_t; typedef unsigned char uint8_t;
#define INLINE static __device__ __forceinline__
#else
#include <cstdint>
#include <cstring>
#define INLINE static inline __attribute__((always_inline))
#endif
#ifdef __AVX2__
#include <immintrin.h>
#endif

// ---- single numbers; a truth value is 0 or -1

#ifdef __CUDACC__
INLINE float fma_(float a, float b, float c) { return __fmaf_rn(a, b, c); }
INLINE double fma_(double a, double b, double c) { return __fma_rn(a, b, c); }
INLINE float sqrt_(float x) { return __fsqrt_rn(x); }
INLINE double sqrt_(double x) { return __dsqrt_rn(x); }
INLINE float abs_(float x) { return fabsf(x); }
INLINE double abs_(double x) { return fabs(x); }
INLINE int32_t bits_(float x) { return __float_as_int(x); }
INLINE float float_(int32_t x) { return __int_as_float(x); }
INLINE int64_t bits_(double x) { return __double_as_longlong(x); }
INLINE double double_(int64_t x) { return __longlong_as_double(x); }
#else
INLINE float fma_(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
INLINE double fma_(double a, double b, double c) { return __builtin_fma(a, b, c); }
INLINE float sqrt_(float x) { return __builtin_sqrtf(x); }
INLINE double sqrt_(double x) { return __builtin_sqrt(x); }
INLINE float abs_(float x) { return __builtin_fabsf(x); }
INLINE double abs_(double x) { return __builtin_fabs(x); }
INLINE int32_t bits_(float x) { int32_t r; memcpy(&r, &x, 4); return r; }
INLINE float float_(int32_t x) { float r; memcpy(&r, &x, 4); return r; }
INLINE int64_t bits_(double x) { int64_t r; memcpy(&r, &x, 8); return r; }
INLINE double double_(int64_t x) { double r; memcpy(&r, &x, 8); return r; }
#endif
INLINE int32_t abs_(int32_t x) { return x < 0 ? -x : x; }
INLINE int64_t abs_(int64_t x) { return x < 0 ? -x : x; }
template <class T> INLINE int32_t lt_(T a, T b) { return -(int32_t)(a < b); }
template <class T> INLINE int32_t le_(T a, T b) { return -(int32_t)(a <= b); }
template <class T> INLINE int32_t gt_(T a, T b) { return -(int32_t)(a > b); }
template <class T> INLINE int32_t ge_(T a, T b) { return -(int32_t)(a >= b); }
template <class T> INLINE int32_t eq_(T a, T b) { return -(int32_t)(a == b); }
template <class T> INLINE int32_t ne_(T a, T b) { return -(int32_t)(a != b); }
template <class T> INLINE T select_(int32_t m, T a, T b) { return m ? a : b; }
template <class T> INLINE float to_f32(T x) { return (float)x; }
template <class T> INLINE double to_f64(T x) { return (double)x; }
template <class T> INLINE int32_t to_i32(T x) { return (int32_t)x; }
template <class T> INLINE int64_t to_i64(T x) { return (int64_t)x; }
INLINE int32_t shl_(int32_t x, int n) { return (int32_t)((uint32_t)x << n); }
INLINE int64_t shl_(int64_t x, int n) { return (int64_t)((uint64_t)x << n); }
template <class T> INLINE T shr_(T x, int n) { return x >> n; }
INLINE int32_t whole_(float x) { return (int32_t)x; }
INLINE int64_t whole_(double x) { return (int64_t)x; }
// Padding may hold any number: what would trap is 0.
INLINE int32_t remainder_(int32_t a, int32_t b) { if (b == 0 || b == -1) return 0; int32_t r = a % b; return r && (r < 0) != (b < 0) ? r + b : r; }
INLINE int64_t remainder_(int64_t a, int64_t b) { if (b == 0 || b == -1) return 0; int64_t r = a % b; return r && (r < 0) != (b < 0) ? r + b : r; }
struct Words { uint32_t a, b; };

#ifdef __CUDACC__
template <class F> struct int_of {};
template <> struct int_of<float> { typedef int32_t type; };
template <> struct int_of<double> { typedef int64_t type; };
#else
// ---- vectors: as many elements as a register has floats (`STEP`: 16 with AVX-512, 8 with AVX2, 4 otherwise)

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define STEP 16
#elif defined(__AVX2__) && defined(__FMA__)
#define STEP 8
#else
#define STEP 4
#endif
#define MEMBER inline __attribute__((always_inline))
#define BODY __attribute__((always_inline))
typedef float vf __attribute__((vector_size(4 * STEP)));
typedef int32_t vi __attribute__((vector_size(4 * STEP)));
typedef uint32_t vu __attribute__((vector_size(4 * STEP)));
// Half as many elements: a register of numbers of 64 bits, and half a register of others
typedef double hd __attribute__((vector_size(4 * STEP)));
typedef int64_t hl __attribute__((vector_size(4 * STEP)));
typedef uint64_t hlu __attribute__((vector_size(4 * STEP)));
typedef float hf __attribute__((vector_size(2 * STEP)));
typedef int32_t hi __attribute__((vector_size(2 * STEP)));
template <class H> struct Two { H a, b; };
typedef Two<hd> vd;
typedef Two<hl> vl;
template <class F> struct int_of {};
template <> struct int_of<float> { typedef int32_t type; };
template <> struct int_of<double> { typedef int64_t type; };
template <> struct int_of<vf> { typedef vi type; };
template <> struct int_of<vd> { typedef vl type; };

#define OPERATOR(op) template <class H> INLINE Two<H> operator op(Two<H> x, Two<H> y) { return Two<H>{x.a op y.a, x.b op y.b}; }
OPERATOR(+) OPERATOR(-) OPERATOR(*) OPERATOR(/) OPERATOR(&) OPERATOR(|) OPERATOR(^)
template <class H> INLINE Two<H> operator-(Two<H> x) { return Two<H>{-x.a, -x.b}; }
template <class H> INLINE Two<H> operator~(Two<H> x) { return Two<H>{~x.a, ~x.b}; }
template <class H> INLINE Two<H> operator<<(Two<H> x, int n) { return Two<H>{x.a << n, x.b << n}; }
template <class H> INLINE Two<H> operator>>(Two<H> x, int n) { return Two<H>{x.a >> n, x.b >> n}; }

#if STEP == 16
INLINE hf low(vf x) { return (hf)_mm512_castps512_ps256((__m512)x); }
INLINE hf high(vf x) { return (hf)_mm512_extractf32x8_ps((__m512)x, 1); }
INLINE hi low(vi x) { return (hi)_mm512_castsi512_si256((__m512i)x); }
INLINE hi high(vi x) { return (hi)_mm512_extracti64x4_epi64((__m512i)x, 1); }
INLINE vf join(hf a, hf b) { return (vf)_mm512_insertf32x8(_mm512_castps256_ps512((__m256)a), (__m256)b, 1); }
INLINE vi join(hi a, hi b) { return (vi)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)a), (__m256i)b, 1); }
INLINE vf sqrt_(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
INLINE hd sqrt_(hd x) { return (hd)_mm512_sqrt_pd((__m512d)x); }
INLINE vf fma_(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE hd fma_(hd a, hd b, hd c) { return (hd)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c); }
#elif STEP == 8
INLINE hf low(vf x) { return (hf)_mm256_castps256_ps128((__m256)x); }
INLINE hf high(vf x) { return (hf)_mm256_extractf128_ps((__m256)x, 1); }
INLINE hi low(vi x) { return (hi)_mm256_castsi256_si128((__m256i)x); }
INLINE hi high(vi x) { return (hi)_mm256_extracti128_si256((__m256i)x, 1); }
INLINE vf join(hf a, hf b) { return (vf)_mm256_insertf128_ps(_mm256_castps128_ps256((__m128)a), (__m128)b, 1); }
INLINE vi join(hi a, hi b) { return (vi)_mm256_inserti128_si256(_mm256_castsi128_si256((__m128i)a), (__m128i)b, 1); }
INLINE vf sqrt_(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
INLINE hd sqrt_(hd x) { return (hd)_mm256_sqrt_pd((__m256d)x); }
INLINE vf fma_(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
INLINE hd fma_(hd a, hd b, hd c) { return (hd)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c); }
#else
INLINE hf low(vf x) { return hf{x[0], x[1]}; }
INLINE hf high(vf x) { return hf{x[2], x[3]}; }
INLINE hi low(vi x) { return hi{x[0], x[1]}; }
INLINE hi high(vi x) { return hi{x[2], x[3]}; }
INLINE vf join(hf a, hf b) { return vf{a[0], a[1], b[0], b[1]}; }
INLINE vi join(hi a, hi b) { return vi{a[0], a[1], b[0], b[1]}; }
INLINE vf sqrt_(vf x) { return vf{sqrt_(x[0]), sqrt_(x[1]), sqrt_(x[2]), sqrt_(x[3])}; }
INLINE hd sqrt_(hd x) { return hd{sqrt_(x[0]), sqrt_(x[1])}; }
INLINE vf fma_(vf a, vf b, vf c) { return vf{fma_(a[0], b[0], c[0]), fma_(a[1], b[1], c[1]), fma_(a[2], b[2], c[2]), fma_(a[3], b[3], c[3])}; }
INLINE hd fma_(hd a, hd b, hd c) { return hd{fma_(a[0], b[0], c[0]), fma_(a[1], b[1], c[1])}; }
#endif
INLINE vd sqrt_(vd x) { return vd{sqrt_(x.a), sqrt_(x.b)}; }
INLINE vd fma_(vd x, vd y, vd z) { return vd{fma_(x.a, y.a, z.a), fma_(x.b, y.b, z.b)}; }
INLINE vf abs_(vf x) { return (vf)((vi)x & 0x7fffffff); }
INLINE vi abs_(vi x) { return x < 0 ? -x : x; }
INLINE vd abs_(vd x) { return vd{(hd)((hl)x.a & 0x7fffffffffffffffll), (hd)((hl)x.b & 0x7fffffffffffffffll)}; }
INLINE vl abs_(vl x) { return vl{x.a < 0 ? -x.a : x.a, x.b < 0 ? -x.b : x.b}; }
INLINE vi shl_(vi x, int n) { return (vi)((vu)x << n); }
INLINE vl shl_(vl x, int n) { return vl{(hl)((hlu)x.a << n), (hl)((hlu)x.b << n)}; }
INLINE vi bits_(vf x) { return (vi)x; }
INLINE vl bits_(vd x) { return vl{(hl)x.a, (hl)x.b}; }
INLINE vf float_(vi x) { return (vf)x; }
INLINE vd double_(vl x) { return vd{(hd)x.a, (hd)x.b}; }

#define CONVERT(x, T) __builtin_convertvector(x, T)
INLINE vi narrow(vl x) { return join(CONVERT(x.a, hi), CONVERT(x.b, hi)); }
INLINE vl widen(vi x) { return vl{CONVERT(low(x), hl), CONVERT(high(x), hl)}; }
INLINE vf to_f32(vi x) { return CONVERT(x, vf); }
INLINE vf to_f32(vd x) { return join(CONVERT(x.a, hf), CONVERT(x.b, hf)); }
INLINE vf to_f32(vl x) { return join(CONVERT(x.a, hf), CONVERT(x.b, hf)); }
INLINE vd to_f64(vf x) { return vd{CONVERT(low(x), hd), CONVERT(high(x), hd)}; }
INLINE vd to_f64(vi x) { return vd{CONVERT(low(x), hd), CONVERT(high(x), hd)}; }
INLINE vd to_f64(vl x) { return vd{CONVERT(x.a, hd), CONVERT(x.b, hd)}; }
INLINE vi to_i32(vf x) { return CONVERT(x, vi); }
INLINE vi to_i32(vd x) { return join(CONVERT(x.a, hi), CONVERT(x.b, hi)); }
INLINE vi to_i32(vl x) { return narrow(x); }
INLINE vl to_i64(vf x) { return vl{CONVERT(low(x), hl), CONVERT(high(x), hl)}; }
INLINE vl to_i64(vi x) { return widen(x); }
INLINE vl to_i64(vd x) { return vl{CONVERT(x.a, hl), CONVERT(x.b, hl)}; }
INLINE vi whole_(vf x) { return to_i32(x); }
INLINE vl whole_(vd x) { return to_i64(x); }
#define COMPARE(name, op) \
  INLINE vi name(vf x, vf y) { return x op y; } \
  INLINE vi name(vi x, vi y) { return x op y; } \
  INLINE vi name(vd x, vd y) { return narrow(vl{x.a op y.a, x.b op y.b}); } \
  INLINE vi name(vl x, vl y) { return narrow(vl{x.a op y.a, x.b op y.b}); }
COMPARE(lt_, <) COMPARE(le_, <=) COMPARE(gt_, >) COMPARE(ge_, >=) COMPARE(eq_, ==) COMPARE(ne_, !=)
INLINE vf select_(vi m, vf x, vf y) { return m ? x : y; }
INLINE vi select_(vi m, vi x, vi y) { return m ? x : y; }
template <class H> INLINE Two<H> select_(vi m, Two<H> x, Two<H> y) { vl w = widen(m); return Two<H>{w.a ? x.a : y.a, w.b ? x.b : y.b}; }

// One number in every element
INLINE vf V(float x) { return x - vf{}; }
INLINE vi V(int32_t x) { return x - vi{}; }
INLINE vd V(double x) { return vd{x - hd{}, x - hd{}}; }
INLINE vl V(int64_t x) { return vl{x - hl{}, x - hl{}}; }

// Whether every element is a normal positive number
#if STEP == 16
INLINE bool all_ordinary(vf x) {
  __m512 low = (__m512)V(1.17549435e-38f), high = (__m512)V(__builtin_inff());
  return (_mm512_cmp_ps_mask((__m512)x, low, _CMP_GE_OQ) & _mm512_cmp_ps_mask((__m512)x, high, _CMP_LT_OQ)) == 0xffff;
}
#elif STEP == 8
INLINE bool all_ordinary(vf x) { return _mm256_movemask_ps((__m256)(ge_(x, V(1.17549435e-38f)) & lt_(x, V(__builtin_inff())))) == 0xff; }
#else
INLINE bool all_ordinary(vf x) { return false; }
#endif

// Memory: rows are read and written as whole vectors; `first` elements of a vector, or elements at a distance, where they are not.
INLINE vf load(const float* p) { vf r; memcpy(&r, p, sizeof r); return r; }
INLINE vi load(const int32_t* p) { vi r; memcpy(&r, p, sizeof r); return r; }
INLINE vd load(const double* p) { vd r; memcpy(&r.a, p, sizeof r.a); memcpy(&r.b, p + STEP / 2, sizeof r.b); return r; }
INLINE vl load(const int64_t* p) { vl r; memcpy(&r.a, p, sizeof r.a); memcpy(&r.b, p + STEP / 2, sizeof r.b); return r; }
template <class T, class E> INLINE void store(E* p, T v) {
  static_assert(sizeof v[0] == sizeof(E), "elements of another size");
  memcpy(p, &v, sizeof v);
}
template <class H, class E> INLINE void store(E* p, Two<H> v) { store(p, v.a); store(p + STEP / 2, v.b); }
template <class T, class E> INLINE void store_first(E* p, T v, int first) {
  if (first >= STEP) { store(p, v); return; }
  E each[STEP]; store(each, v);
  for (int k = 0; k < first; k++) p[k] = each[k];
}
template <class T, class E> INLINE void scatter(E* p, int d, T v, int first) {
  E each[STEP]; store(each, v);
  for (int k = 0; k < first && k < STEP; k++) p[k * d] = each[k];
}
#define AT(k) p[(k) * d]
#if STEP == 16
#define UP_TO_STEP(of) of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7), of(8), of(9), of(10), of(11), of(12), of(13), of(14), of(15)
#define UP_TO_HALF(of) of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7)
#elif STEP == 8
#define UP_TO_STEP(of) of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7)
#define UP_TO_HALF(of) of(0), of(1), of(2), of(3)
#else
#define UP_TO_STEP(of) of(0), of(1), of(2), of(3)
#define UP_TO_HALF(of) of(0), of(1)
#endif
#define SELF(k) k
INLINE vi iota_() { return vi{UP_TO_STEP(SELF)}; }
INLINE vf gather(const float* p, int d) { return vf{UP_TO_STEP(AT)}; }
INLINE vi gather(const int32_t* p, int d) { return vi{UP_TO_STEP(AT)}; }
INLINE hd gather_half(const double* p, int d) { return hd{UP_TO_HALF(AT)}; }
INLINE hl gather_half(const int64_t* p, int d) { return hl{UP_TO_HALF(AT)}; }
INLINE vd gather(const double* p, int d) { return vd{gather_half(p, d), gather_half(p + STEP / 2 * d, d)}; }
INLINE vl gather(const int64_t* p, int d) { return vl{gather_half(p, d), gather_half(p + STEP / 2 * d, d)}; }
template <class E> INLINE auto gather_first(const E* p, int d, int first) -> decltype(load(p)) {
  E each[STEP];
  for (int k = 0; k < STEP; k++) each[k] = p[(k < first ? k : first - 1) * d];
  return load(each);
}
template <class E, class T> INLINE T remainders(T a, T b) {
  E x[STEP], y[STEP]; store(x, a); store(y, b);
  for (int k = 0; k < STEP; k++) x[k] = remainder_(x[k], y[k]);
  return load(x);
}
INLINE vi remainder_(vi a, vi b) { return remainders<int32_t>(a, b); }
INLINE vl remainder_(vl a, vl b) { return remainders<int64_t>(a, b); }

// A sum along a loop in vectors has 16 partial sums, in one vector or several. In the end partial sum k takes in k + 8, then
// k + 4, k + 2, k + 1, so that no bit depends on STEP.
#define PARTS (16 / STEP)
template <class T> struct Sums { T part[PARTS]; };
template <class T> INLINE Sums<T> sums(T start) { Sums<T> s; for (int k = 0; k < PARTS; k++) s.part[k] = start; return s; }
// The 16 elements from i on, of which `first` exist, by the vectors' loop body
template <class Body, class... S> INLINE void sixteen(int i, int first, Body body, S&... sums) {
  body(i, sums.part[0]...);
#if PARTS > 1
  if (first > STEP) body(i + STEP, sums.part[1]...);
#endif
#if PARTS > 2
  if (first > 2 * STEP) body(i + 2 * STEP, sums.part[2]...);
  if (first > 3 * STEP) body(i + 3 * STEP, sums.part[3]...);
#endif
}
#ifdef __clang__
template <class T> INLINE T moved(T x, int s) { T r; for (unsigned k = 0; k < sizeof x / sizeof x[0]; k++) r[k] = x[k ^ s]; return r; }
#else
INLINE vf moved(vf x, int s) { return __builtin_shuffle(x, iota_() ^ s); }
INLINE vi moved(vi x, int s) { return __builtin_shuffle(x, iota_() ^ s); }
INLINE hd moved(hd x, int s) { return __builtin_shuffle(x, hl{UP_TO_HALF(SELF)} ^ s); }
INLINE hl moved(hl x, int s) { return __builtin_shuffle(x, hl{UP_TO_HALF(SELF)} ^ s); }
#endif
#define TOTAL(name, of) \
  template <class E, class T> INLINE E name(T x) { \
    if (sizeof x / sizeof(E) > 8) x = of(x, moved(x, 8)); \
    if (sizeof x / sizeof(E) > 4) x = of(x, moved(x, 4)); \
    if (sizeof x / sizeof(E) > 2) x = of(x, moved(x, 2)); \
    return (E)of(x, moved(x, 1))[0]; \
  } \
  template <class E, class H> INLINE E name(Two<H> x) { return name<E>(of(x.a, x.b)); } \
  template <class E, class T> INLINE E name(Sums<T> x) { \
    T all = x.part[0]; \
    if (PARTS == 2) all = of(all, x.part[PARTS - 1]); \
    if (PARTS == 4) all = of(of(all, x.part[PARTS / 2]), of(x.part[PARTS / 4], x.part[PARTS - 1])); \
    return name<E>(all); \
  }
template <class T> INLINE T sum_(T x, T y) { return x + y; }
template <class T> INLINE T product_(T x, T y) { return x * y; }
template <class T> INLINE T both_(T x, T y) { return x & y; }
template <class T> INLINE T either_(T x, T y) { return x | y; }
TOTAL(total_add, sum_) TOTAL(total_mul, product_) TOTAL(total_and, both_) TOTAL(total_or, either_)
struct WordsOfVector { vu a, b; };
#endif

// ---- both: minimum and maximum that keep NaN, as torch's

template <class T> INLINE T minimum_(T a, T b) { return select_(lt_(a, b) | ne_(a, a), a, b); }
template <class T> INLINE T maximum_(T a, T b) { return select_(gt_(a, b) | ne_(a, a), a, b); }
template <class T> INLINE T not_bits(T x) { return ~x; }

#ifdef __CUDACC__
#define CONST(F, x) ((F)(x))
#define INF_ (__int_as_float(0x7f800000))
#define NAN_ (__int_as_float(0x7fc00000))
#else
#define INF_ (__builtin_inff())
#define NAN_ (__builtin_nanf(""))
template <class F> struct constant_ { static MEMBER F of(double x) { return (F)x; } };
template <> struct constant_<vf> { static MEMBER vf of(double x) { return V((float)x); } };
template <> struct constant_<vd> { static MEMBER vd of(double x) { return V(x); } };
template <> struct constant_<vi> { static MEMBER vi of(double x) { return V((int32_t)x); } };
template <> struct constant_<vl> { static MEMBER vl of(double x) { return V((int64_t)x); } };
template <> struct constant_<vu> { static MEMBER vu of(double x) { return (uint32_t)x - vu{}; } };
#define CONST(F, x) (constant_<F>::of(x))
#endif

// ---- elementary functions of float32. Polynomials: Moshier, Cephes mathematical library (single precision).

// x = n ln 2 + r, and the power series of exp(r) without its first two terms
template <class F> INLINE F exp_rest(F x, F& n, F& r) {
  n = fma_(x, CONST(F, 1.44269504088896341), CONST(F, 12582912.0)) - CONST(F, 12582912.0);
  r = fma_(n, CONST(F, 2.12194440e-4), fma_(n, CONST(F, -0.693359375), x));
  F p = CONST(F, 1.9875691500e-4);
  p = fma_(p, r, CONST(F, 1.3981999507e-3)); p = fma_(p, r, CONST(F, 8.3334519073e-3));
  p = fma_(p, r, CONST(F, 4.1665795894e-2)); p = fma_(p, r, CONST(F, 1.6666665459e-1));
  p = fma_(p, r, CONST(F, 5.0000001201e-1));
  return p * r * r;
}
template <class F> INLINE F exp_f32(F x) {
  typedef typename int_of<F>::type I;
  F low = CONST(F, -104.0), high = CONST(F, 89.0);
  F inside = select_(gt_(x, high), high, select_(lt_(x, low), low, x)), n, r;
  F y = exp_rest(inside, n, r) + r + CONST(F, 1.0);
  I k = whole_(select_(ne_(x, x), CONST(F, 0.0), n)), half = k >> 1;
  y = y * float_((half + CONST(I, 127)) << 23) * float_((k - half + CONST(I, 127)) << 23);
  return select_(ne_(x, x), x, y);
}
template <class F> INLINE F expm1_f32(F x) {
  F n, r, rest = exp_rest(x, n, r);
  return select_(le_(abs_(x), CONST(F, 0.34)), x + rest, exp_f32(x) - CONST(F, 1.0));
}
// `ORDINARY`: every element is a normal positive number, and what others need is left out; no bit depends on it.
template <bool ORDINARY, class F> INLINE F log_of(F x) {
  typedef typename int_of<F>::type I;
  I tiny = lt_(x, CONST(F, 1.17549435e-38));
  I b = bits_(ORDINARY ? x : select_(tiny, x * CONST(F, 8388608.0), x));
  F e = to_f32((ORDINARY ? b >> 23 : b >> 23 & CONST(I, 255)) - CONST(I, 126));
  if (!ORDINARY) e = e - select_(tiny, CONST(F, 23.0), CONST(F, 0.0));
  F m = float_((b & CONST(I, 0x7fffff)) | CONST(I, 0x3f000000));
  I small = lt_(m, CONST(F, 0.707106781186547524));
  e = e - select_(small, CONST(F, 1.0), CONST(F, 0.0));
  m = select_(small, m + m, m) - CONST(F, 1.0);
  F z = m * m, p = CONST(F, 7.0376836292e-2);
  p = fma_(p, m, CONST(F, -1.1514610310e-1)); p = fma_(p, m, CONST(F, 1.1676998740e-1));
  p = fma_(p, m, CONST(F, -1.2420140846e-1)); p = fma_(p, m, CONST(F, 1.4249322787e-1));
  p = fma_(p, m, CONST(F, -1.6668057665e-1)); p = fma_(p, m, CONST(F, 2.0000714765e-1));
  p = fma_(p, m, CONST(F, -2.4999993993e-1)); p = fma_(p, m, CONST(F, 3.3333331174e-1));
  F y = p * m * z;
  y = fma_(e, CONST(F, -2.12194440e-4), y);
  y = fma_(z, CONST(F, -0.5), y);
  y = fma_(e, CONST(F, 0.693359375), m + y);
  if (ORDINARY) return y;
  y = select_(eq_(x, CONST(F, INF_)), x, y);
  y = select_(eq_(x, CONST(F, 0.0)), CONST(F, -INF_), y);
  return select_(lt_(x, CONST(F, 0.0)) | ne_(x, x), CONST(F, NAN_), y);
}
INLINE float log_f32(float x) { return log_of<false>(x); }
#ifndef __CUDACC__
static __attribute__((noinline, cold)) vf log_of_others(vf x) { return log_of<false>(x); }
INLINE vf log_f32(vf x) { return all_ordinary(x) ? log_of<true>(x) : log_of_others(x); }
#endif
template <class F> INLINE F log1p_f32(F x) {
  F u = CONST(F, 1.0) + x;
  F y = log_f32(u) + (x - (u - CONST(F, 1.0))) / u;
  y = select_(eq_(u, CONST(F, INF_)) | eq_(u, CONST(F, 0.0)), log_f32(u), y);
  return select_(eq_(u, CONST(F, 1.0)), x, y);
}
// 1 from 9.0109 on, as the exact value rounds; so does torch's, and its gradient is 0 from there on
template <class F> INLINE F tanh_f32(F x) {
  typedef typename int_of<F>::type I;
  F a = abs_(x), z = x * x, p = CONST(F, -5.70498872745e-3);
  p = fma_(p, z, CONST(F, 2.06390887954e-2)); p = fma_(p, z, CONST(F, -5.37397155531e-2));
  p = fma_(p, z, CONST(F, 1.33314422036e-1)); p = fma_(p, z, CONST(F, -3.33332819422e-1));
  F small = fma_(p * z, x, x);
  F large = CONST(F, 1.0) - CONST(F, 2.0) / (exp_f32(a + a) + CONST(F, 1.0));
  large = float_(bits_(large) | (bits_(x) & CONST(I, -2147483648.0)));
  return select_(lt_(a, CONST(F, 0.625)), small, select_(ne_(x, x), x, large));
}
template <class F> struct wide_of {};
template <> struct wide_of<float> { typedef double type; };
#ifndef __CUDACC__
template <> struct wide_of<vf> { typedef vd type; };
#endif
// sine (which = 0) or cosine (1): the argument is reduced in double precision, which is enough up to 1e8; from 1e9 on, where
// neighbouring numbers are many turns apart, it is taken for 0
template <class F> INLINE F circular(F x, int which) {
  typedef typename wide_of<F>::type D;
  typedef typename int_of<F>::type I;
  D w = to_f64(select_(lt_(abs_(x), CONST(F, 1e9)), x, CONST(F, 0.0)));
  D n = fma_(w, CONST(D, 0.63661977236758134308), CONST(D, 6755399441055744.0)) - CONST(D, 6755399441055744.0);
  D d = fma_(n, CONST(D, -6.07710050650619224932e-11), fma_(n, CONST(D, -1.57079632673412561417e+00), w));
  F r = to_f32(d);
  D finite = n - CONST(D, 4.0) * (fma_(n, CONST(D, 0.25), CONST(D, 6755399441055744.0)) - CONST(D, 6755399441055744.0));
  I k = whole_(to_f32(finite)) + CONST(I, which);
  F z = r * r;
  F s = fma_(fma_(fma_(CONST(F, -1.9515295891e-4), z, CONST(F, 8.3321608736e-3)), z, CONST(F, -1.6666654611e-1)) * z, r, r);
  F c = fma_(fma_(CONST(F, 2.443315711809948e-5), z, CONST(F, -1.388731625493765e-3)), z, CONST(F, 4.166664568298827e-2));
  c = fma_(c * z, z, fma_(z, CONST(F, -0.5), CONST(F, 1.0)));
  F y = select_(ne_(k & CONST(I, 1), CONST(I, 0)), c, s);
  y = select_(ne_(k & CONST(I, 2), CONST(I, 0)), -y, y);
  return select_(lt_(abs_(x), CONST(F, INF_)), y, CONST(F, NAN_));
}
template <class F> INLINE F sin_f32(F x) { return circular(x, 0); }
template <class F> INLINE F cos_f32(F x) { return circular(x, 1); }
template <class F> INLINE F floor_any(F x, F magic) {
  F n = (abs_(x) + magic) - magic;
  n = select_(lt_(x, CONST(F, 0.0)), -n, n);
  n = select_(gt_(n, x), n - CONST(F, 1.0), n);
  return select_(lt_(abs_(x), magic), n, x);
}
template <class F> INLINE F floor_f32(F x) { return floor_any(x, CONST(F, 8388608.0)); }
template <class D> INLINE D floor_f64(D x) { return floor_any(x, CONST(D, 4503599627370496.0)); }

// ---- elementary functions of float64, for learning rates and powers. Polynomials: Sun Microsystems, fdlibm.

template <class D> INLINE D exp_f64(D x) {
  typedef typename int_of<D>::type I;
  D low = CONST(D, -746.0), high = CONST(D, 710.0);
  D inside = select_(gt_(x, high), high, select_(lt_(x, low), low, x));
  D n = fma_(inside, CONST(D, 1.44269504088896338700e+00), CONST(D, 6755399441055744.0)) - CONST(D, 6755399441055744.0);
  n = select_(ne_(x, x), CONST(D, 0.0), n);
  D hi = fma_(n, CONST(D, -6.93147180369123816490e-01), inside), lo = n * CONST(D, 1.90821492927058770002e-10);
  D r = hi - lo, z = r * r, p = CONST(D, 4.13813679705723846039e-08);
  p = fma_(p, z, CONST(D, -1.65339022054652515390e-06)); p = fma_(p, z, CONST(D, 6.61375632143793436117e-05));
  p = fma_(p, z, CONST(D, -2.77777777770155933842e-03)); p = fma_(p, z, CONST(D, 1.66666666666666019037e-01));
  D c = r - z * p;
  D y = CONST(D, 1.0) - ((lo - (r * c) / (CONST(D, 2.0) - c)) - hi);
  I k = whole_(n), half = k >> 1;
  y = y * double_((half + CONST(I, 1023)) << 52) * double_((k - half + CONST(I, 1023)) << 52);
  return select_(ne_(x, x), x, y);
}
template <class D> INLINE D log_f64(D x) {
  typedef typename int_of<D>::type I;
  auto tiny = lt_(x, CONST(D, 2.2250738585072014e-308));
  I b = bits_(select_(tiny, x * CONST(D, 18014398509481984.0), x));
  D e = to_f64((b >> 52 & CONST(I, 2047)) - CONST(I, 1022)) - select_(tiny, CONST(D, 54.0), CONST(D, 0.0));
  D m = double_((b & CONST(I, 0xfffffffffffffll)) | CONST(I, 0x3fe0000000000000ll));
  auto small = lt_(m, CONST(D, 0.70710678118654752440));
  e = e - select_(small, CONST(D, 1.0), CONST(D, 0.0));
  D f = select_(small, m + m, m) - CONST(D, 1.0), s = f / (CONST(D, 2.0) + f), z = s * s, p = CONST(D, 1.479819860511658591e-01);
  p = fma_(p, z, CONST(D, 1.531383769920937332e-01)); p = fma_(p, z, CONST(D, 1.818357216161805012e-01));
  p = fma_(p, z, CONST(D, 2.222219843214978396e-01)); p = fma_(p, z, CONST(D, 2.857142874366239149e-01));
  p = fma_(p, z, CONST(D, 3.999999999940941908e-01)); p = fma_(p, z, CONST(D, 6.666666666666735130e-01));
  D half = CONST(D, 0.5) * f * f;
  D y = e * CONST(D, 6.93147180369123816490e-01) - ((half - (s * (half + p * z) + e * CONST(D, 1.90821492927058770002e-10))) - f);
  y = select_(eq_(x, CONST(D, INF_)), x, y);
  y = select_(eq_(x, CONST(D, 0.0)), CONST(D, -INF_), y);
  return select_(lt_(x, CONST(D, 0.0)) | ne_(x, x), CONST(D, NAN_), y);
}
// exp(y log |x|): relative error about 1e-16 (1 + |y log x|); special values as in C
template <class D> INLINE D pow_f64(D x, D y) {
  D one = CONST(D, 1.0), zero = CONST(D, 0.0), r = exp_f64(y * log_f64(abs_(x)));
  auto whole = eq_(floor_f64(y), y), odd = whole & ne_(floor_f64(y * CONST(D, 0.5)) * CONST(D, 2.0), y);
  r = select_(odd & lt_(x, zero), -r, r);
  r = select_(lt_(x, zero) & gt_(x, CONST(D, -INF_)) & ~whole, CONST(D, NAN_), r);
  r = select_(eq_(abs_(x), one) & eq_(abs_(y), CONST(D, INF_)), one, r);
  return select_(eq_(y, zero) | eq_(x, one), one, r);
}
template <class F> INLINE F pow_f32(F x, F y) { return to_f32(pow_f64(to_f64(x), to_f64(y))); }

// ---- Threefry-2x32 with 13 rounds: Salmon et al. (2011)

template <class U> INLINE U rotate_(U x, int n) { return (x << n) | (x >> (32 - n)); }
#if !defined(__CUDACC__) && STEP == 16
INLINE vu rotate_(vu x, int n) { return (vu)_mm512_rolv_epi32((__m512i)x, (__m512i)V((int32_t)n)); }
#endif
template <class U> INLINE void threefry_rounds(U k0, U k1, U& x0, U& x1) {
  U k2 = k0 ^ k1 ^ CONST(U, 0x1BD11BDAu);
#define ROUND(r) x0 = x0 + x1; x1 = rotate_(x1, r) ^ x0;
  x0 = x0 + k0; x1 = x1 + k1;
  ROUND(13) ROUND(15) ROUND(26) ROUND(6) x0 = x0 + k1; x1 = x1 + (k2 + CONST(U, 1u));
  ROUND(17) ROUND(29) ROUND(16) ROUND(24) x0 = x0 + k2; x1 = x1 + (k0 + CONST(U, 2u));
  ROUND(13) ROUND(15) ROUND(26) ROUND(6) x0 = x0 + k0; x1 = x1 + (k1 + CONST(U, 3u));
  ROUND(17)
#undef ROUND
}
INLINE Words threefry(int32_t k0, int32_t k1, int32_t c0, int32_t c1) {
  uint32_t a = (uint32_t)c0, b = (uint32_t)c1; threefry_rounds((uint32_t)k0, (uint32_t)k1, a, b); return Words{a, b};
}
INLINE int32_t first_(Words w) { return (int32_t)w.a; }
INLINE int32_t second_(Words w) { return (int32_t)w.b; }
#ifndef __CUDACC__
INLINE WordsOfVector threefry(vi k0, vi k1, vi c0, vi c1) {
  vu a = (vu)c0, b = (vu)c1; threefry_rounds((vu)k0, (vu)k1, a, b); return WordsOfVector{a, b};
}
INLINE vi first_(WordsOfVector w) { return (vi)w.a; }
INLINE vi second_(WordsOfVector w) { return (vi)w.b; }
// Of halves (numbers of 64 bits) and of vectors
INLINE hd minimum_(hd a, hd b) { return (a < b) | (a != a) ? a : b; }
INLINE hd maximum_(hd a, hd b) { return (a > b) | (a != a) ? a : b; }
INLINE hl minimum_(hl a, hl b) { return a < b ? a : b; }
INLINE hl maximum_(hl a, hl b) { return a > b ? a : b; }
TOTAL(total_maximum, maximum_) TOTAL(total_minimum, minimum_)
#endif
