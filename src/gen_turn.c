/* gen_turn.c - a generation that is a turn of a conversation. */
#include <json-c/json.h>
#include <string.h>

#include "fold.h"
#include "gen_turn.h"
#include "jx.h"

#define HISTORY_WINDOW 262144 /* bytes of a session that are looked at */

enum rs_err
gen_turn_settle(struct spool *sp, const struct stream_key *session)
{
	const struct conv_turn *last;
	struct conv *c = NULL;
	struct stream_key k = *session;
	enum rs_err err = conv_load_tail(sp, session, CONV_LAST, &c);

	if (err != RS_OK)
		return err == RS_ENOENT ? RS_OK : err;
	last = c->count > 0 ? &c->turns[c->count - 1] : NULL;
	if (last != NULL && last->assistant == NULL) {
		strcpy(k.id, last->stream_id);
		err = spool_seal(sp, &k);
		if (err == RS_ENOENT)
			err = RS_OK; /* it was never made, or has expired */
	}
	conv_free(c);
	return err;
}

enum rs_err
gen_turn_begin(struct spool *sp, const struct stream_key *key,
    struct stream_head *h, struct json_object *prompt)
{
	struct json_object *messages = NULL;
	struct stream_key session;
	const char *text;
	size_t len, count;

	json_object_object_get_ex(prompt, "messages", &messages);
	count = json_object_array_length(messages);
	if (count == 0 || jx_get_str(json_object_array_get_idx(messages,
	    count - 1), "content", &text, &len) != RS_OK)
		return RS_EINVAL;
	stream_key(&session, h->owner, h->turn.session);
	return conv_ask(sp, &session, key->id, h->turn.animal, text, len,
	    &h->turn.number);
}

static enum rs_err
put_system(struct json_object *prompt, struct json_object *all)
{
	struct json_object *system, *m;

	if (!json_object_object_get_ex(prompt, "system", &system) ||
	    !json_object_is_type(system, json_type_string))
		return RS_OK;
	m = json_object_new_object();
	if (m == NULL || json_object_array_add(all, m) < 0) {
		json_object_put(m);
		return RS_ENOMEM;
	}
	if (json_object_object_add(m, "role",
	    json_object_new_string("system")) < 0)
		return RS_ENOMEM;
	return json_object_object_add(m, "content",
	    json_object_get(system)) < 0 ? RS_ENOMEM : RS_OK;
}

enum rs_err
gen_turn_messages(const struct conf *conf, struct spool *sp,
    const struct stream_head *h, struct json_object *prompt,
    struct json_object **ret)
{
	struct json_object *all = json_object_new_array(), *own = NULL, *m;
	struct stream_key session;
	struct conv *c = NULL;
	enum rs_err err;
	size_t i;

	if (all == NULL)
		return RS_ENOMEM;
	if ((err = put_system(prompt, all)) != RS_OK)
		goto out;
	stream_key(&session, h->owner, h->turn.session);
	/* Escapes and what stands beside the texts take as much again, or a
	 * multiple of it where turns are very short. */
	err = conv_load_tail(sp, &session, HISTORY_WINDOW +
	    8 * conf->history_tokens, &c);
	if (err == RS_OK)
		err = conv_history(c, h->turn.number, conf->history_tokens,
		    all);
	if (err != RS_OK && err != RS_ENOENT)
		goto out;
	err = RS_OK;
	json_object_object_get_ex(prompt, "messages", &own);
	for (i = 0; i < json_object_array_length(own); i++) {
		m = json_object_get(json_object_array_get_idx(own, i));
		if (json_object_array_add(all, m) < 0) {
			json_object_put(m);
			err = RS_ENOMEM;
			goto out;
		}
	}
	*ret = all;
	all = NULL;
out:
	conv_free(c);
	json_object_put(all);
	return err;
}

enum rs_err
gen_turn_answer(struct spool *sp, const struct stream_key *key,
    const struct stream_head *h, const struct ending *e)
{
	const struct buf *text;
	struct stream_tail tail;
	struct spool_reader r;
	struct fold *fold = NULL;
	enum rs_err err;

	if ((err = spool_find(sp, key, &r)) != RS_OK)
		return err;
	if ((err = fold_new(SIZE_MAX / 2, &fold)) != RS_OK ||
	    (err = spool_scan(&r, fold, &tail)) != RS_OK)
		goto out;
	text = fold_content(fold);
	err = conv_answer(sp, key, h, text->data, text->len, e, false);
out:
	fold_free(fold);
	spool_reader_done(&r);
	return err;
}
