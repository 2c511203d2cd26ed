/* The vector vocabulary in which every kernel is written.
 *
 * An ISA's stub defines KLCE_VECTOR_BYTES (64, 32, 16, or 0 for plain scalars) and includes this
 * file once.  It gives, for R in {f32, f64}, the vector type v_R, its bits as an integer vector
 * b_R, a mask type m_R, and static inline functions named <verb>_R.  Arithmetic + - * / and, on
 * b_R, & | ^ - + << >> are the compiler's own.  Only what compilers lower badly is spelt in
 * intrinsics.
 *
 * min and max are the x86 instructions, everywhere: the second operand if either is nan or if they
 * are equal.  Kernels use that to keep nan out of (max(x, m)) or let it through (max(low, x)).
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if KLCE_VECTOR_BYTES && defined(__x86_64__)
#include <immintrin.h>
#elif KLCE_VECTOR_BYTES && defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__GNUC__)
#define KLCE_INLINE static inline __attribute__((always_inline, unused))
#define KLCE_NOINLINE __attribute__((noinline))
#define KLCE_PREFETCH(address) __builtin_prefetch(address)
#define KLCE_PREFETCH_L2(address) __builtin_prefetch(address, 0, 2)
#else
#define KLCE_INLINE static inline
#define KLCE_NOINLINE
#define KLCE_PREFETCH(address) ((void)(address))
#define KLCE_PREFETCH_L2(address) ((void)(address))
#endif

/* The place of the lowest bit of some. */
KLCE_INLINE int lowest_bit(uint64_t bits)
{
#if defined(__GNUC__)
    return __builtin_ctzll(bits);
#else
    int place = 0;
    for (; !(bits & 1); bits >>= 1)
        place++;
    return place;
#endif
}

/* Loops over the vectors of a group are unrolled whole, so that arrays of vectors live in
 * registers. */
#if defined(__clang__)
#define KLCE_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define KLCE_UNROLL _Pragma("GCC unroll 64")
#else
#define KLCE_UNROLL
#endif

/* Exponentials computed side by side, with their constants in registers: there are 32 of 64 bytes,
 * else too few for more than one. */
#define KLCE_BESIDE (KLCE_VECTOR_BYTES == 64 ? 4 : 1)

#if KLCE_VECTOR_BYTES
#define KLCE_WIDTH_f32 (KLCE_VECTOR_BYTES / 4)
#define KLCE_WIDTH_f64 (KLCE_VECTOR_BYTES / 8)
typedef float v_f32 __attribute__((vector_size(KLCE_VECTOR_BYTES)));
typedef double v_f64 __attribute__((vector_size(KLCE_VECTOR_BYTES)));
typedef uint32_t b_f32 __attribute__((vector_size(KLCE_VECTOR_BYTES)));
typedef uint64_t b_f64 __attribute__((vector_size(KLCE_VECTOR_BYTES)));
typedef int32_t s_f32 __attribute__((vector_size(KLCE_VECTOR_BYTES)));
typedef int64_t s_f64 __attribute__((vector_size(KLCE_VECTOR_BYTES)));
typedef float v_f32_unaligned
    __attribute__((vector_size(KLCE_VECTOR_BYTES), aligned(4), may_alias));
typedef double v_f64_unaligned
    __attribute__((vector_size(KLCE_VECTOR_BYTES), aligned(8), may_alias));
#else
#define KLCE_WIDTH_f32 1
#define KLCE_WIDTH_f64 1
typedef float v_f32;
typedef double v_f64;
typedef uint32_t b_f32;
typedef uint64_t b_f64;
#endif

typedef int32_t bits_scalar_f32;
typedef int64_t bits_scalar_f64;

/* ---- Comparison, selection, fused multiply-add, partial loads and stores: per ISA ---- */

