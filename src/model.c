/* model.c - the models, once read: what they cost, their keys, and whether
 * their file has changed. */
#include <sys/stat.h>

#include <json-c/json.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "log.h"
#include "model.h"
#include "money.h"

#define WHY_SIZE_MAX (1 << 20)
#define KEY_FILE_MAX 16384

struct models_file {
	pthread_mutex_t lock;	/* for all below */
	char *path;
	struct stat seen;	/* of what was read last, or failed to be */
	struct models *now;
	bool good;		/* that is what the file says */
};

const char *
provider_name(enum provider_kind kind)
{
	static const char *const names[] = {
#define PROVIDER(word, text) [PROVIDER_##word] = (text),
		PROVIDERS(PROVIDER)
#undef PROVIDER
	};

	return names[kind];
}

uint64_t
prices_cost(const struct prices *p, const struct usage *u)
{
	const uint64_t terms[][2] = {
		{ u->input, p->input },
		{ u->cache_read, p->cache_read },
		{ u->cache_write, p->cache_write },
		{ u->output, p->output },
	};
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < sizeof terms / sizeof terms[0]; i++)
		if (terms[i][0] != 0)
			sum = money_add(sum,
			    money_mul(terms[i][0], terms[i][1]));
	return sum;
}

const struct model *
models_find(const struct models *m, const char *name, size_t len)
{
	size_t i;

	for (i = 0; i < m->count; i++)
		if (strlen(m->all[i].name) == len &&
		    memcmp(m->all[i].name, name, len) == 0)
			return &m->all[i];
	return NULL;
}

struct models *
models_ref(struct models *m)
{
	__atomic_add_fetch(&m->refs, 1, __ATOMIC_RELAXED);
	return m;
}

static void
model_done(struct model *m)
{
	char **word;

	for (word = m->exec.command; word != NULL && *word != NULL; word++)
		free(*word);
	free(m->exec.command);
	free(m->exec.cwd);
	free(m->demo.text);
	free(m->fallback);
	json_object_put(m->parameters);
	free(m->api_key_file);
	free(m->api_key_env);
	free(m->api_version);
	free(m->system);
	free(m->upstream_model);
	free(m->base_url);
	free(m->name);
}

void
models_unref(struct models *m)
{
	size_t i;

	if (m == NULL || __atomic_sub_fetch(&m->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	for (i = 0; i < m->count; i++)
		model_done(&m->all[i]);
	free(m->all);
	free(m);
}

/* ---- keys ---- */

/* RS_EINVAL: not one line of visible ASCII. */
static enum rs_err
key_take(const char *p, size_t n, char **ret)
{
	static const char space[] = " \t\r\n";
	size_t i;
	char *key;

	while (n > 0 && strchr(space, p[0]) != NULL)
		p++, n--;
	while (n > 0 && strchr(space, p[n - 1]) != NULL)
		n--;
	for (i = 0; i < n; i++)
		if (p[i] <= ' ' || p[i] >= 0x7f)
			return RS_EINVAL;
	if (n == 0)
		return RS_EINVAL;
	if ((key = strndup(p, n)) == NULL)
		return RS_ENOMEM;
	*ret = key;
	return RS_OK;
}

static enum rs_err
key_read_file(const char *path, char **ret)
{
	struct buf b, why;
	enum rs_err err;
	struct stat st;

	buf_init(&b, KEY_FILE_MAX);
	buf_init(&why, WHY_SIZE_MAX);
	err = conf_read_file(path, &b, &why);
	if (err == RS_OK && (stat(path, &st) < 0 ||
	    (st.st_mode & (S_IRGRP | S_IROTH)) != 0))
		err = RS_EPERM;
	if (err == RS_OK)
		err = key_take(b.data, b.len, ret);
	if (b.data != NULL)
		explicit_bzero(b.data, b.cap);
	buf_done(&b);
	buf_done(&why);
	return err;
}

enum rs_err
model_key(const struct model *m, char **ret)
{
	const char *value;

	if (m->api_key_env != NULL &&
	    (value = getenv(m->api_key_env)) != NULL && value[0] != '\0')
		return key_take(value, strlen(value), ret);
	if (m->api_key_file != NULL)
		return key_read_file(m->api_key_file, ret);
	if (m->api_key_env != NULL)
		return RS_ENOENT;
	*ret = NULL;
	return RS_OK;
}

/* ---- the file ---- */

/* All zero where there is no file. */
static void
look(const char *path, struct stat *ret)
{
	if (path[0] == '\0' || stat(path, ret) < 0)
		memset(ret, 0, sizeof *ret);
}

static bool
same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
	    a->st_size == b->st_size &&
	    a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	    a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	    a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	    a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

enum rs_err
models_file_open(const char *path, struct models_file **ret,
    struct buf *ret_why)
{
	struct models_file *f = calloc(1, sizeof *f);
	enum rs_err err = RS_ENOMEM;

	if (f == NULL)
		return RS_ENOMEM;
	pthread_mutex_init(&f->lock, NULL);
	f->path = strdup(path);
	if (f->path == NULL)
		goto out;
	/* Before it is read: a change between the two is seen next time. */
	look(path, &f->seen);
	err = models_load(path, &f->now, ret_why);
	if (err != RS_OK)
		goto out;
	f->good = true;
	*ret = f;
	f = NULL;
out:
	models_file_free(f);
	return err;
}

static void
read_again(struct models_file *f)
{
	char path[LOG_QUOTE_SIZE], text[LOG_QUOTE_SIZE];
	const char *reason;
	struct models *m;
	enum rs_err err;
	struct buf why;

	buf_init(&why, WHY_SIZE_MAX);
	err = models_load(f->path, &m, &why);
	log_quote(path, f->path, strlen(f->path));
	f->good = err == RS_OK;
	if (err == RS_OK) {
		models_unref(f->now);
		f->now = m;
		log_info("model", "read the models file again path=%s "
		    "models=%zu", path, m->count);
	} else {
		reason = why.len > 0 ? why.data : rs_strerror(err);
		log_error("model", "kept the models from before path=%s "
		    "reason=%s", path,
		    log_quote(text, reason, strcspn(reason, "\n")));
	}
	buf_done(&why);
}

struct models *
models_file_get(struct models_file *f)
{
	struct models *m;
	struct stat st;

	pthread_mutex_lock(&f->lock);
	look(f->path, &st);
	if (!same_file(&st, &f->seen)) {
		f->seen = st;
		read_again(f);
	}
	m = models_ref(f->now);
	pthread_mutex_unlock(&f->lock);
	return m;
}

bool
models_file_good(struct models_file *f)
{
	bool good;

	models_unref(models_file_get(f));
	pthread_mutex_lock(&f->lock);
	good = f->good;
	pthread_mutex_unlock(&f->lock);
	return good;
}

void
models_file_free(struct models_file *f)
{
	if (f == NULL)
		return;
	pthread_mutex_destroy(&f->lock);
	models_unref(f->now);
	free(f->path);
	free(f);
}
