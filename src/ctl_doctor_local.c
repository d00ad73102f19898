/* ctl_doctor_local.c - the spool, its disk and clock, the models. */
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "ctl_doctor.h"
#include "fdio.h"
#include "quota.h"
#include "spool_impl.h"

#define TRIAL_WRITES 256
#define TRIAL_BYTES 4096	/* each */
#define SLOW_WRITE_NS NS_PER_MS	/* a stall of the spooler's loop */
#define INODES_MIN 100
#define CLOCK_SLACK_MS 5000
#define YEAR_2026_MS 1767225600000ll
#define FAULTS_MAX (1 << 20)
#define ENVIRON_MAX (1 << 20)

/* ---- permissions ---- */

/* What of the spool belongs to somebody else than the spool; true: nothing
 * does. */
static bool
check_parts(struct doctor *d, int fd, uid_t uid)
{
	static const char *const names[] = {
		"streams", "usage", "spooler.lock", "start.lock", "ballast",
	};
	const char *dir = d->conf->spool_dir;
	struct stat st;
	bool good = true;
	size_t i;

	for (i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (fstatat(fd, names[i], &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    st.st_uid == uid)
			continue;
		good = false;
		doctor_say(d, DOCTOR_FAIL, "permissions", "%s/%s belongs to "
		    "user %u and the spool to user %u; run: chown -R %u %s",
		    dir, names[i], (unsigned)st.st_uid, (unsigned)uid,
		    (unsigned)uid, dir);
	}
	return good;
}

static void
check_owner(struct doctor *d)
{
	const char *dir = d->conf->spool_dir;
	struct stat st;

	if (fstat(d->sp->fd, &st) == 0 && (st.st_mode & S_IRWXO))
		doctor_say(d, DOCTOR_WARN, "permissions", "others can read "
		    "or enter %s; run: chmod o-rwx %s", dir, dir);
	else if (d->sp->uid == 0)
		doctor_say(d, DOCTOR_WARN, "permissions", "%s belongs to "
		    "root, who should not run web programs; give it to the "
		    "web server's user: chown -R www-data %s", dir, dir);
	else
		doctor_say(d, DOCTOR_OK, "permissions", "%s belongs to user "
		    "%u%s", dir, (unsigned)d->sp->uid, d->sp->group ?
		    ", and its group may read" : " alone");
}

/* Many web servers show what lies below these. */
static void
check_place(struct doctor *d)
{
	static const char *const names[] = {
		"/public_html/", "/htdocs/", "/httpdocs/", "/var/www/html/",
	};
	const char *path = d->conf->spool_dir;
	size_t i;

	/* With a URL it is tried. */
	for (i = 0; !d->has_url && i < sizeof names / sizeof names[0]; i++)
		if (strstr(path, names[i]) != NULL)
			doctor_say(d, DOCTOR_WARN, "place", "%s lies where "
			    "web servers find files to show; move spool_dir "
			    "out of there, or try with a URL", path);
	if (d->sp->shared_fs)
		doctor_say(d, DOCTOR_OK, "place", "on a network file system, "
		    "which spool_shared_fs says this host alone uses");
}

/* ---- the disk ---- */

/* False: the disk is full. */
static bool
check_space(struct doctor *d)
{
	const struct conf *c = d->conf;
	const uint64_t few = TRIAL_WRITES * TRIAL_BYTES;
	uint64_t bytes, wanted = c->max_stream_bytes +
	    c->max_streams * SPOOL_BALLAST_PER_STREAM;
	struct statvfs fs;

	if (fstatvfs(d->sp->fd, &fs) < 0) {
		doctor_say(d, DOCTOR_SKIP, "space", "%s", strerror(errno));
		return true;
	}
	bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (fs.f_files > 0 && fs.f_favail < INODES_MIN)
		doctor_say(d, DOCTOR_FAIL, "inodes", "%llu are free where the "
		    "spool is, and each stream takes one; remove files there, "
		    "or lower ttl and run respoolctl gc",
		    (unsigned long long)fs.f_favail);
	else
		doctor_say(d, DOCTOR_OK, "inodes", "enough are free");
	if (bytes >= wanted)
		doctor_say(d, DOCTOR_OK, "space", "%llu MB are free",
		    (unsigned long long)bytes >> 20);
	else
		doctor_say(d, bytes < few ? DOCTOR_FAIL : DOCTOR_WARN, "space",
		    "the disk of the spool is %s: %llu KB are free, %llu are "
		    "wanted; remove files there, lower ttl and run respoolctl "
		    "gc, or move spool_dir", bytes < few ? "full" :
		    "nearly full", (unsigned long long)bytes / 1024,
		    (unsigned long long)wanted / 1024);
	return bytes >= few;
}

static void
check_speed(struct doctor *d, int fd)
{
	static const char block[TRIAL_BYTES];
	uint64_t began = clock_mono_ns(), each;
	enum rs_err err = RS_OK;
	int i;

	for (i = 0; i < TRIAL_WRITES && err == RS_OK; i++)
		err = fd_write_full(fd, block, sizeof block);
	each = (clock_mono_ns() - began) / TRIAL_WRITES;
	if (err == RS_ENOSPC)
		doctor_say(d, DOCTOR_FAIL, "space", "a file of 1 MB does not "
		    "fit into the spool: the disk is full or a quota is used "
		    "up; remove files, or move spool_dir");
	else if (err != RS_OK)
		doctor_say(d, DOCTOR_FAIL, "speed", "the spool cannot be "
		    "written: %s; look at the disk", rs_strerror(err));
	else if (each > SLOW_WRITE_NS)
		doctor_say(d, DOCTOR_WARN, "speed", "an append takes %llu us, "
		    "in which all streams wait; move spool_dir to a local "
		    "disk", (unsigned long long)each / 1000);
	else
		doctor_say(d, DOCTOR_OK, "speed", "an append takes %llu us",
		    (unsigned long long)each / 1000);
}

/* fd: a file just written. */
static void
check_clock(struct doctor *d, int fd)
{
	int64_t now = clock_wall_ms(), off;
	struct stat st;

	off = fstat(fd, &st) == 0 ? spool_mtime_ms(&st) - now : 0;
	if (now < YEAR_2026_MS)
		doctor_say(d, DOCTOR_FAIL, "clock", "this host's clock is in "
		    "the past, so that ttl means nothing; set it (NTP)");
	else if (off > CLOCK_SLACK_MS || off < -CLOCK_SLACK_MS)
		doctor_say(d, DOCTOR_WARN, "clock", "the spool's file system "
		    "is %lld s off this host's clock; set both by NTP",
		    (long long)off / 1000);
	else
		doctor_say(d, DOCTOR_OK, "clock", "the same for the spool's "
		    "files");
}

static void
check_trial(struct doctor *d)
{
	char name[SPOOL_TMP_SIZE];
	enum rs_err err;
	int fd;

	err = spool_file_tmp(d->sp, d->sp->fd, name, &fd);
	if (err != RS_OK) {
		doctor_say(d, DOCTOR_FAIL, "space", "no file can be made in "
		    "the spool: %s; %s", rs_strerror(err), err == RS_ENOSPC ?
		    "remove files there, or move spool_dir" :
		    "run this as root or as the spool's owner");
		return;
	}
	unlinkat(d->sp->fd, name, 0);
	check_speed(d, fd);
	check_clock(d, fd);
	close(fd);
}

void
doctor_spool(struct doctor *d)
{
	const char *dir = d->conf->spool_dir;
	struct stat st;
	struct buf why;
	bool good = true;
	int fd;

	/* One that we made would be ours, not the web server's. */
	if (stat(dir, &st) < 0) {
		doctor_say(d, DOCTOR_FAIL, "spool", "%s: %s; make it for the "
		    "web server's user: install -d -m 700 -o www-data %s", dir,
		    strerror(errno), dir);
		return;
	}
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		good = check_parts(d, fd, st.st_uid);
		close(fd);
	}
	buf_init(&why, 4096);
	if (spool_open(d->conf, &d->sp, &why) != RS_OK) {
		d->sp = NULL;
		if (good)
			doctor_say(d, DOCTOR_FAIL, "permissions", "%s",
			    why.len > 0 ? why.data : "it cannot be opened");
	}
	buf_done(&why);
	if (d->sp == NULL)
		return;
	if (good)
		check_owner(d);
	check_place(d);
	if (check_space(d))
		check_trial(d);
}

