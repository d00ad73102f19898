/* spool.h - one append-only file per stream: one writer, many readers.
 *
 *	SPOOL/streams/ab/OWNERHASH-ID.sse
 *		OWNERHASH: 16 hex digits of SHA-256(owner)
 *		ab: the first 2 hex digits of SHA-256("OWNERHASH-ID.sse")
 *	SPOOL/usage/YYYY-MM-DD.jsonl	reserve and settle lines (usage.h)
 *	SPOOL/current			symbolic link to the current spooler's
 *					socket; renamed over, never unlinked
 *	SPOOL/s-NONCE.sock		a running spooler
 *	SPOOL/spooler.lock start.lock ballast link.secret
 *
 * A stream's file is ": respool1 {json}\n\n", the head, then its frames
 * (sse.h) byte for byte as clients get them, ids 0, 1, 2 ... without gaps.
 * The last frame of an ended stream is a terminal one.  An empty file is a
 * tombstone: the stream was deleted.
 *
 * Guarantee: a frame that a reader has seen whole is never changed or moved.
 * A frame cut short by a crash is torn: readers treat it as not there yet;
 * whoever seals the stream cuts it off.
 *
 * The writer holds the OFD lock of the stream's file from before it has a
 * name until it is closed; the kernel drops it when the writer dies.  Nobody
 * takes a lock to learn something.
 *
 * One mutator: the holder of spooler.lock alone creates, seals, sweeps and
 * deletes.  A draining spooler only appends to its own streams.  Nothing is
 * flushed to disk: the guarantees hold against the death of any process, not
 * against power loss.
 *
 * Every path is opened relative to the spool, without following links. */
#ifndef RESPOOL_SPOOL_H
#define RESPOOL_SPOOL_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "buf.h"
#include "conf.h"
#include "dialect.h"
#include "err.h"
#include "fold.h"
#include "model.h"
#include "text.h"

#define SPOOL_ID_MAX 64		/* bytes of a stream id */
#define SPOOL_OWNER_MAX 128	/* bytes of an owner */
#define SPOOL_HEAD_MAX 4096	/* bytes of a head, with its empty line */
#define SPOOL_NAME_SIZE (16 + 1 + SPOOL_ID_MAX + 4 + 1)
#define SPOOL_SOCKET_SIZE 24	/* "s-" 16 hex digits ".sock" and NUL */
#define SPOOL_SHARDS 256
#define SPOOL_BALLAST_PER_STREAM 4096 /* bytes */

struct spool {
	int fd;			/* the spool directory */
	int streams_fd;		/* its streams/ */
	uid_t uid;		/* owner of the directory */
	gid_t gid;
	bool shared_fs;		/* lies on a network file system */
	bool group;		/* its group may read: 0750 and 0640 within */
	uint64_t ttl_ms;
	char host[65];		/* this host's name and boot id */
	char boot[37];
};

/* Opens conf's spool directory and makes what is missing of it (0700, for
 * the process's user).  Refused: one that group or others can write, or that
 * belongs to somebody else and is open to all (RS_EPERM), a network file
 * system without spool_shared_fs (RS_EFOREIGN); RS_ENOSPC, RS_EIO, RS_ENOMEM.
 * ret_why says in a sentence what is wrong and how to mend it. */
enum rs_err spool_open(const struct conf *c, struct spool **ret,
    struct buf *ret_why);
void spool_close(struct spool *sp);

/* 1 to SPOOL_ID_MAX bytes of A-Za-z0-9_- */
bool spool_id_valid(const char *id, size_t len);
/* 1 to SPOOL_OWNER_MAX bytes of UTF-8 without control characters. */
bool spool_owner_valid(const char *owner, size_t len);

/* Which stream: what its name is made of. */
struct stream_key {
	char owner_hash[17];
	char id[SPOOL_ID_MAX + 1];
};
/* id must be valid. */
void stream_key(struct stream_key *ret, const char *owner, const char *id);
/* 0: the same stream; else a sign that orders them. */
int stream_key_cmp(const struct stream_key *a, const struct stream_key *b);
void stream_file_name(const struct stream_key *k, char ret[SPOOL_NAME_SIZE]);
/* From a file's name; RS_EINVAL for one that is not a stream's. */
enum rs_err stream_key_parse(const char *file_name, struct stream_key *ret);

struct stream_head {
	char owner[SPOOL_OWNER_MAX + 1];
	char model[MODEL_NAME_MAX + 1];
	enum dialect dialect;
	int64_t created_ms;	/* Unix time */
	char request[SHA256_HEX_SIZE]; /* hash of what was asked */
	char host[65];
	char boot[37];
	char socket[SPOOL_SOCKET_SIZE]; /* its writer's */
	struct turn turn;	/* of DIALECT_CONVERSATION, else zeroed */
};
/* Pure.  Encoding adds to b; decoding: RS_OK with *ret_size the bytes of the
 * head; RS_ECORRUPT (a head cut short too: a name always has a whole one). */
void stream_head_encode(struct buf *b, const struct stream_head *h);
enum rs_err stream_head_decode(const char *p, size_t n,
    struct stream_head *ret, size_t *ret_size);

