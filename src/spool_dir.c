/* spool_dir.c - the spool directory, the names in it, and a stream's head. */
#include <sys/stat.h>
#include <sys/statfs.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fdio.h"
#include "jx.h"
#include "spool.h"
#include "spool_impl.h"

#define HEAD_MAGIC ": respool1 "
#define MTIME_S_MAX INT64_C(9000000000) /* the year 2255 */

/* f_type of file systems that several hosts can see at once; from the kernel's
 * linux/magic.h, where it has them.
 *
 * FUSE is not among them.  Its one number stands for everything from
 * fuse-overlayfs and encrypted homes, which are local and common where
 * people have no root, to sshfs; refusing all of it would lock out the users
 * whom this program is for.  Where a FUSE file system does not know locks the
 * kernel keeps them itself, which is right for one host. */
static const uint32_t network_fs[] = {
	0x6969,		/* NFS */
	0x517b,		/* SMB */
	0xff534d42,	/* CIFS */
	0xfe534d42,	/* SMB2 */
	0x5346414f,	/* AFS (OpenAFS) */
	0x6b414653,	/* AFS (the kernel's) */
	0x73757245,	/* Coda */
	0x00c36400,	/* Ceph */
	0x0bd00bd0,	/* Lustre */
	0x01161970,	/* GFS2 */
	0x7461636f,	/* OCFS2 */
	0x47504653,	/* GPFS */
	0x19830326,	/* BeeGFS */
	0x01021997,	/* 9P */
};

static bool
spool_fs_is_network(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	for (size_t i = 0; i < sizeof network_fs / sizeof *network_fs; i++)
		if ((uint32_t)fs.f_type == network_fs[i])
			return true;
	return false;
}

static void
spool_this_host(struct spool *sp)
{
	struct buf b;

	if (gethostname(sp->host, sizeof sp->host - 1) < 0 ||
	    sp->host[0] == '\0')
		strcpy(sp->host, "localhost");
	strcpy(sp->boot, "-"); /* not known */
	buf_init(&b, 4096);
	if (fd_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", &b) ==
	    RS_OK && b.len >= sizeof sp->boot - 1)
		memcpy(sp->boot, b.data, sizeof sp->boot - 1);
	buf_done(&b);
}

static enum rs_err
spool_check_dir(struct spool *sp, const struct conf *c, struct buf *ret_why)
{
	const char *dir = c->spool_dir;
	struct stat st;

	if (fstat(sp->fd, &st) < 0) {
		buf_printf(ret_why, "%s: %s", dir, strerror(errno));
		return RS_EIO;
	}
	if (st.st_mode & (S_IWGRP | S_IWOTH)) {
		buf_printf(ret_why, "%s can be written to by group or others; "
		    "run: chmod go-w %s", dir, dir);
		return RS_EPERM;
	}
	/* A directory that is closed to others and that we could open all the
	 * same has let us in through its group, as its owner meant it. */
	if (st.st_uid != geteuid() && geteuid() != 0 &&
	    (st.st_mode & S_IRWXO)) {
		buf_printf(ret_why, "%s belongs to user %u, and this process "
		    "runs as user %u; run: chown -R %u %s", dir,
		    (unsigned)st.st_uid, (unsigned)geteuid(),
		    (unsigned)geteuid(), dir);
		return RS_EPERM;
	}
	sp->uid = st.st_uid;
	sp->gid = st.st_gid;
	sp->group = st.st_mode & S_IRGRP;
	sp->shared_fs = spool_fs_is_network(sp->fd);
	if (sp->shared_fs && strcmp(c->spool_shared_fs, "one-host") != 0) {
		buf_printf(ret_why, "%s lies on a network file system; choose "
		    "a local directory, or set spool_shared_fs = one-host if "
		    "one host only will ever use it", dir);
		return RS_EFOREIGN;
	}
	return RS_OK;
}

