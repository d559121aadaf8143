/*
 * encoded_nhs_number.h
 *		An encoded NHS number, without a server: what it is, how two compare,
 *		and its digits.
 */
#ifndef NDRS_ENCODED_NHS_NUMBER_H
#define NDRS_ENCODED_NHS_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENCODED_NHS_NUMBER_SIZE 16

/* The first 16 bytes of HMAC-SHA-256(key, the ten ASCII digits). */
typedef struct EncodedNhsNumber
{
	uint8_t		bytes[ENCODED_NHS_NUMBER_SIZE];
} EncodedNhsNumber;

/* Eight bytes as an integer, most significant first */
static inline uint64_t
encoded_nhs_number_word(const uint8_t *bytes)
{
	return (uint64_t) bytes[0] << 56 | (uint64_t) bytes[1] << 48 |
		(uint64_t) bytes[2] << 40 | (uint64_t) bytes[3] << 32 |
		(uint64_t) bytes[4] << 24 | (uint64_t) bytes[5] << 16 |
		(uint64_t) bytes[6] << 8 | (uint64_t) bytes[7];
}

/* All 128 bits decide, in the order of the bytes. */
static inline int
encoded_nhs_number_compare(const EncodedNhsNumber *a, const EncodedNhsNumber *b)
{
	uint64_t	x = encoded_nhs_number_word(a->bytes);
	uint64_t	y = encoded_nhs_number_word(b->bytes);

	if (x == y)
	{
		x = encoded_nhs_number_word(a->bytes + 8);
		y = encoded_nhs_number_word(b->bytes + 8);
	}
	return (x > y) - (x < y);
}

/* encoded_nhs_number.c */
extern bool ndrs_decode_hex(const char *digits, size_t size, uint8_t *bytes);

#endif							/* NDRS_ENCODED_NHS_NUMBER_H */
