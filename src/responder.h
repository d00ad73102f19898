/* responder.h - what every request of a responder process shares. */
#ifndef RESPOOL_RESPONDER_H
#define RESPOOL_RESPONDER_H

#include "client.h"
#include "conf.h"
#include "follow.h"
#include "model.h"
#include "spool.h"
#include "wake.h"

struct responder {
	const struct conf *conf;
	struct spool *spool;
	struct models_file *models;
	struct wake_client *wake;
	struct follow_loop *loop;
};

/* Answers one request (route.c): writes the response and finishes the client,
 * or hands it over to the loop.  Takes c.  Blocks; any thread. */
void route_serve(struct responder *r, struct client *c);

#endif
