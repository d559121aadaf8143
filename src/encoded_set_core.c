/*
 * encoded_set_core.c
 *		Sets of encoded NHS numbers without a server: build, search, merge,
 *		validate.
 *
 * Whatever bytes a set is made of, once it is open nothing here reads outside
 * it or fails to end: a damaged one gives wrong answers at worst, and
 * encoded_set_intact() tells of the damage.  A set need not be aligned: what
 * is wider than a byte is copied out.
 */
#include "encoded_set_core.h"

#include <string.h>

/* So many members are sorted by insertion. */
#define FEW_MEMBERS 96

void		(*encoded_set_pause) (void) = NULL;

/* ---------------------------------------------------------------- building */

static void
sort_few(EncodedNhsNumber *members, size_t count)
{
	for (size_t i = 1; i < count; i++)
	{
		EncodedNhsNumber member = members[i];
		size_t		at = i;

		while (at > 0 && encoded_nhs_number_compare(&member, &members[at - 1]) < 0)
		{
			members[at] = members[at - 1];
			at--;
		}
		members[at] = member;
	}
}

/*
 * Sort members that agree in all bytes before this one: in place, and in a time
 * that is linear whatever they are.
 */
static void
sort_from_byte(EncodedNhsNumber *members, size_t count, int byte)
{
	size_t		next[256] = {0};	/* where each byte's next member goes */
	size_t		end[256];
	size_t		total = 0;

	if (count <= FEW_MEMBERS)
	{
		sort_few(members, count);
		return;
	}

	for (size_t i = 0; i < count; i++)
	{
		encoded_set_pause_at(i);
		next[members[i].bytes[byte]]++;
	}
	for (int value = 0; value < 256; value++)
	{
		size_t		start = total;

		total += next[value];
		next[value] = start;
		end[value] = total;
	}

	/* Put each member in its place, and go on with the one that was there. */
	for (int value = 0; value < 256; value++)
	{
		while (next[value] < end[value])
		{
			EncodedNhsNumber member = members[next[value]];

			encoded_set_pause_at(next[value]);
			while (member.bytes[byte] != value)
			{
				size_t		to = next[member.bytes[byte]]++;
				EncodedNhsNumber displaced = members[to];

				members[to] = member;
				member = displaced;
			}
			members[next[value]++] = member;
		}
	}

	if (byte + 1 < ENCODED_NHS_NUMBER_SIZE)
	{
		total = 0;
		for (int value = 0; value < 256; value++)
		{
			sort_from_byte(members + total, end[value] - total, byte + 1);
			total = end[value];
		}
	}
}

static bool
strictly_ascending(const EncodedNhsNumber *members, size_t count)
{
	for (size_t i = 1; i < count; i++)
	{
		encoded_set_pause_at(i);
		if (encoded_nhs_number_compare(&members[i - 1], &members[i]) >= 0)
			return false;
	}
	return true;
}

/*
 * Sort in place and drop duplicates; returns how many members are left.
 */
size_t
encoded_set_sort(EncodedNhsNumber *members, size_t count)
{
	size_t		kept = 0;

	if (strictly_ascending(members, count))
		return count;

	sort_from_byte(members, count, 0);
	for (size_t i = 1; i < count; i++)
	{
		encoded_set_pause_at(i);
		if (encoded_nhs_number_compare(&members[kept], &members[i]) != 0)
			members[++kept] = members[i];
	}
	return kept + 1;
}

/*
 * Where an encoded number belongs among the words: the word in the upper 32
 * bits, how far into it in the lower ones.  Grows with the number.
 */
static inline uint64_t
encoded_set_place(const EncodedNhsNumber *member, uint32_t words)
{
	return (encoded_nhs_number_word(member->bytes) >> 32) * words;
}

/* The bits come from the other half, which has no say in the place. */
static inline uint64_t
filter_bits(const EncodedNhsNumber *member)
{
	uint64_t	half = encoded_nhs_number_word(member->bytes + 8);
	uint64_t	bits = 0;

#if ENCODED_SET_FILTER_BITS != 4
#error "as many lines as bits"
#endif
	bits |= UINT64_C(1) << (half & 63);
	bits |= UINT64_C(1) << (half >> ENCODED_SET_BIT_BITS & 63);
	bits |= UINT64_C(1) << (half >> 2 * ENCODED_SET_BIT_BITS & 63);
	bits |= UINT64_C(1) << (half >> 3 * ENCODED_SET_BIT_BITS & 63);
	return bits;
}

static inline uint64_t
add_to_checksum(uint64_t checksum, uint64_t word)
{
	checksum = (checksum ^ word) * UINT64_C(0x9E3779B97F4A7C15);
	return checksum ^ checksum >> 32;
}

