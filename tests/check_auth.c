/* check_auth.c - whose a request is: requests in, answers out; no web server,
 * no spooler */
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <check.h>
#include "auth.h"
#include "clock.h"
#include "fake_client.h"
#include "fake_wake.h"
#include "link.h"
#include "responder.h"
#include "sse.h"

#define NOW_S 1900000000
#define SECRET "0123456789abcdef0123456789abcdef"
#define S "/api/v1/stream"
#define LIST "/api/v1/streams"
#define FORM "application/x-www-form-urlencoded"

static const char rs256_key[] =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAoiDvpBWP6Fr1UrZFQRgo\n"
    "MhNVEHRjmGVfjMZjAa1YNuVrhES1nkV5ZYzfYyPQ4Ud15MHNaoyVdWVr56asWCTh\n"
    "T7McDwBBrSmhnhFXdxwKij9r2k2YqcHaVt5TtznHuoENnK5oTLIxgAdq6/HPfgWG\n"
    "uTQEXc+zg4wO9JT5sxvSjrpzpOJNhEWOhsTtzFRg2bXYrBIDbln5mcKDquLZQBOa\n"
    "xf7YhX4uPyHzF69abZze+e+LfXlwatLj2Y7rsROoqFxuLr9ZaRFTKc71vYaebNLa\n"
    "UANcEgNXYzOtbKEgRRNeIaT87Zw3ZLKDABXyF2NG5z+tLenCy2m+z+XhLUi9LpYM\n"
    "qwIDAQAB\n"
    "-----END PUBLIC KEY-----\n";
/* {"sub": "ann", "exp": 4102444800}, here and below. */
static const char rs256_token[] =
    "eyJhbGciOiAiUlMyNTYiLCAidHlwIjogIkpXVCJ9.eyJzdWIiOiAiYW5uIiwgImV"
    "4cCI6IDQxMDI0NDQ4MDB9.Q5tEa1RCctITRISAiKcZP2zwrasWohpGQUYb3OTQdx"
    "8hF-RWW_5rUqiwzzlcA5WMayfZwEgtnx6u73HUMNXU3xN-fwSp-HLa3nxrQXykXI"
    "pJoHqxdQ-aKvFhf133pdt8_wbzWrMgBaD_LCuulpBjZJ9EZTbiGrQqMwlOd5avNK"
    "nKUgxzU9p4tz0pceximYuHWH7wCWSkOzkJpogfAwjZaMwNrvQLQRXXygZve9oJCP"
    "HsA2GyFTSyEVg_pKX2RldaZpwtrP8sDRMzOiwIncvhtx6d2kU1Nqu8cXSANV3Hjx"
    "_Rgf9lyy3nqvIqzRXkGuwnWCwwX-c8sXJdYfO3gQvn2A";
static const char es256_key[] =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEOFBiNHZORfya7ZV/uB8pLI07gu0c\n"
    "N4lyXGzz/r0BqtHcQrSO1sX13+O3LN4lK5b+R22TRZl4g0qPai5mjYfwAw==\n"
    "-----END PUBLIC KEY-----\n";
static const char es256_token[] =
    "eyJhbGciOiAiRVMyNTYiLCAidHlwIjogIkpXVCJ9.eyJzdWIiOiAiYW5uIiwgImV"
    "4cCI6IDQxMDI0NDQ4MDB9.rtFVk0Rf05XxLwPPCLXOzTeCkTj5mAM1yefTF3dFUi"
    "oD4dFLnUFYx7s0gzgNXu2CWZkIByLIlNWuoNSbIqBsFg";

static char dir[64], key_file[80], spool_dir[80];
static struct conf conf;
static struct responder responder;

/* ---- what the file system is asked ---- */

static struct buf calls;	/* one letter and its result for each */
static bool recording;

static void
note(char call, long result)
{
	if (recording)
		buf_printf(&calls, "%c%s", call, result < 0 ? "-" : "+");
}

/* In place of the C library's.  Paths begin at the spool, so only flags tell
 * them apart. */
int
openat(int at, const char *name, int flags, ...)
{
	long fd = syscall(SYS_openat, at, name, flags, 0600);

	note(flags & O_DIRECTORY ? 'd' : 'o', fd);
	return (int)fd;
}

ssize_t
pread(int fd, void *p, size_t n, off_t off)
{
	long got = syscall(SYS_pread64, fd, p, n, off);

	note('r', got);
	return got;
}

/* ---- the fixture ---- */

static void
file_write(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
}

/* Tokens of this algorithm, checked by that key. */
static void
use_key(const char *algorithm, const char *key)
{
	file_write(key_file, key);
	conf.owner_by = OWNER_BY_JWT;
	conf.jwt_algorithm = (char *)algorithm;
	reload_free(responder.jwt_key);
	ck_assert_int_eq(reload_new(auth_key_kind(&conf), key_file,
	    &responder.jwt_key), RS_OK);
}

