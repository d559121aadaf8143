/*
 * recall_id.h
 *		The salts of recipients' ids.
 */
#ifndef NDRS_RECALL_ID_H
#define NDRS_RECALL_ID_H

/* A setting: the directory of the files with salts */
extern char *ndrs_salt_directory;

#endif							/* NDRS_RECALL_ID_H */
