/* check_requests.c - what upstreams are asked: the whole request of each
 * provider, as text. */
#include <check.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "provider.h"

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

#define ASK "[{\"role\":\"user\",\"content\":\"x\"}]"
#define TALK "[{\"role\":\"system\",\"content\":\"Be kind.\"}," \
	"{\"role\":\"user\",\"content\":\"a\\u0000\\\"/\xc5\xbc\"}," \
	"{\"role\":\"assistant\",\"content\":\"b\"}," \
	"{\"role\":\"system\",\"content\":\"Be brief.\"}," \
	"{\"role\":\"user\",\"content\":\"c\"}]"
#define ALL "{\"temperature\":0.70,\"top_p\":0.9,\"top_k\":40," \
	"\"max_tokens\":100,\"stop\":\"END\",\"extra\":{\"a\":[1]}}"
#define ANT_HEADERS(version, key) "anthropic-version: " version "\n" key \
	"Content-Type: application/json\nAccept: text/event-stream\n"
#define SSE_HEADERS(key) key \
	"Content-Type: application/json\nAccept: text/event-stream\n"
#define OLL_HEADERS(key) key \
	"Content-Type: application/json\nAccept: application/x-ndjson\n"

static const struct row {
	enum provider_kind provider;
	const char *upstream_model, *system, *api_version;
	enum model_auth auth;
	const char *key, *parameters, *messages;
	const char *url, *headers, *body;
} rows[] = {
	{ PROVIDER_ANTHROPIC, "m", NULL, NULL, AUTH_USUAL, "KEY", NULL, ASK,
	    "https://up.example/v1/messages",
	    ANT_HEADERS("2023-06-01", "x-api-key: KEY\n"),
	    "{\"model\":\"m\",\"stream\":true,\"messages\":" ASK ","
	    "\"max_tokens\":4096}" },
	{ PROVIDER_ANTHROPIC, "m", "You are a bird.", NULL, AUTH_BEARER,
	    "KEY", ALL, TALK, "https://up.example/v1/messages",
	    ANT_HEADERS("2023-06-01", "Authorization: Bearer KEY\n"),
	    "{\"model\":\"m\",\"stream\":true,\"messages\":["
	    "{\"role\":\"user\",\"content\":\"a\\u0000\\\"/\xc5\xbc\"},"
	    "{\"role\":\"assistant\",\"content\":\"b\"},"
	    "{\"role\":\"user\",\"content\":\"c\"}],"
	    "\"system\":\"You are a bird.\\n\\nBe kind.\\n\\nBe brief.\","
	    "\"temperature\":0.70,\"top_p\":0.9,\"top_k\":40,"
	    "\"max_tokens\":100,\"stop_sequences\":[\"END\"],"
	    "\"extra\":{\"a\":[1]}}" },
	{ PROVIDER_ANTHROPIC, "m", NULL, "2026-10-21", AUTH_BEARER, "KEY", ALL,
	    ASK, "https://up.example/v1/messages",
	    ANT_HEADERS("2026-10-21", "Authorization: Bearer KEY\n"),
	    "{\"model\":\"m\",\"stream\":true,\"messages\":" ASK ","
	    "\"max_tokens\":100,\"stop_sequences\":[\"END\"],"
	    "\"extra\":{\"a\":[1]}}" },
	{ PROVIDER_ANTHROPIC, "m", NULL, "2027-01-01", AUTH_NONE, "KEY",
	    "{\"temperature\":1,\"stop\":[\"a\",\"b\"]}", ASK,
	    "https://up.example/v1/messages", ANT_HEADERS("2027-01-01", ""),
	    "{\"model\":\"m\",\"stream\":true,\"messages\":" ASK ","
	    "\"stop_sequences\":[\"a\",\"b\"],\"max_tokens\":4096}" },
	{ PROVIDER_GEMINI, "gemini-test-1", NULL, NULL, AUTH_USUAL, "KEY",
	    NULL, ASK, "https://up.example/v1beta/models/gemini-test-1:"
	    "streamGenerateContent?alt=sse",
	    SSE_HEADERS("x-goog-api-key: KEY\n"),
	    "{\"contents\":[{\"role\":\"user\","
	    "\"parts\":[{\"text\":\"x\"}]}]}" },
	{ PROVIDER_GEMINI, "a/b?key=c:%\xc5\xbc", "You are a bird.", "v1",
	    AUTH_BEARER, "KEY", ALL, TALK,
	    "https://up.example/v1/models/a%2Fb%3Fkey%3Dc%3A%25%C5%BC:"
	    "streamGenerateContent?alt=sse",
	    SSE_HEADERS("Authorization: Bearer KEY\n"),
	    "{\"contents\":["
	    "{\"role\":\"user\",\"parts\":["
	    "{\"text\":\"a\\u0000\\\"/\xc5\xbc\"}]},"
	    "{\"role\":\"model\",\"parts\":[{\"text\":\"b\"}]},"
	    "{\"role\":\"user\",\"parts\":[{\"text\":\"c\"}]}],"
	    "\"systemInstruction\":{\"parts\":[{\"text\":"
	    "\"You are a bird.\\n\\nBe kind.\\n\\nBe brief.\"}]},"
	    "\"extra\":{\"a\":[1]},\"generationConfig\":{\"temperature\":0.70,"
	    "\"topP\":0.9,\"topK\":40,\"maxOutputTokens\":100,"
	    "\"stopSequences\":[\"END\"]}}" },
	{ PROVIDER_GEMINI, "m", NULL, NULL, AUTH_NONE, NULL,
	    "{\"generationConfig\":{\"thinkingConfig\":"
	    "{\"includeThoughts\":true}},\"max_tokens\":5}", ASK,
	    "https://up.example/v1beta/models/m:streamGenerateContent?alt=sse",
	    SSE_HEADERS(""),
	    "{\"contents\":[{\"role\":\"user\","
	    "\"parts\":[{\"text\":\"x\"}]}],\"generationConfig\":"
	    "{\"maxOutputTokens\":5,"
	    "\"thinkingConfig\":{\"includeThoughts\":true}}}" },
	{ PROVIDER_OLLAMA, "m", NULL, NULL, AUTH_USUAL, NULL, NULL, ASK,
	    "https://up.example/api/chat", OLL_HEADERS(""),
	    "{\"model\":\"m\",\"stream\":true,\"messages\":" ASK "}" },
	{ PROVIDER_OLLAMA, "m", "You are a bird.", NULL, AUTH_USUAL, "KEY",
	    ALL, TALK, "https://up.example/api/chat",
	    OLL_HEADERS("Authorization: Bearer KEY\n"),
	    "{\"model\":\"m\",\"stream\":true,\"messages\":["
	    "{\"role\":\"system\",\"content\":\"You are a bird.\"},"
	    "{\"role\":\"system\",\"content\":\"Be kind.\"},"
	    "{\"role\":\"user\",\"content\":\"a\\u0000\\\"/\xc5\xbc\"},"
	    "{\"role\":\"assistant\",\"content\":\"b\"},"
	    "{\"role\":\"system\",\"content\":\"Be brief.\"},"
	    "{\"role\":\"user\",\"content\":\"c\"}],"
	    "\"extra\":{\"a\":[1]},\"options\":{\"temperature\":0.70,"
	    "\"top_p\":0.9,\"top_k\":40,\"num_predict\":100,"
	    "\"stop\":[\"END\"]}}" },
	{ PROVIDER_OLLAMA, "m", NULL, NULL, AUTH_X_API_KEY, "KEY",
	    "{\"think\":true,\"options\":{\"num_ctx\":8192},"
	    "\"temperature\":0}", ASK,
	    "https://up.example/api/chat", OLL_HEADERS("x-api-key: KEY\n"),
	    "{\"model\":\"m\",\"stream\":true,\"messages\":" ASK ","
	    "\"think\":true,\"options\":{\"temperature\":0,"
	    "\"num_ctx\":8192}}" },
};

