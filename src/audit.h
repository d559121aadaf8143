/*
 * audit.h
 *		Events of the audit, and their links.
 */
#ifndef NDRS_AUDIT_H
#define NDRS_AUDIT_H

extern void ndrs_audit_init(void);

#endif							/* NDRS_AUDIT_H */
