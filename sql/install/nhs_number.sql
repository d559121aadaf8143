-- nhs_number: the type, and reading numbers out of text and integers.

CREATE TYPE nhs_number;

CREATE FUNCTION nhs_number_in(cstring) RETURNS nhs_number
    AS 'MODULE_PATHNAME', 'ndrs_optout_nhs_number_in'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_in(cstring) IS
    'internal: text input of nhs_number; error 22P02 says what is wrong without the value';
CREATE FUNCTION nhs_number_out(nhs_number) RETURNS cstring
    AS 'MODULE_PATHNAME', 'ndrs_optout_nhs_number_out'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_out(nhs_number) IS 'internal: text output of nhs_number: ten digits';
CREATE FUNCTION nhs_number_recv(internal) RETURNS nhs_number
    AS 'MODULE_PATHNAME', 'ndrs_optout_nhs_number_recv'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_recv(internal) IS 'internal: binary input of nhs_number: a bigint, checked';
CREATE FUNCTION nhs_number_send(nhs_number) RETURNS bytea
    AS 'int8send'
    LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_send(nhs_number) IS 'internal: binary output of nhs_number: a bigint';

CREATE TYPE nhs_number (
    INPUT = nhs_number_in,
    OUTPUT = nhs_number_out,
    RECEIVE = nhs_number_recv,
    SEND = nhs_number_send,
    LIKE = pg_catalog.int8
);
COMMENT ON TYPE nhs_number IS
    'NHS number: ten digits of which the last is a modulus 11 check digit. Input ignores spaces, hyphens and no-break '
    'spaces, and takes full-width digits';

-- The representation is bigint's, and so is the order.

CREATE FUNCTION nhs_number_eq(nhs_number, nhs_number) RETURNS boolean
    AS 'int8eq' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_eq(nhs_number, nhs_number) IS 'internal: implementation of = operator';
CREATE FUNCTION nhs_number_ne(nhs_number, nhs_number) RETURNS boolean
    AS 'int8ne' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_ne(nhs_number, nhs_number) IS 'internal: implementation of <> operator';
CREATE FUNCTION nhs_number_lt(nhs_number, nhs_number) RETURNS boolean
    AS 'int8lt' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_lt(nhs_number, nhs_number) IS 'internal: implementation of < operator';
CREATE FUNCTION nhs_number_le(nhs_number, nhs_number) RETURNS boolean
    AS 'int8le' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_le(nhs_number, nhs_number) IS 'internal: implementation of <= operator';
CREATE FUNCTION nhs_number_ge(nhs_number, nhs_number) RETURNS boolean
    AS 'int8ge' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_ge(nhs_number, nhs_number) IS 'internal: implementation of >= operator';
CREATE FUNCTION nhs_number_gt(nhs_number, nhs_number) RETURNS boolean
    AS 'int8gt' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_gt(nhs_number, nhs_number) IS 'internal: implementation of > operator';
CREATE FUNCTION nhs_number_cmp(nhs_number, nhs_number) RETURNS integer
    AS 'btint8cmp' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_cmp(nhs_number, nhs_number) IS 'internal: less-equal-greater of two NHS numbers';
CREATE FUNCTION nhs_number_sortsupport(internal) RETURNS void
    AS 'btint8sortsupport' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_sortsupport(internal) IS 'internal: sort support of nhs_number';
CREATE FUNCTION nhs_number_hash(nhs_number) RETURNS integer
    AS 'hashint8' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_hash(nhs_number) IS 'internal: hash of an NHS number';
CREATE FUNCTION nhs_number_hash_extended(nhs_number, bigint) RETURNS bigint
    AS 'hashint8extended' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_hash_extended(nhs_number, bigint) IS 'internal: hash of an NHS number with a seed';

CREATE OPERATOR = (
    LEFTARG = nhs_number, RIGHTARG = nhs_number, FUNCTION = nhs_number_eq,
    COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES);