static const char *own; /* the chat's parameters; NULL: none */

static enum rs_err
make(const struct row *row, struct http_req *req)
{
	struct model m = {
		.provider = row->provider,
		.base_url = (char *)"https://up.example",
		.upstream_model = (char *)row->upstream_model,
		.system = (char *)row->system,
		.api_version = (char *)row->api_version,
		.auth = row->auth,
	};
	struct chat chat = { .model = &m, .key = row->key };
	enum rs_err err;

	chat.messages = json_tokener_parse(row->messages);
	ck_assert_ptr_nonnull(chat.messages);
	if (row->parameters != NULL) {
		m.parameters = json_tokener_parse(row->parameters);
		ck_assert_ptr_nonnull(m.parameters);
	}
	if (own != NULL) {
		chat.parameters = json_tokener_parse(own);
		ck_assert_ptr_nonnull(chat.parameters);
	}
	http_req_init(req);
	err = provider_get(&m)->request(&chat, req);
	/* What was lent is as it was. */
	ck_assert_int_eq(json_object_put(chat.messages), 1);
	if (m.parameters != NULL)
		ck_assert_int_eq(json_object_put(m.parameters), 1);
	if (chat.parameters != NULL)
		ck_assert_int_eq(json_object_put(chat.parameters), 1);
	return err;
}

