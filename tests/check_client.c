/* check_client.c - requests and responses, through libfcgi and plain CGI. */
#include <sys/socket.h>
#include <sys/wait.h>

#include <check.h>
#include <fastcgi.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "fcgi_peer.h"
#include "fdio.h"

static struct fcgi_peer peer;
static struct client *client;
static int responder_fd;

static void
setup(void)
{
	setenv("LIBFCGI_OS_CLOSE_POLL_TIMEOUT", "0", 1);
	ck_assert_int_eq(FCGX_Init(), 0);
	signal(SIGPIPE, SIG_IGN);
	fcgi_peer_init(&peer, &responder_fd);
	client = NULL;
}

static void
teardown(void)
{
	client_abort(client);
	fcgi_peer_done(&peer);
}

/* A whole request without a body. */
static void
get(const char *const *vars)
{
	fcgi_peer_begin(&peer, 0, vars);
	fcgi_peer_body(&peer, "", 0, 1);
	ck_assert_int_eq(client_fcgi(responder_fd, &client), RS_OK);
}

/* ---- FastCGI ---- */

static const char *const no_vars[] = { "REQUEST_METHOD", "GET", NULL };

START_TEST(variables_are_those_of_the_request)
{
	char longest[5001];
	const char *vars[] = {
		"REQUEST_METHOD", "GET", "EMPTY", "", "LONG", longest, NULL,
	};

	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	get(vars);
	ck_assert_str_eq(client_env(client, "REQUEST_METHOD"), "GET");
	ck_assert_str_eq(client_env(client, "EMPTY"), "");
	ck_assert_str_eq(client_env(client, "LONG"), longest);
	ck_assert_ptr_null(client_env(client, "MISSING"));
	ck_assert_int_eq(client_fd(client), responder_fd);
}
END_TEST

static const struct {
	const char *what;
	int type;	/* of one record; 0: only bytes */
	const char *data;
	size_t len;
} bad[] = {
	{ "nothing", 0, "", 0 },
	{ "two bytes", 0, "\1\1", 2 },
	{ "HTTP", 0, "GET / HTTP/1.0\r\n\r\n", 18 },
	{ "wrong version", 0, "\7\1\0\1\0\10\0\0\0\1\0\0\0\0\0\0", 16 },
	{ "parameters first", FCGI_PARAMS, "\1\1ab", 4 },
	{ "short begin", FCGI_BEGIN_REQUEST, "\0\1\0", 3 },
	{ "unknown role", FCGI_BEGIN_REQUEST, "\0\11\0\0\0\0\0\0", 8 },
	{ "no parameters", FCGI_BEGIN_REQUEST, "\0\1\0\0\0\0\0\0", 8 },
};

START_TEST(what_is_no_request_is_refused_and_closed)
{
	if (bad[_i].type != 0)
		fcgi_peer_record(&peer, bad[_i].type, bad[_i].data,
		    bad[_i].len);
	else
		ck_assert_int_eq(fd_write_full(peer.fd, bad[_i].data,
		    bad[_i].len), RS_OK);
	shutdown(peer.fd, SHUT_WR);
	ck_assert_msg(client_fcgi(responder_fd, &client) == RS_EPROTO, "%s",
	    bad[_i].what);
	fcgi_peer_read_all(&peer);
	ck_assert_uint_eq(peer.out.len, 0);
}
END_TEST

#define M(n) ((1 << 20) + (n))
static const struct {
	const char *length;	/* NULL: none */
	size_t sent, piece, max;
	enum rs_err want;
} bodies[] = {
	{ "0", 0, 1, 100, RS_OK },
	{ NULL, 0, 1, 100, RS_OK },
	{ "", 5, 5, 100, RS_OK },
	{ "5", 5, 1, 100, RS_OK },
	{ NULL, 100, 7, 100, RS_OK },
	{ NULL, 101, 7, 100, RS_ETOOBIG },
	{ "101", 101, 101, 100, RS_ETOOBIG },
	{ "6", 5, 5, 100, RS_ECLOSED },
	{ "4", 5, 5, 100, RS_OK },
	{ "nonsense", 5, 5, 100, RS_OK },
	{ "-1", 5, 5, 100, RS_OK },
	{ "99999999999999999999999", 5, 5, 100, RS_ETOOBIG },
	{ NULL, M(0), 65535, M(0), RS_OK },
	{ NULL, M(1), 8192, M(0), RS_ETOOBIG },
};

struct body_sender {
	const char *body;
	size_t len, piece;
};

