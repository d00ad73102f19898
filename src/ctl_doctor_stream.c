/* ctl_doctor_stream.c - streams through the web server: do frames come when
 * they were made, are resumes and silence survived? */
#include <json-c/json.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "ctl_doctor.h"
#include "jx.h"
#include "sse.h"
#include "text.h"

#define URL_SIZE_MAX 8192
#define OWNER "respool-doctor"
#define SLACK_MS 30000		/* for a slow machine */
#define ENDED "respool ends responses before they tell, as max_connection, " \
	"flush_by_close or max_readers say"
#define STATE_MS 100		/* between two looks at a stream */
#define RESUME_AFTER "1"
#define RESUME_FIRST 2

/* How long a response is silent at most. */
static uint64_t
quiet_ms(const struct conf *c)
{
	return 1000 * (c->keepalive < c->heartbeat ? c->keepalive :
	    c->heartbeat);
}

/* ---- one stream, watched ---- */

struct watch_stream {
	struct fetch f;
	struct buf url;
	struct sse_parser parser;
	bool first_is_enough;
	uint64_t enough_ns;	/* a silence as long that ends is; 0: not */
	bool survived;		/* one did */
	uint64_t last_ns, silence_ns;	/* last sign of life; longest silence */
	unsigned chunks, bursts;
	uint64_t burst_ns;	/* chunks closer than this came together */
	uint64_t first_ns, final_ns;	/* of the chunks */
	uint64_t own_first_ms, own_total_ms; /* as the spooler says */
	bool done, stray;
	char error[160];	/* what it ended with, or "" */
	char first_id[24];	/* of the first frame */
};

static void
take_done(struct watch_stream *w, const struct sse_event *ev)
{
	struct json_object *o = NULL;
	const char *why, *error;
	size_t len;

	w->done = true;
	if (jx_parse(ev->data, ev->data_len, &o, &why) != RS_OK)
		return;
	if (json_object_is_type(o, json_type_object)) {
		jx_get_uint(o, "latency_ms", &w->own_total_ms);
		jx_get_uint(o, "first_token_ms", &w->own_first_ms);
		if (jx_get_str(o, "error", &error, &len) == RS_OK)
			doctor_shown(w->error, sizeof w->error, error, len);
	}
	json_object_put(o);
}

static enum rs_err
take_event(void *arg, const struct sse_event *ev)
{
	struct watch_stream *w = arg;
	uint64_t now = clock_mono_ns();

	if (ev->kind == SSE_STRAY) {
		w->stray = true;
		return RS_OK;
	}
	if (w->first_id[0] == '\0' && ev->id_len < sizeof w->first_id)
		memcpy(w->first_id, ev->id, ev->id_len + 1);
	if (strcmp(ev->name, "done") == 0 || strcmp(ev->name, "error") == 0)
		take_done(w, ev);
	if (strcmp(ev->name, "message_chunk") != 0)
		return RS_OK;
	if (w->chunks == 0)
		w->first_ns = now;
	w->bursts += w->chunks == 0 || now - w->final_ns >= w->burst_ns;
	w->final_ns = now;
	w->chunks++;
	return RS_OK;
}

static bool
take_data(void *arg, const char *p, size_t n)
{
	struct watch_stream *w = arg;
	uint64_t now = clock_mono_ns(), silence;

	silence = w->last_ns == 0 ? 0 : now - w->last_ns;
	w->last_ns = now;
	if (silence > w->silence_ns)
		w->silence_ns = silence;
	sse_parser_feed(&w->parser, p, n, take_event, w);
	if (w->first_is_enough && w->first_id[0] != '\0')
		return false;
	w->survived = w->enough_ns > 0 && silence >= w->enough_ns && !w->done &&
	    !w->stray;
	return !w->survived;
}

/* part: of the stream's name, so that each is another one. */
static void
watch_init(struct watch_stream *w, const struct site *s, const char *part)
{
	memset(w, 0, sizeof *w);
	sse_parser_init(&w->parser, SSE_FRAME_MAX);
	buf_init(&w->url, URL_SIZE_MAX);
	buf_printf(&w->url, "%s/api/v1/stream?user_id=" OWNER
	    "&stream_id=%s-%s", s->url, s->nonce, part);
	fetch_init(&w->f, NULL);
	fetch_header(&w->f, "Accept", "text/event-stream");
	w->f.data = take_data;
	w->f.arg = w;
}

