/*
 * encoding_test.c
 *		HMAC-SHA-256 without a server, in both ways in which OpenSSL computes it.
 */
/* As the library itself: PostgreSQL asks for older interfaces. */
#ifndef OPENSSL_API_COMPAT
#define OPENSSL_API_COMPAT	0x10001000L
#endif

#include "encoding_core.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#endif
#include <openssl/sha.h>

/*
 * A provider as one that was validated comes, which counts what it is asked for.  It
 * says nothing of FIPS: it is the only one that the properties allow.
 */
#if OPENSSL_VERSION_NUMBER >= 0x30000000L && !defined(OPENSSL_NO_DEPRECATED_3_0)
#define HAVE_OTHER_PROVIDER 1

static int	provided = 0;

static void *
provider_newctx(void *provctx)
{
	(void) provctx;
	return calloc(1, sizeof(SHA256_CTX));
}

static void
provider_freectx(void *ctx)
{
	free(ctx);
}

static void *
provider_dupctx(void *ctx)
{
	SHA256_CTX *copy = malloc(sizeof(SHA256_CTX));

	memcpy(copy, ctx, sizeof(SHA256_CTX));
	return copy;
}

static int
provider_init(void *ctx, const OSSL_PARAM *params)
{
	(void) params;
	return SHA256_Init(ctx);
}

static int
provider_update(void *ctx, const unsigned char *bytes, size_t length)
{
	provided++;
	return SHA256_Update(ctx, bytes, length);
}

static int
provider_final(void *ctx, unsigned char *result, size_t *length, size_t room)
{
	if (room < SHA256_DIGEST_LENGTH)
		return 0;
	*length = SHA256_DIGEST_LENGTH;
	return SHA256_Final(result, ctx);
}

static int
provider_get_params(OSSL_PARAM *params)
{
	OSSL_PARAM *size = OSSL_PARAM_locate(params, OSSL_DIGEST_PARAM_SIZE);
	OSSL_PARAM *block = OSSL_PARAM_locate(params, OSSL_DIGEST_PARAM_BLOCK_SIZE);

	return (size == NULL || OSSL_PARAM_set_size_t(size, SHA256_DIGEST_LENGTH)) &&
		(block == NULL || OSSL_PARAM_set_size_t(block, SHA256_CBLOCK));
}

static const OSSL_DISPATCH provider_digest[] = {
	{OSSL_FUNC_DIGEST_NEWCTX, (void (*) (void)) provider_newctx},
	{OSSL_FUNC_DIGEST_FREECTX, (void (*) (void)) provider_freectx},
	{OSSL_FUNC_DIGEST_DUPCTX, (void (*) (void)) provider_dupctx},
	{OSSL_FUNC_DIGEST_INIT, (void (*) (void)) provider_init},
	{OSSL_FUNC_DIGEST_UPDATE, (void (*) (void)) provider_update},
	{OSSL_FUNC_DIGEST_FINAL, (void (*) (void)) provider_final},
	{OSSL_FUNC_DIGEST_GET_PARAMS, (void (*) (void)) provider_get_params},
	{0, NULL}
};

static const OSSL_ALGORITHM provider_digests[] = {
	{"SHA2-256:SHA-256:SHA256", "provider=validated", provider_digest, NULL},
	{NULL, NULL, NULL, NULL}
};

static const OSSL_ALGORITHM *
provider_query(void *provctx, int operation, int *no_cache)
{
	(void) provctx;
	*no_cache = 0;
	return operation == OSSL_OP_DIGEST ? provider_digests : NULL;
}

static const OSSL_DISPATCH provider_functions[] = {
	{OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*) (void)) provider_query},
	{0, NULL}
};

static int
provider_start(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
			   const OSSL_DISPATCH **out, void **provctx)
{
	(void) in;
	*out = provider_functions;
	*provctx = (void *) handle;
	return 1;
}
#endif

typedef struct Vector
{
	const char *key;			/* zeroes behind it change nothing */
	const char *message;
	uint8_t		expected[ENCODED_NHS_NUMBER_SIZE];
	const char *why;
} Vector;

/* The first 16 bytes of what the RFC has, or Python's hmac */
static const Vector vectors[] = {
	{"\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b", "Hi There",
		{0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53, 0x5c, 0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b},
	"RFC 4231, case 1"},
	{"Jefe", "what do ya want for nothing?",
		{0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7},
	"RFC 4231, case 2"},
	{"Jefe", "fifty-five bytes fill what SHA-256 leaves in a block 55",
		{0x53, 0x74, 0xe4, 0xc6, 0x13, 0x8a, 0x31, 0xe1, 0x82, 0x79, 0x3f, 0x51, 0xbf, 0xc7, 0xf0, 0xda},
	"the longest message"},
};

static bool
encodes(const Vector *vector)
{
	EncodedNhsNumber encoded;

	return encoding_compute(vector->message, strlen(vector->message), &encoded) &&
		memcmp(encoded.bytes, vector->expected, sizeof(encoded.bytes)) == 0;
}

int
main(void)
{
	uint8_t		key[ENCODING_KEY_SIZE];
	const char	too_long[ENCODING_MOST_BYTES + 1] = {0};
	EncodedNhsNumber encoded;

	ok(!encoding_has_key() && !encodes(&vectors[0]), "without a key nothing is encoded");
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
	{
		memset(key, 0, sizeof(key));
		memcpy(key, vectors[i].key, strlen(vectors[i].key));
		ok(encoding_set_key(key) && encoding_has_key() && encodes(&vectors[i]), vectors[i].why);
		ok(encodes(&vectors[i]), "and the same once more");
	}
	ok(!encoding_compute(too_long, sizeof(too_long), &encoded), "a longer one is refused");
	encoding_forget_key();
	ok(!encoding_has_key() && !encodes(&vectors[1]), "a key that was forgotten encodes nothing");

#if OPENSSL_VERSION_NUMBER >= 0x30000000L

	/* No provider is loaded that was validated. */
	EVP_default_properties_enable_fips(NULL, 1);
	ok(!encoding_set_key(key) && !encoding_has_key() && !encodes(&vectors[1]),
	   "nor does OpenSSL, when it may use validated code only and has none");
	EVP_default_properties_enable_fips(NULL, 0);
	ok(encoding_set_key(key) && encodes(&vectors[1]), "until it may use any");
	encoding_forget_key();
#endif

#ifdef HAVE_OTHER_PROVIDER
	{
		OSSL_PROVIDER *other = NULL;

		ok(OSSL_PROVIDER_add_builtin(NULL, "validated", provider_start) &&
		   (other = OSSL_PROVIDER_load(NULL, "validated")) != NULL &&
		   EVP_set_default_properties(NULL, "provider=validated") && provided == 0,
		   "a provider that says nothing of FIPS is the only one");
		memset(key, 0, sizeof(key));
		memcpy(key, vectors[1].key, strlen(vectors[1].key));
		ok(encoding_set_key(key) && encodes(&vectors[1]), "what OpenSSL finds there encodes");
		ok(provided > 0, "and nothing else does");
		encoding_forget_key();
		OSSL_PROVIDER_unload(other);
	}
#endif
	return done_testing();
}
