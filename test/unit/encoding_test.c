/*
 * encoding_test.c
 *		HMAC-SHA-256 without a server, in both ways in which OpenSSL computes it.
 */
#include "encoding.h"
#include "tap.h"

#include <string.h>

#include <openssl/evp.h>

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
	return done_testing();
}
