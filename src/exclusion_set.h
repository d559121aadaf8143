/*
 * exclusion_set.h
 *		Sets of encoded NHS numbers without a server.
 *
 * Nothing here knows of fmgr or ereport, so that unit tests can link it alone.
 */
#ifndef NDRS_EXCLUSION_SET_H
#define NDRS_EXCLUSION_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENCODED_NHS_NUMBER_SIZE 16

/* The first 16 bytes of HMAC-SHA-256(key, the ten ASCII digits). */
typedef struct EncodedNhsNumber
{
	uint8_t		bytes[ENCODED_NHS_NUMBER_SIZE];
} EncodedNhsNumber;

extern int	encoded_nhs_number_compare(const void *a, const void *b);
extern size_t exclusion_set_build(EncodedNhsNumber *members, size_t count);
extern bool exclusion_set_contains(const EncodedNhsNumber *members,
								   size_t count,
								   const EncodedNhsNumber *member);

#endif							/* NDRS_EXCLUSION_SET_H */
