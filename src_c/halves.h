/* Loads and stores of 16-bit elements, which are computed in float32: f16 (IEEE binary16) and bf16
 * (the upper half of a float32).  They convert in registers: a load exactly, a store to the
 * nearest, ties to even.  Subnormals count; nan stays nan.  Looks (looks.h) take them as integers.
 */

/* ---- One element, by integer arithmetic ---- */

KLCE_INLINE float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

KLCE_INLINE uint32_t bits_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

KLCE_INLINE float value_f16(klce_f16 h)
{
    uint32_t sign = (uint32_t)(h.bits & 0x8000) << 16, rest = (uint32_t)(h.bits & 0x7fff) << 13;
    if (rest >= 31u << 23) /* inf, nan */
        return float_of_bits(sign | (rest + (224u << 23)));
    if (rest >= 1u << 23)
        return float_of_bits(sign | (rest + (112u << 23)));
    /* Subnormal: the fraction of a number whose whole part is then taken away. */
    return float_of_bits(sign | bits_of_float(float_of_bits(rest + (113u << 23)) - 0x1p-14f));
}

KLCE_INLINE klce_f16 rounded_f16(float x)
{
    uint32_t bits = bits_of_float(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        rest = 0x7e00;
    else if (rest >= bits_of_float(65520)) /* half way from the largest number to 2^16 */
        rest = 0x7c00;
    else if (rest >= bits_of_float(0x1p-14f))
        rest = (rest + 0xfff + (rest >> 13 & 1) - (112u << 23)) >> 13;
    else /* rounded where the last place of 0.5 stands, which is that of subnormals */
        rest = bits_of_float(float_of_bits(rest) + 0.5f) - bits_of_float(0.5f);
    return (klce_f16){(uint16_t)(sign | rest)};
}

KLCE_INLINE float value_bf16(klce_bf16 h) { return float_of_bits((uint32_t)h.bits << 16); }

KLCE_INLINE klce_bf16 rounded_bf16(float x)
{
    uint32_t bits = bits_of_float(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (klce_bf16){(uint16_t)(bits >> 16 | 0x40)};
    return (klce_bf16){(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

/* ---- A vector: WIDTH elements of 16 bits, h, and the float32 that they stand for ---- */

#if KLCE_VECTOR_BYTES
/* The upper half of a float32's bits, as bits below 2^16: a nan keeps a bit that survives. */
KLCE_INLINE b_f32 upper_halves(v_f32 v)
{
    b_f32 bits = to_bits_f32(v);
    b_f32 nearest = bits + set_bits_f32(0x7fff) + ((bits >> 16) & set_bits_f32(1));
    v_f32 quiet = from_bits_f32(bits | set_bits_f32(0x400000));
    return to_bits_f32(select_f32(eq_f32(v, v), from_bits_f32(nearest), quiet)) >> 16;
}
#endif

#if KLCE_VECTOR_BYTES == 64
typedef __m256i h;
KLCE_INLINE h load_halves(const void *p) { return _mm256_loadu_si256(p); }
KLCE_INLINE void store_halves(void *p, h x) { _mm256_storeu_si256(p, x); }
KLCE_INLINE void stream_halves(void *p, h x) { _mm256_stream_si256(p, x); }
KLCE_INLINE h load_part_of_halves(const void *p, int k)
{
    return _mm256_maskz_loadu_epi16((__mmask16)((1u << k) - 1), p);
}
KLCE_INLINE void store_part_of_halves(void *p, int k, h x)
{
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << k) - 1), x);
}
KLCE_INLINE v_f32 with_fill(int k, v_f32 v, v_f32 fill)
{
    return select_f32((__mmask16)((1u << k) - 1), v, fill);
}
KLCE_INLINE v_f32 from_f16(h x) { return _mm512_cvtph_ps(x); }
KLCE_INLINE h to_f16(v_f32 v) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
KLCE_INLINE v_f32 from_bf16(h x) { return from_bits_f32((b_f32)_mm512_cvtepu16_epi32(x) << 16); }
KLCE_INLINE h to_bf16(v_f32 v) { return _mm512_cvtepi32_epi16((__m512i)upper_halves(v)); }

#elif KLCE_VECTOR_BYTES == 32
typedef __m128i h;
KLCE_INLINE h load_halves(const void *p) { return _mm_loadu_si128(p); }
KLCE_INLINE void store_halves(void *p, h x) { _mm_storeu_si128(p, x); }
KLCE_INLINE void stream_halves(void *p, h x) { _mm_stream_si128(p, x); }
/* AVX2 masks no elements of 16 bits: four of them, two and one, by the bits of their number. */
KLCE_INLINE uint64_t load_up_to_3(const unsigned char *p, int k)
{
    uint64_t bits = 0;
    uint32_t two;
    uint16_t one;
    if (k & 1) {
        memcpy(&one, p + 2 * (k & 2), 2);
        bits = one;
    }
    if (k & 2) {
        memcpy(&two, p, 4);
        bits = bits << 32 | two;
    }
    return bits;
}
KLCE_INLINE h load_part_of_halves(const void *p, int k)
{
    uint64_t low, high = 0;
    if (k == 8)
        return load_halves(p);
    if (k & 4) {
        memcpy(&low, p, 8);
        high = load_up_to_3((const unsigned char *)p + 8, k & 3);
    } else {
        low = load_up_to_3(p, k);
    }
    return _mm_set_epi64x((long long)high, (long long)low);
}
KLCE_INLINE void store_part_of_halves(void *p, int k, h x)
{
    unsigned char *to = p;
    if (k == 8) {
        store_halves(p, x);
        return;
    }
    if (k & 4) {
        _mm_storel_epi64(p, x);
        x = _mm_srli_si128(x, 8);
        to += 8;
    }
    uint64_t bits = (uint64_t)_mm_cvtsi128_si64(x);
    if (k & 2) {
        memcpy(to, &bits, 4);
        bits >>= 32;
        to += 4;
    }
    if (k & 1)
        memcpy(to, &bits, 2);
}
KLCE_INLINE v_f32 with_fill(int k, v_f32 v, v_f32 fill)
{
    return select_f32(lanes_below_f32(k), v, fill);
}
KLCE_INLINE v_f32 from_f16(h x) { return _mm256_cvtph_ps(x); }
KLCE_INLINE h to_f16(v_f32 v) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
KLCE_INLINE v_f32 from_bf16(h x) { return from_bits_f32((b_f32)_mm256_cvtepu16_epi32(x) << 16); }
KLCE_INLINE h to_bf16(v_f32 v)
{
    __m256i bits = (__m256i)upper_halves(v);
    return _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
}

#elif KLCE_VECTOR_BYTES == 16 && defined(__x86_64__)
typedef __m128i h; /* in the lower half */
KLCE_INLINE h load_halves(const void *p) { return _mm_loadl_epi64(p); }
KLCE_INLINE void store_halves(void *p, h x) { _mm_storel_epi64(p, x); }
KLCE_INLINE void stream_halves(void *p, h x) { _mm_stream_si64(p, _mm_cvtsi128_si64(x)); }
KLCE_INLINE b_f32 widen_halves(h x) { return (b_f32)_mm_unpacklo_epi16(x, _mm_setzero_si128()); }
KLCE_INLINE h narrow_halves(b_f32 bits)
{
    /* SSE2 packs signed numbers only: the lower 16 bits as such. */
    __m128i x = (__m128i)((s_f32)(bits << 16) >> 16);
    return _mm_packs_epi32(x, x);
}
KLCE_INLINE b_f32 choose_bits(s_f32 m, b_f32 a, b_f32 b)
{
    return (b_f32)((m & (s_f32)a) | (~m & (s_f32)b));
}
/* As value_f16 and rounded_f16. */
KLCE_INLINE v_f32 from_f16(h x)
{
    b_f32 wide = widen_halves(x), rest = (wide & set_bits_f32(0x7fff)) << 13;
    b_f32 high = rest + (set_bits_f32(112) << 23);
    v_f32 small = from_bits_f32(rest + (set_bits_f32(113) << 23)) - set_f32(0x1p-14f);
    high = choose_bits((s_f32)rest >= 31 << 23, rest + (set_bits_f32(224) << 23), high);
    high = choose_bits((s_f32)rest < 1 << 23, to_bits_f32(small), high);
    return from_bits_f32(high | ((wide & set_bits_f32(0x8000)) << 16));
}
KLCE_INLINE h to_f16(v_f32 v)
{
    b_f32 bits = to_bits_f32(v), sign = (bits >> 16) & set_bits_f32(0x8000);
    s_f32 rest = (s_f32)(bits & set_bits_f32(0x7fffffff));
    b_f32 half = set_bits_f32(0x3f000000);
    b_f32 result = ((b_f32)rest + set_bits_f32(0xfff) + (((b_f32)rest >> 13) & set_bits_f32(1)) -
                    (set_bits_f32(112) << 23)) >>
                   13;
    v_f32 small = from_bits_f32((b_f32)rest) + from_bits_f32(half);
    result = choose_bits(rest < 0x38800000, to_bits_f32(small) - half, result);
    result = choose_bits(rest >= 0x477ff000, set_bits_f32(0x7c00), result);
    result = choose_bits(rest > 0x7f800000, set_bits_f32(0x7e00), result);
    return narrow_halves(result | sign);
}
KLCE_INLINE v_f32 from_bf16(h x) { return from_bits_f32(widen_halves(x) << 16); }
KLCE_INLINE h to_bf16(v_f32 v) { return narrow_halves(upper_halves(v)); }

#elif KLCE_VECTOR_BYTES == 16 && defined(__aarch64__)
typedef uint16x4_t h;
KLCE_INLINE h load_halves(const void *p) { return vld1_u16(p); }
KLCE_INLINE void store_halves(void *p, h x) { vst1_u16(p, x); }
KLCE_INLINE void stream_halves(void *p, h x) { vst1_u16(p, x); }
KLCE_INLINE v_f32 from_f16(h x) { return (v_f32)vcvt_f32_f16(vreinterpret_f16_u16(x)); }
KLCE_INLINE h to_f16(v_f32 v) { return vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v)); }
KLCE_INLINE v_f32 from_bf16(h x) { return from_bits_f32((b_f32)vshll_n_u16(x, 16)); }
KLCE_INLINE h to_bf16(v_f32 v) { return vmovn_u32((uint32x4_t)upper_halves(v)); }
#endif

