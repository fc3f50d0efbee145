// Numbers of lane programs: vectors of 8, elementary functions, and Threefry. Included by generated C++ (a vector is 8 elements
// of a lane) and CUDA (a thread computes single elements). Every function has one sequence of IEEE operations, for vectors and
// single numbers alike, with fused multiply-adds exactly where `fma_` is written: bits do not depend on the instruction set.
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
// ---- vectors

typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint32_t vu __attribute__((vector_size(32)));
typedef double vd __attribute__((vector_size(64)));
typedef int64_t vl __attribute__((vector_size(64)));
typedef uint64_t vlu __attribute__((vector_size(64)));
template <class F> struct int_of {};
template <> struct int_of<float> { typedef int32_t type; };
template <> struct int_of<double> { typedef int64_t type; };
template <> struct int_of<vf> { typedef vi type; };
template <> struct int_of<vd> { typedef vl type; };

#define CONVERT(x, T) __builtin_convertvector(x, T)
INLINE vf V(float x) { return vf{x, x, x, x, x, x, x, x}; }
INLINE vi V(int32_t x) { return vi{x, x, x, x, x, x, x, x}; }
INLINE vd V(double x) { return vd{x, x, x, x, x, x, x, x}; }
INLINE vl V(int64_t x) { return vl{x, x, x, x, x, x, x, x}; }
INLINE vi iota_() { return vi{0, 1, 2, 3, 4, 5, 6, 7}; }
#ifdef __FMA__
INLINE vf fma_(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
#else
INLINE vf fma_(vf a, vf b, vf c) { for (int k = 0; k < 8; k++) c[k] = __builtin_fmaf(a[k], b[k], c[k]); return c; }
#endif
INLINE vd fma_(vd a, vd b, vd c) { for (int k = 0; k < 8; k++) c[k] = __builtin_fma(a[k], b[k], c[k]); return c; }
#ifdef __AVX2__
INLINE vf sqrt_(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
#else
INLINE vf sqrt_(vf x) { for (int k = 0; k < 8; k++) x[k] = __builtin_sqrtf(x[k]); return x; }
#endif
INLINE vd sqrt_(vd x) { for (int k = 0; k < 8; k++) x[k] = __builtin_sqrt(x[k]); return x; }
INLINE vf abs_(vf x) { return (vf)((vi)x & 0x7fffffff); }
INLINE vd abs_(vd x) { return (vd)((vl)x & 0x7fffffffffffffffll); }
INLINE vi abs_(vi x) { return x < 0 ? -x : x; }
INLINE vl abs_(vl x) { return x < 0 ? -x : x; }
#define COMPARE(name, op) \
  INLINE vi name(vf a, vf b) { return a op b; } \
  INLINE vi name(vi a, vi b) { return a op b; } \
  INLINE vi name(vd a, vd b) { return CONVERT((vl)(a op b), vi); } \
  INLINE vi name(vl a, vl b) { return CONVERT((vl)(a op b), vi); }
COMPARE(lt_, <) COMPARE(le_, <=) COMPARE(gt_, >) COMPARE(ge_, >=) COMPARE(eq_, ==) COMPARE(ne_, !=)
INLINE vf select_(vi m, vf a, vf b) { return m ? a : b; }
INLINE vi select_(vi m, vi a, vi b) { return m ? a : b; }
INLINE vd select_(vi m, vd a, vd b) { return CONVERT(m, vl) ? a : b; }
INLINE vl select_(vi m, vl a, vl b) { return CONVERT(m, vl) ? a : b; }
INLINE vf to_f32(vi x) { return CONVERT(x, vf); }
INLINE vf to_f32(vd x) { return CONVERT(x, vf); }
INLINE vf to_f32(vl x) { return CONVERT(x, vf); }
INLINE vd to_f64(vf x) { return CONVERT(x, vd); }
INLINE vd to_f64(vi x) { return CONVERT(x, vd); }
INLINE vd to_f64(vl x) { return CONVERT(x, vd); }
INLINE vi to_i32(vf x) { return CONVERT(x, vi); }
INLINE vi to_i32(vd x) { return CONVERT(x, vi); }
INLINE vi to_i32(vl x) { return CONVERT(x, vi); }
INLINE vl to_i64(vf x) { return CONVERT(x, vl); }
INLINE vl to_i64(vi x) { return CONVERT(x, vl); }
INLINE vl to_i64(vd x) { return CONVERT(x, vl); }
INLINE vi shl_(vi x, int n) { return (vi)((vu)x << n); }
INLINE vl shl_(vl x, int n) { return (vl)((vlu)x << n); }
INLINE vi shr_(vi x, int n) { return x >> n; }
INLINE vl shr_(vl x, int n) { return x >> n; }
INLINE vi bits_(vf x) { return (vi)x; }
INLINE vf float_(vi x) { return (vf)x; }
INLINE vl bits_(vd x) { return (vl)x; }
INLINE vd double_(vl x) { return (vd)x; }
INLINE vi whole_(vf x) { return CONVERT(x, vi); }
INLINE vl whole_(vd x) { return CONVERT(x, vl); }
INLINE vi remainder_(vi a, vi b) { for (int k = 0; k < 8; k++) a[k] = remainder_(a[k], b[k]); return a; }
INLINE vl remainder_(vl a, vl b) { for (int k = 0; k < 8; k++) a[k] = remainder_(a[k], b[k]); return a; }
struct Words8 { vu a, b; };

// Memory: rows are read and written as whole vectors; `first` elements of a vector, or elements at a distance, where they are not.
INLINE vf load(const float* p) { vf r; memcpy(&r, p, 32); return r; }
INLINE vi load(const int32_t* p) { vi r; memcpy(&r, p, 32); return r; }
INLINE vd load(const double* p) { vd r; memcpy(&r, p, 64); return r; }
INLINE vl load(const int64_t* p) { vl r; memcpy(&r, p, 64); return r; }
template <class T, class E> INLINE void store(E* p, T v) { memcpy(p, &v, sizeof v); }
template <class T, class E> INLINE void store_first(E* p, T v, int first) { if (first >= 8) store(p, v); else for (int k = 0; k < first; k++) p[k] = v[k]; }
INLINE vf gather(const float* p, int d) { return vf{p[0], p[d], p[2 * d], p[3 * d], p[4 * d], p[5 * d], p[6 * d], p[7 * d]}; }
INLINE vi gather(const int32_t* p, int d) { return vi{p[0], p[d], p[2 * d], p[3 * d], p[4 * d], p[5 * d], p[6 * d], p[7 * d]}; }
INLINE vd gather(const double* p, int d) { return vd{p[0], p[d], p[2 * d], p[3 * d], p[4 * d], p[5 * d], p[6 * d], p[7 * d]}; }
INLINE vl gather(const int64_t* p, int d) { return vl{p[0], p[d], p[2 * d], p[3 * d], p[4 * d], p[5 * d], p[6 * d], p[7 * d]}; }
template <class T, class E> INLINE void scatter(E* p, int d, T v, int first) { for (int k = 0; k < first && k < 8; k++) p[k * d] = v[k]; }
INLINE vf gather_first(const float* p, int d, int first) { vf r; for (int k = 0; k < 8; k++) r[k] = p[(k < first ? k : first - 1) * d]; return r; }
INLINE vi gather_first(const int32_t* p, int d, int first) { vi r; for (int k = 0; k < 8; k++) r[k] = p[(k < first ? k : first - 1) * d]; return r; }
INLINE vd gather_first(const double* p, int d, int first) { vd r; for (int k = 0; k < 8; k++) r[k] = p[(k < first ? k : first - 1) * d]; return r; }
INLINE vl gather_first(const int64_t* p, int d, int first) { vl r; for (int k = 0; k < 8; k++) r[k] = p[(k < first ? k : first - 1) * d]; return r; }
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
template <class F> struct constant_ { static __attribute__((always_inline)) F of(double x) { return (F)x; } };
template <> struct constant_<vf> { static __attribute__((always_inline)) vf of(double x) { return V((float)x); } };
template <> struct constant_<vd> { static __attribute__((always_inline)) vd of(double x) { return V(x); } };
template <> struct constant_<vi> { static __attribute__((always_inline)) vi of(double x) { return V((int32_t)x); } };
template <> struct constant_<vl> { static __attribute__((always_inline)) vl of(double x) { return V((int64_t)x); } };
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
template <class F> INLINE F log_f32(F x) {
  typedef typename int_of<F>::type I;
  I tiny = lt_(x, CONST(F, 1.17549435e-38));
  F scaled = select_(tiny, x * CONST(F, 8388608.0), x);
  I b = bits_(scaled);
  F e = to_f32((b >> 23 & CONST(I, 255)) - CONST(I, 126)) - select_(tiny, CONST(F, 23.0), CONST(F, 0.0));
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
  y = select_(eq_(x, CONST(F, INF_)), x, y);
  y = select_(eq_(x, CONST(F, 0.0)), CONST(F, -INF_), y);
  return select_(lt_(x, CONST(F, 0.0)) | ne_(x, x), CONST(F, NAN_), y);
}
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
template <class U> INLINE void threefry_rounds(U k0, U k1, U& x0, U& x1) {
  U k2 = k0 ^ k1 ^ (k0 - k0 + 0x1BD11BDAu);
#define ROUND(r) x0 = x0 + x1; x1 = rotate_(x1, r) ^ x0;
  x0 = x0 + k0; x1 = x1 + k1;
  ROUND(13) ROUND(15) ROUND(26) ROUND(6) x0 = x0 + k1; x1 = x1 + (k2 + 1u);
  ROUND(17) ROUND(29) ROUND(16) ROUND(24) x0 = x0 + k2; x1 = x1 + (k0 + 2u);
  ROUND(13) ROUND(15) ROUND(26) ROUND(6) x0 = x0 + k0; x1 = x1 + (k1 + 3u);
  ROUND(17)
#undef ROUND
}
INLINE Words threefry(int32_t k0, int32_t k1, int32_t c0, int32_t c1) {
  uint32_t a = (uint32_t)c0, b = (uint32_t)c1; threefry_rounds((uint32_t)k0, (uint32_t)k1, a, b); return Words{a, b};
}
INLINE int32_t first_(Words w) { return (int32_t)w.a; }
INLINE int32_t second_(Words w) { return (int32_t)w.b; }
#ifndef __CUDACC__
INLINE Words8 threefry(vi k0, vi k1, vi c0, vi c1) {
  vu a = (vu)c0, b = (vu)c1; threefry_rounds((vu)k0, (vu)k1, a, b); return Words8{a, b};
}
INLINE vi first_(Words8 w) { return (vi)w.a; }
INLINE vi second_(Words8 w) { return (vi)w.b; }
#define SUM_TREE(v, op) (((v[0] op v[4]) op (v[2] op v[6])) op ((v[1] op v[5]) op (v[3] op v[7])))
template <class E, class T> INLINE E total_add(T v) { return SUM_TREE(v, +); }
template <class E, class T> INLINE E total_mul(T v) { return SUM_TREE(v, *); }
template <class E, class T> INLINE E total_and(T v) { return SUM_TREE(v, &); }
template <class E, class T> INLINE E total_or(T v) { return SUM_TREE(v, |); }
template <class E, class T> INLINE E total_maximum(T v) { E r = v[0]; for (int k = 1; k < 8; k++) r = maximum_(r, (E)v[k]); return r; }
template <class E, class T> INLINE E total_minimum(T v) { E r = v[0]; for (int k = 1; k < 8; k++) r = minimum_(r, (E)v[k]); return r; }
#endif