static void *
body_sender_main(void *arg)
{
	struct body_sender *s = arg;

	fcgi_peer_body(&peer, s->body, s->len, s->piece);
	return NULL;
}

static void *
finisher_main(void *arg)
{
	client_finish(arg);
	return NULL;
}

static char *
new_body(size_t len)
{
	char *p = malloc(len + 1);
	size_t i;

	for (i = 0; i < len; i++)
		p[i] = (char)(i * 7 % 251);
	return p;
}

/* The web server sends the body to its end before it reads the answer. */
START_TEST(a_body_is_read_to_its_end_or_refused_and_answered)
{
	const char *length = bodies[_i].length;
	const char *vars[] = {
		"REQUEST_METHOD", "POST",
		length == NULL ? NULL : "CONTENT_LENGTH", length, NULL,
	};
	struct body_sender s = { .len = bodies[_i].sent,
		.piece = bodies[_i].piece };
	char *body = new_body(s.len);
	pthread_t thread;
	struct buf b;

	s.body = body;
	fcgi_peer_begin(&peer, 0, vars);
	ck_assert_int_eq(pthread_create(&thread, NULL, body_sender_main, &s),
	    0);
	ck_assert_int_eq(client_fcgi(responder_fd, &client), RS_OK);
	buf_init(&b, bodies[_i].max);
	buf_puts(&b, "dropped");
	ck_assert_int_eq(client_read_body(client, &b), bodies[_i].want);
	if (bodies[_i].want == RS_OK) {
		ck_assert_uint_eq(b.len, s.len);
		ck_assert(s.len == 0 || memcmp(b.data, body, s.len) == 0);
	}
	ck_assert_int_eq(client_write(client, "answer", 6), RS_OK);
	if (bodies[_i].want == RS_OK) {
		client_finish(client);
		pthread_join(thread, NULL);
	} else {
		/* finish waits for the web server to close, which it does
		 * only when it has sent everything and seen the end. */
		pthread_t finisher;

		pthread_create(&finisher, NULL, finisher_main, client);
		pthread_join(thread, NULL);
		while (!peer.ended)
			ck_assert(fcgi_peer_read(&peer, 20000));
		shutdown(peer.fd, SHUT_RDWR);
		pthread_join(finisher, NULL);
	}
	client = NULL;
	fcgi_peer_read_all(&peer);
	ck_assert(peer.ended);
	ck_assert_uint_eq(peer.out.len, 6);
	buf_done(&b);
	free(body);
}
END_TEST

START_TEST(a_body_that_breaks_off_is_cut_short)
{
	struct buf b;

	fcgi_peer_begin(&peer, 0, no_vars);
	fcgi_peer_record(&peer, FCGI_STDIN, "half", 4);
	shutdown(peer.fd, SHUT_WR);
	ck_assert_int_eq(client_fcgi(responder_fd, &client), RS_OK);
	buf_init(&b, 100);
	ck_assert_int_eq(client_read_body(client, &b), RS_ECLOSED);
	buf_done(&b);
}
END_TEST

static void *
reader_main(void *arg)
{
	(void)arg;
	fcgi_peer_read_all(&peer);
	return NULL;
}

START_TEST(a_response_arrives_whole_and_ends)
{
	size_t len = (1 << 20) + 5;
	char *body = new_body(len);
	pthread_t thread;

	get(no_vars);
	pthread_create(&thread, NULL, reader_main, NULL);
	ck_assert_int_eq(client_write(client, "head", 4), RS_OK);
	ck_assert_int_eq(client_write(client, body, len), RS_OK);
	client_finish(client);
	client = NULL;
	pthread_join(thread, NULL);
	ck_assert(peer.ended);
	ck_assert_uint_eq(peer.out.len, len + 4);
	ck_assert(memcmp(peer.out.data + 4, body, len) == 0);
	free(body);
}
END_TEST

/* Apache sends the end of a body that is none apart, and a closed connection
 * then is a failure of ours to it. */
START_TEST(the_end_of_no_body_is_waited_for)
{
	struct body_sender s = { .body = "", .piece = 1 };
	pthread_t thread;
	struct pollfd pfd;

	fcgi_peer_begin(&peer, 0, no_vars);
	ck_assert_int_eq(pthread_create(&thread, NULL, body_sender_main, &s),
	    0);
	ck_assert_int_eq(client_fcgi(responder_fd, &client), RS_OK);
	pfd = (struct pollfd){ .fd = client_fd(client), .events = POLLIN };
	pthread_join(thread, NULL);
	ck_assert_int_eq(poll(&pfd, 1, 0), 0);
}
END_TEST

