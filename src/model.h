/* model.h - the models file: which models there are, what they cost, and who
 * provides them. */
#ifndef RESPOOL_MODEL_H
#define RESPOOL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "buf.h"
#include "delta.h"
#include "err.h"

#define MODEL_NAME_MAX 128 /* bytes */

struct json_object;

/* Picodollars per token; MONEY_UNKNOWN where the file does not say. */
struct prices {
	uint64_t input, cache_read, cache_write, output;
};

/* Cost of what was used: MONEY_UNKNOWN when a count that is not 0 or a price
 * that it needs is unknown. */
uint64_t prices_cost(const struct prices *p, const struct usage *u);

#define DEMO_NEVER UINT64_MAX

/* What the demo provider plays; see provider_demo.c. */
struct demo_script {
	char *text;		/* streamed word by word; NULL: see chunks */
	uint64_t chunks;	/* "tok0 " to "tokN-1 "; 0: the message's words */
	uint64_t interval_ms;	/* between two chunks */
	uint64_t first_ms;	/* before the first one */
	uint64_t fail_after;	/* chunks, then error_type; DEMO_NEVER */
	enum errtype error_type;
	uint64_t hang_after;	/* chunks, then silence; DEMO_NEVER */
};

/* Every provider: PROVIDER(enum's word, name in the models file). */
#define PROVIDERS(PROVIDER)                      \
	PROVIDER(DEMO, "demo")                   \
	PROVIDER(OPENAI, "openai")               \
	PROVIDER(RESPONSES, "openai-responses")  \
	PROVIDER(ANTHROPIC, "anthropic")         \
	PROVIDER(GEMINI, "gemini")               \
	PROVIDER(OLLAMA, "ollama")               \
	PROVIDER(EXEC, "exec")

enum provider_kind {
#define PROVIDER(word, text) PROVIDER_##word,
	PROVIDERS(PROVIDER)
#undef PROVIDER
};
const char *provider_name(enum provider_kind kind);

/* How the key is shown: the provider's usual way, or the one that says. */
enum model_auth { AUTH_USUAL, AUTH_BEARER, AUTH_X_API_KEY, AUTH_NONE };

/* Milliseconds. */
struct timeouts {
	uint64_t connect;	/* until the connection stands, TLS included */
	uint64_t headers;	/* from then until the response's head */
	uint64_t first_content;	/* from then until the first content */
	uint64_t idle;		/* between two pieces of content */
	uint64_t total;		/* of an attempt */
};

enum exec_format {
	EXEC_TEXT,	/* bytes, as they come */
	EXEC_LINES,	/* a line is a chunk, its end included */
	EXEC_JSONL,	/* a line is a JSON object; see provider_exec.c */
};

/* What the exec provider runs. */
struct exec_spec {
	char **command;		/* NULL at its end; [0] is looked up in PATH
				 * when it has no slash */
	enum exec_format format;
	char *cwd;		/* NULL: the spool directory */
};

/* A text that the file leaves out is NULL. */
struct model {
	char *name;
	enum provider_kind provider;
	bool hidden;		/* usable, not listed */
	struct prices prices;
	char *base_url;		/* no slash at its end; NULL: demo, exec */
	char *upstream_model;	/* never NULL: the name when left out */
	char *system;		/* a system prompt before the messages */
	char *api_version;	/* of anthropic and gemini */
	char *api_key_env;	/* environment variable with the key; it
				 * reaches the spooler, nobody logs it */
	char *api_key_file;	/* or a file with it */
	enum model_auth auth;
	bool no_stream_usage;	/* do not ask openai servers for usage */
	struct json_object *parameters; /* an object, or NULL: temperature,
				 * top_p, top_k, max_tokens, stop; what else it
				 * has goes into the request as it is */
	struct timeouts timeouts;
	unsigned retries;	/* of this model, after a first attempt */
	const struct model **fallback; /* tried in turn, of the same file */
	size_t fallback_count;
	struct demo_script demo;
	struct exec_spec exec;
};

/* The key for a model, without white space around it: from its environment
 * variable, else its file.  *ret is the caller's (free; explicit_bzero it
 * first), NULL when neither is configured.
 * RS_OK; RS_ENOENT: the variable is not set or empty; RS_EPERM: group or
 * others can read the file; RS_EINVAL: not one line of visible ASCII; else as
 * conf_read_file. */
enum rs_err model_key(const struct model *m, char **ret);

/* What is sent to its base_url crosses a network as plain HTTP. */
bool model_in_clear(const struct model *m);
/* A parameter that all providers give the name that their API has for it. */
bool model_param_known(const char *name);

/* Never changes once loaded; any thread may read it. */
struct models {
	struct model *all;	/* in the order of the file */
	size_t count;
	const struct model *def; /* the default, one of all */
	unsigned refs;		/* atomic: models_ref, models_unref */
};

/* Reads a models file, or the built-in models when path is "".
 * RS_OK; RS_EINVAL: what the file says is wrong; else as conf_read_file.  On
 * failure *ret_why has one line per fault, "PATH: models.gpt.prices: ...", or
 * "PATH:LINE: ..." when the JSON itself is not valid. */
enum rs_err models_load(const char *path, struct models **ret,
    struct buf *ret_why);

/* NULL when there is none.  name is len bytes. */
const struct model *models_find(const struct models *m, const char *name,
    size_t len);

struct models *models_ref(struct models *m); /* any thread; returns m */
void models_unref(struct models *m); /* takes NULL; any thread */

/* A models file that is read again when it changed.  Any thread. */
struct models_file;
enum rs_err models_file_open(const char *path, struct models_file **ret,
    struct buf *ret_why);
/* The models as they are now: looks at the file's inode, size and times.  A
 * changed file with a fault in it is logged once, and the models from before
 * stay.  The caller's: models_unref. */
struct models *models_file_get(struct models_file *f);
/* False: the file cannot be read as it is now, and models_file_get gives those
 * from before. */
bool models_file_good(struct models_file *f);
void models_file_free(struct models_file *f);

#endif
