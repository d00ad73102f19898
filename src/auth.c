/* auth.c - who makes a request.
 *
 * libjwt brings libcrypto and jansson along, which would cost each responder
 * more memory than all the rest of it; so it is loaded only where tokens are
 * looked at. */
#ifdef HAVE_LIBJWT
#include <dlfcn.h>
#include <jwt.h>
#endif
#include <json-c/json.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth.h"
#include "clock.h"
#include "jx.h"
#include "log.h"

#define TOKEN_MAX 16384
#define KEY_FILE_MAX 16384
#define SECRET_MIN 32	/* bytes, of HS256: as many as its hash has */
#define ALGORITHM_MAX 5

struct key {
	char algorithm[ALGORITHM_MAX + 1];
	struct buf data;
};

/* ---- libjwt ---- */

#ifdef HAVE_LIBJWT
#define JWT_FUNCTIONS(X) \
	X(jwt_decode) X(jwt_free) X(jwt_get_alg) X(jwt_alg_str) \
	X(jwt_get_grants_json) X(jwt_get_headers_json)

static struct {
	bool loaded;
#define MEMBER(name) __typeof__(&(name)) name;
	JWT_FUNCTIONS(MEMBER)
#undef MEMBER
} lib;

/* Of the versions that have the interface of our jwt.h. */
static const char *const lib_names[] = { "libjwt.so.0", "libjwt.so.1",
    "libjwt.so.2" };

static void
lib_load(void)
{
	void *so = NULL;
	size_t i;

	for (i = 0; so == NULL && i < sizeof lib_names / sizeof lib_names[0];
	    i++)
		so = dlopen(lib_names[i], RTLD_NOW | RTLD_LOCAL);
	if (so == NULL)
		return;
	lib.loaded = true;
#define FIND(name) \
	*(void **)&lib.name = dlsym(so, #name); \
	lib.loaded = lib.loaded && lib.name != NULL;
	JWT_FUNCTIONS(FIND)
#undef FIND
}

static bool
lib_ready(struct buf *why)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, lib_load);
	if (!lib.loaded)
		buf_puts(why, "auth = jwt needs libjwt (libjwt.so.0), which "
		    "cannot be loaded; Debian's package is libjwt0\n");
	return lib.loaded;
}

/* The claims of a token that the key has signed, with its own algorithm and no
 * other: what the token's head says is compared, never obeyed.  RS_OK, or what
 * is not to be believed. */
static enum rs_err
token_verify(const char *token, const struct key *key,
    struct json_object **ret)
{
	char *claims = NULL, *crit;
	const char *alg, *why;
	enum rs_err err = RS_EINVAL;
	jwt_t *jwt = NULL;

	if (lib.jwt_decode(&jwt, token, (const unsigned char *)key->data.data,
	    (int)key->data.len) != 0)
		return RS_EINVAL;
	alg = lib.jwt_alg_str(lib.jwt_get_alg(jwt));
	/* What "crit" names must be understood, and we know of nothing. */
	crit = lib.jwt_get_headers_json(jwt, "crit");
	if (alg != NULL && strcmp(alg, key->algorithm) == 0 && crit == NULL &&
	    (claims = lib.jwt_get_grants_json(jwt, NULL)) != NULL)
		err = jx_parse(claims, strlen(claims), ret, &why);
	free(claims);
	free(crit);
	lib.jwt_free(jwt);
	return err;
}
#else
static bool
lib_ready(struct buf *why)
{
	buf_puts(why, "auth = jwt needs libjwt, which this respool was built "
	    "without\n");
	return false;
}

static enum rs_err
token_verify(const char *token, const struct key *key,
    struct json_object **ret)
{
	(void)token;
	(void)key;
	(void)ret;
	return RS_EINVAL;
}
#endif

/* ---- the key ---- */

/* What every key of that kind begins with in base64, as its numbers say what it
 * is; '?' is any character, as there its length stands. */
