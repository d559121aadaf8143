/*
 * encoding.c
 *		The key, and NHS numbers encoded with it.
 *
 * There are fewer than 10^9 valid NHS numbers, so a plain or salted hash of one
 * is as good as the number itself: all of them can be hashed in minutes.  The
 * key is the whole protection.  It lives in a file outside the database, hence
 * outside every dump, and only its fingerprint is recorded (encoding_key).
 *
 * Fail closed: a key that cannot be read, or is not the one whose fingerprint
 * is recorded, is an error for the caller.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/table.h"
#include "catalog.h"
#include "compat.h"
#include "encoding.h"
#include "encoding_core.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "privacy.h"
#include "secret_file.h"
#include "sqlstates.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(ndrs_optout_key_fingerprint);
PG_FUNCTION_INFO_V1(ndrs_optout_encode_nhs_number);
PG_FUNCTION_INFO_V1(ndrs_optout_case_secret);

/* What is authenticated for the fingerprint: no NHS number looks like it. */
#define FINGERPRINT_TEXT	"ndrs_optout key fingerprint"

/* Column of table encoding_key */
#define ANUM_ENCODING_KEY_FINGERPRINT	2

static const NdrsColumn encoding_key_columns[] = {
	{ANUM_ENCODING_KEY_FINGERPRINT, "fingerprint", "encoded_nhs_number", true}
};

char	   *ndrs_key_file = NULL;

static EncodedNhsNumber fingerprint;

/* The reload of the configuration that the key was read after */
static TimestampTz loaded_at;

/* The generation in which the fingerprint agreed with the recorded one */
static uint64 agreed_generation = 0;

/* The trigger and the constraint ask for the same number one after the other. */
static NhsNumber last_number = -1;
static EncodedNhsNumber last_encoded;

/* What the ten placeholders are encoded as; no patient has these */
static EncodedNhsNumber placeholders[10];

static void
forget_key(int code, Datum arg)
{
	encoding_forget_key();
	agreed_generation = 0;
	last_number = -1;
}

/* What is wrong with the key file, and so, what helps */
typedef enum KeyFault
{
	KEY_NOT_NAMED,
	KEY_NOT_THERE,
	KEY_NOT_OURS,				/* owner, mode, rights of the directory */
	KEY_NO_KEY					/* something else is in the file */
} KeyFault;

static bool is_empty(const char *table);

/*
 * A new key in the place of the adopted one destroys what that encoded: the list
 * matches no patient any more.  So a new key is offered only where nothing was ever
 * encoded, and where no file would be overwritten.
 */
pg_noreturn static void
key_missing(KeyFault fault, const char *detail)
{
	const char *hint = NULL;

	if (!is_empty("encoding_key") || !is_empty("exclusion") || !is_empty("optout_case"))
	{
		switch (fault)
		{
			case KEY_NOT_NAMED:
				hint = "Set \"ndrs_optout.key_file\" to the file with the adopted key and reload the configuration. Do not create a new key: the exclusion list needs the adopted one.";
				break;
			case KEY_NOT_THERE:
				hint = "Restore the file from your key backup, or set \"ndrs_optout.key_file\" to where it is and reload the configuration. Do not create a new key: the exclusion list needs the adopted one.";
				break;
			case KEY_NOT_OURS:
				hint = "Correct the owner and the mode of the file and of its directory. Do not create a new key: the exclusion list needs the adopted one.";
				break;
			case KEY_NO_KEY:
				hint = "Keep the file, and set \"ndrs_optout.key_file\" to a copy of the adopted key from your key backup. Do not create a new key: the exclusion list needs the adopted one.";
				break;
		}
	}
	else
	{
		switch (fault)
		{
			case KEY_NOT_NAMED:
				hint = "Set \"ndrs_optout.key_file\" to the name of the key file and reload the configuration. For a new registry, create the key with \"openssl rand -hex 32\" in a new file that only the server's user can read. To restore a dump, use the key that its database adopted.";
				break;
			case KEY_NOT_THERE:
				hint = "For a new registry, create the key with \"openssl rand -hex 32\" in a new file that only the server's user can read. To restore a dump, use the key that its database adopted.";
				break;
			case KEY_NOT_OURS:
				hint = "Correct the owner and the mode of the file and of its directory.";
				break;
			case KEY_NO_KEY:
				hint = "Set \"ndrs_optout.key_file\" to the file that holds the key, 64 hexadecimal digits, and reload the configuration.";
				break;
		}
	}
	ndrs_ereport(errcode(ERRCODE_NDRS_KEY_MISSING),
				 errmsg("cannot read the NHS number key file"),
				 errdetail_internal("%s", detail),
				 errhint("%s", hint));
}