COMMENT ON OPERATOR = (nhs_number, nhs_number) IS 'equal';
CREATE OPERATOR <> (
    LEFTARG = nhs_number, RIGHTARG = nhs_number, FUNCTION = nhs_number_ne,
    COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR <> (nhs_number, nhs_number) IS 'not equal';
CREATE OPERATOR < (
    LEFTARG = nhs_number, RIGHTARG = nhs_number, FUNCTION = nhs_number_lt,
    COMMUTATOR = >, NEGATOR = >=, RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
COMMENT ON OPERATOR < (nhs_number, nhs_number) IS 'less than';
CREATE OPERATOR <= (
    LEFTARG = nhs_number, RIGHTARG = nhs_number, FUNCTION = nhs_number_le,
    COMMUTATOR = >=, NEGATOR = >, RESTRICT = scalarlesel, JOIN = scalarlejoinsel);
COMMENT ON OPERATOR <= (nhs_number, nhs_number) IS 'less than or equal';
CREATE OPERATOR >= (
    LEFTARG = nhs_number, RIGHTARG = nhs_number, FUNCTION = nhs_number_ge,
    COMMUTATOR = <=, NEGATOR = <, RESTRICT = scalargesel, JOIN = scalargejoinsel);
COMMENT ON OPERATOR >= (nhs_number, nhs_number) IS 'greater than or equal';
CREATE OPERATOR > (
    LEFTARG = nhs_number, RIGHTARG = nhs_number, FUNCTION = nhs_number_gt,
    COMMUTATOR = <, NEGATOR = <=, RESTRICT = scalargtsel, JOIN = scalargtjoinsel);
COMMENT ON OPERATOR > (nhs_number, nhs_number) IS 'greater than';

CREATE OPERATOR CLASS nhs_number_ops DEFAULT FOR TYPE nhs_number USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 nhs_number_cmp(nhs_number, nhs_number),
    FUNCTION 2 nhs_number_sortsupport(internal),
    FUNCTION 4 pg_catalog.btequalimage(oid);
COMMENT ON OPERATOR CLASS nhs_number_ops USING btree IS 'order of NHS numbers: that of the ten digits';
COMMENT ON OPERATOR FAMILY nhs_number_ops USING btree IS 'order of NHS numbers';
CREATE OPERATOR CLASS nhs_number_hash_ops DEFAULT FOR TYPE nhs_number USING hash AS
    OPERATOR 1 =,
    FUNCTION 1 nhs_number_hash(nhs_number),
    FUNCTION 2 nhs_number_hash_extended(nhs_number, bigint);
COMMENT ON OPERATOR CLASS nhs_number_hash_ops USING hash IS 'hashing of NHS numbers';
COMMENT ON OPERATOR FAMILY nhs_number_hash_ops USING hash IS 'hashing of NHS numbers';

-- Casts to text, varchar and char are the server's own, through the type's output
-- function.  Those from them are implicit, since many clients send every string with one
-- of these types, and would find none of the functions that take a number.
CREATE CAST (text AS nhs_number) WITH INOUT AS IMPLICIT;
COMMENT ON CAST (text AS nhs_number) IS 'what nhs_number_in() reads; error 22P02';
CREATE CAST (varchar AS nhs_number) WITH INOUT AS IMPLICIT;
COMMENT ON CAST (varchar AS nhs_number) IS 'what nhs_number_in() reads; error 22P02';
CREATE CAST (bpchar AS nhs_number) WITH INOUT AS IMPLICIT;
COMMENT ON CAST (bpchar AS nhs_number) IS 'what nhs_number_in() reads; error 22P02';

CREATE FUNCTION nhs_number(bigint) RETURNS nhs_number
    AS 'MODULE_PATHNAME', 'ndrs_optout_nhs_number_from_bigint'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number(bigint) IS
    'an integer that may have lost its leading zeros, as an NHS number; error 22P02';
CREATE CAST (bigint AS nhs_number) WITH FUNCTION nhs_number(bigint);
COMMENT ON CAST (bigint AS nhs_number) IS 'an integer that may have lost its leading zeros, as an NHS number';
CREATE CAST (nhs_number AS bigint) WITHOUT FUNCTION;
COMMENT ON CAST (nhs_number AS bigint) IS 'the ten digits as an integer';

CREATE FUNCTION nhs_number_or_null(value text) RETURNS nhs_number
    AS 'MODULE_PATHNAME', 'ndrs_optout_nhs_number_or_null'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_or_null(text) IS
    'the NHS number written in a text, or NULL when it is not one; never an error; for queries and for indexes on '
    'columns of text';
CREATE FUNCTION nhs_number_format(number nhs_number) RETURNS text
    AS 'MODULE_PATHNAME', 'ndrs_optout_nhs_number_format'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_format(nhs_number) IS 'an NHS number as people write it: 943 476 5919';
CREATE FUNCTION nhs_number_is_placeholder(number nhs_number) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_nhs_number_is_placeholder'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION nhs_number_is_placeholder(nhs_number) IS
    'whether all ten digits are equal: such numbers pass the check digit, stand for "missing" in real feeds and '
    'belong to no patient';
