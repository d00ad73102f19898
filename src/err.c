/* err.c - the errors' texts, and what errno means to us. */
#include <errno.h>
#include <stddef.h>

#include "err.h"

static const char *const texts[] = {
	[RS_OK] = "no error",
	[RS_EINVAL] = "bad input",
	[RS_ETOOBIG] = "too large",
	[RS_ENOMEM] = "out of memory",
	[RS_EIO] = "input or output failed",
	[RS_ENOSPC] = "no space left",
	[RS_ENOENT] = "not found",
	[RS_EEXIST] = "exists already",
	[RS_EBUSY] = "busy",
	[RS_EPERM] = "not permitted",
	[RS_ETIMEOUT] = "timed out",
	[RS_ECLOSED] = "the other side is gone",
	[RS_EPROTO] = "the other side speaks another language",
	[RS_ECORRUPT] = "damaged",
	[RS_EFOREIGN] = "belongs to another host",
	[RS_ERANGE] = "beyond the end",
};

const char *
rs_strerror(enum rs_err err)
{
	if ((size_t)err >= sizeof texts / sizeof texts[0])
		return "unknown error";
	return texts[err];
}

enum rs_err
rs_from_errno(int err)
{
	switch (err) {
	case ENOMEM:
		return RS_ENOMEM;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return RS_ENOSPC;
	case ENOENT:
		return RS_ENOENT;
	case EEXIST:
		return RS_EEXIST;
	case EAGAIN:
	case EBUSY:
		return RS_EBUSY;
	case EPERM:
	case EACCES:
		return RS_EPERM;
	case ETIMEDOUT:
		return RS_ETIMEOUT;
	case EPIPE:
	case ECONNRESET:
	case ECONNREFUSED:
		return RS_ECLOSED;
	default:
		return RS_EIO;
	}
}