#if KLCE_VECTOR_BYTES == 64
#define KLCE_FMA 1
typedef __mmask16 m_f32;
typedef __mmask8 m_f64;
KLCE_INLINE v_f32 fma_f32(v_f32 a, v_f32 b, v_f32 c) { return _mm512_fmadd_ps(a, b, c); }
KLCE_INLINE v_f64 fma_f64(v_f64 a, v_f64 b, v_f64 c) { return _mm512_fmadd_pd(a, b, c); }
KLCE_INLINE v_f32 min_f32(v_f32 a, v_f32 b) { return _mm512_min_ps(a, b); }
KLCE_INLINE v_f64 min_f64(v_f64 a, v_f64 b) { return _mm512_min_pd(a, b); }
KLCE_INLINE v_f32 max_f32(v_f32 a, v_f32 b) { return _mm512_max_ps(a, b); }
KLCE_INLINE v_f64 max_f64(v_f64 a, v_f64 b) { return _mm512_max_pd(a, b); }
KLCE_INLINE m_f32 lt_f32(v_f32 a, v_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
KLCE_INLINE m_f64 lt_f64(v_f64 a, v_f64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
KLCE_INLINE m_f32 le_f32(v_f32 a, v_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
KLCE_INLINE m_f64 le_f64(v_f64 a, v_f64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
KLCE_INLINE m_f32 eq_f32(v_f32 a, v_f32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
KLCE_INLINE m_f64 eq_f64(v_f64 a, v_f64 b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
KLCE_INLINE m_f64 eq_bits_f64(b_f64 a, b_f64 b)
{
    return _mm512_cmpeq_epi64_mask((__m512i)a, (__m512i)b);
}
KLCE_INLINE m_f32 and_f32(m_f32 a, m_f32 b) { return a & b; }
KLCE_INLINE m_f64 and_f64(m_f64 a, m_f64 b) { return a & b; }
KLCE_INLINE m_f32 or_f32(m_f32 a, m_f32 b) { return a | b; }
KLCE_INLINE m_f64 or_f64(m_f64 a, m_f64 b) { return a | b; }
KLCE_INLINE m_f32 not_f32(m_f32 a) { return (m_f32)~a; }
KLCE_INLINE m_f64 not_f64(m_f64 a) { return (m_f64)~a; }
KLCE_INLINE v_f32 select_f32(m_f32 m, v_f32 a, v_f32 b) { return _mm512_mask_blend_ps(m, b, a); }
KLCE_INLINE v_f64 select_f64(m_f64 m, v_f64 a, v_f64 b) { return _mm512_mask_blend_pd(m, b, a); }
KLCE_INLINE int bits_f32(m_f32 m) { return m; }
KLCE_INLINE int bits_f64(m_f64 m) { return m; }
KLCE_INLINE int any_f32(m_f32 m) { return m != 0; }
KLCE_INLINE int any_f64(m_f64 m) { return m != 0; }
KLCE_INLINE int first_f32(m_f32 m) { return __builtin_ctz(m); }
KLCE_INLINE int first_f64(m_f64 m) { return __builtin_ctz(m); }
KLCE_INLINE v_f32 load_part_f32(const float *p, int k, v_f32 fill)
{
    return _mm512_mask_loadu_ps(fill, (__mmask16)((1u << k) - 1), p);
}
KLCE_INLINE v_f64 load_part_f64(const double *p, int k, v_f64 fill)
{
    return _mm512_mask_loadu_pd(fill, (__mmask8)((1u << k) - 1), p);
}
KLCE_INLINE void store_part_f32(float *p, int k, v_f32 v)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << k) - 1), v);
}
KLCE_INLINE void store_part_f64(double *p, int k, v_f64 v)
{
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << k) - 1), v);
}

