/*
 * national_check.h
 *		What the national checks that were loaded say of a patient.
 */
#ifndef NDRS_NATIONAL_CHECK_H
#define NDRS_NATIONAL_CHECK_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "encoded_nhs_number.h"

typedef enum NationalChoice
{
	NATIONAL_NOT_CHECKED,
	NATIONAL_CHECK_EXPIRED,
	NATIONAL_ALLOWED,
	NATIONAL_NOT_ALLOWED,		/* the caller does not need to know why */
	NATIONAL_OPTED_OUT
} NationalChoice;

extern void ndrs_make_national_checks_current(void);
extern NationalChoice ndrs_national_choice(const EncodedNhsNumber *encoded,
										   TimestampTz now, bool why);

#endif							/* NDRS_NATIONAL_CHECK_H */