static const struct {
	const char *algorithm, *begin, *what;
} pem_keys[] = {
	{ "RS256", "MII???ANBgkqhkiG9w0BAQEFAAOC",
	    "RSA with 2048 bits or more" },
	{ "ES256", "M?kwEwYHKoZIzj0CAQYIKoZIzj0DAQcD",
	    "the elliptic curve P-256" },
};

static bool
begins(const char *p, const char *pattern)
{
	for (; *pattern != '\0'; p++, pattern++)
		if (*p == '\0' || (*pattern != '?' && *p != *pattern))
			return false;
	return true;
}

/* NULL: it fits the algorithm; else what does. */
static const char *
key_fault(const struct key *k)
{
	static const char begin[] = "-----BEGIN ";
	static const char pem[] = "-----BEGIN PUBLIC KEY-----";
	const char *at = NULL;
	size_t i;

	if (strcmp(k->algorithm, "HS256") == 0) {
		/* A public key as the secret: everybody could sign. */
		if (k->data.len > 0 && memmem(k->data.data, k->data.len,
		    begin, sizeof begin - 1) != NULL)
			return "a secret, and this is a key for another "
			    "jwt_algorithm";
		return k->data.len >= SECRET_MIN ? NULL :
		    "a secret of at least 32 bytes";
	}
	if (k->data.len > 0)
		at = memmem(k->data.data, k->data.len, pem, sizeof pem - 1);
	if (at != NULL) {
		at += sizeof pem - 1;
		at += strspn(at, " \t\r\n");
	}
	for (i = 0; strcmp(pem_keys[i].algorithm, k->algorithm) != 0; i++)
		continue;
	return at != NULL && begins(at, pem_keys[i].begin) ? NULL :
	    pem_keys[i].what;
}

static void
key_free(void *value)
{
	struct key *k = value;

	if (k == NULL)
		return;
	if (k->data.len > 0)
		explicit_bzero(k->data.data, k->data.len);
	buf_done(&k->data);
	free(k);
}

static enum rs_err
key_load(const char *path, const char *algorithm, void **ret, struct buf *why)
{
	struct key *k = calloc(1, sizeof *k);
	const char *wanted;
	struct stat st;
	enum rs_err err = RS_ENOMEM;

	if (k == NULL)
		return err;
	buf_init(&k->data, KEY_FILE_MAX);
	strcpy(k->algorithm, algorithm);
	err = RS_EINVAL;
	if (!lib_ready(why))
		goto out;
	if ((err = conf_read_file(path, &k->data, why)) != RS_OK)
		goto out;
	/* An editor's line end is no part of a secret. */
	while (k->data.len > 0 && (k->data.data[k->data.len - 1] == '\n' ||
	    k->data.data[k->data.len - 1] == '\r'))
		k->data.data[--k->data.len] = '\0';
	if ((wanted = key_fault(k)) != NULL) {
		buf_printf(why, "%s: %s needs %s%s\n", path, algorithm,
		    strcmp(algorithm, "HS256") == 0 ? "" :
		    "a public key (PEM, BEGIN PUBLIC KEY) of ", wanted);
		err = RS_EINVAL;
		goto out;
	}
	if (strcmp(algorithm, "HS256") == 0 && stat(path, &st) == 0 &&
	    (st.st_mode & S_IROTH) != 0)
		buf_printf(why, "%s: everybody here can read this secret; take "
		    "that away with chmod o-r\n", path);
	*ret = k;
	k = NULL;
out:
	key_free(k);
	return err;
}