/* ---- A whole vector of 16-bit integers, for the bits of such elements ---- */

#if defined(__x86_64__) && KLCE_VECTOR_BYTES
KLCE_INLINE int most_of_8(__m128i x)
{
    x = _mm_max_epi16(x, _mm_srli_si128(x, 8));
    x = _mm_max_epi16(x, _mm_srli_si128(x, 4));
    x = _mm_max_epi16(x, _mm_srli_si128(x, 2));
    return (int16_t)_mm_cvtsi128_si32(x);
}
#endif

#if KLCE_VECTOR_BYTES == 64
typedef __m512i shorts;
KLCE_INLINE shorts load_shorts(const void *p) { return _mm512_loadu_si512(p); }
KLCE_INLINE shorts set_shorts(int16_t x) { return _mm512_set1_epi16(x); }
KLCE_INLINE shorts max_shorts(shorts a, shorts b) { return _mm512_max_epi16(a, b); }
KLCE_INLINE shorts min_shorts(shorts a, shorts b) { return _mm512_min_epi16(a, b); }
KLCE_INLINE int most_of_shorts(shorts x)
{
    __m256i y = _mm256_max_epi16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
    return most_of_8(_mm_max_epi16(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1)));
}
KLCE_INLINE int least_of_shorts(shorts x) { return ~most_of_shorts(~x); }
KLCE_INLINE int either_short(shorts x, shorts a, shorts b)
{
    return (_mm512_cmpeq_epi16_mask(x, a) | _mm512_cmpeq_epi16_mask(x, b)) != 0;
}