/* ---- models ---- */

/* Whether the spooler that runs was given the variable: RS_OK, RS_ENOENT, or
 * RS_EPERM as a service hides it. */
static enum rs_err
spooler_has(const struct doctor *d, const char *name)
{
	size_t len = strlen(name), at;
	enum rs_err err;
	char path[64];
	bool has = false;
	struct buf b;

	if (d->spooler == 0)
		return RS_ENOENT;
	snprintf(path, sizeof path, "/proc/%d/environ", (int)d->spooler);
	buf_init(&b, ENVIRON_MAX);
	if ((err = fd_read_file(AT_FDCWD, path, &b)) == RS_OK)
		for (at = 0; at < b.len; at += strlen(b.data + at) + 1)
			has = has || (strncmp(b.data + at, name, len) == 0 &&
			    b.data[at + len] == '=' &&
			    b.data[at + len + 1] != '\0');
	if (b.data != NULL)
		explicit_bzero(b.data, b.len);
	buf_done(&b);
	return has ? RS_OK : err == RS_EPERM ? err : RS_ENOENT;
}

/* The key is in the environment, and not in ours. */
static void
check_spooler_key(struct doctor *d, const struct model *m, enum finding f)
{
	switch (spooler_has(d, m->api_key_env)) {
	case RS_OK:
		break;
	case RS_EPERM:
		doctor_say(d, DOCTOR_SKIP, "keys", "%s: whether %s is set in "
		    "the spooler, only root can see: grep -zc ^%s= "
		    "/proc/%d/environ", m->name, m->api_key_env,
		    m->api_key_env, (int)d->spooler);
		break;
	default:
		doctor_say(d, f, "keys", "%s: the key is missing: %s is set "
		    "neither here nor in a spooler that runs; put it into the "
		    "environment of the web server or of the spooler's unit, "
		    "or into a file of mode 600 that api_key_file names",
		    m->name, m->api_key_env);
	}
}

