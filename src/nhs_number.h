/*
 * nhs_number.h
 *		NHS numbers without a server: parsing, check digit, printing.
 *
 * Nothing here knows of fmgr or ereport, so that unit tests can link it alone.
 */
#ifndef NDRS_NHS_NUMBER_H
#define NDRS_NHS_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The ten digits as an integer: leading zeros (Scottish CHI numbers) count. */
typedef int64_t NhsNumber;

#define NHS_NUMBER_DIGITS	10
#define NHS_NUMBER_LIMIT	INT64_C(10000000000)

typedef enum NhsNumberForm
{
	NHS_NUMBER_VALID,
	NHS_NUMBER_EMPTY,			/* nothing, or only blanks */
	NHS_NUMBER_BAD_CHARACTER,	/* neither a digit nor a separator */
	NHS_NUMBER_TOO_SHORT,
	NHS_NUMBER_TOO_LONG,
	NHS_NUMBER_BAD_CHECK_DIGIT
} NhsNumberForm;

extern NhsNumberForm nhs_number_parse(const char *text, size_t length,
									  NhsNumber *number);
extern NhsNumberForm nhs_number_check(int64_t value, NhsNumber *number);
extern const char *nhs_number_form_detail(NhsNumberForm form);
extern void nhs_number_digits(NhsNumber number, char *digits);
extern bool nhs_number_in_text(const char *text, size_t length, bool loosely);

/*
 * All ten digits equal: such numbers pass the check digit, and stand for
 * "missing" in real feeds.
 */
static inline bool
nhs_number_is_placeholder(NhsNumber number)
{
	return number % INT64_C(1111111111) == 0;
}

#endif							/* NDRS_NHS_NUMBER_H */
