/* fdio.h - whole reads and writes, directories, and the locks that die with
 * their owner. */
#ifndef RESPOOL_FDIO_H
#define RESPOOL_FDIO_H

#include <dirent.h>
#include <stddef.h>
#include <sys/types.h>
#include "buf.h"
#include "err.h"

/* Writes all of it, with EINTR and short writes retried.  On an error an
 * unknown part has been written. */
enum rs_err fd_write_full(int fd, const void *p, size_t n);

/* The same at off, whatever the descriptor's own offset is. */
enum rs_err fd_pwrite_full(int fd, const void *p, size_t n, off_t off);

/* Reads up to n bytes at off, fewer only at the end of the file. */
enum rs_err fd_pread_full(int fd, void *p, size_t n, off_t off, size_t *ret_n);

/* Appends a whole file to b; RS_ETOOBIG when it is over b's maximum.  On an
 * error b holds what it held.  fd_read_file opens it, relative to dirfd (or
 * AT_FDCWD). */
enum rs_err fd_read_all(int fd, struct buf *b);
enum rs_err fd_read_file(int dirfd, const char *path, struct buf *b);

/* Opens a directory for readdir, relative to dirfd (or AT_FDCWD), no link;
 * closedir.  RS_ENOENT, RS_ENOMEM, RS_EIO ... */
enum rs_err fd_dir_open(int dirfd, const char *path, DIR **ret);

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
