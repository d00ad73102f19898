/* fake_client.c - client.h over memory */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <check.h>
#include "fake_client.h"

#define ENV_MAX 24

struct client {
	struct {
		char *name, *value;
	} env[ENV_MAX];
	size_t envs;
	struct buf body;
	enum rs_err body_err;
	bool gone;
};

struct fake_answer fake_answer;

uint64_t
client_born_ns(const struct client *c)
{
	(void)c;
	return 0;
}

struct client *
fake_client_new(const char *method)
{
	struct client *c = calloc(1, sizeof *c);

	ck_assert_ptr_nonnull(c);
	buf_init(&c->body, SIZE_MAX / 2);
	buf_done(&fake_answer.out);
	buf_init(&fake_answer.out, SIZE_MAX / 2);
	fake_answer.end = FAKE_OPEN;
	fake_client_env(c, "REQUEST_METHOD", method);
	return c;
}

void
fake_client_env(struct client *c, const char *name, const char *value)
{
	ck_assert_uint_lt(c->envs, ENV_MAX);
	c->env[c->envs].name = strdup(name);
	c->env[c->envs].value = strdup(value);
	c->envs++;
}

void
fake_client_body(struct client *c, const char *type, const void *p, size_t n,
    enum rs_err err)
{
	char length[24];

	snprintf(length, sizeof length, "%zu", n);
	fake_client_env(c, "CONTENT_LENGTH", length);
	if (type != NULL)
		fake_client_env(c, "CONTENT_TYPE", type);
	buf_add(&c->body, p, n);
	c->body_err = err;
}

void
fake_client_leave(struct client *c)
{
	c->gone = true;
}

static void
fake_end(struct client *c, enum fake_end end)
{
	size_t i;

	ck_assert_int_eq(fake_answer.end, FAKE_OPEN);
	fake_answer.end = end;
	for (i = 0; i < c->envs; i++) {
		free(c->env[i].name);
		free(c->env[i].value);
	}
	buf_done(&c->body);
	free(c);
}

const char *
client_env(const struct client *c, const char *name)
{
	size_t i;

	for (i = 0; i < c->envs; i++) {
		if (strcmp(c->env[i].name, name) == 0)
			return c->env[i].value;
	}
	return NULL;
}

enum rs_err
client_read_body(struct client *c, struct buf *b)
{
	if (c->body_err != RS_OK)
		return c->body_err;
	if (c->body.len > 0)
		buf_add(b, c->body.data, c->body.len);
	return b->err;
}

enum rs_err
client_write(struct client *c, const void *p, size_t n)
{
	if (c->gone)
		return RS_ECLOSED;
	buf_add(&fake_answer.out, p, n);
	return RS_OK;
}

void
client_finish(struct client *c)
{
	fake_end(c, FAKE_FINISHED);
}

void
client_abort(struct client *c)
{
	fake_end(c, FAKE_ABORTED);
}

/* Where the head ends; the answer must have one. */
static const char *
head_end(void)
{
	const char *end;

	ck_assert_ptr_nonnull(fake_answer.out.data);
	end = strstr(fake_answer.out.data, "\r\n\r\n");
	ck_assert_ptr_nonnull(end);
	return end;
}

int
fake_status(void)
{
	int status = 0;

	if (fake_answer.out.data != NULL)
		sscanf(fake_answer.out.data, "Status: %d ", &status);
	return status;
}

const char *
fake_header(const char *name)
{
	static char value[4096];
	const char *end = head_end(), *p = fake_answer.out.data;
	size_t n = strlen(name);

	for (; p < end; p = strstr(p, "\r\n") + 2) {
		if (strncasecmp(p, name, n) == 0 && p[n] == ':') {
			snprintf(value, sizeof value, "%.*s",
			    (int)strcspn(p + n + 2, "\r"), p + n + 2);
			return value;
		}
	}
	return "";
}

const char *
fake_content(void)
{
	return head_end() + 4;
}
