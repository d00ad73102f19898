/* reload.c - values that follow their files. */
#include <sys/stat.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "reload.h"

#define WHY_MAX (1 << 16)

struct reload {
	const struct reload_kind *kind;
	char *path;
	pthread_mutex_t look;	/* one looks at a time; for looked, seen */
	bool looked;
	uint64_t seen;
	pthread_rwlock_t lock;	/* for value */
	void *value;
};

/* Two files look the same as long as nobody wrote or replaced them. */
static uint64_t
look_at_file(const struct stat *st)
{
	const uint64_t parts[] = {
		st->st_dev, st->st_ino, (uint64_t)st->st_size, st->st_mode,
		(uint64_t)st->st_mtim.tv_sec, (uint64_t)st->st_mtim.tv_nsec,
		(uint64_t)st->st_ctim.tv_sec, (uint64_t)st->st_ctim.tv_nsec,
	};
	uint64_t h = UINT64_C(14695981039346656037);
	size_t i;

	for (i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		h = (h ^ parts[i]) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 32;
	}
	return h;
}

/* 0 where there is nothing. */
static uint64_t
look_at(const char *path)
{
	const struct dirent *entry;
	struct stat st;
	uint64_t h;
	DIR *dir;

	if (stat(path, &st) < 0)
		return 0;
	h = look_at_file(&st);
	if (!S_ISDIR(st.st_mode) || (dir = opendir(path)) == NULL)
		return h;
	/* A sum, as the order may be another each time. */
	while ((entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.' &&
		    fstatat(dirfd(dir), entry->d_name, &st, 0) == 0)
			h += look_at_file(&st);
	closedir(dir);
	return h;
}

/* One log line for each line of why. */
static void
log_lines(const struct reload *r, enum rs_err err, const struct buf *why)
{
	const char *p = why->len > 0 ? why->data : "";
	char text[LOG_QUOTE_SIZE];
	size_t n;

	for (; *p != '\0'; p += n + (p[n] == '\n')) {
		n = strcspn(p, "\n");
		log_quote(text, p, n);
		if (err == RS_OK)
			log_warn("reload", "read what=%s warning=%s",
			    r->kind->what, text);
		else
			log_error("reload", "%s what=%s reason=%s",
			    r->value != NULL ? "kept the former ones" :
			    "not read", r->kind->what, text);
	}
}

static void
read_now(struct reload *r)
{
	void *value, *former;
	struct buf why;
	enum rs_err err;

	buf_init(&why, WHY_MAX);
	err = r->kind->load(r->path, &value, &why);
	if (err != RS_OK && why.len == 0)
		buf_puts(&why, rs_strerror(err));
	log_lines(r, err, &why);
	buf_done(&why);
	if (err != RS_OK)
		return;
	if (r->value != NULL)
		log_info("reload", "read again what=%s", r->kind->what);
	pthread_rwlock_wrlock(&r->lock);
	former = r->value;
	r->value = value;
	pthread_rwlock_unlock(&r->lock);
	r->kind->free(former);
}

enum rs_err
reload_new(const struct reload_kind *kind, const char *path,
    struct reload **ret)
{
	struct reload *r = calloc(1, sizeof *r);

	if (r == NULL || (r->path = strdup(path)) == NULL) {
		free(r);
		return RS_ENOMEM;
	}
	r->kind = kind;
	pthread_mutex_init(&r->look, NULL);
	pthread_rwlock_init(&r->lock, NULL);
	*ret = r;
	return RS_OK;
}

void
reload_free(struct reload *r)
{
	if (r == NULL)
		return;
	r->kind->free(r->value);
	pthread_rwlock_destroy(&r->lock);
	pthread_mutex_destroy(&r->look);
	free(r->path);
	free(r);
}

const void *
reload_use(struct reload *r)
{
	uint64_t now;

	if (r->path[0] != '\0') {
		pthread_mutex_lock(&r->look);
		/* Before it is read: a change between is seen next time. */
		now = look_at(r->path);
		if (!r->looked || now != r->seen) {
			r->looked = true;
			r->seen = now;
			read_now(r);
		}
		pthread_mutex_unlock(&r->look);
	}
	pthread_rwlock_rdlock(&r->lock);
	return r->value;
}

void
reload_done(struct reload *r)
{
	pthread_rwlock_unlock(&r->lock);
}
