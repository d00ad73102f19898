/* check_answer.c - upstreams' responses, as recorded and as they should never
 * be, read by all providers; and the requests of OpenAI's two APIs. */
#include <check.h>

#include "answer.h"
#include "money.h"
#include "text.h"
#include "wire_cases.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

/* ---- what an answer told ---- */

struct told_tool {
	char id[64], name[64];
	struct buf arguments;
};

struct told {
	struct buf text[DELTA_TOOL_CALL]; /* by kind */
	struct told_tool tools[16];
	size_t tools_count, deltas;
	bool has_usage;
	struct usage usage;
	char cost[128];
	int ends;
	struct delta end;
	char native[128], type[128], code[128], message[512];
	bool before_end; /* it ended before the bytes did */
};

static void
told_init(struct told *t)
{
	memset(t, 0, sizeof *t);
	for (size_t i = 0; i < DELTA_TOOL_CALL; i++)
		buf_init(&t->text[i], 64 << 20);
	for (size_t i = 0; i < 16; i++)
		buf_init(&t->tools[i].arguments, 64 << 20);
}

static void
told_done(struct told *t)
{
	for (size_t i = 0; i < DELTA_TOOL_CALL; i++)
		buf_done(&t->text[i]);
	for (size_t i = 0; i < 16; i++)
		buf_done(&t->tools[i].arguments);
}

static void
copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from ? from : "");
}

static void
tell_tool(struct told *t, const struct delta *d)
{
	struct told_tool *tool = &t->tools[d->tool.index];

	ck_assert_uint_lt(d->tool.index, 16);
	ck_assert_uint_le(d->tool.index, t->tools_count);
	if (d->tool.index == t->tools_count)
		t->tools_count++;
	if (d->tool.id != NULL) {
		ck_assert_str_eq(tool->id, "");
		copy(tool->id, sizeof tool->id, d->tool.id);
	}
	if (d->tool.name != NULL) {
		ck_assert_str_eq(tool->name, "");
		copy(tool->name, sizeof tool->name, d->tool.name);
	}
	buf_add(&tool->arguments, d->text, d->len);
}

static void
tell(void *arg, const struct delta *d)
{
	struct told *t = arg;

	t->deltas++;
	ck_assert_int_eq(t->ends, 0);
	if (d->kind <= DELTA_TOOL_CALL)
		ck_assert(utf8_valid(d->text, d->len));
	switch (d->kind) {
	case DELTA_CONTENT:
	case DELTA_REASONING:
	case DELTA_REFUSAL:
		ck_assert_uint_gt(d->len, 0);
		buf_add(&t->text[d->kind], d->text, d->len);
		break;
	case DELTA_TOOL_CALL:
		tell_tool(t, d);
		break;
	case DELTA_USAGE:
		t->has_usage = true;
		t->usage = d->usage;
		copy(t->cost, sizeof t->cost, d->upstream_cost);
		break;
	case DELTA_FINISH:
	case DELTA_ERROR:
		t->ends++;
		t->end = *d;
		copy(t->native, sizeof t->native, d->native_finish);
		copy(t->type, sizeof t->type, d->error.upstream_type);
		copy(t->code, sizeof t->code, d->error.upstream_code);
		copy(t->message, sizeof t->message, d->error.message);
		break;
	}
}

/* Where to cut: before byte i. */
static bool
is_cut(int pattern, const char *p, size_t i)
{
	switch (pattern) {
	case 0:
		return false;
	case 1:
		return true;
	case 2:
		return i % 7 == 0;
	case 3:
		return i % 1460 == 0;
	default:
		return (p[i] & 0xc0) == 0x80 ||
		    (p[i] == '\n' && p[i - 1] == '\r');
	}
}

/* Each piece in memory of its own, so that no byte behind it is read. */
static void
feed(struct answer *a, const char *p, size_t n)
{
	char *own = malloc(n + (n == 0));

	if (n > 0)
		memcpy(own, p, n);
	answer_feed(a, own, n);
	free(own);
}