/* One of the spool's own directories, which its owner makes. */
static enum rs_err
spool_open_part(struct spool *sp, const char *dir, const char *name,
    int *ret_fd, struct buf *ret_why)
{
	bool make = sp->uid == geteuid();
	struct stat st;
	enum rs_err err;
	int fd;

	err = spool_dir_open(sp, sp->fd, name, make, &fd);
	if (err == RS_ENOENT && !make) {
		buf_printf(ret_why, "%s/%s is missing; start respool-spooler "
		    "as user %u once, which makes it", dir, name,
		    (unsigned)sp->uid);
		return RS_EPERM;
	}
	if (err != RS_OK) {
		buf_printf(ret_why, "%s/%s: %s", dir, name, rs_strerror(err));
		return err;
	}
	if (fstat(fd, &st) < 0 || st.st_uid != sp->uid ||
	    (st.st_mode & (S_IWGRP | S_IWOTH))) {
		buf_printf(ret_why, "%s/%s must belong to user %u, and nobody "
		    "else may write to it", dir, name, (unsigned)sp->uid);
		close(fd);
		return RS_EPERM;
	}
	*ret_fd = fd;
	return RS_OK;
}

enum rs_err
spool_open(const struct conf *c, struct spool **ret, struct buf *ret_why)
{
	struct spool *sp;
	enum rs_err err;
	int usage_fd;

	if ((sp = calloc(1, sizeof *sp)) == NULL)
		return RS_ENOMEM;
	sp->streams_fd = -1;
	sp->ttl_ms = c->ttl * 1000;
	spool_this_host(sp);
	/* The administrator may have made it a link; what counts is whom the
	 * directory behind it belongs to. */
	mkdir(c->spool_dir, 0700); /* what went wrong, open finds too */
	sp->fd = open(c->spool_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sp->fd < 0) {
		err = rs_from_errno(errno);
		buf_printf(ret_why, "cannot open the spool %s: %s; make it a "
		    "directory of the user that respool runs as, mode 0700",
		    c->spool_dir, strerror(errno));
		goto out;
	}
	if ((err = spool_check_dir(sp, c, ret_why)) != RS_OK)
		goto out;
	err = spool_open_part(sp, c->spool_dir, "usage", &usage_fd, ret_why);
	if (err != RS_OK)
		goto out;
	close(usage_fd);
	err = spool_open_part(sp, c->spool_dir, "streams", &sp->streams_fd,
	    ret_why);
	if (err != RS_OK)
		goto out;
	*ret = sp;
	sp = NULL;
out:
	spool_close(sp);
	return err;
}

void
spool_close(struct spool *sp)
{
	if (sp == NULL)
		return;
	if (sp->streams_fd >= 0)
		close(sp->streams_fd);
	if (sp->fd >= 0)
		close(sp->fd);
	free(sp);
}

/* ---- names ---- */

bool
spool_id_valid(const char *id, size_t len)
{
	if (len < 1 || len > SPOOL_ID_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = id[i];

		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
		    (c >= '0' && c <= '9') || c == '_' || c == '-'))
			return false;
	}
	return true;
}

bool
spool_owner_valid(const char *owner, size_t len)
{
	const unsigned char *p = (const unsigned char *)owner;

	if (len < 1 || len > SPOOL_OWNER_MAX || !utf8_valid(owner, len))
		return false;
	for (size_t i = 0; i < len; i++) {
		if (p[i] < 0x20 || p[i] == 0x7f)
			return false;
		/* U+0080 to U+009F are control characters too. */
		if (p[i] == 0xc2 && p[i + 1] < 0xa0)
			return false;
	}
	return true;
}

void
stream_key(struct stream_key *ret, const char *owner, const char *id)
{
	char hex[SHA256_HEX_SIZE];

	/* Keys are sent whole: nothing of our memory behind the texts. */
	memset(ret, 0, sizeof *ret);
	sha256_hex(owner, strlen(owner), hex);
	snprintf(ret->owner_hash, sizeof ret->owner_hash, "%.16s", hex);
	snprintf(ret->id, sizeof ret->id, "%s", id);
}

