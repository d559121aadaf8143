/*
 * encoded_set.h
 *		Encoded sets in memory contexts and in values of the SQL type.
 */
#ifndef NDRS_ENCODED_SET_H
#define NDRS_ENCODED_SET_H

#include "postgres.h"
#include "encoded_set_core.h"

typedef struct EncodedSetBuilder
{
	char	   *base;			/* the set to be, its members in place */
	size_t		count;
	size_t		capacity;
} EncodedSetBuilder;

extern void ndrs_encoded_set_init(void);
extern void ndrs_set_begin(EncodedSetBuilder *builder, MemoryContext context,
						   size_t expected);
extern void ndrs_set_add(EncodedSetBuilder *builder,
						 const EncodedNhsNumber *members, size_t count);
extern struct varlena *ndrs_set_end(EncodedSetBuilder *builder);
extern void ndrs_open_set(EncodedSet *set, Datum datum);

#endif							/* NDRS_ENCODED_SET_H */
