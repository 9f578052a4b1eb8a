"""The SQL functions that a scoped statement may call.

A function can run SQL of its own (``query_to_xml``, ``dblink``, ``load_extension``), which no predicate reaches.
So the world is closed here too: the names below compute from their arguments alone; others are refused until
the app names them with ``protect(engine, functions=[...])``.
"""

from typing import Final

__all__ = ["PURE_FUNCTIONS"]

PURE_FUNCTIONS: Final = frozenset(
    """
    abs acos age any_value array_agg array_append array_cat array_dims array_fill array_length array_lower array_ndims
    array_position array_positions array_prepend array_remove array_replace array_sample array_shuffle array_to_json
    array_to_string array_upper ascii asin atan atan2 avg bernoulli bit_and bit_count bit_length bit_or bit_xor
    bool_and bool_or btrim cardinality cast cbrt ceil ceiling char char_length character_length chr clock_timestamp
    coalesce concat concat_ws convert_from convert_to corr cos cosh cot count covar_pop covar_samp cube cume_dist
    curdate current_date current_time current_timestamp curtime date date_add date_bin date_format date_part date_sub
    date_trunc datediff datetime day dayname dayofmonth dayofweek dayofyear decode degrees dense_rank div encode every
    exp
    extract field find_in_set first_value floor format from_unixtime gcd gen_random_uuid generate_series
    generate_subscripts glob greatest group_concat grouping grouping_sets hex hour hypot if ifnull iif initcap instr
    int4range int8range isempty isfinite json json_agg json_array json_array_elements json_array_elements_text
    json_array_length json_arrayagg json_arrow json_build_array json_build_object json_contains json_each
    json_each_text json_extract json_extract_path json_extract_path_text json_group_array json_group_object json_insert
    json_keys json_length json_object json_object_agg json_object_keys json_objectagg json_patch json_populate_record
    json_query json_quote json_remove json_replace json_search json_set json_strip_nulls json_to_record
    json_to_recordset json_tree json_type json_typeof json_unquote json_valid json_value jsonb jsonb_agg
    jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
    jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg
    jsonb_object_keys jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array
    jsonb_path_query_first jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset
    jsonb_typeof julianday justify_days justify_hours justify_interval lag last_day last_value lcase lcm lead least
    left length like likelihood likely ln localtime localtimestamp locate log log10 log2 lower lower_inc lower_inf
    lpad ltrim make_date make_interval make_time make_timestamp make_timestamptz max md5 microsecond mid min minute
    mod mode month monthname nanvl now nth_value ntile nullif numrange nvl octet_length overlay percent_rank
    percentile_cont percentile_disc phraseto_tsquery pi plainto_tsquery position pow power printf quarter quote radians
    random range_agg range_merge rank regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace
    regexp_split_to_array regexp_split_to_table regexp_substr regr_avgx regr_avgy regr_count regr_intercept regr_r2
    regr_slope repeat replace reverse right rollup round row row_number row_to_json rpad rtrim second sha224 sha256
    sha384 sha512 sign similarity sin sinh split_part sqrt starts_with statement_timestamp stddev stddev_pop
    stddev_samp str_to_date strftime string_agg string_to_array string_to_table strpos strict_word_similarity
    substr substring substring_index sum sysdate tan tanh time timediff timeofday timestamp timestampadd timestampdiff
    to_char to_date to_hex to_json to_jsonb to_number to_timestamp to_tsquery to_tsvector total
    transaction_timestamp translate trim trim_array trunc truncate ts_headline ts_rank ts_rank_cd tsrange tstzrange
    typeof ucase unaccent unhex unicode unistr unix_timestamp unixepoch unlikely unnest upper upper_inc upper_inf
    utc_date utc_time utc_timestamp uuidv4 uuidv7 var_pop var_samp variance websearch_to_tsquery week weekday
    width_bucket word_similarity year year_month zeroblob
    """.split()
)
