/* request.c - what the providers' requests have in common. */
#include <json-c/json.h>
#include <string.h>

#include "jx.h"
#include "request.h"

#define SYSTEM_MAX (64 << 20) /* bytes; a request is much smaller */

void
request_init(struct request *r, const struct chat *chat)
{
	r->chat = chat;
	r->err = RS_OK;
	r->root = json_object_new_object();
	if (r->root == NULL)
		r->err = RS_ENOMEM;
}

void
request_put(struct request *r, struct json_object *into, const char *name,
    struct json_object *value)
{
	if (r->err == RS_OK && (into == NULL || value == NULL))
		r->err = RS_ENOMEM;
	if (r->err == RS_OK && json_object_object_get_ex(into, name, NULL))
		r->err = RS_EINVAL;
	if (r->err == RS_OK && json_object_object_add(into, name, value) != 0)
		r->err = RS_ENOMEM;
	if (r->err != RS_OK)
		json_object_put(value);
}

void
request_put_str(struct request *r, struct json_object *into,
    const char *name, const char *value)
{
	request_put(r, into, name, json_object_new_string(value));
}

void
request_append(struct request *r, struct json_object *array,
    struct json_object *value)
{
	if (r->err == RS_OK && (array == NULL || value == NULL ||
	    json_object_array_add(array, value) != 0))
		r->err = RS_ENOMEM;
	if (r->err != RS_OK)
		json_object_put(value);
}

bool
request_is_role(struct json_object *message, const char *role)
{
	const char *name = json_object_get_string(
	    json_object_object_get(message, "role"));

	return name != NULL && strcmp(name, role) == 0;
}

void
request_put_messages(struct request *r, bool system)
{
	struct json_object *all = json_object_new_array(), *o, *from;
	const struct chat *chat = r->chat;
	size_t i;

	if (system && chat->model->system != NULL) {
		o = json_object_new_object();
		request_put_str(r, o, "role", "system");
		request_put_str(r, o, "content", chat->model->system);
		request_append(r, all, o);
	}
	for (i = 0; i < json_object_array_length(chat->messages); i++) {
		from = json_object_array_get_idx(chat->messages, i);
		if (!system && request_is_role(from, "system"))
			continue;
		o = json_object_new_object();
		request_put(r, o, "role",
		    json_object_get(json_object_object_get(from, "role")));
		request_put(r, o, "content",
		    json_object_get(json_object_object_get(from, "content")));
		request_append(r, all, o);
	}
	request_put(r, r->root, "messages", all);
}

struct json_object *
request_system(struct request *r)
{
	const struct chat *chat = r->chat;
	struct json_object *o, *ret = NULL;
	struct buf b;
	size_t i;

	buf_init(&b, SYSTEM_MAX);
	if (chat->model->system != NULL)
		buf_puts(&b, chat->model->system);
	for (i = 0; i < json_object_array_length(chat->messages); i++) {
		o = json_object_array_get_idx(chat->messages, i);
		if (!request_is_role(o, "system"))
			continue;
		if (b.len > 0)
			buf_puts(&b, "\n\n");
		o = json_object_object_get(o, "content");
		buf_add(&b, json_object_get_string(o),
		    (size_t)json_object_get_string_len(o));
	}
	if (b.len > 0)
		ret = json_object_new_string_len(b.data, (int)b.len);
	if (b.err != RS_OK || (b.len > 0 && ret == NULL))
		r->err = RS_ENOMEM;
	buf_done(&b);
	return ret;
}

/* One parameter: into inner when it has a row, else into outer. */
static void
request_put_parameter(struct request *r, const struct request_param *rows,
    struct json_object *outer, struct json_object *inner, const char *name,
    struct json_object *value)
{
	const struct request_param *row = rows;
	struct json_object *list;

	while (row->ours != NULL && strcmp(row->ours, name) != 0)
		row++;
	if (value == NULL) {
		r->err = RS_EINVAL;
	} else if (row->ours == NULL) {
		request_put(r, outer, name, json_object_get(value));
	} else if (row->theirs != NULL && row->list &&
	    !json_object_is_type(value, json_type_array)) {
		list = json_object_new_array();
		request_append(r, list, json_object_get(value));
		request_put(r, inner, row->theirs, list);
	} else if (row->theirs != NULL) {
		request_put(r, inner, row->theirs, json_object_get(value));
	}
}

void
request_put_parameters(struct request *r, const struct request_param *rows,
    const char *inner)
{
	static const struct request_param none = { 0 };
	struct json_object *const sets[] = { r->chat->parameters,
		r->chat->model->parameters };
	struct json_object *more = NULL;
	struct json_object *in = inner == NULL ? r->root :
	    json_object_new_object();
	size_t i;

	for (i = 0; i < 2; i++) {
		if (sets[i] == NULL)
			continue;
		json_object_object_foreach(sets[i], name, value) {
			if (i > 0 && json_object_object_get_ex(sets[0], name,
			    NULL))
				continue; /* the chat's own wins */
			if (inner != NULL && strcmp(name, inner) == 0)
				more = value;
			else
				request_put_parameter(r, rows, r->root, in,
				    name, value);
		}
	}
	if (more != NULL && !json_object_is_type(more, json_type_object))
		r->err = RS_EINVAL;
	if (more != NULL && r->err == RS_OK) {
		json_object_object_foreach(more, key, member)
			request_put_parameter(r, &none, in, in, key, member);
	}
	if (inner != NULL && (in == NULL || json_object_object_length(in) > 0))
		request_put(r, r->root, inner, in);
	else if (inner != NULL)
		json_object_put(in);
}

void
request_key(const struct chat *chat, const char *usual, struct http_req *ret)
{
	struct buf value;

	if (chat->key == NULL || chat->model->auth == AUTH_NONE)
		return;
	if (chat->model->auth == AUTH_BEARER)
		usual = "Authorization";
	else if (chat->model->auth == AUTH_X_API_KEY)
		usual = "x-api-key";
	buf_init(&value, SYSTEM_MAX);
	if (strcmp(usual, "Authorization") == 0)
		buf_puts(&value, "Bearer ");
	buf_puts(&value, chat->key);
	if (value.err == RS_OK)
		http_req_header(ret, usual, value.data);
	else
		ret->headers.err = value.err;
	if (value.data != NULL)
		explicit_bzero(value.data, value.cap);
	buf_done(&value);
}

enum rs_err
request_finish(struct request *r, const char *accept, struct http_req *ret)
{
	if (r->err == RS_OK)
		jx_put(&ret->body, r->root);
	json_object_put(r->root);
	r->root = NULL;
	http_req_header(ret, "Content-Type", "application/json");
	http_req_header(ret, "Accept", accept);
	if (r->err == RS_OK)
		r->err = ret->url.err;
	if (r->err == RS_OK)
		r->err = ret->headers.err;
	if (r->err == RS_OK)
		r->err = ret->body.err;
	return r->err;
}