/* ---- writing: spool_file.c; mutator only, but for append and free ---- */

struct spool_writer;

/* Makes the stream: unnamed file, lock, whole head, then its name; h's host
 * and boot are filled in here.
 * RS_EEXIST: the name is taken (a tombstone too; but an expired stream or
 * tombstone is removed first); RS_ENOSPC, RS_EIO, RS_ENOMEM, RS_ECORRUPT (its
 * directory is a link), with nothing left behind. */
enum rs_err spool_create(struct spool *sp, const struct stream_key *k,
    struct stream_head *h, struct spool_writer **ret);

/* Appends whole frames with one write and shows them to readers in other
 * processes.  RS_OK; RS_ENOSPC or RS_EIO with the file cut back to what it
 * was, so that the caller may try again.  After a failed cut every further
 * append is RS_EIO. */
enum rs_err spool_append(struct spool_writer *w, const void *frames,
    size_t len);
/* Bytes of the file: where the next append goes. */
uint64_t spool_writer_end(const struct spool_writer *w);
/* Closes the file, which drops its lock. */
void spool_writer_free(struct spool_writer *w);

/* ---- reading: spool_find.c; any process ---- */

struct spool_reader {
	int fd;
	struct stream_head head;
	size_t head_size;	/* offset of the first frame */
};

/* RS_ENOENT: no such stream, a tombstone, or ended longer than ttl ago.
 * RS_ECORRUPT: no head, or not a file of the spool's owner (a link, say);
 * RS_EIO.  *ret is filled on RS_OK only: spool_reader_done. */
enum rs_err spool_find(struct spool *sp, const struct stream_key *k,
    struct spool_reader *ret);
void spool_reader_done(struct spool_reader *r);

/* Where a stream stands. */
struct stream_tail {
	uint64_t count;		/* whole frames: the last id + 1 */
	uint64_t end;		/* offset after the last whole frame */
	bool ended;		/* that frame is a terminal one */
	bool torn;		/* more bytes follow it */
};
/* Looks at the file's last frames.  RS_ECORRUPT when what is there cannot be
 * the end of a run of frames, even a torn one: spool_scan tells where. */
enum rs_err spool_tail(const struct spool_reader *r, struct stream_tail *ret);

/* The offset of frame id, by binary search; end is a frame boundary, as of
 * spool_tail.  RS_ERANGE: there are not so many; RS_ECORRUPT. */
enum rs_err spool_seek(const struct spool_reader *r, uint64_t end,
    uint64_t id, uint64_t *ret_off);

/* Checks every frame from the first, up to the first byte that cannot be
 * right (ids, form and order; a terminal frame is the last).  fold, when not
 * NULL, takes each, and one that it calls corrupt is not right either.
 * RS_OK: *ret is the good part, torn tells whether anything (at all) follows
 * it; RS_EIO; RS_ENOMEM and RS_ETOOBIG of the fold. */
enum rs_err spool_scan(const struct spool_reader *r, struct fold *fold,
    struct stream_tail *ret);

/* Calls fn for each stream file: of the owner hash, or of all when NULL.
 * Tombstones and expired ones are passed over as by spool_find; what it calls
 * corrupt is not.  mtime_ms: its last append.  fn returns false to stop and may
 * remove the stream.
 * RS_OK, RS_EIO. */
enum rs_err spool_each(struct spool *sp, const char *owner_hash,
    bool (*fn)(const struct stream_key *k, int64_t mtime_ms, void *arg),
    void *arg);

/* ---- mending and removing: spool_seal.c, spool_sweep.c; mutator only, but for
 * dry sweeps ---- */

/* Ends a stream whose writer is dead: tries its lock once, checks the whole
 * file under it, cuts at the first bad byte, settles its usage and appends
 * the dialect's ending with generation_lost, in one write.
 * RS_OK: it is ended (now, or already was); RS_EBUSY: its lock is held;
 * RS_ENOENT; RS_ECORRUPT: it has no head, so nothing can be mended;
 * RS_EFOREIGN: another host's; RS_ENOSPC, RS_EIO, RS_ENOMEM: nothing but the
 * cut (and the settling) was done. */
enum rs_err spool_seal(struct spool *sp, const struct stream_key *k);

/* Puts a tombstone in its place.  RS_OK also when there is no such stream
 * (nothing is made then); RS_EBUSY: its lock is held; RS_ECORRUPT: not a file
 * of ours; RS_ENOSPC, RS_EIO. */
enum rs_err spool_delete(struct spool *sp, const struct stream_key *k);

/* Bytes of the stream's file; 0: there is none, or a tombstone. */
uint64_t spool_bytes(struct spool *sp, const struct stream_key *k);

enum sweep_why {
	SWEEP_TTL,	/* it is old enough */
	SWEEP_CAP,	/* there is more than there may be */
	SWEEP_LEFTOVER,	/* a temporary file of a dead process */
};

/* Where a sweep is.  Zeroed (or with a shard to begin with), then those of the
 * lower half set that are wanted. */