static void
check_key_file(int fd)
{
	switch (ndrs_check_secret_file(fd))
	{
		case SECRET_FILE_GOOD:
			break;
		case SECRET_FILE_UNKNOWN:
			key_missing(KEY_NOT_OURS, psprintf("The key file cannot be examined: %m."));
		case SECRET_FILE_NOT_REGULAR:
			key_missing(KEY_NO_KEY, "The key file is not a regular file.");
		case SECRET_FILE_NOT_OURS:
			key_missing(KEY_NOT_OURS, "The key file does not belong to the server's user or root.");
		case SECRET_FILE_OPEN_TO_OTHERS:
			key_missing(KEY_NOT_OURS, "The key file is open to others: its mode must be 0600, or 0640 when it belongs to root.");
	}
}

/*
 * Read the key.  The caller wipes it.
 */
static void
read_key_file(uint8 *key)
{
	/* One more than the key and a line end take, so that more is seen. */
	char		content[2 * ENCODING_KEY_SIZE + 3];
	int			fd;
	ssize_t		length;
	bool		ok;

	if (ndrs_key_file == NULL || ndrs_key_file[0] == '\0')
		key_missing(KEY_NOT_NAMED, "Setting \"ndrs_optout.key_file\" is empty.");

	/* Without O_NONBLOCK a FIFO would hold us up before it is refused. */
	fd = OpenTransientFile(ndrs_key_file, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (fd < 0)
		key_missing(errno == ENOENT || errno == ENOTDIR ? KEY_NOT_THERE : KEY_NOT_OURS,
					psprintf("The key file cannot be opened: %m."));
	check_key_file(fd);
	length = read(fd, content, sizeof(content));
	if (length < 0)
		key_missing(KEY_NOT_THERE, psprintf("The key file cannot be read: %m."));
	CloseTransientFile(fd);

	if (length > 2 * ENCODING_KEY_SIZE && content[length - 1] == '\n')
		length--;
	if (length > 2 * ENCODING_KEY_SIZE && content[length - 1] == '\r')
		length--;
	ok = length == 2 * ENCODING_KEY_SIZE && ndrs_decode_hex(content, ENCODING_KEY_SIZE, key);
	OPENSSL_cleanse(content, sizeof(content));
	if (!ok)
		key_missing(KEY_NO_KEY, "The key file does not hold 64 hexadecimal digits and nothing else.");
}

static void
authenticate(const char *message, size_t length, EncodedNhsNumber *result)
{
	if (!encoding_compute(message, length, result))
		ndrs_elog("could not compute HMAC");
}

/*
 * Load the key if there is none, or if the configuration was reloaded since.
 */
static void
load_key(void)
{
	static bool exit_registered = false;
	uint8		key[ENCODING_KEY_SIZE];

	if (encoding_has_key() && loaded_at == PgReloadTime)
		return;

	forget_key(0, (Datum) 0);
	if (!exit_registered)
	{
		on_proc_exit(forget_key, (Datum) 0);
		exit_registered = true;
	}

	PG_TRY();
	{
		read_key_file(key);
		if (!encoding_set_key(key))
			ndrs_elog("could not set up SHA-256");
	}
	PG_FINALLY();
	{
		OPENSSL_cleanse(key, sizeof(key));
	}
	PG_END_TRY();

	authenticate(FINGERPRINT_TEXT, strlen(FINGERPRINT_TEXT), &fingerprint);
	for (int i = 0; i < lengthof(placeholders); i++)
	{
		char		digits[NHS_NUMBER_DIGITS];

		memset(digits, '0' + i, sizeof(digits));
		authenticate(digits, sizeof(digits), &placeholders[i]);
	}
	loaded_at = PgReloadTime;
}

static bool
is_empty(const char *table)
{
	Relation	rel = table_open(ndrs_relation(table, false), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	bool		empty = !HeapTupleIsValid(systable_getnext(scan));

	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return empty;
}

/*
 * Is a dump being restored into this database, before it came to our tables?
 * No patient can be excluded then, for there is no list and no key, and no
 * table is guarded, although a table with a guard's constraint is being written
 * to.
 */
static pg_noinline bool
is_all_empty(void)
{
	ErrorContextCallback hider;
	bool		all_empty;

	ndrs_begin_hiding(&hider);
	all_empty = is_empty("encoding_key") && is_empty("exclusion") && is_empty("guard");
	ndrs_end_hiding(&hider);
	return all_empty;
}

bool
ndrs_before_restore(void)
{
	return agreed_generation != ndrs_generation(NDRS_CACHE_KEY) && is_all_empty();
}

/*
 * Compare the loaded key with the recorded one.  The catalogue snapshot sees
 * what is committed now, whatever snapshot the transaction lives with.
 */
static void
check_recorded_key(void)
{
	Relation	rel = ndrs_open_table("encoding_key", encoding_key_columns, lengthof(encoding_key_columns));
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple = systable_getnext(scan);
	bool		recorded = HeapTupleIsValid(tuple);
	bool		agrees = false;

	if (recorded)
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, ANUM_ENCODING_KEY_FINGERPRINT,
										 RelationGetDescr(rel), &isnull);

		agrees = !isnull &&
			encoded_nhs_number_compare((EncodedNhsNumber *) DatumGetPointer(value), &fingerprint) == 0;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (!recorded)
		ndrs_ereport(errcode(ERRCODE_NDRS_KEY_MISSING),
					 errmsg("no key has been adopted in this database"),
					 errhint("Ask the database owner to call ndrs_optout.adopt_key() once, when \"ndrs_optout.key_file\" names the right file. To restore a dump, use the key that its database adopted."));
	if (!agrees)
		ndrs_ereport(errcode(ERRCODE_NDRS_KEY_MISMATCH),
					 errmsg("the key in the key file is not the one that this database adopted"),
					 errhint("Set \"ndrs_optout.key_file\" to the file with the adopted key and reload the configuration. Keep this file: another database may need it."));
}

static pg_noinline void
make_ready(void)
{
	uint64		generation = ndrs_generation(NDRS_CACHE_KEY);
	ErrorContextCallback hider;

	ndrs_begin_hiding(&hider);
	load_key();
	check_recorded_key();
	ndrs_end_hiding(&hider);
	agreed_generation = generation;
}

/*
 * Make sure of the key: loaded, current, and the one that was adopted.  Code
 * that forgets the key forgets that it agreed.
 */
void
ndrs_encoding_ready(void)
{
	if (agreed_generation != ndrs_generation(NDRS_CACHE_KEY) || loaded_at != PgReloadTime)
		make_ready();
}

/*
 * Encode a number.  The caller has made sure of the key.
 */
void
ndrs_encode(NhsNumber number, EncodedNhsNumber *encoded)
{
	if (number != last_number)
	{
		char		digits[NHS_NUMBER_DIGITS];

		nhs_number_digits(number, digits);
		last_number = -1;
		authenticate(digits, sizeof(digits), &last_encoded);
		last_number = number;
	}
	*encoded = last_encoded;
}

/*
 * A command that searches a table with the rights of its owner, and asks about numbers,
 * has a token as a parameter, which no SQL can read: code of the owner's that runs
 * in the meantime has none, and learns nothing.  It is a nonce and what only the
 * key can make of it, so that a parallel worker knows it, too.  In the process that
 * began the command it is good until the command ends.
 */
typedef struct Token
{
	uint8		nonce[16];
	EncodedNhsNumber proof;
} Token;

#define TOKEN_TEXT	"ndrs_optout search"

static Token current_token;
static bool has_token = false;

static void
prove_token(Token *token, int leader_pid, EncodedNhsNumber *proof)
{
	uint8		message[sizeof(TOKEN_TEXT) + sizeof(int) + sizeof(token->nonce)];

	memcpy(message, TOKEN_TEXT, sizeof(TOKEN_TEXT));
	memcpy(message + sizeof(TOKEN_TEXT), &leader_pid, sizeof(int));
	memcpy(message + sizeof(TOKEN_TEXT) + sizeof(int), token->nonce, sizeof(token->nonce));
	authenticate((const char *) message, sizeof(message), proof);
}

/*
 * Make a new token good, and return it.
 */
bytea *
ndrs_begin_token(void)
{
	bytea	   *result = palloc(VARHDRSZ + sizeof(Token));

	ndrs_encoding_ready();
	has_token = false;
	if (!pg_strong_random(current_token.nonce, sizeof(current_token.nonce)))
		ndrs_elog("could not generate a random token");
	prove_token(&current_token, MyProcPid, &current_token.proof);
	has_token = true;
	SET_VARSIZE(result, VARHDRSZ + sizeof(Token));
	memcpy(VARDATA(result), &current_token, sizeof(Token));
	return result;
}

/*
 * Make an earlier token good again, or none.
 */
void
ndrs_restore_token(const bytea *token)
{
	has_token = token != NULL;
	if (has_token)
		memcpy(&current_token, VARDATA_ANY(token), sizeof(Token));
}

bool
ndrs_token_is_good(const bytea *token)
{
	Token		given;
	EncodedNhsNumber proof;

	if (VARSIZE_ANY_EXHDR(token) != sizeof(Token))
		return false;
	memcpy(&given, VARDATA_ANY(token), sizeof(Token));
	if (!IsParallelWorker())
		return has_token && memcmp(&given, &current_token, sizeof(Token)) == 0;
	if (MyProc->lockGroupLeader == NULL)
		return false;
	ndrs_encoding_ready();
	prove_token(&given, MyProc->lockGroupLeader->pid, &proof);
	return encoded_nhs_number_compare(&proof, &given.proof) == 0;
}

/*
 * Is it what a placeholder is encoded as?  The caller has made sure of the key.
 */
bool
ndrs_is_encoded_placeholder(const EncodedNhsNumber *encoded)
{
	for (int i = 0; i < lengthof(placeholders); i++)
	{
		if (memcmp(&placeholders[i], encoded, sizeof(EncodedNhsNumber)) == 0)
			return true;
	}
	return false;
}

Datum
ndrs_optout_encode_nhs_number(PG_FUNCTION_ARGS)
{
	EncodedNhsNumber *encoded = palloc(sizeof(EncodedNhsNumber));

	ndrs_encoding_ready();
	ndrs_encode(PG_GETARG_INT64(0), encoded);
	PG_RETURN_POINTER(encoded);
}

/*
 * Fingerprint of the key in the key file, adopted or not.
 */
Datum
ndrs_optout_key_fingerprint(PG_FUNCTION_ARGS)
{
	EncodedNhsNumber *result = palloc(sizeof(EncodedNhsNumber));

	load_key();
	*result = fingerprint;
	PG_RETURN_POINTER(result);
}

/*
 * A passphrase that is one patient's, and that only the key can make, for what is kept
 * of the patient until the case is carried out.
 */
#define CASE_TEXT	"ndrs_optout case"

Datum
ndrs_optout_case_secret(PG_FUNCTION_ARGS)
{
	EncodedNhsNumber *encoded = (EncodedNhsNumber *) PG_GETARG_POINTER(0);
	uint8		message[sizeof(CASE_TEXT) + sizeof(EncodedNhsNumber)];
	EncodedNhsNumber secret;
	char	   *result = palloc(2 * sizeof(secret) + 1);

	ndrs_encoding_ready();
	memcpy(message, CASE_TEXT, sizeof(CASE_TEXT));
	memcpy(message + sizeof(CASE_TEXT), encoded, sizeof(*encoded));
	authenticate((const char *) message, sizeof(message), &secret);
	result[hex_encode((const char *) &secret, sizeof(secret), result)] = '\0';
	PG_RETURN_TEXT_P(cstring_to_text(result));
}
