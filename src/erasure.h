/*
 * erasure.h
 *		What the erasure cannot do in SQL.
 */
#ifndef NDRS_ERASURE_H
#define NDRS_ERASURE_H

extern void ndrs_erasure_init(void);

#endif							/* NDRS_ERASURE_H */