#define KIND(name) \
static enum rs_err \
load_##name(const char *path, void **ret, struct buf *why) \
{ \
	return key_load(path, #name, ret, why); \
}
KIND(HS256)
KIND(RS256)
KIND(ES256)
#undef KIND

const struct reload_kind *
auth_key_kind(const struct conf *c)
{
	static const char what[] = "the key for tokens";
	static const struct reload_kind kinds[] = {
		{ what, load_HS256, key_free },
		{ what, load_RS256, key_free },
		{ what, load_ES256, key_free },
	};

	return &kinds[strcmp(c->jwt_algorithm, "RS256") == 0 ? 1 :
	    strcmp(c->jwt_algorithm, "ES256") == 0 ? 2 : 0];
}

/* ---- what a token says ---- */

/* Three parts of base64url: libjwt passes over what does not belong there,
 * and one token must not have many forms. */
static bool
token_form_ok(const char *token, size_t len)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "abcdefghijklmnopqrstuvwxyz0123456789-_";
	const char *p = token;
	size_t part, n;

	for (part = 0; part < 3; part++) {
		n = strspn(p, letters);
		if (n == 0 || n % 4 == 1 || p[n] != (part < 2 ? '.' : '\0'))
			return false;
		p += n + 1;
	}
	return p - 1 == token + len && len <= TOKEN_MAX;
}

/* A time in seconds.  False: it is there, or must be, and is none. */
static bool
time_read(struct json_object *claims, const char *name, bool needed,
    double *ret)
{
	struct json_object *o;

	if (!json_object_object_get_ex(claims, name, &o))
		return !needed;
	if (!json_object_is_type(o, json_type_int) &&
	    !json_object_is_type(o, json_type_double))
		return false;
	*ret = json_object_get_double(o);
	return true;
}

static bool
is_text(struct json_object *o, const char *text)
{
	return json_object_is_type(o, json_type_string) &&
	    (size_t)json_object_get_string_len(o) == strlen(text) &&
	    strcmp(json_object_get_string(o), text) == 0;
}

static bool
audience_ok(struct json_object *claims, const char *audience)
{
	struct json_object *aud;
	size_t i, n;

	if (audience[0] == '\0')
		return true;
	if (!json_object_object_get_ex(claims, "aud", &aud))
		return false;
	if (!json_object_is_type(aud, json_type_array))
		return is_text(aud, audience);
	n = json_object_array_length(aud);
	for (i = 0; i < n; i++)
		if (is_text(json_object_array_get_idx(aud, i), audience))
			return true;
	return false;
}

/* The sub, lent; NULL: these claims do not let anybody in now. */
static const char *
claims_owner(struct json_object *claims, const struct conf *c)
{
	double now = (double)clock_wall_ms() / 1000, exp = 0, nbf = 0;
	const char *sub;
	size_t len;

	if (!json_object_is_type(claims, json_type_object) ||
	    !time_read(claims, "exp", true, &exp) || !(now < exp) ||
	    !time_read(claims, "nbf", false, &nbf) || !(now >= nbf) ||
	    !audience_ok(claims, c->jwt_audience) ||
	    jx_get_str(claims, "sub", &sub, &len) != RS_OK ||
	    !spool_owner_valid(sub, len))
		return NULL;
	return sub;
}

static enum auth_result
token_owner(struct request *rq, const char *token, size_t len)
{
	const struct key *key = reload_use(rq->r->jwt_key);
	struct json_object *claims = NULL;
	enum auth_result got = AUTH_REFUSED;
	const char *sub;

	if (key == NULL) {
		got = AUTH_UNABLE;
	} else if (token_form_ok(token, len) &&
	    token_verify(token, key, &claims) == RS_OK &&
	    (sub = claims_owner(claims, rq->r->conf)) != NULL) {
		strcpy(rq->owner, sub);
		got = AUTH_OK;
	}
	reload_done(rq->r->jwt_key);
	json_object_put(claims);
	return got;
}

/* ---- where it is ---- */

/* The value of a cookie, copied; NULL: there is none of that name (or no
 * memory). */
static char *
cookie_find(const char *cookies, const char *name)
{
	size_t n = strlen(name), len;

	if (cookies == NULL || n == 0)
		return NULL;
	for (;;) {
		cookies += strspn(cookies, " \t;");
		len = strcspn(cookies, ";");
		if (len == 0)
			return NULL;
		if (len > n && memcmp(cookies, name, n) == 0 &&
		    cookies[n] == '=')
			break;
		cookies += len;
	}
	cookies += n + 1;
	len -= n + 1;
	while (len > 0 && strchr(" \t", cookies[len - 1]) != NULL)
		len--;
	return strndup(cookies, len);
}