int
stream_key_cmp(const struct stream_key *a, const struct stream_key *b)
{
	int c = strcmp(a->id, b->id);

	return c != 0 ? c : strcmp(a->owner_hash, b->owner_hash);
}

void
stream_file_name(const struct stream_key *k, char ret[SPOOL_NAME_SIZE])
{
	snprintf(ret, SPOOL_NAME_SIZE, "%s-%s.sse", k->owner_hash, k->id);
}

enum rs_err
stream_key_parse(const char *file_name, struct stream_key *ret)
{
	size_t len = strlen(file_name), id_len;
	const char *id = file_name + 17;

	if (len < 16 + 1 + 1 + 4 || len >= SPOOL_NAME_SIZE ||
	    strspn(file_name, "0123456789abcdef") != 16 ||
	    file_name[16] != '-' || strcmp(file_name + len - 4, ".sse") != 0)
		return RS_EINVAL;
	id_len = len - 17 - 4;
	if (!spool_id_valid(id, id_len))
		return RS_EINVAL;
	memset(ret, 0, sizeof *ret);
	memcpy(ret->owner_hash, file_name, 16);
	memcpy(ret->id, id, id_len);
	return RS_OK;
}

/* ---- heads ---- */

static void
head_put(struct buf *b, const char *name, const char *value)
{
	buf_printf(b, ",\"%s\":", name);
	jx_put_str(b, value, strlen(value));
}

void
stream_head_encode(struct buf *b, const struct stream_head *h)
{
	buf_puts(b, HEAD_MAGIC "{\"owner\":");
	jx_put_str(b, h->owner, strlen(h->owner));
	head_put(b, "model", h->model);
	head_put(b, "dialect", dialect_name(h->dialect));
	buf_printf(b, ",\"created\":%" PRId64, h->created_ms);
	head_put(b, "request", h->request);
	head_put(b, "host", h->host);
	head_put(b, "boot", h->boot);
	head_put(b, "socket", h->socket);
	if (h->dialect == DIALECT_CONVERSATION) {
		head_put(b, "session", h->turn.session);
		head_put(b, "animal", h->turn.animal);
		head_put(b, "name", h->turn.name);
		buf_printf(b, ",\"turn\":%" PRIu64, h->turn.number);
	}
	buf_puts(b, "}\n\n");
}

static bool
head_get(struct json_object *o, const char *name, char *dst, size_t size)
{
	const char *s;
	size_t len;

	if (jx_get_str(o, name, &s, &len) != RS_OK || len >= size ||
	    memchr(s, '\0', len) != NULL)
		return false;
	memcpy(dst, s, len);
	dst[len] = '\0';
	return true;
}

static bool
head_get_turn(struct json_object *o, struct turn *ret)
{
	return head_get(o, "session", ret->session, sizeof ret->session) &&
	    spool_id_valid(ret->session, strlen(ret->session)) &&
	    head_get(o, "animal", ret->animal, sizeof ret->animal) &&
	    head_get(o, "name", ret->name, sizeof ret->name) &&
	    jx_get_uint(o, "turn", &ret->number) == RS_OK;
}

