/* follow_whole.c - followers whose clients want one JSON answer, not frames. */
#include <stdlib.h>
#include <string.h>

#include "fold.h"
#include "follow_int.h"
#include "jx.h"
#include "metrics.h"

void
follow_whole_free(struct follow_whole *w)
{
	if (w == NULL)
		return;
	fold_free(w->fold);
	buf_done(&w->head);
	buf_done(&w->out);
	free(w);
}

struct follow_whole *
follow_whole_new(const struct buf *head)
{
	struct follow_whole *w = calloc(1, sizeof *w);

	if (w == NULL)
		return NULL;
	buf_init(&w->head, head->len);
	buf_add(&w->head, head->data, head->len);
	buf_init(&w->out, SIZE_MAX / 2);
	if (w->head.err == RS_OK && fold_new(SIZE_MAX / 2, &w->fold) == RS_OK)
		return w;
	follow_whole_free(w);
	return NULL;
}

/* Once white space has gone out, the status is 200 whatever comes. */
static void
whole_begin(struct follow_whole *w, const char *status)
{
	if (w->sent == w->out.len) {
		buf_clear(&w->out);
		w->sent = 0;
	}
	if (w->begun)
		return;
	metrics_add(metrics_code(atoi(status)), 1);
	buf_printf(&w->out, "Status: %s\r\n", status);
	buf_add(&w->out, w->head.data, w->head.len);
	w->begun = true;
}

void
follow_whole_space(struct follow_whole *w)
{
	whole_begin(w, "200 OK");
	buf_puts(&w->out, " ");
}

void
follow_whole_fail(struct follow_whole *w, enum errtype type)
{
	const struct errtype_info *t = errtype_info(type);

	whole_begin(w, t->status == 503 ? "503 Service Unavailable\r\n"
	    "Retry-After: 5" : "500 Internal Server Error");
	buf_puts(&w->out, "{\"error\":");
	jx_put_str(&w->out, t->text, strlen(t->text));
	buf_printf(&w->out, ",\"error_type\":\"%s\"}", t->name);
	w->done = true;
}

void
follow_whole_take(struct follow_whole *w, const struct sse_frame *frame)
{
	const struct buf *text;

	if (w->done)
		return;
	if (fold_add(w->fold, frame) != RS_OK) {
		follow_whole_fail(w, ERRTYPE_internal);
		return;
	}
	if (!frame->terminal)
		return;
	text = fold_content(w->fold);
	whole_begin(w, sse_frame_is(frame, "error") ? "502 Bad Gateway" :
	    "200 OK");
	buf_puts(&w->out, "{\"content\":");
	jx_put_str(&w->out, text->data, text->len);
	buf_puts(&w->out, ",");
	buf_add(&w->out, frame->data + 1, frame->data_len - 1);
	w->done = true;
}
