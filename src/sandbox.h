/* sandbox.h - what the spooler may still do when somebody else has come to
 * command it: Landlock, which the kernel has had since 5.13. */
#ifndef RESPOOL_SANDBOX_H
#define RESPOOL_SANDBOX_H

#include "conf.h"
#include "err.h"
#include "model.h"
#include "spool.h"

/* From now on this thread, those that it starts and all that they run can
 * - write in the spool and in log_file's directory, and nowhere else;
 * - read there, in the system's directories (/usr, /etc, /proc ...), and in
 *   those of the configuration, the models file, its keys and certificates;
 * - run what is in /usr, and what the models run or have as their cwd;
 * - not trace or signal (Linux 6.12) a process that is not among them, nor
 *   listen on a TCP port (6.7).
 * Directories that are not there now stay closed.  What is open stays open;
 * connecting is not restricted.  It cannot be taken back, and sets
 * PR_SET_NO_NEW_PRIVS.
 * RS_OK; RS_ENOENT: this kernel has no Landlock, or it is switched off; else
 * nothing is restricted either. */
enum rs_err sandbox_enter(const struct conf *conf, const struct spool *sp,
    const struct models *models);

#endif