START_TEST(each_write_is_sent_at_once)
{
	int i;

	get(no_vars);
	for (i = 1; i <= 3; i++) {
		ck_assert_int_eq(client_write(client, "x", 1), RS_OK);
		ck_assert(fcgi_peer_read(&peer, 0));
		ck_assert_int_eq((int)peer.out.len, i);
	}
}
END_TEST

/* One read takes it: a record in one write, none behind it. */
START_TEST(a_write_of_the_maximum_is_one_record)
{
	char data[8192] = { 0 }, record[2 * sizeof data];
	size_t n;

	get(no_vars);
	n = client_write_max(client);
	ck_assert_int_eq(client_write(client, data, n), RS_OK);
	ck_assert_int_eq((int)read(peer.fd, record, sizeof record),
	    (int)n + 8);
	ck_assert_int_eq((unsigned char)record[4] << 8 |
	    (unsigned char)record[5], (int)n);
}
END_TEST

/* Nobody reads; the connection takes what it can. */
START_TEST(writes_of_the_maximum_do_not_block_while_writable)
{
	char data[8192] = { 0 };
	size_t sent = 0;

	get(no_vars);
	ck_assert_uint_le(client_write_max(client), sizeof data);
	/* A write that blocks fails after its time-out, and the test. */
	while (client_writable(client)) {
		ck_assert_int_eq(client_write(client, data,
		    client_write_max(client)), RS_OK);
		sent += client_write_max(client);
	}
	ck_assert_uint_gt(sent, 0);
	while (peer.out.len < sent)
		ck_assert(fcgi_peer_read(&peer, 20000));
	ck_assert(client_writable(client));
}
END_TEST

START_TEST(an_aborted_response_has_no_end)
{
	get(no_vars);
	ck_assert_int_eq(client_write(client, "part", 4), RS_OK);
	client_abort(client);
	client = NULL;
	fcgi_peer_read_all(&peer);
	ck_assert(!peer.ended);
	ck_assert_uint_eq(peer.out.len, 4);
}
END_TEST

START_TEST(a_connection_serves_one_request_whatever_is_offered)
{
	fcgi_peer_begin(&peer, FCGI_KEEP_CONN, no_vars);
	fcgi_peer_body(&peer, "", 0, 1);
	ck_assert_int_eq(client_fcgi(responder_fd, &client), RS_OK);
	client_finish(client);
	client = NULL;
	fcgi_peer_read_all(&peer);
	ck_assert(peer.ended);
}
END_TEST

START_TEST(a_client_that_left_is_noticed_by_poll_and_by_every_write)
{
	struct pollfd pfd;
	int i;

	get(no_vars);
	pfd.fd = client_fd(client);
	pfd.events = (short)client_gone_events(client);
	ck_assert_int_eq(poll(&pfd, 1, 0), 0);
	close(peer.fd);
	peer.fd = -1;
	ck_assert_int_eq(poll(&pfd, 1, 0), 1);
	ck_assert(pfd.revents & (short)client_gone_events(client));
	for (i = 0; i < 3; i++) {
		ck_assert(client_writable(client));
		ck_assert_int_eq(client_write(client, "x", 1), RS_ECLOSED);
	}
	client_finish(client);
	client = NULL;
}
END_TEST

/* ---- plain CGI ---- */

/* Standard input and output of this process, which is a child of the test
 * runner, become pipe or file. */
static void
cgi_stdin(const char *body)
{
	char name[] = "/tmp/respool-check-client-XXXXXX";
	int fd = mkstemp(name);

	ck_assert_int_ge(fd, 0);
	unlink(name);
	ck_assert_int_eq(fd_write_full(fd, body, strlen(body)), RS_OK);
	lseek(fd, 0, SEEK_SET);
	dup2(fd, STDIN_FILENO);
	close(fd);
	ck_assert_int_eq(client_cgi(&client), RS_OK);
}

static const struct {
	const char *length, *sent, *got;
	enum rs_err want;
} cgi_bodies[] = {
	{ "5", "hello", "hello", RS_OK },
	{ "5", "hello and more", "hello", RS_OK },
	{ "6", "hello", "", RS_ECLOSED },
	{ NULL, "hello", "hello", RS_OK },
	{ "0", "hello", "", RS_OK },
	{ "11", "hello world", "", RS_ETOOBIG },
	{ NULL, "hello world", "", RS_ETOOBIG },
};