static void
play(const struct provider *p, const char *bytes, size_t n, int pattern,
    bool whole, struct told *t)
{
	struct answer *a;
	size_t from = 0;

	if (n == 0)
		bytes = "";
	told_init(t);
	ck_assert_int_eq(answer_new(p, tell, t, &a), RS_OK);
	for (size_t i = 1; i < n; i++)
		if (is_cut(pattern, bytes, i)) {
			feed(a, bytes + from, i - from);
			from = i;
		}
	feed(a, bytes + from, n - from);
	t->before_end = answer_over(a);
	answer_end(a, whole);
	ck_assert(answer_over(a));
	ck_assert_int_eq(t->ends, 1);
	answer_feed(a, bytes, n);
	answer_end(a, whole);
	answer_free(a);
}

static void
play_text(const struct provider *p, const char *bytes, struct told *t)
{
	play(p, bytes, strlen(bytes), 0, true, t);
}

static bool
is_text(const struct buf *b, const char *want)
{
	return b->len == strlen(want) &&
	    (b->len == 0 || memcmp(b->data, want, b->len) == 0);
}

/* ---- the tables ---- */

static struct json_object *cases, *prices;

/* The expected text: "@repeat:S:N" is S, N times. */
static struct buf
expand(struct json_object *o)
{
	const char *s = o ? json_object_get_string(o) : "", *colon;
	struct buf b;

	buf_init(&b, 1 << 20);
	if (strncmp(s, "@repeat:", 8) != 0) {
		buf_add(&b, s, o ? (size_t)json_object_get_string_len(o) : 0);
		return b;
	}
	colon = strrchr(s, ':');
	for (int n = atoi(colon + 1); n > 0; n--)
		buf_add(&b, s + 8, (size_t)(colon - s - 8));
	return b;
}

static void
check_text(const struct told *t, enum delta_kind kind,
    struct json_object *want)
{
	struct buf text = expand(want);

	ck_assert_uint_eq(t->text[kind].len, text.len);
	if (text.len > 0)
		ck_assert_mem_eq(t->text[kind].data, text.data, text.len);
	buf_done(&text);
}

static void
check_tools(const struct told *t, struct json_object *want)
{
	size_t i, n = want ? json_object_array_length(want) : 0;

	ck_assert_uint_eq(t->tools_count, n);
	for (i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(want, i);
		const char *id = wire_str(o, "id");

		ck_assert_uint_eq(json_object_get_uint64(
		    json_object_object_get(o, "index")), i);
		ck_assert_str_eq(t->tools[i].id, id ? id : "");
		ck_assert_str_eq(t->tools[i].name, wire_str(o, "name"));
		ck_assert(is_text(&t->tools[i].arguments,
		    wire_str(o, "arguments")));
	}
}

static uint64_t
number(struct json_object *o, const char *name)
{
	return json_object_get_uint64(json_object_object_get(o, name));
}

static void
check_usage(const struct told *t, struct json_object *want, const char *model)
{
	struct json_object *usage = json_object_object_get(want, "usage");
	struct json_object *price = json_object_object_get(prices, model);
	const struct prices p = {
		.input = number(price, "input"),
		.cache_read = number(price, "cache_read"),
		.cache_write = number(price, "cache_write"),
		.output = number(price, "output"),
	};
	const char *cost = wire_str(want, "provider_cost_usd");

	ck_assert_ptr_nonnull(price);
	ck_assert_int_eq(t->has_usage, usage != NULL);
	if (cost != NULL)
		ck_assert_str_eq(t->cost, cost);
	if (usage == NULL)
		return;
	ck_assert_uint_eq(t->usage.input, number(usage, "input_uncached"));
	ck_assert_uint_eq(t->usage.cache_read, number(usage, "cache_read"));
	ck_assert_uint_eq(t->usage.cache_write, number(usage, "cache_write"));
	ck_assert_uint_eq(t->usage.output, number(usage, "output"));
	ck_assert_uint_eq(t->usage.reasoning, number(usage, "reasoning"));
	ck_assert_uint_eq(t->usage.input + t->usage.cache_read +
	    t->usage.cache_write + t->usage.output, number(usage, "total"));
	ck_assert_uint_eq(prices_cost(&p, &t->usage),
	    number(want, "cost_picousd"));
}

