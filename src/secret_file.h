/*
 * secret_file.h
 *		What is demanded of a file with a secret.
 */
#ifndef NDRS_SECRET_FILE_H
#define NDRS_SECRET_FILE_H

typedef enum SecretFile
{
	SECRET_FILE_GOOD,
	SECRET_FILE_UNKNOWN,		/* errno says why */
	SECRET_FILE_NOT_REGULAR,
	SECRET_FILE_NOT_OURS,
	SECRET_FILE_OPEN_TO_OTHERS
} SecretFile;

extern SecretFile ndrs_check_secret_file(int fd);

#endif							/* NDRS_SECRET_FILE_H */
