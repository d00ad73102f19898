/* wake.c - messages between the programs: sending, receiving, checking. */
#include <sys/socket.h>
#include <sys/un.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "wake.h"

bool
wake_socket_valid(const char *name)
{
	if (strcmp(name, "current") == 0)
		return true;
	return strlen(name) == SPOOL_SOCKET_SIZE - 1 &&
	    strncmp(name, "s-", 2) == 0 &&
	    strspn(name + 2, "0123456789abcdef") == 16 &&
	    strcmp(name + 18, ".sock") == 0;
}

enum rs_err
wake_connect(const char *socket_name, int *ret_fd)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd, saved;

	if (!wake_socket_valid(socket_name))
		return RS_EINVAL;
	memcpy(sun.sun_path, socket_name, strlen(socket_name) + 1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return rs_from_errno(errno);
	if (connect(fd, (struct sockaddr *)&sun, sizeof sun) == 0) {
		*ret_fd = fd;
		return RS_OK;
	}
	saved = errno;
	close(fd);
	switch (saved) {
	case ECONNREFUSED:
	case ENOENT:
		return RS_ECLOSED;
	case EAGAIN:
		return RS_EBUSY;
	default:
		return rs_from_errno(saved);
	}
}

enum rs_err
wake_send(int fd, const void *msg, size_t len, int pass_fd)
{
	struct iovec iov = { .iov_base = (void *)msg, .iov_len = len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct cmsghdr *cm;
	ssize_t n;

	if (pass_fd >= 0) {
		mh.msg_control = control.space;
		mh.msg_controllen = sizeof control.space;
		cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cm), &pass_fd, sizeof(int));
	}
	do
		n = sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)len)
		return RS_OK;
	if (n >= 0)
		return RS_EIO; /* cannot be: a packet goes whole or not */
	switch (errno) {
	case EAGAIN:
	case ENOBUFS:
		return RS_EBUSY;
	case EPIPE:
	case ECONNRESET:
	case ENOTCONN:
		return RS_ECLOSED;
	default:
		return rs_from_errno(errno);
	}
}

/* True when the array holds a NUL: a string that ends. */
#define ENDS(array) (memchr(array, '\0', sizeof(array)) != NULL)

static bool
key_valid(const struct stream_key *k)
{
	return ENDS(k->owner_hash) && ENDS(k->id) &&
	    strspn(k->owner_hash, "0123456789abcdef") == 16 &&
	    strlen(k->owner_hash) == 16 &&
	    spool_id_valid(k->id, strlen(k->id));
}

static bool
turn_valid(const struct turn *t, uint32_t dialect)
{
	return dialect != DIALECT_CONVERSATION || (ENDS(t->session) &&
	    ENDS(t->animal) && ENDS(t->name) &&
	    spool_id_valid(t->session, strlen(t->session)) &&
	    spool_id_valid(t->animal, strlen(t->animal)));
}

static bool
address_valid(const char key[ADDRESS_KEY_SIZE])
{
	return key[0] == '\0' || (key[ADDRESS_KEY_SIZE - 1] == '\0' &&
	    strspn(key, "0123456789abcdef") == ADDRESS_KEY_SIZE - 1);
}

static bool
start_valid(const struct wake_start *s)
{
	return key_valid(&s->key) && ENDS(s->owner) && ENDS(s->model) &&
	    ENDS(s->request) && address_valid(s->address) &&
	    s->dialect < DIALECTS &&
	    turn_valid(&s->turn, s->dialect) &&
	    spool_owner_valid(s->owner, strlen(s->owner)) &&
	    strspn(s->request, "0123456789abcdef") == SHA256_HEX_SIZE - 1;
}

static bool
msg_valid(const union wake_msg *m, size_t len)
{
	switch ((enum wake_op)m->head.op) {
	case WAKE_HELLO:
		return len == sizeof m->hello && ENDS(m->hello.conf_hash);
	case WAKE_PING:
	case WAKE_READY:
	case WAKE_GC:
		return len == sizeof m->head;
	case WAKE_SEAL:
	case WAKE_STOP:
	case WAKE_DELETE:
	case WAKE_FORGET:
	case WAKE_ALIVE:
		return len == sizeof m->key && key_valid(&m->key.key);
	case WAKE_START:
		return len == sizeof m->start && start_valid(&m->start);
	case WAKE_SUBSCRIBE:
		return len == sizeof m->sub && key_valid(&m->sub.key);
	case WAKE_UNSUBSCRIBE:
		return len == sizeof m->sub;
	case WAKE_ANSWER:
		return len == sizeof m->answer && ENDS(m->answer.text) &&
		    ENDS(m->answer.limit) && m->answer.type < ERRTYPE_COUNT;
	case WAKE_NOTIFY:
		return (len - sizeof m->head) % sizeof(struct wake_moved) == 0;
	}
	return false;
}

/* The first descriptor that came along; others are closed. */
static int
passed_fd(struct msghdr *mh)
{
	struct cmsghdr *cm;
	size_t i, n;
	int fd, first = -1;

	for (cm = CMSG_FIRSTHDR(mh); cm != NULL; cm = CMSG_NXTHDR(mh, cm)) {
		if (cm->cmsg_level != SOL_SOCKET ||
		    cm->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(cm) + i * sizeof fd, sizeof fd);
			if (first < 0)
				first = fd;
			else
				close(fd);
		}
	}
	return first;
}

enum rs_err
wake_recv(int fd, union wake_msg *ret, size_t *ret_len, int *ret_fd)
{
	struct iovec iov = { .iov_base = ret, .iov_len = sizeof *ret };
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(4 * sizeof(int))];
	} control;
	struct msghdr mh = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof control.space,
	};
	ssize_t n;
	int passed;

	do
		n = recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return RS_EBUSY;
	if (n < 0)
		return errno == ECONNRESET ? RS_ECLOSED :
		    rs_from_errno(errno);
	passed = passed_fd(&mh);
	if (n == 0 && passed < 0)
		return RS_ECLOSED;
	if ((mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
	    (size_t)n < sizeof ret->head || !msg_valid(ret, (size_t)n)) {
		if (passed >= 0)
			close(passed);
		return RS_EPROTO;
	}
	*ret_len = (size_t)n;
	*ret_fd = passed;
	return RS_OK;
}

void
wake_answer_set(struct wake_answer *a, enum rs_err err, enum errtype type,
    const char *text)
{
	a->err = err;
	a->type = type;
	snprintf(a->text, sizeof a->text, "%s",
	    text != NULL ? text : errtype_info(type)->text);
}

size_t
wake_moved_count(size_t len)
{
	return (len - sizeof(struct wake_head)) / sizeof(struct wake_moved);
}
