/* Rows that change places with columns, between memory and registers: over simd.h. */

/* Transposes a square of as many vectors as one has lanes.  In general, by log2 rounds that
 * interleave vector i with vector i + half, each of which moves one bit of the vector's number into
 * the lane's.  AVX2 interleaves within the halves of a vector only, whose halves change places
 * last. */
#if KLCE_VECTOR_BYTES == 32
KLCE_INLINE void transpose_f32(v_f32 *square)
{
    v_f32 two[8], four[8];
    KLCE_UNROLL for (int i = 0; i < 8; i += 2)
    {
        two[i] = _mm256_unpacklo_ps(square[i], square[i + 1]);
        two[i + 1] = _mm256_unpackhi_ps(square[i], square[i + 1]);
    }
    KLCE_UNROLL for (int i = 0; i < 8; i++)
    {
        v_f64 a = (v_f64)two[(i & 4) + (i >> 1 & 1)], b = (v_f64)two[(i & 4) + (i >> 1 & 1) + 2];
        four[i] = (v_f32)(i & 1 ? _mm256_unpackhi_pd(a, b) : _mm256_unpacklo_pd(a, b));
    }
    KLCE_UNROLL for (int i = 0; i < 4; i++)
    {
        square[i] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x20);
        square[i + 4] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x31);
    }
}
KLCE_INLINE void transpose_f64(v_f64 *square)
{
    v_f64 a = _mm256_unpacklo_pd(square[0], square[1]),
          b = _mm256_unpackhi_pd(square[0], square[1]);
    v_f64 c = _mm256_unpacklo_pd(square[2], square[3]),
          d = _mm256_unpackhi_pd(square[2], square[3]);
    square[0] = _mm256_permute2f128_pd(a, c, 0x20);
    square[1] = _mm256_permute2f128_pd(b, d, 0x20);
    square[2] = _mm256_permute2f128_pd(a, c, 0x31);
    square[3] = _mm256_permute2f128_pd(b, d, 0x31);
}
#else
#define KLCE_TRANSPOSE(R)                                                                          \
    KLCE_INLINE void transpose_##R(v_##R *square)                                                  \
    {                                                                                              \
        enum { WIDTH = KLCE_WIDTH_##R, HALF = KLCE_WIDTH_##R / 2 };                                \
        KLCE_UNROLL for (int round = 1; round < WIDTH; round *= 2)                                 \
        {                                                                                          \
            v_##R old[WIDTH];                                                                      \
            KLCE_UNROLL for (int i = 0; i < WIDTH; i++) old[i] = square[i];                        \
            KLCE_UNROLL for (int i = 0; i < HALF; i++)                                             \
            {                                                                                      \
                square[2 * i] = low_pairs_##R(old[i], old[i + HALF]);                              \
                square[2 * i + 1] = high_pairs_##R(old[i], old[i + HALF]);                         \
            }                                                                                      \
        }                                                                                          \
    }
KLCE_TRANSPOSE(f32)
KLCE_TRANSPOSE(f64)
#undef KLCE_TRANSPOSE
#endif

#if KLCE_VECTOR_BYTES
/* Four columns of as many rows as a vector has lanes, `step` bytes apart, and of float32 back.
 * Each 16 bytes of a vector hold four numbers of one row: rows i, i + 4, i + 8, ..., so that to
 * interleave within them is enough. */
#if KLCE_VECTOR_BYTES == 64
KLCE_INLINE v_f32 load_pieces(const char *p, ptrdiff_t step)
{
    v_f32 v = _mm512_castps128_ps512(_mm_loadu_ps((const float *)p));
    v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(p + step)), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(p + 2 * step)), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(p + 3 * step)), 3);
}
/* Its piece-th 16 bytes. */
KLCE_INLINE void store_piece(char *p, int piece, v_f32 v)
{
    _mm_storeu_ps((float *)p, piece == 0   ? _mm512_castps512_ps128(v)
                              : piece == 1 ? _mm512_extractf32x4_ps(v, 1)
                              : piece == 2 ? _mm512_extractf32x4_ps(v, 2)
                                           : _mm512_extractf32x4_ps(v, 3));
}
#define KLCE_UNPACK(which, kind, a, b) _mm512_unpack##which##_##kind(a, b)
#elif KLCE_VECTOR_BYTES == 32
KLCE_INLINE v_f32 load_pieces(const char *p, ptrdiff_t step)
{
    v_f32 low = _mm256_castps128_ps256(_mm_loadu_ps((const float *)p));
    return _mm256_insertf128_ps(low, _mm_loadu_ps((const float *)(p + step)), 1);
}
KLCE_INLINE void store_piece(char *p, int piece, v_f32 v)
{
    _mm_storeu_ps((float *)p, piece ? _mm256_extractf128_ps(v, 1) : _mm256_castps256_ps128(v));
}
#define KLCE_UNPACK(which, kind, a, b) _mm256_unpack##which##_##kind(a, b)
#else
KLCE_INLINE v_f32 load_pieces(const char *p, ptrdiff_t step)
{
    return (void)step, load_f32((const float *)p);
}
KLCE_INLINE void store_piece(char *p, int piece, v_f32 v) { (void)piece, store_f32((float *)p, v); }
#endif
KLCE_INLINE void store_pieces(char *p, ptrdiff_t step, v_f32 v)
{
    KLCE_UNROLL for (int i = 0; i < KLCE_WIDTH_f32 / 4; i++) store_piece(p + i * step, i, v);
}
/* Within each 16 bytes, the square of four vectors. */
KLCE_INLINE void transpose_pieces(v_f32 *four)
{
#ifdef KLCE_UNPACK
    v_f64 a = (v_f64)KLCE_UNPACK(lo, ps, four[0], four[1]),
          b = (v_f64)KLCE_UNPACK(hi, ps, four[0], four[1]);
    v_f64 c = (v_f64)KLCE_UNPACK(lo, ps, four[2], four[3]),
          d = (v_f64)KLCE_UNPACK(hi, ps, four[2], four[3]);
    four[0] = (v_f32)KLCE_UNPACK(lo, pd, a, c);
    four[1] = (v_f32)KLCE_UNPACK(hi, pd, a, c);
    four[2] = (v_f32)KLCE_UNPACK(lo, pd, b, d);
    four[3] = (v_f32)KLCE_UNPACK(hi, pd, b, d);
#else
    transpose_f32(four);
#endif
}
KLCE_INLINE void load_four_columns_f32(const char *first, ptrdiff_t step, v_f32 *column)
{
    v_f32 four[4];
    KLCE_UNROLL for (int i = 0; i < 4; i++) four[i] = load_pieces(first + i * step, 4 * step);
    transpose_pieces(four);
    KLCE_UNROLL for (int i = 0; i < 4; i++) column[i] = four[i];
}
/* The same of float64: 16 instructions with AVX-512, where the square of eight takes 32. */
KLCE_INLINE void load_four_columns_f64(const char *first, ptrdiff_t step, v_f64 *column)
{
#if KLCE_VECTOR_BYTES == 64
    v_f64 two[4], pair[4];
    KLCE_UNROLL for (int i = 0; i < 4; i++) /* rows 0 and 2, 1 and 3, 4 and 6, 5 and 7 */
    {
        const char *p = first + (i / 2 * 4 + i % 2) * step;
        two[i] = _mm512_castpd256_pd512(_mm256_loadu_pd((const double *)p));
        two[i] = _mm512_insertf64x4(two[i], _mm256_loadu_pd((const double *)(p + 2 * step)), 1);
    }
    KLCE_UNROLL for (int i = 0; i < 4; i += 2)
    {
        pair[i] = _mm512_unpacklo_pd(two[i], two[i + 1]);
        pair[i + 1] = _mm512_unpackhi_pd(two[i], two[i + 1]);
    }
    KLCE_UNROLL for (int i = 0; i < 2; i++)
    {
        column[i] = _mm512_shuffle_f64x2(pair[i], pair[i + 2], 0x88);
        column[i + 2] = _mm512_shuffle_f64x2(pair[i], pair[i + 2], 0xdd);
    }
#else
    KLCE_UNROLL for (int j = 0; j < 4; j += KLCE_WIDTH_f64)
    {
        KLCE_UNROLL for (int i = 0; i < KLCE_WIDTH_f64; i++) column[j + i] =
            load_f64((const double *)(first + i * step) + j);
        transpose_f64(column + j);
    }
#endif
}
KLCE_INLINE void store_four_columns(char *first, ptrdiff_t step, const v_f32 *column)
{
    v_f32 four[4] = {column[0], column[1], column[2], column[3]};
    transpose_pieces(four);
    KLCE_UNROLL for (int i = 0; i < 4; i++) store_pieces(first + i * step, 4 * step, four[i]);
}
/* Rows of three that follow one another.  Row by row: a piece's fourth number falls on the next
 * row's first, which comes after it; the last row's has no place. */
KLCE_INLINE void store_three_columns(char *first, const v_f32 *column)
{
    enum { ROW = 3 * sizeof(float), LAST = KLCE_WIDTH_f32 - 4 };
    v_f32 four[4] = {column[0], column[1], column[2], column[2]};
    float last[KLCE_WIDTH_f32];
    transpose_pieces(four);
    store_f32(last, four[3]);
    KLCE_UNROLL for (int row = 0; row < KLCE_WIDTH_f32 - 1; row++)
        store_piece(first + row * ROW, row / 4, four[row % 4]);
    memcpy(first + (KLCE_WIDTH_f32 - 1) * ROW, last + LAST, ROW);
}
#endif
