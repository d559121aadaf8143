/*
 * nhs_number_test.c
 *		Parsing and check digit, without a server.
 */
#include "nhs_number.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

typedef struct Vector
{
	const char *text;
	NhsNumberForm form;
	NhsNumber	number;
	const char *why;
} Vector;

static const Vector vectors[] = {
	{"9434765919", NHS_NUMBER_VALID, 9434765919, "published example"},
	{"943 476 5919", NHS_NUMBER_VALID, 9434765919, "3-3-4 with spaces"},
	{"943-476-5919", NHS_NUMBER_VALID, 9434765919, "3-3-4 with hyphens"},
	{"  943 476 5919\t", NHS_NUMBER_VALID, 9434765919, "outer white space"},
	{"9434765919\r\n", NHS_NUMBER_VALID, 9434765919, "a line end behind it"},
	{"943\xC2\xA0" "476\xC2\xA0" "5919", NHS_NUMBER_VALID, 9434765919, "no-break spaces"},
	{"943\xE2\x80\xAF" "476\xE2\x80\x87" "5919", NHS_NUMBER_VALID, 9434765919, "narrow no-break and figure space"},
	{"943\xE2\x80\x91" "476\xE2\x80\x90" "5919", NHS_NUMBER_VALID, 9434765919, "typographic hyphens"},
	{"\xEF\xBC\x99\xEF\xBC\x94\xEF\xBC\x93\xEF\xBC\x94\xEF\xBC\x97\xEF\xBC\x96\xEF\xBC\x95\xEF\xBC\x99\xEF\xBC\x91\xEF\xBC\x99",
	NHS_NUMBER_VALID, 9434765919, "full-width digits"},
	{"\xC2\xAD" "943\xC2\xAD" "4765919\xC2\xAD", NHS_NUMBER_VALID, 9434765919, "U+00AD"},
	{"\xE2\x80\x8B" "943\xE2\x80\x8B" "4765919\xE2\x80\x8B", NHS_NUMBER_VALID, 9434765919, "U+200B"},
	{"\xE2\x80\x8C" "943\xE2\x80\x8C" "4765919\xE2\x80\x8C", NHS_NUMBER_VALID, 9434765919, "U+200C"},
	{"\xE2\x80\x8D" "943\xE2\x80\x8D" "4765919\xE2\x80\x8D", NHS_NUMBER_VALID, 9434765919, "U+200D"},
	{"\xE2\x80\x8E" "943\xE2\x80\x8E" "4765919\xE2\x80\x8E", NHS_NUMBER_VALID, 9434765919, "U+200E"},
	{"\xE2\x80\x8F" "943\xE2\x80\x8F" "4765919\xE2\x80\x8F", NHS_NUMBER_VALID, 9434765919, "U+200F"},
	{"\xE2\x80\xAA" "943\xE2\x80\xAA" "4765919\xE2\x80\xAA", NHS_NUMBER_VALID, 9434765919, "U+202A"},
	{"\xE2\x80\xAB" "943\xE2\x80\xAB" "4765919\xE2\x80\xAB", NHS_NUMBER_VALID, 9434765919, "U+202B"},
	{"\xE2\x80\xAC" "943\xE2\x80\xAC" "4765919\xE2\x80\xAC", NHS_NUMBER_VALID, 9434765919, "U+202C"},
	{"\xE2\x80\xAD" "943\xE2\x80\xAD" "4765919\xE2\x80\xAD", NHS_NUMBER_VALID, 9434765919, "U+202D"},
	{"\xE2\x80\xAE" "943\xE2\x80\xAE" "4765919\xE2\x80\xAE", NHS_NUMBER_VALID, 9434765919, "U+202E"},
	{"\xE2\x81\xA0" "943\xE2\x81\xA0" "4765919\xE2\x81\xA0", NHS_NUMBER_VALID, 9434765919, "U+2060"},
	{"\xEF\xBB\xBF" "943\xEF\xBB\xBF" "4765919\xEF\xBB\xBF", NHS_NUMBER_VALID, 9434765919, "U+FEFF"},
	{"0607230002", NHS_NUMBER_VALID, 607230002, "the leading zero counts"},
	{"9999999999", NHS_NUMBER_VALID, 9999999999, "a placeholder passes the check digit"},
	{"0000000000", NHS_NUMBER_VALID, 0, "ten zeros pass too"},
	{"", NHS_NUMBER_EMPTY, 0, "nothing"},
	{" \t", NHS_NUMBER_EMPTY, 0, "blanks"},
	{"--", NHS_NUMBER_EMPTY, 0, "separators only"},
	{"\xEF\xBB\xBF", NHS_NUMBER_EMPTY, 0, "a byte order mark only"},
	{"9434765918", NHS_NUMBER_BAD_CHECK_DIGIT, 0, "wrong check digit"},
	{"1234567890", NHS_NUMBER_BAD_CHECK_DIGIT, 0, "check digit would be 10: never issued"},
	{"987654321 ", NHS_NUMBER_TOO_SHORT, 0, "a blank is not a zero"},
	{" 607230002", NHS_NUMBER_TOO_SHORT, 0, "nor in front"},
	{"123-456-7890123", NHS_NUMBER_TOO_LONG, 0, "never cut to ten"},
	{"94347659190", NHS_NUMBER_TOO_LONG, 0, "eleven digits"},
	{"99999999999999999999999999999999", NHS_NUMBER_TOO_LONG, 0, "more than an integer holds"},
	{"JRDAN 269", NHS_NUMBER_BAD_CHARACTER, 0, "old format"},
	{"94347659I9", NHS_NUMBER_BAD_CHARACTER, 0, "a letter"},
	{"+9434765919", NHS_NUMBER_BAD_CHARACTER, 0, "a sign"},
	{"9434765919.0", NHS_NUMBER_BAD_CHARACTER, 0, "a decimal point"},
	{"9434765919\n9434765919", NHS_NUMBER_BAD_CHARACTER, 0, "two numbers"},
	{"943\t4765919", NHS_NUMBER_BAD_CHARACTER, 0, "a tab inside"},
	{"943\xE2\x80\x88" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+2008"},
	{"943\xE2\x80\x8A" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+200A"},
	{"943\xE2\x80\x92" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+2012"},
	{"943\xE2\x80\x93" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+2013"},
	{"943\xE2\x80\x94" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+2014"},
	{"943\xE2\x80\xA8" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+2028"},
	{"943\xE2\x80\xA9" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+2029"},
	{"943\xE2\x80\xB0" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+2030"},
	{"943\xE2\x81\xA1" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+2061"},
	{"943\xE2\x81\x9F" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+205F"},
	{"943\xC2\xAB" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+00AB"},
	{"943\xEF\xBB\xBE" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+FEFE"},
	{"943\xE3\x80\x80" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+3000"},
	{"943\xD9\xA0" "4765919", NHS_NUMBER_BAD_CHARACTER, 0, "U+0660"},
	{"943?4765919", NHS_NUMBER_BAD_CHARACTER, 0, "a question mark"},
	{"943_4765919", NHS_NUMBER_BAD_CHARACTER, 0, "an underscore"},
	{"9434765919\xEF\xBB", NHS_NUMBER_BAD_CHARACTER, 0, "a cut byte order mark"},
	{"9434765919\xE2\x81", NHS_NUMBER_BAD_CHARACTER, 0, "a cut word joiner"},
	{"9434765919\xC2", NHS_NUMBER_BAD_CHARACTER, 0, "a cut no-break space"},
	{"9434765919\xEF\xBC", NHS_NUMBER_BAD_CHARACTER, 0, "a cut full-width digit"},
	{"9434765919\xE2\x80", NHS_NUMBER_BAD_CHARACTER, 0, "a cut hyphen"},
};

/* On the heap without a terminator, so that ASan sees a read behind the end. */
static NhsNumberForm
parse(const char *text, size_t length, NhsNumber *number)
{
	char	   *copy = malloc(length > 0 ? length : 1);
	NhsNumberForm form;

	memcpy(copy, text, length);
	form = nhs_number_parse(copy, length, number);
	free(copy);
	return form;
}

/* The rule as the NHS Data Dictionary writes it */
static bool
valid_by_the_book(int64_t value)
{
	int			digit[10];
	int			sum = 0;
	int			check;

	for (int i = 9; i >= 0; i--)
	{
		digit[i] = (int) (value % 10);
		value /= 10;
	}
	for (int i = 0; i < 9; i++)
		sum += digit[i] * (10 - i);
	check = 11 - sum % 11;
	if (check == 11)
		check = 0;
	return check != 10 && check == digit[9];
}

/* Free texts, and whether an NHS number is found in them */
static const struct
{
	const char *text;
	bool		loosely;
	bool		strictly;
}			texts[] = {
	{"", false, false},
	{"complaint 2026/17", false, false},
	{"9434765919", true, true},
	{"the number is 9434765919.", true, true},
	{"no9434765919no", true, true},
	{"943 476 5919", true, true},
	{"ask 1 about 943-476-5919 2", true, true},
	{"9434765918", false, false},
	{"94347659190", false, false},
	{"19434765919", false, false},
	{"1 94347659190", false, false},
	{"1234 9434765919 77", true, true},
	{"943.476.5919", true, false},
	{"943/476/5919", true, false},
	{"943_476_5919", true, false},
	{"943,476,5919", true, false},
	{"943+476+5919", true, false},
	{"943:476:5919", true, false},
	{"943 - 476 - 5919", true, true},
	{"943 . 476 / 5919", true, false},
	{"943\342\200\223476\342\200\2245919", true, false},	/* en and em dash */
	{"943\342\210\222476\342\210\2225919", true, false},	/* minus */
	{"943\302\267476\302\2675919", true, false},	/* middle dot */
	{"9.4.3.4.7.6.5.9.1.9", true, false},
	{"9 4 3 4 7 6 5 9 1 9", true, true},
	{"9,434,765,919", true, false},
	{"943\n476\n5919", true, false},
	{"943a476b5919", false, false},
	{"943 ---- 476 ---- 5919", false, true},
	{"\331\251\331\244\331\243\331\244\331\247\331\246\331\245\331\251\331\241\331\251", true, false},	/* Arabic */
	{"\333\271\333\264\333\263 \333\264\333\267\333\266 \333\265\333\271\333\261\333\271", true, false}, /* Persian */
	{"\357\274\231\357\274\224\357\274\223\357\274\224\357\274\227\357\274\226\357\274\225\357\274\231\357\274\221\357\274\231", true, true},	/* full width */
	{"1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3", true, false},
	{"2026-11-29 12:30:15, 2026-11-30 12:31:59, 2027-01-02 03:04:05", false, false},
	{"29/11/2026 10:30, 30.11.2026 11:31, 01/12/2026 09:05", false, false},
	{"on 2026-11-29 943 476 5919 was", true, true},
	{"at 12:30:15 943.476.5919 was", true, false},
	{"943 476 59\3031\3039", false, false},	/* not UTF-8 */
	{"\342\200", false, false},
};

int
main(void)
{
	bool		same = true;
	bool		printed = true;
	int			valid = 0;
	int			placeholders = 0;

	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
	{
		NhsNumber	number = -1;
		NhsNumberForm form = parse(vectors[i].text, strlen(vectors[i].text), &number);

		ok(form == vectors[i].form &&
		   number == (form == NHS_NUMBER_VALID ? vectors[i].number : -1),
		   vectors[i].why);
	}

	for (int64_t value = 9990000000; value <= 9999999999; value++)
	{
		NhsNumber	number;
		bool		is_valid = nhs_number_check(value, &number) == NHS_NUMBER_VALID;

		same = same && is_valid == valid_by_the_book(value);
		valid += is_valid;
	}
	ok(same, "the check digit by the book, in the whole 999 range");
	ok(valid == 909091, "the 999 range holds 909,091 valid numbers");

	for (int repeated = 0; repeated < 10; repeated++)
	{
		NhsNumber	number;

		placeholders += nhs_number_check(repeated * INT64_C(1111111111), &number) == NHS_NUMBER_VALID &&
			nhs_number_is_placeholder(number);
	}
	ok(placeholders == 10, "all ten placeholders are valid and known");
	ok(!nhs_number_is_placeholder(9434765919), "a patient's number is no placeholder");

	for (int64_t value = 0; value < NHS_NUMBER_LIMIT; value += 123456789)
	{
		char		digits[NHS_NUMBER_DIGITS + 1];
		char		expected[24];

		nhs_number_digits(value, digits);
		digits[NHS_NUMBER_DIGITS] = '\0';
		snprintf(expected, sizeof(expected), "%010lld", (long long) value);
		printed = printed && strcmp(digits, expected) == 0;
	}
	ok(printed, "ten digits are written");

	{
		NhsNumber	number = -1;

		ok(nhs_number_check(-1, &number) != NHS_NUMBER_VALID &&
		   nhs_number_check(INT64_MIN, &number) != NHS_NUMBER_VALID &&
		   nhs_number_check(NHS_NUMBER_LIMIT, &number) != NHS_NUMBER_VALID &&
		   nhs_number_check(INT64_MAX, &number) != NHS_NUMBER_VALID && number == -1,
		   "integers out of range are refused");
	}
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		ok(nhs_number_in_text(texts[i].text, strlen(texts[i].text), true) == texts[i].loosely &&
		   nhs_number_in_text(texts[i].text, strlen(texts[i].text), false) == texts[i].strictly,
		   texts[i].text[strcspn(texts[i].text, "\n")] == '\0' ? texts[i].text : "over several lines");
	return done_testing();
}
