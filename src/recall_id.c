/*
 * recall_id.c
 *		The salts of recipients' ids, which are in files as the key is.
 *
 * A salt that cannot be read must not stop an opt-out from being carried out: so
 * nothing here is an error.  The patient is named to the recipient by hand then,
 * and health() tells the cause.
 */
#include "postgres.h"

#include <ctype.h>
#include <fcntl.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "recall_id.h"
#include "secret_file.h"
#include "storage/fd.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(ndrs_optout_salt_from_file);
PG_FUNCTION_INFO_V1(ndrs_optout_salt_file_fault);

#define MAX_SALT	1024

char	   *ndrs_salt_directory = NULL;

/*
 * The name of a recipient, with the number of a release: no path.
 */
static bool
is_name(const char *name)
{
	size_t		length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");

	return length > 0 && name[length] == '\0';
}

/*
 * What the file holds, without the end of its line, or what is wrong with it.
 */
static char *
read_salt(const char *name, const char **fault)
{
	char		content[MAX_SALT + 1];
	char	   *path;
	char	   *result = NULL;
	int			fd;
	ssize_t		length;
	SecretFile	state;

	*fault = NULL;
	if (ndrs_salt_directory == NULL || ndrs_salt_directory[0] == '\0')
	{
		*fault = "setting \"ndrs_optout.salt_directory\" is empty";
		return NULL;
	}
	if (!is_name(name))
	{
		*fault = "this is no name of a salt file";
		return NULL;
	}
	path = psprintf("%s/%s.salt", ndrs_salt_directory, name);
	/* Without O_NONBLOCK a FIFO would hold us up before it is refused. */
	fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	pfree(path);
	if (fd < 0)
	{
		*fault = psprintf("it cannot be opened: %m");
		return NULL;
	}

	state = ndrs_check_secret_file(fd);
	length = state == SECRET_FILE_GOOD ? read(fd, content, sizeof(content)) : 0;
	if (state == SECRET_FILE_UNKNOWN || length < 0)
		*fault = psprintf("it cannot be read: %m");
	CloseTransientFile(fd);

	switch (state)
	{
		case SECRET_FILE_GOOD:
		case SECRET_FILE_UNKNOWN:
			break;
		case SECRET_FILE_NOT_REGULAR:
			*fault = "it is not a regular file";
			break;
		case SECRET_FILE_NOT_OURS:
			*fault = "it does not belong to the server's user or root";
			break;
		case SECRET_FILE_OPEN_TO_OTHERS:
			*fault = "it is open to others: its mode must be 0600, or 0640 when it belongs to root";
			break;
	}
	if (*fault == NULL && length > MAX_SALT)
		*fault = "it is too long for a salt";
	while (*fault == NULL && length > 0 && isspace((unsigned char) content[length - 1]))
		length--;
	if (*fault == NULL && length == 0)
		*fault = "it is empty";
	if (*fault == NULL && !pg_verifymbstr(content, (int) length, true))
		*fault = "it is no text in the database's encoding";
	if (*fault == NULL)
		result = pnstrdup(content, length);
	OPENSSL_cleanse(content, sizeof(content));
	return result;
}

Datum
ndrs_optout_salt_from_file(PG_FUNCTION_ARGS)
{
	const char *fault;
	char	   *salt = read_salt(text_to_cstring(PG_GETARG_TEXT_PP(0)), &fault);

	if (salt == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(salt));
}

Datum
ndrs_optout_salt_file_fault(PG_FUNCTION_ARGS)
{
	const char *fault;

	read_salt(text_to_cstring(PG_GETARG_TEXT_PP(0)), &fault);
	if (fault == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(fault));
}
