/* check_wake.c - messages between the programs. */
#include <sys/socket.h>

#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wake.h"

static int fds[2];

static void
setup(void)
{
	ck_assert_int_eq(socketpair(AF_UNIX,
	    SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static void
teardown(void)
{
	close(fds[0]);
	close(fds[1]);
}

static struct wake_start
good_start(void)
{
	struct wake_start m = { .head = { .op = WAKE_START, .tag = 7 } };

	stream_key(&m.key, "alice", "a-1");
	strcpy(m.owner, "alice");
	strcpy(m.model, "demo");
	memset(m.request, 'a', sizeof m.request - 1);
	strcpy(m.address, "0123456789abcdef");
	return m;
}

static const struct {
	const char *name;
	bool ok;
} sockets[] = {
	{ "current", true },
	{ "s-0123456789abcdef.sock", true },
	{ "s-0123456789abcde.sock", false },
	{ "s-0123456789abcdeg.sock", false },
	{ "s-0123456789abcdef.sockx", false },
	{ "../s-123456789abcdef.sock", false },
	{ "/tmp/x", false },
	{ "", false },
};

START_TEST(only_a_spools_own_sockets_are_connected_to)
{
	int fd;

	ck_assert_int_eq(wake_socket_valid(sockets[_i].name), sockets[_i].ok);
	if (!sockets[_i].ok)
		ck_assert_int_eq(wake_connect(sockets[_i].name, &fd),
		    RS_EINVAL);
}
END_TEST

START_TEST(a_message_arrives_with_its_descriptor)
{
	struct wake_start m = good_start();
	union wake_msg got;
	size_t len;
	int fd, null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(wake_send(fds[0], &m, sizeof m, null), RS_OK);
	ck_assert_int_eq(wake_recv(fds[1], &got, &len, &fd), RS_OK);
	ck_assert_uint_eq(len, sizeof m);
	ck_assert_mem_eq(&got, &m, sizeof m);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
	close(fd);
	close(null);
	ck_assert_int_eq(wake_recv(fds[1], &got, &len, &fd), RS_EBUSY);
}
END_TEST

/* What a stranger, or a program of another version, might send. */
static void spoil_op(struct wake_start *m) { m->head.op = 99; }
static void spoil_id(struct wake_start *m) { strcpy(m->key.id, "../x"); }
static void spoil_empty_id(struct wake_start *m) { m->key.id[0] = '\0'; }
static void spoil_long_id(struct wake_start *m)
{
	memset(m->key.id, 'a', sizeof m->key.id);
}
static void spoil_hash(struct wake_start *m) { m->key.owner_hash[3] = '/'; }
static void spoil_owner(struct wake_start *m) { strcpy(m->owner, "a\nb"); }
static void spoil_long_owner(struct wake_start *m)
{
	memset(m->owner, 'a', sizeof m->owner);
}
static void spoil_model(struct wake_start *m)
{
	memset(m->model, 'a', sizeof m->model);
}
static void spoil_request(struct wake_start *m) { m->request[5] = 'X'; }
static void spoil_dialect(struct wake_start *m) { m->dialect = 77; }
static void spoil_address(struct wake_start *m) { m->address[3] = '"'; }
static void spoil_short_address(struct wake_start *m) { m->address[15] = 0; }
static void spoil_long_address(struct wake_start *m) { m->address[16] = 'a'; }

static void (*const spoil[])(struct wake_start *) = {
	spoil_op, spoil_id, spoil_empty_id, spoil_long_id, spoil_hash,
	spoil_owner, spoil_long_owner, spoil_model, spoil_request,
	spoil_dialect, spoil_address, spoil_short_address,
	spoil_long_address,
};

START_TEST(a_message_that_is_not_right_is_refused_and_its_descriptor_closed)
{
	struct wake_start m = good_start();
	union wake_msg got;
	size_t len;
	int fd, null = open("/dev/null", O_RDONLY | O_CLOEXEC), next;

	spoil[_i](&m);
	ck_assert_int_eq(wake_send(fds[0], &m, sizeof m, null), RS_OK);
	ck_assert_int_eq(wake_recv(fds[1], &got, &len, &fd), RS_EPROTO);
	next = dup(null); /* the lowest free one: nothing was left open */
	ck_assert_int_eq(next, null + 1);
	close(next);
	close(null);
}
END_TEST

START_TEST(an_empty_message_leaves_no_descriptor_behind)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC), next, fd;
	union wake_msg got;
	size_t len;

	ck_assert_int_eq(wake_send(fds[0], "", 0, null), RS_OK);
	ck_assert_int_eq(wake_recv(fds[1], &got, &len, &fd), RS_EPROTO);
	next = dup(null);
	ck_assert_int_eq(next, null + 1);
	close(next);
	close(null);
}
END_TEST

START_TEST(a_message_of_any_other_length_is_refused)
{
	struct wake_start m = good_start();
	char bytes[sizeof m + 40] = { 0 };
	union wake_msg got;
	size_t len;
	int fd;

	if ((size_t)_i == sizeof m)
		return;
	memcpy(bytes, &m, sizeof m);
	ck_assert_int_eq(wake_send(fds[0], bytes, (size_t)_i, -1), RS_OK);
	ck_assert_int_eq(wake_recv(fds[1], &got, &len, &fd),
	    _i == 0 ? RS_ECLOSED : RS_EPROTO);
}
END_TEST

START_TEST(a_full_queue_and_a_closed_peer_are_told_apart)
{
	struct wake_head m = { .op = WAKE_PING };
	enum rs_err err;
	union wake_msg got;
	size_t len;
	int fd;

	while ((err = wake_send(fds[0], &m, sizeof m, -1)) == RS_OK)
		continue;
	ck_assert_int_eq(err, RS_EBUSY);
	close(fds[1]);
	ck_assert_int_eq(wake_send(fds[0], &m, sizeof m, -1), RS_ECLOSED);
	ck_assert_int_eq(wake_recv(fds[0], &got, &len, &fd), RS_ECLOSED);
	fds[1] = dup(fds[0]);
}
END_TEST

START_TEST(a_notify_may_have_as_many_entries_as_fit)
{
	static struct wake_notify m;
	union wake_msg got;
	size_t len = sizeof m.head + (size_t)_i * sizeof m.moved[0], n;
	int fd;

	m.head.op = WAKE_NOTIFY;
	ck_assert_int_eq(wake_send(fds[0], &m, len, -1), RS_OK);
	ck_assert_int_eq(wake_recv(fds[1], &got, &n, &fd), RS_OK);
	ck_assert_uint_eq(wake_moved_count(n), (size_t)_i);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("wake");
	TCase *tc = tcase_create("wake");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, only_a_spools_own_sockets_are_connected_to, 0,
	    sizeof sockets / sizeof sockets[0]);
	tcase_add_test(tc, a_message_arrives_with_its_descriptor);
	tcase_add_loop_test(tc,
	    a_message_that_is_not_right_is_refused_and_its_descriptor_closed,
	    0, sizeof spoil / sizeof spoil[0]);
	tcase_add_test(tc, an_empty_message_leaves_no_descriptor_behind);
	tcase_add_loop_test(tc, a_message_of_any_other_length_is_refused, 0,
	    sizeof(struct wake_start) + 40);
	tcase_add_test(tc, a_full_queue_and_a_closed_peer_are_told_apart);
	tcase_add_loop_test(tc, a_notify_may_have_as_many_entries_as_fit, 0,
	    (int)WAKE_MOVED_MAX + 1);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