START_TEST(a_request_is_what_the_upstream_wants)
{
	struct http_req req;
	size_t i;

	ck_assert_int_eq(make(&rows[_i], &req), RS_OK);
	ck_assert_str_eq(req.url.data, rows[_i].url);
	ck_assert_uint_eq(strlen(req.url.data), req.url.len);
	for (i = 0; i < req.headers.len; i++)
		if (req.headers.data[i] == '\0')
			req.headers.data[i] = '\n';
	ck_assert_str_eq(req.headers.data, rows[_i].headers);
	ck_assert_str_eq(req.body.data, rows[_i].body);
	ck_assert_uint_eq(strlen(req.body.data), req.body.len);
	http_req_done(&req);
}
END_TEST

START_TEST(a_chats_own_parameters_win_over_the_models)
{
	const struct row row = {
		.provider = PROVIDER_ANTHROPIC, .upstream_model = "m",
		.parameters = "{\"temperature\":1,\"max_tokens\":9}",
		.messages = ASK,
	};
	struct http_req req;

	own = "{\"max_tokens\":1,\"extra\":2}";
	ck_assert_int_eq(make(&row, &req), RS_OK);
	own = NULL;
	ck_assert_str_eq(req.body.data, "{\"model\":\"m\",\"stream\":true,"
	    "\"messages\":" ASK ",\"max_tokens\":1,\"extra\":2,"
	    "\"temperature\":1}");
	http_req_done(&req);
}
END_TEST

/* They would take the place of what the provider says, or cannot be told. */
static const struct {
	enum provider_kind provider;
	const char *parameters;
} unusable[] = {
	{ PROVIDER_ANTHROPIC, "{\"stream\":false}" },
	{ PROVIDER_ANTHROPIC, "{\"messages\":[]}" },
	{ PROVIDER_ANTHROPIC, "{\"stop\":\"a\",\"stop_sequences\":[\"b\"]}" },
	{ PROVIDER_ANTHROPIC, "{\"thinking\":null}" },
	{ PROVIDER_GEMINI, "{\"contents\":[]}" },
	{ PROVIDER_GEMINI, "{\"generationConfig\":7}" },
	{ PROVIDER_GEMINI, "{\"generationConfig\":{\"a\":null}}" },
	{ PROVIDER_GEMINI, "{\"generationConfig\":{\"topP\":1},\"top_p\":0}" },
	{ PROVIDER_OLLAMA, "{\"model\":\"other\"}" },
	{ PROVIDER_OLLAMA, "{\"options\":[]}" },
	{ PROVIDER_OLLAMA, "{\"max_tokens\":1,\"options\":"
	    "{\"num_predict\":2}}" },
};

START_TEST(a_parameter_that_cannot_be_used_is_refused)
{
	const struct row row = {
		.provider = unusable[_i].provider, .upstream_model = "m",
		.parameters = unusable[_i].parameters, .messages = ASK,
	};
	struct http_req req;

	ck_assert_int_eq(make(&row, &req), RS_EINVAL);
	http_req_done(&req);
}
END_TEST

START_TEST(a_key_that_would_end_its_header_is_refused)
{
	const struct row row = {
		.provider = (enum provider_kind)_i, .upstream_model = "m",
		.key = "KEY\r\nHost: elsewhere", .messages = ASK,
	};
	struct http_req req;

	ck_assert_int_eq(make(&row, &req), RS_EINVAL);
	http_req_done(&req);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("requests");
	TCase *tc = tcase_create("requests");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, a_chats_own_parameters_win_over_the_models);
	tcase_add_loop_test(tc, a_request_is_what_the_upstream_wants, 0,
	    COUNT(rows));
	tcase_add_loop_test(tc, a_parameter_that_cannot_be_used_is_refused, 0,
	    COUNT(unusable));
	tcase_add_loop_test(tc, a_key_that_would_end_its_header_is_refused,
	    PROVIDER_OPENAI, PROVIDER_EXEC);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