#elif KLCE_VECTOR_BYTES == 32
#define KLCE_FMA 1
typedef s_f32 m_f32;
typedef s_f64 m_f64;
KLCE_INLINE v_f32 fma_f32(v_f32 a, v_f32 b, v_f32 c) { return _mm256_fmadd_ps(a, b, c); }
KLCE_INLINE v_f64 fma_f64(v_f64 a, v_f64 b, v_f64 c) { return _mm256_fmadd_pd(a, b, c); }
KLCE_INLINE v_f32 min_f32(v_f32 a, v_f32 b) { return _mm256_min_ps(a, b); }
KLCE_INLINE v_f64 min_f64(v_f64 a, v_f64 b) { return _mm256_min_pd(a, b); }
KLCE_INLINE v_f32 max_f32(v_f32 a, v_f32 b) { return _mm256_max_ps(a, b); }
KLCE_INLINE v_f64 max_f64(v_f64 a, v_f64 b) { return _mm256_max_pd(a, b); }
KLCE_INLINE v_f32 select_f32(m_f32 m, v_f32 a, v_f32 b) { return _mm256_blendv_ps(b, a, (v_f32)m); }
KLCE_INLINE v_f64 select_f64(m_f64 m, v_f64 a, v_f64 b) { return _mm256_blendv_pd(b, a, (v_f64)m); }
KLCE_INLINE int bits_f32(m_f32 m) { return _mm256_movemask_ps((v_f32)m); }
KLCE_INLINE int bits_f64(m_f64 m) { return _mm256_movemask_pd((v_f64)m); }
KLCE_INLINE s_f32 lanes_below_f32(int k)
{
    return (s_f32){0, 1, 2, 3, 4, 5, 6, 7} < (s_f32)_mm256_set1_epi32(k);
}
KLCE_INLINE s_f64 lanes_below_f64(int k)
{
    return (s_f64){0, 1, 2, 3} < (s_f64)_mm256_set1_epi64x(k);
}
KLCE_INLINE v_f32 load_part_f32(const float *p, int k, v_f32 fill)
{
    s_f32 m = lanes_below_f32(k);
    return select_f32(m, _mm256_maskload_ps(p, (__m256i)m), fill);
}
KLCE_INLINE v_f64 load_part_f64(const double *p, int k, v_f64 fill)
{
    s_f64 m = lanes_below_f64(k);
    return select_f64(m, _mm256_maskload_pd(p, (__m256i)m), fill);
}
KLCE_INLINE void store_part_f32(float *p, int k, v_f32 v)
{
    _mm256_maskstore_ps(p, (__m256i)lanes_below_f32(k), v);
}
KLCE_INLINE void store_part_f64(double *p, int k, v_f64 v)
{
    _mm256_maskstore_pd(p, (__m256i)lanes_below_f64(k), v);
}

#elif KLCE_VECTOR_BYTES == 16 && defined(__x86_64__)
#define KLCE_FMA 0
typedef s_f32 m_f32;
typedef s_f64 m_f64;
KLCE_INLINE v_f32 fma_f32(v_f32 a, v_f32 b, v_f32 c) { return a * b + c; }
KLCE_INLINE v_f64 fma_f64(v_f64 a, v_f64 b, v_f64 c) { return a * b + c; }
KLCE_INLINE v_f32 min_f32(v_f32 a, v_f32 b) { return _mm_min_ps(a, b); }
KLCE_INLINE v_f64 min_f64(v_f64 a, v_f64 b) { return _mm_min_pd(a, b); }
KLCE_INLINE v_f32 max_f32(v_f32 a, v_f32 b) { return _mm_max_ps(a, b); }
KLCE_INLINE v_f64 max_f64(v_f64 a, v_f64 b) { return _mm_max_pd(a, b); }
/* gcc 12 with its sanitizers fails on what it makes of a < b on vectors. */
KLCE_INLINE m_f32 lt_f32(v_f32 a, v_f32 b) { return (m_f32)_mm_cmplt_ps(a, b); }
KLCE_INLINE m_f64 lt_f64(v_f64 a, v_f64 b) { return (m_f64)_mm_cmplt_pd(a, b); }
KLCE_INLINE m_f32 le_f32(v_f32 a, v_f32 b) { return (m_f32)_mm_cmple_ps(a, b); }
KLCE_INLINE m_f64 le_f64(v_f64 a, v_f64 b) { return (m_f64)_mm_cmple_pd(a, b); }
KLCE_INLINE m_f32 eq_f32(v_f32 a, v_f32 b) { return (m_f32)_mm_cmpeq_ps(a, b); }
KLCE_INLINE m_f64 eq_f64(v_f64 a, v_f64 b) { return (m_f64)_mm_cmpeq_pd(a, b); }
KLCE_INLINE v_f32 select_f32(m_f32 m, v_f32 a, v_f32 b)
{
    return (v_f32)((m & (s_f32)a) | (~m & (s_f32)b));
}
KLCE_INLINE v_f64 select_f64(m_f64 m, v_f64 a, v_f64 b)
{
    return (v_f64)((m & (s_f64)a) | (~m & (s_f64)b));
}
KLCE_INLINE int bits_f32(m_f32 m) { return _mm_movemask_ps((v_f32)m); }
KLCE_INLINE int bits_f64(m_f64 m) { return _mm_movemask_pd((v_f64)m); }

