/* quota_need.c - what a generation can come to, at the worst. */
#include <json-c/json.h>
#include <string.h>

#include "jx.h"
#include "money.h"
#include "provider.h"
#include "quota.h"

#define PER_MESSAGE 16	/* tokens beside a message's text, at most */
#define BYTES_PER_TOKEN 4 /* as history_tokens counts */
#define TOKENS_MAX UINT64_C(1000000000000000) /* as the limits' own maximum */

/* ---- output ---- */

/* The names under which a maximum reaches a provider's upstream: as members
 * of the parameters, or of an object among them. */
static const struct maximum {
	enum provider_kind provider;
	const char *inner;	/* NULL: none */
	const char *name;
} maxima[] = {
	{ PROVIDER_OPENAI, NULL, "max_tokens" },
	{ PROVIDER_OPENAI, NULL, "max_completion_tokens" },
	{ PROVIDER_RESPONSES, NULL, "max_tokens" },
	{ PROVIDER_RESPONSES, NULL, "max_output_tokens" },
	{ PROVIDER_ANTHROPIC, NULL, "max_tokens" },
	{ PROVIDER_GEMINI, NULL, "max_tokens" },
	{ PROVIDER_GEMINI, "generationConfig", "maxOutputTokens" },
	{ PROVIDER_OLLAMA, NULL, "max_tokens" },
	{ PROVIDER_OLLAMA, "options", "num_predict" },
};

static struct json_object *
parameter(const struct model *m, struct json_object *parameters,
    const char *name)
{
	struct json_object *v;

	if (json_object_object_get_ex(parameters, name, &v))
		return v;
	return json_object_object_get(m->parameters, name);
}

/* What the demo's entry says; where it echoes, the message does. */
static uint64_t
demo_output(const struct demo_script *s)
{
	return s->text != NULL ? strlen(s->text) : s->chunks;
}

/* 0: nothing says. */
static uint64_t
max_output(const struct model *m, struct json_object *parameters)
{
	const struct maximum *x;
	uint64_t max = 0, n;

	if (m->provider == PROVIDER_DEMO)
		return demo_output(&m->demo);
	for (x = maxima; x < maxima + sizeof maxima / sizeof maxima[0]; x++) {
		struct json_object *v;

		if (x->provider != m->provider)
			continue;
		v = parameter(m, parameters, x->inner != NULL ? x->inner :
		    x->name);
		if (x->inner != NULL)
			v = json_object_object_get(v, x->name);
		/* json-c keeps what does not fit as the largest it knows. */
		if (!json_object_is_type(v, json_type_int) ||
		    json_object_get_int64(v) <= 0)
			continue;
		n = (uint64_t)json_object_get_int64(v);
		max = n > max ? n : max;
	}
	if (max == 0 && m->provider == PROVIDER_ANTHROPIC)
		max = ANTHROPIC_MAX_TOKENS;
	return max < TOKENS_MAX ? max : TOKENS_MAX;
}

uint64_t
quota_cut(const struct conf *c, const struct model *m,
    struct json_object *parameters)
{
	return quota_reserves(c) && m->provider != PROVIDER_DEMO &&
	    max_output(m, parameters) == 0 ? c->reserve_tokens : UINT64_MAX;
}

/* ---- input ---- */

static uint64_t
text_bytes(struct json_object *o, const char *name)
{
	const char *text;
	size_t len;

	return jx_get_str(o, name, &text, &len) == RS_OK ? len : 0;
}

/* Tools and schemas are read by the model too. */
static uint64_t
json_bytes(struct json_object *o)
{
	struct buf b;
	uint64_t len;

	if (o == NULL)
		return 0;
	buf_init(&b, TOKENS_MAX);
	jx_put(&b, o);
	len = b.len;
	buf_done(&b);
	return len;
}

static uint64_t
prompt_tokens(const struct conf *c, struct json_object *prompt, bool turn)
{
	struct json_object *all = json_object_object_get(prompt, "messages");
	uint64_t sum = PER_MESSAGE + text_bytes(prompt, "system");
	size_t i;

	for (i = 0; i < json_object_array_length(all); i++)
		sum += PER_MESSAGE + text_bytes(json_object_array_get_idx(all,
		    i), "content");
	if (turn)
		sum += PER_MESSAGE + BYTES_PER_TOKEN * c->history_tokens;
	return sum + json_bytes(json_object_object_get(prompt,
	    "parameters"));
}

/* ---- both ---- */

