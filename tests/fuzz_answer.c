/* fuzz_answer.c - a body as each provider reads it: whole and in pieces it
 * tells the same, valid text, and one end; and as a failure's body. */
#include <string.h>

#include "failure.h"
#include "fuzz.h"
#include "provider.h"
#include "text.h"

struct told {
	struct buf text[DELTA_TOOL_CALL + 1]; /* by kind; arguments last */
	struct usage usage;
	uint64_t tools;
	int ends;
	struct delta end;
};

static void
tell(void *arg, const struct delta *d)
{
	struct told *t = arg;

	assert(t->ends == 0);
	switch (d->kind) {
	case DELTA_CONTENT:
	case DELTA_REASONING:
	case DELTA_REFUSAL:
	case DELTA_TOOL_CALL:
		assert(utf8_valid(d->text, d->len));
		buf_add(&t->text[d->kind], d->text, d->len);
		if (d->kind != DELTA_TOOL_CALL)
			break;
		assert(d->tool.index <= t->tools);
		t->tools += d->tool.index == t->tools;
		break;
	case DELTA_USAGE:
		t->usage = d->usage;
		break;
	case DELTA_FINISH:
	case DELTA_ERROR:
		t->ends++;
		t->end = *d;
		break;
	}
}

static void
play(const struct provider *p, const char *bytes, size_t n, size_t piece,
    struct told *t)
{
	struct answer *a;
	size_t i, len;
	char *own;

	memset(t, 0, sizeof *t);
	for (i = 0; i <= DELTA_TOOL_CALL; i++)
		buf_init(&t->text[i], SIZE_MAX / 2);
	assert(answer_new(p, tell, t, &a) == RS_OK);
	for (i = 0; i < n; i += len) {
		len = n - i < piece ? n - i : piece;
		own = malloc(len); /* so that no byte behind it is read */
		memcpy(own, bytes + i, len);
		answer_feed(a, own, len);
		free(own);
	}
	answer_end(a, true);
	assert(t->ends == 1 && answer_over(a));
	answer_free(a);
}

static void
compare(struct told *a, struct told *b)
{
	for (size_t i = 0; i <= DELTA_TOOL_CALL; i++) {
		assert(a->text[i].len == b->text[i].len);
		assert(a->text[i].len == 0 || memcmp(a->text[i].data,
		    b->text[i].data, a->text[i].len) == 0);
		buf_done(&a->text[i]);
		buf_done(&b->text[i]);
	}
	assert(memcmp(&a->usage, &b->usage, sizeof a->usage) == 0);
	assert(a->tools == b->tools && a->end.kind == b->end.kind);
	assert(a->end.finish == b->end.finish);
	assert(a->end.error.type == b->end.error.type);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct provider *const all[] = { &provider_openai,
		&provider_responses, &provider_anthropic, &provider_gemini,
		&provider_ollama, &provider_exec_text, &provider_exec_lines,
		&provider_exec_jsonl };
	const char *p = (const char *)data;
	struct http_head head = { .status = 400 + (unsigned)size % 200 };
	struct failure f;
	struct told whole, pieces;

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		play(all[i], p, size, size + 1, &whole);
		play(all[i], p, size, 1 + size % 7, &pieces);
		compare(&whole, &pieces);
	}
	failure_read(&head, p, size, &f);
	assert(f.type != ERRTYPE_none);
	assert(utf8_valid(f.message, strlen(f.message)));
	return 0;
}