#elif KLCE_VECTOR_BYTES == 16 && defined(__aarch64__)
#define KLCE_FMA 1
typedef s_f32 m_f32;
typedef s_f64 m_f64;
KLCE_INLINE v_f32 select_f32(m_f32 m, v_f32 a, v_f32 b)
{
    return (v_f32)vbslq_f32((uint32x4_t)m, (float32x4_t)a, (float32x4_t)b);
}
KLCE_INLINE v_f64 select_f64(m_f64 m, v_f64 a, v_f64 b)
{
    return (v_f64)vbslq_f64((uint64x2_t)m, (float64x2_t)a, (float64x2_t)b);
}
KLCE_INLINE v_f32 fma_f32(v_f32 a, v_f32 b, v_f32 c)
{
    return (v_f32)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
KLCE_INLINE v_f64 fma_f64(v_f64 a, v_f64 b, v_f64 c)
{
    return (v_f64)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
KLCE_INLINE v_f32 min_f32(v_f32 a, v_f32 b) { return select_f32(a < b, a, b); }
KLCE_INLINE v_f64 min_f64(v_f64 a, v_f64 b) { return select_f64(a < b, a, b); }
KLCE_INLINE v_f32 max_f32(v_f32 a, v_f32 b) { return select_f32(a > b, a, b); }
KLCE_INLINE v_f64 max_f64(v_f64 a, v_f64 b) { return select_f64(a > b, a, b); }
KLCE_INLINE int bits_f32(m_f32 m)
{
    return (int)((m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8));
}
KLCE_INLINE int bits_f64(m_f64 m) { return (int)((m[0] & 1) | (m[1] & 2)); }

#elif KLCE_VECTOR_BYTES == 0
#define KLCE_FMA 0
typedef int m_f32;
typedef int m_f64;
KLCE_INLINE v_f32 fma_f32(v_f32 a, v_f32 b, v_f32 c) { return a * b + c; }
KLCE_INLINE v_f64 fma_f64(v_f64 a, v_f64 b, v_f64 c) { return a * b + c; }
KLCE_INLINE v_f32 min_f32(v_f32 a, v_f32 b) { return a < b ? a : b; }
KLCE_INLINE v_f64 min_f64(v_f64 a, v_f64 b) { return a < b ? a : b; }
KLCE_INLINE v_f32 max_f32(v_f32 a, v_f32 b) { return a > b ? a : b; }
KLCE_INLINE v_f64 max_f64(v_f64 a, v_f64 b) { return a > b ? a : b; }
KLCE_INLINE v_f32 select_f32(m_f32 m, v_f32 a, v_f32 b) { return m ? a : b; }
KLCE_INLINE v_f64 select_f64(m_f64 m, v_f64 a, v_f64 b) { return m ? a : b; }
KLCE_INLINE int bits_f32(m_f32 m) { return m; }
KLCE_INLINE int bits_f64(m_f64 m) { return m; }
KLCE_INLINE m_f32 not_f32(m_f32 a) { return !a; }
KLCE_INLINE m_f64 not_f64(m_f64 a) { return !a; }
#else
#error "KLCE_VECTOR_BYTES is not a width that this platform has"
#endif

#if KLCE_VECTOR_BYTES != 64 /* comparisons give a vector (or one int) of 0 and -1 (or 1) */
#if KLCE_VECTOR_BYTES != 16 || !defined(__x86_64__)
KLCE_INLINE m_f32 lt_f32(v_f32 a, v_f32 b) { return a < b; }
KLCE_INLINE m_f64 lt_f64(v_f64 a, v_f64 b) { return a < b; }
KLCE_INLINE m_f32 le_f32(v_f32 a, v_f32 b) { return a <= b; }
KLCE_INLINE m_f64 le_f64(v_f64 a, v_f64 b) { return a <= b; }
KLCE_INLINE m_f32 eq_f32(v_f32 a, v_f32 b) { return a == b; }
KLCE_INLINE m_f64 eq_f64(v_f64 a, v_f64 b) { return a == b; }
#endif
KLCE_INLINE m_f64 eq_bits_f64(b_f64 a, b_f64 b) { return a == b; }
KLCE_INLINE m_f32 and_f32(m_f32 a, m_f32 b) { return a & b; }
KLCE_INLINE m_f64 and_f64(m_f64 a, m_f64 b) { return a & b; }
KLCE_INLINE m_f32 or_f32(m_f32 a, m_f32 b) { return a | b; }
KLCE_INLINE m_f64 or_f64(m_f64 a, m_f64 b) { return a | b; }
KLCE_INLINE int any_f32(m_f32 m) { return bits_f32(m) != 0; }
KLCE_INLINE int any_f64(m_f64 m) { return bits_f64(m) != 0; }
#if KLCE_VECTOR_BYTES
KLCE_INLINE m_f32 not_f32(m_f32 a) { return ~a; }
KLCE_INLINE m_f64 not_f64(m_f64 a) { return ~a; }
KLCE_INLINE int first_f32(m_f32 m) { return __builtin_ctz((unsigned)bits_f32(m)); }
KLCE_INLINE int first_f64(m_f64 m) { return __builtin_ctz((unsigned)bits_f64(m)); }
#else
KLCE_INLINE int first_f32(m_f32 m) { return (void)m, 0; }
KLCE_INLINE int first_f64(m_f64 m) { return (void)m, 0; }
#endif
#endif

#if KLCE_VECTOR_BYTES == 16 /* no masked memory access: lane by lane, never past k */
KLCE_INLINE v_f32 load_part_f32(const float *p, int k, v_f32 fill)
{
    for (int i = 0; i < k; i++)
        fill[i] = p[i];
    return fill;
}
KLCE_INLINE v_f64 load_part_f64(const double *p, int k, v_f64 fill)
{
    for (int i = 0; i < k; i++)
        fill[i] = p[i];
    return fill;
}
KLCE_INLINE void store_part_f32(float *p, int k, v_f32 v)
{
    for (int i = 0; i < k; i++)
        p[i] = v[i];
}
KLCE_INLINE void store_part_f64(double *p, int k, v_f64 v)
{
    for (int i = 0; i < k; i++)
        p[i] = v[i];
}
#elif KLCE_VECTOR_BYTES == 0
KLCE_INLINE v_f32 load_part_f32(const float *p, int k, v_f32 fill) { return k ? *p : fill; }
KLCE_INLINE v_f64 load_part_f64(const double *p, int k, v_f64 fill) { return k ? *p : fill; }
KLCE_INLINE void store_part_f32(float *p, int k, v_f32 v)
{
    if (k)
        *p = v;
}
KLCE_INLINE void store_part_f64(double *p, int k, v_f64 v)
{
    if (k)
        *p = v;
}
#endif

/* Stores past the caches, to an address that is a multiple of the vector's size; what follows
 * streams_done() comes after them, for other threads too.  Plain ones where no other are known. */
#if KLCE_VECTOR_BYTES == 64
KLCE_INLINE void stream_f32(float *p, v_f32 v) { _mm512_stream_ps(p, v); }
KLCE_INLINE void stream_f64(double *p, v_f64 v) { _mm512_stream_pd(p, v); }
#elif KLCE_VECTOR_BYTES == 32
KLCE_INLINE void stream_f32(float *p, v_f32 v) { _mm256_stream_ps(p, v); }
KLCE_INLINE void stream_f64(double *p, v_f64 v) { _mm256_stream_pd(p, v); }
#elif KLCE_VECTOR_BYTES == 16 && defined(__x86_64__)
KLCE_INLINE void stream_f32(float *p, v_f32 v) { _mm_stream_ps(p, v); }
KLCE_INLINE void stream_f64(double *p, v_f64 v) { _mm_stream_pd(p, v); }
#elif KLCE_VECTOR_BYTES
KLCE_INLINE void stream_f32(float *p, v_f32 v) { *(v_f32 *)p = v; }
KLCE_INLINE void stream_f64(double *p, v_f64 v) { *(v_f64 *)p = v; }
#else
KLCE_INLINE void stream_f32(float *p, v_f32 v) { *p = v; }
KLCE_INLINE void stream_f64(double *p, v_f64 v) { *p = v; }
#endif
KLCE_INLINE void streams_done(void)
{
#if KLCE_VECTOR_BYTES && defined(__x86_64__)
    _mm_sfence();
#endif
}

/* An element as a number, and a number as an element: halves.h has those that differ. */
KLCE_INLINE float value_f32(float x) { return x; }
KLCE_INLINE double value_f64(double x) { return x; }
KLCE_INLINE float rounded_f32(float x) { return x; }
KLCE_INLINE double rounded_f64(double x) { return x; }

/* ---- What the compilers lower well ---- */

#if KLCE_VECTOR_BYTES
/* x - (vector){} is a broadcast that keeps the sign of zero. */
KLCE_INLINE v_f32 set_f32(float x) { return x - (v_f32){0}; }
KLCE_INLINE v_f64 set_f64(double x) { return x - (v_f64){0}; }
KLCE_INLINE v_f32 load_f32(const float *p) { return *(const v_f32_unaligned *)p; }
KLCE_INLINE v_f64 load_f64(const double *p) { return *(const v_f64_unaligned *)p; }
KLCE_INLINE void store_f32(float *p, v_f32 v) { *(v_f32_unaligned *)p = v; }
KLCE_INLINE void store_f64(double *p, v_f64 v) { *(v_f64_unaligned *)p = v; }
KLCE_INLINE b_f32 to_bits_f32(v_f32 v) { return (b_f32)v; }
KLCE_INLINE b_f64 to_bits_f64(v_f64 v) { return (b_f64)v; }
KLCE_INLINE v_f32 from_bits_f32(b_f32 b) { return (v_f32)b; }
KLCE_INLINE v_f64 from_bits_f64(b_f64 b) { return (v_f64)b; }
KLCE_INLINE b_f32 set_bits_f32(int32_t x) { return (uint32_t)x - (b_f32){0}; }
KLCE_INLINE b_f64 set_bits_f64(int64_t x) { return (uint64_t)x - (b_f64){0}; }
/* By the width of the mantissa; from there, as signed numbers. */
KLCE_INLINE b_f32 shift_to_exponent_f32(b_f32 b) { return b << 23; }
KLCE_INLINE b_f64 shift_to_exponent_f64(b_f64 b) { return b << 52; }
KLCE_INLINE b_f32 shift_from_exponent_f32(b_f32 b) { return (b_f32)((s_f32)b >> 23); }
/* AVX2 has no arithmetic shift of 64-bit lanes: shift as unsigned, then carry the sign. */
KLCE_INLINE b_f64 shift_from_exponent_f64(b_f64 b)
{
#if KLCE_VECTOR_BYTES == 64
    return (b_f64)((s_f64)b >> 52);
#else
    b_f64 sign = set_bits_f64(1 << 11);
    return ((b >> 52) ^ sign) - sign;
#endif
}
KLCE_INLINE v_f32 float_of_f32(b_f32 b) { return __builtin_convertvector((s_f32)b, v_f32); }
/* |b| < 2^51: an integer conversion by the exponent trick, since AVX2 and SSE2 have none. */
KLCE_INLINE v_f64 float_of_f64(b_f64 b)
{
#if KLCE_VECTOR_BYTES == 64
    return _mm512_cvtepi64_pd((__m512i)b);
#else
    return (v_f64)(b + set_bits_f64(0x4338000000000000)) - 0x1.8p52;
#endif
}
/* Lanes of float32: the low half, the high half, and those two of a and b interleaved; the same of
 * float64, where a vector has half as many lanes. */
#if KLCE_VECTOR_BYTES == 64
#define KLCE_LOW_PAIRS_f32 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define KLCE_HIGH_PAIRS_f32 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define KLCE_LOW_PAIRS_f64 0, 8, 1, 9, 2, 10, 3, 11
#define KLCE_HIGH_PAIRS_f64 4, 12, 5, 13, 6, 14, 7, 15
#elif KLCE_VECTOR_BYTES == 32
#define KLCE_LOW_PAIRS_f32 0, 8, 1, 9, 2, 10, 3, 11
#define KLCE_HIGH_PAIRS_f32 4, 12, 5, 13, 6, 14, 7, 15
#define KLCE_LOW_PAIRS_f64 0, 4, 1, 5
#define KLCE_HIGH_PAIRS_f64 2, 6, 3, 7
#else
#define KLCE_LOW_HALF 0, 1
#define KLCE_HIGH_HALF 2, 3
#define KLCE_LOW_PAIRS_f32 0, 4, 1, 5
#define KLCE_HIGH_PAIRS_f32 2, 6, 3, 7
#define KLCE_LOW_PAIRS_f64 0, 2
#define KLCE_HIGH_PAIRS_f64 1, 3
#endif
KLCE_INLINE v_f32 low_pairs_f32(v_f32 a, v_f32 b)
{
    return __builtin_shufflevector(a, b, KLCE_LOW_PAIRS_f32);
}
KLCE_INLINE v_f32 high_pairs_f32(v_f32 a, v_f32 b)
{
    return __builtin_shufflevector(a, b, KLCE_HIGH_PAIRS_f32);
}
KLCE_INLINE v_f64 low_pairs_f64(v_f64 a, v_f64 b)
{
    return __builtin_shufflevector(a, b, KLCE_LOW_PAIRS_f64);
}
KLCE_INLINE v_f64 high_pairs_f64(v_f64 a, v_f64 b)
{
    return __builtin_shufflevector(a, b, KLCE_HIGH_PAIRS_f64);
}
#if KLCE_VECTOR_BYTES == 64
/* The values that lie `offset` bytes from p, one for each lane. */
KLCE_INLINE v_f32 gather_f32(const void *p, const b_f64 *offset)
{
    __m256 low = _mm512_i64gather_ps((__m512i)offset[0], p, 1);
    __m256 high = _mm512_i64gather_ps((__m512i)offset[1], p, 1);
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}
KLCE_INLINE v_f64 gather_f64(const void *p, const b_f64 *offset)
{
    return _mm512_i64gather_pd((__m512i)offset[0], p, 1);
}
#endif

/* The low and the high half of the lanes, as doubles; and back, rounded. gcc 12 takes a vector's
 * conversion apart into pairs of lanes, hence the intrinsics. */
#if KLCE_VECTOR_BYTES == 64
KLCE_INLINE v_f64 widen_low(v_f32 v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
KLCE_INLINE v_f64 widen_high(v_f32 v)
{
    return _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
}
KLCE_INLINE v_f64 widen_at(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
KLCE_INLINE v_f32 narrow(v_f64 low, v_f64 high)
{
    __m256d top = _mm256_castps_pd(_mm512_cvtpd_ps(high));
    __m512 bottom = _mm512_castps256_ps512(_mm512_cvtpd_ps(low));
    return _mm512_castpd_ps(_mm512_insertf64x4(_mm512_castps_pd(bottom), top, 1));
}
#elif KLCE_VECTOR_BYTES == 32
KLCE_INLINE v_f64 widen_low(v_f32 v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
KLCE_INLINE v_f64 widen_high(v_f32 v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
KLCE_INLINE v_f64 widen_at(const float *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
KLCE_INLINE v_f32 narrow(v_f64 low, v_f64 high)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(low)), _mm256_cvtpd_ps(high),
                                1);
}
#else
KLCE_INLINE v_f64 widen_low(v_f32 v)
{
    return __builtin_convertvector(__builtin_shufflevector(v, v, KLCE_LOW_HALF), v_f64);
}
KLCE_INLINE v_f64 widen_high(v_f32 v)
{
    return __builtin_convertvector(__builtin_shufflevector(v, v, KLCE_HIGH_HALF), v_f64);
}
typedef float half_f32 __attribute__((vector_size(KLCE_VECTOR_BYTES / 2)));
KLCE_INLINE v_f64 widen_at(const float *p)
{
    half_f32 half;
    memcpy(&half, p, sizeof half);
    return __builtin_convertvector(half, v_f64);
}
KLCE_INLINE v_f32 narrow(v_f64 low, v_f64 high)
{
    return __builtin_shufflevector(__builtin_convertvector(low, half_f32),
                                   __builtin_convertvector(high, half_f32), KLCE_LOW_HALF,
                                   KLCE_HIGH_HALF);
}
#endif
#else
KLCE_INLINE v_f32 low_pairs_f32(v_f32 a, v_f32 b) { return (void)b, a; }
KLCE_INLINE v_f32 high_pairs_f32(v_f32 a, v_f32 b) { return (void)a, b; }
KLCE_INLINE v_f64 low_pairs_f64(v_f64 a, v_f64 b) { return (void)b, a; }
KLCE_INLINE v_f64 high_pairs_f64(v_f64 a, v_f64 b) { return (void)a, b; }
/* The one lane is both halves. */
KLCE_INLINE v_f64 widen_low(v_f32 v) { return v; }
KLCE_INLINE v_f64 widen_high(v_f32 v) { return v; }
KLCE_INLINE v_f64 widen_at(const float *p) { return *p; }
KLCE_INLINE v_f32 narrow(v_f64 low, v_f64 high) { return (void)high, (v_f32)low; }
KLCE_INLINE v_f32 set_f32(float x) { return x; }
KLCE_INLINE v_f64 set_f64(double x) { return x; }
KLCE_INLINE v_f32 load_f32(const float *p) { return *p; }
KLCE_INLINE v_f64 load_f64(const double *p) { return *p; }
KLCE_INLINE void store_f32(float *p, v_f32 v) { *p = v; }
KLCE_INLINE void store_f64(double *p, v_f64 v) { *p = v; }
KLCE_INLINE b_f32 to_bits_f32(v_f32 v)
{
    b_f32 b;
    memcpy(&b, &v, sizeof b);
    return b;
}
KLCE_INLINE b_f64 to_bits_f64(v_f64 v)
{
    b_f64 b;
    memcpy(&b, &v, sizeof b);
    return b;
}
KLCE_INLINE v_f32 from_bits_f32(b_f32 b)
{
    v_f32 v;
    memcpy(&v, &b, sizeof v);
    return v;
}
KLCE_INLINE v_f64 from_bits_f64(b_f64 b)
{
    v_f64 v;
    memcpy(&v, &b, sizeof v);
    return v;
}
KLCE_INLINE b_f32 set_bits_f32(int32_t x) { return (uint32_t)x; }
KLCE_INLINE b_f64 set_bits_f64(int64_t x) { return (uint64_t)x; }
KLCE_INLINE b_f32 shift_to_exponent_f32(b_f32 b) { return b << 23; }
KLCE_INLINE b_f64 shift_to_exponent_f64(b_f64 b) { return b << 52; }
KLCE_INLINE b_f32 shift_from_exponent_f32(b_f32 b) { return (b_f32)((int32_t)b >> 23); }
KLCE_INLINE b_f64 shift_from_exponent_f64(b_f64 b) { return (b_f64)((int64_t)b >> 52); }
KLCE_INLINE v_f32 float_of_f32(b_f32 b) { return (v_f32)(int32_t)b; }
KLCE_INLINE v_f64 float_of_f64(b_f64 b) { return (v_f64)(int64_t)b; }
#endif

KLCE_INLINE float first_lane_f32(v_f32 v)
{
    float lane[KLCE_WIDTH_f32];
    store_f32(lane, v);
    return lane[0];
}
KLCE_INLINE double first_lane_f64(v_f64 v)
{
    double lane[KLCE_WIDTH_f64];
    store_f64(lane, v);
    return lane[0];
}

/* The largest lane; no lane is nan. */
#if KLCE_VECTOR_BYTES >= 32
/* By halves: to interleave a vector of 64 bytes takes as long as two such steps. */
KLCE_INLINE float hmax_f32(v_f32 v)
{
#if KLCE_VECTOR_BYTES == 64
    __m256 half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
#else
    __m256 half = v;
#endif
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
KLCE_INLINE double hmax_f64(v_f64 v)
{
#if KLCE_VECTOR_BYTES == 64
    __m256d half = _mm256_max_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1));
#else
    __m256d half = v;
#endif
    __m128d two = _mm_max_pd(_mm256_castpd256_pd128(half), _mm256_extractf128_pd(half, 1));
    return _mm_cvtsd_f64(_mm_max_sd(two, _mm_unpackhi_pd(two, two)));
}
#else
/* Each round interleaves the vector with itself, which leaves half as many different values. */
KLCE_INLINE float hmax_f32(v_f32 v)
{
    KLCE_UNROLL for (int n = 1; n < KLCE_WIDTH_f32; n *= 2) v =
        max_f32(low_pairs_f32(v, v), high_pairs_f32(v, v));
    return first_lane_f32(v);
}
KLCE_INLINE double hmax_f64(v_f64 v)
{
    KLCE_UNROLL for (int n = 1; n < KLCE_WIDTH_f64; n *= 2) v =
        max_f64(low_pairs_f64(v, v), high_pairs_f64(v, v));
    return first_lane_f64(v);
}
#endif