enum rs_err
stream_head_decode(const char *p, size_t n, struct stream_head *ret,
    size_t *ret_size)
{
	const size_t magic = sizeof HEAD_MAGIC - 1;
	struct stream_head h = { .dialect = DIALECT_STREAM };
	struct json_object *o = NULL;
	enum rs_err err = RS_ECORRUPT;
	const char *end, *why;
	char dialect[32];
	uint64_t created;

	if (n > SPOOL_HEAD_MAX)
		n = SPOOL_HEAD_MAX;
	if (n < magic || memcmp(p, HEAD_MAGIC, magic) != 0)
		return RS_ECORRUPT;
	if ((end = memmem(p, n, "\n\n", 2)) == NULL)
		return RS_ECORRUPT;
	if (jx_parse(p + magic, (size_t)(end - p) - magic, &o, &why) != RS_OK)
		return RS_ECORRUPT;
	if (!json_object_is_type(o, json_type_object) ||
	    !head_get(o, "owner", h.owner, sizeof h.owner) ||
	    !spool_owner_valid(h.owner, strlen(h.owner)) ||
	    !head_get(o, "model", h.model, sizeof h.model) ||
	    !head_get(o, "dialect", dialect, sizeof dialect) ||
	    dialect_find(dialect, &h.dialect) != RS_OK ||
	    jx_get_uint(o, "created", &created) != RS_OK ||
	    created > INT64_MAX ||
	    !head_get(o, "request", h.request, sizeof h.request) ||
	    !head_get(o, "host", h.host, sizeof h.host) ||
	    !head_get(o, "boot", h.boot, sizeof h.boot) ||
	    !head_get(o, "socket", h.socket, sizeof h.socket) ||
	    (h.dialect == DIALECT_CONVERSATION &&
	    !head_get_turn(o, &h.turn)))
		goto out;
	h.created_ms = (int64_t)created;
	*ret = h;
	*ret_size = (size_t)(end - p) + 2;
	err = RS_OK;
out:
	json_object_put(o);
	return err;
}

/* ---- opening what is in the spool ---- */

static mode_t
spool_dir_mode(const struct spool *sp)
{
	return sp->group ? 0750 : 0700;
}

mode_t
spool_file_mode(const struct spool *sp)
{
	return sp->group ? 0640 : 0600;
}

/* A link, or something of another kind than we make, is not ours. */
static enum rs_err
spool_open_error(int err)
{
	if (err == ELOOP || err == ENOTDIR || err == ENXIO || err == EISDIR)
		return RS_ECORRUPT;
	return rs_from_errno(err);
}

enum rs_err
spool_dir_open(const struct spool *sp, int at, const char *name, bool make,
    int *ret_fd)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	bool made = false;
	int fd;

	fd = openat(at, name, flags);
	if (fd < 0 && errno == ENOENT && make) {
		made = mkdirat(at, name, spool_dir_mode(sp)) == 0;
		if (!made && errno != EEXIST)
			return rs_from_errno(errno);
		fd = openat(at, name, flags);
	}
	if (fd < 0)
		return spool_open_error(errno);
	/* The umask may have taken the group's part away. */
	if (made && sp->group && (fchmod(fd, spool_dir_mode(sp)) < 0 ||
	    (getegid() != sp->gid && fchown(fd, (uid_t)-1, sp->gid) < 0))) {
		int saved = errno;

		close(fd);
		return rs_from_errno(saved);
	}
	*ret_fd = fd;
	return RS_OK;
}

unsigned
spool_shard(const char *file_name)
{
	char hex[SHA256_HEX_SIZE];

	sha256_hex(file_name, strlen(file_name), hex);
	hex[SPOOL_SHARD_SIZE - 1] = '\0';
	return (unsigned)strtoul(hex, NULL, 16);
}

void
spool_shard_name(unsigned shard, char ret[SPOOL_SHARD_SIZE])
{
	snprintf(ret, SPOOL_SHARD_SIZE, "%02x", (unsigned char)shard);
}

enum rs_err
spool_shard_open(const struct spool *sp, const char *file_name, bool make,
    int *ret_fd)
{
	char name[SPOOL_SHARD_SIZE];

	spool_shard_name(spool_shard(file_name), name);
	return spool_dir_open(sp, sp->streams_fd, name, make, ret_fd);
}

