/*
 * secret_file.c
 *		What is demanded of a file with a secret: the key, and the salts of recipients.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "secret_file.h"

/*
 * The same demands as for the server's TLS key: a regular file of ours with no
 * access for others, or one of root's that our group may read.
 */
SecretFile
ndrs_check_secret_file(int fd)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return SECRET_FILE_UNKNOWN;
	if (!S_ISREG(st.st_mode))
		return SECRET_FILE_NOT_REGULAR;
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return SECRET_FILE_NOT_OURS;
	if (st.st_mode & (st.st_uid == 0 ? (S_IWGRP | S_IXGRP | S_IRWXO)
					  : (S_IRWXG | S_IRWXO)))
		return SECRET_FILE_OPEN_TO_OTHERS;
	return SECRET_FILE_GOOD;
}