/*
 * Against damage, not against forgery.  Four sums at a time, as fast as memory.
 */
static uint64_t
compute_checksum(const char *base, size_t size)
{
	EncodedSetHeader header;
	uint64_t	sum[4] = {1, 2, 3, 4};
	uint64_t	word[4];

	memcpy(&header, base, sizeof(header));
	header.length_word = 0;
	header.checksum = 0;
	memcpy(word, &header, sizeof(word));

	for (size_t at = sizeof(word);; at += sizeof(word))
	{
		sum[0] = add_to_checksum(sum[0], word[0]);
		sum[1] = add_to_checksum(sum[1], word[1]);
		sum[2] = add_to_checksum(sum[2], word[2]);
		sum[3] = add_to_checksum(sum[3], word[3]);
		if (at == size)
			break;
		encoded_set_pause_at(at / sizeof(word));
		memcpy(word, base + at, sizeof(word));
	}
	sum[0] = add_to_checksum(sum[0], sum[1]);
	sum[0] = add_to_checksum(sum[0], sum[2]);
	return add_to_checksum(sum[0], sum[3]);
}

/*
 * Make a set of encoded_set_size(count) bytes out of the members that are in
 * their place in it, sorted.
 */
void
encoded_set_seal(void *base, size_t count)
{
	EncodedSetHeader header = {0};
	const EncodedNhsNumber *members = encoded_set_members(base);
	char	   *filter = (char *) base + ENCODED_SET_FILTER_OFFSET(count);
	char	   *starts;
	char	   *end = (char *) base + encoded_set_size(count);
	uint32_t	at = 0;

	header.version = ENCODED_SET_VERSION;
	header.count = (uint32_t) count;
	header.words = (uint32_t) ENCODED_SET_WORDS(count);

	starts = (char *) base + ENCODED_SET_STARTS_OFFSET(count, header.words);
	memset(starts, 0, end - starts);
	for (uint32_t i = 0; i < header.words; i++)
	{
		uint64_t	word = 0;

		encoded_set_pause_at(i);
		if ((i & ((1 << ENCODED_SET_GROUP_BITS) - 1)) == 0)
		{
			memcpy(starts, &at, sizeof(at));
			starts += sizeof(at);
		}
		for (; at < count && encoded_set_place(&members[at], header.words) >> 32 == i; at++)
			word |= filter_bits(&members[at]);
		memcpy(filter + i * sizeof(word), &word, sizeof(word));
	}
	if (count > 0)
		memcpy(starts, &at, sizeof(at));

	memcpy(base, &header, sizeof(header));
	header.checksum = compute_checksum(base, end - (char *) base);
	memcpy(base, &header, sizeof(header));
}

/* --------------------------------------------------------------- searching */

/*
 * Look at a set where it lies.  False when, by header and size, it is none, or
 * none of a version that is known here.
 */
bool
encoded_set_open(EncodedSet *set, const void *base, size_t size)
{
	EncodedSetHeader header;

	if (size < sizeof(header))
		return false;
	memcpy(&header, base, sizeof(header));

	/* The limits keep the size from overflowing where it has 32 bits. */
	if (header.version != ENCODED_SET_VERSION || header.flags != 0 ||
		header.unused != 0 || header.unused_too != 0 ||
		header.count > ENCODED_SET_MAX_MEMBERS ||
		header.words > ENCODED_SET_MAX_MEMBERS ||
		(header.count == 0) != (header.words == 0) ||
		size != ENCODED_SET_SIZE(header.count, header.words))
		return false;

	set->base = base;
	set->members = (const EncodedNhsNumber *) (set->base + ENCODED_SET_MEMBERS_OFFSET);
	set->filter = set->base + ENCODED_SET_FILTER_OFFSET(header.count);
	set->starts = set->base + ENCODED_SET_STARTS_OFFSET(header.count, header.words);
	set->checksum = header.checksum;
	set->count = header.count;
	set->words = header.words;
	return true;
}

/*
 * Is it as it was sealed?  Reads all of it.
 */
bool
encoded_set_intact(const EncodedSet *set)
{
	return set->checksum ==
		compute_checksum(set->base, ENCODED_SET_SIZE(set->count, set->words));
}

/*
 * Search from a guess: in steps that double until they have passed the member.
 * Each further one leads out of what is left, which is halved then.  Returns where
 * the member is, or how many there are when it is none.
 */
