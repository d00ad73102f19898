/* err.h - the one error enum of our functions, and its texts. */
#ifndef RESPOOL_ERR_H
#define RESPOOL_ERR_H

enum rs_err {
	RS_OK = 0,
	RS_EINVAL,	/* bad input */
	RS_ETOOBIG,	/* over a limit that the header names */
	RS_ENOMEM,
	RS_EIO,
	RS_ENOSPC,	/* no space, quota or inode left */
	RS_ENOENT,
	RS_EEXIST,
	RS_EBUSY,	/* somebody else holds the lock */
	RS_EPERM,
	RS_ETIMEOUT,
	RS_ECLOSED,	/* the peer is gone, or nobody listens */
	RS_EPROTO,	/* the peer speaks another version, or nonsense */
	RS_ECORRUPT,	/* a file does not hold what it must */
	RS_EFOREIGN,	/* belongs to another host */
	RS_ERANGE,	/* beyond the end */
};

/* A short English text, never NULL. */
const char *rs_strerror(enum rs_err err);

/* What an errno value means to us: ENOSPC, EDQUOT and EFBIG are RS_ENOSPC;
 * what has no row of its own is RS_EIO. */
enum rs_err rs_from_errno(int err);

#endif
