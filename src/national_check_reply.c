/*
 * national_check_reply.c
 *		The reply of the national check, as the service sends it.
 *
 * Four things come back from the service: the list that was sent without those who
 * opted out; one line of text, when it refuses the whole list; a receipt in JSON;
 * and an empty file.  A line is ten digits, a comma and a line end, LF or CRLF.
 * The comma and the last line end may be missing, since files are cut and pasted;
 * anything else that is not such a line means that this is no reply, and none of it
 * is believed.
 */
#include "postgres.h"

#include "compat.h"
#include "compat_array.h"
#include "encoded_set.h"
#include "encoding.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nhs_number.h"
#include "privacy.h"
#include "sqlstates.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(ndrs_optout_national_check_allowed);

typedef struct Reply
{
	EncodedSet	asked;
	uint8	   *is_allowed;		/* a bit for each member of asked */
	uint64		allowed;		/* bits that are set */
	uint64		strangers;		/* numbers that were not asked about */
	uint64		line;			/* number of the line at hand */
	uint64		ended;			/* number of a line that must be the last, or
								 * 0 */
	enum
	{
		END_BLANK, END_TEXT, END_CUT
	}			end;			/* what that line was */
} Reply;

pg_noreturn static void refuse_line(uint64 line, const char *message, const char *hint);
pg_noreturn static void refuse_bad_line(uint64 line);

/*
 * The reply is none.  No line is repeated: it may hold a patient's number.
 */
pg_noreturn static void
refuse_line(uint64 line, const char *message, const char *hint)
{
	ndrs_ereport(errcode(ERRCODE_NDRS_CHECK_REFUSED),
				 errmsg_internal("%s", message),
				 errdetail("Line " UINT64_FORMAT " of the reply says so.", line),
				 errhint("%s", hint));
}

pg_noreturn static void
refuse_bad_line(uint64 line)
{
	refuse_line(line, "the reply has a line that is not an NHS number and a comma",
				"A reply has neither a heading nor other columns: it is none, or was damaged or changed on the way.");
}

/*
 * This line can be nothing but the last one.
 */
static void
end_reply(Reply *reply, int end)
{
	if (reply->ended == 0)
	{
		reply->ended = reply->line;
		reply->end = end;
	}
}

static void
read_bad_line(Reply *reply, const char *line, size_t length)
{
	size_t		ndigits = 0;
	bool		letters = false;

	for (size_t i = 0; i < length; i++)
	{
		letters |= (line[i] >= 'A' && line[i] <= 'Z') || (line[i] >= 'a' && line[i] <= 'z');
		ndigits += line[i] >= '0' && line[i] <= '9';
	}
	if (length > 0 && line[0] == '{')
		refuse_line(reply->line, "this is the receipt of the service and not its reply",
					"The reply comes later, as another message.");
	if (reply->line == 1 && letters && ndigits == 0)
		end_reply(reply, END_TEXT);
	else if (ndigits > 0 && ndigits == length && length < NHS_NUMBER_DIGITS)
		end_reply(reply, END_CUT);
	else
		refuse_bad_line(reply->line);
}

static void
read_line(Reply *reply, const char *line, size_t length)
{
	NhsNumber	number;
	EncodedNhsNumber encoded;
	size_t		position;
	uint8		bit;

	reply->line++;
	if (length > 0 && line[length - 1] == '\r')
		length--;
	if (length == 0)
	{
		end_reply(reply, END_BLANK);
		return;
	}
	if (reply->ended > 0)
	{
		if (reply->end != END_BLANK)
			refuse_bad_line(reply->ended);
		refuse_line(reply->line, "the reply goes on after a blank line",
					"It was put together from several, or damaged on the way.");
	}
	if (line[length - 1] == ',')
		length--;
	if (length != NHS_NUMBER_DIGITS ||
		nhs_number_parse(line, length, &number) != NHS_NUMBER_VALID)
	{
		read_bad_line(reply, line, length);
		return;
	}

	ndrs_encode(number, &encoded);
	position = encoded_set_position(&reply->asked, &encoded);
	if (position == reply->asked.count)
	{
		reply->strangers++;
		return;
	}
	bit = 1 << position % 8;
	if (reply->is_allowed[position / 8] & bit)
		refuse_line(reply->line, "the reply has a number twice",
					"The request had it once: it is not a reply of the service, or was put together from several.");
	reply->is_allowed[position / 8] |= bit;
	reply->allowed++;
}

static void
read_lines(Reply *reply, const char *at, size_t size)
{
	const char *end = at + size;

	do
	{
		const char *line_end = memchr(at, '\n', end - at);

		CHECK_FOR_INTERRUPTS();
		if (line_end == NULL)
			line_end = end;
		read_line(reply, at, line_end - at);
		at = line_end + 1;
	} while (at < end);
}

/*
 * Whom a reply allows; NULL when it has numbers that were not asked about.
 */
Datum
ndrs_optout_national_check_allowed(PG_FUNCTION_ARGS)
{
	AnyArrayType *lines = PG_GETARG_ANY_ARRAY_P(1);
	int			nlines = ArrayGetNItems(AARR_NDIM(lines), AARR_DIMS(lines));
	array_iter	iterator;
	Reply		reply = {0};
	EncodedSetBuilder builder;

	ndrs_encoding_ready();
	ndrs_open_set(&reply.asked, PG_GETARG_DATUM(0));
	reply.is_allowed = palloc0(reply.asked.count / 8 + 1);

	/* A variable of PL/pgSQL is expanded; it can be large, and is not copied. */
	ndrs_text_array_iter_setup(&iterator, lines);
	for (int i = 0; i < nlines; i++)
	{
		bool		isnull;
		Datum		element = ndrs_text_array_iter_next(&iterator, &isnull, i);
		struct varlena *text = isnull ? NULL : PG_DETOAST_DATUM_PACKED(element);

		read_lines(&reply, isnull ? "" : VARDATA_ANY(text),
				   isnull ? 0 : VARSIZE_ANY_EXHDR(text));
	}
	if (reply.ended > 0 && reply.end == END_TEXT)
		refuse_line(reply.ended, "the service has refused the request",
					"It answers with a line of text, which says why. Cancel the check and start another.");
	if (reply.ended > 0 && reply.end == END_CUT)
		refuse_line(reply.ended, "the reply is cut off",
					"Fetch it again: its last line has fewer than ten digits.");
	if (reply.strangers > 0)
		PG_RETURN_NULL();
	if (reply.allowed == 0)
		ndrs_ereport(errcode(ERRCODE_NDRS_CHECK_REFUSED),
					 errmsg("the reply is empty"),
					 errhint("Fetch it again. If every patient has opted out, cancel the check: a patient who is not checked is not shared."));

	ndrs_set_begin(&builder, CurrentMemoryContext, reply.allowed);
	for (uint32 i = 0; i < reply.asked.count; i++)
	{
		encoded_set_pause_at(i);
		if (reply.is_allowed[i / 8] & 1 << i % 8)
			ndrs_set_add(&builder, &reply.asked.members[i], 1);
	}
	PG_RETURN_POINTER(ndrs_set_end(&builder));
}
