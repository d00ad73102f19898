/* ctl_personas.c - respoolctl personas: who there is, and what is wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "model.h"
#include "persona.h"

#define FAULTS_SIZE_MAX (1 << 20)

static void
list(const struct personas *all, const struct models *models,
    const char *def)
{
	const struct persona *p;
	size_t i;

	printf("%-24s %-24s %s\n", "ID", "MODEL", "NAME");
	for (i = 0; i < all->count; i++) {
		p = &all->all[i];
		printf("%-24s %-24s %s%s\n", p->id,
		    p->model != NULL ? p->model : models->def->name, p->name,
		    strcmp(p->id, def) == 0 ? " (default)" : "");
	}
}

int
ctl_personas(struct ctl *ctl, int argc, char **argv)
{
	const char *def = ctl->conf->default_persona;
	struct personas *all = NULL;
	struct models *models = NULL;
	struct buf why;
	enum rs_err err;

	(void)argc;
	(void)argv;
	buf_init(&why, FAULTS_SIZE_MAX);
	if ((err = models_load(ctl->conf->models_file, &models, &why)) !=
	    RS_OK ||
	    (err = personas_load(ctl->conf->personas_dir, &all, &why)) !=
	    RS_OK)
		goto out;
	list(all, models, def);
	if (personas_check(all, models, def, &why) > 0)
		err = RS_EINVAL;
out:
	if (why.len > 0)
		fputs(why.data, stderr);
	else if (err != RS_OK)
		ctl_fail("personas", rs_strerror(err));
	personas_free(all);
	models_unref(models);
	buf_done(&why);
	return err == RS_OK ? EXIT_SUCCESS : CTL_FAULT;
}
