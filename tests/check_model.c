/* check_model.c - the models file. */
#include <check.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "model.h"
#include "money.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static char dir[512];	/* of each test */
static char file[600], log_path[600];
static struct buf why;

static void
set_up(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof dir, "%s/model.XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(file, sizeof file, "%s/models.json", dir);
	snprintf(log_path, sizeof log_path, "%s/log", dir);
	buf_init(&why, 65536);
	log_open(LOGL_INFO, log_path);
}

static void
tear_down(void)
{
	buf_done(&why);
	unlink(file);
	unlink(log_path);
	ck_assert_int_eq(rmdir(dir), 0);
}

/* A new inode each time: it differs from the last one at any speed. */
static void
put_file(const char *text)
{
	char fresh[700];
	FILE *f;

	snprintf(fresh, sizeof fresh, "%s.new", file);
	f = fopen(fresh, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(chmod(fresh, 0644), 0);
	ck_assert_int_eq(rename(fresh, file), 0);
}

static enum rs_err
load(const char *text, struct models **ret)
{
	put_file(text);
	return models_load(file, ret, &why);
}

static const struct model *
find(const struct models *m, const char *name)
{
	return models_find(m, name, strlen(name));
}

static int
log_lines(void)
{
	FILE *f = fopen(log_path, "r");
	int c, n = 0;

	if (f == NULL)
		return 0;
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

#define ONE(fields) \
	"{\"models\": {\"m\": {\"provider\": \"demo\"" fields "}}}"
#define HTTP(provider, fields) \
	"{\"models\": {\"m\": {\"provider\": \"" provider "\"" fields "}}}"
#define OPENAI(fields) HTTP("openai", fields)
#define FIFTY "01234567890123456789012345678901234567890123456789"
#define NAME128 FIFTY FIFTY "0123456789012345678901234567"

START_TEST(the_built_in_models_are_demo_and_echo)
{
	struct models *m = NULL;

	ck_assert_msg(models_load("", &m, &why) == RS_OK, "%s", why.data);
	ck_assert_uint_eq(m->count, 2);
	ck_assert_str_eq(m->def->name, "demo");
	ck_assert_uint_eq(m->def->demo.chunks, 100);
	ck_assert_uint_eq(m->def->demo.interval_ms, 50);
	ck_assert_uint_eq(m->def->demo.first_ms, 0);
	ck_assert_uint_eq(m->def->prices.input, 150000);
	ck_assert_uint_eq(m->def->prices.cache_read, 75000);
	ck_assert_uint_eq(m->def->prices.cache_write, 150000);
	ck_assert_uint_eq(m->def->prices.output, 600000);
	ck_assert_uint_eq(find(m, "echo")->demo.chunks, 0);
	ck_assert_uint_eq(find(m, "echo")->prices.output, 600000);
	ck_assert_ptr_null(find(m, "demo "));
	ck_assert_ptr_null(find(m, ""));
	ck_assert_ptr_null(models_find(m, "demo\0", 5));
	ck_assert_ptr_nonnull(models_find(m, "demos", 4));
	models_unref(m);
}
END_TEST

START_TEST(the_example_can_be_loaded)
{
	const char *srcdir = getenv("srcdir");
	const struct model *x;
	struct models *m = NULL;
	char path[4096], copy[65536];
	unsigned kinds = 0;
	size_t n;
	FILE *f;

	/* A working copy may be group-writable: that is the umask's doing. */
	snprintf(path, sizeof path, "%s/models.json.example",
	    srcdir != NULL ? srcdir : ".");
	f = fopen(path, "r");
	ck_assert_msg(f != NULL, "%s", path);
	n = fread(copy, 1, sizeof copy - 1, f);
	fclose(f);
	copy[n] = '\0';
	ck_assert_msg(load(copy, &m) == RS_OK, "%s", why.data);
	ck_assert_str_eq(m->def->name, "demo");
	ck_assert_ptr_nonnull(find(m, "echo"));
	for (x = m->all; x < m->all + m->count; x++) {
		ck_assert_uint_ne(x->prices.input, MONEY_UNKNOWN);
		ck_assert_uint_ne(x->prices.output, MONEY_UNKNOWN);
		kinds |= 1u << x->provider;
	}
	ck_assert_uint_eq(kinds, (1u << (PROVIDER_EXEC + 1)) - 1);
	models_unref(m);
}
END_TEST

START_TEST(every_field_is_read)
{
	struct models *m = NULL;
	const struct model *x;

	ck_assert_msg(load("{ \"models\": { \"first\": {\"provider\":\"demo\"},"
	    "\"all \\u00e4/\\\"\": { \"provider\": \"demo\", \"text\": \"a b\","
	    "\"chunks\": 1, \"interval_ms\": 2, \"first_ms\": 3,"
	    "\"fail_after\": 4, \"error_type\": \"overloaded\","
	    "\"hang_after\": 0, \"hidden\": true,"
	    "\"prices\": { \"input\": 0, \"output\": 1000000000000000 } } },"
	    "\"default\": \"all \xc3\xa4/\\\"\" }", &m) == RS_OK, "%s",
	    why.data);
	ck_assert_uint_eq(m->count, 2);
	ck_assert_str_eq(m->all[0].name, "first");
	ck_assert_ptr_null(m->all[0].demo.text);
	ck_assert_uint_eq(m->all[0].demo.fail_after, DEMO_NEVER);
	ck_assert_uint_eq(m->all[0].demo.hang_after, DEMO_NEVER);
	ck_assert_int_eq(m->all[0].demo.error_type, ERRTYPE_upstream_error);
	ck_assert_uint_eq(m->all[0].prices.input, MONEY_UNKNOWN);
	ck_assert_uint_eq(m->all[0].prices.output, MONEY_UNKNOWN);
	ck_assert(!m->all[0].hidden);
	x = m->def;
	ck_assert_ptr_eq(x, &m->all[1]);
	ck_assert_int_eq(x->provider, PROVIDER_DEMO);
	ck_assert_str_eq(x->demo.text, "a b");
	ck_assert_uint_eq(x->demo.chunks, 1);
	ck_assert_uint_eq(x->demo.interval_ms, 2);
	ck_assert_uint_eq(x->demo.first_ms, 3);
	ck_assert_uint_eq(x->demo.fail_after, 4);
	ck_assert_uint_eq(x->demo.hang_after, 0);
	ck_assert_int_eq(x->demo.error_type, ERRTYPE_overloaded);
	ck_assert(x->hidden);
	ck_assert_uint_eq(x->prices.input, 0);
	ck_assert_uint_eq(x->prices.cache_read, MONEY_UNKNOWN);
	ck_assert_uint_eq(x->prices.output, 1000000000000000);
	models_unref(m);
}
END_TEST

#define EXEC "{\"provider\": \"exec\", \"command\": "

START_TEST(every_field_of_an_upstream_is_read)
{
	struct models *m = NULL;
	const struct model *x;
	const char *got;

	ck_assert_msg(load("{\"models\": {\"x\": {"
	    "\"provider\": \"anthropic\", \"fallback\": [\"z\", \"y\"],"
	    "\"base_url\": \"https://h:8443/a//\", \"hidden\": true,"
	    "\"upstream_model\": \"claude\", \"system\": \"Be brief.\","
	    "\"api_key_env\": \"A_KEY\", \"api_key_file\": \"keys/a\","
	    "\"api_version\": \"2023-06-01\", \"auth\": \"bearer\","
	    "\"parameters\": {\"max_tokens\": 5}, \"retries\": 0,"
	    "\"timeouts\": {\"connect\": 1, \"headers\": 0.5,"
	    "\"first_content\": 2.0015, \"idle\": 86400, \"total\": 3}},"
	    "\"y\": {\"provider\": \"openai\", \"stream_usage\": false,"
	    "\"auth\": \"x-api-key\"},"
	    "\"z\": {\"provider\": \"ollama\","
	    "\"auth\": \"none\"}}}", &m) == RS_OK, "%s", why.data);
	x = find(m, "x");
	ck_assert_int_eq(x->provider, PROVIDER_ANTHROPIC);
	ck_assert_str_eq(x->base_url, "https://h:8443/a");
	ck_assert_str_eq(x->upstream_model, "claude");
	ck_assert_str_eq(x->system, "Be brief.");
	ck_assert_str_eq(x->api_version, "2023-06-01");
	ck_assert_str_eq(x->api_key_env, "A_KEY");
	ck_assert(strncmp(x->api_key_file, dir, strlen(dir)) == 0);
	ck_assert_str_eq(x->api_key_file + strlen(dir), "/keys/a");
	ck_assert_int_eq(x->auth, AUTH_BEARER);
	got = json_object_to_json_string(x->parameters);
	ck_assert_str_eq(got, "{ \"max_tokens\": 5 }");
	ck_assert_uint_eq(x->retries, 0);
	ck_assert_uint_eq(x->timeouts.connect, 1000);
	ck_assert_uint_eq(x->timeouts.headers, 500);
	ck_assert_uint_eq(x->timeouts.first_content, 2002);
	ck_assert_uint_eq(x->timeouts.idle, 86400000);
	ck_assert_uint_eq(x->timeouts.total, 3000);
	ck_assert_uint_eq(x->fallback_count, 2);
	ck_assert_ptr_eq(x->fallback[0], find(m, "z"));
	ck_assert_ptr_eq(x->fallback[1], find(m, "y"));
	ck_assert(x->hidden && !x->no_stream_usage);
	ck_assert(find(m, "y")->no_stream_usage);
	ck_assert_int_eq(find(m, "y")->auth, AUTH_X_API_KEY);
	ck_assert_int_eq(find(m, "z")->auth, AUTH_NONE);
	models_unref(m);
}
END_TEST

START_TEST(a_command_is_read)
{
	struct models *m = NULL;
	const struct exec_spec *x;

	ck_assert_msg(load("{\"models\": {\"a\": " EXEC "[\"cat\"]},"
	    "\"b\": " EXEC "[\"bin/run\", \"a b/c\", \"$(x)\"],"
	    "\"format\": \"jsonl\", \"timeout\": 1.5, \"cwd\": \"d\"},"
	    "\"c\": " EXEC "[\"/bin/true\"], \"cwd\": \"/\","
	    "\"format\": \"lines\"}}}", &m) == RS_OK, "%s", why.data);
	ck_assert_uint_eq(m->all[0].timeouts.total, 900000);
	ck_assert_uint_eq(m->all[1].timeouts.total, 1500);
	ck_assert_ptr_null(m->all[0].base_url);
	x = &m->all[0].exec;
	ck_assert_str_eq(x->command[0], "cat");
	ck_assert_ptr_null(x->command[1]);
	ck_assert_int_eq(x->format, EXEC_TEXT);
	ck_assert_ptr_null(x->cwd);
	x = &m->all[1].exec;
	ck_assert_str_eq(x->command[0] + strlen(dir), "/bin/run");
	ck_assert_str_eq(x->command[1], "a b/c");
	ck_assert_str_eq(x->command[2], "$(x)");
	ck_assert_ptr_null(x->command[3]);
	ck_assert_int_eq(x->format, EXEC_JSONL);
	ck_assert_str_eq(x->cwd + strlen(dir), "/d");
	x = &m->all[2].exec;
	ck_assert_str_eq(x->command[0], "/bin/true");
	ck_assert_str_eq(x->cwd, "/");
	ck_assert_int_eq(x->format, EXEC_LINES);
	models_unref(m);
}
END_TEST

static const struct { const char *provider, *base_url; } usual[] = {
	{ "openai", "https://api.openai.com/v1" },
	{ "openai-responses", "https://api.openai.com/v1" },
	{ "anthropic", "https://api.anthropic.com" },
	{ "gemini", "https://generativelanguage.googleapis.com" },
	{ "ollama", "http://127.0.0.1:11434" },
};

START_TEST(what_the_file_leaves_out_is_the_usual)
{
	const char *provider = usual[_i].provider;
	const struct model *x;
	struct models *m = NULL;
	char text[128];

	snprintf(text, sizeof text, "{\"models\": {\"a/b\": {\"provider\":"
	    "\"%s\"}}}", provider);
	ck_assert_msg(load(text, &m) == RS_OK, "%s", why.data);
	x = m->def;
	ck_assert_str_eq(provider_name(x->provider), provider);
	ck_assert_str_eq(x->base_url, usual[_i].base_url);
	ck_assert_str_eq(x->upstream_model, "a/b");
	ck_assert_ptr_null(x->system);
	ck_assert_ptr_null(x->api_version);
	ck_assert_ptr_null(x->api_key_env);
	ck_assert_ptr_null(x->api_key_file);
	ck_assert_ptr_null(x->parameters);
	ck_assert_ptr_null(x->fallback);
	ck_assert_int_eq(x->auth, AUTH_USUAL);
	ck_assert_uint_eq(x->retries, 2);
	ck_assert_uint_eq(x->timeouts.connect, 10000);
	ck_assert_uint_eq(x->timeouts.headers, 60000);
	ck_assert_uint_eq(x->timeouts.first_content, 60000);
	ck_assert_uint_eq(x->timeouts.idle, 60000);
	ck_assert_uint_eq(x->timeouts.total, 900000);
	models_unref(m);
}
END_TEST

/* n models, each with the next one as its fallback. */
START_TEST(a_chain_of_fallbacks_ends)
{
	const int n = _i;
	struct models *m = NULL;
	struct buf b;
	int i;

	buf_init(&b, 65536);
	buf_puts(&b, "{\"models\": {");
	for (i = 0; i < n; i++)
		buf_printf(&b, "\"%d\": {\"provider\": \"demo\","
		    "\"fallback\": [\"%d\"]},", i, i + 1);
	buf_printf(&b, "\"%d\": {\"provider\": \"demo\"}}}", n);
	ck_assert_int_eq(load(b.data, &m), n < 100 ? RS_OK : RS_EINVAL);
	if (n >= 100)
		ck_assert_ptr_nonnull(strstr(why.data, "100 deep\n"));
	models_unref(m);
	buf_done(&b);
}
END_TEST

static const struct { const char *base_url; bool want; } clear[] = {
	{ "https://h", false },
	{ "http://h", true },
	{ "http://localhost", false },
	{ "http://localhost:80/v1", false },
	{ "http://localhosts", true },
	{ "http://127.0.0.1:8000", false },
	{ "http://127.9.9.9/v1", false },
	{ "http://127.0.0.1.example", true },
	{ "http://128.0.0.1", true },
	{ "http://[::1]:8000/v1", false },
	{ "http://[::2]", true },
};

START_TEST(what_crosses_a_network_in_the_clear_is_known)
{
	struct models *m = NULL;
	char text[256];

	snprintf(text, sizeof text, OPENAI(", \"base_url\": \"%s\""),
	    clear[_i].base_url);
	ck_assert_msg(load(text, &m) == RS_OK, "%s", why.data);
	ck_assert_int_eq(model_in_clear(m->def), clear[_i].want);
	models_unref(m);
}
END_TEST

#define NO_FILE NULL
static const struct {
	const char *env;	/* NULL: not set */
	const char *text;	/* of the file; NULL: there is none */
	int mode;
	enum rs_err want;
	const char *key;
} keys[] = {
	{ "k-1", "k-2", 0600, RS_OK, "k-1" },
	{ " k-1\n", NO_FILE, 0, RS_OK, "k-1" },
	{ NULL, "k-2\n", 0600, RS_OK, "k-2" },
	{ "", "\r\n\tk-2 \n\n", 0400, RS_OK, "k-2" },
	{ NULL, NO_FILE, 0, RS_ENOENT, NULL },
	{ NULL, "k-2", 0640, RS_EPERM, NULL },
	{ NULL, "k-2", 0604, RS_EPERM, NULL },
	{ NULL, "k-2", 0620, RS_EPERM, NULL },
	{ NULL, "", 0600, RS_EINVAL, NULL },
	{ NULL, " \n", 0600, RS_EINVAL, NULL },
	{ NULL, "k-2\nk-3\n", 0600, RS_EINVAL, NULL },
	{ NULL, "k 2", 0600, RS_EINVAL, NULL },
	{ NULL, "k\xc3\xa4", 0600, RS_EINVAL, NULL },
	{ "k\r\nX: y", "k-2", 0600, RS_EINVAL, NULL },
};

START_TEST(a_key_is_in_the_environment_else_in_a_file)
{
	struct models *m = NULL;
	char *key = NULL;
	char path[600];
	FILE *f;

	ck_assert_msg(load(OPENAI(", \"api_key_env\": \"CHECK_MODEL_KEY\","
	    "\"api_key_file\": \"key\""), &m) == RS_OK, "%s", why.data);
	snprintf(path, sizeof path, "%s/key", dir);
	if (keys[_i].env != NULL)
		setenv("CHECK_MODEL_KEY", keys[_i].env, 1);
	else
		unsetenv("CHECK_MODEL_KEY");
	if (keys[_i].text != NULL) {
		f = fopen(path, "w");
		ck_assert_ptr_nonnull(f);
		fputs(keys[_i].text, f);
		fclose(f);
		ck_assert_int_eq(chmod(path, (mode_t)keys[_i].mode), 0);
	}
	ck_assert_int_eq(model_key(m->def, &key), keys[_i].want);
	if (keys[_i].key != NULL)
		ck_assert_str_eq(key, keys[_i].key);
	else
		ck_assert_ptr_null(key);
	free(key);
	unlink(path);
	models_unref(m);
}
END_TEST

START_TEST(without_a_configured_key_there_is_none)
{
	struct models *m = NULL;
	char *key = file;

	ck_assert_int_eq(load(OPENAI(""), &m), RS_OK);
	ck_assert_int_eq(model_key(m->def, &key), RS_OK);
	ck_assert_ptr_null(key);
	models_unref(m);
	ck_assert_int_eq(load(OPENAI(", \"api_key_env\": \"CHECK_MODEL_NO\""),
	    &m), RS_OK);
	ck_assert_int_eq(model_key(m->def, &key), RS_ENOENT);
	models_unref(m);
}
END_TEST

static const char *const goods[] = {
	ONE(""),
	ONE(", \"chunks\": 0"),
	ONE(", \"text\": \"\""),
	ONE(", \"prices\": {}"),
	ONE(", \"fallback\": []"),
	OPENAI(", \"base_url\": \"https://[2001:db8::1]:65535/a%20b/@c\""),
	OPENAI(", \"base_url\": \"http://192.168.0.7:8000\","
	    "\"api_key_env\": \"A\""),
	OPENAI(", \"base_url\": \"http://vllm:8000/v1\","
	    "\"api_key_env\": \"A\""),
	OPENAI(", \"base_url\": \"http://api.example.com\""),
	OPENAI(", \"parameters\": {\"stop\": \"x\", \"x\": null,"
	    "\"temperature\": 0, \"top_p\": 0.5, \"top_k\": 1}"),
	"{\"models\": {\"" NAME128 "\": {\"provider\": \"demo\"}}}\n\n",
};

START_TEST(without_a_default_the_first_model_is_it)
{
	struct models *m = NULL;

	ck_assert_msg(load(goods[_i], &m) == RS_OK, "%s", why.data);
	ck_assert_ptr_eq(m->def, m->all);
	models_unref(m);
}
END_TEST

/* The file and all faults, each without "PATH". */
static const struct { const char *text, *want; } bads[] = {
	{ ONE(", \"chunks\": -1"),
	    ": models.m.chunks: must be an integer of 0 or more\n" },
	{ ONE(", \"chunks\": 1.5"),
	    ": models.m.chunks: must be an integer of 0 or more\n" },
	{ ONE(", \"chunks\": \"1\""),
	    ": models.m.chunks: must be an integer of 0 or more\n" },
	{ ONE(", \"chunks\": true"),
	    ": models.m.chunks: must be an integer of 0 or more\n" },
	{ ONE(", \"chunks\": null"), ": models.m.chunks: must not be null\n" },
	{ ONE(", \"chunks\": 10000001"),
	    ": models.m.chunks: must be at most 10000000\n" },
	{ ONE(", \"interval_ms\": 600001"),
	    ": models.m.interval_ms: must be at most 600000\n" },
	{ ONE(", \"first_ms\": 86400001"),
	    ": models.m.first_ms: must be at most 86400000\n" },
	{ ONE(", \"fail_after\": []"),
	    ": models.m.fail_after: must be an integer of 0 or more\n" },
	{ ONE(", \"hang_after\": {}"),
	    ": models.m.hang_after: must be an integer of 0 or more\n" },
	{ OPENAI(", \"api_key_env\": \"HTTP_AUTHORIZATION\""),
	    ": models.m.api_key_env: must name an environment "
	    "variable (A-Z, 0-9 and _), and none that begins with HTTP_\n" },
	{ OPENAI(", \"api_key_env\": \"\""),
	    ": models.m.api_key_env: must name an environment "
	    "variable (A-Z, 0-9 and _), and none that begins with HTTP_\n" },
	{ OPENAI(", \"api_key_env\": \"1KEY\""),
	    ": models.m.api_key_env: must name an environment "
	    "variable (A-Z, 0-9 and _), and none that begins with HTTP_\n" },
	{ OPENAI(", \"api_key_env\": \"A=B\""),
	    ": models.m.api_key_env: must name an environment "
	    "variable (A-Z, 0-9 and _), and none that begins with HTTP_\n" },
	{ OPENAI(", \"api_key_env\": \"sk-abc\""),
	    ": models.m.api_key_env: must name an environment "
	    "variable (A-Z, 0-9 and _), and none that begins with HTTP_\n" },
	{ ONE(", \"base_url\": \"http://h\""),
	    ": models.m.base_url: the model's provider has no such field\n" },
	{ ONE(", \"api_key_env\": \"A\""),
	    ": models.m.api_key_env: the model's provider has no such "
	    "field\n" },
	{ ONE(", \"system\": \"s\""),
	    ": models.m.system: the model's provider has no such field\n" },
	{ ONE(", \"parameters\": {}"),
	    ": models.m.parameters: the model's provider has no such field\n" },
	{ ONE(", \"command\": [\"a\"]"),
	    ": models.m.command: the model's provider has no such field\n" },
	{ ONE(", \"auth\": \"none\""),
	    ": models.m.auth: the model's provider has no such field\n" },
	{ HTTP("openai", ", \"chunks\": 1"),
	    ": models.m.chunks: the model's provider has no such field\n" },
	{ HTTP("openai", ", \"api_version\": \"1\""),
	    ": models.m.api_version: the model's provider has no such "
	    "field\n" },
	{ HTTP("anthropic", ", \"stream_usage\": true"),
	    ": models.m.stream_usage: the model's provider has no such "
	    "field\n" },
	{ HTTP("exec", ", \"system\": \"s\""),
	    ": models.m.system: the model's provider has no such field\n"
	    ": models.m: command is missing\n" },
	{ HTTP("ollama", ", \"timeout\": 5"),
	    ": models.m.timeout: the model's provider has no such field\n" },
	{ HTTP("gemini", ", \"command\": [\"a\"]"),
	    ": models.m.command: the model's provider has no such field\n" },
	{ OPENAI(", \"api_key\": \"sk-1\""),
	    ": models.m.api_key: "
	    "a key does not belong into this file: put it into an environment "
	    "variable and name that one in api_key_env, or into a file that "
	    "only the spooler's user can read and name that one in "
	    "api_key_file\n" },
	{ OPENAI(", \"parameters\": {\"api_key\": \"sk-1\"}"),
	    ": models.m.parameters.api_key: "
	    "a key does not belong into this file: put it into an environment "
	    "variable and name that one in api_key_env, or into a file that "
	    "only the spooler's user can read and name that one in "
	    "api_key_file\n" },
	{ OPENAI(", \"base_url\": \"api.openai.com\""),
	    ": models.m.base_url: must begin with https:// or http://\n" },
	{ OPENAI(", \"base_url\": \"ftp://h\""),
	    ": models.m.base_url: must begin with https:// or http://\n" },
	{ OPENAI(", \"base_url\": \"HTTPS://h\""),
	    ": models.m.base_url: must begin with https:// or http://\n" },
	{ OPENAI(", \"base_url\": \"\""),
	    ": models.m.base_url: must begin with https:// or http://\n" },
	{ OPENAI(", \"base_url\": \"https://\""),
	    ": models.m.base_url: has no valid host\n" },
	{ OPENAI(", \"base_url\": \"https:///v1\""),
	    ": models.m.base_url: has no valid host\n" },
	{ OPENAI(", \"base_url\": \"https://:80\""),
	    ": models.m.base_url: has no valid host\n" },
	{ OPENAI(", \"base_url\": \"https://[::1\""),
	    ": models.m.base_url: has no valid host\n" },
	{ OPENAI(", \"base_url\": \"https://[x]\""),
	    ": models.m.base_url: has no valid host\n" },
	{ OPENAI(", \"base_url\": \"https://[]\""),
	    ": models.m.base_url: has no valid host\n" },
	{ OPENAI(", \"base_url\": \"https://[::1]x\""),
	    ": models.m.base_url: has no valid host\n" },
	{ OPENAI(", \"base_url\": \"https://h_\xc3\xbc/\""),
	    ": models.m.base_url: has a character that no URL has\n" },
	{ OPENAI(", \"base_url\": \"https://a b\""),
	    ": models.m.base_url: has a character that no URL has\n" },
	{ OPENAI(", \"base_url\": \"https://h/\\n\""),
	    ": models.m.base_url: has a character that no URL has\n" },
	{ OPENAI(", \"base_url\": \"https://h:\""),
	    ": models.m.base_url: has no valid port\n" },
	{ OPENAI(", \"base_url\": \"https://h:0\""),
	    ": models.m.base_url: has no valid port\n" },
	{ OPENAI(", \"base_url\": \"https://h:65536\""),
	    ": models.m.base_url: has no valid port\n" },
	{ OPENAI(", \"base_url\": \"https://h:123456\""),
	    ": models.m.base_url: has no valid port\n" },
	{ OPENAI(", \"base_url\": \"https://h:8x\""),
	    ": models.m.base_url: has no valid host\n" },
	{ OPENAI(", \"base_url\": \"https://u:p@h/\""),
	    ": models.m.base_url: must not have a user or a password\n" },
	{ OPENAI(", \"base_url\": \"https://u@h\""),
	    ": models.m.base_url: must not have a user or a password\n" },
	{ OPENAI(", \"base_url\": \"https://h/v1?key=1\""),
	    ": models.m.base_url: must not have a query or a fragment\n" },
	{ OPENAI(", \"base_url\": \"https://h/#x\""),
	    ": models.m.base_url: must not have a query or a fragment\n" },
	{ OPENAI(", \"api_key_env\": \"A\","
	    "\"base_url\": \"http://api.example.com/v1\""),
	    ": models.m: a key would cross the network in the clear: "
	    "base_url must begin with https://\n" },
	{ OPENAI(", \"api_key_file\": \"a\","
	    "\"base_url\": \"http://127.0.0.1.example.com\""),
	    ": models.m: a key would cross the network in the clear: "
	    "base_url must begin with https://\n" },
	{ OPENAI(", \"timeouts\": {\"idle\": 0}"),
	    ": models.m.timeouts.idle: must be a number of seconds, "
	    "0.001 to 86400\n" },
	{ OPENAI(", \"timeouts\": {\"idle\": -1}"),
	    ": models.m.timeouts.idle: must be a number of seconds, "
	    "0.001 to 86400\n" },
	{ OPENAI(", \"timeouts\": {\"idle\": 0.0009}"),
	    ": models.m.timeouts.idle: must be a number of seconds, "
	    "0.001 to 86400\n" },
	{ OPENAI(", \"timeouts\": {\"idle\": 86401}"),
	    ": models.m.timeouts.idle: must be a number of seconds, "
	    "0.001 to 86400\n" },
	{ OPENAI(", \"timeouts\": {\"idle\": \"5\"}"),
	    ": models.m.timeouts.idle: must be a number of seconds, "
	    "0.001 to 86400\n" },
	{ OPENAI(", \"timeouts\": {\"idle\": true}"),
	    ": models.m.timeouts.idle: must be a number of seconds, "
	    "0.001 to 86400\n" },
	{ OPENAI(", \"timeouts\": {\"idle\": 1e99}"),
	    ": models.m.timeouts.idle: must be a number of seconds, "
	    "0.001 to 86400\n" },
	{ OPENAI(", \"timeouts\": {\"read\": 1}"),
	    ": models.m.timeouts.read: there is no such field\n" },
	{ OPENAI(", \"timeouts\": 5"),
	    ": models.m.timeouts: must be an object\n" },
	{ ONE(", \"timeouts\": {\"connect\": 5}"),
	    ": models.m.timeouts.connect: the model's provider has no such "
	    "field\n" },
	{ HTTP("exec", ", \"command\": [\"a\"], \"timeouts\": {\"idle\": 5}"),
	    ": models.m.timeouts.idle: the model's provider has no such "
	    "field\n" },
	{ HTTP("exec", ", \"command\": [\"a\"], \"timeout\": 5,"
	    "\"timeouts\": {\"total\": 5}"),
	    ": models.m: timeout and timeouts.total are the same: "
	    "give one\n" },
	{ HTTP("exec", ", \"command\": []"),
	    ": models.m.command: must be an array of strings that are "
	    "not empty, without NULs\n" },
	{ HTTP("exec", ", \"command\": \"a\""),
	    ": models.m.command: must be an array of strings that are "
	    "not empty, without NULs\n" },
	{ HTTP("exec", ", \"command\": [\"\"]"),
	    ": models.m.command: must be an array of strings that are "
	    "not empty, without NULs\n" },
	{ HTTP("exec", ", \"command\": [\"a\", \"\"]"),
	    ": models.m.command: must be an array of strings that are "
	    "not empty, without NULs\n" },
	{ HTTP("exec", ", \"command\": [1]"),
	    ": models.m.command: must be an array of strings that are "
	    "not empty, without NULs\n" },
	{ HTTP("exec", ", \"command\": [\"a\\u0000b\"]"),
	    ": models.m.command: must be an array of strings that are "
	    "not empty, without NULs\n" },
	{ HTTP("exec", ""),
	    ": models.m: command is missing\n" },
	{ HTTP("exec", ", \"command\": [\"a\"], \"format\": \"csv\""),
	    ": models.m.format: must be one of text, lines, jsonl\n" },
	{ HTTP("exec", ", \"command\": [\"a\"], \"cwd\": \"\""),
	    ": models.m.cwd: must not be empty\n" },
	{ OPENAI(", \"auth\": \"\""),
	    ": models.m.auth: must be one of bearer, x-api-key, none\n" },
	{ OPENAI(", \"retries\": 11"),
	    ": models.m.retries: must be at most 10\n" },
	{ OPENAI(", \"upstream_model\": \"\""),
	    ": models.m.upstream_model: must be visible ASCII without "
	    "spaces\n" },
	{ HTTP("gemini", ", \"api_version\": \"v 1\""),
	    ": models.m.api_version: must be visible ASCII without "
	    "spaces\n" },
	{ OPENAI(", \"parameters\": {\"temperature\": -1}"),
	    ": models.m.parameters.temperature: must be a number of 0 "
	    "or more\n" },
	{ OPENAI(", \"parameters\": {\"temperature\": \"1\"}"),
	    ": models.m.parameters.temperature: must be a number of 0 "
	    "or more\n" },
	{ OPENAI(", \"parameters\": {\"top_p\": null}"),
	    ": models.m.parameters.top_p: must be a number of 0 or more\n" },
	{ OPENAI(", \"parameters\": {\"top_k\": 1.5}"),
	    ": models.m.parameters.top_k: must be an integer of 1 or more\n" },
	{ OPENAI(", \"parameters\": {\"max_tokens\": 0}"),
	    ": models.m.parameters.max_tokens: must be an integer of 1 "
	    "or more\n" },
	{ OPENAI(", \"parameters\": {\"max_tokens\": \"9\"}"),
	    ": models.m.parameters.max_tokens: must be an integer of 1 "
	    "or more\n" },
	{ OPENAI(", \"parameters\": {\"stop\": [1]}"),
	    ": models.m.parameters.stop: must be a string or an array "
	    "of them\n" },
	{ OPENAI(", \"parameters\": {\"stop\": {}}"),
	    ": models.m.parameters.stop: must be a string or an array "
	    "of them\n" },
	{ OPENAI(", \"parameters\": {\"stream\": false}"),
	    ": models.m.parameters.stream: is not a parameter: respool "
	    "sets it\n" },
	{ OPENAI(", \"parameters\": {\"messages\": []}"),
	    ": models.m.parameters.messages: is not a parameter: "
	    "respool sets it\n" },
	{ OPENAI(", \"parameters\": {\"system\": \"s\"}"),
	    ": models.m.parameters.system: is a field of the model, not "
	    "a parameter\n" },
	{ OPENAI(", \"parameters\": []"),
	    ": models.m.parameters: must be an object\n" },
	{ ONE(", \"fallback\": \"m\""),
	    ": models.m.fallback: must be an array of at most 8 names\n" },
	{ ONE(", \"fallback\": [1]"),
	    ": models.m.fallback: models does not have each of them\n" },
	{ ONE(", \"fallback\": [\"n\"]"),
	    ": models.m.fallback: models does not have each of them\n" },
	{ ONE(", \"fallback\": [\"m\\u0000\"]"),
	    ": models.m.fallback: models does not have each of them\n" },
	{ ONE(", \"fallback\": [1,2,3,4,5,6,7,8,9]"),
	    ": models.m.fallback: must be an array of at most 8 names\n" },
	{ ONE(", \"fallback\": null"),
	    ": models.m.fallback: must not be null\n" },
	{ ONE(", \"fallback\": [\"m\"]"),
	    ": models.m: "
	    "its fallbacks come back to a model that was tried, or "
	    "are more than 100 deep\n" },
	{ "{\"models\": {\"a\": {\"provider\": \"demo\", \"fallback\": []},"
	    "\"b\": {\"provider\": \"demo\", \"fallback\": [\"a\", \"c\"]},"
	    "\"c\": {\"provider\": \"demo\", \"fallback\": [\"a\", \"b\"]}}}",
	    ": models.b: "
	    "its fallbacks come back to a model that was tried, or "
	    "are more than 100 deep\n" },
	{ "{\"models\": {\"a\": {\"provider\": \"demo\", \"fallback\": []},"
	    "\"b\": {\"provider\": \"demo\", \"fallback\": [\"a\", \"a\"]}}}",
	    ": models.b.fallback: has a name twice\n" },
	{ ONE(", \"error_type\": \"conflict\""),
	    ": models.m.error_type: is not one of a frame\n" },
	{ ONE(", \"error_type\": \"nope\""),
	    ": models.m.error_type: there is no such error type\n" },
	{ ONE(", \"error_type\": \"\""),
	    ": models.m.error_type: there is no such error type\n" },
	{ ONE(", \"error_type\": 5"),
	    ": models.m.error_type: must be a string\n" },
	{ ONE(", \"text\": 5"), ": models.m.text: must be a string\n" },
	{ ONE(", \"text\": \"a\\u0000b\""),
	    ": models.m.text: must not have a NUL\n" },
	{ ONE(", \"hidden\": 1"),
	    ": models.m.hidden: must be true or false\n" },
	{ ONE(", \"prices\": 5"), ": models.m.prices: must be an object\n" },
	{ ONE(", \"prices\": {\"input\": -1}"),
	    ": models.m.prices.input: must be an integer of 0 or more\n" },
	{ ONE(", \"prices\": {\"input\": 0.1}"),
	    ": models.m.prices.input: must be an integer of 0 or more\n" },
	{ ONE(", \"prices\": {\"output\": 1000000000000001}"),
	    ": models.m.prices.output: must be at most 1000000000000000\n" },
	{ ONE(", \"prices\": {\"in\\nput\": 1}"),
	    ": models.m.prices.in?put: there is no such field\n" },
	{ ONE(", \"chunk\": 5"), ": models.m.chunk: there is no such field\n" },
	{ "{\"models\": {\"m\": {\"provider\": \"dem\"}}}",
	    ": models.m.provider: must be one of demo, openai, "
	    "openai-responses, anthropic, gemini, ollama, exec\n" },
	{ "{\"models\": {\"m\": {\"provider\": 1}}}",
	    ": models.m.provider: must be a string\n" },
	{ "{\"models\": {\"m\": {\"provider\": null}}}",
	    ": models.m.provider: must not be null\n" },
	{ "{\"models\": {\"m\": {}}}", ": models.m: provider is missing\n" },
	{ "{\"models\": {\"m\": []}}", ": models.m: must be an object\n" },
	{ "{\"models\": {\"m\": null}}", ": models.m: must be an object\n" },
	{ "{\"models\": {\"\": {\"provider\": \"demo\"}}}",
	    ": models: a name is empty\n" },
	{ "{\"models\": {\"" NAME128 "x\": {\"provider\": \"demo\"}}}",
	    ": models." NAME128 ": the name has more than 128 bytes\n" },
	{ "{\"models\": {}}",
	    ": models: must be an object with at least one model\n" },
	{ "{}", ": models: must be an object with at least one model\n" },
	{ "{\"models\": [1]}",
	    ": models: must be an object with at least one model\n" },
	{ "{\"models\": null}",
	    ": models: must be an object with at least one model\n" },
	{ "[]", ": must be a JSON object\n" },
	{ "5", ": must be a JSON object\n" },
	{ "null", ": must be a JSON object\n" },
	{ "{\"default\": \"n\", \"models\": {\"m\": {\"provider\": \"demo\"}}}",
	    ": default: models does not have it\n" },
	{ "{\"default\": null, \"models\": {\"m\": {\"provider\": \"demo\"}}}",
	    ": default: must be a string\n" },
	{ "{\"default\": 5, \"models\": {\"m\": {\"provider\": \"demo\"}}}",
	    ": default: must be a string\n" },
	{ "{\"Models\": {}, \"models\": {\"m\": {\"provider\": \"demo\"}}}",
	    ": Models: there is no such field\n" },
	{ "{\"x\": 1, \"models\": {\"a\": {\"chunks\": -1}, \"b\": 2}}",
	    ": x: there is no such field\n"
	    ": models.a: provider is missing\n"
	    ": models.a.chunks: must be an integer of 0 or more\n"
	    ": models.b: must be an object\n" },
};

START_TEST(each_fault_is_told_with_its_place)
{
	const char *want = bads[_i].want, *got;
	struct models *m = NULL;
	size_t n;

	ck_assert_int_eq(load(bads[_i].text, &m), RS_EINVAL);
	ck_assert_ptr_null(m);
	for (got = why.data; *want != '\0'; want += n, got += n) {
		ck_assert(strncmp(got, file, strlen(file)) == 0);
		got += strlen(file);
		n = strcspn(want, "\n") + 1;
		ck_assert_msg(strncmp(got, want, n) == 0, "%s", why.data);
	}
	ck_assert_str_eq(got, "");
}
END_TEST

static const struct { const char *text; int line; } syntax[] = {
	{ "{\n \"models\": {\n  \"m\": }\n}", 3 },
	{ "{\n \"models\": {\n\n", 4 },
	{ "{\nmodels: {} }", 2 },
	{ "{ \"models\": {},\n }", 2 },
	{ "{ \"models\": {} }\n\nx", 3 },
	{ "{ # no comments\n}", 1 },
	{ "\n\n{ \"models\": \"\xff\" }", 3 },
	{ "{ \"models\": 01 }", 1 },
	{ "nonsense", 1 },
};

START_TEST(a_syntax_error_is_told_with_its_line)
{
	struct models *m = NULL;
	char want[700];

	ck_assert_int_eq(load(syntax[_i].text, &m), RS_EINVAL);
	snprintf(want, sizeof want, "%s:%d: ", file, syntax[_i].line);
	ck_assert_msg(strncmp(why.data, want, strlen(want)) == 0, "%s",
	    why.data);
	ck_assert_ptr_eq(strchr(why.data, '\n'), why.data + why.len - 1);
}
END_TEST

START_TEST(a_cut_file_is_refused)
{
	static const char text[] = ONE(", \"text\": \"\\u00e4\", \"chunks\": 5,"
	    "\"prices\": {\"input\": 1}");
	struct models *m = NULL;
	char *cut = strdup(text);
	size_t n;

	for (n = 0; n < sizeof text - 1; n++) {
		strcpy(cut, text);
		cut[n] = '\0';
		buf_clear(&why);
		ck_assert_int_eq(load(cut, &m), RS_EINVAL);
		ck_assert_uint_gt(why.len, strlen(file));
	}
	free(cut);
}
END_TEST

START_TEST(a_file_that_others_can_write_or_that_is_not_there_is_refused)
{
	struct models *m = NULL;

	ck_assert_int_eq(models_load(file, &m, &why), RS_ENOENT);
	ck_assert_ptr_nonnull(strstr(why.data, file));
	buf_clear(&why);
	put_file(ONE(""));
	ck_assert_int_eq(chmod(file, 0664), 0);
	ck_assert_int_eq(models_load(file, &m, &why), RS_EPERM);
	ck_assert_ptr_nonnull(strstr(why.data, "group or others can write it"));
	ck_assert_ptr_null(m);
}
END_TEST

START_TEST(a_changed_file_is_read_again_and_the_old_models_live_on)
{
	struct models_file *f = NULL;
	struct models *a, *b, *c;

	put_file(ONE(", \"chunks\": 1"));
	ck_assert_int_eq(models_file_open(file, &f, &why), RS_OK);
	a = models_file_get(f);
	b = models_file_get(f);
	ck_assert_ptr_eq(a, b);
	put_file(ONE(", \"chunks\": 2"));
	c = models_file_get(f);
	ck_assert_ptr_ne(a, c);
	ck_assert_uint_eq(a->def->demo.chunks, 1);
	ck_assert_uint_eq(c->def->demo.chunks, 2);
	ck_assert_int_eq(log_lines(), 1);
	models_file_free(f);
	ck_assert_uint_eq(c->def->demo.chunks, 2);
	models_unref(a);
	ck_assert_uint_eq(b->def->demo.chunks, 1);
	models_unref(b);
	models_unref(c);
}
END_TEST

START_TEST(a_fault_in_a_changed_file_is_logged_once_and_changes_nothing)
{
	struct models_file *f = NULL;
	struct models *m;
	int i;

	put_file(ONE(", \"chunks\": 1"));
	ck_assert_int_eq(models_file_open(file, &f, &why), RS_OK);
	ck_assert(models_file_good(f));
	put_file(ONE(", \"chunks\": -1"));
	ck_assert(!models_file_good(f));
	for (i = 0; i < 5; i++) {
		m = models_file_get(f);
		ck_assert_uint_eq(m->def->demo.chunks, 1);
		models_unref(m);
	}
	ck_assert_int_eq(log_lines(), 1);
	ck_assert_int_eq(unlink(file), 0);
	for (i = 0; i < 5; i++) {
		m = models_file_get(f);
		ck_assert_uint_eq(m->def->demo.chunks, 1);
		models_unref(m);
	}
	ck_assert_int_eq(log_lines(), 2);
	ck_assert(!models_file_good(f));
	put_file(ONE(", \"chunks\": 3"));
	ck_assert(models_file_good(f));
	m = models_file_get(f);
	ck_assert_uint_eq(m->def->demo.chunks, 3);
	models_unref(m);
	models_file_free(f);
}
END_TEST

START_TEST(a_file_that_cannot_be_used_is_not_opened)
{
	struct models_file *f = NULL;

	ck_assert_int_eq(models_file_open(file, &f, &why), RS_ENOENT);
	put_file("{}");
	ck_assert_int_eq(models_file_open(file, &f, &why), RS_EINVAL);
	ck_assert_ptr_null(f);
	models_file_free(NULL);
	models_unref(NULL);
}
END_TEST

static void *
get_many(void *arg)
{
	int i;

	for (i = 0; i < 2000; i++) {
		struct models *m = models_file_get(arg);

		if (m->def->demo.chunks != m->def->demo.interval_ms)
			return arg;
		models_unref(m);
	}
	return NULL;
}

START_TEST(threads_may_get_the_models_while_they_change)
{
	struct models_file *f = NULL;
	pthread_t threads[4];
	void *bad;
	size_t i;

	put_file(ONE(", \"chunks\": 1, \"interval_ms\": 1"));
	ck_assert_int_eq(models_file_open(file, &f, &why), RS_OK);
	for (i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, get_many,
		    f), 0);
	for (i = 0; i < 100; i++)
		put_file(i % 2 ? ONE(", \"chunks\": 1, \"interval_ms\": 1") :
		    ONE(", \"chunks\": 2, \"interval_ms\": 2"));
	for (i = 0; i < 4; i++) {
		ck_assert_int_eq(pthread_join(threads[i], &bad), 0);
		ck_assert_ptr_null(bad);
	}
	models_file_free(f);
}
END_TEST

#define U MONEY_UNKNOWN
#define T TOKENS_UNKNOWN
static const struct {
	struct prices prices;
	struct usage usage; /* input, cache_read, cache_write, output */
	uint64_t want;
} costs[] = {
	{ { 150000, 75000, 150000, 600000 }, { 0, 0, 0, 0, 0 }, 0 },
	{ { 150000, 75000, 150000, 600000 }, { 1, 0, 0, 1, 0 }, 750000 },
	{ { 1, 10, 100, 1000 }, { 1, 2, 3, 4, 5 }, 4321 },
	{ { 0, 0, 0, 0 }, { 1, 2, 3, 4, 0 }, 0 },
	{ { U, 10, 100, 1000 }, { 0, 2, 3, 4, 0 }, 4320 },
	{ { U, 10, 100, 1000 }, { 1, 2, 3, 4, 0 }, U },
	{ { 1, U, U, 1 }, { 1, 0, 0, 1, 0 }, 2 },
	{ { 1, U, U, 1 }, { 1, 0, 1, 1, 0 }, U },
	{ { 1, 1, 1, 1 }, { T, 0, 0, 1, 0 }, U },
	{ { 1, 1, 1, 1 }, { 1, T, 0, 1, 0 }, U },
	{ { 0, 0, 0, 0 }, { 1, 0, 0, T, 0 }, U },
	{ { 1, 1, 1, 1 }, { 1, 0, 0, 1, T }, 2 },
	{ { 1ull << 40, 0, 0, 1 }, { 1ull << 40, 0, 0, 5, 0 }, U - 1 },
	{ { U, U, U, U }, { 0, 0, 0, 0, 0 }, 0 },
};
#undef U
#undef T

START_TEST(a_cost_is_exact_or_unknown)
{
	ck_assert_uint_eq(prices_cost(&costs[_i].prices, &costs[_i].usage),
	    costs[_i].want);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("model");
	TCase *tc = tcase_create("model");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, the_built_in_models_are_demo_and_echo);
	tcase_add_test(tc, the_example_can_be_loaded);
	tcase_add_test(tc, every_field_is_read);
	tcase_add_test(tc, every_field_of_an_upstream_is_read);
	tcase_add_test(tc, a_command_is_read);
	tcase_add_loop_test(tc, what_the_file_leaves_out_is_the_usual, 0,
	    COUNT(usual));
	tcase_add_loop_test(tc, a_chain_of_fallbacks_ends, 98, 102);
	tcase_add_loop_test(tc, what_crosses_a_network_in_the_clear_is_known,
	    0, COUNT(clear));
	tcase_add_loop_test(tc, a_key_is_in_the_environment_else_in_a_file,
	    0, COUNT(keys));
	tcase_add_test(tc, without_a_configured_key_there_is_none);
	tcase_add_loop_test(tc, without_a_default_the_first_model_is_it, 0,
	    COUNT(goods));
	tcase_add_loop_test(tc, each_fault_is_told_with_its_place, 0,
	    COUNT(bads));
	tcase_add_loop_test(tc, a_syntax_error_is_told_with_its_line, 0,
	    COUNT(syntax));
	tcase_add_test(tc, a_cut_file_is_refused);
	tcase_add_test(tc,
	    a_file_that_others_can_write_or_that_is_not_there_is_refused);
	tcase_add_test(tc,
	    a_changed_file_is_read_again_and_the_old_models_live_on);
	tcase_add_test(tc,
	    a_fault_in_a_changed_file_is_logged_once_and_changes_nothing);
	tcase_add_test(tc, a_file_that_cannot_be_used_is_not_opened);
	tcase_add_test(tc, threads_may_get_the_models_while_they_change);
	tcase_add_loop_test(tc, a_cost_is_exact_or_unknown, 0, COUNT(costs));
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
