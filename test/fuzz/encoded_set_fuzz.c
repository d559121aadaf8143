/*
 * encoded_set_fuzz.c
 *		Sets of encoded NHS numbers out of hostile bytes, for libFuzzer.
 *
 * The first byte of an input says what the others are taken for.  Properties are
 * held against the plainest code that does the same; sanitizers look for reads
 * and writes outside of what each function was given.
 */
#include "encoded_set_core.h"

#include <stdlib.h>
#include <string.h>

enum
{
	STORED,						/* a set as stored, whatever its size */
	STORED_BODY,				/* one whose header and size agree */
	MESSAGE,
	MEMBERS,					/* of two sets */
	KINDS
};

/* The largest set of STORED_BODY */
#define MOST_MEMBERS 200

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
									  unsigned int seed);
extern size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* Memory of its own, no byte more */
static void *
copy(const void *bytes, size_t size)
{
	void	   *result = malloc(size);

	if (size > 0)
		memcpy(result, bytes, size);
	return result;
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

static void
check(bool holds)
{
	if (!holds)
		abort();
}

/* A set of members in any order; the caller frees its base. */
static EncodedSet
build(const EncodedNhsNumber *members, size_t count)
{
	EncodedNhsNumber *sorted = copy(members, count * sizeof(*members));
	size_t		kept = encoded_set_sort(sorted, count);
	void	   *base = malloc(encoded_set_size(kept));
	EncodedSet set;

	if (kept > 0)
		memcpy(encoded_set_members(base), sorted, kept * sizeof(*members));
	free(sorted);
	encoded_set_seal(base, kept);
	check(encoded_set_open(&set, base, encoded_set_size(kept)));
	check(set.count == kept && encoded_set_intact(&set));
	return set;
}

/* Nothing is promised of the answers, but that there are some. */
static void
use_stored(const uint8_t *bytes, size_t size)
{
	void	   *base = copy(bytes, size);
	EncodedSet set;

	if (encoded_set_open(&set, base, size))
	{
		EncodedNhsNumber *result = malloc((2 * (size_t) set.count + 1) * sizeof(*result));
		EncodedNhsNumber none = {{0}};

		encoded_set_intact(&set);
		encoded_set_contains(&set, &none);
		for (uint32_t i = 0; i < set.count; i++)
		{
			encoded_set_contains(&set, &set.members[i]);
			check(encoded_set_position(&set, &set.members[i]) <= set.count);
			memcpy(&none, set.members[i].bytes, sizeof(none) - 1);
			encoded_set_contains(&set, &none);
		}
		for (int operation = ENCODED_SET_UNION; operation <= ENCODED_SET_DIFFERENCE; operation++)
			check(encoded_set_merge(operation, &set, &set, result) ==
				  encoded_set_merge(operation, &set, &set, NULL));
		check(encoded_set_equal(&set, &set));
		free(result);
	}
	free(base);
}

static void
use_stored_body(const uint8_t *bytes, size_t size)
{
	EncodedSetHeader header = {.version = ENCODED_SET_VERSION};
	size_t		whole;
	uint8_t    *base;

	if (size < 3)
		return;
	header.count = bytes[0] % MOST_MEMBERS;
	header.words = bytes[1];
	whole = ENCODED_SET_SIZE(header.count, header.words);
	base = malloc(whole);
	for (size_t i = 0; i < whole; i++)
		base[i] = bytes[2 + i % (size - 2)];
	memcpy(base, &header, sizeof(header));
	use_stored(base, whole);
	free(base);
}

static void
use_message(const uint8_t *bytes, size_t size)
{
	void	   *message = copy(bytes, size);
	size_t		count;
	const EncodedNhsNumber *members = encoded_set_read_message(message, size, &count);

	if (members != NULL)
	{
		EncodedSet set = build(members, count);
		void	   *again = malloc(ENCODED_SET_MESSAGE_SIZE(count));

		check(set.count == count && size == ENCODED_SET_MESSAGE_SIZE(count));
		encoded_set_write_message(set.members, set.count, again);
		check(memcmp(again, message, size) == 0);
		free(again);
		free((void *) set.base);
	}
	free(message);
}

static void
use_members(const uint8_t *bytes, size_t size)
{
	EncodedNhsNumber *members = copy(bytes, size);
	size_t		count = size / sizeof(*members);
	size_t		count_a = count > 0 ? bytes[size - 1] % (count + 1) : 0;
	EncodedSet a = build(members, count_a);
	EncodedSet b = build(members + count_a, count - count_a);
	EncodedNhsNumber *result = malloc((count + 1) * sizeof(*result));

	for (size_t i = 0; i < count; i++)
	{
		check(encoded_set_contains(&a, &members[i]) ==
			  linear_contains(members, count_a, &members[i]));
		check((encoded_set_position(&a, &members[i]) < a.count) ==
			  linear_contains(members, count_a, &members[i]));
		check(encoded_set_contains(&b, &members[i]) ==
			  linear_contains(members + count_a, count - count_a, &members[i]));
	}
	for (int operation = ENCODED_SET_UNION; operation <= ENCODED_SET_DIFFERENCE; operation++)
	{
		size_t		merged = encoded_set_merge(operation, &a, &b, result);

		check(merged == encoded_set_merge(operation, &a, &b, NULL));
		check(merged == encoded_set_sort(result, merged));
		for (size_t i = 0; i < count; i++)
		{
			bool		in_a = encoded_set_contains(&a, &members[i]);
			bool		in_b = encoded_set_contains(&b, &members[i]);

			check(linear_contains(result, merged, &members[i]) ==
				  (operation == ENCODED_SET_UNION ? in_a || in_b :
				   operation == ENCODED_SET_INTERSECTION ? in_a && in_b : in_a && !in_b));
		}
		for (size_t i = 0; i < merged; i++)
			check(linear_contains(members, count, &result[i]));
	}
	check(encoded_set_equal(&a, &a));
	check(encoded_set_equal(&a, &b) ==
		  (encoded_set_merge(ENCODED_SET_UNION, &a, &b, NULL) ==
		   encoded_set_merge(ENCODED_SET_INTERSECTION, &a, &b, NULL)));
	free(result);
	free((void *) a.base);
	free((void *) b.base);
	free(members);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	switch (data[0] % KINDS)
	{
		case STORED:
			use_stored(data + 1, size - 1);
			break;
		case STORED_BODY:
			use_stored_body(data + 1, size - 1);
			break;
		case MESSAGE:
			use_message(data + 1, size - 1);
			break;
		case MEMBERS:
			use_members(data + 1, size - 1);
			break;
	}
	return 0;
}

/*
 * One mutation in eight makes a stored set or a message out of the bytes that
 * are there: a checksum, or ascending members, are not found by chance.  These
 * are the seeds, too.
 */
size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	EncodedSet set;
	size_t		count;

	size = LLVMFuzzerMutate(data, size, max_size);
	if (seed % 8 != 0 || size == 0)
		return size;

	count = (size - 1) / sizeof(EncodedNhsNumber);
	set = build((const EncodedNhsNumber *) (data + 1), count);
	size = encoded_set_size(set.count);
	if (size < max_size && seed % 16 != 0)
	{
		data[0] = STORED;
		memcpy(data + 1, set.base, size);
	}
	else if (ENCODED_SET_MESSAGE_SIZE(set.count) < max_size)
	{
		size = ENCODED_SET_MESSAGE_SIZE(set.count);
		data[0] = MESSAGE;
		encoded_set_write_message(set.members, set.count, data + 1);
	}
	else
		size = 0;
	free((void *) set.base);
	return size + 1;
}
