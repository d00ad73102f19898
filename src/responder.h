/* responder.h - what every request of a responder process shares. */
#ifndef RESPOOL_RESPONDER_H
#define RESPOOL_RESPONDER_H

#include "client.h"
#include "conf.h"
#include "follow.h"
#include "model.h"
#include "reload.h"
#include "spool.h"
#include "wake.h"

struct responder {
	const struct conf *conf;
	struct spool *spool;
	struct models_file *models;
	struct reload *templates;	/* struct tmpl_set; templates_kind */
	struct reload *personas;	/* struct personas; personas_kind */
	struct reload *triage;		/* struct triage; triage_kind */
	struct reload *jwt_key;		/* auth_key_kind */
	struct wake_client *wake;
	struct follow_loop *loop;
};

extern const struct reload_kind templates_kind, triage_kind; /* act_tmpl.c */
extern const struct reload_kind personas_kind; /* act_conv.c */

/* Answers one request (route.c): writes the response and finishes the client,
 * or hands it over to the loop.  Takes c.  Blocks; any thread. */
void route_serve(struct responder *r, struct client *c);

#endif
