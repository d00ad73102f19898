/* fdio.h - whole reads and writes, and the locks that die with their owner. */
#ifndef RESPOOL_FDIO_H
#define RESPOOL_FDIO_H

#include <stddef.h>
#include <sys/types.h>
#include "buf.h"
#include "err.h"

/* Writes all of it, with EINTR and short writes retried.  On an error an
 * unknown part has been written. */
enum rs_err fd_write_full(int fd, const void *p, size_t n);

/* Reads up to n bytes at off, fewer only at the end of the file. */
enum rs_err fd_pread_full(int fd, void *p, size_t n, off_t off, size_t *ret_n);

/* Appends a whole file to b; RS_ETOOBIG when it is over b's maximum.  The file is
 * opened relative to dirfd (or AT_FDCWD). */
enum rs_err fd_read_file(int dirfd, const char *path, struct buf *b);

/* Takes the exclusive OFD lock on the whole file without waiting.  The kernel
 * drops it when the last descriptor of this open file is closed.
 * RS_OK; RS_EBUSY: another open file has it; RS_EIO. */
enum rs_err fd_lock(int fd);

/* Closes every descriptor from first on. */
void fd_close_from(int first);

/* As many descriptors as the hard limit allows. */
void fd_raise_limit(void);

/* O_NONBLOCK on; errors are ours, hence void. */
void fd_nonblock(int fd);

#endif