#elif KLCE_VECTOR_BYTES == 32
typedef __m256i shorts;
KLCE_INLINE shorts load_shorts(const void *p) { return _mm256_loadu_si256(p); }
KLCE_INLINE shorts set_shorts(int16_t x) { return _mm256_set1_epi16(x); }
KLCE_INLINE shorts max_shorts(shorts a, shorts b) { return _mm256_max_epi16(a, b); }
KLCE_INLINE shorts min_shorts(shorts a, shorts b) { return _mm256_min_epi16(a, b); }
KLCE_INLINE int most_of_shorts(shorts x)
{
    return most_of_8(_mm_max_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
}
KLCE_INLINE int least_of_shorts(shorts x) { return ~most_of_shorts(~x); }
KLCE_INLINE int either_short(shorts x, shorts a, shorts b)
{
    return _mm256_movemask_epi8(_mm256_cmpeq_epi16(x, a) | _mm256_cmpeq_epi16(x, b)) != 0;
}

#elif KLCE_VECTOR_BYTES == 16 && defined(__x86_64__)
typedef __m128i shorts;
KLCE_INLINE shorts load_shorts(const void *p) { return _mm_loadu_si128(p); }
KLCE_INLINE shorts set_shorts(int16_t x) { return _mm_set1_epi16(x); }
KLCE_INLINE shorts max_shorts(shorts a, shorts b) { return _mm_max_epi16(a, b); }
KLCE_INLINE shorts min_shorts(shorts a, shorts b) { return _mm_min_epi16(a, b); }
KLCE_INLINE int most_of_shorts(shorts x) { return most_of_8(x); }
KLCE_INLINE int least_of_shorts(shorts x) { return ~most_of_8(~x); }
KLCE_INLINE int either_short(shorts x, shorts a, shorts b)
{
    return _mm_movemask_epi8(_mm_cmpeq_epi16(x, a) | _mm_cmpeq_epi16(x, b)) != 0;
}

#elif KLCE_VECTOR_BYTES == 16 && defined(__aarch64__)
typedef int16x8_t shorts;
KLCE_INLINE shorts load_shorts(const void *p) { return vreinterpretq_s16_u8(vld1q_u8(p)); }
KLCE_INLINE shorts set_shorts(int16_t x) { return vdupq_n_s16(x); }
KLCE_INLINE shorts max_shorts(shorts a, shorts b) { return vmaxq_s16(a, b); }
KLCE_INLINE shorts min_shorts(shorts a, shorts b) { return vminq_s16(a, b); }
KLCE_INLINE int most_of_shorts(shorts x) { return vmaxvq_s16(x); }
KLCE_INLINE int least_of_shorts(shorts x) { return vminvq_s16(x); }
KLCE_INLINE int either_short(shorts x, shorts a, shorts b)
{
    return vmaxvq_u16(vorrq_u16(vceqq_s16(x, a), vceqq_s16(x, b))) != 0;
}
#endif

#if KLCE_VECTOR_BYTES
/* The places of numbers among all, from their bits: as integers in the order of the numbers, -0
 * right before 0. */
typedef int16_t short_lanes __attribute__((vector_size(KLCE_VECTOR_BYTES)));
KLCE_INLINE short_lanes places_of(short_lanes bits) { return bits ^ (bits >> 15 & INT16_MAX); }
#endif

/* ---- Loads and stores ---- */

#if KLCE_VECTOR_BYTES >= 32
#define KLCE_PARTS_OF_HALVES(R)                                                                    \
    KLCE_INLINE v_f32 load_part_##R(const klce_##R *p, int k, v_f32 fill)                          \
    {                                                                                              \
        return with_fill(k, from_##R(load_part_of_halves(p, k)), fill);                            \
    }                                                                                              \
    KLCE_INLINE void store_part_##R(klce_##R *p, int k, v_f32 v)                                   \
    {                                                                                              \
        store_part_of_halves(p, k, to_##R(v));                                                     \
    }
#elif KLCE_VECTOR_BYTES == 16
#define KLCE_PARTS_OF_HALVES(R)                                                                    \
    KLCE_INLINE v_f32 load_part_##R(const klce_##R *p, int k, v_f32 fill)                          \
    {                                                                                              \
        for (int i = 0; i < k; i++)                                                                \
            fill[i] = value_##R(p[i]);                                                             \
        return fill;                                                                               \
    }                                                                                              \
    KLCE_INLINE void store_part_##R(klce_##R *p, int k, v_f32 v)                                   \
    {                                                                                              \
        for (int i = 0; i < k; i++)                                                                \
            p[i] = rounded_##R(v[i]);                                                              \
    }
#else
#define KLCE_PARTS_OF_HALVES(R)                                                                    \
    KLCE_INLINE v_f32 load_part_##R(const klce_##R *p, int k, v_f32 fill)                          \
    {                                                                                              \
        return k ? value_##R(*p) : fill;                                                           \
    }                                                                                              \
    KLCE_INLINE void store_part_##R(klce_##R *p, int k, v_f32 v)                                   \
    {                                                                                              \
        if (k)                                                                                     \
            *p = rounded_##R(v);                                                                   \
    }
#endif

#if KLCE_VECTOR_BYTES
#define KLCE_HALVES(R)                                                                             \
    KLCE_INLINE v_f32 load_##R(const klce_##R *p) { return from_##R(load_halves(p)); }             \
    KLCE_INLINE void store_##R(klce_##R *p, v_f32 v) { store_halves(p, to_##R(v)); }               \
    KLCE_INLINE void stream_##R(klce_##R *p, v_f32 v) { stream_halves(p, to_##R(v)); }             \
    KLCE_PARTS_OF_HALVES(R)
#else
#define KLCE_HALVES(R)                                                                             \
    KLCE_INLINE v_f32 load_##R(const klce_##R *p) { return value_##R(*p); }                        \
    KLCE_INLINE void store_##R(klce_##R *p, v_f32 v) { *p = rounded_##R(v); }                      \
    KLCE_INLINE void stream_##R(klce_##R *p, v_f32 v) { store_##R(p, v); }                         \
    KLCE_PARTS_OF_HALVES(R)
#endif

KLCE_HALVES(f16)
KLCE_HALVES(bf16)