struct sweep {
	unsigned shard;		/* of SPOOL_SHARDS; the next one to look at */
	DIR *dir;		/* where a slice stopped in mid-shard */
	uint64_t removed;	/* files, so far */
	uint64_t files, bytes;	/* of this shard, what stays, so far */

	struct stock *stock;	/* is told of each shard */
	bool dry;		/* only look; nothing is locked either */
	/* Called for each file that went (or, if dry, would have gone). */
	void (*gone)(const char *name, enum sweep_why why, uint64_t bytes,
	    void *arg);
	/* Those streams are not counted: whoever writes them does it. */
	bool (*live)(const struct stream_key *k, void *arg);
	void *arg;
};
/* Goes on where the last call stopped, for at most budget_ns or to the end of
 * the shard: removes ended streams and tombstones whose last append is older
 * than ttl (Unix time now_ms), under their locks, and left-over temporary
 * files.  One that old which has not ended though its writer is dead is
 * sealed (and goes a ttl later); one without a head is removed.  One whose last
 * append lies in the future, as the clock was set back, goes a ttl from now.
 * RS_OK: *ret_done says that this shard is done and s->shard the next; RS_EIO,
 * RS_ENOMEM: this shard cannot be read, and s->shard is the next. */
enum rs_err spool_sweep(struct spool *sp, struct sweep *s, int64_t now_ms,
    uint64_t budget_ns, bool *ret_done);
void spool_sweep_done(struct sweep *s);

/* While there is more than may be (stock_over), removes what the stock has
 * noted, the oldest first, for at most budget_ns: streams that have ended and
 * files without a head, under their locks, as they were when they were noted.
 * One whose writer is dead is sealed, which makes it the newest.
 * False: there was nothing to do. */
bool spool_evict(struct spool *sp, struct sweep *s, uint64_t budget_ns);

/* ---- how much there is: spool_stock.c ---- */

/* A file as it was when a sweep came by. */
struct stock_file {
	int64_t mtime_ns;
	unsigned shard;
	char name[SPOOL_NAME_SIZE];
};

/* What the spool holds, shard by shard, and which files of it are the oldest.
 * Tombstones count as nothing.  Zeroed, then the first four fields set. */
struct stock {
	uint64_t max_bytes, max_files;	/* 0: no cap */
	size_t max_old;		/* how many old ones are noted, at most */
	bool quiet;		/* nobody writes streams meanwhile */
	uint64_t files, bytes;	/* of streams */
	uint64_t conv_bytes;	/* of conversations */
	struct {
		uint64_t files, bytes, conv_bytes;
	} shards[SPOOL_SHARDS];
	unsigned uncounted;	/* shards that this pass has still to see; 0:
				 * the sums are good, and old is in order */
	struct stock_file *old;	/* all others are newer, or as old */
	size_t old_count, old_cap, old_next;
	int64_t old_before_ns;	/* newer ones need not be noted */
	uint64_t evicted, evicted_bytes; /* since the pass began */
	bool over;
};

/* Begins a pass: sweeps count each shard and note its old files.  s may be in
 * the middle of one, which it then begins anew. */
void stock_pass(struct stock *st, struct sweep *s);
void stock_done(struct stock *st);

/* Whether there is more than may be; once so, until there is a 64th less than
 * that, so that not each end of a stream removes one.  Conversations take up to
 * half of the bytes: streams have the rest, whatever is said there. */
bool stock_over(struct stock *st);

/* A stream that is being written (sweep's live) has come, grown or ended.  The
 * last makes it one of those that sweeps count. */
void stock_grow(struct stock *st, unsigned files, uint64_t bytes);
void stock_end(struct stock *st, struct sweep *s, const struct stream_key *k,
    uint64_t bytes);
/* One that had ended is gone. */
void stock_drop(struct stock *st, struct sweep *s, const struct stream_key *k,
    uint64_t bytes);

/* ---- who may: spool_lock.c ---- */

/* Becomes the mutator.  *ret_fd holds the lock; closing it gives it up.
 * RS_EBUSY: another process is; RS_EFOREIGN: spooler.lock, on a shared file
 * system, names another host (whoever moves the spool empties it); RS_EIO. */
enum rs_err spool_lock_mutator(struct spool *sp, int *ret_fd);
/* Whether another process is, which this asks without taking part. */
bool spool_lock_busy(const struct spool *sp);
/* Returns when none is. */
void spool_lock_wait(const struct spool *sp);

/* Whether streams can be made here, by this process.  RS_OK; RS_ENOENT: the
 * directory is gone; RS_EPERM: it cannot be written to; RS_ENOSPC: there is
 * less space left than these bytes, or hardly a file; RS_EIO. */
enum rs_err spool_ready(const struct spool *sp, uint64_t bytes);

/* The ballast: space kept for the endings of the streams that are being
 * written.  Grows the file to what that many need, usage lines included.
 * RS_ENOSPC: it could not, and is as large as it was. */
enum rs_err spool_ballast(struct spool *sp, uint64_t streams);
/* Gives up the share of one stream, and no more: the others go on writing and
 * would take the space from the endings.  RS_ENOENT: there is none left. */
enum rs_err spool_ballast_give(struct spool *sp);

#endif
