/* provider.c - which provider is which. */
#include "provider.h"

const struct provider *
provider_get(const struct model *m)
{
	static const struct provider *const exec[] = {
		[EXEC_TEXT] = &provider_exec_text,
		[EXEC_LINES] = &provider_exec_lines,
		[EXEC_JSONL] = &provider_exec_jsonl,
	};
	static const struct provider *const table[] = {
		[PROVIDER_DEMO] = NULL,
		[PROVIDER_OPENAI] = &provider_openai,
		[PROVIDER_RESPONSES] = &provider_responses,
		[PROVIDER_ANTHROPIC] = &provider_anthropic,
		[PROVIDER_GEMINI] = &provider_gemini,
		[PROVIDER_OLLAMA] = &provider_ollama,
	};

	return m->provider == PROVIDER_EXEC ? exec[m->exec.format] :
	    table[m->provider];
}