/* A type of ours is compared with ours, another with the upstream's. */
static void
check_error(const struct told *t, struct json_object *want)
{
	struct json_object *error = json_object_object_get(want, "error");
	const char *type = wire_str(error, "type");
	const char *code = wire_str(error, "code");
	const char *message = wire_str(error, "message");
	const char *ours = wire_str(want, "error_type");

	ck_assert_int_eq(t->end.kind, DELTA_ERROR);
	if (errtype_find(type) != ERRTYPE_none)
		ours = type;
	else
		ck_assert_str_eq(t->type, type);
	if (ours != NULL)
		ck_assert_str_eq(errtype_info(t->end.error.type)->name, ours);
	ck_assert_str_eq(t->code, code ? code : "");
	ck_assert_str_eq(t->message, message ? message : "");
}

static void
check_end(const struct told *t, struct json_object *want)
{
	const char *end = wire_str(want, "end");
	const char *native = wire_str(want, "native_finish");

	if (strcmp(end, "error") == 0 || strcmp(end, "truncated") == 0) {
		check_error(t, want);
		return;
	}
	ck_assert_int_eq(t->end.kind, DELTA_FINISH);
	ck_assert_str_eq(finish_name(t->end.finish), wire_str(want, "finish"));
	ck_assert_str_eq(t->native, native ? native : "");
	if (strcmp(end, "eof") == 0)
		ck_assert(!t->before_end);
}

START_TEST(a_recorded_response_is_read_however_it_is_cut)
{
	struct json_object *c = json_object_array_get_idx(cases,
	    (size_t)_i / 5);
	struct json_object *want = json_object_object_get(c, "expect");
	struct buf b = wire_file(wire_str(c, "file"));
	struct told t;

	play(wire_provider(wire_str(c, "api")), b.data, b.len, _i % 5, true,
	    &t);
	check_text(&t, DELTA_CONTENT, json_object_object_get(want, "text"));
	check_text(&t, DELTA_REASONING,
	    json_object_object_get(want, "reasoning"));
	check_text(&t, DELTA_REFUSAL, json_object_object_get(want, "refusal"));
	check_tools(&t, json_object_object_get(want, "tool_calls"));
	check_usage(&t, want, wire_str(c, "model"));
	check_end(&t, want);
	told_done(&t);
	buf_done(&b);
}
END_TEST

/* Some 64 lengths of each.  That one whose every chunk says that it is the
 * last cannot tell. */
START_TEST(a_response_that_was_cut_is_never_taken_for_a_whole_one)
{
	struct json_object *c = json_object_array_get_idx(cases, (size_t)_i);
	struct json_object *want = json_object_object_get(c, "expect");
	struct buf text = expand(json_object_object_get(want, "text"));
	const struct provider *p = wire_provider(wire_str(c, "api"));
	struct buf b = wire_file(wire_str(c, "file"));
	struct told t;

	for (size_t n = 0; n < b.len; n += 1 + b.len / 64) {
		play(p, b.data, n, 0, false, &t);
		if (!t.before_end)
			ck_assert_int_eq(t.end.kind, DELTA_ERROR);
		ck_assert_uint_le(t.text[0].len, text.len);
		if (t.text[0].len > 0 && t.end.kind == DELTA_FINISH)
			ck_assert(is_text(&t.text[0], text.data));
		told_done(&t);
		play(p, b.data, n, 0, true, &t);
		if (t.end.kind == DELTA_FINISH && text.len > 0 &&
		    strstr(wire_str(c, "file"), "every-chunk") == NULL)
			ck_assert_mem_eq(t.text[0].data, text.data, text.len);
		told_done(&t);
	}
	buf_done(&text);
	buf_done(&b);
}
END_TEST

/* ---- framing ---- */

#define CHUNK(delta) "data: {\"choices\":[{\"delta\":" delta "}]}\n\n"
#define CONTENT(text) CHUNK("{\"content\":\"" text "\"}")
#define REASON(word) "data: {\"choices\":[{\"delta\":{}," \
	"\"finish_reason\":\"" word "\"}]}\n\n"
#define DONE "data: [DONE]\n\n"

START_TEST(ten_thousand_events_are_read_from_one_piece)
{
	struct buf b;
	struct told t;

	buf_init(&b, 16 << 20);
	for (int i = 0; i < 10000; i++)
		buf_puts(&b, CONTENT("x"));
	buf_puts(&b, REASON("stop") DONE);
	play(&provider_openai, b.data, b.len, 0, true, &t);
	ck_assert_uint_eq(t.text[0].len, 10000);
	ck_assert_uint_eq(t.deltas, 10001);
	ck_assert_int_eq(t.end.kind, DELTA_FINISH);
	told_done(&t);
	buf_done(&b);
}
END_TEST