enum rs_err
spool_file_open(const struct spool *sp, int dir, const char *name, int flags,
    int *ret_fd, struct stat *ret_st)
{
	struct stat st;
	int fd;

	/* O_NONBLOCK: a FIFO in its place must not stop us. */
	fd = openat(dir, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
	    spool_file_mode(sp));
	if (fd < 0)
		return spool_open_error(errno);
	if (fstat(fd, &st) < 0) {
		close(fd);
		return RS_EIO;
	}
	if (!S_ISREG(st.st_mode) || st.st_uid != sp->uid) {
		close(fd);
		return RS_ECORRUPT;
	}
	*ret_fd = fd;
	*ret_st = st;
	return RS_OK;
}

enum rs_err
spool_file_lock(const struct spool *sp, int dir, const char *name, int *ret_fd,
    struct stat *ret_st)
{
	struct stat st, now;
	enum rs_err err;
	int fd;

	if ((err = spool_file_open(sp, dir, name, O_RDWR, &fd, &st)) != RS_OK)
		return err;
	if ((err = fd_lock(fd)) != RS_OK)
		goto out;
	if (fstat(fd, &st) < 0 ||
	    fstatat(dir, name, &now, AT_SYMLINK_NOFOLLOW) < 0) {
		err = rs_from_errno(errno);
		goto out;
	}
	if (st.st_dev != now.st_dev || st.st_ino != now.st_ino) {
		err = RS_ENOENT;
		goto out;
	}
	*ret_fd = fd;
	*ret_st = st;
	return RS_OK;
out:
	close(fd);
	return err;
}

enum rs_err
spool_file_own(const struct spool *sp, int fd)
{
	if (!sp->group)
		return RS_OK;
	if (fchmod(fd, spool_file_mode(sp)) < 0 ||
	    (getegid() != sp->gid && fchown(fd, (uid_t)-1, sp->gid) < 0))
		return rs_from_errno(errno);
	return RS_OK;
}

enum rs_err
spool_file_tmp(const struct spool *sp, int dir, char ret_name[SPOOL_TMP_SIZE],
    int *ret_fd)
{
	char name[SPOOL_TMP_SIZE] = SPOOL_TMP_PREFIX;
	enum rs_err err;
	int fd;

	random_hex(name + sizeof SPOOL_TMP_PREFIX - 1, 8);
	fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW |
	    O_CLOEXEC, spool_file_mode(sp));
	if (fd < 0)
		return rs_from_errno(errno);
	if ((err = spool_file_own(sp, fd)) != RS_OK) {
		close(fd);
		unlinkat(dir, name, 0);
		return err;
	}
	memcpy(ret_name, name, sizeof name);
	*ret_fd = fd;
	return RS_OK;
}

/* ---- whose, and how old ---- */

bool
spool_foreign(const struct spool *sp, const char *host, const char *boot)
{
	if (!sp->shared_fs || strcmp(host, sp->host) == 0)
		return false;
	/* One boot is one kernel, whatever its containers call themselves,
	 * and the kernel keeps the locks. */
	return strcmp(boot, "-") == 0 || strcmp(boot, sp->boot) != 0;
}

/* Some file systems keep any 64 bits: what no clock will say is so far away
 * that its nanoseconds still fit. */
static int64_t
mtime_s(const struct stat *st)
{
	int64_t s = st->st_mtim.tv_sec;

	return s > MTIME_S_MAX ? MTIME_S_MAX : s < 0 ? 0 : s;
}

int64_t
spool_mtime_ns(const struct stat *st)
{
	return mtime_s(st) * 1000000000 + st->st_mtim.tv_nsec;
}

int64_t
spool_mtime_ms(const struct stat *st)
{
	return mtime_s(st) * 1000 + st->st_mtim.tv_nsec / 1000000;
}

bool
spool_expired(const struct spool *sp, const struct stat *st, int64_t now_ms)
{
	return spool_mtime_ms(st) + (int64_t)sp->ttl_ms < now_ms;
}
