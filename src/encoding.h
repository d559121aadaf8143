/*
 * encoding.h
 *		The key, and NHS numbers encoded with it.
 */
#ifndef NDRS_ENCODING_H
#define NDRS_ENCODING_H

#include "postgres.h"
#include "encoded_nhs_number.h"
#include "nhs_number.h"

/* A setting: the file that holds the key */
extern char *ndrs_key_file;

extern bool ndrs_before_restore(void);
extern void ndrs_encoding_ready(void);
extern void ndrs_encode(NhsNumber number, EncodedNhsNumber *encoded);
extern bool ndrs_is_encoded_placeholder(const EncodedNhsNumber *encoded);
extern bytea *ndrs_begin_token(void);
extern void ndrs_restore_token(const bytea *token);
extern bool ndrs_token_is_good(const bytea *token);

#endif							/* NDRS_ENCODING_H */
