/*
 * exclusion_set_test.c
 *		Build and search, against a linear search.
 */
#include "exclusion_set.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

/* xorshift: the same sequence everywhere */
static uint64_t
next_random(void)
{
	static uint64_t state = UINT64_C(88172645463325252);

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Few distinct bytes, so that equal members and equal beginnings are common */
static EncodedNhsNumber
random_member(void)
{
	EncodedNhsNumber member;

	memset(&member, (int) (next_random() % 3), sizeof(member));
	member.bytes[next_random() % ENCODED_NHS_NUMBER_SIZE] = (uint8_t) next_random();
	return member;
}

static bool
linear_contains(const EncodedNhsNumber *members, size_t count, const EncodedNhsNumber *member)
{
	for (size_t i = 0; i < count; i++)
	{
		if (memcmp(&members[i], member, sizeof(*member)) == 0)
			return true;
	}
	return false;
}

static bool
behaves_like_a_set(size_t count)
{
	EncodedNhsNumber *given = calloc(count + 1, sizeof(EncodedNhsNumber));
	EncodedNhsNumber *built = calloc(count + 1, sizeof(EncodedNhsNumber));
	size_t		kept;
	bool		good = true;

	for (size_t i = 0; i < count; i++)
		given[i] = random_member();
	memcpy(built, given, count * sizeof(EncodedNhsNumber));
	kept = exclusion_set_build(built, count);

	for (size_t i = 1; i < kept; i++)
		good = good && encoded_nhs_number_compare(&built[i - 1], &built[i]) < 0;
	for (size_t i = 0; i < count; i++)
		good = good && exclusion_set_contains(built, kept, &given[i]);
	for (int i = 0; i < 200; i++)
	{
		EncodedNhsNumber probe = random_member();

		good = good && exclusion_set_contains(built, kept, &probe) ==
			linear_contains(given, count, &probe);
	}
	free(given);
	free(built);
	return good;
}

int
main(void)
{
	static const size_t sizes[] = {0, 1, 2, 3, 7, 8, 9, 100, 1000};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		char		what[64];

		snprintf(what, sizeof(what), "%zu members", sizes[i]);
		ok(behaves_like_a_set(sizes[i]), what);
	}

	{
		EncodedNhsNumber members[] = {{{0}}, {{0}}, {{0}}};
		EncodedNhsNumber other = {{0}};

		other.bytes[ENCODED_NHS_NUMBER_SIZE - 1] = 1;
		ok(exclusion_set_build(members, 3) == 1, "repeated members are kept once");
		ok(!exclusion_set_contains(members, 1, &other), "the last bit decides");
	}
	return done_testing();
}