static void
setup(void)
{
	static char empty[] = "", all[] = "*", one_host[] = "one-host";
	const char *tmp = getenv("TMPDIR");
	struct buf why;

	snprintf(dir, sizeof dir, "%s/respool-XXXXXX",
	    tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(spool_dir, sizeof spool_dir, "%s/spool", dir);
	snprintf(key_file, sizeof key_file, "%s/key", dir);
	conf = (struct conf){ .spool_dir = spool_dir, .cors_origins = all,
	    .models_file = empty, .base_path = empty, .static_dir = dir,
	    .spool_shared_fs = one_host, .default_persona = empty,
	    .trusted_proxies = empty, .metrics_from = empty,
	    .jwt_audience = empty, .jwt_cookie = empty, .jwt_parameter = empty,
	    .ttl = 1u << 30, .max_streams = 100,
	    .max_stream_bytes = 1 << 20, .max_body_bytes = 65536 };
	buf_init(&why, 4096);
	buf_init(&calls, 1 << 20);
	memset(&responder, 0, sizeof responder);
	responder.conf = &conf;
	ck_assert_int_eq(spool_open(&conf, &responder.spool, &why), RS_OK);
	ck_assert_int_eq(models_file_open("", &responder.models, &why),
	    RS_OK);
	ck_assert_int_eq(reload_new(&personas_kind, "", &responder.personas),
	    RS_OK);
	ck_assert_int_eq(reload_new(&templates_kind, "",
	    &responder.templates), RS_OK);
	ck_assert_int_eq(reload_new(&triage_kind, "", &responder.triage),
	    RS_OK);
	use_key("HS256", SECRET);
	fake_wake_init(responder.spool);
	clock_freeze(NS_PER_S, (int64_t)NOW_S * 1000);
	buf_done(&why);
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void
teardown(void)
{
	clock_run();
	fake_wake_done();
	reload_free(responder.jwt_key);
	reload_free(responder.triage);
	reload_free(responder.templates);
	reload_free(responder.personas);
	models_file_free(responder.models);
	spool_close(responder.spool);
	buf_done(&fake_answer.out);
	buf_done(&calls);
	ck_assert_int_eq(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- tokens ---- */

static void
b64_put(struct buf *b, const unsigned char *p, size_t n)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "abcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned long bits;
	size_t i, k;

	for (i = 0; i < n; i += 3) {
		bits = (unsigned long)p[i] << 16;
		if (i + 1 < n)
			bits |= (unsigned long)p[i + 1] << 8;
		if (i + 2 < n)
			bits |= p[i + 2];
		for (k = 0; k < 4 && k <= n - i; k++)
			buf_add(b, &letters[bits >> (18 - 6 * k) & 63], 1);
	}
}

/* A token of HS256, whatever its head says; valid until the next one. */
static const char *
token_by(const char *head, const char *claims, const char *secret)
{
	static char token[8192];
	char hex[SHA256_HEX_SIZE];
	unsigned char seal[32];
	struct buf b;
	size_t i;

	buf_init(&b, sizeof token - 1);
	b64_put(&b, (const unsigned char *)head, strlen(head));
	buf_puts(&b, ".");
	b64_put(&b, (const unsigned char *)claims, strlen(claims));
	hmac_sha256_hex(secret, strlen(secret), b.data, b.len, hex);
	for (i = 0; i < sizeof seal; i++)
		ck_assert_int_eq(sscanf(hex + 2 * i, "%2hhx", &seal[i]), 1);
	buf_puts(&b, ".");
	b64_put(&b, seal, sizeof seal);
	ck_assert_int_eq(b.err, RS_OK);
	memcpy(token, b.data, b.len + 1);
	buf_done(&b);
	return token;
}

#define HS256 "{\"alg\":\"HS256\"}"
#define ANN "{\"sub\":\"ann\",\"exp\":1900000001}"

static const char *
ann(void)
{
	return token_by(HS256, ANN, SECRET);
}

/* ---- asking ---- */

static struct client *
request(const char *method, const char *path)
{
	struct client *c = fake_client_new(method);
	const char *mark = strchr(path, '?');
	char info[1024];

	snprintf(info, sizeof info, "%.*s", (int)strcspn(path, "?"), path);
	fake_client_env(c, "PATH_INFO", info);
	fake_client_env(c, "QUERY_STRING", mark != NULL ? mark + 1 : "");
	return c;
}

static int
serve(struct client *c)
{
	route_serve(&responder, c);
	ck_assert_int_eq(fake_answer.end, FAKE_FINISHED);
	return fake_status();
}

static int
ask_as(const char *method, const char *path, const char *token)
{
	struct client *c = request(method, path);
	char line[8300];

	if (token != NULL) {
		snprintf(line, sizeof line, "Bearer %s", token);
		fake_client_env(c, "HTTP_AUTHORIZATION", line);
	}
	return serve(c);
}

static void
assert_refused(int status, const char *challenge)
{
	ck_assert_int_eq(status, 401);
	ck_assert_str_eq(fake_header("WWW-Authenticate"), challenge);
	ck_assert_str_eq(fake_header("Access-Control-Allow-Origin"), "*");
	ck_assert_str_eq(fake_content(), "{\"error\":\"Please sign in.\","
	    "\"error_type\":\"unauthorized\"}");
	ck_assert_uint_eq(fake_wake.starts, 0);
}

#define INVALID "Bearer error=\"invalid_token\""

static const struct {
	const char *algorithm, *key, *token;
} good[] = {
	{ "HS256", SECRET, NULL },
	{ "RS256", rs256_key, rs256_token },
	{ "ES256", es256_key, es256_token },
};

START_TEST(a_good_token_lets_its_sub_in)
{
	use_key(good[_i].algorithm, good[_i].key);
	ck_assert_int_eq(ask_as("GET", S "?message=x&user_id=ben",
	    good[_i].token != NULL ? good[_i].token : ann()), 200);
	ck_assert_str_eq(fake_wake.start.owner, "ann");
}
END_TEST

START_TEST(a_token_is_refused_where_the_algorithm_is_another)
{
	size_t i;

	use_key(good[_i].algorithm, good[_i].key);
	for (i = 0; i < sizeof good / sizeof good[0]; i++)
		if (i != (size_t)_i)
			assert_refused(ask_as("GET", LIST, good[i].token !=
			    NULL ? good[i].token : ann()), INVALID);
}
END_TEST

START_TEST(a_public_key_is_no_secret)
{
	const char *key = good[_i].key;
	char trimmed[sizeof rs256_key];

	use_key(good[_i].algorithm, key);
	assert_refused(ask_as("GET", LIST, token_by(HS256, ANN, key)),
	    INVALID);
	/* As the key is kept, without its last line end. */
	snprintf(trimmed, sizeof trimmed, "%.*s", (int)strlen(key) - 1, key);
	assert_refused(ask_as("GET", LIST, token_by(HS256, ANN, trimmed)),
	    INVALID);
}
END_TEST

START_TEST(a_token_that_is_cut_anywhere_is_refused)
{
	char token[1024], cut[1024];
	size_t n;

	snprintf(token, sizeof token, "%s", good[_i].token != NULL ?
	    good[_i].token : ann());
	use_key(good[_i].algorithm, good[_i].key);
	for (n = 0; n < strlen(token); n++) {
		snprintf(cut, sizeof cut, "%.*s", (int)n, token);
		assert_refused(ask_as("GET", LIST, cut), INVALID);
		if (n > 0)
			assert_refused(ask_as("GET", LIST, token + n),
			    INVALID);
	}
	ck_assert_int_eq(ask_as("GET", LIST, token), 200);
}
END_TEST

START_TEST(a_token_that_is_changed_anywhere_is_refused)
{
	static const char others[] = "AZaz09-_.=+/ \n%\"";
	char token[1024], bad[1024];
	size_t i, k;

	snprintf(token, sizeof token, "%s", ann());
	for (i = 0; i < strlen(token); i++) {
		for (k = 0; k < sizeof others; k++) {
			strcpy(bad, token);
			if (bad[i] == others[k])
				continue;
			bad[i] = others[k];
			assert_refused(ask_as("GET", LIST, bad), INVALID);
		}
	}
}
END_TEST

START_TEST(a_token_has_one_form)
{
	static const char *const more[] = { "=", "==", " ", "\n", ".", "!",
	    ",", ".AAAA", ", x", "\"", "%00" };
	char token[1024], longer[1100];
	size_t i, at;

	snprintf(token, sizeof token, "%s", good[_i].token != NULL ?
	    good[_i].token : ann());
	use_key(good[_i].algorithm, good[_i].key);
	for (i = 0; i < sizeof more / sizeof more[0]; i++) {
		const size_t places[] = { 0, strlen(token) - 8,
			strlen(token) };

		for (at = 0; at < 3; at++) {
			snprintf(longer, sizeof longer, "%.*s%s%s",
			    (int)places[at], token, more[i],
			    token + places[at]);
			/* White space before it is not its own. */
			if (at > 0 || more[i][0] != ' ')
				assert_refused(ask_as("GET", LIST, longer),
				    INVALID);
		}
	}
	conf.jwt_parameter = (char *)"token";
	snprintf(longer, sizeof longer, LIST "?token=%s%%00x", token);
	assert_refused(ask_as("GET", longer, NULL), INVALID);
}
END_TEST

static const struct {
	const char *claims;
	int status;
} claims[] = {
	{ "{\"sub\":\"ann\",\"exp\":1900000001}", 200 },
	{ "{\"sub\":\"ann\",\"exp\":1900000000}", 401 },
	{ "{\"sub\":\"ann\",\"exp\":1900000000.5}", 200 },
	{ "{\"sub\":\"ann\",\"exp\":1899999999.5}", 401 },
	{ "{\"sub\":\"ann\",\"exp\":1e12}", 200 },
	{ "{\"sub\":\"ann\",\"exp\":-1}", 401 },
	{ "{\"sub\":\"ann\",\"exp\":0}", 401 },
	{ "{\"sub\":\"ann\",\"exp\":null}", 401 },
	{ "{\"sub\":\"ann\",\"exp\":true}", 401 },
	{ "{\"sub\":\"ann\",\"exp\":\"1900000001\"}", 401 },
	{ "{\"sub\":\"ann\",\"exp\":[1900000001]}", 401 },
	{ "{\"sub\":\"ann\"}", 401 },
	{ "{\"sub\":\"ann\",\"exp\":1900000001,\"nbf\":1900000000}", 200 },
	{ "{\"sub\":\"ann\",\"exp\":1900000009,\"nbf\":1900000001}", 401 },
	{ "{\"sub\":\"ann\",\"exp\":1900000009,\"nbf\":1900000000.5}", 401 },
	{ "{\"sub\":\"ann\",\"exp\":1900000001,\"nbf\":\"0\"}", 401 },
	{ "{\"sub\":\"ann\",\"exp\":1900000001,\"nbf\":null}", 401 },
	{ "{\"exp\":1900000001}", 401 },
	{ "{\"sub\":null,\"exp\":1900000001}", 401 },
	{ "{\"sub\":\"\",\"exp\":1900000001}", 401 },
	{ "{\"sub\":5,\"exp\":1900000001}", 401 },
	{ "{\"sub\":[\"ann\"],\"exp\":1900000001}", 401 },
	{ "{\"sub\":\"a\\nb\",\"exp\":1900000001}", 401 },
	{ "{\"sub\":\"a\\u0000b\",\"exp\":1900000001}", 401 },
	{ "{\"sub\":\"a\\u0085b\",\"exp\":1900000001}", 401 },
	{ "{\"sub\":\"J\\u00fcrgen\",\"exp\":1900000001}", 200 },
	{ "{\"Sub\":\"ann\",\"exp\":1900000001}", 401 },
	{ "{}", 401 },
	{ "[]", 401 },
	{ "\"ann\"", 401 },
	{ "null", 401 },
	{ "", 401 },
	{ "{", 401 },
	{ "{\"sub\":\"ann\",\"exp\":1900000001", 401 },
	{ "{\"sub\":\"ann\",\"exp\":1900000001}x", 401 },
	{ "{\"sub\":\"\xff\",\"exp\":1900000001}", 401 },
};

START_TEST(a_tokens_claims_are_checked)
{
	int status = ask_as("GET", LIST, token_by(HS256, claims[_i].claims,
	    SECRET));

	if (claims[_i].status == 401)
		assert_refused(status, INVALID);
	else
		ck_assert_int_eq(status, claims[_i].status);
}
END_TEST

static const struct {
	const char *aud;
	int status;
} audiences[] = {
	{ ",\"aud\":\"me\"", 200 },
	{ ",\"aud\":[\"me\"]", 200 },
	{ ",\"aud\":[\"you\",5,null,\"me\"]", 200 },
	{ "", 401 },
	{ ",\"aud\":\"you\"", 401 },
	{ ",\"aud\":\"me \"", 401 },
	{ ",\"aud\":\"me\\u0000\"", 401 },
	{ ",\"aud\":\"\"", 401 },
	{ ",\"aud\":[]", 401 },
	{ ",\"aud\":[[\"me\"]]", 401 },
	{ ",\"aud\":{\"me\":1}", 401 },
	{ ",\"aud\":null", 401 },
};

START_TEST(a_token_is_for_our_audience)
{
	char text[200];

	snprintf(text, sizeof text, "{\"sub\":\"ann\",\"exp\":1900000001%s}",
	    audiences[_i].aud);
	conf.jwt_audience = (char *)"me";
	ck_assert_int_eq(ask_as("GET", LIST, token_by(HS256, text, SECRET)),
	    audiences[_i].status);
	conf.jwt_audience = (char *)"";
	ck_assert_int_eq(ask_as("GET", LIST, token_by(HS256, text, SECRET)),
	    strstr(text, "u0000") != NULL ? 401 : 200);
}
END_TEST

static const char *const heads[] = { "", "{", "[]", "{}", "null",
    "{\"alg\":\"none\"}", "{\"alg\":\"NONE\"}", "{\"alg\":\"\"}",
    "{\"alg\":\"HS384\"}", "{\"alg\":\"HS512\"}", "{\"alg\":\"RS256\"}",
    "{\"alg\":\"ES256\"}", "{\"alg\":5}", "{\"alg\":null}",
    "{\"alg\":[\"HS256\"]}", "{\"alg\":\"HS2567\"}",
    "{\"alg\":\"HS256\",\"crit\":[\"x\"],\"x\":1}",
    "{\"alg\":\"HS256\",\"crit\":[]}", "{\"alg\":\"HS256\"", "\xff" };

START_TEST(a_token_with_another_head_is_refused)
{
	assert_refused(ask_as("GET", LIST, token_by(heads[_i], ANN, SECRET)),
	    INVALID);
}
END_TEST

static const char *const garbage[] = { "", " ", ".", "..", "...", "a.b.c",
    "a", "null", "{}", "\xff.\xff.\xff", "a..c", "=.=.=",
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjE5MDAwMDAwMDF9.",
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjE5MDAwMDAwMDF9",
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjE5MDAwMDAwMDF9.AAAA" };

START_TEST(garbage_is_refused)
{
	assert_refused(ask_as("GET", LIST, garbage[_i]), INVALID);
}
END_TEST

/* ---- where it is looked for ---- */

static const struct {
	const char *cookies;
	int status;
} cookies[] = {	/* @: a good token */
	{ "s=@", 200 }, { "a=b; s=@", 200 }, { "a=b;s=@;c=d", 200 },
	{ "s=@ ; c=d", 200 }, { "; ;s=@", 200 }, { "ss=x; s=@", 200 },
	{ "s=x; s=@", 401 }, { "ss=@", 401 }, { "S=@", 401 }, { "s", 401 },
	{ "s=", 401 }, { "s=\"@\"", 401 }, { "=@", 401 }, { "s =@", 401 },
	{ "", 401 }, { ";;;", 401 },
};

START_TEST(a_cookie_may_hold_the_token)
{
	struct client *c = request("GET", LIST);
	const char *at = strchr(cookies[_i].cookies, '@');
	char line[1024];

	conf.jwt_cookie = (char *)"s";
	snprintf(line, sizeof line, "%.*s%s%s",
	    (int)strcspn(cookies[_i].cookies, "@"), cookies[_i].cookies,
	    at != NULL ? ann() : "", at != NULL ? at + 1 : "");
	fake_client_env(c, "HTTP_COOKIE", line);
	ck_assert_int_eq(serve(c), cookies[_i].status);
}
END_TEST

START_TEST(a_cookie_or_parameter_that_is_not_configured_is_not_looked_at)
{
	struct client *c;
	char line[1024];

	snprintf(line, sizeof line, "=%s", ann());
	c = request("GET", LIST);
	fake_client_env(c, "HTTP_COOKIE", line);
	assert_refused(serve(c), "Bearer");
	snprintf(line, sizeof line, LIST "?=%s&token=%s", ann(), ann());
	assert_refused(serve(request("GET", line)), "Bearer");
}
END_TEST

static int
post_as(const char *path, const char *body, const char *token)
{
	struct client *c = request("POST", path);
	char line[1024];

	if (token != NULL) {
		snprintf(line, sizeof line, "Bearer %s", token);
		fake_client_env(c, "HTTP_AUTHORIZATION", line);
	}
	/* Whoever reads it is told that it never comes. */
	fake_client_body(c, FORM, body, strlen(body), RS_ETIMEOUT);
	return serve(c);
}

START_TEST(the_body_of_strangers_is_not_read)
{
	assert_refused(post_as(S, "message=x", NULL), "Bearer");
	assert_refused(post_as(S, "message=x", "x.y.z"), INVALID);
	ck_assert_int_eq(post_as(S, "message=x", ann()), 400);
	/* But where the token may be in it. */
	conf.jwt_parameter = (char *)"token";
	ck_assert_int_eq(post_as(S, "message=x", NULL), 400);
	assert_refused(post_as(S, "message=x", "x.y.z"), INVALID);
}
END_TEST

/* ---- who needs a user ---- */

static const struct {
	const char *method, *path;
	int status;	/* without one */
} routes[] = {
	{ "GET", S, 401 }, { "HEAD", S, 401 }, { "POST", S, 401 },
	{ "GET", LIST, 401 }, { "GET", LIST "/x", 401 },
	{ "HEAD", LIST "/x", 401 }, { "DELETE", LIST "/x", 401 },
	{ "POST", LIST "/x/stop", 401 }, { "POST", LIST "/x/link", 401 },
	{ "GET", "/api/v1/models", 401 }, { "GET", "/api/personas", 401 },
	{ "GET", "/api/templates", 401 }, { "POST", "/api/render", 401 },
	{ "POST", "/api/triage", 401 }, { "GET", "/convo_turn_stream", 401 },
	{ "POST", "/convo_turn_stream", 401 },
	{ "GET", "/convo_history", 401 }, { "DELETE", "/convo_history", 401 },
	{ "GET", "/health", 200 }, { "HEAD", "/health", 200 },
	{ "GET", "/version", 200 }, { "GET", "/magic/key", 404 },
	{ "GET", "/nowhere", 404 }, { "GET", "/api/v1/nothing", 404 },
	{ "OPTIONS", S, 204 }, { "OPTIONS", LIST "/x", 204 },
	{ "PUT", S, 405 },
};

/* By a token, and by the web server. */
START_TEST(every_route_is_for_users_but_the_open_ones)
{
	static const char *const challenges[] = { "Bearer", "" };
	size_t i;

	for (i = 0; i < 2; i++) {
		conf.owner_by = i == 0 ? OWNER_BY_JWT : OWNER_BY_SERVER;
		if (strcmp(routes[_i].path, "/magic/key") == 0)
			conf.static_dir = spool_dir;
		ck_assert_int_eq(serve(request(routes[_i].method,
		    routes[_i].path)), routes[_i].status);
		ck_assert_str_eq(fake_header("WWW-Authenticate"),
		    routes[_i].status == 401 ? challenges[i] : "");
	}
	conf.owner_by = OWNER_BY_REQUEST;
	ck_assert_int_ne(serve(request(routes[_i].method, routes[_i].path)),
	    401);
}
END_TEST

static const struct {
	const char *user;
	int status;
} users[] = {
	{ "ann", 200 }, { "ann@house.example", 200 }, { "HOUSE\\ann", 200 },
	{ NULL, 401 }, { "", 401 }, { "a\nb", 401 }, { "\xff", 401 },
	{ "1234567890123456789012345678901234567890123456789012345678901234"
	    "12345678901234567890123456789012345678901234567890123456789012345",
	    401 },
};

START_TEST(whom_the_web_server_names_is_the_owner)
{
	struct client *c = request("GET", S "?message=x&user_id=ben");

	conf.owner_by = OWNER_BY_SERVER;
	if (users[_i].user != NULL)
		fake_client_env(c, "REMOTE_USER", users[_i].user);
	/* A client can say this. */
	fake_client_env(c, "HTTP_REMOTE_USER", "ben");
	if (users[_i].status == 401) {
		assert_refused(serve(c), "");
	} else {
		ck_assert_int_eq(serve(c), 200);
		ck_assert_str_eq(fake_wake.start.owner, users[_i].user);
	}
}
END_TEST

static const struct {
	const char *software, *type;
	int status;
} servers[] = {
	{ NULL, NULL, 200 }, { "lighttpd/1.4.69", "Basic", 200 },
	{ "Apache/2.4.57", NULL, 200 }, { "nginx/1.22.1", NULL, 401 },
	{ "nginx/1.22.1", "", 401 }, { "nginx", NULL, 401 },
	{ "nginx/1.22.1", "Basic", 200 },
};

START_TEST(nginx_must_say_that_it_has_checked_who_it_is)
{
	struct client *c = request("GET", LIST);

	conf.owner_by = OWNER_BY_SERVER;
	fake_client_env(c, "REMOTE_USER", "ann");
	if (servers[_i].software != NULL)
		fake_client_env(c, "SERVER_SOFTWARE", servers[_i].software);
	if (servers[_i].type != NULL)
		fake_client_env(c, "AUTH_TYPE", servers[_i].type);
	ck_assert_int_eq(serve(c), servers[_i].status);
}
END_TEST

/* ---- foreign pages ---- */

static const struct {
	const char *method, *path;
	bool acts;
} acts[] = {
	{ "GET", S "?message=x", true }, { "POST", S "?message=x", true },
	{ "DELETE", LIST "/x", true }, { "POST", LIST "/x/stop", true },
	{ "POST", LIST "/x/link", true },
	{ "DELETE", "/convo_history?sessionId=s", true },
	{ "GET", S "?stream_id=x", false }, { "GET", LIST "/x", false },
	{ "GET", LIST, false }, { "GET", "/convo_history?sessionId=s", false },
};

/* How the owner is known; and whether a page can make a browser say so. */
static int
page_asks(int i, int how, const char *name, const char *value)
{
	struct client *c = request(acts[i].method, acts[i].path);
	char line[1024];

	conf.owner_by = how == 0 ? OWNER_BY_SERVER : OWNER_BY_JWT;
	conf.jwt_cookie = (char *)"s";
	snprintf(line, sizeof line, "%s%s", how == 1 ? "s=" : "Bearer ",
	    ann());
	fake_client_env(c, how == 0 ? "REMOTE_USER" : how == 1 ?
	    "HTTP_COOKIE" : "HTTP_AUTHORIZATION", how == 0 ? "ann" : line);
	fake_client_env(c, "HTTP_HOST", "me.example");
	fake_client_env(c, name, value);
	return serve(c);
}

START_TEST(what_a_browser_says_of_itself_serves_no_foreign_page)
{
	int how;

	for (how = 0; how < 3; how++) {
		bool refused = acts[_i].acts && how < 2;

		ck_assert_int_eq(page_asks(_i, how, "HTTP_ORIGIN",
		    "https://evil.example") == 403, refused);
		ck_assert_str_eq(fake_header("Access-Control-Allow-Origin"),
		    "*");
		ck_assert_str_eq(
		    fake_header("Access-Control-Allow-Credentials"), "");
		ck_assert_int_eq(page_asks(_i, how, "HTTP_ORIGIN", "null") ==
		    403, refused);
		ck_assert_int_eq(page_asks(_i, how, "HTTP_ORIGIN", "*") ==
		    403, false); /* no browser says that */
		ck_assert_int_eq(page_asks(_i, how, "HTTP_SEC_FETCH_SITE",
		    "cross-site") == 403, refused);
		ck_assert_int_eq(page_asks(_i, how, "HTTP_SEC_FETCH_SITE",
		    "same-site") == 403, refused);
		ck_assert_int_eq(page_asks(_i, how, "HTTP_REFERER",
		    "http://evil.example/page") == 403, refused);
		ck_assert_int_eq(page_asks(_i, how, "HTTP_REFERER",
		    "http://me.example.evil") == 403, refused);
		ck_assert_int_ne(page_asks(_i, how, "HTTP_REFERER",
		    "http://me.example/chat?a=http://evil.example"), 403);
		ck_assert_int_ne(page_asks(_i, how, "HTTP_SEC_FETCH_SITE",
		    "none"), 403);
		ck_assert_int_ne(page_asks(_i, how, "HTTP_ORIGIN",
		    "https://me.example"), 403);
		ck_assert_int_ne(page_asks(_i, how, "HTTP_SEC_FETCH_SITE",
		    "same-origin"), 403);
		conf.cors_origins = (char *)"https://evil.example";
		ck_assert_int_ne(page_asks(_i, how, "HTTP_ORIGIN",
		    "https://evil.example"), 403);
		conf.cors_origins = (char *)"*";
	}
}
END_TEST

/* ---- the key ---- */

static const struct {
	const char *algorithm, *key, *fault;	/* NULL: none */
} keys[] = {
	{ "HS256", SECRET, NULL },
	{ "HS256", SECRET "\r\n", NULL },
	{ "HS256", "0123456789abcdef0123456789abcde\n", "32 bytes" },
	{ "HS256", "", "32 bytes" },
	{ "HS256", rs256_key, "another jwt_algorithm" },
	{ "RS256", rs256_key, NULL },
	{ "ES256", es256_key, NULL },
	/* The same point, in its short form; a key of 4096 bits begins so. */
	{ "ES256", "-----BEGIN PUBLIC KEY-----\n"
	    "MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgADOFBiNHZORfya7ZV/uB8pLI07gu0c\n"
	    "N4lyXGzz/r0BqtE=\n-----END PUBLIC KEY-----\n", NULL },
	{ "RS256", "some text\n-----BEGIN PUBLIC KEY-----\r\n"
	    "MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEA", NULL },
	{ "RS256", es256_key, "public key" },
	{ "ES256", rs256_key, "public key" },
	{ "RS256", SECRET, "public key" },
	{ "RS256", "", "public key" },
	{ "RS256", "-----BEGIN PUBLIC KEY-----", "public key" },
	{ "RS256", "-----BEGIN PUBLIC KEY-----\nMII", "public key" },
	{ "RS256", "-----BEGIN RSA PRIVATE KEY-----\n", "public key" },
	/* P-384; RSA with 1024 bits. */
	{ "ES256", "-----BEGIN PUBLIC KEY-----\n"
	    "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE", "P-256" },
	{ "RS256", "-----BEGIN PUBLIC KEY-----\n"
	    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQ", "2048" },
};

static enum rs_err
key_load(const char *algorithm, struct buf *why)
{
	const struct reload_kind *kind;
	void *value = NULL;
	enum rs_err err;

	conf.jwt_algorithm = (char *)algorithm;
	kind = auth_key_kind(&conf);
	buf_init(why, 4096);
	err = kind->load(key_file, &value, why);
	ck_assert_int_eq(err == RS_OK, value != NULL);
	kind->free(value);
	return err;
}

START_TEST(a_key_must_fit_its_algorithm)
{
	struct buf why;
	enum rs_err err;

	file_write(key_file, keys[_i].key);
	ck_assert_int_eq(chmod(key_file, 0600), 0);
	err = key_load(keys[_i].algorithm, &why);
	ck_assert_int_eq(err == RS_OK, keys[_i].fault == NULL);
	if (keys[_i].fault == NULL) {
		ck_assert_uint_eq(why.len, 0);
	} else {
		ck_assert_ptr_nonnull(strstr(why.data, keys[_i].fault));
		ck_assert_ptr_nonnull(strstr(why.data, key_file));
		ck_assert_ptr_null(strstr(why.data, "0123456789"));
	}
	buf_done(&why);
}
END_TEST

START_TEST(a_key_that_others_can_write_is_none)
{
	struct buf why;

	ck_assert_int_eq(chmod(key_file, 0620), 0);
	ck_assert_int_eq(key_load("HS256", &why), RS_EPERM);
	buf_done(&why);
	ck_assert_int_eq(unlink(key_file), 0);
	ck_assert_int_eq(key_load("HS256", &why), RS_ENOENT);
	buf_done(&why);
}
END_TEST

START_TEST(a_new_key_is_used_at_once_and_a_bad_one_never)
{
	ck_assert_int_eq(ask_as("GET", LIST, ann()), 200);
	use_key("HS256", "another secret of thirty-two bytes and more");
	assert_refused(ask_as("GET", LIST, ann()), INVALID);
	file_write(key_file, SECRET "\n");
	ck_assert_int_eq(ask_as("GET", LIST, ann()), 200);
	file_write(key_file, "short");
	ck_assert_int_eq(ask_as("GET", LIST, ann()), 200);
}
END_TEST

START_TEST(without_a_key_nobody_is_let_in)
{
	use_key("HS256", _i == 0 ? "short" : "");
	if (_i == 2)
		ck_assert_int_eq(unlink(key_file), 0);
	ck_assert_int_eq(ask_as("GET", LIST, ann()), 500);
	ck_assert_int_eq(ask_as("GET", LIST, "x.y.z"), 500);
	ck_assert_int_eq(ask_as("GET", LIST, token_by(HS256, ANN, "")), 500);
	ck_assert_int_eq(ask_as("GET", LIST, NULL), 500);
	ck_assert_int_eq(ask_as("GET", "/health", NULL), 200);
}
END_TEST

/* ---- another's object ---- */

static void
stream_make(const char *owner, const char *id)
{
	struct stream_head h = { .model = "demo", .created_ms = 1000,
	    .request = "abcd", .socket = "s-0123456789abcdef.sock" };
	struct spool_writer *w;
	struct stream_key k;
	struct buf b;

	strcpy(h.owner, owner);
	stream_key(&k, owner, id);
	ck_assert_int_eq(spool_create(responder.spool, &k, &h, &w), RS_OK);
	buf_init(&b, 4096);
	sse_frame_begin(&b, "done", 0);
	buf_puts(&b, "{\"finish_reason\":\"stop\"}");
	sse_frame_end(&b);
	ck_assert_int_eq(spool_append(w, b.data, b.len), RS_OK);
	spool_writer_free(w);
	buf_done(&b);
}

/* Whether a name's directory is there depends on what else is in it. */
static void
shards_make(const char *name)
{
	char path[200];
	int i;

	snprintf(path, sizeof path, "%s/%s", spool_dir, name);
	mkdir(path, 0700);
	for (i = 0; i < 256; i++) {
		snprintf(path, sizeof path, "%s/%s/%02x", spool_dir, name, i);
		mkdir(path, 0700);
	}
}

static void
session_make(const char *owner, const char *session)
{
	char path[300], name[120], hex[SHA256_HEX_SIZE];
	struct stream_key k;

	stream_key(&k, owner, session);
	snprintf(name, sizeof name, "%s-%s.jsonl", k.owner_hash, k.id);
	sha256_hex(name, strlen(name), hex);
	snprintf(path, sizeof path, "%s/conversations/%.2s/%s", spool_dir, hex,
	    name);
	file_write(path, "{\"turn\":1,\"role\":\"user\",\"stream_id\":\"x\","
	    "\"content\":\"secret\"}\n{\"turn\":1,\"role\":\"assistant\","
	    "\"stream_id\":\"x\",\"finish_reason\":\"stop\","
	    "\"content\":\"secret\"}\n");
}

static const struct {
	const char *method, *path;	/* @: what is asked for */
	int mine, others;
} verbs[] = {
	{ "GET", S "?stream_id=@", 200, 404 },
	{ "POST", S "?stream_id=@", 200, 404 },
	{ "GET", S "?stream_id=@&last_event_id=0", 204, 404 },
	{ "GET", S "?stream_id=@&last_event_id=0&message=x", 204, 404 },
	{ "GET", LIST "/@", 200, 404 },
	{ "HEAD", LIST "/@", 200, 404 },
	{ "POST", LIST "/@/stop", 200, 404 },
	{ "POST", LIST "/@/link", 200, 404 },
	{ "DELETE", LIST "/@", 204, 404 },
	{ "GET", LIST "?before=@", 200, 404 },
	{ "GET", "/convo_turn_stream?stream_id=@", 409, 404 },
	{ "GET", "/convo_turn_stream?sessionId=@", 204, 204 },
	{ "GET", "/convo_history?sessionId=@", 200, 404 },
	{ "DELETE", "/convo_history?sessionId=@", 204, 404 },
	/* With a link that is none. */
	{ "GET", S "?stream_id=@&link=1.2.3", 404, 404 },
	{ "GET", LIST "/@?link=ffffffff.0123456789abcdef."
	    "0123456789abcdef0123456789abcdef", 404, 404 },
};

/* One request: its status; the answer is in fake_answer, what the file system
 * was asked in calls. */
static int
look(int i, const char *name, const char *owner)
{
	const char *at = strchr(verbs[i].path, '@');
	char path[200], text[100];
	struct client *c;
	char line[1024];
	int status;

	snprintf(path, sizeof path, "%.*s%s%s", (int)(at - verbs[i].path),
	    verbs[i].path, name, at + 1);
	snprintf(text, sizeof text, "{\"sub\":\"%s\",\"exp\":1900000001}",
	    owner);
	snprintf(line, sizeof line, "Bearer %s", token_by(HS256, text,
	    SECRET));
	c = request(verbs[i].method, path);
	fake_client_env(c, "HTTP_AUTHORIZATION", line);
	buf_clear(&calls);
	recording = true;
	status = serve(c);
	recording = false;
	return status;
}

START_TEST(anothers_object_looks_exactly_like_a_missing_one)
{
	struct buf bytes, trace;

	shards_make("streams");
	shards_make("conversations");
	stream_make("ann", "x");
	session_make("ann", "x");
	ck_assert_int_eq(link_secret_make(responder.spool), RS_OK);
	buf_init(&bytes, 1 << 20);
	buf_init(&trace, 1 << 20);
	(void)look(_i, "y", "ben"); /* the key has been read now */
	ck_assert_int_eq(look(_i, "y", "ben"), verbs[_i].others);
	buf_add(&bytes, fake_answer.out.data, fake_answer.out.len);
	if (calls.len > 0)
		buf_add(&trace, calls.data, calls.len);
	ck_assert_int_eq(look(_i, "x", "ben"), verbs[_i].others);
	ck_assert_uint_eq(bytes.len, fake_answer.out.len);
	ck_assert_mem_eq(bytes.data, fake_answer.out.data, bytes.len);
	ck_assert_uint_gt(calls.len, 0);
	ck_assert_str_eq(trace.data, calls.data);
	ck_assert_uint_eq(fake_wake.starts + fake_wake.stops +
	    fake_wake.deletes + fake_wake.seals + fake_wake.follows, 0);
	/* Who may, sees it, and the file system is asked for more. */
	ck_assert_int_eq(look(_i, "x", "ann"), verbs[_i].mine);
	ck_assert(verbs[_i].mine == verbs[_i].others ||
	    strcmp(trace.data, calls.data) != 0);
	buf_done(&bytes);
	buf_done(&trace);
}
END_TEST

#define ROWS(a) (int)(sizeof(a) / sizeof(a)[0])

int
main(void)
{
	Suite *s = suite_create("auth");
	TCase *tc = tcase_create("auth");
	SRunner *sr;
	int failed;

#ifndef HAVE_LIBJWT
	return 77; /* there are no tokens */
#endif
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(s, tc);
	tcase_add_loop_test(tc, a_good_token_lets_its_sub_in, 0, ROWS(good));
	tcase_add_loop_test(tc,
	    a_token_is_refused_where_the_algorithm_is_another, 0, ROWS(good));
	tcase_add_loop_test(tc, a_public_key_is_no_secret, 1, ROWS(good));
	tcase_add_loop_test(tc, a_token_that_is_cut_anywhere_is_refused, 0,
	    ROWS(good));
	tcase_add_test(tc, a_token_that_is_changed_anywhere_is_refused);
	tcase_add_loop_test(tc, a_token_has_one_form, 0, ROWS(good));
	tcase_add_loop_test(tc, a_tokens_claims_are_checked, 0, ROWS(claims));
	tcase_add_loop_test(tc, a_token_is_for_our_audience, 0,
	    ROWS(audiences));
	tcase_add_loop_test(tc, a_token_with_another_head_is_refused, 0,
	    ROWS(heads));
	tcase_add_loop_test(tc, garbage_is_refused, 0, ROWS(garbage));
	tcase_add_loop_test(tc, a_cookie_may_hold_the_token, 0,
	    ROWS(cookies));
	tcase_add_test(tc,
	    a_cookie_or_parameter_that_is_not_configured_is_not_looked_at);
	tcase_add_test(tc, the_body_of_strangers_is_not_read);
	tcase_add_loop_test(tc, every_route_is_for_users_but_the_open_ones, 0,
	    ROWS(routes));
	tcase_add_loop_test(tc, whom_the_web_server_names_is_the_owner, 0,
	    ROWS(users));
	tcase_add_loop_test(tc,
	    nginx_must_say_that_it_has_checked_who_it_is, 0, ROWS(servers));
	tcase_add_loop_test(tc,
	    what_a_browser_says_of_itself_serves_no_foreign_page, 0,
	    ROWS(acts));
	tcase_add_loop_test(tc, a_key_must_fit_its_algorithm, 0, ROWS(keys));
	tcase_add_test(tc, a_key_that_others_can_write_is_none);
	tcase_add_test(tc, a_new_key_is_used_at_once_and_a_bad_one_never);
	tcase_add_loop_test(tc, without_a_key_nobody_is_let_in, 0, 3);
	tcase_add_loop_test(tc,
	    anothers_object_looks_exactly_like_a_missing_one, 0, ROWS(verbs));
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
