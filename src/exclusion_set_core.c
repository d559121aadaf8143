/*
 * exclusion_set_core.c
 *		Sets of encoded NHS numbers without a server: build and search.
 *
 * A set is a sorted array without duplicates.  All 128 bits decide.
 */
#include "exclusion_set.h"

#include <stdlib.h>
#include <string.h>

int
encoded_nhs_number_compare(const void *a, const void *b)
{
	return memcmp(a, b, ENCODED_NHS_NUMBER_SIZE);
}

/*
 * Sort in place and drop duplicates; returns how many members are left.
 */
size_t
exclusion_set_build(EncodedNhsNumber *members, size_t count)
{
	size_t		kept = 0;

	if (count == 0)
		return 0;

	qsort(members, count, sizeof(EncodedNhsNumber), encoded_nhs_number_compare);
	for (size_t i = 1; i < count; i++)
	{
		if (encoded_nhs_number_compare(&members[kept], &members[i]) != 0)
			members[++kept] = members[i];
	}
	return kept + 1;
}

/*
 * Binary search: below is the half-open range that can still hold the member.
 */
bool
exclusion_set_contains(const EncodedNhsNumber *members, size_t count,
					   const EncodedNhsNumber *member)
{
	while (count > 0)
	{
		size_t		half = count / 2;
		int			order = encoded_nhs_number_compare(member, &members[half]);

		if (order == 0)
			return true;
		if (order > 0)
		{
			members += half + 1;
			count -= half + 1;
		}
		else
			count = half;
	}
	return false;
}
