/*
 * encoded_nhs_number.c
 *		The SQL type encoded_nhs_number, without the key.
 */
#include "postgres.h"

#include "compat.h"
#include "encoded_nhs_number.h"
#include "fmgr.h"
#include "privacy.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(ndrs_optout_encoded_nhs_number_in);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_nhs_number_out);

/*
 * The server's own hex_decode() names the digit that it does not like, which
 * must not happen to a key.
 */
bool
ndrs_decode_hex(const char *digits, size_t size, uint8_t *bytes)
{
	for (size_t i = 0; i < 2 * size; i++)
	{
		char		c = digits[i];
		uint8		value;

		if (c >= '0' && c <= '9')
			value = c - '0';
		else if (c >= 'a' && c <= 'f')
			value = c - 'a' + 10;
		else if (c >= 'A' && c <= 'F')
			value = c - 'A' + 10;
		else
			return false;
		bytes[i / 2] = (i % 2 == 0) ? value << 4 : bytes[i / 2] | value;
	}
	return true;
}

Datum
ndrs_optout_encoded_nhs_number_in(PG_FUNCTION_ARGS)
{
	char	   *text = PG_GETARG_CSTRING(0);
	EncodedNhsNumber *result = palloc(sizeof(EncodedNhsNumber));

	if (strlen(text) != 2 * ENCODED_NHS_NUMBER_SIZE ||
		!ndrs_decode_hex(text, ENCODED_NHS_NUMBER_SIZE, result->bytes))
		ereturn(fcinfo->context, (Datum) 0,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid encoded NHS number"),
				 errdetail("An encoded NHS number is written as 32 hexadecimal digits."),
				 ndrs_errhidevalues_unless_soft(fcinfo->context)));
	PG_RETURN_POINTER(result);
}

Datum
ndrs_optout_encoded_nhs_number_out(PG_FUNCTION_ARGS)
{
	EncodedNhsNumber *encoded = (EncodedNhsNumber *) PG_GETARG_POINTER(0);
	char	   *result = palloc(2 * ENCODED_NHS_NUMBER_SIZE + 1);

	hex_encode((char *) encoded->bytes, ENCODED_NHS_NUMBER_SIZE, result);
	result[2 * ENCODED_NHS_NUMBER_SIZE] = '\0';
	PG_RETURN_CSTRING(result);
}
