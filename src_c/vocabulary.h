/* The vector vocabulary as bodies may use it: what simd.h and vmath.h define for the types that are
 * computed in, f32 and f64.  Every other name that a body gives to K is one of its own, for each
 * dtype, or a load or store of elements.  A verb that is missing here is undeclared for f16. */
#define KLCE_IN_VOCABULARY_v ~, C
#define KLCE_IN_VOCABULARY_b ~, C
#define KLCE_IN_VOCABULARY_m ~, C
#define KLCE_IN_VOCABULARY_bits_scalar ~, C
#define KLCE_IN_VOCABULARY_KLCE_WIDTH ~, C
#define KLCE_IN_VOCABULARY_KLCE_MAGIC ~, C
#define KLCE_IN_VOCABULARY_KLCE_BIAS ~, C

#define KLCE_IN_VOCABULARY_set ~, C
#define KLCE_IN_VOCABULARY_fma ~, C
#define KLCE_IN_VOCABULARY_min ~, C
#define KLCE_IN_VOCABULARY_max ~, C
#define KLCE_IN_VOCABULARY_lt ~, C
#define KLCE_IN_VOCABULARY_le ~, C
#define KLCE_IN_VOCABULARY_eq ~, C
#define KLCE_IN_VOCABULARY_and ~, C
#define KLCE_IN_VOCABULARY_or ~, C
#define KLCE_IN_VOCABULARY_not ~, C
#define KLCE_IN_VOCABULARY_any ~, C
#define KLCE_IN_VOCABULARY_first ~, C
#define KLCE_IN_VOCABULARY_select ~, C
#define KLCE_IN_VOCABULARY_to_bits ~, C
#define KLCE_IN_VOCABULARY_from_bits ~, C
#define KLCE_IN_VOCABULARY_set_bits ~, C
#define KLCE_IN_VOCABULARY_shift_to_exponent ~, C
#define KLCE_IN_VOCABULARY_float_of ~, C
#define KLCE_IN_VOCABULARY_low_pairs ~, C
#define KLCE_IN_VOCABULARY_high_pairs ~, C
#define KLCE_IN_VOCABULARY_transpose ~, C
#define KLCE_IN_VOCABULARY_hmax ~, C
#define KLCE_IN_VOCABULARY_first_lane ~, C

#define KLCE_IN_VOCABULARY_exp_constants ~, C
#define KLCE_IN_VOCABULARY_exp_constants_of ~, C
#define KLCE_IN_VOCABULARY_exp_parts ~, C
#define KLCE_IN_VOCABULARY_exp_reduce ~, C
#define KLCE_IN_VOCABULARY_exp_for ~, C
#define KLCE_IN_VOCABULARY_exp_poly_for ~, C
#define KLCE_IN_VOCABULARY_exp_mantissa ~, C
#define KLCE_IN_VOCABULARY_exp_pair ~, C
#define KLCE_IN_VOCABULARY_exp_pair_of ~, C
#define KLCE_IN_VOCABULARY_log ~, C
#define KLCE_IN_VOCABULARY_series ~, C
#define KLCE_IN_VOCABULARY_exp_tail ~, C
#define KLCE_IN_VOCABULARY_log1p ~, C
#define KLCE_IN_VOCABULARY_log1p_for ~, C
#define KLCE_IN_VOCABULARY_log1p_tail ~, C
#define KLCE_IN_VOCABULARY_log_parts ~, C
#define KLCE_IN_VOCABULARY_log_reduce ~, C
#define KLCE_IN_VOCABULARY_quotient_exponent ~, C
#define KLCE_IN_VOCABULARY_log1p_by_square ~, C
#define KLCE_IN_VOCABULARY_log_join ~, C
#define KLCE_IN_VOCABULARY_log_join_term ~, C
#define KLCE_IN_VOCABULARY_log_term ~, C