START_TEST(a_cgi_body_ends_at_its_length)
{
	struct buf b;

	unsetenv("CONTENT_LENGTH");
	if (cgi_bodies[_i].length != NULL)
		setenv("CONTENT_LENGTH", cgi_bodies[_i].length, 1);
	cgi_stdin(cgi_bodies[_i].sent);
	buf_init(&b, 10);
	ck_assert_int_eq(client_read_body(client, &b), cgi_bodies[_i].want);
	if (cgi_bodies[_i].want == RS_OK) {
		ck_assert_uint_eq(b.len, strlen(cgi_bodies[_i].got));
		ck_assert(b.len == 0 ||
		    strcmp(b.data, cgi_bodies[_i].got) == 0);
	}
	buf_done(&b);
}
END_TEST

START_TEST(a_cgi_response_goes_through_a_full_pipe_whole)
{
	size_t len = 300000, got = 0;
	char *body = new_body(len), *back = malloc(len);
	int fd[2], status;
	pid_t pid;
	ssize_t n;

	ck_assert_int_eq(pipe(fd), 0);
	ck_assert_int_eq(client_cgi(&client), RS_OK);
	if ((pid = fork()) == 0) {
		dup2(fd[1], STDOUT_FILENO);
		_exit(client_write(client, body, len) == RS_OK ? 0 : 1);
	}
	close(fd[1]);
	while ((n = read(fd[0], back + got, len - got)) > 0)
		got += (size_t)n;
	ck_assert_uint_eq(got, len);
	ck_assert(memcmp(body, back, len) == 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(fd[0]);
	free(body);
	free(back);
}
END_TEST

START_TEST(a_cgi_reader_that_left_is_noticed)
{
	struct pollfd pfd = { .fd = STDOUT_FILENO };
	int fd[2], saved = dup(STDOUT_FILENO), polled;
	enum rs_err err;

	ck_assert_int_eq(pipe(fd), 0);
	ck_assert_int_eq(client_cgi(&client), RS_OK);
	dup2(fd[1], STDOUT_FILENO);
	close(fd[1]);
	close(fd[0]);
	polled = poll(&pfd, 1, 0);
	err = client_write(client, "x", 1);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	ck_assert_int_eq(polled, 1);
	ck_assert(pfd.revents & (short)client_gone_events(client));
	ck_assert_int_eq(err, RS_ECLOSED);
}
END_TEST

/* As under mod_cgid, whose half-closed socket is no sign of a lost client. */
START_TEST(a_cgi_socket_without_its_other_half_is_not_gone)
{
	struct pollfd pfd = { .fd = STDOUT_FILENO };
	int fd[2], saved = dup(STDOUT_FILENO), polled;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	shutdown(fd[0], SHUT_WR);
	ck_assert_int_eq(client_cgi(&client), RS_OK);
	dup2(fd[1], STDOUT_FILENO);
	pfd.events = (short)client_gone_events(client);
	polled = poll(&pfd, 1, 0);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	close(fd[0]);
	close(fd[1]);
	ck_assert_int_eq(polled, 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("client");
	TCase *tc = tcase_create("fastcgi");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, variables_are_those_of_the_request);
	tcase_add_loop_test(tc, what_is_no_request_is_refused_and_closed, 0,
	    sizeof bad / sizeof bad[0]);
	tcase_add_loop_test(tc,
	    a_body_is_read_to_its_end_or_refused_and_answered, 0,
	    sizeof bodies / sizeof bodies[0]);
	tcase_add_test(tc, a_body_that_breaks_off_is_cut_short);
	tcase_add_test(tc, a_response_arrives_whole_and_ends);
	tcase_add_test(tc, the_end_of_no_body_is_waited_for);
	tcase_add_test(tc, each_write_is_sent_at_once);
	tcase_add_test(tc, a_write_of_the_maximum_is_one_record);
	tcase_add_test(tc, writes_of_the_maximum_do_not_block_while_writable);
	tcase_add_test(tc, an_aborted_response_has_no_end);
	tcase_add_test(tc, a_connection_serves_one_request_whatever_is_offered);
	tcase_add_test(tc,
	    a_client_that_left_is_noticed_by_poll_and_by_every_write);
	suite_add_tcase(s, tc);
	tc = tcase_create("cgi");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, a_cgi_body_ends_at_its_length, 0,
	    sizeof cgi_bodies / sizeof cgi_bodies[0]);
	tcase_add_test(tc, a_cgi_response_goes_through_a_full_pipe_whole);
	tcase_add_test(tc, a_cgi_reader_that_left_is_noticed);
	tcase_add_test(tc,
	    a_cgi_socket_without_its_other_half_is_not_gone);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