START_TEST(one_event_is_read_from_ten_thousand_pieces)
{
	struct buf b;
	struct told t;

	buf_init(&b, 16 << 20);
	buf_puts(&b, "data: {\"choices\":[{\"delta\":{\"content\":\"");
	while (b.len < 10000)
		buf_puts(&b, "\u2014");
	buf_puts(&b, "\"}}]}\n\n" REASON("stop") DONE);
	play(&provider_openai, b.data, b.len, 1, true, &t);
	ck_assert_uint_gt(t.text[0].len, 9900);
	ck_assert_uint_eq(t.deltas, 2);
	told_done(&t);
	buf_done(&b);
}
END_TEST

/* What stands before and behind so many bytes, for each framing. */
static const struct {
	const struct provider *provider;
	const char *before, *after;
} longs[] = {
	{ &provider_openai, "data: {\"choices\":[{\"delta\":{\"content\":\"",
	    "\"}}]}\n\n" REASON("stop") DONE },
	{ &provider_openai, "{\"choices\":[{\"message\":{\"content\":\"",
	    "\"},\n\"finish_reason\":\"stop\"}]}\n" },
	{ &provider_ollama, "{\"message\":{\"content\":\"",
	    "\"},\"done\":true,\"done_reason\":\"stop\"}\n" },
};

START_TEST(more_than_the_largest_event_is_refused)
{
	size_t room = strlen(longs[_i / 2].before) +
	    strlen(longs[_i / 2].after);
	size_t n = _i % 2 == 0 ? ANSWER_EVENT_MAX - 2 * room :
	    ANSWER_EVENT_MAX;
	struct buf b;
	struct told t;

	buf_init(&b, 2 * ANSWER_EVENT_MAX);
	buf_puts(&b, longs[_i / 2].before);
	for (size_t i = 0; i < n; i++)
		buf_add(&b, "x", 1);
	buf_puts(&b, longs[_i / 2].after);
	play(longs[_i / 2].provider, b.data, b.len, 3, true, &t);
	if (_i % 2 == 0) {
		ck_assert_int_eq(t.end.kind, DELTA_FINISH);
		ck_assert_uint_eq(t.text[0].len, n);
	} else {
		ck_assert_int_eq(t.end.error.type,
		    ERRTYPE_upstream_bad_json);
	}
	told_done(&t);
	buf_done(&b);
}
END_TEST

/* Bytes, and whether HTTP says that they are all. */
static const struct {
	const char *bytes;
	bool whole;
	const char *want; /* a way to finish, or an error */
} ends[] = {
	{ CONTENT("x") REASON("length"), true, "length" },
	{ CONTENT("x") REASON("length"), false, "upstream_truncated" },
	{ CONTENT("x") REASON("length") DONE, false, "length" },
	{ CONTENT("x") REASON("length") "data: [DONE]", true, "length" },
	{ CONTENT("x") REASON("length") "data: [DONE]", false,
	    "upstream_truncated" },
	{ CONTENT("x"), true, "upstream_truncated" },
	{ CONTENT("x") DONE, true, "unknown" },
	{ CONTENT("x") REASON(""), true, "upstream_truncated" },
	{ DONE, true, "unknown" },
	{ ": only\n\n: comments\n\n", true, "upstream_truncated" },
	{ CONTENT("x") REASON("stop") "data: {\"choices\"", true,
	    "upstream_truncated" },
	{ CONTENT("x") REASON("stop") "data: nonsense", true,
	    "upstream_bad_json" },
	{ CONTENT("x") "data: 12\n\n", true, "upstream_bad_json" },
	{ CONTENT("x") "data: \"text\"\n\n", true, "upstream_bad_json" },
	{ CONTENT("x") "data: null\n\n", true, "upstream_bad_json" },
	{ CONTENT("x") "data: []\n\n" REASON("stop"), true, "stop" },
	{ CONTENT("x") "data: {\"a\":1} {\n\n", true, "upstream_bad_json" },
	{ CONTENT("x") "data: {\"error\":null}\n\n" REASON("stop"), true,
	    "stop" },
	{ CONTENT("x") REASON("insufficient_system_resource"), true,
	    "overloaded" },
	{ CONTENT("x") "{\"error\":{\"code\":401}}", true, "auth" },
	{ CONTENT("x") "{\"error\":{\"code\":401", true,
	    "upstream_truncated" },
	{ CONTENT("x") REASON("stop") "{\"error\":{\"code\":401", true,
	    "stop" },
	{ "{\"error\":{\"code\":401}}", true, "auth" },
	{ "{\"error\":\"no\"}", true, "upstream_error" },
	{ "{\"error\":\"no\"}\n", false, "upstream_error" },
	{ "[{\"error\":{\"code\":401}}]", true, "auth" },
	{ "\xef\xbb\xbf{\"error\":{\"code\":401}}", true, "auth" },
	{ "[]", true, "upstream_bad_json" },
	{ "{]", true, "upstream_bad_json" },
	{ "{", true, "upstream_truncated" },
	{ "\n\n  {\"error\":{\"code\":401}}", true, "auth" },
	{ "error: {\"error\":\"twice\"}\n\n", true, "upstream_error" },
	{ "error:\n\n", true, "upstream_bad_json" },
};

