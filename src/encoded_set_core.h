/*
 * encoded_set_core.h
 *		Compact immutable sets of encoded NHS numbers, without a server.
 *
 * Nothing here knows of fmgr or ereport, so that unit tests and the fuzzer can
 * link it alone.  No other file knows the layout.
 *
 * A set is one flat piece of memory, on disk as in a backend, and is searched
 * where it lies:
 *
 *		header		32 bytes, see EncodedSetHeader
 *		members		16 bytes each, ascending, no two alike
 *		filter		words of 64 bits, one for every five members
 *		starts		of each group of eight words, the index of its first
 *					member; 32 bits each, and one more for the end
 *		zeroes		up to the next multiple of 32 bytes
 *
 * Encoded numbers are uniformly distributed, so the first 32 bits of one, taken
 * as a fraction, say which word is its own, and words follow each other as the
 * members do.  A word is a Bloom filter of its members: it tells 99 out of 100
 * that they are not in the set, at the cost of one access to memory.  A number
 * that passes is looked for among the members of the word's group, from where
 * the fraction suggests: one access more to find out where these begin, and
 * one, seldom two, to them.  It takes 17.7 bytes for a member, and neither
 * vector instructions nor alignment.
 *
 * Members that were chosen to have one beginning all share a word, which is
 * then of no use; the search becomes a binary one.
 *
 * This is version 1 of the format.  What a later version writes in another way
 * gets another version or a flag, and a reader refuses what it does not know;
 * version 1 stays readable for ever.  Integers are in the machine's byte order,
 * as in PostgreSQL's own types, so data files move between machines of one
 * architecture only; the message below and the text form move anywhere.
 */
#ifndef NDRS_ENCODED_SET_CORE_H
#define NDRS_ENCODED_SET_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "encoded_nhs_number.h"

#define ENCODED_SET_VERSION	1

typedef struct EncodedSetHeader
{
	uint32_t	length_word;	/* the server's length word: not looked at */
	uint8_t		version;
	uint8_t		flags;			/* none yet: zero */
	uint16_t	unused;			/* zero */
	uint32_t	count;			/* of members */
	uint32_t	words;			/* of the filter; zero just without members */
	uint64_t	checksum;		/* of all but itself and the length word */
	uint64_t	unused_too;		/* zero */
} EncodedSetHeader;

/*
 * The server allows a value 1 GB less a byte: room for some 60.6 million.
 */
#define ENCODED_SET_MAX_MEMBERS	60000000

/* What a writer makes of so many members; readers take any number of words. */
#define ENCODED_SET_WORD_MEMBERS	5
#define ENCODED_SET_WORDS(count) \
	(((size_t) (count) + ENCODED_SET_WORD_MEMBERS - 1) / ENCODED_SET_WORD_MEMBERS)

/* Each member sets so many bits in its word; as many again choose each bit. */
#define ENCODED_SET_FILTER_BITS	4
#define ENCODED_SET_BIT_BITS		6

/* Words in a group, as a power of two */
#define ENCODED_SET_GROUP_BITS	3
#define ENCODED_SET_STARTS(words) \
	((words) == 0 ? 0 : (((size_t) (words) - 1) >> ENCODED_SET_GROUP_BITS) + 2)

/* Where things are, and how much it all takes */
#define ENCODED_SET_MEMBERS_OFFSET	sizeof(EncodedSetHeader)
#define ENCODED_SET_FILTER_OFFSET(count) \
	(ENCODED_SET_MEMBERS_OFFSET + (size_t) (count) * ENCODED_NHS_NUMBER_SIZE)
#define ENCODED_SET_STARTS_OFFSET(count, words) \
	(ENCODED_SET_FILTER_OFFSET(count) + (size_t) (words) * sizeof(uint64_t))
#define ENCODED_SET_ROUNDING	32
#define ENCODED_SET_SIZE(count, words) \
	((ENCODED_SET_STARTS_OFFSET(count, words) + \
	  ENCODED_SET_STARTS(words) * sizeof(uint32_t) + ENCODED_SET_ROUNDING - 1) / \
	 ENCODED_SET_ROUNDING * ENCODED_SET_ROUNDING)

/*
 * The message (send and receive, serialize and deserialize): version and flags,
 * a byte each, the number of members in four bytes, most significant first, and
 * the members, ascending.
 */
#define ENCODED_SET_MESSAGE_HEADER	6
#define ENCODED_SET_MESSAGE_SIZE(count) \
	(ENCODED_SET_MESSAGE_HEADER + (size_t) (count) * ENCODED_NHS_NUMBER_SIZE)

/* A set that was opened */
typedef struct EncodedSet
{
	const char *base;
	const EncodedNhsNumber *members;
	const char *filter;
	const char *starts;
	uint64_t	checksum;
	uint32_t	count;
	uint32_t	words;
} EncodedSet;

typedef enum EncodedSetOperation
{
	ENCODED_SET_UNION,
	ENCODED_SET_INTERSECTION,
	ENCODED_SET_DIFFERENCE
} EncodedSetOperation;

/* Where the builder of a set puts its members. */
static inline EncodedNhsNumber *
encoded_set_members(void *base)
{
	return (EncodedNhsNumber *) ((char *) base + ENCODED_SET_MEMBERS_OFFSET);
}

static inline size_t
encoded_set_size(size_t count)
{
	return ENCODED_SET_SIZE(count, ENCODED_SET_WORDS(count));
}

/*
 * Called now and then by whatever takes long; it may leave by longjmp, since what is
 * made at that moment is of no use then.  NULL: nothing to do.
 */
#define ENCODED_SET_PAUSE_EVERY	65536

extern void (*encoded_set_pause) (void);

static inline void
encoded_set_pause_at(size_t step)
{
	if (step % ENCODED_SET_PAUSE_EVERY == ENCODED_SET_PAUSE_EVERY - 1 &&
		encoded_set_pause != NULL)
		encoded_set_pause();
}

extern size_t encoded_set_sort(EncodedNhsNumber *members, size_t count);
extern void encoded_set_seal(void *base, size_t count);

extern bool encoded_set_open(EncodedSet *set, const void *base, size_t size);
extern bool encoded_set_intact(const EncodedSet *set);
extern bool encoded_set_contains(const EncodedSet *set,
								 const EncodedNhsNumber *member);
extern size_t encoded_set_position(const EncodedSet *set,
								   const EncodedNhsNumber *member);
extern bool encoded_set_equal(const EncodedSet *a, const EncodedSet *b);
extern size_t encoded_set_merge(EncodedSetOperation operation,
								const EncodedSet *a, const EncodedSet *b,
								EncodedNhsNumber *result);

extern void encoded_set_write_message(const EncodedNhsNumber *members,
									  size_t count, void *message);
extern const EncodedNhsNumber *encoded_set_read_message(const void *message,
														size_t size, size_t *count);

#endif							/* NDRS_ENCODED_SET_CORE_H */
