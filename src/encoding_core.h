/*
 * encoding_core.h
 *		HMAC-SHA-256 of NHS numbers, without a server.
 *
 * Nothing here knows of fmgr or ereport, so that unit tests can link it alone.
 */
#ifndef NDRS_ENCODING_CORE_H
#define NDRS_ENCODING_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "encoded_nhs_number.h"

#define ENCODING_KEY_SIZE	32

/* The longest message: with what SHA-256 puts behind it, a block */
#define ENCODING_MOST_BYTES	55

extern bool encoding_set_key(const uint8_t *key);
extern bool encoding_has_key(void);
extern void encoding_forget_key(void);
extern bool encoding_compute(const void *message, size_t length,
							 EncodedNhsNumber *encoded);

#endif							/* NDRS_ENCODING_CORE_H */