START_TEST(an_answer_ends_as_its_bytes_and_http_say)
{
	struct told t;

	play(&provider_openai, ends[_i].bytes, strlen(ends[_i].bytes), 0,
	    ends[_i].whole, &t);
	if (t.end.kind == DELTA_FINISH)
		ck_assert_str_eq(finish_name(t.end.finish), ends[_i].want);
	else
		ck_assert_str_eq(errtype_info(t.end.error.type)->name,
		    ends[_i].want);
	told_done(&t);
}
END_TEST

/* A provider of bytes, as exec's text: every cut of these. */
static const struct {
	const char *bytes, *want;
} texts[] = {
	{ "plain", "plain" },
	{ " \n", " \n" },
	{ "\xe2\x80\x94\xf0\x9f\x90\xa2.", "\xe2\x80\x94\xf0\x9f\x90\xa2." },
	{ "\xff" "a", "\xef\xbf\xbd" "a" },
	{ "\xf0\x9f", "\xef\xbf\xbd" },
	{ "\xf0\x9f" "a", "\xef\xbf\xbd\xef\xbf\xbd" "a" },
	{ "\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd" },
	{ "\xe0\x80", "\xef\xbf\xbd\xef\xbf\xbd" },
	{ "\xf4\x90", "\xef\xbf\xbd\xef\xbf\xbd" },
};

START_TEST(bytes_of_a_character_meet_wherever_they_were_cut)
{
	const char *p = texts[_i].bytes;
	size_t n = strlen(p);
	struct answer *a;
	struct told t;

	for (size_t cut = 0; cut <= n; cut++) {
		told_init(&t);
		ck_assert_int_eq(answer_new(&provider_exec_text, tell, &t,
		    &a), RS_OK);
		feed(a, p, cut);
		feed(a, p + cut, n - cut);
		answer_end(a, true);
		ck_assert(is_text(&t.text[0], texts[_i].want));
		answer_free(a);
		told_done(&t);
	}
}
END_TEST

/* ---- what chat completions say ---- */

static const struct {
	const char *number, *want;
} costs[] = {
	{ "7.12e-05", "0.0000712" },
	{ "0.00010", "0.0001" },
	{ "0.1234567890123456789", "0.1234567890123456789" },
	{ "0", "0" },
	{ "0.000", "0" },
	{ "0e9", "0" },
	{ "12", "12" },
	{ "120", "120" },
	{ "1.5E2", "150" },
	{ "1.25e1", "12.5" },
	{ "10e-1", "1" },
	{ "100e-3", "0.1" },
	{ "1e-12", "0.000000000001" },
	{ "1e3", "1000" },
	{ "{\"total_cost\":0.25,\"input\":1}", "0.25" },
	{ "-1", "" },
	{ "-0.5", "" },
	{ "1e-99", "" },
	{ "1e999", "" },
	{ "\"free\"", "" },
	{ "null", "" },
};

START_TEST(what_an_upstream_says_that_it_cost_is_kept_as_exact_decimals)
{
	char bytes[512];
	struct told t;

	snprintf(bytes, sizeof bytes, "data: {\"usage\":{\"prompt_tokens\":1,"
	    "\"completion_tokens\":2,\"cost\":%s}}\n\n", costs[_i].number);
	play_text(&provider_openai, bytes, &t);
	ck_assert(t.has_usage);
	ck_assert_str_eq(t.cost, costs[_i].want);
	told_done(&t);
}
END_TEST