static void
watch_ask(struct watch_stream *w, const struct model *m)
{
	char *message = curl_easy_escape(NULL, DOCTOR_MESSAGE, 0);
	char *model = curl_easy_escape(NULL, m->name, 0);

	buf_printf(&w->url, "&message=%s&model=%s",
	    message != NULL ? message : "", model != NULL ? model : "");
	curl_free(model);
	curl_free(message);
}

static void
watch_run(struct watch_stream *w)
{
	w->f.url = w->url.data;
	fetch_run(&w->f);
}

static void
watch_done(struct watch_stream *w)
{
	sse_parser_done(&w->parser);
	buf_done(&w->url);
	fetch_done(&w->f);
}

/* On a frame boundary, with the block that says when to come back. */
static bool
ended_on_purpose(const struct watch_stream *w)
{
	return w->f.whole && !w->done && w->parser.retry_ms >= 200 &&
	    w->parser.retry_ms <= 1000;
}

/* A request about a stream of ours; its status, and the body in *ret. */
static long
ask_about(const struct site *s, const char *method, const char *part,
    struct buf *ret)
{
	struct fetch f;
	struct buf url;
	long status;

	buf_init(&url, URL_SIZE_MAX);
	buf_printf(&url, "%s/api/v1/streams/%s-%s?user_id=" OWNER, s->url,
	    s->nonce, part);
	fetch_init(&f, url.data);
	f.method = method;
	/* mod_fcgid may give it to a process that still writes to a reader who
	 * has left, which shows at the second write. */
	f.timeout_ms += 3 * quiet_ms(s->doctor->conf);
	fetch_run(&f);
	status = f.status;
	if (ret != NULL)
		buf_add(ret, f.body.data, f.body.len);
	fetch_done(&f);
	buf_done(&url);
	return status;
}

static void
say_cure(struct site *s, const char *what, const char *wrong,
    enum fault fault)
{
	struct buf cure;

	buf_init(&cure, 4096);
	doctor_cure(&cure, &s->way, fault);
	doctor_say(s->doctor, DOCTOR_FAIL, what, "%s; %s", wrong, cure.data);
	buf_done(&cure);
}

/* ---- do frames come when they were made? ---- */

enum pace { PACE_GOOD, PACE_AT_END, PACE_GROUPS, PACE_UNKNOWN };

static enum pace
pace_of(const struct watch_stream *w)
{
	uint64_t own, seen, late;

	own = w->own_total_ms - w->own_first_ms;
	if (!w->done || w->own_total_ms < w->own_first_ms ||
	    own < DOCTOR_SPAN_MIN_MS / 2 || w->chunks < DOCTOR_FRAMES_MIN)
		return PACE_UNKNOWN;
	seen = (w->final_ns - w->first_ns) / NS_PER_MS;
	late = (w->first_ns - w->f.sent_ns) / NS_PER_MS;
	late = late > w->own_first_ms ? late - w->own_first_ms : 0;
	if (seen * 2 < own || late * 2 > own)
		return PACE_AT_END;
	return w->bursts * 4 < w->chunks ? PACE_GROUPS : PACE_GOOD;
}

/* One answer of that model, to its end. */
static enum pace
pace_watch(struct site *s, const struct model *m, const char *part,
    bool compressed, struct watch_stream *w)
{
	watch_init(w, s, part);
	watch_ask(w, m);
	w->f.compressed = compressed;
	w->f.timeout_ms = m->demo.first_ms + doctor_span_ms(m) + SLACK_MS;
	w->burst_ns = m->demo.interval_ms * NS_PER_MS / 4;
	watch_run(w);
	return pace_of(w);
}

static void
say_no_stream(struct site *s, const struct watch_stream *w)
{
	struct buf why;

	if (w->f.status == 401) {
		doctor_say(s->doctor, DOCTOR_SKIP, "stream", "the server asks "
		    "who the user is (auth): how streams come through it can "
		    "be seen while auth is none");
		return;
	}
	buf_init(&why, 4096);
	if (w->f.status != 200)
		fetch_why(&w->f, &why);
	else if (w->error[0] != '\0')
		buf_puts(&why, w->error);
	else if (w->f.timed_out)
		buf_puts(&why, "it does not end");
	else
		buf_printf(&why, "it was cut after %u frames, and readers %s "
		    "%s", w->chunks, w->f.whole ? "are told that it ended" :
		    "see", w->f.whole ? "cleanly" : w->f.why);
	doctor_say(s->doctor, DOCTOR_FAIL, "stream", "no whole answer comes "
	    "through %s/api/v1/stream: %s; look into respool's log and the "
	    "web server's", s->url, why.data);
	buf_done(&why);
}

