/*
 * encoded_nhs_number.h
 *		An encoded NHS number, without a server.
 */
#ifndef NDRS_ENCODED_NHS_NUMBER_H
#define NDRS_ENCODED_NHS_NUMBER_H

#include <stdint.h>

#define ENCODED_NHS_NUMBER_SIZE 16

/* The first 16 bytes of HMAC-SHA-256(key, the ten ASCII digits). */
typedef struct EncodedNhsNumber
{
	uint8_t		bytes[ENCODED_NHS_NUMBER_SIZE];
} EncodedNhsNumber;

#endif							/* NDRS_ENCODED_NHS_NUMBER_H */
