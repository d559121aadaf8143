/*
 * compat_array.h
 *		What differs between PostgreSQL 15 and 19 in reading arrays.
 */
#ifndef NDRS_COMPAT_ARRAY_H
#define NDRS_COMPAT_ARRAY_H

#include "postgres.h"
#include "utils/array.h"
#include "utils/arrayaccess.h"

/* 19 takes what kind of elements an array has once, not with each element. */
static inline void
ndrs_text_array_iter_setup(array_iter *iterator, AnyArrayType *array)
{
#if PG_VERSION_NUM >= 190000
	array_iter_setup(iterator, array, -1, false, TYPALIGN_INT);
#else
	array_iter_setup(iterator, array);
#endif
}

static inline Datum
ndrs_text_array_iter_next(array_iter *iterator, bool *isnull, int i)
{
#if PG_VERSION_NUM >= 190000
	return array_iter_next(iterator, isnull, i);
#else
	return array_iter_next(iterator, isnull, i, -1, false, TYPALIGN_INT);
#endif
}

#endif							/* NDRS_COMPAT_ARRAY_H */
