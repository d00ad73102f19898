/* spool_line.c - files of lines. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "spool_impl.h"

enum rs_err
spool_line_append(const struct spool *sp, int dir, const char *name,
    const struct buf *line, bool alone)
{
	const char *p = line->data;
	size_t len = line->len;
	struct stat st;
	char last = '\n';
	enum rs_err err;
	ssize_t n;
	int fd;

	if (line->err != RS_OK)
		return line->err;
	err = spool_file_open(sp, dir, name, O_RDWR | O_CREAT | O_APPEND, &fd,
	    &st);
	if (err != RS_OK)
		return err;
	if (st.st_size == 0 && (err = spool_file_own(sp, fd)) != RS_OK)
		goto out;
	if (st.st_size == 0 || (pread(fd, &last, 1, st.st_size - 1) == 1 &&
	    last == '\n')) {
		p++;
		len--;
	}
	do
		n = write(fd, p, len);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		err = rs_from_errno(errno);
	else if ((size_t)n < len)
		err = alone && ftruncate(fd, st.st_size) < 0 ? RS_EIO :
		    RS_ENOSPC;
out:
	close(fd);
	return err;
}
