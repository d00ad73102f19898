/* auth.h - who makes a request, as the setting auth says. */
#ifndef RESPOOL_AUTH_H
#define RESPOOL_AUTH_H

#include <stdbool.h>
#include "conf.h"
#include "reload.h"
#include "reply.h"

enum auth_result {
	AUTH_OK,	/* rq->owner and rq->ambient are set */
	AUTH_NOBODY,	/* it does not say */
	AUTH_REFUSED,	/* what it shows is not valid */
	AUTH_INVALID,	/* user_id is no owner, or there are two */
	AUTH_UNABLE,	/* we cannot tell: no key, no libjwt; it is logged */
};

/* Whose request it is.  Parameters are looked at where rq->params is there:
 * without, and with auth = none, it is nobody's in particular (AUTH_OK with
 * the owner ""). */
enum auth_result auth_owner(struct request *rq);

/* A token may come as a parameter. */
bool auth_by_parameter(const struct conf *c);

/* How the key for tokens is read, with libjwt, for struct responder.  Its load
 * says what is wrong: a file that is not there or not ours, a secret too short,
 * a key of another algorithm, no libjwt. */
const struct reload_kind *auth_key_kind(const struct conf *c);

#endif
