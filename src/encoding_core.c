/*
 * encoding_core.c
 *		HMAC-SHA-256 with one key, many times.
 *
 * The states of SHA-256 after the inner and the outer pad are computed once, and
 * a number costs two blocks: six times less than to set the key up for each
 * number.
 *
 * OpenSSL computes, in one of two ways.  A state of EVP's is copied into fresh
 * memory, which is wiped and freed again, and that takes as long as a block.
 * A state of SHA256_Init's is a plain struct.  OpenSSL 3 calls these functions
 * deprecated, because they bypass its providers, and with them one that was
 * validated (FIPS 140).  So they are used where OpenSSL has them, unless it takes
 * SHA-256 from another provider than its default one.
 */

/* PostgreSQL asks for OpenSSL's older interfaces in the same way. */
#ifndef OPENSSL_API_COMPAT
#define OPENSSL_API_COMPAT	0x10001000L
#endif

#include "encoding_core.h"

#include <arpa/inet.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
#include <openssl/provider.h>
#endif
#include <openssl/sha.h>

#ifdef OPENSSL_NO_DEPRECATED_3_0
#define HAVE_PLAIN_STATE	0
#else
#define HAVE_PLAIN_STATE	1
#endif

#define SHA256_SIZE			32
#define SHA256_BLOCK_SIZE	64

typedef struct State
{
	EVP_MD_CTX *evp;			/* NULL: the state is plain */
#if HAVE_PLAIN_STATE
	SHA256_CTX	plain;
#endif
} State;

/* With the key's pads taken in */
static State inner;
static State outer;
static EVP_MD_CTX *work = NULL;
static bool has_key = false;

#if HAVE_PLAIN_STATE
/*
 * Does OpenSSL take SHA-256 from elsewhere than its own default implementation?  A
 * validated one comes by whatever makes a fetch find it: properties, a provider that
 * is loaded instead, or an order of providers.  So it is the fetch that is asked.
 * When it finds none, EVP fails as it must.
 */
static bool
must_be_validated(void)
{
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
	EVP_MD	   *fetched = EVP_MD_fetch(NULL, "SHA2-256", NULL);
	bool		is_default = false;

	if (fetched != NULL)
		is_default = strcmp(OSSL_PROVIDER_get0_name(EVP_MD_get0_provider(fetched)), "default") == 0;
	EVP_MD_free(fetched);
	return !is_default;
#else
	return FIPS_mode();
#endif
}
#endif

static bool
take_in_pad(State *state, const uint8_t *key, uint8_t pad)
{
	uint8_t		block[SHA256_BLOCK_SIZE];
	bool		ok;

	memset(block, pad, sizeof(block));
	for (int i = 0; i < ENCODING_KEY_SIZE; i++)
		block[i] ^= key[i];
#if HAVE_PLAIN_STATE
	if (!must_be_validated())
		ok = SHA256_Init(&state->plain) &&
			SHA256_Update(&state->plain, block, sizeof(block));
	else
#endif
		ok = (state->evp = EVP_MD_CTX_new()) != NULL &&
			EVP_DigestInit_ex(state->evp, EVP_sha256(), NULL) &&
			EVP_DigestUpdate(state->evp, block, sizeof(block));
	OPENSSL_cleanse(block, sizeof(block));
	return ok;
}

/*
 * Keep what is needed of a key, which the caller wipes.  False, and no key, when
 * OpenSSL cannot do it.
 */
bool
encoding_set_key(const uint8_t *key)
{
	encoding_forget_key();
	work = EVP_MD_CTX_new();
	has_key = work != NULL &&
		take_in_pad(&inner, key, 0x36) && take_in_pad(&outer, key, 0x5c);
	if (!has_key)
		encoding_forget_key();
	return has_key;
}

bool
encoding_has_key(void)
{
	return has_key;
}

void
encoding_forget_key(void)
{
	has_key = false;

	/* OpenSSL wipes the states that it frees. */
	EVP_MD_CTX_free(inner.evp);
	EVP_MD_CTX_free(outer.evp);
	EVP_MD_CTX_free(work);
	work = NULL;
	OPENSSL_cleanse(&inner, sizeof(inner));
	OPENSSL_cleanse(&outer, sizeof(outer));
}

#if HAVE_PLAIN_STATE
/*
 * What SHA256_Update and SHA256_Final would do with a copy of the state, for up to
 * ENCODING_MOST_BYTES: behind them goes a bit that is set, and at the end of the block
 * how many bits the state has taken in.
 */
static inline void
digest_last_block(const SHA256_CTX *state, const void *bytes, size_t length, uint8_t *result)
{
	SHA256_CTX	copy;
	uint8_t		block[SHA256_BLOCK_SIZE] = {0};
	size_t		bits = (SHA256_BLOCK_SIZE + length) * 8;

	memcpy(copy.h, state->h, sizeof(copy.h));
	memcpy(block, bytes, length);
	block[length] = 0x80;
	block[SHA256_BLOCK_SIZE - 2] = (uint8_t) (bits >> 8);
	block[SHA256_BLOCK_SIZE - 1] = (uint8_t) bits;
	SHA256_Transform(&copy, block);
	for (int i = 0; i < 8; i++)
	{
		uint32_t	word = htonl(copy.h[i]);

		memcpy(result + i * sizeof(word), &word, sizeof(word));
	}
}
#endif

/* The SHA-256 of what the state has taken in, and of this */
static inline bool
digest(const State *state, const void *bytes, size_t length, uint8_t *result)
{
#if HAVE_PLAIN_STATE
	if (state->evp == NULL)
	{
		digest_last_block(&state->plain, bytes, length, result);
		return true;
	}
#endif
	return EVP_MD_CTX_copy_ex(work, state->evp) &&
		EVP_DigestUpdate(work, bytes, length) &&
		EVP_DigestFinal_ex(work, result, NULL);
}

/*
 * Encode with the key that is set.
 */
bool
encoding_compute(const void *message, size_t length, EncodedNhsNumber *encoded)
{
	uint8_t		result[SHA256_SIZE];

	if (!has_key || length > ENCODING_MOST_BYTES || !digest(&inner, message, length, result) ||
		!digest(&outer, result, sizeof(result), result))
		return false;
	memcpy(encoded->bytes, result, sizeof(encoded->bytes));
	return true;
}
