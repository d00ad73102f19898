/* conf.c - respool.conf and the environment.
 *
 * libinih splits the lines.  What it would take beyond `name = value` and
 * `#` comments (sections, ':', ';' comments, continued lines, the cutting of
 * long lines) never reaches it: see next_line. */
#include <sys/stat.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "address.h"
#include "conf.h"
#include "fdio.h"
#include "money.h"

#define FILE_SIZE_MAX (1 << 20)
#define LINE_SIZE 8192 /* longest line, and what libinih wants beside it */
#define PRINT_SIZE_MAX (1 << 18)
#define ENV_PREFIX "RESPOOL_"
#define ENV_NAME_SIZE 64

enum conf_type {
	CONF_STRING, CONF_PATH, CONF_WORDS, CONF_SECONDS, CONF_BYTES,
	CONF_COUNT, CONF_USD, CONF_AUTO,
};

#define DEF_STRING(def) .def_text = (def)
#define DEF_PATH(def) .def_text = (def)
#define DEF_WORDS(def) .def_text = (def)
#define DEF_SECONDS(def) .def_num = (def)
#define DEF_BYTES(def) .def_num = (def)
#define DEF_COUNT(def) .def_num = (def)
#define DEF_USD(def) .def_num = (def)
#define DEF_AUTO(def) .def_num = CONF_IS_AUTO