/* usage, and input, cache_read, cache_write, output, reasoning. */
static const struct {
	const char *usage;
	bool told;
	uint64_t want[5];
} usages[] = {
	{ "null", false, { 0 } },
	{ "{}", false, { 0 } },
	{ "[1]", false, { 0 } },
	{ "{\"prompt_tokens\":5}", true, { 5, 0, 0, TOKENS_UNKNOWN, 0 } },
	{ "{\"completion_tokens\":5}", true, { TOKENS_UNKNOWN, 0, 0, 5, 0 } },
	{ "{\"prompt_tokens\":-5,\"completion_tokens\":1.5}", false, { 0 } },
	{ "{\"prompt_tokens\":18446744073709551614,\"completion_tokens\":1}",
	    true, { TOKENS_UNKNOWN, 0, 0, 1, 0 } },
	{ "{\"prompt_tokens\":9,\"completion_tokens\":4,\"total_tokens\":13,"
	    "\"completion_tokens_details\":{\"reasoning_tokens\":3}}", true,
	    { 9, 0, 0, 4, 3 } },
	{ "{\"prompt_tokens\":9,\"completion_tokens\":4,\"total_tokens\":16,"
	    "\"completion_tokens_details\":{\"reasoning_tokens\":3}}", true,
	    { 9, 0, 0, 7, 3 } },
	{ "{\"prompt_tokens\":9,\"completion_tokens\":4,"
	    "\"reasoning_tokens\":2}", true, { 9, 0, 0, 4, 2 } },
	{ "{\"prompt_tokens\":9,\"completion_tokens\":4,"
	    "\"cached_tokens\":2}", true, { 7, 2, 0, 4, 0 } },
	{ "{\"prompt_tokens\":9,\"completion_tokens\":4,"
	    "\"prompt_cache_hit_tokens\":2,\"prompt_cache_miss_tokens\":7}",
	    true, { 7, 2, 0, 4, 0 } },
	{ "{\"prompt_tokens\":9,\"completion_tokens\":4,"
	    "\"prompt_tokens_details\":{\"cached_tokens\":8,"
	    "\"cache_write_tokens\":8}}", true, { 0, 8, 8, 4, 0 } },
};

START_TEST(usage_is_counted_as_each_dialect_means_it)
{
	const uint64_t *want = usages[_i].want;
	char bytes[512];
	struct told t;

	snprintf(bytes, sizeof bytes, "data: {\"usage\":%s}\n\n",
	    usages[_i].usage);
	play_text(&provider_openai, bytes, &t);
	ck_assert_int_eq(t.has_usage, usages[_i].told);
	if (usages[_i].told) {
		ck_assert_uint_eq(t.usage.input, want[0]);
		ck_assert_uint_eq(t.usage.cache_read, want[1]);
		ck_assert_uint_eq(t.usage.cache_write, want[2]);
		ck_assert_uint_eq(t.usage.output, want[3]);
		ck_assert_uint_eq(t.usage.reasoning, want[4]);
	}
	told_done(&t);
}
END_TEST

static void
count_ends(void *arg, const struct delta *d)
{
	size_t *counts = arg;

	counts[d->kind]++;
	if (d->kind == DELTA_ERROR)
		ck_assert_int_eq(d->error.type, ERRTYPE_upstream_bad_json);
}

START_TEST(so_many_tool_calls_that_it_is_no_answer_are_refused)
{
	size_t counts[DELTA_ERROR + 1] = { 0 };
	struct answer *a;
	char call[128];

	ck_assert_int_eq(answer_new(&provider_openai, count_ends, counts,
	    &a), RS_OK);
	for (int i = 0; i < 5000; i++) {
		snprintf(call, sizeof call, CHUNK("{\"tool_calls\":[{"
		    "\"index\":%d,\"id\":\"a\"}]}"), i);
		feed(a, call, strlen(call));
	}
	answer_end(a, true);
	ck_assert_uint_eq(counts[DELTA_TOOL_CALL], 1024);
	ck_assert_uint_eq(counts[DELTA_ERROR], 1);
	answer_free(a);
}
END_TEST

/* ---- requests ---- */

