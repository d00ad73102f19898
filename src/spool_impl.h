/* spool_impl.h - what the spool_*.c (and usage.c) share; for nobody else. */
#ifndef RESPOOL_SPOOL_IMPL_H
#define RESPOOL_SPOOL_IMPL_H

#include <sys/stat.h>
#include "spool.h"

#define SPOOL_TMP_PREFIX ".tmp-"
#define SPOOL_TMP_SIZE (sizeof SPOOL_TMP_PREFIX + 16)
#define SPOOL_SHARD_SIZE 3

/* ---- spool_dir.c ---- */

/* The mode of files that are made in the spool. */
mode_t spool_file_mode(const struct spool *sp);

/* Opens a directory; when make is set, one that is missing is made.
 * RS_ENOENT; RS_ECORRUPT: it is a link or no directory; RS_ENOSPC, RS_EIO. */
enum rs_err spool_dir_open(const struct spool *sp, int at, const char *name,
    bool make, int *ret_fd);
/* Which of SPOOL_SHARDS a file is in, and that one's name. */
unsigned spool_shard(const char *file_name);
void spool_shard_name(unsigned shard, char ret[SPOOL_SHARD_SIZE]);
/* The directory that a stream's file is in. */
enum rs_err spool_shard_open(const struct spool *sp, const char *file_name,
    bool make, int *ret_fd);

/* Opens a file (flags as of open(2)).  RS_ENOENT; RS_ECORRUPT: it is not a
 * regular one of the spool's owner; RS_EIO. */
enum rs_err spool_file_open(const struct spool *sp, int dir, const char *name,
    int flags, int *ret_fd, struct stat *ret_st);
/* The same for writing, and takes its lock.  RS_EBUSY; RS_ENOENT also when
 * the name was given to another file meanwhile. */
enum rs_err spool_file_lock(const struct spool *sp, int dir, const char *name,
    int *ret_fd, struct stat *ret_st);
/* Makes an empty temporary file in dir, open for writing. */
enum rs_err spool_file_tmp(const struct spool *sp, int dir,
    char ret_name[SPOOL_TMP_SIZE], int *ret_fd);
/* The mode and group that files in the spool have, whatever the umask is. */
enum rs_err spool_file_own(const struct spool *sp, int fd);

/* Whether that host (with that boot id) is another one; false on a file
 * system that no other host can see. */
bool spool_foreign(const struct spool *sp, const char *host,
    const char *boot);

int64_t spool_mtime_ns(const struct stat *st);
int64_t spool_mtime_ms(const struct stat *st);
/* Its last append is older than ttl. */
bool spool_expired(const struct spool *sp, const struct stat *st,
    int64_t now_ms);

/* ---- spool_file.c ---- */

struct spool_writer {
	int fd;
	uint64_t end;
	size_t block;	/* bytes; the file takes space in such steps */
	bool broken;	/* what is beyond end could not be cut off */
};

/* ---- spool_line.c ---- */

/* Appends a line with one write.  It begins and ends with a line end: the
 * first one is left out unless the file's last line was cut short.  The file
 * is made when it is missing.  alone: nobody else appends meanwhile, so that a
 * short write can be cut back; else it stays, as another process's line may
 * follow it already.
 * RS_OK; RS_ENOSPC; RS_ECORRUPT, RS_EIO; what line->err says. */
enum rs_err spool_line_append(const struct spool *sp, int dir,
    const char *name, const struct buf *line, bool alone);

/* ---- spool_find.c ---- */

/* Reads the head.  RS_OK: *ret has fd, which stays open otherwise;
 * RS_ECORRUPT, RS_EIO. */
enum rs_err spool_reader_init(int fd, struct spool_reader *ret);

/* ---- spool_seal.c ---- */

/* spool_seal for one generation, at recovery: RS_ENOENT also when the stream
 * is another one.  It is settled also when it has ended: the disk was full
 * when its line was due. */
enum rs_err spool_recover(struct spool *sp, const struct stream_key *k,
    int64_t created_ms);

/* ---- spool_stock.c ---- */

/* A shard of streams has been counted; of conversations. */
void stock_shard(struct stock *st, unsigned shard, uint64_t files,
    uint64_t bytes);
void stock_conv(struct stock *st, unsigned shard, uint64_t bytes);
/* One of streams cannot be: its numbers stay. */
void stock_skip(struct stock *st);
/* A file has been counted, which may be an old one. */
void stock_note(struct stock *st, const struct stock_file *f);

/* ---- spool_sweep.c ---- */

/* Removes a file that is expired, under its lock.  RS_OK: it is gone; RS_EBUSY:
 * locked, or not old enough; RS_EEXIST: a stream that has not ended; RS_ENOENT,
 * RS_ECORRUPT, RS_EIO. */
enum rs_err spool_reap(const struct spool *sp, int dir, const char *name,
    int64_t now_ms);

#endif
