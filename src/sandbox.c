/* sandbox.c - Landlock: which directories are open, and for what. */
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sandbox.h"

/* As in the kernel's linux/landlock.h, of which C libraries have older copies
 * than the kernel that we may meet. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif
#define VERSION_FLAG 1u
#define RULE_PATH_BENEATH 1
#define FS_EXECUTE (UINT64_C(1) << 0)
#define FS_WRITE_FILE (UINT64_C(1) << 1)
#define FS_READ_FILE (UINT64_C(1) << 2)
#define FS_READ_DIR (UINT64_C(1) << 3)
#define FS_TRUNCATE (UINT64_C(1) << 14)
#define FS_IOCTL_DEV (UINT64_C(1) << 15)
#define FS_READ (FS_READ_FILE | FS_READ_DIR)
/* What a rule for something that is no directory may say. */
#define FS_OF_FILES \
	(FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)
#define NET_BIND_TCP (UINT64_C(1) << 0)
#define SCOPE_SIGNAL (UINT64_C(1) << 1)

struct ruleset_attr {
	uint64_t fs, net, scoped;
};

struct path_attr {
	uint64_t access;
	int32_t fd;
} __attribute__((packed));

struct box {
	int fd;
	uint64_t fs;	/* all that this kernel can restrict */
	enum rs_err err; /* the first one */
};

/* What there is to restrict, by the version of the interface. */
static struct ruleset_attr
all_of(long abi)
{
	struct ruleset_attr a = { .fs = (UINT64_C(1) << 13) - 1 };

	if (abi >= 2)
		a.fs |= UINT64_C(1) << 13;
	if (abi >= 3)
		a.fs |= FS_TRUNCATE;
	if (abi >= 4)
		a.net = NET_BIND_TCP;
	if (abi >= 5)
		a.fs |= FS_IOCTL_DEV;
	if (abi >= 6)
		a.scoped = SCOPE_SIGNAL;
	return a;
}

static void
open_up_fd(struct box *b, int fd, uint64_t access)
{
	struct path_attr a = { .access = access & b->fs, .fd = fd };
	struct stat st;

	if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
		a.access &= FS_OF_FILES;
	if (syscall(SYS_landlock_add_rule, b->fd, RULE_PATH_BENEATH, &a, 0) <
	    0 && b->err == RS_OK)
		b->err = rs_from_errno(errno);
}

static void
open_up(struct box *b, const char *path, uint64_t access)
{
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		return; /* what is not there, or not for us, stays so */
	open_up_fd(b, fd, access);
	close(fd);
}

/* The directory that a file is in: another file may take its name.  Of an
 * empty name, or one without a directory, nothing. */
static void
open_up_around(struct box *b, const char *file, uint64_t access)
{
	const char *slash = file == NULL ? NULL : strrchr(file, '/');
	char dir[4096];
	size_t len;

	if (slash == NULL || (len = (size_t)(slash - file)) >= sizeof dir)
		return;
	memcpy(dir, file, len);
	dir[len] = '\0';
	open_up(b, len == 0 ? "/" : dir, access);
}

static void
open_up_system(struct box *b)
{
	static const char *const programs[] = {
		"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
	};
	/* The resolver's files are links into /run here and there, and
	 * certificates into /var/lib. */
	static const char *const data[] = {
		"/etc", "/proc", "/sys/devices/system/cpu", "/dev/urandom",
		"/dev/random", "/dev/zero", "/run/systemd/resolve",
		"/run/NetworkManager", "/run/resolvconf", "/run/connman",
		"/var/lib/ca-certificates",
	};
	size_t i;

	for (i = 0; i < sizeof programs / sizeof programs[0]; i++)
		open_up(b, programs[i], FS_READ | FS_EXECUTE);
	for (i = 0; i < sizeof data / sizeof data[0]; i++)
		open_up(b, data[i], FS_READ);
	open_up(b, "/dev/null", FS_READ_FILE | FS_WRITE_FILE);
}

static void
open_up_models(struct box *b, const struct models *models)
{
	const struct model *m;

	for (m = models->all; m < models->all + models->count; m++) {
		open_up_around(b, m->api_key_file, FS_READ);
		if (m->exec.command != NULL)
			open_up_around(b, m->exec.command[0],
			    FS_READ | FS_EXECUTE);
		if (m->exec.cwd != NULL)
			open_up(b, m->exec.cwd, FS_READ | FS_EXECUTE);
	}
}

enum rs_err
sandbox_enter(const struct conf *conf, const struct spool *sp,
    const struct models *models)
{
	struct ruleset_attr all;
	struct box b = { .err = RS_OK };
	long abi;

	abi = syscall(SYS_landlock_create_ruleset, NULL, 0, VERSION_FLAG);
	if (abi < 1)
		return RS_ENOENT;
	all = all_of(abi);
	b.fs = all.fs;
	b.fd = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);
	if (b.fd < 0)
		return rs_from_errno(errno);
	open_up_system(&b);
	open_up_fd(&b, sp->fd, b.fs & ~FS_EXECUTE);
	open_up_around(&b, conf->log_file, b.fs & ~FS_EXECUTE);
	open_up_around(&b, conf->file, FS_READ);
	open_up_around(&b, conf->models_file, FS_READ);
	open_up_around(&b, conf->ca_file, FS_READ);
	open_up_models(&b, models);
	if (b.err == RS_OK && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    syscall(SYS_landlock_restrict_self, b.fd, 0) < 0))
		b.err = rs_from_errno(errno);
	close(b.fd);
	return b.err;
}
