/* Owns the check of JSON text from outside before a parser sees it: a parser that recurses, allocates per value and keeps
 * numbers as doubles is safe only on text that has passed here. */
#include "json_scan.h"

#include "limits.h"

#include <cjson/cJSON.h>
#include <pthread.h>
#include <string.h>

typedef struct scan {
	knit_reader *r;
	const uint8_t *text;
	uint64_t bytes, at;
} scan;

static knit_status fail(scan *s, knit_status status, const char *what) {
	s->r->field_at = s->r->at + s->at;
	return knit__reader_fail(s->r, status, "%s", what);
}

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }
static bool is_letter(uint8_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Four hexadecimal digits at offset i, or -1. */
static int32_t hex4(const scan *s, uint64_t i) {
	int32_t v = 0;

	if (s->bytes < 4 || i > s->bytes - 4)
		return -1;
	for (uint64_t k = i; k < i + 4; ++k) {
		const uint8_t c = s->text[k];
		const uint8_t letter = c | 0x20;

		if (is_digit(c))
			v = v * 16 + (c - '0');
		else if (letter >= 'a' && letter <= 'f')
			v = v * 16 + (letter - 'a' + 10);
		else
			return -1;
	}
	return v;
}

/* At "\u": one code point, which may take two escapes (RFC 8259, section 7). */
static knit_status scan_unicode_escape(scan *s) {
	const int32_t unit = hex4(s, s->at + 2);

	if (unit < 0)
		return fail(s, KNIT_ERR_FORMAT, "a \\u escape needs four hexadecimal digits");
	if (unit == 0)
		return fail(s, KNIT_ERR_FORMAT, "a NUL character in a string");
	if (unit >= 0xdc00 && unit <= 0xdfff)
		return fail(s, KNIT_ERR_FORMAT, "a lone low surrogate in a string");
	if (unit < 0xd800 || unit > 0xdbff) {
		s->at += 6;
		return KNIT_OK;
	}

	const int32_t low = s->bytes - s->at >= 12 && memcmp(s->text + s->at + 6, "\\u", 2) == 0 ? hex4(s, s->at + 8) : -1;
	if (low < 0xdc00 || low > 0xdfff)
		return fail(s, KNIT_ERR_FORMAT, "a lone high surrogate in a string");
	s->at += 12;
	return KNIT_OK;
}

/* At the opening quote. */
static knit_status scan_string(scan *s) {
	const uint64_t begin = s->at++;

	while (s->at < s->bytes) {
		const uint8_t c = s->text[s->at];

		if (c == '"') {
			s->at++;
			return KNIT_OK;
		}
		if (c < 0x20)
			return fail(s, KNIT_ERR_FORMAT, "a control character in a string");
		if (c != '\\') {
			s->at++;
			continue;
		}
		const uint8_t escape = s->at + 1 < s->bytes ? s->text[s->at + 1] : 0;
		if (escape == 'u') {
			const knit_status status = scan_unicode_escape(s);
			if (status != KNIT_OK)
				return status;
		} else if (escape && strchr("\"\\/bfnrt", escape)) {
			s->at += 2;
		} else {
			return fail(s, KNIT_ERR_FORMAT, "an unknown escape in a string");
		}
	}
	s->at = begin;
	return fail(s, KNIT_ERR_FORMAT, "a string does not end");
}

static knit_status scan_number(scan *s) {
	const uint64_t begin = s->at;
	uint64_t v = 0;

	while (s->at < s->bytes && is_digit(s->text[s->at])) {
		v = v * 10 + (s->text[s->at++] - '0');
		if (v > KNIT_LIMIT_JSON_INTEGER) {
			s->at = begin;
			return fail(s, KNIT_ERR_LIMIT, "a number is greater than 2^53 - 1");
		}
	}
	if (s->at - begin > 1 && s->text[begin] == '0')
		return fail(s, KNIT_ERR_FORMAT, "a number begins with 0");
	if (s->at < s->bytes && (s->text[s->at] == '.' || is_letter(s->text[s->at])))
		return fail(s, KNIT_ERR_FORMAT, "a number is no plain integer");
	return KNIT_OK;
}

static knit_status scan_all(scan *s) {
	uint64_t values = 0;
	int depth = 0;

	while (s->at < s->bytes) {
		const uint8_t c = s->text[s->at];
		const bool opens = c == '{' || c == '[';
		knit_status status = KNIT_OK;

		if ((opens || c == '"' || is_digit(c) || is_letter(c)) && ++values > KNIT_LIMIT_JSON_VALUES)
			return fail(s, KNIT_ERR_LIMIT, "the header holds too many values");
		if (opens && ++depth > KNIT_LIMIT_JSON_DEPTH)
			return fail(s, KNIT_ERR_LIMIT, "the header is nested too deep");
		if ((c == '}' || c == ']') && --depth < 0)
			return fail(s, KNIT_ERR_FORMAT, "a bracket closes nothing");
		if (c == '-' || c == '+')
			return fail(s, KNIT_ERR_FORMAT, "a number has a sign");

		if (c == '"')
			status = scan_string(s);
		else if (is_digit(c))
			status = scan_number(s);
		else if (is_letter(c))
			while (s->at < s->bytes && is_letter(s->text[s->at])) /* true, false, null */
				s->at++;
		else
			s->at++;
		if (status != KNIT_OK)
			return status;
	}
	return depth == 0 ? KNIT_OK : fail(s, KNIT_ERR_FORMAT, "the header ends inside a bracket");
}

knit_status knit__json_scan(knit_reader *r) {
	scan s = {r, r->data + r->at, knit__reader_remaining(r), 0};

	if (!knit__utf8_valid(s.text, s.bytes, &s.at))
		return fail(&s, KNIT_ERR_FORMAT, "the header is not UTF-8");
	return scan_all(&s);
}

/* cJSON writes a global with every parse, so parses take turns. */
cJSON *knit__json_parse(const void *text, uint64_t bytes, uint64_t *end) {
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	const char *stop = NULL;

	pthread_mutex_lock(&lock);
	cJSON *root = cJSON_ParseWithLengthOpts(text, (size_t)bytes, &stop, 0);
	pthread_mutex_unlock(&lock);
	*end = stop ? (uint64_t)(stop - (const char *)text) : 0;
	return root;
}