static uint64_t
model_cost(const struct prices *p, uint64_t input, uint64_t output)
{
	uint64_t price = p->input;

	if (p->cache_write != MONEY_UNKNOWN && p->cache_write > price)
		price = p->cache_write;
	if (p->cache_read != MONEY_UNKNOWN && p->cache_read > price)
		price = p->cache_read;
	return money_add(money_mul(input, price), money_mul(output,
	    p->output));
}

static void
add_model(const struct conf *c, const struct model *m,
    struct json_object *prompt, uint64_t input, struct usage_worst *ret)
{
	uint64_t output = max_output(m, json_object_object_get(prompt,
	    "parameters"));
	uint64_t cost;

	if (m->system != NULL)
		input += PER_MESSAGE + strlen(m->system);
	input += json_bytes(m->parameters);
	if (output == 0)
		output = m->provider == PROVIDER_DEMO ? input :
		    c->reserve_tokens;
	cost = model_cost(&m->prices, input, output);
	if (ret->tokens < input + output)
		ret->tokens = input + output;
	if (ret->cost == MONEY_UNKNOWN ||
	    (cost != MONEY_UNKNOWN && cost > ret->cost))
		ret->cost = cost;
}

void
quota_need(const struct conf *c, const struct model *m,
    struct json_object *prompt, bool turn, struct usage_worst *ret)
{
	uint64_t input = prompt_tokens(c, prompt, turn);
	size_t i;

	ret->tokens = 0;
	ret->cost = MONEY_UNKNOWN;
	add_model(c, m, prompt, input, ret);
	for (i = 0; i < m->fallback_count; i++)
		add_model(c, m->fallback[i], prompt, input, ret);
}

/* ---- what guards nothing ---- */

static bool
has_prices(const struct model *m)
{
	return m->prices.input != MONEY_UNKNOWN &&
	    m->prices.output != MONEY_UNKNOWN;
}

/* The first model that costs money (the demo's prices are made up) and has
 * prices, or has none; or NULL. */
static const struct model *
find_priced(const struct models *m, bool priced)
{
	size_t i;

	for (i = 0; i < m->count; i++)
		if (m->all[i].provider != PROVIDER_DEMO &&
		    has_prices(&m->all[i]) == priced)
			return &m->all[i];
	return NULL;
}

/* A limit of a day that even the shortest prompt would go over. */
static void
warn_of_never(const struct conf *c, const struct models *m, const char *limit,
    uint64_t max, bool money, struct buf *ret)
{
	struct json_object *prompt = json_tokener_parse(
	    "{\"messages\":[{\"content\":\"?\"}]}");
	struct usage_worst w;
	uint64_t n;
	size_t i;

	for (i = 0; prompt != NULL && max > 0 && i < m->count; i++) {
		quota_need(c, &m->all[i], prompt, false, &w);
		n = money ? w.cost : w.tokens;
		if (n <= max || n == MONEY_UNKNOWN)
			continue;
		buf_printf(ret, "%s can never be asked: each answer reserves ",
		    m->all[i].name);
		if (money) {
			money_put(ret, n);
			buf_puts(ret, " USD");
		} else {
			buf_printf(ret, "%llu tokens", (unsigned long long)n);
		}
		buf_printf(ret, " or more, and %s is less\n", limit);
		break;
	}
	json_object_put(prompt);
}

void
quota_warn(const struct conf *c, const struct models *m, struct buf *ret)
{
	const struct model *costs = find_priced(m, true);
	const struct model *free_of_charge = find_priced(m, false);
	const char *limit = c->max_cost_per_day > 0 ? "max_cost_per_day" :
	    c->owner_max_cost > 0 ? "owner_max_cost" :
	    c->address_max_cost > 0 ? "address_max_cost" : NULL;

	if (costs != NULL && c->owner_by == OWNER_BY_REQUEST &&
	    c->max_cost_per_day == 0)
		buf_printf(ret, "%s costs money, and with auth = none anybody "
		    "may spend it under any name: set max_cost_per_day\n",
		    costs->name);
	if (free_of_charge != NULL && limit != NULL)
		buf_printf(ret, "%s has no prices, so that what it costs "
		    "counts as nothing for %s: give it some (0 where it is "
		    "free)\n", free_of_charge->name, limit);
#define NEVER(limit, money) \
	warn_of_never(c, m, #limit, c->limit, money, ret)
	NEVER(owner_max_tokens, false);
	NEVER(address_max_tokens, false);
	NEVER(owner_max_cost, true);
	NEVER(address_max_cost, true);
	NEVER(max_cost_per_day, true);
#undef NEVER
}