static void
say_compressed(struct site *s, const char *encoding)
{
	struct buf wrong;

	buf_init(&wrong, 256);
	buf_printf(&wrong, "what compresses the stream (%s) keeps frames back",
	    encoding);
	say_cure(s, "compression", wrong.data, FAULT_COMPRESSES);
	buf_done(&wrong);
}

static void
say_buffers(struct site *s, enum pace pace)
{
	say_cure(s, "buffering", pace == PACE_GROUPS ? "frames are kept back "
	    "and come in groups" : "frames are kept back and come at the end",
	    FAULT_BUFFERS);
}

/* Of a stream that came compressed and late: which of both is to blame? */
static void
check_plain(struct site *s, const struct model *m, const char *encoding)
{
	struct watch_stream w;
	enum pace pace = pace_watch(s, m, "plain", false, &w);

	if (pace == PACE_GOOD || w.f.encoding[0] != '\0')
		say_compressed(s, encoding);
	else
		say_buffers(s, pace);
	s->buffers = pace != PACE_GOOD;
	watch_done(&w);
	ask_about(s, "DELETE", "plain", NULL);
}

/* False: there is no stream to go on with. */
static bool
check_pace(struct site *s, const struct model *m)
{
	struct watch_stream w;
	enum pace pace = pace_watch(s, m, "pace", true, &w);
	bool is_packed = w.f.encoding[0] != '\0', done = w.done;

	if (ended_on_purpose(&w)) {
		doctor_say(s->doctor, DOCTOR_SKIP, "buffering", ENDED);
		done = true;
	} else if (!done || w.error[0] != '\0') {
		say_no_stream(s, &w);
		done = false;
	} else if (pace == PACE_GOOD) {
		doctor_say(s->doctor, DOCTOR_OK, "buffering", "%u frames came "
		    "one by one%s%s", w.chunks, is_packed ?
		    ", compressed on the way: " : "", w.f.encoding);
	} else if (pace == PACE_UNKNOWN) {
		doctor_say(s->doctor, DOCTOR_SKIP, "buffering", "the model %s "
		    "is too fast to tell", m->name);
	} else if (is_packed) {
		check_plain(s, m, w.f.encoding);
	} else {
		say_buffers(s, pace);
		s->buffers = true;
	}
	watch_done(&w);
	return done;
}

/* ---- resume ---- */

/* The id of the first frame that comes after RESUME_AFTER; -1: none. */
static int64_t
first_id_after(struct site *s, bool by_header)
{
	struct watch_stream w;
	int64_t id;
	char *end;

	watch_init(&w, s, "pace");
	if (by_header)
		fetch_header(&w.f, "Last-Event-ID", RESUME_AFTER);
	else
		buf_puts(&w.url, "&last_event_id=" RESUME_AFTER);
	w.first_is_enough = true;
	watch_run(&w);
	id = strtoll(w.first_id, &end, 10);
	if (end == w.first_id)
		id = -1;
	watch_done(&w);
	return id;
}

static void
check_resume(struct site *s)
{
	int64_t header = first_id_after(s, true);
	int64_t parameter = first_id_after(s, false);

	if (header == RESUME_FIRST)
		doctor_say(s->doctor, DOCTOR_OK, "Last-Event-ID",
		    "reaches the responder: a resume goes on where it was");
	else if (parameter == RESUME_FIRST)
		say_cure(s, "Last-Event-ID", "this header is stripped on the "
		    "way to the responder (the parameter last_event_id is "
		    "not), so that an EventSource sees an answer twice",
		    FAULT_LAST_EVENT_ID);
	else
		doctor_say(s->doctor, DOCTOR_FAIL, "Last-Event-ID", "a resume "
		    "after id " RESUME_AFTER " begins with id %lld, by "
		    "parameter with %lld; "
		    "does something on the way answer from a cache, or drop "
		    "the query string?", (long long)header,
		    (long long)parameter);
}

/* ---- silence ---- */

static void
say_cut(struct site *s, const struct watch_stream *w)
{
	uint64_t silence = clock_mono_ns() - w->last_ns;
	struct buf wrong;

	buf_init(&wrong, 512);
	if (w->f.status != 200)
		fetch_why(&w->f, &wrong);
	else if (w->f.timed_out)
		buf_puts(&wrong, "neither a heartbeat nor a comment came in "
		    "a silence: something keeps them back");
	else
		buf_printf(&wrong, "a silent stream is cut after %llu ms, "
		    "before its heartbeat, which is due after %llu%s%s",
		    (unsigned long long)(silence / NS_PER_MS),
		    (unsigned long long)quiet_ms(s->doctor->conf),
		    w->f.whole ? ", and readers are told that it ended "
		    "cleanly" : "", w->stray ? ", with a page of the web "
		    "server's in it" : "");
	say_cure(s, "time-outs", wrong.data, w->f.timed_out ? FAULT_BUFFERS :
	    FAULT_TIMEOUT);
	buf_done(&wrong);
}