static size_t
search_from(const EncodedSet *set, size_t at, const EncodedNhsNumber *member)
{
	size_t		low = 0;
	size_t		high = set->count;	/* first index that is too high */
	size_t		step = 1;

	while (low < high)
	{
		int			order;

		if (at < low || at >= high)
			at = low + (high - low) / 2;
		order = encoded_nhs_number_compare(member, &set->members[at]);
		if (order == 0)
			return at;
		if (order > 0)
		{
			low = at + 1;
			at += step;
		}
		else
		{
			high = at;
			at -= step;			/* below zero is beyond the end */
		}
		step *= 2;
	}
	return set->count;
}

/*
 * Search from where the group of a place begins; what is left of the place says how
 * far into it.
 */
static inline size_t
search_place(const EncodedSet *set, uint64_t where, const EncodedNhsNumber *member)
{
	uint32_t	start[2];

	where >>= ENCODED_SET_GROUP_BITS;
	memcpy(start, set->starts + (where >> 32) * sizeof(uint32_t), sizeof(start));
	where = (uint64_t) (uint32_t) where * (uint32_t) (start[1] - start[0]);
	return search_from(set, start[0] + (size_t) (where >> 32), member);
}

/*
 * Which of the members it is, counted from zero; as many as there are when it is
 * none.  For those who expect to find it: the filter, which would only cost them an
 * access to memory, is not asked.
 */
size_t
encoded_set_position(const EncodedSet *set, const EncodedNhsNumber *member)
{
	if (set->count == 0)
		return 0;
	return search_place(set, encoded_set_place(member, set->words), member);
}

bool
encoded_set_contains(const EncodedSet *set, const EncodedNhsNumber *member)
{
	uint64_t	where = encoded_set_place(member, set->words);
	uint64_t	bits = filter_bits(member);
	uint64_t	word;

	if (set->count == 0)
		return false;
	memcpy(&word, set->filter + (where >> 32) * sizeof(word), sizeof(word));
	if ((word & bits) != bits)
		return false;

	return search_place(set, where, member) < set->count;
}

/* ----------------------------------------------------------------- merging */

bool
encoded_set_equal(const EncodedSet *a, const EncodedSet *b)
{
	return a->count == b->count &&
		memcmp(a->members, b->members, (size_t) a->count * ENCODED_NHS_NUMBER_SIZE) == 0;
}

/*
 * Write the members of the result, unless the pointer is NULL, and return how
 * many there are.
 */
size_t
encoded_set_merge(EncodedSetOperation operation,
				  const EncodedSet *a, const EncodedSet *b,
				  EncodedNhsNumber *result)
{
	bool		only_in_a = operation != ENCODED_SET_INTERSECTION;
	bool		in_both = operation != ENCODED_SET_DIFFERENCE;
	bool		only_in_b = operation == ENCODED_SET_UNION;
	size_t		i = 0;
	size_t		j = 0;
	size_t		count = 0;
	size_t		step = 0;

	while (i < a->count || j < b->count)
	{
		int			order;

		encoded_set_pause_at(step++);
		if (i == a->count)
			order = 1;
		else if (j == b->count)
			order = -1;
		else
			order = encoded_nhs_number_compare(&a->members[i], &b->members[j]);

		if (order < 0 ? only_in_a : order > 0 ? only_in_b : in_both)
		{
			if (result != NULL)
				result[count] = order <= 0 ? a->members[i] : b->members[j];
			count++;
		}
		i += order <= 0;
		j += order >= 0;
	}
	return count;
}

/* ---------------------------------------------------------------- messages */

/*
 * Write ENCODED_SET_MESSAGE_SIZE(count) bytes.
 */
void
encoded_set_write_message(const EncodedNhsNumber *members, size_t count,
						  void *message)
{
	uint8_t    *header = message;

	header[0] = ENCODED_SET_VERSION;
	header[1] = 0;
	for (int i = 0; i < 4; i++)
		header[2 + i] = (uint8_t) (count >> (24 - 8 * i));
	memcpy(header + ENCODED_SET_MESSAGE_HEADER, members, count * sizeof(*members));
}

/*
 * The members in a message, or NULL when it is none: they are ascending, and as
 * many as the message has room for.
 */
const EncodedNhsNumber *
encoded_set_read_message(const void *message, size_t size, size_t *count)
{
	const uint8_t *header = message;
	const EncodedNhsNumber *members;

	if (size < ENCODED_SET_MESSAGE_HEADER ||
		header[0] != ENCODED_SET_VERSION || header[1] != 0)
		return NULL;
	*count = (size_t) header[2] << 24 | (size_t) header[3] << 16 |
		(size_t) header[4] << 8 | (size_t) header[5];
	if (*count > ENCODED_SET_MAX_MEMBERS ||
		size != ENCODED_SET_MESSAGE_SIZE(*count))
		return NULL;
	members = (const EncodedNhsNumber *) (header + ENCODED_SET_MESSAGE_HEADER);
	return strictly_ascending(members, *count) ? members : NULL;
}