static void
check_key(struct doctor *d, const struct model *m)
{
	enum finding f = m == d->models->def ? DOCTOR_FAIL : DOCTOR_WARN;
	const char *file = m->api_key_file;
	char *key = NULL;
	enum rs_err err = model_key(m, &key);

	if (key != NULL)
		explicit_bzero(key, strlen(key));
	free(key);
	if (err == RS_ENOENT && m->api_key_env != NULL && file == NULL) {
		check_spooler_key(d, m, f);
	} else if (err == RS_ENOENT) {
		doctor_say(d, f, "keys", "%s: the key is missing: there is no "
		    "file %s; make it, owned by the spooler's user, mode 600",
		    m->name, file);
	} else if (err == RS_EPERM) {
		doctor_say(d, f, "keys", "%s: the key file %s must be "
		    "readable by the spooler's user and by nobody else: chmod "
		    "600, and chown", m->name, file);
	} else if (err != RS_OK) {
		doctor_say(d, f, "keys", "%s: the key cannot be used: %s; it "
		    "must be one line of visible ASCII", m->name,
		    rs_strerror(err));
	}
}

static void
check_limits(struct doctor *d)
{
	struct buf why;
	char *line, *rest;

	buf_init(&why, FAULTS_MAX);
	quota_warn(d->conf, d->models, &why);
	for (line = why.len > 0 ? strtok_r(why.data, "\n", &rest) : NULL;
	    line != NULL; line = strtok_r(NULL, "\n", &rest))
		doctor_say(d, DOCTOR_WARN, "limits", "%s", line);
	buf_done(&why);
}

void
doctor_models(struct doctor *d)
{
	unsigned before = d->faults + d->warnings;
	size_t i, len;
	bool keys = false;
	struct buf why;
	const char *p;

	buf_init(&why, FAULTS_MAX);
	if (models_load(d->conf->models_file, &d->models, &why) != RS_OK) {
		d->models = NULL;
		for (p = why.data; p != NULL && *p != '\0'; p += len) {
			len = strcspn(p, "\n");
			doctor_say(d, DOCTOR_FAIL, "models", "%.*s", (int)len,
			    p);
			len += p[len] == '\n';
		}
		if (why.len == 0)
			doctor_say(d, DOCTOR_FAIL, "models",
			    "%s cannot be read", d->conf->models_file);
		buf_done(&why);
		return;
	}
	buf_done(&why);
	doctor_say(d, DOCTOR_OK, "models", "%zu, the default is %s",
	    d->models->count, d->models->def->name);
	for (i = 0; i < d->models->count; i++) {
		keys = keys || d->models->all[i].api_key_env != NULL ||
		    d->models->all[i].api_key_file != NULL;
		check_key(d, &d->models->all[i]);
	}
	if (d->faults + d->warnings == before)
		doctor_say(d, DOCTOR_OK, "keys", keys ?
		    "all are there" : "no model needs one");
	check_limits(d);
}