static void
check_silence(struct site *s)
{
	const struct conf *c = s->doctor->conf;
	unsigned long long quiet = quiet_ms(c);
	struct watch_stream w;
	const struct model *m;

	m = doctor_quiet_model(s->doctor->models, 2 * quiet);
	if (m == NULL) {
		doctor_say(s->doctor, DOCTOR_SKIP, "time-outs", "no demo "
		    "model is silent long enough; to look, add one to the "
		    "models file: \"quiet\": {\"provider\": \"demo\", "
		    "\"hidden\": true, \"chunks\": 2, \"interval_ms\": %llu}",
		    3 * quiet);
		return;
	}
	watch_init(&w, s, "quiet");
	watch_ask(&w, m);
	w.f.timeout_ms = DOCTOR_LEAD_MAX_MS + 2 * quiet + SLACK_MS;
	w.enough_ns = quiet * NS_PER_MS / 4 * 3;
	watch_run(&w);
	if (w.survived)
		doctor_say(s->doctor, DOCTOR_OK, "time-outs",
		    "a stream outlives %llu ms of silence",
		    (unsigned long long)(w.silence_ns / NS_PER_MS));
	else if (ended_on_purpose(&w))
		doctor_say(s->doctor, DOCTOR_SKIP, "time-outs", ENDED);
	else
		say_cut(s, &w);
	watch_done(&w);
	ask_about(s, "DELETE", "quiet", NULL);
}

/* ---- when the reader leaves ---- */

/* A snapshot's state, or "". */
static void
state_of(const struct site *s, const char *part, char ret[16])
{
	struct json_object *o = NULL;
	const char *state = "", *why;
	struct buf body;
	size_t len = 0;

	buf_init(&body, 65536);
	ask_about(s, "GET", part, &body);
	if (jx_parse(body.data, body.len, &o, &why) == RS_OK &&
	    json_object_is_type(o, json_type_object))
		jx_get_str(o, "state", &state, &len);
	doctor_shown(ret, 16, state, len);
	json_object_put(o);
	buf_done(&body);
}

static void
check_left(struct site *s, const struct model *m)
{
	uint64_t deadline;
	struct watch_stream w;
	char state[16];

	watch_init(&w, s, "left");
	watch_ask(&w, m);
	w.first_is_enough = true;
	watch_run(&w);
	watch_done(&w);
	deadline = clock_mono_ns() + (m->demo.first_ms + doctor_span_ms(m) +
	    SLACK_MS) * NS_PER_MS;
	state_of(s, "left", state);
	while (strcmp(state, "live") == 0 && clock_mono_ns() < deadline) {
		poll(NULL, 0, STATE_MS);
		state_of(s, "left", state);
	}
	/* Stopped: as the setting abandon says. */
	if (strcmp(state, "finished") == 0 || strcmp(state, "stopped") == 0)
		doctor_say(s->doctor, DOCTOR_OK, "background",
		    "an answer goes on when its reader has left");
	else
		doctor_say(s->doctor, DOCTOR_FAIL, "background", "an answer "
		    "does not go on when its reader has left (%s): this host "
		    "kills background processes; run the spooler as a service "
		    "of its own, or from cron", state[0] != '\0' ? state :
		    "nothing is known of it");
	ask_about(s, "DELETE", "left", NULL);
}

void
doctor_stream(struct site *s)
{
	const struct model *m = NULL;

	if (s->doctor->models != NULL)
		m = doctor_paced_model(s->doctor->models);
	if (m == NULL) {
		doctor_say(s->doctor, DOCTOR_SKIP, "stream", "to look for "
		    "buffers, the models file needs a demo model with a pace: "
		    "\"pace\": {\"provider\": \"demo\", \"hidden\": true, "
		    "\"chunks\": 20, \"interval_ms\": 50}");
		return;
	}
	if (check_pace(s, m)) {
		check_resume(s);
		if (s->buffers) {
			doctor_say(s->doctor, DOCTOR_SKIP, "time-outs",
			    "they show when nothing is kept back");
		} else {
			check_left(s, m);
			check_silence(s);
		}
	}
	ask_about(s, "DELETE", "pace", NULL);
}
