/* hub.h - the spooler's side of the wake protocol: connections, requests,
 * subscriptions; and the loop around the generations. */
#ifndef RESPOOL_HUB_H
#define RESPOOL_HUB_H

#include "conf.h"
#include "err.h"
#include "model.h"
#include "spool.h"

struct hub;

/* Recovers what dead spoolers have left.  socket: the name that listen_fd is bound to; lock_fd: holds spooler.lock.
 * Both descriptors are the hub's from here on, also on failure; the rest is
 * lent. */
enum rs_err hub_new(const struct conf *conf, struct spool *sp,
    struct models_file *models, const char *socket, int listen_fd,
    int lock_fd, struct hub **ret);
void hub_free(struct hub *h);

/* Serves until the spooler is idle or drained.  SIGTERM and SIGINT must be
 * blocked: they are read here.  The first one drains, a second one ends every
 * stream.  forever: an idle spooler stays. */
void hub_run(struct hub *h, bool forever);

#endif
