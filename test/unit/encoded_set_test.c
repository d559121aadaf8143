/*
 * encoded_set_test.c
 *		Sets of encoded NHS numbers, against a linear search.
 */
#include "encoded_set_core.h"
#include "tap.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

/* A set in memory of its own, no byte more, so that ASan sees a read outside it */
typedef struct Built
{
	char	   *memory;
	size_t		size;
	EncodedSet set;
} Built;

typedef EncodedNhsNumber (*MemberSource) (void);

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

static EncodedNhsNumber
uniform_member(void)
{
	EncodedNhsNumber member;

	for (int i = 0; i < ENCODED_NHS_NUMBER_SIZE; i++)
		member.bytes[i] = (uint8_t) (next_random() >> 32);
	return member;
}

/* Few distinct bytes, so that equal members and equal beginnings are common */
static EncodedNhsNumber
similar_member(void)
{
	EncodedNhsNumber member;

	memset(&member, (int) (next_random() % 3), sizeof(member));
	member.bytes[next_random() % ENCODED_NHS_NUMBER_SIZE] = (uint8_t) next_random();
	return member;
}

/* All in one word of the filter, and all of its bits alike */
static EncodedNhsNumber
hostile_member(void)
{
	EncodedNhsNumber member = {{0x7F, 0xFF, 0xFF, 0xFF}};

	member.bytes[4 + next_random() % 4] = (uint8_t) next_random();
	member.bytes[4 + next_random() % 4] = (uint8_t) next_random();
	return member;
}

/* At the very beginning and the very end */
static EncodedNhsNumber
extreme_member(void)
{
	EncodedNhsNumber member;

	memset(&member, next_random() % 2 ? 0xFF : 0x00, sizeof(member));
	member.bytes[ENCODED_NHS_NUMBER_SIZE - 1] ^= (uint8_t) (next_random() % 4);
	return member;
}

