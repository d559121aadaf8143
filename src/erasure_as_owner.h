/*
 * erasure_as_owner.h
 *		Searches and changes rows with the rights of their tables' owners.
 */
#ifndef NDRS_ERASURE_AS_OWNER_H
#define NDRS_ERASURE_AS_OWNER_H

extern void ndrs_erasure_as_owner_init(void);

#endif							/* NDRS_ERASURE_AS_OWNER_H */
