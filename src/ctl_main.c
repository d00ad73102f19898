/* ctl_main.c - respoolctl: options, set-up, the table of commands. */
#include <sys/stat.h>

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "log.h"
#include "metrics.h"

static const struct ctl_cmd {
	const char *name;
	const char *args;
	int min, max;	/* number of arguments */
	int (*run)(struct ctl *ctl, int argc, char **argv);
	const char *what;
	bool alone;	/* needs neither a spool nor a good models file */
} cmds[] = {
	{ "list", "", 0, 0, ctl_list, "the streams, newest first", false },
	{ "show", "ID", 1, 1, ctl_show, "what a stream says, as JSON", false },
	{ "tail", "ID", 1, 1, ctl_tail, "a stream's frames, to its end",
	    false },
	{ "stop", "ID | --all", 1, 1, ctl_stop,
	    "end a stream that is being written, or all of them", false },
	{ "gc", "[--dry-run]", 0, 1, ctl_gc,
	    "remove what is older than ttl or above the spool's caps", false },
	{ "check", "[--fix]", 0, 1, ctl_check, "find (and mend) damage",
	    false },
	{ "usage", "[--day D] [--owner O] [--model M] [--json]", 0, 7,
	    ctl_usage, "what was used and what it cost", false },
	{ "models", "[check [--ping]]", 0, 2, ctl_models,
	    "the models; what is wrong with them", true },
	{ "personas", "", 0, 0, ctl_personas,
	    "the personas; what is wrong with them", true },
	{ "doctor", "[URL]", 0, 1, ctl_doctor,
	    "what is wrong with the installation, and its cure", true },
};
#define CMD_COUNT (sizeof cmds / sizeof cmds[0])

static void
usage(FILE *to)
{
	size_t i;

	fprintf(to, "usage: respoolctl [-Vh] [-c file] [-u owner] command\n");
	for (i = 0; i < CMD_COUNT; i++)
		fprintf(to, "  %s %s\n\t%s\n", cmds[i].name, cmds[i].args,
		    cmds[i].what);
}

int
ctl_fail(const char *what, const char *why)
{
	fprintf(stderr, "respoolctl: %s: %s\n", what, why);
	return CTL_FAULT;
}

enum rs_err
ctl_seal(struct ctl *ctl, const struct stream_key *k)
{
	struct wake_reply reply;
	enum rs_err err;
	int lock_fd;

	err = spool_lock_mutator(ctl->sp, &lock_fd);
	if (err == RS_OK) {
		err = spool_seal(ctl->sp, k);
		close(lock_fd);
	} else if (err == RS_EBUSY) {
		err = wake_seal(ctl->wake, k, &reply);
		if (err == RS_OK)
			err = reply.err;
	}
	return err;
}

/* A file that root makes in the spool is one that responders cannot write. */
static bool
become_owner(const char *spool_dir)
{
	struct stat st;

	if (geteuid() != 0)
		return true;
	if (stat(spool_dir, &st) < 0)
		return errno == ENOENT;
	return st.st_uid == 0 || (setgroups(0, NULL) == 0 &&
	    setgid(st.st_gid) == 0 && setuid(st.st_uid) == 0);
}

static int
run(struct ctl *ctl, const struct ctl_cmd *cmd, int argc, char **argv)
{
	struct models_file *models = NULL;
	struct stat st;
	struct buf why;
	int status;

	if (ctl->conf == NULL)
		return cmd->run(ctl, argc, argv);
	if (stat(ctl->conf->spool_dir, &st) < 0 && !cmd->alone)
		return ctl_fail(ctl->conf->spool_dir, strerror(errno));
	if (!become_owner(ctl->conf->spool_dir))
		return ctl_fail("cannot become the spool's owner",
		    strerror(errno));
	if (cmd->alone)
		return cmd->run(ctl, argc, argv);
	buf_init(&why, 4096);
	if (models_file_open(ctl->conf->models_file, &models, &why) != RS_OK)
		status = ctl_fail("models file",
		    why.len > 0 ? why.data : "cannot be read");
	else if (spool_open(ctl->conf, &ctl->sp, &why) != RS_OK)
		status = ctl_fail(ctl->conf->spool_dir,
		    why.len > 0 ? why.data : "cannot be opened");
	else if (fchdir(ctl->sp->fd) < 0 ||
	    wake_client_new(ctl->conf, ctl->sp, models, false,
	    &ctl->wake) != RS_OK)
		status = ctl_fail(ctl->conf->spool_dir, strerror(errno));
	else {
		(void)metrics_open(ctl->sp, false);
		status = cmd->run(ctl, argc, argv);
	}
	wake_client_free(ctl->wake);
	metrics_close();
	spool_close(ctl->sp);
	models_file_free(models);
	buf_done(&why);
	return status;
}

static const struct ctl_cmd *
cmd_find(const char *name, int argc)
{
	size_t i;

	for (i = 0; i < CMD_COUNT; i++)
		if (strcmp(cmds[i].name, name) == 0)
			return argc >= cmds[i].min && argc <= cmds[i].max ?
			    &cmds[i] : NULL;
	return NULL;
}

int
main(int argc, char **argv)
{
	const struct ctl_cmd *cmd = NULL;
	const char *conf_file = NULL;
	struct conf *conf = NULL;
	struct ctl ctl = { 0 };
	struct buf why;
	int ch, status = CTL_FAULT;

	/* "+": options behind the command are the command's. */
	while ((ch = getopt(argc, argv, "+c:u:Vh")) != -1) {
		switch (ch) {
		case 'c':
			conf_file = optarg;
			break;
		case 'u':
			ctl.owner = optarg;
			break;
		case 'V':
			printf("respoolctl %s\n", PACKAGE_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		default:
			usage(stderr);
			return CTL_USAGE;
		}
	}
	argc -= optind + 1;
	argv += optind + 1;
	if (argc >= 0)
		cmd = cmd_find(argv[-1], argc);
	if (cmd == NULL || (ctl.owner != NULL &&
	    !spool_owner_valid(ctl.owner, strlen(ctl.owner)))) {
		usage(stderr);
		return CTL_USAGE;
	}
	log_open(LOGL_WARN, "");
	buf_init(&why, 16384);
	if (conf_load(conf_file, &conf, &why) != RS_OK &&
	    cmd->run != ctl_doctor) {
		ctl_fail("configuration", why.len > 0 ? why.data : "");
	} else {
		ctl.conf = conf;
		ctl.conf_why = why.data;
		status = run(&ctl, cmd, argc, argv);
	}
	conf_free(conf);
	buf_done(&why);
	if (fflush(stdout) == EOF || ferror(stdout))
		status = ctl_fail("standard output", strerror(errno));
	return status;
}