/* In a place that is aligned like nothing */
static void
build(Built *built, const EncodedNhsNumber *members, size_t count)
{
	EncodedNhsNumber *sorted = calloc(count + 1, sizeof(EncodedNhsNumber));
	char	   *base;

	memcpy(sorted, members, count * sizeof(EncodedNhsNumber));
	count = encoded_set_sort(sorted, count);
	built->size = encoded_set_size(count);
	built->memory = malloc(built->size + 1);
	base = built->memory + 1;
	memset(base, 0xA5, built->size);
	memcpy(encoded_set_members(base), sorted, count * sizeof(EncodedNhsNumber));
	encoded_set_seal(base, count);
	free(sorted);
	if (!encoded_set_open(&built->set, base, built->size))
		abort();
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
behaves_like_a_set(MemberSource source, size_t count)
{
	EncodedNhsNumber *given = calloc(count + 1, sizeof(EncodedNhsNumber));
	Built		built;
	bool		good;

	for (size_t i = 0; i < count; i++)
		given[i] = source();
	build(&built, given, count);

	good = encoded_set_intact(&built.set);
	for (size_t i = 1; i < built.set.count; i++)
		good = good && memcmp(&built.set.members[i - 1], &built.set.members[i], ENCODED_NHS_NUMBER_SIZE) < 0;
	for (size_t i = 0; i < count; i++)
		good = good && encoded_set_contains(&built.set, &given[i]);
	for (size_t i = 0; i < built.set.count; i++)
		good = good && (count > 2000 || linear_contains(given, count, &built.set.members[i])) &&
			encoded_set_position(&built.set, &built.set.members[i]) == i;
	for (int i = 0; i < 200; i++)
	{
		EncodedNhsNumber probe = i % 2 ? source() : uniform_member();
		bool		is_member = linear_contains(given, count, &probe);

		good = good && encoded_set_contains(&built.set, &probe) == is_member &&
			(encoded_set_position(&built.set, &probe) < built.set.count) == is_member;
	}
	free(given);
	free(built.memory);
	return good;
}

/* Union, intersection and difference, by membership of everything in sight */
static bool
merges(MemberSource source, size_t count_a, size_t count_b)
{
	EncodedNhsNumber *given = calloc(count_a + count_b + 1, sizeof(EncodedNhsNumber));
	EncodedNhsNumber *result = calloc(count_a + count_b + 1, sizeof(EncodedNhsNumber));
	Built		a;
	Built		b;
	bool		good = true;

	for (size_t i = 0; i < count_a + count_b; i++)
		given[i] = source();
	build(&a, given, count_a);
	build(&b, given + count_a, count_b);

	for (int operation = ENCODED_SET_UNION; operation <= ENCODED_SET_DIFFERENCE; operation++)
	{
		size_t		count = encoded_set_merge(operation, &a.set, &b.set, result);

		good = good && count == encoded_set_merge(operation, &a.set, &b.set, NULL) &&
			count == encoded_set_sort(result, count);
		for (size_t i = 0; i < count_a + count_b; i++)
		{
			bool		in_a = encoded_set_contains(&a.set, &given[i]);
			bool		in_b = encoded_set_contains(&b.set, &given[i]);
			bool		wanted = operation == ENCODED_SET_UNION ? in_a || in_b :
				operation == ENCODED_SET_INTERSECTION ? in_a && in_b : in_a && !in_b;

			good = good && linear_contains(result, count, &given[i]) == wanted;
		}
		for (size_t i = 0; i < count; i++)
			good = good && linear_contains(given, count_a + count_b, &result[i]);
	}
	free(given);
	free(result);
	free(a.memory);
	free(b.memory);
	return good;
}

/* Each byte of a set in turn is another one; nothing is read outside it. */
static bool
notices_damage(MemberSource source, size_t count)
{
	EncodedNhsNumber given[64];
	Built		built;
	EncodedSet damaged;
	bool		good = true;

	for (size_t i = 0; i < count; i++)
		given[i] = source();
	build(&built, given, count);
	for (size_t i = 0; i < built.size; i++)
	{
		char	   *byte = built.memory + 1 + i;
		char		was = *byte;

		*byte ^= (char) (1 << next_random() % 8);
		if (!encoded_set_open(&damaged, built.memory + 1, built.size))
			good = good && i >= sizeof(uint32_t) && i < sizeof(EncodedSetHeader);
		else
		{
			/*
			 * The length word is the server's.  What a later version may use
			 * is looked at before the checksum.
			 */
			good = good && encoded_set_intact(&damaged) == (i < sizeof(uint32_t)) &&
				(i < offsetof(EncodedSetHeader, version) || i >= offsetof(EncodedSetHeader, count)) &&
				(i < offsetof(EncodedSetHeader, unused_too) || i >= sizeof(EncodedSetHeader));
			for (size_t j = 0; j < count; j++)
				encoded_set_contains(&damaged, &given[j]);
		}
		*byte = was;
	}
	free(built.memory);
	return good;
}

/* Members without a filter, or a filter without members */
static bool
wants_both(void)
{
	uint64_t	memory[16] = {0};
	EncodedSetHeader header = {.version = ENCODED_SET_VERSION};
	EncodedSet set;
	bool		good = true;

	header.count = 2;
	memcpy(memory, &header, sizeof(header));
	good = good && !encoded_set_open(&set, memory, ENCODED_SET_SIZE(2, 0));
	header.count = 0;
	header.words = 2;
	memcpy(memory, &header, sizeof(header));
	good = good && !encoded_set_open(&set, memory, ENCODED_SET_SIZE(0, 2));
	header.words = 0;
	memcpy(memory, &header, sizeof(header));
	return good && encoded_set_open(&set, memory, ENCODED_SET_SIZE(0, 0));
}

/* A set of any other size than it says is none. */
static bool
minds_its_size(size_t count)
{
	EncodedNhsNumber given[64];
	Built		built;
	EncodedSet set;
	bool		good = true;

	for (size_t i = 0; i < count; i++)
		given[i] = uniform_member();
	build(&built, given, count);
	for (size_t size = 0; size < built.size; size++)
	{
		char	   *cut = malloc(size + 1);

		memcpy(cut, built.memory + 1, size);
		good = good && !encoded_set_open(&set, cut, size);
		free(cut);
	}
	good = good && !encoded_set_open(&set, built.memory + 1, built.size + ENCODED_SET_ROUNDING);
	free(built.memory);
	return good;
}

static size_t
from_hex(const char *digits, uint8_t *bytes)
{
	size_t		size = strlen(digits) / 2;

	for (size_t i = 0; i < size; i++)
	{
		unsigned	byte;

		sscanf(digits + 2 * i, "%2x", &byte);
		bytes[i] = (uint8_t) byte;
	}
	return size;
}

/*
 * Sets as version 1 wrote them, which every later version must read, and so
 * must not be changed here.
 */
static void
test_version_1(void)
{
	static const char message[] = "010000000003"
		"00112233445566778899aabbccddeeff"
		"7fffffffffffffffffffffffffffffff"
		"ffeeddccbbaa99887766554433221100";
	static const char stored[] =
		"00000000010000000300000001000000" "231da786ec7981000000000000000000"
		"00112233445566778899aabbccddeeff"
		"7fffffffffffffffffffffffffffffff"
		"ffeeddccbbaa99887766554433221100"
		"1101004002008088" "0000000003000000";
	uint8_t		bytes[256];
	EncodedNhsNumber written[3];
	EncodedNhsNumber other;
	const EncodedNhsNumber *members;
	EncodedSet set;
	size_t		count = 0;
	size_t		size = from_hex(message, bytes);

	members = encoded_set_read_message(bytes, size, &count);
	ok(members != NULL && count == 3, "a message of version 1 is read");
	memcpy(written, members, sizeof(written));
	memcpy(&other, &written[1], sizeof(other));
	other.bytes[ENCODED_NHS_NUMBER_SIZE - 1] ^= 1;

	if (*(const uint16_t *) "\1" != 1)
	{
		printf("ok %d # SKIP stored sets are in the machine's byte order\n", ++tests_run);
		return;
	}
	size = from_hex(stored, bytes);
	ok(encoded_set_open(&set, bytes, size) && encoded_set_intact(&set) && set.count == 3 &&
	   encoded_set_contains(&set, &written[0]) && encoded_set_contains(&set, &written[1]) &&
	   encoded_set_contains(&set, &written[2]) && !encoded_set_contains(&set, &other),
	   "and a stored set");

	/* Whatever is written otherwise changes the checksum. */
	{
		enum {COUNT = 1000};
		static EncodedNhsNumber many[COUNT];
		Built		built;

		for (int i = 0; i < COUNT * ENCODED_NHS_NUMBER_SIZE; i++)
			many[i / ENCODED_NHS_NUMBER_SIZE].bytes[i % ENCODED_NHS_NUMBER_SIZE] =
				(uint8_t) ((uint64_t) (i + 1) * UINT64_C(0x9E3779B97F4A7C15) >> 56);
		build(&built, many, COUNT);
		ok(built.set.count == COUNT && built.set.checksum == UINT64_C(0x03D27D0387395E27),
		   "a thousand members are written as ever");
		free(built.memory);
	}
}

static void
test_messages(void)
{
	EncodedNhsNumber members[3] = {{{1}}, {{2}}, {{3}}};
	uint8_t		bytes[ENCODED_SET_MESSAGE_SIZE(3)];
	size_t		count;
	bool		good = true;

	encoded_set_write_message(members, 3, bytes);
	for (size_t size = 0; size <= sizeof(bytes); size++)
	{
		uint8_t    *cut = malloc(size + 1);
		const EncodedNhsNumber *read;

		memcpy(cut, bytes, size);
		read = encoded_set_read_message(cut, size, &count);
		good = good && (read != NULL) == (size == sizeof(bytes)) &&
			(read == NULL || (count == 3 && memcmp(read, members, sizeof(members)) == 0));
		free(cut);
	}
	ok(good, "a message comes back whole or not at all");

	for (size_t i = 0; i < ENCODED_SET_MESSAGE_HEADER; i++)
	{
		bytes[i] ^= 0x80;
		good = good && encoded_set_read_message(bytes, sizeof(bytes), &count) == NULL;
		bytes[i] ^= 0x80;
	}
	ok(good, "each byte of its header counts");

	members[1] = members[0];
	encoded_set_write_message(members, 3, bytes);
	ok(encoded_set_read_message(bytes, sizeof(bytes), &count) == NULL, "a member twice is refused");
	members[1].bytes[0] = 4;
	encoded_set_write_message(members, 3, bytes);
	ok(encoded_set_read_message(bytes, sizeof(bytes), &count) == NULL, "members in disorder are refused");
}

static void
test_equality(void)
{
	EncodedNhsNumber members[] = {{{1}}, {{2}}, {{3}}};
	Built		a;
	Built		b;
	Built		c;

	build(&a, members, 3);
	build(&b, members, 2);
	members[0] = members[2];
	build(&c, members, 2);
	ok(encoded_set_equal(&a.set, &a.set) && !encoded_set_equal(&a.set, &b.set) &&
	   !encoded_set_equal(&b.set, &c.set), "sets are equal when their members are");
	free(a.memory);
	free(b.memory);
	free(c.memory);
}

/* Of those who are not in the set, the filter lets one in a hundred pass. */
static void
test_filter(void)
{
	enum {COUNT = 2000, PROBES = 20000};
	static EncodedNhsNumber members[COUNT];
	Built		built;
	int			passed = 0;

	for (int i = 0; i < COUNT; i++)
		members[i] = uniform_member();
	build(&built, members, COUNT);

	/* Were each member the one that is asked for, only the filter would say no. */
	built.set.members = members;
	for (int probe = 0; probe < PROBES; probe++)
	{
		members[0] = uniform_member();
		for (int i = 1; i < COUNT; i++)
			members[i] = members[0];
		passed += encoded_set_contains(&built.set, members);
	}
	ok(passed > PROBES / 200 && passed < PROBES / 67, "the filter turns 99 out of 100 away");
	ok(built.size <= COUNT * 18, "a member takes less than 18 bytes");
	free(built.memory);
}

static bool
every_bit_decides(void)
{
	bool		good = true;

	for (int bit = 0; bit < 8 * ENCODED_NHS_NUMBER_SIZE; bit++)
	{
		EncodedNhsNumber member = uniform_member();
		EncodedNhsNumber other = member;
		Built		built;

		other.bytes[bit / 8] ^= (uint8_t) (1 << bit % 8);
		build(&built, &member, 1);
		good = good && encoded_set_contains(&built.set, &member) &&
			!encoded_set_contains(&built.set, &other);
		free(built.memory);
	}
	return good;
}

/* Whatever takes long can be left: sorting, sealing, looking through, merging. */
static int	pauses;
static jmp_buf left;

static void
count_pause(void)
{
	pauses++;
}

static void
leave(void)
{
	longjmp(left, 1);
}

static void
test_pauses(void)
{
	enum {COUNT = 1000000, FEW = 1000};
	EncodedNhsNumber *members = malloc(COUNT * sizeof(EncodedNhsNumber));
	Built		built;
	Built		other;
	int			while_built;

	for (int i = 0; i < COUNT; i++)
		members[i] = uniform_member();
	encoded_set_pause = count_pause;
	pauses = 0;
	build(&built, members, FEW);
	ok(pauses == 0 && encoded_set_intact(&built.set) && pauses == 0, "what is short does not pause");
	free(built.memory);

	pauses = 0;
	encoded_set_sort(members, COUNT);
	ok(pauses >= 2 * COUNT / ENCODED_SET_PAUSE_EVERY, "sorting pauses");
	pauses = 0;
	encoded_set_sort(members, COUNT);
	ok(pauses == COUNT / ENCODED_SET_PAUSE_EVERY, "and finding out that nothing is to be sorted");
	pauses = 0;
	build(&built, members, COUNT);
	while_built = pauses;
	pauses = 0;
	encoded_set_intact(&built.set);
	ok(pauses > 0, "looking through a set pauses");
	ok(while_built > pauses + COUNT / ENCODED_SET_PAUSE_EVERY, "making one does as well");
	build(&other, members, COUNT / 2);
	pauses = 0;
	encoded_set_merge(ENCODED_SET_DIFFERENCE, &built.set, &other.set, NULL);
	ok(pauses == COUNT / ENCODED_SET_PAUSE_EVERY, "and merging");

	encoded_set_pause = leave;
	if (setjmp(left) == 0)
	{
		encoded_set_merge(ENCODED_SET_UNION, &built.set, &other.set, NULL);
		ok(false, "which can be left there");
	}
	else
		ok(true, "which can be left there");
	encoded_set_pause = NULL;
	free(built.memory);
	free(other.memory);
	free(members);
}

int
main(void)
{
	static const size_t sizes[] = {0, 1, 2, 3, 4, 5, 6, 39, 40, 41, 100, 1000, 5000};
	static const struct
	{
		const char *name;
		MemberSource source;
	}			sources[] = {
		{"uniform", uniform_member},
		{"similar", similar_member},
		{"hostile", hostile_member},
		{"extreme", extreme_member},
	};

	for (size_t s = 0; s < sizeof(sources) / sizeof(sources[0]); s++)
	{
		char		what[64];

		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		{
			snprintf(what, sizeof(what), "%zu %s members", sizes[i], sources[s].name);
			ok(behaves_like_a_set(sources[s].source, sizes[i]), what);
		}
		snprintf(what, sizeof(what), "%s members: sets merge", sources[s].name);
		ok(merges(sources[s].source, 0, 0) && merges(sources[s].source, 0, 5) &&
		   merges(sources[s].source, 5, 0) && merges(sources[s].source, 300, 20) &&
		   merges(sources[s].source, 200, 300), what);
		snprintf(what, sizeof(what), "%s members: damage is noticed", sources[s].name);
		ok(notices_damage(sources[s].source, 0) && notices_damage(sources[s].source, 1) &&
		   notices_damage(sources[s].source, 60), what);
	}
	ok(minds_its_size(0) && minds_its_size(1) && minds_its_size(64), "a set of another size is refused");

	ok(wants_both(), "members and filter come together");

	{
		EncodedNhsNumber members[] = {{{0}}, {{0}}, {{0}}};

		ok(encoded_set_sort(members, 3) == 1, "repeated members are kept once");
	}
	ok(every_bit_decides(), "each of 128 bits decides");
	ok(ENCODED_SET_SIZE(ENCODED_SET_MAX_MEMBERS, ENCODED_SET_WORDS(ENCODED_SET_MAX_MEMBERS)) < 0x3FFFFFFF,
	   "the largest set fits in a value");

	test_equality();
	test_messages();
	test_filter();
	test_pauses();
	test_version_1();
	return done_testing();
}