static const struct {
	enum provider_kind kind;
	struct model model;	/* base_url, and what differs */
	const char *parameters;	/* JSON, or NULL */
	const char *messages;
	const char *key;
	const char *url, *headers, *body; /* headers: with LF behind each */
} requests[] = {
	{ PROVIDER_OPENAI, { .base_url = "http://h/v1",
	    .upstream_model = "m" }, NULL,
	    "[{\"role\":\"user\",\"content\":\"x\"}]", "KEY",
	    "http://h/v1/chat/completions",
	    "Authorization: Bearer KEY\nContent-Type: application/json\n"
	    "Accept: text/event-stream\n",
	    "{\"model\":\"m\",\"stream\":true,\"stream_options\":"
	    "{\"include_usage\":true},\"messages\":[{\"role\":\"user\","
	    "\"content\":\"x\"}]}" },
	{ PROVIDER_OPENAI, { .base_url = "http://h/v1",
	    .upstream_model = "a/\"b\"", .no_stream_usage = true,
	    .system = "Be brief." },
	    "{\"max_tokens\":5,\"temperature\":0.30,\"stop\":[\"a\"],"
	    "\"seed\":7}",
	    "[{\"role\":\"system\",\"content\":\"s\"},"
	    "{\"role\":\"user\",\"content\":\"\xe2\x80\x94\"},"
	    "{\"role\":\"assistant\",\"content\":\"a/b\"}]", NULL,
	    "http://h/v1/chat/completions",
	    "Content-Type: application/json\nAccept: text/event-stream\n",
	    "{\"model\":\"a/\\\"b\\\"\",\"stream\":true,\"messages\":["
	    "{\"role\":\"system\",\"content\":\"Be brief.\"},"
	    "{\"role\":\"system\",\"content\":\"s\"},"
	    "{\"role\":\"user\",\"content\":\"\xe2\x80\x94\"},"
	    "{\"role\":\"assistant\",\"content\":\"a/b\"}],"
	    "\"max_tokens\":5,\"temperature\":0.30,\"stop\":[\"a\"],"
	    "\"seed\":7}" },
	{ PROVIDER_OPENAI, { .base_url = "https://api.openai.com/v1",
	    .upstream_model = "m", .auth = AUTH_X_API_KEY },
	    "{\"max_tokens\":5}",
	    "[{\"role\":\"user\",\"content\":\"x\"}]", "KEY",
	    "https://api.openai.com/v1/chat/completions",
	    "x-api-key: KEY\nContent-Type: application/json\n"
	    "Accept: text/event-stream\n",
	    "{\"model\":\"m\",\"stream\":true,\"stream_options\":"
	    "{\"include_usage\":true},\"messages\":[{\"role\":\"user\","
	    "\"content\":\"x\"}],\"max_completion_tokens\":5}" },
	{ PROVIDER_OPENAI, { .base_url = "https://api.openai.com.example/v1",
	    .upstream_model = "m", .auth = AUTH_NONE,
	    .no_stream_usage = true },
	    "{\"max_tokens\":5,\"max_completion_tokens\":6}",
	    "[{\"role\":\"user\",\"content\":\"x\"}]", "KEY",
	    "https://api.openai.com.example/v1/chat/completions",
	    "Content-Type: application/json\nAccept: text/event-stream\n",
	    "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":"
	    "\"user\",\"content\":\"x\"}],\"max_tokens\":5,"
	    "\"max_completion_tokens\":6}" },
	{ PROVIDER_RESPONSES, { .base_url = "http://h/v1",
	    .upstream_model = "m" }, NULL,
	    "[{\"role\":\"user\",\"content\":\"x\"}]", "KEY",
	    "http://h/v1/responses",
	    "Authorization: Bearer KEY\nContent-Type: application/json\n"
	    "Accept: text/event-stream\n",
	    "{\"model\":\"m\",\"stream\":true,\"store\":false,\"input\":["
	    "{\"role\":\"user\",\"content\":\"x\"}]}" },
	{ PROVIDER_RESPONSES, { .base_url = "http://h/v1",
	    .upstream_model = "m", .system = "Be brief." },
	    "{\"max_tokens\":5,\"temperature\":1}",
	    "[{\"role\":\"system\",\"content\":\"s\"},"
	    "{\"role\":\"user\",\"content\":\"x\"},"
	    "{\"role\":\"assistant\",\"content\":\"y\"},"
	    "{\"role\":\"user\",\"content\":\"z\"}]", NULL,
	    "http://h/v1/responses",
	    "Content-Type: application/json\nAccept: text/event-stream\n",
	    "{\"model\":\"m\",\"stream\":true,\"store\":false,"
	    "\"instructions\":\"Be brief.\\n\\ns\",\"input\":["
	    "{\"role\":\"user\",\"content\":\"x\"},"
	    "{\"role\":\"assistant\",\"content\":\"y\"},"
	    "{\"role\":\"user\",\"content\":\"z\"}],"
	    "\"max_output_tokens\":5,\"temperature\":1}" },
};