static const struct row {
	const char *name;
	enum conf_type type;
	size_t off;		/* of its field in struct conf */
	uint64_t min, max;	/* of the number, or of the length */
	const char *def_text;
	uint64_t def_num;
} rows[] = {
#define CONF(name, type, def, min, max, text) \
	{ #name, CONF_##type, offsetof(struct conf, name), min, max, \
	    DEF_##type(def) },
#include "conf_table.h"
#undef CONF
};
#define ROW_COUNT (sizeof rows / sizeof rows[0])

static const char *const log_levels[] = {
	[LOGL_ERROR] = "error", [LOGL_WARN] = "warn", [LOGL_INFO] = "info",
	[LOGL_DEBUG] = "debug", NULL
};
static const char *const shared_fs_words[] = { "no", "one-host", NULL };
static const char *const yes_no_words[] = { "yes", "no", NULL };
static const char *const turns_words[] = { "wait", "conflict", NULL };
static const char *const abandon_words[] = {
	[ABANDON_CONTINUE] = "continue", [ABANDON_STOP] = "stop",
	[ABANDON_CAP] = "cap", NULL
};
static const char *const auth_words[] = {
	[OWNER_BY_REQUEST] = "none", [OWNER_BY_SERVER] = "remote_user",
	[OWNER_BY_JWT] = "jwt", NULL
};
static const char *const jwt_words[] = { "HS256", "RS256", "ES256", NULL };

static const struct choice {
	const char *name;
	const char *const *words;
	const char *fault;
} choices[] = {
	{ "log_level", log_levels, "must be error, warn, info or debug" },
	{ "spool_shared_fs", shared_fs_words, "must be no or one-host" },
	{ "flush_by_close", yes_no_words, "must be yes or no" },
	{ "turns_at_once", turns_words, "must be wait or conflict" },
	{ "auth", auth_words, "must be none, remote_user or jwt" },
	{ "jwt_algorithm", jwt_words, "must be HS256, RS256 or ES256" },
	{ "sandbox", yes_no_words, "must be yes or no" },
	{ "syslog", yes_no_words, "must be yes or no" },
	{ "abandon", abandon_words, "must be continue, stop or cap" },
};
#define CHOICE_COUNT (sizeof choices / sizeof choices[0])

/* What is being read, and where in it we are. */
struct loader {
	struct conf *conf;
	struct buf *why;
	bool faulty;
	const char *env;	/* the variable; NULL: in the file */
	char *dir;		/* the file's */
	const char *p, *end;	/* the rest of the file */
	unsigned line;
	unsigned set_at[ROW_COUNT]; /* the line that set it; 0: none */
};

static bool
is_text(enum conf_type type)
{
	return type == CONF_STRING || type == CONF_PATH || type == CONF_WORDS;
}

static char **
text_field(const struct conf *c, const struct row *row)
{
	return (char **)((char *)c + row->off);
}

static uint64_t *
number_field(const struct conf *c, const struct row *row)
{
	return (uint64_t *)((char *)c + row->off);
}

static void fault(struct loader *l, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void
fault(struct loader *l, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (l->env != NULL)
		buf_printf(l->why, "%s: %s\n", l->env, text);
	else
		buf_printf(l->why, "%s:%u: %s\n", l->conf->file, l->line, text);
	l->faulty = true;
}

/* dir/path; dir NULL is the working directory.  NULL with errno set. */
static char *
absolute(const char *dir, const char *path)
{
	char *cwd = NULL, *ret;

	if (path[0] == '/')
		return strdup(path);
	if (dir == NULL && (dir = cwd = getcwd(NULL, 0)) == NULL)
		return NULL;
	if (asprintf(&ret, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir, path) < 0)
		ret = NULL;
	free(cwd);
	return ret;
}

/* An origin as browsers send it, scheme://host[:port], or nothing would ever
 * equal it. */
static const char *
origins_fault(const char *value)
{
	static const char host[] = "abcdefghijklmnopqrstuvwxyz0123456789"
	    "-._~%[]:";
	const char *p = value + strspn(value, " ");
	bool all = false;
	size_t len, count = 0;

	for (; *p != '\0'; p += strspn(p, " "), count++) {
		len = strcspn(p, " ");
		if (len == 1 && *p == '*') {
			all = true;
			p++;
			continue;
		}
		if (strncmp(p, "https://", 8) == 0)
			p += 8, len -= 8;
		else if (strncmp(p, "http://", 7) == 0)
			p += 7, len -= 7;
		else
			return "must hold origins as https://host or "
			    "http://host:port, or *";
		if (len == 0 || strspn(p, host) != len)
			return "must hold origins with a host and a port at "
			    "most, in lower case, with spaces between them";
		p += len;
	}
	return all && count > 1 ? "must be * alone, or a list without it" :
	    NULL;
}

/* The C library takes any name, and UTC for one that it does not know. */
static const char *
zone_fault(const char *value)
{
	static const char name[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "abcdefghijklmnopqrstuvwxyz0123456789_+-/";
	char path[128], magic[4];
	bool good = false;
	int fd;

	if (strcmp(value, "UTC") == 0)
		return NULL;
	snprintf(path, sizeof path, "/usr/share/zoneinfo/%s", value);
	if (value[strspn(value, name)] == '\0' &&
	    (fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0) {
		good = read(fd, magic, sizeof magic) == sizeof magic &&
		    memcmp(magic, "TZif", sizeof magic) == 0;
		close(fd);
	}
	return good ? NULL : "must be a file below /usr/share/zoneinfo, as in "
	    "Europe/Berlin";
}

/* A cookie's name as it may stand in a header, and a parameter's likewise. */
static const char *
name_fault(const char *value)
{
	static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~";

	return value[strspn(value, good)] == '\0' ? NULL :
	    "must be a name, without spaces and ; or =";
}

/* What is wrong with a text setting, but for its length; or NULL. */
static const char *
text_fault(const struct row *row, const char *value)
{
	const struct choice *c;
	const char *const *word;
	size_t len = strlen(value);

	for (c = choices; c < choices + CHOICE_COUNT; c++) {
		if (strcmp(c->name, row->name) != 0)
			continue;
		for (word = c->words; *word != NULL; word++)
			if (strcmp(*word, value) == 0)
				return NULL;
		return c->fault;
	}
	if (strcmp(row->name, "cors_origins") == 0)
		return origins_fault(value);
	if (strcmp(row->name, "day_zone") == 0)
		return zone_fault(value);
	if (strcmp(row->name, "jwt_cookie") == 0 ||
	    strcmp(row->name, "jwt_parameter") == 0)
		return name_fault(value);
	if (strcmp(row->name, "base_path") == 0 && len > 0 &&
	    (value[0] != '/' || value[len - 1] == '/'))
		return "must begin with / and not end with one";
	return NULL;
}

static bool
has_addresses(const struct row *row)
{
	return strcmp(row->name, "trusted_proxies") == 0 ||
	    strcmp(row->name, "metrics_from") == 0;
}

static void
set_text(struct loader *l, const struct row *row, const char *value)
{
	const char *why, *word;
	char *text;
	size_t len, n;

	text = row->type == CONF_PATH && value[0] != '\0' ?
	    absolute(l->env == NULL ? l->dir : NULL, value) : strdup(value);
	if (text == NULL) {
		fault(l, "%s: %s", row->name, strerror(errno));
		return;
	}
	len = strlen(text);
	/* The words that there are say more than how long they are. */
	if ((why = text_fault(row, text)) != NULL)
		fault(l, "%s %s", row->name, why);
	else if (len < row->min || len > row->max)
		fault(l, "%s must have %llu to %llu bytes", row->name,
		    (unsigned long long)row->min, (unsigned long long)row->max);
	else if (has_addresses(row) &&
	    (word = address_bad_word(text, &n)) != NULL)
		fault(l, "%s: %.*s is no address and no network as "
		    "10.0.0.0/8", row->name, n > 80 ? 80 : (int)n, word);
	free(*text_field(l->conf, row));
	*text_field(l->conf, row) = text;
}

/* Digits, and for bytes one of K, M and G. */
static bool
number_parse(const char *s, bool bytes, uint64_t *ret)
{
	static const char suffixes[] = "KMG";
	const char *suffix;
	uint64_t n = 0;

	if (!isdigit((unsigned char)*s))
		return false;
	for (; isdigit((unsigned char)*s); s++) {
		/* No maximum of the table comes near. */
		if (n > UINT64_MAX / 16)
			return false;
		n = n * 10 + (uint64_t)(*s - '0');
	}
	if (*s != '\0' && bytes && (suffix = strchr(suffixes, *s)) != NULL) {
		unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);

		if (n > UINT64_MAX >> shift)
			return false;
		n <<= shift;
		s++;
	}
	if (*s != '\0')
		return false;
	*ret = n;
	return true;
}

static void
set_number(struct loader *l, const struct row *row, const char *value)
{
	uint64_t n;

	if (row->type == CONF_AUTO && strcmp(value, "auto") == 0) {
		*number_field(l->conf, row) = CONF_IS_AUTO;
		return;
	}
	if ((row->type == CONF_USD ?
	    money_parse(value, strlen(value), &n) == RS_OK :
	    number_parse(value, row->type == CONF_BYTES, &n)) &&
	    n >= row->min && n <= row->max) {
		*number_field(l->conf, row) = n;
		return;
	}
	if (row->type == CONF_USD) {
		fault(l, "%s must be an amount in USD as in 0.25, at most "
		    "%llu", row->name,
		    (unsigned long long)(row->max / MONEY_PER_USD));
		return;
	}
	fault(l, "%s must be %s from %llu to %llu", row->name,
	    row->type == CONF_SECONDS ? "a number of seconds" :
	    row->type == CONF_AUTO ? "auto or a number of seconds" :
	    row->type == CONF_BYTES ? "a number of bytes (K, M, G)" :
	    "a number", (unsigned long long)row->min,
	    (unsigned long long)row->max);
}

static void
set(struct loader *l, const struct row *row, const char *value)
{
	if (is_text(row->type))
		set_text(l, row, value);
	else
		set_number(l, row, value);
}

/* The length of value without white space at its end and without a comment:
 * a '#' at the start or after white space. */
static size_t
content_length(const char *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (p[i] == '#' && (i == 0 || isspace((unsigned char)p[i - 1])))
			len = i;
	while (len > 0 && isspace((unsigned char)p[len - 1]))
		len--;
	return len;
}

static bool
has_control(const char *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (iscntrl((unsigned char)p[i]) && p[i] != '\t')
			return true;
	return false;
}

/* What is wrong with a line that is not empty; or NULL. */
static const char *
line_fault(const char *p, size_t len, size_t max)
{
	const char *equals = memchr(p, '=', len);

	if (len > max)
		return "the line is too long";
	if (has_control(p, len))
		return "the line has a control character";
	if (p[0] == '[')
		return "there are no sections in this file";
	if (equals == NULL || equals == p ||
	    memchr(p, ':', (size_t)(equals - p)) != NULL)
		return "expected name = value";
	return NULL;
}

/* An fgets for libinih, which sees an empty line in place of each that is one
 * to us, or is faulty. */
static char *
next_line(char *str, int num, void *arg)
{
	struct loader *l = arg;
	const char *p = l->p, *nl, *why;
	size_t len;

	if (p == l->end)
		return NULL;
	nl = memchr(p, '\n', (size_t)(l->end - p));
	l->p = nl == NULL ? l->end : nl + 1;
	l->line++;
	len = (size_t)((nl == NULL ? l->end : nl) - p);
	for (; len > 0 && isspace((unsigned char)*p); len--)
		p++;
	len = content_length(p, len);
	if (len > 0 && (why = line_fault(p, len, (size_t)num - 3)) != NULL) {
		fault(l, "%s", why);
		len = 0;
	}
	memcpy(str, p, len);
	str[len] = '\0';
	return str;
}

static int
file_setting(void *arg, const char *section, const char *name,
    const char *value)
{
	struct loader *l = arg;
	size_t i;

	(void)section;
	for (i = 0; i < ROW_COUNT; i++)
		if (strcmp(rows[i].name, name) == 0)
			break;
	if (i == ROW_COUNT) {
		fault(l, "there is no setting %s", name);
	} else if (l->set_at[i] != 0) {
		fault(l, "%s is set in line %u already", name, l->set_at[i]);
	} else {
		l->set_at[i] = l->line;
		set(l, &rows[i], value);
	}
	return 1;
}

static enum rs_err
read_settings(struct loader *l)
{
	static char hash[] = "#";
	const char *file = l->conf->file, *slash = strrchr(file, '/');
	enum rs_err err;
	struct buf b;

	buf_init(&b, FILE_SIZE_MAX);
	err = conf_read_file(file, &b, l->why);
	if (err != RS_OK || b.len == 0)
		goto out;
	l->dir = strndup(file, slash == file ? 1 : (size_t)(slash - file));
	if (l->dir == NULL) {
		err = RS_ENOMEM;
		goto out;
	}
	l->p = b.data;
	l->end = b.data + b.len;
	/* Variables are Debian's addition; elsewhere they are build options. */
	ini_max_line = LINE_SIZE;
	ini_start_comment_prefixes = hash;
	ini_allow_inline_comments = false;
	ini_parse_stream(next_line, l, file_setting, l);
out:
	buf_done(&b);
	return err;
}

static void
env_name(const struct row *row, char ret[ENV_NAME_SIZE])
{
	size_t i;

	snprintf(ret, ENV_NAME_SIZE, "%s%s", ENV_PREFIX, row->name);
	for (i = 0; ret[i] != '\0'; i++)
		ret[i] = (char)toupper((unsigned char)ret[i]);
}

/* Applies the variable of one setting, when there is one. */
static enum rs_err
env_setting(struct loader *l, const struct row *row)
{
	char name[ENV_NAME_SIZE], *value;
	const char *p;
	size_t len;

	env_name(row, name);
	p = getenv(name);
	if (p == NULL)
		return RS_OK;
	l->env = name;
	while (isspace((unsigned char)*p))
		p++;
	for (len = strlen(p); len > 0 && isspace((unsigned char)p[len - 1]);)
		len--;
	value = strndup(p, len);
	if (value == NULL)
		return RS_ENOMEM;
	/* conf_print writes what a file can hold. */
	if (has_control(value, len) || content_length(value, len) != len)
		fault(l, "must have no control character and no # that "
		    "would begin a comment");
	else
		set(l, row, value);
	/* So that it means the same to a program that we start, and to us
	 * when we read it again, from another directory. */
	if (row->type == CONF_PATH && value[0] != '\0' && !l->faulty &&
	    setenv(name, *text_field(l->conf, row), 1) < 0) {
		free(value);
		return RS_ENOMEM;
	}
	free(value);
	return RS_OK;
}

static void
warn_of_strangers(struct buf *why)
{
	char name[ENV_NAME_SIZE];
	char **e;
	size_t i, len;

	for (e = environ; *e != NULL; e++) {
		len = strcspn(*e, "=");
		if (strncmp(*e, ENV_PREFIX, strlen(ENV_PREFIX)) != 0 ||
		    strncmp(*e, ENV_PREFIX "CONFIG=", len + 1) == 0)
			continue;
		for (i = 0; i < ROW_COUNT; i++) {
			env_name(&rows[i], name);
			if (strlen(name) == len && memcmp(*e, name, len) == 0)
				break;
		}
		if (i == ROW_COUNT)
			buf_printf(why, "%.*s: there is no such setting\n",
			    len > 100 ? 100 : (int)len, *e);
	}
}

static enum rs_err
set_defaults(struct conf *c)
{
	size_t i;

	for (i = 0; i < ROW_COUNT; i++) {
		char *text;

		if (!is_text(rows[i].type)) {
			*number_field(c, &rows[i]) = rows[i].def_num;
			continue;
		}
		text = strdup(rows[i].def_text);
		if (text == NULL)
			return RS_ENOMEM;
		*text_field(c, &rows[i]) = text;
	}
	return RS_OK;
}

/* The absolute path of the file to read, in c->file; NULL: none. */
static enum rs_err
find_file(struct conf *c, const char *path, struct buf *ret_why)
{
	static const char def[] = SYSCONFDIR "/respool/respool.conf";

	if (path == NULL)
		path = getenv(ENV_PREFIX "CONFIG");
	if (path == NULL || path[0] == '\0') {
		if (access(def, F_OK) < 0 && errno == ENOENT)
			return RS_OK;
		path = def;
	}
	c->file = absolute(NULL, path);
	if (c->file != NULL)
		return RS_OK;
	buf_printf(ret_why, "%s: %s\n", path, strerror(errno));
	return rs_from_errno(errno);
}

/* A key is needed: where auth was set says so. */
static void
check_auth(struct loader *l)
{
	char name[ENV_NAME_SIZE];
	size_t i;

	if (strcmp(l->conf->auth, "jwt") != 0 ||
	    l->conf->jwt_key_file[0] != '\0')
		return;
	for (i = 0; strcmp(rows[i].name, "auth") != 0; i++)
		continue;
	env_name(&rows[i], name);
	l->env = getenv(name) != NULL ? name : NULL;
	l->line = l->set_at[i];
	fault(l, "auth = jwt needs a jwt_key_file");
	l->env = NULL;
}

/* What follows from the settings. */
static enum rs_err
derive(struct conf *c)
{
	enum rs_err err;
	struct buf b;

	while (strcmp(log_levels[c->level], c->log_level) != 0)
		c->level++;
	while (strcmp(abandon_words[c->abandon_how], c->abandon) != 0)
		c->abandon_how++;
	while (strcmp(auth_words[c->owner_by], c->auth) != 0)
		c->owner_by++;
	c->flush = strcmp(c->flush_by_close, "yes") == 0;
	c->to_syslog = strcmp(c->syslog, "yes") == 0;
	buf_init(&b, PRINT_SIZE_MAX);
	conf_print(c, &b);
	err = b.err;
	if (err == RS_OK)
		sha256_hex(b.data, b.len, c->hash);
	buf_done(&b);
	return err;
}

enum rs_err
conf_load(const char *path, struct conf **ret, struct buf *ret_why)
{
	struct loader l = { .why = ret_why };
	enum rs_err err;
	size_t i;

	l.conf = calloc(1, sizeof *l.conf);
	if (l.conf == NULL)
		return RS_ENOMEM;
	if ((err = set_defaults(l.conf)) != RS_OK)
		goto out;
	if ((err = find_file(l.conf, path, ret_why)) != RS_OK)
		goto out;
	if (l.conf->file != NULL && (err = read_settings(&l)) != RS_OK)
		goto out;
	for (i = 0; i < ROW_COUNT; i++)
		if ((err = env_setting(&l, &rows[i])) != RS_OK)
			goto out;
	check_auth(&l);
	if (l.faulty) {
		err = RS_EINVAL;
		goto out;
	}
	if ((err = derive(l.conf)) != RS_OK)
		goto out;
	warn_of_strangers(ret_why);
	if (l.conf->owner_by != OWNER_BY_JWT &&
	    l.conf->jwt_key_file[0] != '\0')
		buf_printf(ret_why, "jwt_key_file is set, but tokens are not "
		    "looked at: auth is %s\n", l.conf->auth);
	*ret = l.conf;
	l.conf = NULL;
out:
	conf_free(l.conf);
	free(l.dir);
	return err;
}

void
conf_free(struct conf *c)
{
	size_t i;

	if (c == NULL)
		return;
	for (i = 0; i < ROW_COUNT; i++)
		if (is_text(rows[i].type))
			free(*text_field(c, &rows[i]));
	free(c->file);
	free(c);
}

void
conf_print(const struct conf *c, struct buf *ret)
{
	size_t i;

	for (i = 0; i < ROW_COUNT; i++) {
		const char *text;

		buf_printf(ret, "%s =", rows[i].name);
		if (rows[i].type == CONF_USD) {
			buf_puts(ret, " ");
			money_put(ret, *number_field(c, &rows[i]));
		} else if (rows[i].type == CONF_AUTO &&
		    *number_field(c, &rows[i]) == CONF_IS_AUTO)
			buf_puts(ret, " auto");
		else if (!is_text(rows[i].type))
			buf_printf(ret, " %llu", (unsigned long long)
			    *number_field(c, &rows[i]));
		else if ((text = *text_field(c, &rows[i]))[0] != '\0')
			buf_printf(ret, " %s", text);
		buf_puts(ret, "\n");
	}
}

enum rs_err
conf_read_file(const char *path, struct buf *b, struct buf *ret_why)
{
	enum rs_err err;
	struct stat st;
	int fd;

	/* Without O_NONBLOCK a FIFO would keep us here. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0) {
		err = rs_from_errno(errno);
		buf_printf(ret_why, "%s: %s\n", path, strerror(errno));
		goto out;
	}
	if (!S_ISREG(st.st_mode)) {
		err = RS_EINVAL;
		buf_printf(ret_why, "%s: not a regular file\n", path);
		goto out;
	}
	if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
		err = RS_EPERM;
		buf_printf(ret_why, "%s: group or others can write it "
		    "(mode %04o); take that away with chmod go-w\n", path,
		    (unsigned)st.st_mode & 07777);
		goto out;
	}
	if ((err = fd_read_all(fd, b)) != RS_OK)
		buf_printf(ret_why, "%s: %s\n", path, rs_strerror(err));
out:
	if (fd >= 0)
		close(fd);
	return err;
}

bool
conf_has_word(const char *words, const char *word)
{
	static const char space[] = " \t";
	size_t len = strlen(word), n;

	for (words += strspn(words, space); *words != '\0';
	    words += strspn(words, space)) {
		n = strcspn(words, space);
		if (n == len && memcmp(words, word, n) == 0)
			return true;
		words += n;
	}
	return false;
}
