/*
 * nhs_number_type.c
 *		The SQL type nhs_number, and reading numbers out of other types.
 *
 * The type has bigint's representation, so its comparison, hashing and sort
 * support are the server's own functions for bigint (nhs_number.sql).
 */
#include "postgres.h"

#include "catalog.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "fmgr.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "nhs_number_type.h"
#include "parser/parse_coerce.h"
#include "privacy.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#ifndef USE_FLOAT8_BYVAL
#error "ndrs_optout needs a server that passes 8-byte values by value"
#endif

PG_FUNCTION_INFO_V1(ndrs_optout_nhs_number_in);
PG_FUNCTION_INFO_V1(ndrs_optout_nhs_number_out);
PG_FUNCTION_INFO_V1(ndrs_optout_nhs_number_recv);
PG_FUNCTION_INFO_V1(ndrs_optout_nhs_number_from_bigint);
PG_FUNCTION_INFO_V1(ndrs_optout_nhs_number_or_null);
PG_FUNCTION_INFO_V1(ndrs_optout_nhs_number_format);
PG_FUNCTION_INFO_V1(ndrs_optout_nhs_number_is_placeholder);
PG_FUNCTION_INFO_V1(ndrs_optout_holds_nhs_number);

pg_noreturn static void number_error(NhsNumberForm form);

static void
number_error(NhsNumberForm form)
{
	ndrs_ereport(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid NHS number"),
				 errdetail_internal("%s", nhs_number_form_detail(form)));
}

Datum
ndrs_optout_nhs_number_in(PG_FUNCTION_ARGS)
{
	char	   *input = PG_GETARG_CSTRING(0);
	NhsNumber	number;
	NhsNumberForm form = nhs_number_parse(input, strlen(input), &number);

	if (form != NHS_NUMBER_VALID)
		ereturn(fcinfo->context, (Datum) 0,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid NHS number"),
				 errdetail_internal("%s", nhs_number_form_detail(form)),
				 ndrs_errhidevalues_unless_soft(fcinfo->context)));
	PG_RETURN_INT64(number);
}

Datum
ndrs_optout_nhs_number_out(PG_FUNCTION_ARGS)
{
	char	   *result = palloc(NHS_NUMBER_DIGITS + 1);

	nhs_number_digits(PG_GETARG_INT64(0), result);
	result[NHS_NUMBER_DIGITS] = '\0';
	PG_RETURN_CSTRING(result);
}

Datum
ndrs_optout_nhs_number_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	NhsNumber	number;
	NhsNumberForm form = nhs_number_check(pq_getmsgint64(buf), &number);

	if (form != NHS_NUMBER_VALID)
		ndrs_ereport(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
					 errmsg("invalid NHS number"),
					 errdetail_internal("%s", nhs_number_form_detail(form)));
	PG_RETURN_INT64(number);
}

Datum
ndrs_optout_nhs_number_from_bigint(PG_FUNCTION_ARGS)
{
	NhsNumber	number;
	NhsNumberForm form = nhs_number_check(PG_GETARG_INT64(0), &number);

	if (form != NHS_NUMBER_VALID)
		number_error(form);
	PG_RETURN_INT64(number);
}

static NhsNumberForm
read_text(Datum value, NhsNumber *number)
{
	struct varlena *text = PG_DETOAST_DATUM_PACKED(value);

	return nhs_number_parse(VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text), number);
}

static NhsNumberForm
read_bigint(Datum value, NhsNumber *number)
{
	return nhs_number_check(DatumGetInt64(value), number);
}

static NhsNumberForm
read_nhs_number(Datum value, NhsNumber *number)
{
	*number = DatumGetInt64(value);
	return NHS_NUMBER_VALID;
}

/*
 * numeric's text form is an optional sign, digits, and a fraction that says
 * nothing when it is all zeros (a column may have been declared with a scale).
 */
static NhsNumberForm
read_numeric(Datum value, NhsNumber *number)
{
	char	   *digits = DatumGetCString(DirectFunctionCall1(numeric_out, value));
	size_t		ndigits = strspn(digits, "0123456789");
	char	   *fraction = digits + ndigits;

	if (ndigits == 0)
		return NHS_NUMBER_BAD_CHARACTER;	/* negative, NaN or infinite */
	if (ndigits > NHS_NUMBER_DIGITS)
		return NHS_NUMBER_TOO_LONG;
	if (*fraction != '\0' && fraction[1 + strspn(fraction + 1, "0")] != '\0')
		return NHS_NUMBER_BAD_CHARACTER;
	*fraction = '\0';
	return nhs_number_check(strtoll(digits, NULL, 10), number);
}

/*
 * How to read numbers of this type (or a domain over it), or NULL.
 */
NhsNumberReader
ndrs_number_reader(Oid type)
{
	Oid			base = getBaseType(type);

	if (base == INT8OID)
		return read_bigint;
	if (base == NUMERICOID)
		return read_numeric;
	if (IsBinaryCoercible(base, TEXTOID) || base == BPCHAROID)
		return read_text;
	if (base == ndrs_type("nhs_number"))
		return read_nhs_number;
	return NULL;
}

Datum
ndrs_optout_nhs_number_or_null(PG_FUNCTION_ARGS)
{
	NhsNumber	number;

	if (read_text(PG_GETARG_DATUM(0), &number) != NHS_NUMBER_VALID)
		PG_RETURN_NULL();
	PG_RETURN_INT64(number);
}

Datum
ndrs_optout_nhs_number_format(PG_FUNCTION_ARGS)
{
	char		digits[NHS_NUMBER_DIGITS];

	nhs_number_digits(PG_GETARG_INT64(0), digits);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%.3s %.3s %.4s", digits,
											  digits + 3, digits + 6)));
}

Datum
ndrs_optout_nhs_number_is_placeholder(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(nhs_number_is_placeholder(PG_GETARG_INT64(0)));
}

Datum
ndrs_optout_holds_nhs_number(PG_FUNCTION_ARGS)
{
	text	   *value = PG_GETARG_TEXT_PP(0);

	PG_RETURN_BOOL(nhs_number_in_text(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), PG_GETARG_BOOL(1)));
}