static enum auth_result
jwt_owner(struct request *rq)
{
	static const char bearer[] = "Bearer ";
	const struct conf *c = rq->r->conf;
	const char *s = client_env(rq->c, "HTTP_AUTHORIZATION");
	enum auth_result got;
	char *cookie;
	size_t len;

	if (s != NULL && strncasecmp(s, bearer, sizeof bearer - 1) == 0) {
		s += sizeof bearer - 1;
		s += strspn(s, " ");
		return token_owner(rq, s, strlen(s));
	}
	cookie = cookie_find(client_env(rq->c, "HTTP_COOKIE"), c->jwt_cookie);
	if (cookie != NULL) {
		got = token_owner(rq, cookie, strlen(cookie));
		free(cookie);
		rq->ambient = true;
		return got;
	}
	if (auth_by_parameter(c) && rq->params != NULL) {
		switch (params_str(rq->params, c->jwt_parameter, &s, &len)) {
		case RS_OK:
			return token_owner(rq, s, len);
		case RS_ENOENT:
			break;
		default:
			return AUTH_REFUSED;
		}
	}
	/* Where no token could be checked, that is not the caller's fault. */
	got = reload_use(rq->r->jwt_key) != NULL ? AUTH_NOBODY : AUTH_UNABLE;
	reload_done(rq->r->jwt_key);
	return got;
}

bool
auth_by_parameter(const struct conf *c)
{
	return c->owner_by == OWNER_BY_JWT && c->jwt_parameter[0] != '\0';
}

/* nginx takes REMOTE_USER from the credentials that a client sends, also where
 * nobody checks them.  Whoever has it check them says so with AUTH_TYPE, which
 * other servers set by themselves. */
static bool
server_checks(const struct client *c)
{
	static atomic_flag told = ATOMIC_FLAG_INIT;
	const char *software = client_env(c, "SERVER_SOFTWARE");
	const char *type = client_env(c, "AUTH_TYPE");

	if (software == NULL || strncmp(software, "nginx", 5) != 0 ||
	    (type != NULL && type[0] != '\0'))
		return true;
	if (!atomic_flag_test_and_set(&told))
		log_warn("auth", "refused users of nginx without AUTH_TYPE "
		    "pid=%d; see OPERATIONS.md", (int)getpid());
	return false;
}

static enum auth_result
server_owner(struct request *rq)
{
	const char *user = client_env(rq->c, "REMOTE_USER");

	if (user == NULL || !spool_owner_valid(user, strlen(user)) ||
	    !server_checks(rq->c))
		return AUTH_NOBODY;
	strcpy(rq->owner, user);
	rq->ambient = true;
	return AUTH_OK;
}

static enum auth_result
request_owner(struct request *rq)
{
	static const char *const names[] = { "user_id", "userId" };
	const char *owner = NULL, *s;
	size_t i, owner_len = 0, len;
	enum rs_err err;

	if (rq->params == NULL)
		return AUTH_OK;
	for (i = 0; i < 2; i++) {
		err = params_str(rq->params, names[i], &s, &len);
		if (err == RS_ENOENT)
			continue;
		if (err != RS_OK || !spool_owner_valid(s, len))
			return AUTH_INVALID;
		if (owner != NULL && (len != owner_len ||
		    memcmp(s, owner, len) != 0))
			return AUTH_INVALID;
		owner = s;
		owner_len = len;
	}
	strcpy(rq->owner, owner != NULL ? owner : OWNER_ANONYMOUS);
	return AUTH_OK;
}

enum auth_result
auth_owner(struct request *rq)
{
	switch (rq->r->conf->owner_by) {
	case OWNER_BY_SERVER:
		return server_owner(rq);
	case OWNER_BY_JWT:
		return jwt_owner(rq);
	default:
		return request_owner(rq);
	}
}