/* The request for that row into *ret. */
static enum rs_err
ask(int i, const char *parameters, struct http_req *ret)
{
	struct model m = requests[i].model;
	struct chat chat = { .model = &m, .key = requests[i].key };
	enum rs_err err;

	m.provider = requests[i].kind;
	if (parameters != NULL)
		m.parameters = json_tokener_parse(parameters);
	chat.messages = json_tokener_parse(requests[i].messages);
	http_req_init(ret);
	err = provider_get(&m)->request(&chat, ret);
	json_object_put(chat.messages);
	json_object_put(m.parameters);
	return err;
}

START_TEST(a_request_is_what_its_api_asks_for)
{
	struct http_req r;

	ck_assert_int_eq(ask(_i, requests[_i].parameters, &r), RS_OK);
	ck_assert_str_eq(r.url.data, requests[_i].url);
	for (size_t i = 0; i < r.headers.len; i++)
		if (r.headers.data[i] == '\0')
			r.headers.data[i] = '\n';
	ck_assert_str_eq(r.headers.data, requests[_i].headers);
	ck_assert_str_eq(r.body.data, requests[_i].body);
	http_req_done(&r);
}
END_TEST

START_TEST(a_parameter_that_would_take_the_place_of_ours_is_refused)
{
	static const char *const names[] = { "model", "stream", "messages",
		"input", "store" };
	char parameters[64];
	struct http_req r;

	snprintf(parameters, sizeof parameters, "{\"%s\":1}", names[_i]);
	ck_assert_int_eq(ask(_i < 3 ? 0 : 4, parameters, &r), RS_EINVAL);
	http_req_done(&r);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("answer");
	TCase *tc;
	SRunner *sr;
	int failed, i;

	cases = wire_list("cases");
	struct buf b = wire_file("cases.json");
	struct json_object *root = json_tokener_parse(b.data);

	prices = json_object_object_get(root, "prices");
	/* One for each file, so that a failure names it. */
	for (i = 0; i < (int)json_object_array_length(cases); i++) {
		tc = tcase_create(wire_str(json_object_array_get_idx(cases,
		    (size_t)i), "file"));
		tcase_set_timeout(tc, 300);
		tcase_add_loop_test(tc,
		    a_recorded_response_is_read_however_it_is_cut, 5 * i,
		    5 * i + 5);
		tcase_add_loop_test(tc,
		    a_response_that_was_cut_is_never_taken_for_a_whole_one,
		    i, i + 1);
		suite_add_tcase(s, tc);
	}
	tc = tcase_create("answer");
	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, ten_thousand_events_are_read_from_one_piece);
	tcase_add_test(tc, one_event_is_read_from_ten_thousand_pieces);
	tcase_add_loop_test(tc, more_than_the_largest_event_is_refused, 0,
	    2 * COUNT(longs));
	tcase_add_loop_test(tc, an_answer_ends_as_its_bytes_and_http_say, 0,
	    COUNT(ends));
	tcase_add_loop_test(tc,
	    bytes_of_a_character_meet_wherever_they_were_cut, 0,
	    COUNT(texts));
	tcase_add_loop_test(tc,
	    what_an_upstream_says_that_it_cost_is_kept_as_exact_decimals, 0,
	    COUNT(costs));
	tcase_add_loop_test(tc, usage_is_counted_as_each_dialect_means_it, 0,
	    COUNT(usages));
	tcase_add_test(tc,
	    so_many_tool_calls_that_it_is_no_answer_are_refused);
	tcase_add_loop_test(tc, a_request_is_what_its_api_asks_for, 0,
	    COUNT(requests));
	tcase_add_loop_test(tc,
	    a_parameter_that_would_take_the_place_of_ours_is_refused, 0, 5);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	json_object_put(cases);
	json_object_put(root);
	buf_done(&b);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
